"""Metrics: sums over the split, against torchmetrics, hand counts and published LPIPS values."""

import json
import math
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex, MulticlassJaccardIndex
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from flora.datasets.base import Batch, map_layers
from flora.errors import FloraError
from flora.training.metrics import Scores, SplitScores, load_lpips
from flora.training.operators import ssim_map

FLORA_DATA = os.environ.get("FLORA_DATA")
needs_data = pytest.mark.skipif(not FLORA_DATA, reason="FLORA_DATA names no folder of real files")


def batch_of(
    optical: Tensor, water: Tensor, places: list[str] | None = None, **layers: Any
) -> Batch:
    count = len(water)
    meta = [{"id": str(i), "place": p} for i, p in enumerate(places or ["somewhere"] * count)]
    everywhere = torch.ones_like(water, dtype=torch.bool)
    layers = {"optical_valid": everywhere, "sar_valid": everywhere, **layers}
    return cast(Batch, {"optical": optical, "water": water, "meta": meta, **layers})


def random_batch(count: int, share: float, seed: int, size: int = 40) -> tuple[Any, Any, Batch]:
    """A smooth image and water mask, a noisy prediction of both, holes in all maps."""
    random = torch.Generator().manual_seed(seed)

    def smooth(channels: int) -> Tensor:
        coarse = torch.rand(count, channels, 6, 6, generator=random)
        return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")

    optical, level = smooth(3), smooth(1)[:, 0]
    water = (level < level.flatten().quantile(share)).long()
    noise = torch.rand(count, 4, size, size, generator=random)
    rgb = (optical + 0.2 * (noise[:, :3] - 0.5)).clamp(0, 1)
    probability = (0.25 + 0.5 * water + 0.6 * (noise[:, 3] - 0.5)).clamp(0, 1)[:, None]
    water = water.masked_fill(smooth(1)[:, 0] > 0.75, 255)
    places = [("north", "south")[i % 2] for i in range(count)]
    return rgb, probability, batch_of(optical, water, places, optical_valid=smooth(1)[:, 0] < 0.7)


def water_scores(predicted: Tensor, water: Tensor, **settings: Any) -> Scores:
    scores = SplitScores("test", **settings)
    scores.update(None, predicted[:, None].float(), batch_of(torch.zeros(1), water))
    return scores.compute()


def image_scores(rgb: Tensor, optical: Tensor, valid: Tensor | None = None, **settings: Any) -> Any:
    scores = SplitScores("stored value / 3000", **settings)
    layers = {} if valid is None else {"optical_valid": valid}
    water = torch.full((len(rgb), *rgb.shape[-2:]), 255)
    scores.update(rgb, None, batch_of(optical, water, **layers))
    return scores.compute()


def same(scores: Scores, others: Scores, rel: float) -> bool:
    return scores.keys() == others.keys() and all(
        value == (other if isinstance(other, str) else pytest.approx(other, rel=rel))
        for value, other in zip(scores.values(), others.values(), strict=True)
    )


# Over the split


def test_scores_do_not_depend_on_batches_and_are_no_average_of_them() -> None:
    batches = [random_batch(3, 0.6, seed=0), random_batch(1, 0.02, seed=1)]
    split, alone = SplitScores("test", mean_image=torch.full((3,), 0.4)), []
    for rgb, probability, batch in batches:
        split.update(rgb, probability, batch)
        alone.append(SplitScores("test", mean_image=torch.full((3,), 0.4)))
        alone[-1].update(rgb, probability, batch)
    together = SplitScores("test", mean_image=torch.full((3,), 0.4))
    merged = {
        key: torch.cat([batch[key] for *_, batch in batches])
        for key in ("optical", "optical_valid", "sar_valid", "water")
    }
    meta = [meta for *_, batch in batches for meta in batch["meta"]]
    together.update(
        torch.cat([rgb for rgb, *_ in batches]),
        torch.cat([probability for _, probability, _ in batches]),
        cast(Batch, merged | {"meta": meta}),
    )
    scores = split.compute()
    assert same(scores, together.compute(), rel=1e-6)
    for key in ("water_iou", "water_f1", "miou", "boundary_f1", "psnr", "ssim"):
        average = sum(one.compute()[key] for one in alone) / 2
        assert abs(scores[key] - average) > 1e-3


def test_places_are_scored_apart_and_add_up() -> None:
    rgb, probability, batch = random_batch(4, 0.4, seed=2)
    scores = SplitScores("test")
    scores.update(rgb, probability, batch)
    places = scores.compute_places()
    assert list(places) == ["north", "south"]
    assert places["north"]["water_iou"] != places["south"]["water_iou"]
    total = scores.compute()
    for key in ("chips", "pixels_scored", "optical_pixels_scored"):
        assert sum(place[key] for place in places.values()) == total[key]
    north = cast(Batch, {k: v[::2] for k, v in batch.items()})
    only = SplitScores("test")
    only.update(rgb[::2], probability[::2], north)
    assert only.compute()["water_iou"] == places["north"]["water_iou"]
    assert only.compute()["ssim"] == pytest.approx(places["north"]["ssim"])


def test_scores_are_plain_json() -> None:
    rgb, probability, batch = random_batch(2, 0.4, seed=3)
    scores = SplitScores("B4/B3/B2, stored value / 3000")
    scores.update(rgb, probability, batch)
    read = json.loads(json.dumps({"all": scores.compute(), "places": scores.compute_places()}))
    assert read["all"]["optical_scaling"] == "B4/B3/B2, stored value / 3000"
    assert read["all"]["chips"] == 2


# Against torchmetrics


def test_water_scores_equal_torchmetrics() -> None:
    _, probability, batch = random_batch(4, 0.4, seed=4)
    scores = SplitScores("test")
    scores.update(None, probability, batch)
    predicted, water = (probability[:, 0] >= 0.5).long(), batch["water"]
    result = scores.compute()
    expected = {
        "water_iou": BinaryJaccardIndex(ignore_index=255)(predicted, water),
        "water_f1": BinaryF1Score(ignore_index=255)(predicted, water),
        "miou": MulticlassJaccardIndex(2, ignore_index=255)(predicted, water),
    }
    for key, value in expected.items():
        assert result[key] == pytest.approx(value.item(), abs=1e-6)


@pytest.mark.parametrize("size", [6, 17, 40])
def test_ssim_equals_torchmetrics_at_every_pixel(size: int) -> None:
    rgb, _, batch = random_batch(2, 0.4, seed=5, size=size)
    valid = torch.ones_like(batch["optical_valid"])
    images = rgb.double(), batch["optical"].double()  # torchmetrics' own rounding is 1e-5
    _, expected = structural_similarity_index_measure(
        *images, data_range=1.0, return_full_image=True
    )
    assert torch.allclose(
        ssim_map(rgb, batch["optical"], valid), expected.float(), atol=2e-4, rtol=0
    )
    result = image_scores(rgb, batch["optical"])
    assert result["ssim"] == pytest.approx(expected.mean().item(), abs=1e-5)


def test_psnr_equals_torchmetrics() -> None:
    rgb, _, batch = random_batch(2, 0.4, seed=6)
    expected = peak_signal_noise_ratio(rgb, batch["optical"], data_range=1.0)
    assert image_scores(rgb, batch["optical"])["psnr"] == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scores_the_same() -> None:
    rgb, probability, batch = random_batch(2, 0.4, seed=7)
    here, there = SplitScores("test"), SplitScores("test")
    here.update(rgb, probability, batch)
    moved = map_layers(batch, lambda layer: layer.cuda())
    with torch.autocast("cuda", dtype=torch.bfloat16):
        there.update(rgb.cuda(), probability.cuda(), moved)
    assert same(there.compute(), here.compute(), rel=1e-5)


# By hand


def test_counts_by_hand() -> None:
    predicted = torch.tensor([[[1, 1, 1, 0, 0, 0, 1, 0]]])
    water = torch.tensor([[[1, 1, 0, 1, 0, 0, 255, 255]]])  # tp 2, fp 1, fn 1, tn 2
    scores = water_scores(predicted, water)
    assert scores["pixels_scored"] == 6
    assert scores["water_iou"] == pytest.approx(2 / 4)
    assert scores["water_f1"] == pytest.approx(4 / 6)
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(2 / 3)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["miou"] == pytest.approx((2 / 4 + 2 / 4) / 2)


def test_threshold_is_where_water_starts() -> None:
    batch = batch_of(torch.zeros(1), torch.tensor([[[1, 1, 0]]]))
    for threshold, recall in ((0.3, 1.0), (0.6, 0.5), (0.61, 0.0)):
        scores = SplitScores("test")
        scores.update(None, torch.tensor([[[[0.6, 0.3, 0.1]]]]), batch, threshold)
        assert scores.compute()["recall"] == recall


def test_what_no_pixel_defines_is_absent() -> None:
    dry = torch.zeros(1, 4, 4, dtype=torch.long)
    scores = water_scores(dry, dry)
    absent = {"water_iou", "water_f1", "precision", "recall", "miou", "boundary_f1"}
    assert not absent & set(scores)
    assert scores["accuracy"] == 1
    assert "psnr" not in scores
    flooded = water_scores(dry + 1, dry)
    assert flooded["water_iou"] == 0
    assert flooded["precision"] == 0
    assert "recall" not in flooded
    unlabelled = water_scores(dry, dry + 255)
    assert unlabelled["pixels_scored"] == 0
    assert not (absent | {"accuracy"}) & set(unlabelled)
    image = torch.rand(1, 3, 4, 4)
    clouded = image_scores(image, image, torch.zeros(1, 4, 4, dtype=torch.bool))
    assert clouded["optical_pixels_scored"] == 0
    assert not {"psnr", "psnr_constant", "ssim", "lpips", "water_iou"} & set(clouded)
    assert SplitScores("test").compute() == {"chips": 0}


def test_boundary_by_hand() -> None:
    water = torch.zeros(1, 12, 12, dtype=torch.long)
    water[..., :6] = 1  # the shoreline is column 5
    for shift, expected in ((0, 1.0), (2, 1.0), (3, 0.0)):
        assert water_scores(water.roll(shift, -1) | water, water)["boundary_f1"] == expected
    assert water_scores(water.roll(3, -1) | water, water, boundary_tolerance=3)["boundary_f1"] == 1
    # A lake of 3 x 3 too many: beside the 12 shore pixels that are right, 8 that are not.
    water = nn.functional.pad(water, (0, 2))
    lake = water.clone()
    lake[:, 5:8, 9:12] = 1
    assert water_scores(lake, water)["boundary_f1"] == pytest.approx(2 * 0.6 / 1.6)


def test_boundary_agrees_with_distance_transforms() -> None:
    _, probability, batch = random_batch(3, 0.5, seed=8)
    water = batch["water"] & 1  # everything labelled
    predicted = (probability[:, 0] >= 0.5).long()
    found = total = true_found = true_total = 0
    for one, other in zip(predicted.numpy(), water.numpy(), strict=True):
        square = np.ones((3, 3), dtype=bool)
        shores = [
            m & ~ndimage.binary_erosion(m, square, border_value=1) for m in (one > 0, other > 0)
        ]
        far = [ndimage.distance_transform_edt(~shore) for shore in shores]
        found, total = found + (far[1][shores[0]] <= 2).sum(), total + shores[0].sum()
        true_found += (far[0][shores[1]] <= 2).sum()
        true_total += shores[1].sum()
    precision, recall = found / total, true_found / true_total
    expected = 2 * precision * recall / (precision + recall)
    assert 0 < expected < 1
    assert water_scores(predicted, water)["boundary_f1"] == pytest.approx(expected)


def test_the_edge_of_the_labelled_area_is_no_shoreline() -> None:
    water = torch.full((1, 8, 8), 255)
    water[..., :4] = 1
    assert "boundary_f1" not in water_scores(torch.ones_like(water), water)
    water[..., 4:] = 0
    assert "boundary_f1" in water_scores(torch.ones_like(water), water)


def test_psnr_and_the_constant_image_by_hand() -> None:
    optical = torch.tensor([[[[0.2, 0.6], [0.4, 0.4]]]])
    result = image_scores(optical + 0.1, optical)
    assert result["psnr"] == pytest.approx(20, abs=1e-4)
    # The mean, .4, is wrong by .2 in two pixels of four.
    assert result["psnr_constant"] == pytest.approx(-10 * math.log10(0.02), abs=1e-4)
    assert result["constant"] == "mean of these pixels"
    assert "ssim_constant" not in result
    given = image_scores(optical, optical, mean_image=torch.tensor([0.5]))
    error = (0.3**2 + 0.1**2 + 2 * 0.1**2) / 4
    assert given["psnr_constant"] == pytest.approx(-10 * math.log10(error), abs=1e-4)
    assert given["constant"] == "mean of the training split"
    constant = torch.full_like(optical, 0.5)
    assert given["ssim_constant"] == pytest.approx(image_scores(constant, optical)["ssim"])
    assert given["psnr"] == 100
    assert given["ssim"] == pytest.approx(1)


def test_the_constant_of_a_place_is_that_of_the_split() -> None:
    optical = torch.cat([torch.full((1, 1, 4, 4), 0.2), torch.full((1, 1, 4, 4), 0.6)])
    scores = SplitScores("test")
    water = torch.zeros(2, 4, 4, dtype=torch.long)
    scores.update(optical, None, batch_of(optical, water, ["a", "b"]))
    assert scores.compute_places()["a"]["psnr_constant"] == pytest.approx(-20 * math.log10(0.2))


def test_invalid_optical_pixels_never_count() -> None:
    rgb, _, batch = random_batch(2, 0.4, seed=9)
    optical, valid = batch["optical"], batch["optical_valid"]
    hidden = ~valid[:, None]
    settings = {"mean_image": torch.full((3,), 0.5)}
    result = image_scores(rgb, optical, valid, **settings)
    nan = float("nan")
    noise = image_scores(
        rgb.masked_fill(hidden, nan), optical.masked_fill(hidden, 0.0), valid, **settings
    )
    assert noise == result
    assert image_scores(rgb, optical, **settings)["psnr"] != result["psnr"]
    assert result["optical_pixels_scored"] == valid.sum()
    difference = (rgb - optical).permute(0, 2, 3, 1)[valid]
    expected = -10 * math.log10((difference.double() ** 2).mean())
    assert result["psnr"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_tiny_images_have_scores(size: tuple[int, int]) -> None:
    optical = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    result = image_scores(1 - optical, optical)
    assert math.isfinite(result["ssim"])
    assert math.isfinite(result["psnr"])


# LPIPS


class MeanDifference(nn.Module):
    """Stands in for LPIPS: the mean absolute difference of each pair of images."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.scale * (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


def test_lpips_averages_over_chips_and_their_valid_pixels() -> None:
    optical = torch.full((3, 3, 32, 32), 0.5)
    rgb = optical.clone()
    rgb[0] += 0.1
    rgb[1] += 0.4
    valid = torch.ones(3, 32, 32, dtype=torch.bool)
    scores = image_scores(rgb[:2], optical[:2], valid[:2], lpips=MeanDifference())
    assert scores["lpips"] == pytest.approx(0.25, abs=1e-6)
    assert "lpips" not in image_scores(rgb, optical)
    valid[1, :16] = False  # half a chip counts half, with what it shows
    valid[2] = False  # a clouded chip is no perfect chip
    scores = image_scores(rgb, optical, valid, lpips=MeanDifference())
    assert scores["lpips"] == pytest.approx((0.1 + 0.2) / 1.5, abs=1e-6)


def read_rgb(name: str) -> Tensor:
    with Image.open(Path(cast(str, FLORA_DATA)) / "lpips" / name) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def alexnet() -> nn.Module:
    return load_lpips(Path(cast(str, FLORA_DATA)) / "lpips" / "lpips_alex_v0.1.npz")


@needs_data
def test_lpips_gives_the_reference_values(alexnet: nn.Module) -> None:
    reference = read_rgb("ex_ref.png")
    for name, expected in (("ex_p0.png", 0.7219), ("ex_p1.png", 0.1376)):
        result = image_scores(read_rgb(name), reference, lpips=alexnet)
        assert result["lpips"] == pytest.approx(expected, abs=5e-5)


@needs_data
def test_loading_lpips_is_silent_frozen_and_leaves_the_seed(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    module = load_lpips(Path(cast(str, FLORA_DATA)) / "lpips" / "lpips_alex_v0.1.npz")
    assert torch.equal(torch.rand(2), expected)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


@needs_data
def test_the_weights_of_another_network_are_refused() -> None:
    with pytest.raises(
        FloraError, match=r"features\.0\.weight is float32 of shape \(64, 3, 3, 3\)"
    ):
        load_lpips(Path(cast(str, FLORA_DATA)) / "lpips" / "lpips_squeeze_v0.1.npz")


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("missing.npz", "text.npz", "one.npy", "object.npz")}
    files["text.npz"].write_text("weights")
    np.save(files["one.npy"], np.zeros(3))
    np.savez(files["object.npz"], features=np.array([{}], dtype=object))  # would need pickle
    for path in files.values():
        with pytest.raises(FloraError, match="not a readable"):
            load_lpips(path)
    np.savez(tmp_path / "other.npz", kernel=np.zeros(3))
    with pytest.raises(FloraError, match=r"features\.0\.weight is missing"):
        load_lpips(tmp_path / "other.npz")


def test_a_failed_download_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(FloraError, match=r"no route to host.*weights=PATH"):
        load_lpips()


# Wrong input


def test_wrong_input_is_refused() -> None:
    rgb, probability, batch = random_batch(2, 0.4, seed=10)
    scores = SplitScores("test")
    with pytest.raises(FloraError, match=r"water_probability .* sigmoid"):
        scores.update(None, probability * 20 - 10, batch)
    with pytest.raises(FloraError, match="water_probability of shape"):
        scores.update(None, probability[:, 0], batch)
    with pytest.raises(FloraError, match="rgb has values outside"):
        scores.update(rgb + 1, None, batch)
    with pytest.raises(FloraError, match="NaN"):
        scores.update(rgb * float("nan"), None, batch)
    with pytest.raises(FloraError, match="rgb of shape"):
        scores.update(rgb[:, :1], None, batch)
    with pytest.raises(FloraError, match="mean_image"):
        SplitScores("test", mean_image=torch.tensor([1200.0, 1100.0, 900.0]))
    with pytest.raises(FloraError, match="each of the 3 optical bands"):
        SplitScores("test", mean_image=torch.tensor([0.5])).update(rgb, None, batch)
    grey = torch.rand(1, 1, 40, 40)
    with pytest.raises(FloraError, match="3 bands"):
        image_scores(grey, grey, lpips=MeanDifference())
    small = torch.rand(1, 3, 16, 16)
    with pytest.raises(FloraError, match="at least 31 x 31"):
        image_scores(small, small, lpips=MeanDifference())
    assert scores.compute() == {"chips": 0}  # what was refused left nothing behind
