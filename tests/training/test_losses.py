"""Losses: values worked out by hand, masks that truly mask, signs, and precision."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.errors import FloraError
from flora.training.losses import (
    SHORE_SLOPE,
    bce,
    charbonnier,
    dice,
    distillation,
    edge_l1,
    hydrology_edge,
    output_distillation,
    spectrum_l1,
    structural_dissimilarity,
)
from flora.training.objective import FloraLoss, LossWeights
from flora.training.operators import sar_edge


class Output(NamedTuple):
    rgb: Tensor | None
    water_logits: Tensor
    fused: list[Tensor]
    prior: list[Tensor]


def everywhere(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def random_case(rows: int = 24, columns: int = 20, seed: int = 0) -> dict[str, Any]:
    """A prediction, its truth, and a mask with holes, at random."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    levels = [(8, rows, columns), (12, max(rows // 2, 1), max(columns // 2, 1))]
    valid = draw(2, rows, columns) > 0.1
    return {
        "rgb": draw(2, 3, rows, columns),
        "optical": draw(2, 3, rows, columns),
        "logits": draw(2, 1, rows, columns) * 8 - 4,
        "water": (draw(2, rows, columns) > 0.5).long().masked_fill(~valid, 255),
        "sar": draw(2, 2, rows, columns) * 4 - 2,
        "valid": valid,
        "student": [draw(2, *level) - 0.5 for level in levels],
        "teacher": [draw(2, *level) - 0.5 for level in levels],
    }


# Each loss as (the prediction it is given, how it is called).
LOSSES: dict[str, tuple[str, Callable[[dict[str, Any]], Tensor]]] = {
    "charbonnier": ("rgb", lambda c: charbonnier(c["rgb"], c["optical"], c["valid"])),
    "ssim": ("rgb", lambda c: structural_dissimilarity(c["rgb"], c["optical"], c["valid"])),
    "edge": ("rgb", lambda c: edge_l1(c["rgb"], c["optical"], c["valid"])),
    "spectrum": ("rgb", lambda c: spectrum_l1(c["rgb"], c["optical"], c["valid"])),
    "dice": ("logits", lambda c: dice(c["logits"], c["water"])),
    "bce": ("logits", lambda c: bce(c["logits"], c["water"])),
    "hydrology": (
        "logits",
        lambda c: hydrology_edge(c["logits"], c["water"], c["sar"], c["valid"]),
    ),
    "distillation": ("student", lambda c: distillation(c["student"], c["teacher"], c["valid"])),
}
PIXELWISE = [name for name, (given, _) in LOSSES.items() if given != "student"]


def value_and_gradient(name: str, case: dict[str, Any]) -> tuple[float, list[Tensor]]:
    given, loss = LOSSES[name]
    inputs = case[given] if isinstance(case[given], list) else [case[given]]
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    value = loss({**case, given: leaves if given == "student" else leaves[0]})
    value.backward()
    return float(value.detach()), [cast(Tensor, leaf.grad) for leaf in leaves]


# Hand-worked values


def test_charbonnier_is_the_hypotenuse_of_difference_and_epsilon() -> None:
    target = torch.full((1, 3, 4, 4), 0.2)
    loss = charbonnier(target + 0.3, target, everywhere(1, 4, 4), epsilon=0.4)
    assert loss.item() == pytest.approx(0.5)


def test_ssim_of_two_constants_is_their_luminance_term() -> None:
    prediction, target = torch.full((1, 1, 20, 20), 0.5), torch.full((1, 1, 20, 20), 0.25)
    expected = 1 - (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    loss = structural_dissimilarity(prediction, target, everywhere(1, 20, 20))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_edge_of_a_ramp_against_a_flat_image_is_its_slope() -> None:
    ramp = 0.2 * torch.arange(5.0).expand(1, 1, 4, 5)
    valid = everywhere(1, 4, 5)
    # Three columns of slope .2, and the two at the border, which see half of it: .8 / 5.
    assert edge_l1(ramp, torch.zeros_like(ramp), valid).item() == pytest.approx(0.16)
    valid[:, :, 0] = False  # leaves columns 2, 3 and 4
    assert edge_l1(ramp, torch.zeros_like(ramp), valid).item() == pytest.approx(0.5 / 3)


def test_spectrum_of_two_constants_differs_in_the_mean_alone() -> None:
    prediction, target = torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.3)
    # Orthonormal: the zero frequency of a constant c on 4 x 4 pixels is 4 c; 12 frequencies.
    expected = 0.5 * math.log((2.4**2 + 1e-4) / (1.2**2 + 1e-4)) / 12
    loss = spectrum_l1(prediction, target, everywhere(1, 4, 4))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_dice_counts_over_the_batch() -> None:
    logits = torch.tensor([[[[40.0, 40.0]]], [[[-40.0, -40.0]]]])
    water = torch.tensor([[[1, 0]], [[1, 0]]])
    # One pixel found, two predicted, two labelled; smoothed by one.
    assert dice(logits, water).item() == pytest.approx(1 - 3 / 5)
    by_image = torch.stack([dice(logits[i : i + 1], water[i : i + 1]) for i in range(2)]).mean()
    assert by_image.item() == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_dice_of_a_dry_tile_still_costs_predicted_water() -> None:
    dry = torch.zeros(1, 2, 2, dtype=torch.long)
    assert dice(torch.zeros(1, 1, 2, 2), dry).item() == pytest.approx(2 / 3)  # two pixels of water
    assert dice(torch.full((1, 1, 2, 2), -40.0), dry).item() == pytest.approx(0.0, abs=1e-6)


def test_bce_of_no_opinion_is_log_two() -> None:
    water = torch.tensor([[[1, 0], [255, 255]]])
    logits = torch.zeros(1, 1, 2, 2)
    assert bce(logits, water).item() == pytest.approx(math.log(2))


def test_label_codes_other_than_dry_and_water_never_count() -> None:
    case = random_case()
    raw = {**case, "water": case["water"].masked_fill(case["water"] == 255, -1)}
    for name in ("dice", "bce", "hydrology"):
        assert LOSSES[name][1](raw).item() == LOSSES[name][1](case).item()


def test_distillation_is_one_minus_cosine_meaned_over_levels() -> None:
    teacher = [torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 1, 1)]
    teacher[0][:, 0], teacher[1][:, 0] = 2.0, 5.0
    student = [torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 1, 1)]
    student[0][:, 0] = -3.0  # opposite: 2; the second level at 45 degrees
    loss = distillation(student, teacher, everywhere(1, 2, 2))
    assert loss.item() == pytest.approx((2 + 1 - math.sqrt(0.5)) / 2, abs=1e-5)


def test_distillation_takes_a_coarse_feature_only_from_a_wholly_valid_cell() -> None:
    teacher = [torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])]  # one level, 1 x 2 cells of 4 x 4 px
    student = [
        torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    ]  # right on the left, wrong on the right
    valid = everywhere(1, 4, 8)
    assert distillation(student, teacher, valid).item() == pytest.approx(0.5, abs=1e-5)
    valid[0, 3, 7] = False
    assert distillation(student, teacher, valid).item() == pytest.approx(0.0, abs=1e-5)


def test_distillation_teaches_the_student_only() -> None:
    student, teacher = torch.rand(1, 4, 2, 2), torch.rand(1, 4, 2, 2)
    student.requires_grad_()
    teacher.requires_grad_()
    distillation([student], [teacher], everywhere(1, 2, 2)).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


# The shoreline


def shoreline_scene(turns: int = 0) -> dict[str, Tensor]:
    """Dark water in columns 0 to 7, bright land in 8 to 15, turned by quarter turns."""
    water = torch.zeros(1, 16, 16, dtype=torch.long)
    water[..., :8] = 1
    scene = {"water": water, "sar": 1.0 - 2.0 * water[:, None].float().expand(1, 2, 16, 16)}
    scene["aligned"] = 80.0 * water[:, None] - 40.0
    scene["shifted"] = scene["aligned"].roll(2, dims=-1)
    scene["shifted"][..., :2] = 40.0
    scene["reversed"] = -scene["aligned"]
    scene["flat"] = torch.zeros(1, 1, 16, 16)
    return {name: layer.rot90(turns, (-2, -1)) for name, layer in scene.items()}


@pytest.mark.parametrize("turns", range(4))
def test_a_right_shoreline_costs_less_than_a_shifted_than_a_reversed_one(turns: int) -> None:
    scene = shoreline_scene(turns)

    def loss(prediction: str) -> float:
        valid = everywhere(1, 16, 16)
        return hydrology_edge(scene[prediction], scene["water"], scene["sar"], valid).item()

    assert loss("aligned") < 0.01
    assert loss("aligned") < loss("shifted") - 0.1
    assert loss("shifted") < loss("reversed") - 0.1


def test_shape_and_direction_of_the_shoreline_by_hand() -> None:
    scene = shoreline_scene()
    seen, unseen = everywhere(1, 16, 16), ~everywhere(1, 16, 16)

    def loss(prediction: str, sar_valid: Tensor) -> float:
        return hydrology_edge(scene[prediction], scene["water"], scene["sar"], sar_valid).item()

    # Without SAR the shape alone: slope .5 in the two columns at the shore, 8 columns of band.
    assert loss("flat", unseen) == pytest.approx(2 * 0.5 / 8)
    assert loss("aligned", unseen) == pytest.approx(0.0, abs=1e-6)
    assert loss("reversed", unseen) == pytest.approx(2 * 1.0 / 8)
    weight = sar_edge(scene["sar"], seen)[2][0, 0, 8, 7].item()
    assert weight > 0.8
    cosine = 0.5 / math.sqrt(0.25 + SHORE_SLOPE**2)
    for prediction, agreement in {"aligned": cosine, "flat": 0.0, "reversed": -cosine}.items():
        direction = loss(prediction, seen) - loss(prediction, unseen)
        assert direction == pytest.approx(weight * (1 - agreement) / 2, abs=1e-5)


def test_an_ignored_pixel_beside_the_shore_is_no_shoreline_of_the_prediction() -> None:
    scene = shoreline_scene()
    unseen = ~everywhere(1, 16, 16)
    scene["water"][:, 4:9, 9:11] = 255
    loss = hydrology_edge(scene["aligned"], scene["water"], scene["sar"], unseen)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_sar_that_shows_no_edge_asks_for_no_direction() -> None:
    scene = shoreline_scene()
    valid = everywhere(1, 16, 16)
    flat = torch.full_like(scene["sar"], 0.7)
    assert hydrology_edge(scene["flat"], scene["water"], flat, valid).item() == pytest.approx(1 / 8)


# Masks


@pytest.mark.parametrize("name", PIXELWISE)
def test_what_is_masked_changes_nothing_and_gets_no_gradient(name: str) -> None:
    case = random_case()
    given, _ = LOSSES[name]
    value, (gradient,) = value_and_gradient(name, case)
    hidden = ~case["valid"][:, None].expand_as(case[given])
    assert gradient[~hidden].abs().sum() > 0
    assert gradient[hidden].abs().sum() == 0
    for nonsense in (7.0, float("nan")):
        changed = {**case, given: case[given].masked_fill(hidden, nonsense)}
        assert value_and_gradient(name, changed)[0] == value
        assert torch.equal(value_and_gradient(name, changed)[1][0], gradient)
    moved = {**case, given: torch.where(hidden, case[given], 0.9 * case[given])}
    assert value_and_gradient(name, moved)[0] != value


@pytest.mark.parametrize("name", ["charbonnier", "ssim", "edge", "spectrum"])
def test_a_masked_target_changes_nothing(name: str) -> None:
    case = random_case()
    hidden = ~case["valid"][:, None]
    changed = {**case, "optical": case["optical"].masked_fill(hidden, float("nan"))}
    assert LOSSES[name][1](changed).item() == LOSSES[name][1](case).item()


def test_sar_without_measurement_changes_nothing() -> None:
    scene = shoreline_scene()
    valid = everywhere(1, 16, 16)
    valid[:, 4:9, 7] = False
    args = scene["flat"], scene["water"]
    value = hydrology_edge(*args, scene["sar"], valid)
    nonsense = scene["sar"].masked_fill(~valid[:, None], float("nan"))
    assert hydrology_edge(*args, nonsense, valid).item() == value.item()
    assert hydrology_edge(*args, scene["sar"], everywhere(1, 16, 16)).item() != value.item()


@pytest.mark.parametrize("name", list(LOSSES))
def test_nothing_to_compare_is_zero_with_zero_gradient(name: str) -> None:
    case = random_case()
    case["valid"], case["water"] = case["valid"] & False, torch.full_like(case["water"], 255)
    value, gradients = value_and_gradient(name, case)
    assert value == 0
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 5), (13, 17)])
@pytest.mark.parametrize("label", [0, 1, None])
def test_finite_at_any_size_and_for_tiles_of_one_class(
    name: str, size: tuple[int, int], label: int | None
) -> None:
    case = random_case(*size)
    if label is not None:
        case["water"] = torch.full_like(case["water"], label)
    value, gradients = value_and_gradient(name, case)
    assert math.isfinite(value)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_finite_at_the_kinks(name: str) -> None:
    case = random_case()
    case["rgb"] = case["optical"].clone()  # no difference at all
    case["logits"] = torch.zeros_like(case["logits"])
    case["student"] = [torch.zeros_like(level) for level in case["student"]]
    _, gradients = value_and_gradient(name, case)
    assert all(gradient.isfinite().all() for gradient in gradients)
    case["logits"] = torch.full_like(case["logits"], 500.0)
    assert all(g.isfinite().all() for g in value_and_gradient(name, case)[1])


@pytest.mark.parametrize("name", list(LOSSES))
def test_autocast_leaves_the_losses_in_float32(name: str) -> None:
    given, loss = LOSSES[name]
    case = random_case()
    half = case[given]
    half = [x.bfloat16() for x in half] if isinstance(half, list) else half.bfloat16()
    expected = loss({**case, given: [x.float() for x in half] if given == "student" else half})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss({**case, given: half})
    assert value.dtype == torch.float32
    assert value.item() == expected.item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", list(LOSSES))
def test_a_gpu_computes_the_same(name: str) -> None:
    case = random_case(64, 64)
    there = {
        key: [x.cuda() for x in value] if isinstance(value, list) else value.cuda()
        for key, value in case.items()
    }
    with torch.autocast("cuda", dtype=torch.bfloat16):
        value = LOSSES[name][1](there)
    assert value.item() == pytest.approx(LOSSES[name][1](case).item(), rel=1e-4)


# The sum


def batch_of(case: dict[str, Any]) -> Batch:
    sar_valid = everywhere(*case["valid"].shape)
    meta = [{"id": "a", "place": "p"}, {"id": "b", "place": "p"}]
    layers = {"sar": case["sar"], "sar_valid": sar_valid, "water": case["water"], "meta": meta}
    index = torch.zeros_like(case["sar"][:, :1])
    optical = {"optical": case["optical"], "optical_valid": case["valid"], "index": index}
    return cast(Batch, layers | optical)


def output_of(case: dict[str, Any]) -> Output:
    return Output(case["rgb"], case["logits"], case["student"], case["teacher"])


def test_total_is_the_weighted_sum_of_its_terms() -> None:
    case = random_case()
    weights = LossWeights(hydrology=0.5, distill_prior=0.3)
    total, terms = FloraLoss(weights)(output_of(case), batch_of(case), case["teacher"])
    assert set(terms) == {
        *("charbonnier", "ssim", "edge", "spectrum", "dice", "bce", "hydrology"),
        *("distill_fused", "distill_prior"),
    }
    expected = sum(getattr(weights, name) * value.item() for name, value in terms.items())
    assert total.item() == pytest.approx(expected, rel=1e-5)
    for name in ("charbonnier", "ssim", "edge", "spectrum", "dice", "bce"):
        assert terms[name].item() == LOSSES[name][1](case).item()
    assert terms["distill_fused"].item() == LOSSES["distillation"][1](case).item()
    assert terms["distill_prior"].item() < 1e-4  # the prior of this output is the teacher's pyramid
    assert not any(term.requires_grad for term in terms.values())


def test_a_term_of_weight_zero_is_not_computed() -> None:
    class Explosive(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            raise RuntimeError("computed")

    case = random_case()
    loss = FloraLoss(LossWeights(perceptual=0, ssim=0), perceptual=Explosive())
    _, terms = loss(output_of(case), batch_of(case), None)
    assert not {"ssim", "perceptual", "distill_fused", "distill_prior"} & set(terms)
    assert {"charbonnier", "dice"} <= set(terms)
    with pytest.raises(RuntimeError, match="computed"):
        FloraLoss(LossWeights(perceptual=1), perceptual=Explosive())(
            output_of(case), batch_of(case), None
        )


def test_a_water_baseline_needs_no_image_and_no_pyramid() -> None:
    case = random_case()
    output = Output(None, case["logits"].requires_grad_(), [], [])
    total, terms = FloraLoss()(output, batch_of(case), None)
    assert set(terms) == {"dice", "bce", "hydrology"}
    total.backward()
    assert case["logits"].grad.abs().sum() > 0
    with pytest.raises(FloraError, match="pyramid"):
        FloraLoss()(output, batch_of(case), case["teacher"])


def test_what_the_radar_did_not_see_is_not_taught() -> None:
    case = random_case()
    for key in ("rgb", "logits"):
        case[key].requires_grad_()
    batch = batch_of(case)
    batch["sar_valid"][:, 5:15, 5:15] = False
    total, _ = FloraLoss()(output_of(case), batch, case["teacher"])
    total.backward()
    assert case["rgb"].grad[:, :, 5:15, 5:15].abs().sum() == 0
    assert case["logits"].grad[:, :, 5:15, 5:15].abs().sum() == 0
    assert case["rgb"].grad.abs().sum() > 0
    assert case["logits"].grad.abs().sum() > 0


def test_perceptual_term_sees_minus_one_to_one_and_no_masked_pixel() -> None:
    class Distance(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            assert first.min() < -0.9
            assert first.max() > 0.9
            return ((first - second) ** 2).mean(dim=(1, 2, 3), keepdim=True)

    case = random_case()
    loss = FloraLoss(LossWeights(perceptual=2), perceptual=Distance())
    _, terms = loss(output_of(case), batch_of(case), None)
    difference = torch.where(case["valid"][:, None], case["rgb"] - case["optical"], 0.0)
    assert terms["perceptual"].item() == pytest.approx(4 * (difference**2).mean().item(), rel=1e-5)


def test_wrong_input_is_refused() -> None:
    case = random_case()
    with pytest.raises(FloraError, match="load_lpips"):
        FloraLoss(LossWeights(perceptual=0.2))
    with pytest.raises(FloraError, match="dice is -1"):
        LossWeights(dice=-1)
    with pytest.raises(FloraError, match="ssim is nan"):
        LossWeights(ssim=float("nan"))
    with pytest.raises(FloraError, match="all loss weights"):
        LossWeights(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(FloraError, match="bool map"):
        charbonnier(case["rgb"], case["optical"], case["valid"][:, None])
    with pytest.raises(FloraError, match="bool map"):
        edge_l1(case["rgb"], case["optical"], case["valid"].float())
    with pytest.raises(FloraError, match="target of shape"):
        charbonnier(case["rgb"], case["optical"][:, :1], case["valid"])
    with pytest.raises(FloraError, match="logits of shape"):
        dice(case["logits"][:, 0], case["water"])
    with pytest.raises(FloraError, match="same levels"):
        distillation(case["student"][:1], case["teacher"], case["valid"])


def test_output_distillation_is_zero_at_the_teachers_word_and_hand_worked_elsewhere() -> None:
    taught = torch.tensor([[[1.0, 0.0, float("nan")]]])
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    logits = torch.zeros(1, 1, 1, 3)  # probability 0.5
    # Dice with squares: 1 - (2 * 0.5 + 1) / (0.25 + 0.25 + 1 + 1) = 0.2; entropy log 2.
    assert output_distillation(logits, taught, valid).item() == pytest.approx(0.2 + math.log(2))
    logits = torch.logit(torch.tensor([[[[0.7, 0.2, 0.5]]]])).requires_grad_()
    soft = torch.tensor([[[0.7, 0.2, float("nan")]]])
    loss = output_distillation(logits, soft, valid)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)
    silent = output_distillation(logits, torch.full((1, 1, 3), float("nan")), valid)
    assert silent.item() == 0
    with pytest.raises(FloraError, match="taught of shape"):
        output_distillation(logits, soft[0], valid)


def test_labels_and_the_teachers_word_count_each_where_they_are() -> None:
    case = random_case()
    batch = batch_of(case)
    taught = torch.full(batch["water"].shape, 0.9)
    both = {**batch, "taught": taught}
    _, terms = FloraLoss()(output_of(case), both, None)
    assert "distill_output" in terms
    _, plain = FloraLoss()(output_of(case), batch, None)
    assert "distill_output" not in plain and plain["dice"] == terms["dice"]


def test_of_two_dates_the_shore_is_sought_in_the_last() -> None:
    case = random_case()
    batch, output = batch_of(case), output_of(case)
    two = {**batch, "sar": torch.cat([torch.randn_like(batch["sar"]), batch["sar"]], dim=1)}
    _, one = FloraLoss()(output, batch, None)
    _, last = FloraLoss(dates=2)(output, two, None)
    _, mean = FloraLoss()(output, two, None)
    assert last["hydrology"] == one["hydrology"] != mean["hydrology"]
