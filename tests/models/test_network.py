import dataclasses

import pytest
import torch

from flora.datasets.base import Batch, collate, map_layers, optical_stack
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.models.config import SIZES, FloraConfig, named_config
from flora.models.network import Flora, parameter_count
from flora.models.norms import NORMS
from flora.predictors import MODES
from flora.training.objective import LossWeights
from flora.training.tasks import GuidanceMix, StudentTask, TeacherTask

SMALLEST = FloraConfig(
    widths=(8, 16, 16), attention_levels=(1,), window_sizes=(2, 4), heads=2, attention_depth=2
)


@pytest.fixture(scope="module")
def batch() -> Batch:
    dataset = Simulated("train", count=2, size=64)
    return collate([dataset[0], dataset[1]])


BLENDED = dataclasses.replace(SMALLEST, joining="blended", detail=4, marked=True)


GUIDED = dataclasses.replace(BLENDED, joining="guided")


@pytest.fixture(scope="module", params=[SMALLEST, BLENDED, GUIDED], ids=lambda c: c.joining)
def trained(batch: Batch, request: pytest.FixtureRequest) -> Flora:
    """A model after a few steps, so that no zero-initialised branch hides a dependence."""
    torch.manual_seed(0)
    model = Flora(request.param)
    for task, steps in ((TeacherTask(model), 2), (StudentTask(model), 6)):
        optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            task(batch)[0].backward()
            optimizer.step()
    return model.eval()


def test_sizes_keep_their_budgets() -> None:
    count = {size: parameter_count(Flora(config)) for size, config in SIZES.items()}
    assert count["tiny"] < 500_000
    assert count["small"] <= 4_900_000
    assert SIZES["paper"].widths == (64, 128, 256, 512)
    assert SIZES["paper"].stem_stride == 1
    with pytest.raises(FloraError, match=r"'huge'.*tiny, small, paper"):
        named_config("huge")


@pytest.mark.parametrize("config", [SMALLEST, BLENDED])
def test_config_survives_json(config: FloraConfig) -> None:
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in config.to_dict().items()}
    assert FloraConfig.from_dict(values) == config


@pytest.mark.parametrize("config", [SMALLEST, BLENDED])
def test_fused_features_are_the_sar_features_at_first(batch: Batch, config: FloraConfig) -> None:
    model = Flora(config).eval()
    output = model(batch["sar"], model.guide_from(batch, "oracle"))
    for fused, student in zip(output.fused, model.sar_encoder(batch["sar"]), strict=True):
        assert torch.equal(fused, student)


def test_mode_sar_ignores_the_optical_images_and_the_others_do_not(
    trained: Flora, batch: Batch
) -> None:
    other = Batch(**batch)
    other["optical"] = 1 - batch["optical"]
    other["before"] = dataclasses.replace(batch["before"], image=1 - batch["before"].image)
    other["optical_valid"] = torch.ones_like(batch["optical_valid"])

    def water(data: Batch, mode: str) -> torch.Tensor:
        return trained(data["sar"], trained.guide_from(data, mode)).water_logits  # type: ignore[arg-type]

    assert torch.equal(water(batch, "sar"), water(other, "sar"))
    assert not torch.allclose(water(batch, "before"), water(other, "before"))
    assert not torch.allclose(water(batch, "oracle"), water(other, "oracle"))


def test_mode_before_does_not_see_the_image_to_reconstruct(trained: Flora, batch: Batch) -> None:
    other = Batch(**batch)
    other["optical"] = 1 - batch["optical"]
    other["index"] = -batch["index"]
    for a, b in zip(
        trained(batch["sar"], trained.guide_from(batch, "before"))[:2],
        trained(other["sar"], trained.guide_from(other, "before"))[:2],
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_fully_clouded_guide_is_no_guide(trained: Flora, batch: Batch) -> None:
    clouded = trained.guide(
        batch["optical"], batch["index"], torch.zeros_like(batch["optical_valid"])
    )
    torch.testing.assert_close(
        trained(batch["sar"], clouded).rgb, trained(batch["sar"], None).rgb, atol=0, rtol=0
    )


def test_what_lies_under_cloud_does_not_reach_the_output(trained: Flora, batch: Batch) -> None:
    valid = torch.ones_like(batch["optical_valid"])
    valid[:, :32] = False
    noisy = batch["optical"].clone()
    noisy[:, :, :32] = torch.rand_like(noisy[:, :, :32])
    other = batch["index"].clone()
    other[:, :, :32] = 1 - other[:, :, :32]
    a = trained(batch["sar"], trained.guide(batch["optical"], batch["index"], valid))
    b = trained(batch["sar"], trained.guide(noisy, other, valid))
    assert torch.equal(a.rgb, b.rgb)
    clear = torch.ones_like(valid)
    seen = trained(batch["sar"], trained.guide(noisy, batch["index"], clear))
    assert not torch.allclose(a.rgb, seen.rgb)


@pytest.mark.parametrize("config", [SMALLEST, BLENDED])
def test_every_parameter_that_runs_in_mode_sar_is_trained_in_mode_sar(
    batch: Batch, config: FloraConfig
) -> None:
    """Only samples guided by SAR alone: what deployment runs must learn from such samples."""
    torch.manual_seed(0)
    model = Flora(config)
    task = StudentTask(
        model,
        LossWeights(distill_fused=0.0, distill_prior=0.0),
        GuidanceMix(sar=1.0, before=0.0, oracle=0.0),
    )
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.1)
    # The zero-initialised branches pass no gradient on before their first step.
    for _ in range(3):
        optimizer.zero_grad()
        task(batch)[0].backward()
        optimizer.step()
    optical = ("teacher.", "marks.")
    runs = {name for name, _ in model.named_parameters() if not name.startswith(optical)}
    received = {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().max() > 0
    }
    assert runs == received
    executed: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: executed.add(name))
    model(batch["sar"])
    assert not any(name.startswith(optical) for name in executed)


def test_the_teacher_stays_frozen_in_student_training(batch: Batch) -> None:
    model = Flora(SMALLEST)
    task = StudentTask(model)
    task(batch)[0].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    before = [p.clone() for p in model.teacher.parameters()]
    torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1.0).step()
    for a, b in zip(before, model.teacher.parameters(), strict=True):
        assert torch.equal(a, b)


def test_guidance_mix_follows_its_shares(batch: Batch) -> None:
    torch.manual_seed(0)
    model = Flora(SMALLEST)
    many = map_layers(batch, lambda x: x.repeat(200, *[1] * (x.ndim - 1))[..., :8, :8])
    many["optical_valid"] = torch.ones_like(many["optical_valid"])
    seen_before = torch.ones_like(many["before"].valid)
    many["before"] = dataclasses.replace(many["before"], valid=seen_before)
    task = StudentTask(model, mix=GuidanceMix(sar=0.5, before=0.5, oracle=0.0))
    seen = model.guide(many["optical"], many["index"], many["optical_valid"])
    guided = task._mixed(seen, many).valid[0].flatten(1).all(dim=1)  # type: ignore[arg-type]
    assert 0.4 < guided.float().mean() < 0.6
    with pytest.raises(FloraError, match="shares of 0 or more"):
        GuidanceMix(sar=-1.0)


def test_each_share_is_guided_by_its_own_image(batch: Batch) -> None:
    model = Flora(SMALLEST)
    seen = model.guide_from(batch, "oracle")
    before = model.guide_from(batch, "before")
    assert seen is not None and before is not None
    assert not torch.equal(seen.features[0], before.features[0])
    for mix, expected in ((GuidanceMix(0, 1, 0), before), (GuidanceMix(0, 0, 1), seen)):
        mixed = StudentTask(model, mix=mix)._mixed(seen, batch)
        for ours, theirs in zip(
            mixed.features + mixed.valid, [*expected.features, *expected.valid], strict=True
        ):
            assert torch.equal(ours, theirs)
    alone = StudentTask(model, mix=GuidanceMix(1, 0, 0))._mixed(seen, batch)
    assert not any(valid.any() for valid in alone.valid)


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (12, 20)},
        {"heads": 0},
        {"attention_levels": (9,)},
        {"stem_stride": 4},
        {"joining": "multiplied"},
        {"detail": -1},
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(FloraError, match="expected"):
        dataclasses.replace(SMALLEST, **wrong)  # type: ignore[arg-type]


def test_a_guide_of_another_image_is_refused(batch: Batch) -> None:
    model = Flora(SMALLEST)
    small = model.guide(
        batch["optical"][..., :32, :32], batch["index"][..., :32, :32],
        batch["optical_valid"][..., :32, :32],
    )  # fmt: skip
    with pytest.raises(FloraError, match="guide of another image"):
        model(batch["sar"], small)
    with pytest.raises(FloraError, match="teacher sees 3 optical bands"):
        model.guide(batch["optical"][:, :2], batch["index"], batch["optical_valid"])


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1001), (7, 31), (65, 33)])
def test_any_image_size(size: str, shape: tuple[int, int]) -> None:
    model = Flora(SIZES[size]).eval()
    with torch.inference_mode():
        guide = model.guide(
            torch.rand(1, 3, *shape), torch.zeros(1, 1, *shape), torch.ones(1, *shape, dtype=bool)
        )
        output = model(torch.randn(1, 2, *shape), guide)
    assert output.rgb.shape == (1, 3, *shape)
    assert output.water_logits.shape == (1, 1, *shape)
    assert output.rgb.isfinite().all() and output.water_logits.isfinite().all()


def test_ablations_are_one_replace_away(batch: Batch) -> None:
    for change in ({"attention_levels": ()}, {"window_sizes": (4,)}, {"stem_stride": 1}):
        output = Flora(dataclasses.replace(SMALLEST, **change))(batch["sar"])  # type: ignore[arg-type]
        assert output.rgb.shape == batch["optical"].shape


def test_wrong_input_is_refused(batch: Batch) -> None:
    model = Flora(SMALLEST)
    with pytest.raises(FloraError, match=r"expected \(batch, 2"):
        model(batch["sar"][:, :1])
    without = Batch(**{k: v for k, v in batch.items() if k != "before"})  # type: ignore[typeddict-item]
    with pytest.raises(FloraError, match="no optical image from before"):
        model.guide_from(without, "before")
    with pytest.raises(FloraError, match="expected one of sar, before, oracle"):
        model.guide_from(batch, "future")  # type: ignore[arg-type]
    assert MODES == ("sar", "before", "oracle")


# --- locality -----------------------------------------------------------------------------------


def awake(config: FloraConfig, seed: int = 0) -> Flora:
    """A model whose zeroed branches are on, so that attention and FiLM carry something."""
    torch.manual_seed(seed)
    model = Flora(config)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.inference_mode()
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("detail", [0, 4])
def test_an_answer_depends_on_its_neighbourhood_only(norm, guided, detail):
    config = FloraConfig(
        widths=(8, 8, 16), attention_levels=(1, 2), heads=2, norm=norm, detail=detail
    )
    model = awake(config)
    reach, centre = config.reach, 192
    assert reach < centre
    images = torch.randn(1, 2 + 3 + 1, 384, 384)
    far = torch.full((384,), True)
    far[centre - reach : centre + reach + 1] = False
    changed = images.clone()
    changed[..., far] = -40.0  # columns of border, sea or whatever else is in view
    changed[:, :, far] = 7.0

    def answer(stack):
        guide = None
        if guided:
            guide = model.guide(stack[:, 2:5], stack[:, 5:], torch.ones(1, 384, 384).bool())
        output = model(stack[:, :2], guide)
        return torch.cat([output.water_logits, output.rgb], 1)

    same = torch.equal(answer(images)[..., centre, centre], answer(changed)[..., centre, centre])
    assert same == (norm != "group")
    near = images.clone()
    near[..., centre + reach // 6, centre] += 10.0
    assert not torch.equal(answer(images)[..., centre, centre], answer(near)[..., centre, centre])


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("detail", [0, 8])
def test_reach_bounds_what_a_pixel_moves(size, detail):
    config = dataclasses.replace(named_config(size), joining="blended", detail=detail)
    model, side = awake(config), 832
    image = torch.randn(1, 2, side, side)
    touched = image.clone()
    touched[..., side // 2, side // 2] += 100.0
    with torch.inference_mode():
        moved = (model(image).water_logits != model(touched).water_logits)[0, 0].nonzero()
    farthest = int((moved - side // 2).abs().max())
    assert config.reach / 3 < farthest <= config.reach


@torch.inference_mode()
def test_what_one_pixel_of_the_guide_shows_arrives_at_that_pixel() -> None:
    """The finest level of the guide acts on the pixels beside it, without going through others."""
    model = awake(BLENDED)
    sar, optical = torch.randn(1, 2, 64, 64), torch.rand(1, 3, 64, 64)
    index, valid = torch.zeros(1, 1, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool)
    brighter = optical.clone()
    brighter[..., 30, 33] += 0.5
    old, new = (model.guide(image, index, valid) for image in (optical, brighter))
    finest = new._replace(features=[new.features[0], *old.features[1:]])
    moved = (model(sar, old).rgb != model(sar, finest).rgb)[0].any(dim=0).nonzero()
    # One convolution in the teacher, one in the decoder.
    assert moved.amin(dim=0).tolist() == [28, 31] and moved.amax(dim=0).tolist() == [32, 35]


@torch.inference_mode()
def test_the_date_of_the_guide_is_told_where_there_is_a_guide(batch: Batch) -> None:
    sar, image = batch["sar"], (batch["optical"], batch["index"])
    for config in (SMALLEST, BLENDED):
        model = awake(config)
        flood, earlier = (
            model(sar, model.guide(*image, batch["optical_valid"], of_flood))
            for of_flood in (True, False)
        )
        assert torch.equal(flood.rgb, earlier.rgb) != config.marked
        unseen = torch.zeros_like(batch["optical_valid"])
        clouded = model(sar, model.guide(*image, unseen, of_flood=True))
        assert torch.equal(clouded.rgb, model(sar).rgb)
    assert optical_stack(batch, "oracle").of_flood and not optical_stack(batch, "before").of_flood
    assert optical_stack(batch, "oracle").map(torch.clone).of_flood


@torch.inference_mode()
def test_the_batch_changes_nothing():
    model = awake(named_config("tiny"))
    images = torch.randn(3, 2, 64, 64)
    images[1] = 30.0
    together = model(images).water_logits
    alone = torch.cat([model(image[None]).water_logits for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_weights_of_version_0_1_name_no_norm_and_have_group_norm():
    values = named_config("tiny").to_dict()
    del values["norm"]
    assert FloraConfig.from_dict(values).norm == "group"


def test_weights_that_name_no_fusion_have_the_one_that_adds():
    values = BLENDED.to_dict()
    for name in ("joining", "detail", "marked"):
        del values[name]
    assert FloraConfig.from_dict(values) == SMALLEST
