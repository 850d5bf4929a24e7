import numpy as np
import pytest
import torch

from flora.datasets.base import collate
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.models.network import parameter_count
from flora.models.otsu import flood_thresholds, otsu, otsu_change, otsu_threshold
from flora.models.unet import UNet
from flora.training.evaluation import evaluate


def test_otsu_parts_two_heaps() -> None:
    values = np.array([0.0, 0.0, 1.0, 9.0, 10.0, 10.0], dtype=np.float32)
    assert 1.0 < otsu_threshold(values) < 9.0


@pytest.mark.parametrize("middle", [0.0, 3.0, -1e4])
def test_otsu_of_values_that_hardly_differ(middle: float) -> None:
    beside = np.nextafter(np.float32(middle), np.float32(np.inf))
    values = np.array([middle] * 3 + [beside] * 3, dtype=np.float32)
    assert middle < otsu_threshold(values) <= beside
    assert np.isfinite(otsu_threshold(values[:1]))


def test_otsu_follows_the_gain_of_a_chip() -> None:
    values = np.random.default_rng(0).normal([[-25.0], [-12.0]], 2.0, (2, 5000))
    first, second = otsu_threshold(values), otsu_threshold(2 * values + 30)
    assert -21 < first < -16
    assert abs(second - (2 * first + 30)) < 1e-6


def test_otsu_finds_simulated_water_and_a_filter_helps_against_speckle() -> None:
    chips = Simulated("test", count=2, size=128, seed=3)
    plain = evaluate(otsu(1), chips)["all"]
    smooth = evaluate(otsu(1, median=5), chips)["all"]
    assert smooth["accuracy"] > plain["accuracy"] > 0.5


def test_flood_is_dark_and_darker_than_before() -> None:
    random = np.random.default_rng(0)
    before = random.normal(-9, 1, (64, 64)).astype(np.float32)
    before[:, :8] -= 10  # a river
    after = before + random.normal(0, 1, (64, 64)).astype(np.float32)
    after[40:, 8:] -= 10
    dates = torch.from_numpy(np.stack([before, after]))[None]
    batch = {"sar": dates, "sar_valid": torch.full((1, 64, 64), True)}
    flood = torch.zeros(64, 64)
    flood[40:, 8:] = 1
    found = otsu_change(median=3)(batch["sar"], batch["sar_valid"], None).water[0, 0]
    assert (found == flood).float().mean() > 0.97
    river_too = otsu(1, median=3)(batch["sar"], batch["sar_valid"], None).water[0, 0]
    assert bool((river_too[:32, :7] == 1).all())


def test_a_pixel_that_became_brighter_is_no_flood() -> None:
    before = np.full((4, 4), -15, dtype=np.float32)
    after = before + np.linspace(1, 8, 16, dtype=np.float32).reshape(4, 4)
    assert flood_thresholds(before, after, np.full((4, 4), True))[1] == 0.0


def test_flood_between_two_dates_needs_two_bands() -> None:
    batch = {"sar": torch.zeros(1, 3, 8, 8), "sar_valid": torch.full((1, 8, 8), True)}
    with pytest.raises(FloraError, match=r"SAR image of 3 band\(s\): expected one before"):
        otsu_change()(batch["sar"], batch["sar_valid"], None)


def test_group_normalisation_makes_a_chip_independent_of_its_batch() -> None:
    images = torch.randn(2, 2, 32, 32)
    images[1] *= 5
    for norm, same in (("batch", False), ("group", True)):
        torch.manual_seed(0)
        model = UNet(2, (8, 16), norm=norm)
        alone, together = model(images[:1]).water_logits, model(images).water_logits[:1]
        assert torch.allclose(alone, together, atol=1e-5) == same


def test_unet_maps_any_size_and_has_its_documented_size() -> None:
    model = UNet(2).eval()
    assert 0.48e6 < parameter_count(model) < 0.50e6
    with torch.inference_mode():
        for shape in ((1, 1), (7, 31), (64, 33)):
            assert model(torch.randn(1, 2, *shape)).water_logits.shape == (1, 1, *shape)
    batch = collate([Simulated("test", count=1, size=64)[0]])
    assert model(batch["sar"]).water_logits.isfinite().all()
