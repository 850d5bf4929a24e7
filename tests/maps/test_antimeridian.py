"""Scenes across 180 degrees: on the page, on the live map, and over permanent water."""

import json
import re
from contextlib import nullcontext

import numpy as np
import pytest
import shapely
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from flora.errors import FloraWarning
from flora.maps.floods import split_flood
from flora.maps.layers import read_map
from flora.maps.live import flood_map
from flora.maps.page import write_html
from flora.maps.polygons import write_polygons
from tests.maps.test_floods import read, write_codes, write_mask
from tests.maps.test_maps import Driver
from tests.maps.test_permanent import write_polygons_of

SIDE = 60
GRIDS = {  # about the same 6 km of Fiji, with 180 degrees in the middle
    "0 to 360": ("EPSG:4326", Affine(1e-3, 0, 179.97, 0, -1e-3, -16)),
    "below -180": ("EPSG:4326", Affine(1e-3, 0, -180.03, 0, -1e-3, -16)),
    "UTM 60": ("EPSG:32760", Affine(100, 0, 818_000, 0, -100, 8_228_000)),
    "UTM 1": ("EPSG:32701", Affine(100, 0, 176_000, 0, -100, 8_228_000)),
    "Web Mercator": ("EPSG:3857", Affine(100, 0, 20_034_508, 0, -100, -1_800_000)),
}


def probability():
    """Wet in the east, so that both sides of 180 degrees differ."""
    values = np.full((SIDE, SIDE), 0.25, np.float32)
    values[:, SIDE // 2 :] = 0.75
    return values


@pytest.fixture(params=GRIDS)
def scene(request, tmp_path):
    """Probability, radar and polygons of one scene, each a file; and its map."""
    crs, transform = GRIDS[request.param]
    grid = {"transform": transform, "crs": crs}
    write_codes(tmp_path / "p.tif", probability(), nodata=np.nan, **grid)
    write_codes(tmp_path / "sar.tif", -20 * probability(), nodata=np.nan, **grid)
    write_mask(tmp_path / "mask.tif", probability() >= 0.5, **grid)
    found = write_polygons(tmp_path / "mask.tif", tmp_path / "water")
    return read_map(tmp_path / "p.tif", sar=tmp_path / "sar.tif", polygons=found.geojson)


def test_the_map_is_whole_and_in_its_place(scene):
    west, south, east, north = scene.grid.lon_lat_box()
    assert 179.96 < west < 179.98 < 180.02 < east < 180.04
    assert -16.07 < south < north < -15.95
    rows, columns = scene.levels.shape
    inner = np.s_[rows // 8 : -rows // 8, columns // 8 : -columns // 8]
    assert set(np.unique(scene.levels[inner])) == {25, 75}
    assert (scene.images["SAR VV"][inner][..., 3] == 255).all()
    wet = scene.classes(0.5)[rows // 2, columns // 8 : -columns // 8]
    assert (np.diff(wet.astype(int)) >= 0).all() and 0.4 < wet.mean() < 0.6
    # One lake, without a shore along 180 degrees.
    (lake,) = scene.outlines
    assert len(lake.rings) == 1
    ring = lake.rings[0] / 4
    middle, right = np.flatnonzero(wet)[0] + columns // 8, ring[:, 0].max()
    assert (abs(ring[:, 0].min() - middle), abs(right - columns)) < (3, 5)
    inside = (ring[:, 0] > middle + 4) & (ring[:, 0] < right - 4)
    assert np.isin(np.round(ring[inside, 1] / rows), (0, 1)).all()


def test_the_live_map_has_image_and_outlines_in_one_place(scene):
    pytest.importorskip("leafmap")
    live = flood_map(scene)
    layers = {layer.name: layer for layer in live.layers}
    (south, west), (north, east) = layers["water"].bounds
    assert 179.9 < west < 180 < east < 180.1
    points = layers["polygons"].data["features"][0]["geometry"]["coordinates"][0]
    longitude, latitude = np.transpose(points)
    assert west < longitude.min() < longitude.max() < east + 1e-3
    assert south - 1e-3 < latitude.min() < latitude.max() < north + 1e-3


def test_the_page_is_drawn_and_counts_longitude_anew(scene, browser, tmp_path):
    path = write_html(
        scene, tmp_path / "map.html", tiles="http://127.0.0.1:1/{z}/{x}/{y}", tiles_attribution="a"
    )
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    asked = []
    context.route("http://127.0.0.1:1/**", lambda route: (asked.append(route.request.url),
                                                           route.abort()))  # fmt: skip
    driver = Driver(context.new_page()).open(path)
    stage = driver.page.locator(".stage").bounding_box()
    assert (driver.pixels()[..., 3] > 0).mean() > 0.4
    said = []
    for share in (0.4, 0.6):
        driver.page.mouse.move(
            stage["x"] + share * stage["width"], stage["y"] + stage["height"] / 2
        )
        said.append(driver.page.locator(".place").inner_text())
    assert re.match(r"1\d\.\d+° S, 179\.\d+° E · probability 0\.25", said[0])
    assert re.match(r"1\d\.\d+° S, 179\.\d+° W · probability 0\.75", said[1])
    driver.layer("base map (from the network)").check()
    driver.page.wait_for_timeout(300)
    columns = {tuple(map(int, re.findall(r"\d+", url)[-3:]))[:2] for url in asked}
    context.close()
    level = max(columns)[0]
    # Tiles of both edges of the world, and no column beyond.
    assert {0, 2**level - 1} <= {x for _, x in columns}
    assert all(0 <= x < 2**level for _, x in columns)


@pytest.mark.parametrize("scene_grid", ["0 to 360", "below -180", "UTM 60"])
@pytest.mark.parametrize("known", ["0 to 360", "east of 180", "outlines"])
def test_permanent_water_is_found_on_both_sides(tmp_path, scene_grid, known):
    crs, transform = GRIDS[scene_grid]
    half = known == "east of 180"
    water = write_mask(tmp_path / "mask.tif", np.ones((SIDE, SIDE)), transform, crs)
    if known == "outlines":
        lake = shapely.MultiPolygon(
            [shapely.box(179.99, -17, 180, -15), shapely.box(-180, -17, -179.99, -15)]
        )
        path = write_polygons_of(tmp_path / "w.geojson", [lake], kind="MultiPolygon")
        wet = (179.99, 180.01)
    else:
        west = 179.5 if known == "0 to 360" else -180
        codes = np.zeros((200, 1000), np.uint8)
        edges = (480, 520) if known == "0 to 360" else (0, 20)
        codes[:, slice(*edges)] = 1
        wet = (179.98, 180.02) if known == "0 to 360" else (180, 180.02)
        path = write_codes(
            tmp_path / "w.tif", codes, Affine(1e-3, 0, west, 0, -1e-3, -15.9), "EPSG:4326", 255
        )
    # A file of one side only says nothing about the other, which is reported.
    reported = pytest.warns(FloraWarning, match="says nothing about") if half else nullcontext()
    with reported:
        found = split_flood(water, tmp_path / "c.tif", path)
    row = read(found.classes)[SIDE // 2]
    x0, x1 = _columns(wet, scene_grid)
    expected = np.where((np.arange(SIDE) + 0.5 > x0) & (np.arange(SIDE) + 0.5 < x1), 2, 1)
    assert np.abs(row - expected.astype(int)).sum() <= 2  # but for rounding at the edges
    assert (row == 2).any()


def _columns(longitudes, scene_grid):
    """Columns of two longitudes in the middle row."""
    crs, transform = GRIDS[scene_grid]
    if crs != "EPSG:4326":
        latitude = -16.035
        x, _ = transform_points("EPSG:4326", crs, list(longitudes), [latitude] * 2)
    else:
        x = [value - 360 if scene_grid == "below -180" else value for value in longitudes]
    return [(value - transform.c) / transform.a for value in x]


def test_the_geojson_keeps_the_rfc_across_180(tmp_path):
    crs, transform = GRIDS["UTM 60"]
    write_mask(tmp_path / "mask.tif", np.ones((SIDE, SIDE)), transform, crs)
    found = write_polygons(tmp_path / "mask.tif", tmp_path / "w")
    shapes = [
        shapely.geometry.shape(feature["geometry"])
        for feature in json.loads(found.geojson.read_text())["features"]
    ]
    west, _, east, _ = shapely.total_bounds(shapes)
    assert (west, east) == (-180, 180)  # cut there, as RFC 7946 asks
