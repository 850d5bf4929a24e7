"""What may say where water was before: masks, measures, classes and outlines, and what may not."""

import json
import math
import warnings

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from flora.errors import FloraError
from flora.grid import Grid
from flora.maps.floods import split_flood
from flora.maps.layers import read_map
from flora.maps.permanent import check_permanent_water
from flora.maps.shorelines import Shorelines
from tests.maps.test_floods import TEN_METRES, UTM, read, write_codes, write_mask
from tests.support.fake_data import north_up

WORLDCOVER = [[10, 80, 90, 95, 100, 80, 0]]


def flooded(tmp_path, columns=7, rows=1, **grid):
    return write_mask(tmp_path / "mask.tif", np.ones((rows, columns)), **grid)


def write_polygons_of(path, shapes, crs="EPSG:4326", layer="lakes", append=False, kind="Polygon"):
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object),
        [np.arange(len(shapes))],
        ["number"],
        geometry_type=kind,
        crs=crs,
        layer=layer,
        append=append,
        driver={".gpkg": "GPKG", ".geojson": "GeoJSON"}[path.suffix],
    )
    return path


def test_a_class_is_that_code_and_no_other(tmp_path):
    water = flooded(tmp_path)
    cover = write_codes(tmp_path / "cover.tif", np.uint8(WORLDCOVER))
    found = split_flood(water, tmp_path / "c.tif", cover, permanent_class=80)
    assert read(found.classes).tolist() == [[1, 2, 1, 1, 1, 2, 1]]
    several = split_flood(water, tmp_path / "d.tif", cover, permanent_class=(80, 90))
    assert read(several.classes).tolist() == [[1, 2, 2, 1, 1, 2, 1]]
    chance = write_codes(tmp_path / "p.tif", np.full((1, 7), 0.9, np.float32))
    flood, permanent = read_map(chance, permanent_water=cover, permanent_class=80).area(0.5)
    assert permanent == pytest.approx(2 / 5 * flood)


def test_a_mask_of_0_and_255_needs_a_word_and_gets_it(tmp_path):
    water = flooded(tmp_path, 2)
    plain = write_codes(tmp_path / "wet.tif", np.uint8([[0, 255]]))
    with pytest.raises(FloraError, match=r"255 may be water or nodata; .*permanent_class=255"):
        check_permanent_water(plain)
    found = split_flood(water, tmp_path / "c.tif", plain, permanent_class=255)
    assert read(found.classes).tolist() == [[1, 2]]
    # Our own masks of a dry day hold 0 and 255, too, and say which 255 is.
    check_permanent_water(write_codes(tmp_path / "dry.tif", np.uint8([[0, 255]]), nodata=255))
    check_permanent_water(write_codes(tmp_path / "three.tif", np.uint8([[0, 1, 255]])))
    check_permanent_water(write_codes(tmp_path / "none.tif", np.uint8([[0, 0]])))


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -1, 0])
def test_a_threshold_that_is_none_is_refused(tmp_path, threshold):
    percent = write_codes(tmp_path / "jrc.tif", np.uint8([[0, 30, 90]]))
    with pytest.raises(FloraError, match=r"permanent_threshold .*above 0"):
        check_permanent_water(percent, permanent_threshold=threshold)


def test_what_the_file_never_reaches_is_refused_with_what_it_holds(tmp_path):
    percent = write_codes(tmp_path / "jrc.tif", np.uint8([[0, 30, 90, 255]]))
    with pytest.raises(FloraError, match=r"permanent_threshold 1000.*holds 0, 30, 90"):
        check_permanent_water(percent, permanent_threshold=1000)
    fraction = write_codes(tmp_path / "fraction.tif", np.linspace(0, 0.5, 50, dtype="f4")[None])
    with pytest.raises(FloraError, match=r"permanent_threshold 50.*holds 0 to 0\.5"):
        check_permanent_water(fraction, permanent_threshold=50)
    cover = write_codes(tmp_path / "cover.tif", np.uint8(WORLDCOVER))
    with pytest.raises(FloraError, match=r"permanent_class 8: .*holds 0, 10, 80, 90, 95, 100"):
        check_permanent_water(cover, permanent_class=8)
    with pytest.raises(FloraError, match=r"permanent_threshold=50.* and permanent_class=80"):
        check_permanent_water(cover, permanent_threshold=50, permanent_class=80)
    with pytest.raises(FloraError, match="holds 10, expected a mask"):
        check_permanent_water(cover)


def test_a_share_of_one_is_no_threshold_of_per_cent(tmp_path):
    percent = write_codes(tmp_path / "jrc.tif", np.uint8([[0, 30, 90]]))
    with pytest.raises(FloraError, match=r"permanent_threshold 0\.5: .*whole numbers; .*=50"):
        check_permanent_water(percent, permanent_threshold=0.5)
    check_permanent_water(percent, permanent_threshold=1)


def test_one_pixel_of_water_in_a_large_file_is_found(tmp_path):
    percent = np.zeros((2000, 2000), np.uint8)
    percent[1001, 777] = 60  # between the pixels that a survey looks at
    path = write_codes(tmp_path / "jrc.tif", percent)
    check_permanent_water(path, permanent_threshold=60)
    with pytest.raises(FloraError, match="holds 0, 60"):
        check_permanent_water(path, permanent_threshold=61)
    percent[1001, 777] = 7
    with pytest.raises(FloraError, match="holds 7, expected a mask"):
        check_permanent_water(write_codes(tmp_path / "seven.tif", percent))


def test_another_place_is_refused_before_a_scene_is_mapped(tmp_path):
    scene = Grid(rasterio.crs.CRS.from_string(UTM), TEN_METRES, (10, 10))
    here = write_codes(tmp_path / "here.tif", np.uint8([[0, 1]]), TEN_METRES)
    check_permanent_water(here, scene=scene)
    far = write_codes(tmp_path / "far.tif", np.uint8([[0, 1]]), north_up(20, 10), "EPSG:4326")
    with pytest.raises(FloraError, match="no overlap"):
        check_permanent_water(far, scene=scene)
    earth = Affine(180, 0, -180, 0, -90, 90)
    whole = write_codes(tmp_path / "earth.tif", np.uint8([[0, 1], [1, 0]]), earth, "EPSG:4326")
    check_permanent_water(whole, scene=scene)
    lakes = write_polygons_of(tmp_path / "far.gpkg", [shapely.box(20, 9, 21, 10)])
    with pytest.raises(FloraError, match="no overlap"):
        check_permanent_water(lakes, scene=scene)


@pytest.mark.parametrize(
    ("name", "crs"), [("a.gpkg", UTM), ("a.gpkg", "EPSG:4326"), ("a.geojson", "EPSG:4326")]
)
def test_outlines_are_permanent_water(tmp_path, name, crs):
    water = flooded(tmp_path, columns=30, rows=20)
    # Columns 5 to 15 and rows 4 to 12 of the scene, but for an island.
    corners = np.array([[5, 4], [15, 4], [15, 12], [5, 12]])
    island = np.array([[8, 6], [10, 6], [10, 8], [8, 8]])

    def placed(pixels):
        x, y = 690_000 + 10 * pixels[:, 0], 4_220_000 - 10 * pixels[:, 1]
        return (
            np.stack(transform_points(UTM, crs, x, y)[:2], axis=1)
            if crs != UTM
            else (np.stack([x, y], axis=1))
        )

    far = (
        shapely.box(*(700_000, 4_300_000, 700_100, 4_300_100))
        if crs == UTM
        else (shapely.box(100, 10, 101, 11))
    )
    lakes = [shapely.Polygon(placed(corners), [placed(island)]), far]
    path = write_polygons_of(tmp_path / name, lakes, crs)
    found = split_flood(water, tmp_path / "c.tif", path)
    expected = np.ones((20, 30))
    expected[4:12, 5:15] = 2
    expected[6:8, 8:10] = 1
    assert (read(found.classes) == expected).all()
    assert found.unknown_pixels == 0


def test_an_ocean_of_the_whole_earth_is_cut_before_it_is_projected(tmp_path):
    water = flooded(tmp_path, columns=30, rows=20)
    x, _ = transform_points(UTM, "EPSG:4326", [690_150.0], [4_219_900.0])
    ocean = shapely.box(-180, -90, 180, 90) - shapely.box(x[0], -80, 100, 80)
    path = write_polygons_of(tmp_path / "ocean.gpkg", [ocean])
    found = split_flood(water, tmp_path / "c.tif", path)
    classes = read(found.classes)
    assert (classes[10] == np.where(np.arange(30) < 15, 2, 1)).all()


def test_outlines_that_do_not_fit_are_refused(tmp_path):
    box = shapely.box(0, 0, 1, 1)
    lakes = write_polygons_of(tmp_path / "lakes.gpkg", [box])
    with pytest.raises(FloraError, match=r"permanent_threshold 50\.0: goes with a raster"):
        check_permanent_water(lakes, permanent_threshold=50)
    with pytest.raises(FloraError, match="permanent_class 80: goes with a raster"):
        check_permanent_water(lakes, permanent_class=80)
    write_polygons_of(lakes, [box], layer="more", append=True)
    with pytest.raises(FloraError, match="layers lakes, more of polygons, expected one"):
        check_permanent_water(lakes)
    lines = [shapely.LineString([(0, 0), (1, 1)])]
    path = write_polygons_of(tmp_path / "rivers.gpkg", lines, kind="LineString")
    with pytest.raises(FloraError, match="no layer of polygons"):
        check_permanent_water(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyogrio's, of the missing CRS
        nowhere = write_polygons_of(tmp_path / "nowhere.gpkg", [box], None)
    with pytest.raises(FloraError, match="no CRS"):
        check_permanent_water(nowhere)
    (tmp_path / "broken.gpkg").write_bytes(b"no vector file")
    with pytest.raises(FloraError, match="not a vector file"):
        check_permanent_water(tmp_path / "broken.gpkg")
    with pytest.raises(FloraError, match="no such file"):
        check_permanent_water(tmp_path / "none.geojson")


CORNERS = [[-1.835, 39.74], [-1.825, 39.74], [-1.825, 39.735], [-1.835, 39.74]]


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (None, "holds no polygon"),
        ({"type": "Polygon", "coordinates": []}, "holds no polygon"),
        ({"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}, "holds no polygon"),
        ({"type": "Blob", "coordinates": [CORNERS]}, "holds no polygon"),
        ({"type": "Polygon", "coordinates": [CORNERS[:3]]}, "damaged .*closed"),
        (
            {"type": "Polygon", "coordinates": [[*CORNERS[:2], [-1.83, 1e400], CORNERS[0]]]},
            "not finite|damaged",
        ),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # pyogrio's, of the same
def test_damaged_outlines_are_refused(tmp_path, geometry, message):
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path = tmp_path / "lakes.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    scene = Grid(rasterio.crs.CRS.from_string(UTM), Affine(10, 0, 6e5, 0, -10, 4.4e6), (64, 64))
    with pytest.raises(FloraError, match=message) as refused:
        check_permanent_water(path, scene=scene)
        Shorelines(path, scene)
    assert "\n" not in str(refused.value)
