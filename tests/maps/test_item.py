from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.crs import CRS
from rasterio.transform import Affine

from flora.errors import FloraError
from flora.maps.item import write_item
from flora.scenes.dates import open_dates
from flora.scenes.inputs import open_scene
from flora.scenes.mapping import map_scene
from flora.scenes.thresholds import SceneOtsu
from tests.support.fake_scenes import GRID, map_truth, write_scene

SHAPE = (64, 96)


def check_item(stored: dict) -> None:
    """Hold an item against the schema of STAC, which pystac brings with it."""
    JsonSchemaSTACValidator().validate_core(stored, pystac.STACObjectType.ITEM, "1.1.0")


def write_truth(path: Path, **profile) -> Path:
    return write_scene(path, map_truth(GRID, SHAPE).astype(np.float32), **profile)


@pytest.mark.filterwarnings("ignore::flora.errors.FloraWarning")
def test_item_is_valid_and_tells_what_a_map_was_made_of(tmp_path):
    after = write_truth(tmp_path / "S1A_20190917T060141.tif")
    before = write_truth(tmp_path / "S1A_20190905T060141.tif")
    dem = tmp_path / "dem.tif"
    with open_scene(after) as scene, open_dates(scene, before) as both:
        facts = {"method": "otsu", "weights_sha256": "0" * 64}
        outputs = map_scene(both, tmp_path, SceneOtsu().of(both), model_id=facts)
        files = {"water_mask": outputs.water_mask, "quicklook": outputs.quicklook}
        how = {"inputs": {"dem": [dem]}, "attribution": "Copernicus 2019"}
        path = write_item(tmp_path / "item.json", outputs.water_mask, both, files, **how)
        with pytest.raises(FloraError, match="exists already"):
            write_item(path, outputs.water_mask, both, files, **how)
    stored = json.loads(path.read_text())
    check_item(stored)
    item = pystac.Item.from_file(str(path))
    said = item.properties
    assert said["start_datetime"] == "2019-09-17T00:00:00Z"
    assert said["flora:method"] == "otsu" and said["flora:weights_sha256"] == "0" * 64
    assert said["flora:water_threshold"] == "0.5" and "flora:otsu_vh_change_below_db" in said
    assert said["flora:inputs"] == [
        {"role": "sar", "name": after.name, "date": "2019-09-17"},
        {"role": "dem", "name": "dem.tif", "date": None},
        {"role": "sar_before", "name": before.name, "date": "2019-09-05"},
    ]
    assert said["proj:code"] == "EPSG:32630" and said["proj:shape"] == list(SHAPE)
    assert item.assets["water_mask"].href == outputs.water_mask.name
    assert Path(item.assets["quicklook"].get_absolute_href()) == outputs.quicklook
    corners = np.array(item.geometry["coordinates"][0])
    x, y = corners.T
    assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0  # against the clock
    np.testing.assert_allclose(item.bbox[:2], corners.min(axis=0), atol=1e-3)


@pytest.mark.filterwarnings("ignore::flora.errors.FloraWarning")
@pytest.mark.parametrize(
    ("profile", "geometry"),
    [
        ({"crs": None, "transform": Affine.identity()}, None),
        (
            {"crs": CRS.from_epsg(4326), "transform": Affine(9e-5, 0, 179.997, 0, -9e-5, -16)},
            "MultiPolygon",
        ),
    ],
)
def test_items_of_scenes_without_crs_or_date_and_across_180_degrees(tmp_path, profile, geometry):
    path = write_truth(tmp_path / "S1.tif", **profile)
    with open_scene(path) as scene:
        outputs = map_scene(scene, tmp_path, SceneOtsu().of(scene))
        item = write_item(
            tmp_path / "i.json", outputs.water_mask, scene, {}, inputs={}, attribution="x"
        )
    stored = json.loads(item.read_text())
    check_item(stored)
    assert (stored["geometry"] or {}).get("type") == geometry
    assert stored["properties"]["start_datetime"] == "2014-04-03T00:00:00Z"
