"""Coordinate systems, boxes, sizes and names as people have them: right, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import Affine
from typer.testing import CliRunner

from flora.cli.main import app
from flora.errors import FloraError
from flora.grid import Grid, map_crs
from flora.maps.layers import read_map
from flora.parts import choose_part
from flora.scenes.before import open_before
from flora.scenes.inputs import open_scene
from tests.support.fake_data import fake_scene, write_raster

SIDE = 96
UTM, GRID = "EPSG:32630", Affine(10, 0, 600_000, 0, -10, 4_400_000)
PACIFIC = Affine(1e-4, 0, 210, 0, -1e-4, 50)  # degrees, 0 to 360
SAR = fake_scene(3, SIDE)["sar"]
WET = (np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE) % 3 == 0).astype(np.uint8)
LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'
WHOLE = (0, 0, SIDE, SIDE)


def grid(crs, transform, side=SIDE):
    return Grid(rasterio.CRS.from_user_input(crs), transform, (side, side))


# --- boxes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "transform", "bbox", "expected"),
    [
        (UTM, GRID, (-180, -90, 180, 90), WHOLE),
        (UTM, GRID, (-90, 0, 90, 90), WHOLE),
        (UTM, GRID, (-180, -80, 180, 84), WHOLE),
        ("EPSG:4326", PACIFIC, (-180, -90, 180, 90), WHOLE),
        ("EPSG:4326", PACIFIC, (0, -90, 360, 90), WHOLE),
        ("EPSG:4326", PACIFIC, (-150.01, 49, -149, 51), WHOLE),
        ("EPSG:4326", PACIFIC, (209, 49, 211, 51), WHOLE),
        ("EPSG:4326", PACIFIC, (-149.998, 49.99, -149.997, 49.995), (50, 20, 46, 10)),
        ("EPSG:4326", PACIFIC, (210.002, 49.99, 210.003, 49.995), (50, 20, 46, 10)),
        ("EPSG:4326", Affine(1e-4, 0, -150, 0, -1e-4, 50), (210.002, 49.99, 210.003, 49.995),
         (50, 20, 46, 10)),
        ("EPSG:3413", Affine(10, 0, -480, 0, -10, 480), (-180, 60, 180, 90), WHOLE),
        ("EPSG:3413", Affine(10, 0, 5e5, 0, -10, -5e5), (-180, 60, 180, 90), WHOLE),
        ("EPSG:3031", Affine(10, 0, 5e5, 0, -10, -5e5), (-180, -90, 180, -60), WHOLE),
        ("EPSG:3857", Affine(10, 0, 1e6, 0, -10, 9e6), (-180, -90, 180, 90), WHOLE),
        ("EPSG:32601", Affine(10, 0, 3e5, 0, -10, 7e6), (-180, 0, 180, 90), WHOLE),
    ],
)  # fmt: skip
def test_boxes_of_any_size_and_turn(crs, transform, bbox, expected):
    assert choose_part(grid(crs, transform), None, bbox, "scene.tif") == expected


@pytest.mark.parametrize(
    "bbox", [(-180, -90, -10, 90), (0, 41, 1, 42), (179, -90, 180, 90), (-2, -40, -1, -39)]
)
def test_boxes_beside_the_scene_are_refused(bbox):
    with pytest.raises(FloraError, match=r"does not overlap scene\.tif, which spans -1\.8"):
        choose_part(grid(UTM, GRID), None, bbox, "scene.tif")


def test_a_scene_of_a_million_pixels_a_side_is_refused_with_its_size(tmp_path):
    shape = {"width": 10**6, "height": 10**6, "count": 2, "dtype": "float32"}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
    path = tmp_path / "sparse.tif"
    with rasterio.open(path, "w", crs=UTM, transform=GRID, bigtiff="yes", **shape, **blocks):
        pass
    refused = pytest.raises(FloraError, match=r"1,000,000 x 1,000,000 px.*choose a part, with")
    with refused, open_scene(path):
        pass


# --- coordinate systems --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["EPSG:4978", "EPSG:999999", "", "x", "utm33", "EPSG:5703", LOCAL, "EPSG:", "{}", "None", "\0"],
)
def test_what_is_no_map_grid_is_refused(name):
    with pytest.raises(FloraError, match=r'^grid .*expected "utm" or a geographic or projected'):
        map_crs(name, (0, 0, 1, 1))


@pytest.mark.parametrize("crs", ["EPSG:4978", LOCAL])
def test_scenes_in_coordinates_of_no_place_are_refused(tmp_path, crs):
    path = write_raster(tmp_path / "scene.tif", SAR, np.nan, GRID, crs)
    refused = pytest.raises(FloraError, match="neither geographic nor projected; reproject it")
    with refused, open_scene(path):
        pass


def test_a_scene_in_0_to_360_degrees_is_read_like_one_in_180(tmp_path):
    east = write_raster(tmp_path / "east.tif", SAR, np.nan, PACIFIC, "EPSG:4326")
    west_grid = Affine(1e-4, 0, -150, 0, -1e-4, 50)
    west = write_raster(tmp_path / "west.tif", SAR, np.nan, west_grid, "EPSG:4326")
    optical = 1000 + 20 * np.arange(SIDE, dtype=np.uint16) * np.ones((4, SIDE, 1), np.uint16)
    images = [
        write_raster(tmp_path / name, optical, None, place, "EPSG:4326")
        for name, place in (("b_east.tif", PACIFIC), ("b_west.tif", west_grid))
    ]
    with open_scene(east, grid="utm") as one, open_scene(west, grid="utm") as other:
        assert one.crs == other.crs == rasterio.CRS.from_epsg(32606)
        assert one.grid.same_as(other.grid)
        for a, b in zip(one.read(0, 50), other.read(0, 50), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)
        assert one.read(20, 20)[1].mean() > 0.9
    with open_scene(east) as scene:
        for image in images:
            with open_before(image, scene) as before:
                np.testing.assert_array_equal(before.read(0, SIDE)[:, :, 5], optical[:, :, 5])


@pytest.mark.parametrize("turned", [False, True])
def test_permanent_water_and_pages_of_scenes_in_0_to_360(tmp_path, turned):
    place = Affine(1e-4, 0, -150, 0, -1e-4, 50) if turned else PACIFIC
    chance = write_raster(tmp_path / "p.tif", WET.astype(np.float32), np.nan, PACIFIC, "EPSG:4326")
    water = write_raster(tmp_path / "w.tif", WET, None, place, "EPSG:4326")
    scene = read_map(chance, permanent_water=water)
    flood, permanent = scene.area(0.5)
    assert flood == 0 and permanent == pytest.approx(scene.valid_area / 3)


# --- virtual rasters -----------------------------------------------------------------------------

BAND = """<VRTRasterBand dataType="{}" band="{}">{}<SimpleSource>
<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand>"""


@pytest.mark.parametrize("resampled", [None, "utm"])
def test_a_virtual_raster_of_mixed_types_is_read(tmp_path, resampled):
    write_raster(tmp_path / "a.tif", SAR[:1], np.nan, GRID, UTM)
    stored = np.rint(100 * SAR[1:]).astype(np.int16)
    write_raster(tmp_path / "b.tif", stored, None, GRID, UTM)
    bands = BAND.format("Float32", 1, "", "a.tif")
    bands += BAND.format("Int16", 2, "<Scale>0.01</Scale>", "b.tif")
    path = tmp_path / "scene.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>{UTM}</SRS><GeoTransform>'
        f"{', '.join(map(str, GRID.to_gdal()))}</GeoTransform>{bands}</VRTDataset>"
    )
    with open_scene(path, grid=resampled) as scene:
        values, valid = scene.read(0, SIDE)
    assert valid.all()
    np.testing.assert_allclose(values[0], SAR[0], atol=1e-4)
    np.testing.assert_allclose(values[1], SAR[1], atol=0.006)
    (tmp_path / "b.tif").unlink()
    with pytest.raises(FloraError), open_scene(path, grid=resampled):
        pass


# --- what is refused before a scene is mapped ----------------------------------------------------

PER_CENT = np.linspace(0, 100, SIDE * SIDE).astype(np.uint8).reshape(1, SIDE, SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    write_raster(folder / "S1.tif", SAR, np.nan, GRID, UTM)
    write_raster(folder / "nowhere.tif", SAR, np.nan, GRID, None)
    write_raster(folder / "percent.tif", PER_CENT, None, GRID, UTM)
    write_raster(folder / "share.tif", (PER_CENT / 100).astype(np.float32), None, GRID, UTM)
    write_raster(folder / "far.tif", WET, None, Affine(10, 0, 0, 0, -10, 1e6), UTM)
    write_raster(folder / "lost.tif", WET[:, :50], None, GRID, None)
    (folder / "cut.tif").write_bytes((folder / "share.tif").read_bytes()[:5000])
    heights = np.full((1, SIDE, SIDE), 3e4, np.float32)
    write_raster(folder / "high.tif", heights, None, GRID, UTM)
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("S1.tif --permanent-water percent.tif --permanent-threshold nan", "finite number"),
        ("S1.tif --permanent-water percent.tif --permanent-threshold inf", "finite number"),
        ("S1.tif --permanent-water percent.tif --permanent-threshold=-1", "above 0"),
        ("S1.tif --permanent-water percent.tif --permanent-threshold 0", "above 0"),
        ("S1.tif --permanent-water percent.tif --permanent-threshold 1000", "it holds 0 to 100"),
        ("S1.tif --permanent-water share.tif --permanent-threshold 50", "it holds 0 to 1"),
        ("S1.tif --permanent-water share.tif", "expected a mask of 0 and 1"),
        ("S1.tif --permanent-water percent.tif --permanent-class 200", "it holds 0 to 100"),
        ("S1.tif --permanent-water far.tif", "no overlap"),
        ("S1.tif --permanent-water lost.tif", "no CRS"),
        ("S1.tif --permanent-water none.tif", "no such file"),
        ("S1.tif --permanent-threshold 50", "goes with --permanent-water"),
        ("S1.tif --dem far.tif", "no elevation within the scene"),
        ("S1.tif --dem lost.tif", "no CRS"),
        ("S1.tif --dem none.tif", "no such file"),
        ("S1.tif --dem cut.tif", "--dem cut.tif"),
        ("S1.tif --dem high.tif", "expected elevation in m"),
        ("nowhere.tif --dem share.tif", "the scene has no CRS"),
        ("nowhere.tif --polygons", "georeference the scene first"),
        ("S1.tif --minimum-area 50", "goes with --polygons"),
        ("S1.tif --polygons --minimum-area inf", "expected 0 or more"),
        ("S1.tif --grid EPSG:4978", "--grid EPSG:4978: says no place on the map"),
        ("S1.tif --bbox=1,2,3", "four numbers"),
        ("S1.tif --bbox=1,2,3,4", "does not overlap"),
        ("[/x].tif", "SAR"),
        ("S1.tif --permanent-water [/x].tif", "[/x].tif"),
        ("S1.tif --grid [bold]", "[bold]"),
        ("S1.tif --grid :smile:", ":smile:"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no CRS:flora.errors.FloraWarning")
def test_what_cannot_be_made_is_refused_before_a_scene_is_mapped(
    folder, monkeypatch, options, said
):
    monkeypatch.chdir(folder)
    command = ["map", *options.split(), "--method", "otsu", "--out", "o", "--quiet"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 1, result.output
    assert said in result.stderr.splitlines()[-1] and result.stderr.startswith(("Err", "Warn"))
    assert not Path("o").exists()


# --- names and terminals -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["[bold]x", "[red]y", ":smile:", "{{data}}", "a[1]", "[[x]]"])
@pytest.mark.parametrize("columns", ["0"])
def test_names_are_printed_as_they_are(folder, tmp_path, name, columns):
    scene = tmp_path / f"{name}.tif"
    scene.write_bytes((folder / "S1.tif").read_bytes())
    page = tmp_path / "page.html"
    command = ["map", scene, "--method", "otsu", "--out", tmp_path / "o", "--html", page]
    command += ["--attribution", f"{name} 2019", "--polygons", "--minimum-area", "1e12", "--quiet"]
    runner = CliRunner(env={"COLUMNS": columns})
    result = runner.invoke(app, list(map(str, command)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for ending in ("water_mask.tif", "polygons.gpkg", "quicklook.png"):
        assert f"o/{name}_{ending}" in result.stdout
    text = page.read_text(encoding="utf-8")
    assert f"<title>{name}</title>" in text and f"{name} 2019. Made with FLoRA." in text
    assert text.count('id="data"') == 1


@pytest.mark.parametrize("columns", ["0", "-5", "x", "1"])
def test_a_terminal_without_width_reads_the_help(columns):
    result = CliRunner(env={"COLUMNS": columns}).invoke(app, ["--help"])
    assert result.exit_code == 0 and "evaluate" in result.stdout
