from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform

from flora.errors import FloraError
from flora.grid import Grid, apply
from flora.maps.terrain import ElevationModel, read_terrain
from flora.maps.trust import (
    DARK,
    EDGE,
    EDGE_PIXELS,
    HIDDEN,
    HIGH,
    STEEP,
    UNKNOWN,
    TrustLimits,
    write_trust,
)
from flora.scenes.elevation import MARGIN, PIXEL, terrain_grid
from flora.scenes.inputs import open_scene
from flora.scenes.viewing import Viewing
from tests.support.fake_scenes import GRID, UTM, write_scene

SHAPE = (120, 160)


def terrain(elevation: np.ndarray) -> ElevationModel:
    corner = Affine(PIXEL, 0, 600_000, 0, -PIXEL, 4_400_000)
    return ElevationModel(Grid(UTM, corner, elevation.shape), elevation.astype(np.float32))


def write_dem(path: Path, height, grid: Grid | None = None, **profile) -> Path:
    """Elevation `height(x, y)` over the scene at `GRID` and what surrounds it."""
    grid = grid or terrain_grid(Grid(UTM, GRID, SHAPE))
    row, column = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    a, _, x0, _, e, y0 = grid.transform[:6]
    values = np.broadcast_to(height(x0 + a * column, y0 + e * row), grid.shape)
    values = values.astype(np.float32)[None]
    return write_scene(path, values, crs=grid.crs, transform=grid.transform, **profile)


def test_slope_of_a_plane():
    rows, columns = np.mgrid[:20, :20] * PIXEL
    slope = terrain(0.3 * columns + 0.4 * rows).slope
    np.testing.assert_allclose(slope, math.degrees(math.atan(0.5)), rtol=1e-5)


def test_height_above_drainage_of_a_straight_valley():
    rows, columns = np.mgrid[:120, :61]
    valley = terrain(2.0 * np.abs(columns - 30) + 0.1 * (120 - rows))
    # Down here 100 cells have gathered on the valley floor, to which cells drain diagonally.
    np.testing.assert_allclose(valley.hand[60], 2.1 * np.abs(np.arange(61) - 30), atol=1e-3)


def test_shadow_lies_behind_a_wall_as_long_as_the_ray_is_flat():
    heights = np.zeros((101, 101))
    heights[:, 49:52] = 150.0
    hidden = terrain(heights).hidden("ascending")[30:70]
    # The radar looks to 77 degrees, so that shadow lies in the east; 150 m shade 150 tan(46) m
    # along the ray, the wall lays itself over 150 / tan(29.1) m in front of it.
    east = hidden[:, 52:].sum(axis=1) * PIXEL * math.sin(math.radians(77))
    shaded = 150 * math.tan(math.radians(46.0))
    assert abs(np.median(east) - shaded) < 2 * PIXEL
    west = hidden[:, :49].sum(axis=1) * PIXEL * math.sin(math.radians(77))
    assert abs(np.median(west) - 150 / math.tan(math.radians(29.1))) < 3 * PIXEL
    mirrored = terrain(heights).hidden("descending")[30:70]
    assert hidden[:, 52:].sum() != mirrored[:, 52:].sum()
    assert not terrain(np.zeros((60, 60))).hidden("ascending").any()


def test_shadow_and_layover_are_as_long_as_the_angle_of_the_place_makes_them():
    heights = np.zeros((121, 161))
    heights[:, 79:82] = 150.0
    ground = terrain(heights)
    degrees = np.linspace(30, 46, 161)  # from the west, where the radar flies, to the east
    x, y = apply(ground.grid.transform, *np.meshgrid(np.arange(161) + 0.5, np.arange(121) + 0.5))
    longitude, latitude = transform(UTM, "EPSG:4326", x.ravel(), y.ravel())
    there = (np.reshape(values, x.shape) for values in (longitude, latitude))
    view = Viewing("ascending", *there, np.broadcast_to(degrees, x.shape))
    np.testing.assert_allclose(view.angles(ground.grid)[60], degrees, atol=0.01)
    assert view.azimuth(UTM) == pytest.approx(90, abs=0.1)
    hidden = ground.hidden(view)[40:80]
    at_wall = math.radians(38)
    shadow, layover = hidden[:, 82:].sum(axis=1), hidden[:, :79].sum(axis=1)
    assert abs(np.median(shadow) * PIXEL - 150 * math.tan(at_wall)) < 2 * PIXEL
    assert abs(np.median(layover) * PIXEL - 150 / math.tan(at_wall)) < 2 * PIXEL
    assert hidden.sum() < 0.8 * ground.hidden("ascending")[40:80].sum()  # all angles of the mode


def test_tiles_of_elevation_complete_each_other_on_any_grid(tmp_path):
    grid = terrain_grid(Grid(UTM, GRID, SHAPE))
    west = Grid(UTM, grid.transform, (grid.shape[0], grid.shape[1] // 2 + 3))
    degrees = Grid(
        rasterio.crs.CRS.from_epsg(4326),
        Affine(1 / 3600, 0, -1.95, 0, -1 / 3600, 39.85),
        (800, 700),
    )
    left = write_dem(tmp_path / "left.tif", lambda x, y: 7 + 0 * x, west)
    whole = write_dem(tmp_path / "whole.tif", lambda x, y: 9 + 0 * x, degrees)
    both = read_terrain([left, whole], Grid(UTM, GRID, SHAPE))
    assert both.elevation[50, 0] == 7 and both.elevation[50, -1] == 9
    assert both.known.all()
    assert both.grid.transform.c == pytest.approx(GRID.c - MARGIN, abs=1)


@pytest.mark.parametrize(
    ("height", "profile", "words"),
    [
        (lambda x, y: 0 * x - 9999, {}, "expected elevation in m"),
        (lambda x, y: 0 * x, {"crs": None, "transform": None}, "no CRS"),
        (lambda x, y: 0 * x - 1, {"nodata": -1}, "no elevation within the scene"),
    ],
)
def test_what_is_no_elevation_is_refused(tmp_path, height, profile, words):
    path = write_dem(tmp_path / "dem.tif", height)
    if profile:
        with rasterio.open(path) as file:
            write_scene(tmp_path / "dem.tif", file.read(), **profile)
    with pytest.raises(FloraError, match=words):
        read_terrain([path], Grid(UTM, GRID, SHAPE))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Land, and in rows 60 to 79 what is darker than noise; no values in the last 20 columns."""
    values = np.stack([np.full(SHAPE, -10.0), np.full(SHAPE, -16.0)])
    values += np.random.default_rng(0).normal(0, 1, values.shape)
    values[:, 60:80] -= 20
    values[:, :, 140:] = np.nan
    return write_scene(tmp_path / "S1.tif", values.astype(np.float32))


def write_mask(path: Path, scene: Path) -> Path:
    """All that was measured is water."""
    with rasterio.open(scene) as file:
        seen = np.isfinite(file.read(1))
    return write_scene(path, np.where(seen, 1, 255).astype(np.uint8)[None], nodata=255)


def test_bits_and_areas_of_a_scene_below_a_slope(scene, tmp_path):
    ridge = GRID.c + 150 * 10

    def hillside(x, y):
        return np.maximum(700 - np.abs(x - ridge), 0) * math.tan(math.radians(20))

    dem = write_dem(tmp_path / "dem.tif", hillside)
    mask = write_mask(tmp_path / "mask.tif", scene)
    with open_scene(scene) as opened:
        with pytest.raises(FloraError, match="output"):
            write_trust(mask, opened, [dem], dem, overwrite=True)
        found = write_trust(mask, opened, [dem], tmp_path / "trust.tif")
    with rasterio.open(found.trust) as file:
        bits = file.read(1)
        assert file.tags()["FLORA_SHADOW_LAYOVER"] == "not looked for"
        assert file.descriptions[0].startswith("1 steep")
    assert (bits[:, 140:] == 255).all()
    inner = bits[:, :140]
    edge = np.ones(inner.shape, dtype=bool)
    edge[EDGE_PIXELS:-EDGE_PIXELS, EDGE_PIXELS : 140 - EDGE_PIXELS] = False
    np.testing.assert_array_equal(inner & EDGE > 0, edge)
    assert ((inner & STEEP > 0)[:, 84:]).all() and not (inner & STEEP)[:, :76].any()
    assert ((inner & DARK) > 0)[60:80].mean() > 0.95 and not (inner & DARK)[:60].any()
    assert not (inner & (HIDDEN | UNKNOWN)).any()
    # 15 m above the plain, which begins at column 80, is 41 m or four columns up the slope.
    assert (inner & HIGH > 0)[:, 90:].all() and not (inner & HIGH)[:, :80].any()
    doubtful = (inner & (STEEP | HIGH | HIDDEN | EDGE | UNKNOWN)) > 0
    assert found.doubtful_pixels == doubtful.sum()
    assert found.doubtful_km2 == pytest.approx(doubtful.sum() * 1e-4, rel=5e-3)
    assert found.pixels["dark as noise"] == (inner & DARK > 0).sum()


def test_permanent_water_is_not_counted_and_limits_move_the_bits(scene, tmp_path):
    dem = write_dem(tmp_path / "dem.tif", lambda x, y: (x - GRID.c) * math.tan(math.radians(5)))
    mask = write_mask(tmp_path / "mask.tif", scene)
    with rasterio.open(mask, "r+") as file:
        codes = file.read(1)
        codes[:60] = np.where(codes[:60] == 1, 2, codes[:60])
        file.write(codes, 1)
    with open_scene(scene) as opened:
        flat = write_trust(mask, opened, [dem], tmp_path / "flat.tif")
        strict = TrustLimits(slope=4.0, orbit="descending")
        steep = write_trust(mask, opened, [dem], tmp_path / "steep.tif", limits=strict)
        with pytest.raises(FloraError, match="exists already"):
            write_trust(mask, opened, [dem], tmp_path / "flat.tif")
    assert flat.pixels["steep"] == 0
    assert steep.pixels["steep"] == 60 * 140


def test_ground_without_elevation_is_said_to_be_unknown(scene, tmp_path):
    north = terrain_grid(Grid(UTM, GRID, SHAPE))
    half = Grid(UTM, north.transform, (100 + 20, north.shape[1]))  # down to row 60 of the scene
    dem = write_dem(tmp_path / "dem.tif", lambda x, y: 0 * x, half)
    mask = write_mask(tmp_path / "mask.tif", scene)
    with open_scene(scene) as opened:
        found = write_trust(mask, opened, [dem], tmp_path / "trust.tif")
    with rasterio.open(found.trust) as file:
        unknown = file.read(1)[:, :140] & UNKNOWN > 0
    assert not unknown[:55].any() and unknown[65:].all()


@pytest.mark.parametrize("limits", [{"slope": 0.0}, {"slope": 91.0}, {"hand": 0.0}])
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(FloraError, match="expected"):
        TrustLimits(**limits)
