import json
import math

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from flora.errors import FloraError, FloraWarning
from flora.maps.floods import split_flood
from flora.maps.polygons import write_polygons
from tests.support.fake_data import north_up, write_raster

UTM = "EPSG:32630"
UTM_TRUE = 1e-4  # relative: areas at this easting are those that UTM says to this precision
TEN_METRES = Affine(10.0, 0.0, 690_000.0, 0.0, -10.0, 4_220_000.0)
MASK = "0 dry, 1 water, 255 nodata"


def write_mask(path, codes, transform=TEN_METRES, crs=UTM):
    write_raster(path, np.asarray(codes, dtype=np.uint8)[None], 255, transform, crs)
    with rasterio.open(path, "r+") as file:
        file.set_band_description(1, MASK)
    return path


def write_codes(path, codes, transform=TEN_METRES, crs=UTM, nodata=None):
    return write_raster(path, np.asarray(codes)[None], nodata, transform, crs)


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def by_hand():
    """Six pixels of water, of which the last two columns hold three; one pixel of nodata."""
    mask = [[1, 1, 0, 1], [0, 1, 1, 1], [255, 0, 0, 0]]
    permanent = [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
    classes = [[1, 1, 0, 2], [0, 1, 2, 2], [255, 0, 0, 0]]
    return mask, permanent, classes


def test_split_by_hand(tmp_path):
    mask, permanent, classes = by_hand()
    water = write_mask(tmp_path / "mask.tif", mask)
    wet = write_codes(tmp_path / "wet.tif", np.uint8(permanent))
    found = split_flood(water, tmp_path / "out" / "classes.tif", wet)
    assert read(found.classes).tolist() == classes
    assert (found.flood_pixels, found.permanent_pixels, found.valid_pixels) == (3, 3, 11)
    # Pixels of 10 m are a ten-thousandth of a square kilometre.
    assert found.flood_km2 == pytest.approx(3e-4, rel=UTM_TRUE)
    assert found.permanent_km2 == pytest.approx(3e-4, rel=UTM_TRUE)
    assert found.valid_km2 == pytest.approx(11e-4, rel=UTM_TRUE)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["classes.tif"]


def test_classes_are_a_cloud_optimised_geotiff_with_colours(tmp_path):
    random = np.random.default_rng(0)
    codes = random.choice([0, 1, 255], (600, 300))
    wet = random.integers(0, 2, (600, 300)).astype(np.uint8)
    water = write_mask(tmp_path / "mask.tif", codes)
    found = split_flood(water, tmp_path / "c.tif", write_codes(tmp_path / "wet.tif", wet))
    # More than two strips, the last not whole: no seam.
    assert (read(found.classes) == np.where((codes == 1) & (wet == 1), 2, codes)).all()
    with rasterio.open(found.classes) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        assert set(np.unique(file.read(1, out_shape=(150, 75)))) <= {0, 1, 2, 255}
        assert (file.nodata, file.crs, file.transform) == (255, UTM, TEN_METRES)
        colours = file.colormap(1)
        assert len({colours[code] for code in (0, 1, 2, 255)}) == 4
        assert file.tags()["FLORA_PERMANENT_WATER"] == "wet.tif"


def test_occurrence_needs_a_threshold(tmp_path):
    water = write_mask(tmp_path / "mask.tif", [[1, 1, 1, 1]])
    percent = write_codes(tmp_path / "jrc.tif", np.uint8([[0, 49, 50, 100]]))
    with pytest.raises(FloraError, match="permanent_threshold=50"):
        split_flood(water, tmp_path / "c.tif", percent)
    assert not (tmp_path / "c.tif").exists()
    found = split_flood(water, tmp_path / "c.tif", percent, permanent_threshold=50)
    assert read(found.classes).tolist() == [[1, 1, 2, 2]]
    found = split_flood(water, tmp_path / "c.tif", percent, permanent_threshold=40, overwrite=True)
    assert read(found.classes).tolist() == [[1, 2, 2, 2]]


def test_water_whose_past_is_unknown_is_flood_and_is_reported(tmp_path):
    water = write_mask(tmp_path / "mask.tif", [[1, 1, 1, 0]])
    before = write_mask(tmp_path / "before.tif", [[1, 255, 0, 255]])
    with pytest.warns(FloraWarning, match="nothing about 33% of the water"):
        found = split_flood(water, tmp_path / "c.tif", before)
    assert read(found.classes).tolist() == [[2, 1, 1, 0]]
    assert found.unknown_pixels == 1


def test_little_of_unknown_past_is_told_in_pixels(tmp_path):
    past = np.ones((1, 300), np.uint8)
    past[0, 7] = 255
    water = write_mask(tmp_path / "mask.tif", np.ones((1, 300)))
    before = write_mask(tmp_path / "before.tif", past)
    with pytest.warns(FloraWarning, match="nothing about 1 px of the water"):  # not 0 %
        split_flood(water, tmp_path / "c.tif", before)


def test_a_mask_of_0_and_255_is_understood_when_told(tmp_path):
    water = write_mask(tmp_path / "mask.tif", [[1, 1]])
    wet = write_codes(tmp_path / "wet.tif", np.uint8([[0, 255]]))
    found = split_flood(water, tmp_path / "c.tif", wet, permanent_threshold=255)
    assert read(found.classes).tolist() == [[1, 2]]


def test_permanent_water_on_another_grid(tmp_path):
    water = write_mask(tmp_path / "mask.tif", np.ones((60, 80)))
    # Three times coarser, in degrees; permanent east of a meridian.
    x, y = transform_points(UTM, "EPSG:4326", [690_000.0], [4_220_000.0])
    pixel = 2.5e-4
    grid = north_up(x[0] - 0.005, y[0] + 0.005, pixel)
    wet = np.zeros((100, 100), np.uint8)
    wet[:, 40:] = 90
    occurrence = write_codes(tmp_path / "jrc.tif", wet, grid, "EPSG:4326")
    found = split_flood(water, tmp_path / "c.tif", occurrence, permanent_threshold=50)
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    longitude, _ = transform_points(
        UTM, "EPSG:4326", (690_000 + 10 * columns).ravel(), (4_220_000 - 10 * rows).ravel()
    )
    border = x[0] - 0.005 + 40 * pixel
    away = np.abs(np.reshape(longitude, (60, 80)) - border) > 1e-6
    expected = np.where(np.reshape(longitude, (60, 80)) > border, 2, 1)
    assert 0 < found.permanent_pixels < found.flood_pixels + found.permanent_pixels
    assert (read(found.classes) == expected)[away].all()


def test_areas_in_degrees_are_true(tmp_path):
    # On the WGS 84 equator a degree is 111.320 km of longitude and 110.574 km of latitude; at 60
    # degrees 55.800 and 111.412 (Snyder 1987, table 2 of the sphere's radii, rounded).
    for north, expected in ((0.005, 111.320 * 110.574), (60.005, 55.800 * 111.412)):
        water = write_mask(
            tmp_path / f"{north}.tif", np.ones((10, 10)), north_up(10, north, 1e-3), "EPSG:4326"
        )
        wet = write_codes(
            tmp_path / f"wet{north}.tif",
            np.zeros((10, 10), np.uint8),
            north_up(10, north, 1e-3),
            "EPSG:4326",
        )
        found = split_flood(water, tmp_path / f"c{north}.tif", wet)
        assert found.flood_km2 == pytest.approx(expected * 1e-4, rel=1e-4)


def test_refused_inputs_leave_nothing_behind(tmp_path):
    mask, permanent, _ = by_hand()
    water = write_mask(tmp_path / "mask.tif", mask)
    wet = write_codes(tmp_path / "wet.tif", np.uint8(permanent))
    elsewhere = write_codes(
        tmp_path / "elsewhere.tif", np.uint8(permanent), Affine(10, 0, 0, 0, -10, 4_000_000)
    )
    floats = write_codes(tmp_path / "floats.tif", np.float32([[0.3, 1], [1, 0]]))
    before = sorted(path.name for path in tmp_path.iterdir())
    cases = [
        (water, elsewhere, {}, "no overlap"),
        (water, tmp_path / "none.tif", {}, "no such file"),
        (floats, wet, {}, "water_mask .* holds 0.3"),
    ]
    for mask_path, permanent_path, options, message in cases:
        with pytest.raises(FloraError, match=message):
            split_flood(mask_path, tmp_path / "c.tif", permanent_path, **options)
    with pytest.raises(FloraError, match="would replace what water_mask names"):
        split_flood(water, water, wet)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# --- polygons -----------------------------------------------------------------------------------


def lake(rows=600, columns=40):
    """A lake with an island over two borders of strips, a speck at its corner, and nodata."""
    codes = np.zeros((rows, columns), np.uint8)
    codes[200:560, 5:15] = 1
    codes[300:303, 8:12] = 0
    codes[560, 15] = 1
    codes[590:, :10] = 255
    return codes


def write_lake(tmp_path, **grid):
    path = write_mask(tmp_path / "mask.tif", lake(), **grid)
    values = np.where(lake() == 255, np.nan, 0.25).astype(np.float32)
    values[200:560, 5:15] = 0.75
    values[200:380, 5:15] = 0.95
    # Of the lake's 3588 px, 1788 (without the island) lie in the upper half.
    mean = (1788 * 0.95 + 1800 * 0.75) / 3588
    return path, write_codes(tmp_path / "chance.tif", values, nodata=np.nan, **grid), mean


def features(path):
    return json.loads(path.read_text())["features"]


def test_polygons_by_hand(tmp_path):
    path, chance, mean = write_lake(tmp_path)
    found = write_polygons(path, tmp_path / "water", probability=chance)
    assert found.count == 2  # patches that touch at a corner are two
    assert found.km2 == {"water": pytest.approx(3589e-4, rel=UTM_TRUE)}
    speck, whole = sorted(features(found.geojson), key=lambda f: f["properties"]["area_km2"])
    assert whole["properties"]["area_km2"] == pytest.approx(3588e-4, rel=UTM_TRUE)
    assert whole["properties"]["mean_probability"] == pytest.approx(mean)
    assert speck["properties"]["mean_probability"] == pytest.approx(0.25)
    assert {f["properties"]["class"] for f in (speck, whole)} == {"water"}
    assert len(whole["geometry"]["coordinates"]) == 2  # one island


def test_minimum_area_removes_specks_and_fills_holes(tmp_path):
    path, chance, _ = write_lake(tmp_path)
    # The speck is one pixel of 100 m2, the island twelve.
    kept = write_polygons(path, tmp_path / "a", probability=chance, minimum_area=1100)
    assert (kept.count, kept.km2["water"]) == (1, pytest.approx(3588e-4, rel=UTM_TRUE))
    filled = write_polygons(path, tmp_path / "b", probability=chance, minimum_area=1300)
    assert (filled.count, filled.km2["water"]) == (1, pytest.approx(3600e-4, rel=UTM_TRUE))
    none = write_polygons(path, tmp_path / "c", minimum_area=1e6)
    assert (none.count, features(none.geojson)) == (0, [])


def test_nodata_is_never_filled(tmp_path):
    codes = np.ones((20, 20), np.uint8)
    codes[5:7, 5:7] = 255
    path = write_mask(tmp_path / "mask.tif", codes)
    found = write_polygons(path, tmp_path / "w", minimum_area=5000)
    assert found.km2["water"] == pytest.approx(396e-4, rel=UTM_TRUE)


def test_files_agree_and_the_geojson_keeps_the_rfc(tmp_path):
    path, chance, _ = write_lake(tmp_path)
    found = write_polygons(path, tmp_path / "w.gpkg", probability=chance)
    assert (found.geopackage.name, found.geojson.name) == ("w.gpkg", "w.geojson")
    meta, _, wkb, columns = pyogrio.raw.read(found.geopackage, layer="water")
    shapes = shapely.from_wkb(wkb)
    assert "32630" in meta["crs"]
    assert shapely.is_valid(shapes).all()
    # In the CRS of the scene, on the edges of its pixels.
    assert shapely.total_bounds(shapes).tolist() == [690_050, 4_214_390, 690_160, 4_218_000]
    assert sorted(1e-6 * shapely.area(shapes)) == pytest.approx(sorted(columns[1]), rel=UTM_TRUE)
    text = json.loads(found.geojson.read_text())
    assert "crs" not in text
    placed = [shapely.geometry.shape(f["geometry"]) for f in text["features"]]
    assert all(shape.exterior.is_ccw for shape in placed)
    # 38 degrees north, just west of Greenwich.
    west, south, east, north = shapely.total_bounds(placed)
    assert -0.84 < west < east < -0.82
    assert 38.05 < south < north < 38.11
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("chance.tif", "mask.tif", "w.geojson", "w.gpkg")
    ]


def test_classes_keep_their_names(tmp_path):
    mask, permanent, _ = by_hand()
    water = write_mask(tmp_path / "mask.tif", mask)
    wet = write_codes(tmp_path / "wet.tif", np.uint8(permanent))
    split = split_flood(water, tmp_path / "c.tif", wet)
    found = write_polygons(split.classes, tmp_path / "w")
    assert found.km2 == {
        "flood": pytest.approx(3e-4, rel=UTM_TRUE),
        "permanent water": pytest.approx(3e-4, rel=UTM_TRUE),
    }
    assert all(f["properties"]["mean_probability"] is None for f in features(found.geojson))


def test_polygons_on_a_rotated_grid(tmp_path):
    turned = TEN_METRES * Affine.rotation(30)
    path, chance, mean = write_lake(tmp_path, transform=turned)
    found = write_polygons(path, tmp_path / "w", probability=chance)
    _, _, wkb, columns = pyogrio.raw.read(found.geopackage)
    shapes = shapely.from_wkb(wkb)
    assert sorted(1e-6 * shapely.area(shapes)) == pytest.approx(sorted(columns[1]), rel=UTM_TRUE)
    assert max(columns[2]) == pytest.approx(mean)
    corner = shapely.get_coordinates(shapes[np.argmax(shapely.area(shapes))])
    x, y = turned.a * 5 + turned.b * 200 + turned.c, turned.d * 5 + turned.e * 200 + turned.f
    assert min(math.dist(point, (x, y)) for point in corner) < 1e-6


def test_polygons_refuse(tmp_path, monkeypatch):
    path, chance, _ = write_lake(tmp_path)
    plain = write_codes(tmp_path / "plain.tif", np.zeros((4, 4), np.uint8))
    before = sorted(p.name for p in tmp_path.iterdir())
    cases = [
        ((path,), {"minimum_area": -1}, "expected 0 or more"),
        ((plain,), {}, "expected a file of split_flood"),
        ((path,), {"probability": plain}, "its grid differs"),
        ((tmp_path / "none.tif",), {}, "no such file"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(FloraError, match=message):
            write_polygons(*arguments, tmp_path / "w", **options)
    monkeypatch.setattr("flora.maps.polygons.MOST_POLYGONS", 1)
    with pytest.raises(FloraError, match="larger minimum_area"):
        write_polygons(path, tmp_path / "w")
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    write_polygons(path, tmp_path / "w", minimum_area=200)
    with pytest.raises(FloraError, match="exists already"):
        write_polygons(path, tmp_path / "w", probability=chance)
