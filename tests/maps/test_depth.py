from __future__ import annotations

import numpy as np
import pytest
import rasterio

from flora.errors import FloraError
from flora.grid import Grid
from flora.maps.depth import flood_depth, write_depth
from flora.scenes.elevation import terrain_grid
from tests.maps.test_trust import write_dem
from tests.support.fake_scenes import GRID, write_scene


def test_depth_of_a_valley_worked_by_hand():
    ground = np.abs(np.arange(-5, 6))[None] + np.zeros((7, 1))  # a valley, 1 m a cell
    classes = np.where(ground <= 3, 1, 0).astype(np.uint8)
    # The edge stands at 3 m on both sides, so that the surface lies at 3 m everywhere.
    np.testing.assert_allclose(flood_depth(classes, ground), np.maximum(3 - ground, 0), atol=1e-6)


def test_depth_between_edges_of_two_heights_is_that_of_the_nearer_one():
    ground = np.float32([[9, 4, 0, 0, 0, 0, 0, 0, 2, 9]])
    classes = np.uint8([[0, 1, 1, 1, 1, 1, 1, 1, 1, 0]])
    # Surfaces 4 4 4 4 | 2 2 2 2, averaged over three cells of the flood.
    wanted = [0, 0, 4, 4, 10 / 3, 8 / 3, 2, 2, 0, 0]
    np.testing.assert_allclose(flood_depth(classes, ground)[0], wanted, atol=1e-6)


def test_permanent_water_and_nodata_are_no_edge():
    ground = np.float32([[5, 3, 1, 0, 0, 7]])
    classes = np.uint8([[0, 1, 1, 1, 2, 255]])
    depth = flood_depth(classes, ground)[0]
    np.testing.assert_allclose(depth[:4], [0, 0, 2, 3], atol=1e-6)
    assert np.isnan(depth[4:]).all()
    unknown = flood_depth(np.uint8([[2, 1, 1, 255]]), np.float32([[0, 0, 0, 0]]))
    assert np.isnan(unknown).all()


def test_depth_of_a_map_on_the_cells_of_the_elevation(tmp_path):
    middle = GRID.c + 800
    dem = write_dem(tmp_path / "dem.tif", lambda x, y: np.abs(x - middle) / 100)
    x = GRID.c + 10 * (np.arange(160) + 0.5)
    row = np.where(np.abs(x - middle) <= 400, 1, 0).astype(np.uint8)
    mask = write_scene(tmp_path / "mask.tif", np.tile(row, (1, 120, 1)), nodata=255)
    found = write_depth(mask, [dem], tmp_path / "depth.tif")
    with rasterio.open(found.depth) as file, rasterio.open(mask) as classes:
        depth, grid = file.read(1), file.transform
        assert file.shape == terrain_grid(Grid.of(classes)).shape
    column = int((middle - grid.c) / 30)
    flooded = depth[:, column][np.isfinite(depth[:, column])]
    assert flooded == pytest.approx(4, abs=0.5)  # the edge lies at 4 m, to a cell's 0.3 m
    assert 1.5 < found.median < 2.5 and 3.3 < found.high < 4.2
    with pytest.raises(FloraError, match="exists already"):
        write_depth(mask, [dem], tmp_path / "depth.tif")
    for named in (mask, dem):
        kept = named.read_bytes()
        with pytest.raises(FloraError, match="output"):
            write_depth(mask, [dem], named, overwrite=True)
        assert named.read_bytes() == kept
    dry = write_scene(tmp_path / "dry.tif", np.zeros((1, 120, 160), np.uint8), nodata=255)
    none = write_depth(dry, [dem], tmp_path / "other.tif")
    assert none.cells == 0 < found.cells
    assert np.isnan([none.median, none.high]).all()
    with rasterio.open(none.depth) as file:
        assert np.nanmax(file.read(1)) == 0  # dry ground, as far as the scene reaches


def test_no_water_of_a_real_flood_is_deeper_than_the_ground_around_it(flora_data):
    """HydroSAR's window: real heights above drainage and a flood that was mapped on them."""
    folder = flora_data / "fixtures" / "hydrosar"
    heights = np.load(folder / "hand_window.npz")["hand_window"]
    flood = np.load(folder / "flood_window.npz")["flood_window"].astype(np.uint8)
    depth = flood_depth(flood, heights)
    wet = flood == 1
    assert wet.sum() > 100 and (depth[~wet] == 0).all()
    assert np.isfinite(depth[wet]).all() and (depth[wet] >= 0).all()
    assert depth[wet].max() <= np.ptp(heights[wet])
    # Lower ground lies under deeper water.
    assert np.corrcoef(depth[wet], heights[wet])[0, 1] < 0
