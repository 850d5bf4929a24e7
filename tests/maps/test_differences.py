"""Where two maps of a scene differ."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from flora.errors import FloraError
from flora.maps.differences import write_differences
from flora.predictors import Prediction
from flora.scenes.inputs import open_scene
from flora.scenes.mapping import map_scene
from flora.scenes.tiles import Tiling
from tests.support.fake_data import fake_scene, write_raster

UTM, GRID, SIDE = "EPSG:32630", Affine(10, 0, 600_000, 0, -10, 4_400_000), 150
TILING = Tiling(64, 16)


def below(limit):
    def predict(sar, valid, guide):
        return Prediction((sar[:, 1:] < limit).float())

    return predict


def between(sar, valid, guide):
    """Water where VH is neither darkest nor bright: some of it is the other's, some is not."""
    return Prediction(((sar[:, 1:] > -1) & (sar[:, 1:] < 0)).float())


@pytest.fixture
def scene(tmp_path):
    values = fake_scene(3, SIDE)["sar"]
    values[:, :20, :30] = np.nan
    path = write_raster(tmp_path / "S1.tif", values, np.nan, GRID, UTM)
    with open_scene(path) as opened:
        yield opened


def test_each_pixel_has_the_class_of_both_answers(scene, tmp_path):
    mask = map_scene(scene, tmp_path / "o", below(-0.5), tiling=TILING).water_mask
    with pytest.raises(FloraError, match="output"):
        write_differences(mask, scene, between, mask, tiling=TILING, overwrite=True)
    found = write_differences(mask, scene, between, tmp_path / "d.tif", tiling=TILING)
    values, valid = scene.read(0, SIDE)
    vh = scene.scaling.normalise(values, valid)[1]
    ours, theirs = vh < -0.5, (vh > -1) & (vh < 0)
    expected = np.where(valid, ours & theirs, 255) + np.where(valid, 2 * (ours & ~theirs), 0)
    expected += np.where(valid, 3 * (theirs & ~ours), 0)
    with rasterio.open(found.differences) as file:
        np.testing.assert_array_equal(file.read(1), expected)
        assert file.tags()["FLORA_SCENE"] == "S1" and file.descriptions[0].startswith("0 dry in")
    assert min(found.pixels.values()) > 0
    for code, count in found.pixels.items():
        assert count == (expected == code).sum()
        assert found.km2[code] == pytest.approx(1e-4 * count, rel=2e-3)
    union = (valid & (ours | theirs)).sum()
    assert found.agreement == pytest.approx((valid & ours & theirs).sum() / union)


def test_two_dry_maps_agree_on_nothing(scene, tmp_path):
    mask = map_scene(scene, tmp_path / "o", below(-99), tiling=TILING).water_mask
    found = write_differences(mask, scene, below(-99), tmp_path / "d.tif", tiling=TILING)
    assert found.agreement is None


def test_a_mask_of_another_part_is_refused(scene, tmp_path):
    with open_scene(scene.paths[0], window=(0, 0, 64, 64)) as part:
        mask = map_scene(part, tmp_path / "o", below(-0.5), tiling=TILING).water_mask
    with pytest.raises(FloraError, match="another part"):
        write_differences(mask, scene, between, tmp_path / "d.tif")
    assert not (tmp_path / "d.tif").exists()
