from dataclasses import replace

import pytest
import torch

from flora.datasets.base import collate, optical_stack
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory, Wrapped
from flora.errors import FloraError
from flora.experiments.catalogue import EXPERIMENTS, ON_A_GPU, SIMULATED, named_experiment
from flora.experiments.competitors import prepared
from flora.experiments.labels import SIMULATED_LABELS
from flora.experiments.makers import (
    Adapted,
    FewLabels,
    ForSteps,
    Job,
    MakeFlora,
    MakeUNet,
    Setting,
)
from flora.models.checkpoints import read_metadata
from flora.models.config import SIZES, FloraConfig
from flora.models.network import Flora
from flora.models.predict import predictor
from flora.models.unet import LateFusion, UNet, stack_inputs
from flora.models.weights import load_any
from flora.training.config import TrainingConfig
from flora.training.evaluation import answer
from flora.training.jitter import RadiometricJitter
from flora.training.pix2pix import Pix2PixTask
from flora.training.released import ReleasedTask, released_config


@pytest.fixture(scope="module")
def chips() -> InMemory:
    return InMemory(Simulated("train", count=2, size=64))


@pytest.fixture(scope="module")
def batch(chips):
    return collate([chips[0], chips[1]])


SHORT = TrainingConfig(steps=2, batch=2, crop=32)


def trained(task, batch, steps=2):
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        task(batch)[0].backward()
        optimizer.step()
    return task


@pytest.mark.parametrize("name", sorted(SIMULATED.competitors))
def test_every_competitor_trains_and_answers_in_its_modes(name, chips, batch, tmp_path) -> None:
    competitor = SIMULATED.competitors[name]
    if not competitor.learns:
        water, _ = answer(competitor.by.predictor(), batch)
        assert water.shape == (2, 1, 64, 64)
        return
    setting = Setting(norm="group", teacher_steps=1)
    made = competitor.by.make(Job(chips, SHORT, tmp_path, setting, quiet=True))
    model = load_any(made.weights)
    for mode in competitor.modes:
        with torch.inference_mode():
            water, rgb = answer(predictor(model), batch, mode)
        assert water.shape == (2, 1, 64, 64)
        assert rgb is None or rgb.shape == (2, 3, 64, 64)
    assert (rgb is None) == (name == "unet_water")


@pytest.mark.parametrize("sees", ["before", "oracle"])
@pytest.mark.parametrize("late", [False, True])
def test_fusion_baselines_see_the_image_they_name_and_no_other(batch, sees, late) -> None:
    torch.manual_seed(0)
    model = (
        LateFusion(2, 5, 3, sees, (8, 16))
        if late
        else UNet(2, (8, 16), optical_channels=3, sees=sees, guide_channels=5)
    ).eval()
    earlier = replace(batch["before"], image=1 - batch["before"].image)
    others = {
        "before": {**batch, "before": earlier},
        "oracle": {**batch, "optical": 1 - batch["optical"]},
    }

    def water(changed: str) -> torch.Tensor:
        other = others[changed]
        return model(stack_inputs(other["sar"], optical_stack(other, sees))).water_logits

    same = model(stack_inputs(batch["sar"], optical_stack(batch, sees))).water_logits
    assert torch.equal(water("oracle" if sees == "before" else "before"), same)
    assert not torch.allclose(water(sees), same)


def test_what_is_under_cloud_is_not_seen(batch) -> None:
    other = dict(batch)
    clouded = ~batch["optical_valid"].unsqueeze(1)
    other["optical"] = torch.where(clouded, 0.7, batch["optical"])
    assert torch.equal(
        stack_inputs(other["sar"], optical_stack(other, "oracle")),
        stack_inputs(batch["sar"], optical_stack(batch, "oracle")),
    )


def test_a_baseline_that_was_trained_with_an_image_refuses_to_go_without(batch) -> None:
    model = UNet(2, (8, 16), sees="before", guide_channels=5)
    with pytest.raises(FloraError, match=r'trained for mode "before"'):
        answer(predictor(model), batch, "sar")


def test_pix2pix_sends_each_gradient_where_it_belongs(batch) -> None:
    torch.manual_seed(0)
    task = Pix2PixTask(UNet(2, (8, 16), optical_channels=3), 3)
    generator = list(task.model.parameters())

    def gradients(parameters, only: str):
        total, terms = task(batch)
        task.zero_grad()
        total.backward()
        return [p.grad.clone() for p in parameters], terms

    before, terms = gradients(generator, "generator")
    assert {"generator", "discriminator"} <= terms.keys()
    # The generator's gradient knows the discriminator's weights ...
    with torch.no_grad():
        for p in task.discriminator.parameters():
            p.mul_(2)
    after, _ = gradients(generator, "generator")
    assert any(not torch.allclose(a, b) for a, b in zip(before, after, strict=True))
    # ... and the discriminator's is that of its own loss alone.
    total, _ = task(batch)
    task.zero_grad()
    total.backward()
    ours = [p.grad.clone() for p in task.discriminator.parameters()]
    made = task.model(batch["sar"]).rgb.detach() * batch["optical_valid"].unsqueeze(1)
    real = batch["optical"] * batch["optical_valid"].unsqueeze(1)
    loss = (
        torch.nn.functional.softplus(-task.discriminator(batch["sar"], real)).mean()
        + torch.nn.functional.softplus(task.discriminator(batch["sar"], made)).mean()
    ) / 2
    expected = torch.autograd.grad(loss, list(task.discriminator.parameters()))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_in_the_released_wiring_what_runs_at_test_time_is_never_trained(batch) -> None:
    torch.manual_seed(0)
    task = ReleasedTask(Flora(released_config(FloraConfig(widths=(8, 16), attention_levels=(1,)))))
    before = {name: p.clone() for name, p in task.model.named_parameters()}
    trained(task, batch, steps=4)
    moved = {n for n, p in task.model.named_parameters() if not torch.equal(p, before[n])}
    assert not any(name.startswith("prior.") for name in moved)
    assert any(name.startswith("teacher.") for name in moved)


def test_in_the_released_wiring_the_water_decoder_stands_still_at_first(batch) -> None:
    torch.manual_seed(0)
    model = Flora(released_config(FloraConfig(widths=(8, 16), attention_levels=(1,))))
    task = ReleasedTask(model, frozen=2)
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.05)
    moved = []
    for _ in range(3):
        before = [p.clone() for p in model.water_decoder.parameters()]
        optimizer.zero_grad()
        task(batch)[0].backward()
        optimizer.step()
        after = model.water_decoder.parameters()
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == [False, False, True]


def test_the_released_wiring_takes_lpips_where_it_is_there(batch) -> None:
    class Distance(torch.nn.Module):
        def forward(self, first, second):
            return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)

    shape = released_config(FloraConfig(widths=(8, 16), attention_levels=(1,)))
    _, without = ReleasedTask(Flora(shape))(batch)
    task = ReleasedTask(Flora(shape), Distance())
    _, terms = task(batch)
    assert "perceptual" in terms and "perceptual" not in without
    assert task.describe()["loss"]["perceptual"] == 0.2


def test_a_detached_water_branch_shapes_no_feature(batch) -> None:
    for detached in (False, True):
        torch.manual_seed(0)
        config = FloraConfig(widths=(8, 16), attention_levels=(1,), detach_water=detached)
        model = Flora(config)
        model(batch["sar"]).water_logits.sum().backward()
        reached = model.sar_encoder.levels[0][0].weight.grad
        assert (reached is None) == detached


@pytest.mark.parametrize("part", ["film", "gated"])
def test_without_film_or_gate_the_rest_still_fuses(batch, part) -> None:
    torch.manual_seed(0)
    config = FloraConfig(widths=(8, 16), attention_levels=(0, 1), **{part: False})
    model = Flora(config)
    names = {"film": ".film.", "gated": ".residual."}
    assert not any(names[part] in name for name, _ in model.named_parameters())
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    guided = model(batch["sar"], model.guide_from(batch, "oracle")).water_logits
    assert not torch.allclose(guided, model(batch["sar"]).water_logits)


def test_jitter_is_one_gain_and_offset_a_band_and_leaves_nodata(batch) -> None:
    torch.manual_seed(0)
    valid = torch.ones_like(batch["sar_valid"])
    valid[:, :10] = False
    jittered = RadiometricJitter()({**batch, "sar_valid": valid})
    assert all(jittered[name] is batch[name] for name in ("water", "optical", "index"))
    changed = jittered["sar"]
    assert torch.equal(changed[:, :, :10], batch["sar"][:, :, :10])
    sar, new = batch["sar"][0, 0, 10:].flatten(), changed[0, 0, 10:].flatten()
    slope = (new[1:] - new[0]) / (sar[1:] - sar[0])
    far = (sar[1:] - sar[0]).abs() > 0.1
    torch.testing.assert_close(slope[far], slope[far][:1].expand(int(far.sum())), rtol=1e-3, atol=0)


def test_jitter_reaches_the_training_and_its_record(chips, tmp_path) -> None:
    runs = {
        name: MakeUNet(optical=False, change=change).make(
            Job(chips, SHORT, tmp_path / name, quiet=True)
        )
        for name, change in (("plain", None), ("jittered", RadiometricJitter()))
    }
    plain, jittered = (load_any(made.weights).head.weight for made in runs.values())
    assert not torch.equal(plain, jittered)
    assert read_metadata(runs["jittered"].weights)["change"] == (
        "RadiometricJitter(gain=0.2, offset=0.3)"
    )


def test_few_labels_hide_the_others_and_the_teacher_speaks_instead(
    chips, tmp_path, monkeypatch
) -> None:
    seen = []

    def watched(self, job):
        seen.extend(job.chips[index] for index in range(len(job.chips)))
        return original(self, job)

    original = MakeFlora.make
    monkeypatch.setattr(MakeFlora, "make", watched)
    setting = Setting(norm="group", teacher_steps=1)
    few = FewLabels(MakeFlora(teacher=False), labels=1, word="output", confidence=0.5)
    made = few.make(Job(chips, SHORT, tmp_path / "few", setting, quiet=True))
    assert made.notes["labelled"] == 1 and len(made.notes["labelled_ids"]) == 1
    labelled = [chip for chip in seen if (chip["water"] != 255).any()]
    hidden = [chip for chip in seen if (chip["water"] == 255).all()]
    assert {chip["meta"]["id"] for chip in labelled} == set(made.notes["labelled_ids"])
    assert len(labelled) == len(hidden) == 2
    assert all(chip["taught"].isnan().all() for chip in labelled)
    for chip in hidden:  # heard where both images are clear, and nowhere else
        clear = chip["optical_valid"] & chip["before"].valid
        assert torch.equal(chip["taught"].isfinite(), clear)
    free = FewLabels(MakeFlora(teacher=False), labels=0, word="index").make(
        Job(chips, SHORT, tmp_path / "free", setting, quiet=True)
    )
    assert free.notes == {"labelled": 0, "labelled_ids": []}


def test_a_teacher_under_other_clouds_is_another_teacher(tmp_path) -> None:
    few = FewLabels(MakeFlora(teacher=False), 1, "output", confidence=0.5, dates="after")
    for cloud in (0.0, 0.5):
        chips = InMemory(Simulated("train", count=2, size=64, cloud=cloud))
        folder = tmp_path / f"student-{cloud}"  # beside each other, as one experiment's trials
        few.make(Job(chips, SHORT, folder, Setting(), quiet=True))
    assert len(list(tmp_path.glob("optical-*"))) == 2


def test_one_site_is_adapted_to_its_own_pairs_and_the_control_to_none(chips, tmp_path) -> None:
    class OfTwoFloods(Wrapped):
        def read(self, index, window=None):
            sample = self.dataset.read(index, window)
            place = "Segura" if index == 1 else "Ebro"
            return {**sample, "meta": {**sample["meta"], "place": place}}

    pairs = OfTwoFloods(InMemory(Simulated("test", count=3, size=64)))
    job = Job(chips, SHORT, tmp_path, Setting(norm="group", pairs=pairs), quiet=True)
    made = {}
    for name, word, asked in (
        ("all", "index", None),
        ("alone", "index", "Segura"),
        ("further", "none", None),
    ):
        by = Adapted(MakeUNet(norm="group"), steps=1, word=word, site=asked)
        made[name] = by.make(replace(job, folder=tmp_path / name))
    assert made["all"].notes == {"adapted_to": sorted(pairs.manifest())}
    assert made["alone"].notes == {"adapted_to": [pairs.manifest()[1]], "site": "Segura"}
    assert not made["further"].notes
    assert len({one.weights.read_bytes() for one in made.values()}) == 3
    assert [path.name for path in tmp_path.glob("base-*")] == ["base-0"]
    with pytest.raises(FloraError, match='place "Atlantis"'):
        Adapted(MakeUNet(norm="group"), word="index", site="Atlantis").make(job)


def test_images_are_shifted_for_the_teacher_and_not_in_the_test(chips) -> None:
    shifted = SIMULATED_LABELS.competitors["output_32_shifted"]
    trained_on, tested = (prepared(chips, shifted, test) for test in (False, True))
    assert not torch.equal(trained_on[0]["optical"], chips[0]["optical"])
    assert torch.equal(trained_on[0]["sar"], chips[0]["sar"])
    assert torch.equal(tested[0]["optical"], chips[0]["optical"])


def test_another_length_is_the_students_and_in_proportion_the_teachers(chips, tmp_path) -> None:
    setting = Setting(norm="group", teacher_steps=2)
    job = Job(chips, SHORT, tmp_path, setting, quiet=True)
    made = ForSteps(MakeFlora(), 3 * SHORT.steps).make(job)
    assert made.notes["steps"] == {"student": 3 * SHORT.steps, "teacher": 6}
    assert read_metadata(made.weights)["step"] == 3 * SHORT.steps
    assert read_metadata(tmp_path / "teacher" / "last.safetensors")["step"] == 6
    alone = ForSteps(MakeUNet(), 2).make(replace(job, folder=tmp_path / "unet"))
    assert alone.notes["steps"] == {"student": 2, "teacher": 0}
    longer = ForSteps(MakeFlora(), 2, taught=3).make(replace(job, folder=tmp_path / "taught"))
    assert longer.notes["steps"] == {"student": 2, "teacher": 3}


@pytest.mark.parametrize("name", ["lengths", "ombria_lengths"])
def test_a_learning_curve_differs_in_length_alone(name) -> None:
    learners = {}
    for named, competitor in EXPERIMENTS[name].competitors.items():
        model, _, steps = named.rpartition("_")
        assert competitor.by.steps == int(steps)
        learners.setdefault(model, []).append(competitor.by.learner)
    assert {model: len(made) for model, made in learners.items()} == dict.fromkeys(learners, 3)
    assert all(made.count(made[0]) == 3 for made in learners.values())


def test_every_experiment_is_reachable_and_fair() -> None:
    for name, experiment in (EXPERIMENTS | ON_A_GPU).items():
        assert named_experiment(name) is experiment
        assert experiment.size in SIZES
        assert len(experiment.competitors) > 2
        assert any(c.group == "baseline" for c in experiment.competitors.values())
    with pytest.raises(FloraError, match="expected one of simulated"):
        named_experiment("simulate")
