"""The real pair that comes with the package."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from flora import FloraError, open_dataset
from flora.datasets.base import Window
from flora.datasets.sample import OPTICAL, RADAR


def test_both_satellites_saw_the_same_pixels():
    with rasterio.open(RADAR) as radar, rasterio.open(OPTICAL) as optical:
        assert radar.shape == optical.shape == (224, 224)
        assert radar.transform == optical.transform and radar.crs == optical.crs
        assert optical.descriptions == ("B4", "B3", "B2", "B8")


def test_sample_is_in_physical_units_and_its_water_is_nobodys_guess():
    chips = open_dataset("sample")
    (pair,) = chips
    with rasterio.open(RADAR) as file:
        gamma0 = file.read() * 0.01
    # 10 log10 cos 38.8 degrees
    sigma0 = chips.sar_scaling.restore(pair["sar"].numpy())
    inside = (gamma0 > -28) & (gamma0 < -3)  # beyond, the scaling clips
    np.testing.assert_allclose((sigma0 - gamma0)[inside], -1.083, atol=2e-3)
    with rasterio.open(OPTICAL) as file:
        red, *_, near = file.read() * 0.0005
    np.testing.assert_allclose(pair["optical"][0], (red / 0.3).clip(0, 1), atol=1e-5)
    np.testing.assert_allclose(pair["index"][0], (near - red) / (near + red), atol=1e-5)
    assert set(pair["water"].unique().tolist()) == {255}
    assert pair["sar_valid"].all() and pair["optical_valid"].all()


def test_sea_and_sand_are_told_apart_by_the_optical_image():
    (pair,) = open_dataset("sample")
    sea, forest = (pair["index"][0, 200:, 200:], pair["index"][0, :40, :40])
    assert sea.median() < 0 < 0.6 < forest.median()
    vh = pair["sar"][1]
    assert vh[200:, 200:].median() < vh[:40, :40].median() - 1  # standard deviations


def test_window_and_refusals(tmp_path):
    chips = open_dataset("sample")
    part = chips.read(0, Window(10, 20, 32, 48))
    assert (part["optical"] == chips[0]["optical"][:, 10:42, 20:68]).all()
    with pytest.raises(FloraError, match="expected test, the only one"):
        open_dataset("sample", None, "train")
    with pytest.raises(FloraError, match="leave out root"):
        open_dataset("sample", tmp_path)
