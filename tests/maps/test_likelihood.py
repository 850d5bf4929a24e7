"""Likelihoods and intervals of maps on disk."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from flora.errors import FloraError
from flora.maps.likelihood import area_intervals, write_likelihood
from flora.models.calibration import Calibration
from tests.support.fake_data import write_raster

UTM, GRID = "EPSG:32630", Affine(10, 0, 600_000, 0, -10, 4_400_000)
BENT = Calibration(wet=0.5, dry=2, shift=0.2, less=1, more=0.5, coverage=0.9)
SIDE = 300  # more rows than a strip


@pytest.fixture
def probability(tmp_path):
    values = np.random.default_rng(0).random((1, SIDE, 40)).astype(np.float32)
    values[:, 10:20, 5:15] = np.nan
    return write_raster(tmp_path / "p.tif", values, np.nan, GRID, UTM)


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def test_per_cent_of_each_pixel_and_nodata(probability, tmp_path):
    path = write_likelihood(probability, tmp_path / "l.tif", BENT)
    given = read(probability)
    expected = np.rint(100 * BENT.likelihood(given))
    np.testing.assert_array_equal(read(path), np.where(np.isnan(given), 255, expected))
    with rasterio.open(path) as file:
        assert file.nodata == 255 and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert "wet=0.5 dry=2" in file.tags()["FLORA_CALIBRATION"]
    with pytest.raises(FloraError, match="exists already"):
        write_likelihood(probability, path, BENT)
    with pytest.raises(FloraError, match="would replace what probability names"):
        write_likelihood(probability, probability, BENT, overwrite=True)


def test_intervals_of_all_water_and_of_what_was_dry_before(probability, tmp_path):
    wet = np.zeros((1, SIDE, 40), np.uint8)
    wet[:, 100:, :10] = 1
    known = write_raster(tmp_path / "wet.tif", wet, None, GRID, UTM)
    found = area_intervals(probability, BENT, permanent_water=known)
    likely = BENT.likelihood(read(probability))
    for interval, part in ((found.water, wet[0] < 2), (found.flood, wet[0] == 0)):
        chances = likely[part & np.isfinite(likely)]
        doubtful = np.minimum(chances, 1 - chances).sum()
        ends = chances.sum() - doubtful, chances.sum(), chances.sum() + doubtful / 2
        # 100 m2 on the map; the scale of UTM makes a little of it.
        assert interval[:3] == pytest.approx([1e-4 * area for area in ends], rel=2e-3)
    assert found.unit == "km2" and found.flood.high < found.water.high
    assert area_intervals(probability, BENT).flood is None


def test_without_a_crs_areas_are_pixels(tmp_path):
    values = np.full((1, 4, 5), 0.5, np.float32)
    path = write_raster(tmp_path / "p.tif", values, np.nan, GRID, None)
    even = Calibration(wet=1, dry=1, shift=0, less=0.5, more=0.5, coverage=0.9)
    found = area_intervals(path, even)
    assert found.unit == "px"
    assert found.water[:3] == pytest.approx((5, 10, 15))
