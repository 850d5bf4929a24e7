from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import torch
from rasterio.transform import Affine
from typer.testing import CliRunner

import flora
from flora.cli.likely import Likely
from flora.cli.main import app
from flora.cli.view import multilook
from flora.maps.likelihood import AreaIntervals
from flora.models.beside import calibration_file, load_calibration, load_thresholds
from flora.models.calibration import AreaInterval
from flora.models.checkpoints import read_metadata, save_weights, shipped_weights
from flora.scenes.dates import open_dates
from flora.sensors import SENTINEL1, SENTINEL2_RGB
from tests.support.fake_data import fake_scene, write_raster
from tests.support.fake_orbit import CENTRE, elevation, fake_hill
from tests.support.fake_scenes import fake_safe
from tests.support.stac_server import StacSite, serve_stac

SIDE = 96
UTM = "EPSG:32630"
GRID = Affine(10, 0, 600_000, 0, -10, 4_400_000)
NAME = "S1A_20190917T060141"

# Here a warning is a line on the terminal; elsewhere in the tests it is an error.
SAID = pytest.mark.filterwarnings("always::flora.errors.FloraWarning")


def run(*arguments: object) -> str:
    """Run `flora map`, which must succeed; its output."""
    result = CliRunner().invoke(app, ["map", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """Run `flora map`, which must be refused in one line; that line."""
    result = CliRunner().invoke(app, ["map", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    return lines[0]


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def page_data(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    return json.loads(found[1])


def made_by(page: Path) -> str:
    """What a page says of its map's maker."""
    said = re.search(r"made\s+by (.*?)\s+and\s+is\s+not\s+a\s+survey", page.read_text())
    return said[1]


def layer_names(page: Path) -> list[str]:
    return [image["name"] for image in page_data(page)["images"]]


def write_sar(path: Path, seed: int = 3) -> Path:
    return write_raster(path, fake_scene(seed, SIDE)["sar"], np.nan, GRID, UTM)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sar(tmp_path_factory.mktemp("in") / f"{NAME}.tif")


@pytest.fixture(scope="module")
def occurrence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 m pixels: in the left third, water in 80 % of the images; in the middle one, in 20 %."""
    percent = np.repeat(np.array([[80, 20, 0]], np.uint8), SIDE // 9 + 1, axis=1)[:, : SIDE // 3]
    percent = np.broadcast_to(np.sort(percent)[:, ::-1], (1, SIDE // 3, SIDE // 3))
    path = tmp_path_factory.mktemp("in") / "occurrence.tif"
    return write_raster(path, np.ascontiguousarray(percent), None, GRID * Affine.scale(3), UTM)


@pytest.fixture(scope="module")
def mapped(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the maps of the scene; tests that add to it work on files of their own."""
    out = tmp_path_factory.mktemp("mapped")
    run(scene, "--out", out, "--quiet")
    return out


@pytest.fixture
def finished(mapped: Path, tmp_path: Path) -> Path:
    """A copy of these maps."""
    for path in mapped.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


# --- flood, polygons, page ----------------------------------------------------------------------


def test_permanent_water_is_told_from_flood(scene, occurrence, finished):
    known = ["--permanent-water", occurrence, "--reuse"]
    said = run(scene, "--out", finished, *known, "--permanent-threshold", 50)
    water, classes = read(finished / f"{NAME}_water_mask.tif"), read(finished / f"{NAME}_flood.tif")
    always = np.repeat(np.repeat(read(occurrence) >= 50, 3, axis=1), 3, axis=2)
    np.testing.assert_array_equal(classes == 2, (water == 1) & always)
    np.testing.assert_array_equal(classes == 1, (water == 1) & ~always)
    flood, permanent = ((classes == code).sum() * 1e-4 for code in (1, 2))
    assert flood > 0 < permanent
    found = re.search(r"New flood: (\S+) km2; permanent water: (\S+) km2", said)
    # Pixels of UTM are not exactly 100 m2 on the ellipsoid.
    assert [float(found[1]), float(found[2])] == pytest.approx([flood, permanent], rel=5e-3)
    run(scene, "--out", finished, *known, "--permanent-threshold", 10, "--overwrite")
    assert (read(finished / f"{NAME}_flood.tif") == 2).sum() > (classes == 2).sum()


@SAID
def test_polygons_of_water_and_of_its_parts(scene, occurrence, finished):
    run(scene, "--out", finished, "--reuse", "--polygons")
    path = finished / f"{NAME}_polygons.gpkg"
    every = pyogrio.raw.read(path)[3]
    names = list(pyogrio.read_info(path)["fields"])
    assert set(every[names.index("class")]) == {"water"}
    split = ["--permanent-water", occurrence, "--permanent-threshold", 50]
    again = [scene, "--out", finished, "--reuse", "--overwrite", "--polygons", *split]
    run(*again)
    parts = pyogrio.raw.read(path)[3]
    assert set(parts[names.index("class")]) == {"flood", "permanent water"}
    area = names.index("area_km2")
    least = 1.01 * float(parts[area].min())
    run(*again, "--minimum-area", least * 1e6)
    some = pyogrio.raw.read(path)[3]
    assert some[area].min() >= least
    assert 0 < len(some[area]) < len(parts[area])
    features = json.loads((finished / f"{NAME}_polygons.geojson").read_text())["features"]
    assert len(features) == len(some[0])
    said = run(*again[:6])
    assert f"{NAME}_flood.tif: of an earlier run, is not read" in said and "--overwrite" in said


def test_page_shows_what_there_is(scene, occurrence, finished):
    page = finished / "pages" / "flood.html"
    run(scene, "--out", finished, "--reuse", "--html", page)
    assert "Contains modified Copernicus Sentinel data 2019" in page.read_text()
    assert layer_names(page) == ["SAR VV", "optical, from SAR"]
    data = page_data(page)
    assert not data["split"] and data["outlines"] == []
    run(
        *(scene, "--out", finished, "--reuse", "--html", page, "--overwrite", "--polygons"),
        *("--permanent-water", occurrence, "--permanent-threshold", 50),
        *("--attribution", "Simulated <scene>"),
    )
    text, data = page.read_text(), page_data(page)
    assert "Simulated &lt;scene&gt;" in text and "Copernicus" not in text
    assert data["split"] and data["outlines"]
    assert data["areas"][50][1] > 0


@SAID
def test_page_without_a_known_year_says_what_to_add(tmp_path):
    scene = write_sar(tmp_path / "scene.tif")
    said = run(scene, "--out", tmp_path, "--html", tmp_path / "map.html", "--quiet")
    assert said.count("pass e.g. --attribution 'Contains modified Copernicus") == 1
    assert "Sentinel data." in (tmp_path / "map.html").read_text()


@SAID
def test_page_of_a_swath_product_with_an_image_from_before(tmp_path):
    safe = fake_safe(tmp_path)
    around = Affine(10, 0, 599_000, 0, -10, 4_401_000)
    bands = np.full((4, 600, 600), 1500, np.uint16)
    before = write_raster(tmp_path / "S2.tif", bands, 0, around, UTM)
    page = tmp_path / "map.html"
    run(safe, "--out", tmp_path / "maps", "--quiet", "--before", before, "--html", page)
    assert layer_names(page) == ["SAR VV", "optical, from SAR", "optical, before"]
    assert "Sentinel data 2019" in page.read_text()


def test_backscatter_is_averaged_as_power():
    decibels = np.array([[0, -10, 3, np.nan], [-10, 0, np.nan, np.nan], [-20, -20, 0, 0]])
    found = multilook(decibels.astype(np.float32), 2)
    mean = 10 * np.log10((1 + 1 + 0.1 + 0.1) / 4)
    np.testing.assert_allclose(found, [[mean, 3], [-20, 0]], rtol=1e-5)
    assert np.isnan(multilook(np.full((2, 3), np.nan, np.float32), 2)).all()


# --- finished maps ------------------------------------------------------------------------------


def test_finished_maps_are_taken_as_they_are(scene, finished):
    files = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    again = run(scene, "--out", finished, "--reuse", "--polygons")
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert len(list(finished.iterdir())) == len(files) + 2
    water = (read(finished / f"{NAME}_water_mask.tif") == 1).sum()
    assert f"Water: {water} of {SIDE * SIDE} px" in again
    run(scene, "--out", finished / "new", "--reuse", "--quiet")  # nothing there: mapped
    np.testing.assert_array_equal(
        read(finished / "new" / f"{NAME}_water_mask.tif"),
        read(finished / f"{NAME}_water_mask.tif"),
    )


@SAID
def test_finished_maps_that_do_not_say_what_made_them_are_taken_with_a_word(scene, tmp_path):
    predict = flora.predictor(flora.load_model())
    with flora.open_scene(scene) as opened:
        flora.map_scene(opened, tmp_path, predict)
    said = run(scene, "--out", tmp_path, "--reuse")
    assert "by something that it does not name" in said.replace("\n", " ")


def test_finished_maps_of_something_else_are_refused(scene, finished, tmp_path):
    assert "--threshold 0.1, expected 0.4" in refused(
        scene, "--out", finished, "--reuse", "--threshold", 0.4
    )
    assert "another part" in refused(scene, "--out", finished, "--reuse", "--window", 0, 0, 64, 64)
    other = tmp_path / "w.safetensors"
    metadata = read_metadata(shipped_weights())
    save_weights(flora.load_model(), other, metadata | {"step": 1})
    image = tmp_path / "S2_20190901.tif"
    for option, says in (
        (("--method", "otsu"), "with another method than is asked for (flora, now otsu)"),
        (("--weights", other), "with other weights than is asked for; pass"),
        (("--before", image), "with another image from before the flood than is asked for (none"),
    ):
        assert says in refused(scene, "--out", finished, "--reuse", *option)
    with rasterio.open(scene) as file:
        profile, values = file.profile, file.read()
    namesake = tmp_path / "another" / scene.name
    namesake.parent.mkdir()
    with rasterio.open(namesake, "w", **profile) as file:
        file.write(values + 0.5)
    line = refused(namesake, "--out", finished, "--reuse")
    assert "of another scene of this name: its pixels are others" in line
    (finished / f"{NAME}_water_mask.tif").write_bytes(b"II*\0")
    line = refused(scene, "--out", finished, "--reuse", "--polygons")
    assert "Error: --reuse " in line and "not a raster" in line
    line = refused(scene, "--out", finished)
    assert "overwrite=True" not in line and "--out" in line
    assert "pass --overwrite" in line and "pass --reuse" in line


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "SAR: no scene"),
        (["SCENE", "--stac", "item.json"], "--stac item.json: is in place of files"),
        (["SCENE", "OTHER", "--vh", "vh.tif"], "--vh vh.tif: goes with one file"),
        (["SCENE", "--before", "auto"], "--before auto: goes with --stac"),
        (["SCENE", "--sar-before", "auto:2"], "--sar-before auto:2: goes with --stac"),
        (["SCENE", "--sar-before", "a.tif", "--sar-before", "auto"], "is in place of files"),
        (["SCENE", "--workers", 2, "--dask", "tcp://127.0.0.1:9"], "--workers 2, --dask tcp"),
        (["SCENE", "--permanent-threshold", 50], "--permanent-threshold 50.0: goes with"),
        (["SCENE", "--permanent-water", "absent.tif"], "--permanent-water absent.tif: no such"),
        (["SCENE", "--minimum-area", 50], "--minimum-area 50.0: goes with --polygons"),
        (["SCENE", "--attribution", "me"], "--attribution me: goes with --html"),
        (["SCENE", "--html", "m.html", "--threshold", 0.995], "--threshold 0.995: with --html"),
        (["nowhere.tif", "--threshold", 1], "--threshold 1.0: expected a probability above 0"),
        (["SCENE", "--html", "."], "--html .: is a folder"),
        (["SCENE", "OTHER", "--html", "SCENE"], "expected a folder"),
        (["SCENE", "--permanent-class", 80], "--permanent-class 80: goes with --permanent-water"),
        (["SCENE", "SCENE"], "same name"),
        (["--stac", "absent.json"], "absent.json"),
    ],
)
def test_options_that_do_not_go_together(arguments, says, scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = write_sar(tmp_path / "in" / "other.tif", 4)
    named = {"SCENE": scene, "OTHER": other}
    given = [named.get(argument, argument) for argument in arguments]
    assert says in refused(*given, "--out", "maps")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]


def test_products_that_exist_are_refused_before_anything_is_computed(scene, tmp_path):
    page = tmp_path / "map.html"
    page.write_text("mine")
    line = refused(scene, "--out", tmp_path / "maps", "--html", page)
    assert "--html" in line and "pass --overwrite" in line
    assert page.read_text() == "mine" and not (tmp_path / "maps").exists()


def test_permanent_water_that_is_no_mask_leaves_whole_maps(scene, occurrence, finished):
    line = refused(scene, "--out", finished, "--reuse", "--permanent-water", occurrence)
    assert "--permanent-water" in line and "--permanent-threshold 50 (percent)" in line
    assert "permanent_" not in line
    names = {path.name.removeprefix(NAME) for path in finished.iterdir()}
    assert names == {
        *("_water_mask.tif", "_water_probability.tif", "_rgb.tif", "_quicklook.png"),
        "_likelihood.tif",
    }


@SAID
def test_scene_without_crs_has_no_polygons(tmp_path):
    scene = tmp_path / "scene.tif"
    sar = fake_scene(3, 64)["sar"]
    with rasterio.open(
        scene, "w", driver="GTiff", count=2, height=64, width=64, dtype="float32"
    ) as file:
        file.write(sar)
    run(scene, "--out", tmp_path, "--quiet", "--html", tmp_path / "map.html")
    assert page_data(tmp_path / "map.html")["unit"] == "px"
    result = CliRunner().invoke(
        app, ["map", str(scene), "--out", str(tmp_path), "--reuse", "--polygons"]
    )
    assert result.exit_code == 1 and "has no CRS" in result.stderr
    assert not list(tmp_path.glob("*_polygons*"))
    # Nothing is mapped of which no polygons can be made.
    new = ["map", str(scene), "--out", str(tmp_path / "new"), "--polygons"]
    result = CliRunner().invoke(app, new)
    assert result.exit_code == 1 and "Error: SAR" in result.stderr and "has no CRS" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("several", [False, True])
def test_what_cannot_be_made_of_a_scene_is_refused_before_it_is_mapped(
    several, scene, occurrence, tmp_path
):
    elsewhere = tmp_path / "elsewhere.tif"
    write_raster(
        elsewhere, np.ones((1, 8, 8), np.uint8), None, GRID * Affine.translation(5000, 0), UTM
    )
    out = tmp_path / "out"
    others = [write_sar(tmp_path / "in" / "other.tif", 4)] if several else []
    arguments = [scene, *others, "--out", out, "--permanent-water", elsewhere]
    result = CliRunner().invoke(app, ["map", *map(str, arguments)])
    assert result.exit_code == 1
    assert result.stderr.count("nothing is known within the scene") == 1 + several
    assert not out.exists()
    assert "--minimum-area" in refused(
        *(scene, "--out", out, "--polygons", "--minimum-area", "inf")
    )
    assert not out.exists()


def test_classes_of_land_cover(scene, finished):
    cover = np.full((1, SIDE, SIDE), 40, np.uint8)
    cover[:, :, : SIDE // 2] = 80
    cover[:, :, SIDE // 2 : SIDE // 2 + 9] = 90
    known = write_raster(finished / "cover.tif", cover, None, GRID, UTM)
    codes = ["--permanent-class", 80, "--permanent-class", 90]
    run(scene, "--out", finished, "--reuse", "--permanent-water", known, *codes)
    water, classes = read(finished / f"{NAME}_water_mask.tif"), read(finished / f"{NAME}_flood.tif")
    np.testing.assert_array_equal(classes == 2, (water == 1) & (cover > 40))


# --- files in the way ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--html", "IN/S1.tif"], "--html IN/S1.tif: would replace what SAR names"),
        (["--html", "o/../IN/link.tif"], "would replace what SAR names"),
        (["--html", "IN/before.tif", "--before", "IN/before.tif"], "what --before names"),
        (["--html", "o/S1_rgb.tif"], "would replace what --out names"),
        (["--permanent-water", "o/S1_flood.tif"], "what --permanent-water names"),
        (["--vh", "o/S1_rgb.tif"], "would replace what SAR names"),
        (["--weights", "o/S1_rgb.tif"], "would replace what --weights names"),
        (["--html", "IN"], "is a folder"),
    ],
)
def test_no_input_is_replaced(arguments, says, scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sensors = "flora.cli.method.ModelOptions.sensors"
    monkeypatch.setattr(sensors, lambda *_: (SENTINEL1, SENTINEL2_RGB))
    for folder in ("IN", "o"):
        Path(folder).mkdir()
    for name in ("IN/S1.tif", "IN/before.tif", "o/S1_rgb.tif"):
        write_sar(Path(name))
    write_raster(Path("o/S1_flood.tif"), np.ones((1, 8, 8), np.uint8), None, GRID, UTM)
    Path("IN/link.tif").symlink_to("S1.tif")
    there = {path: path.read_bytes() for path in tmp_path.rglob("*.tif")}
    assert says in refused("IN/S1.tif", "--out", "o", "--overwrite", *arguments)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.tif")} == there


def test_a_folder_of_an_outputs_name_stays(scene, tmp_path):
    (tmp_path / f"{NAME}_rgb.tif" / "mine").mkdir(parents=True)
    line = refused(scene, "--out", tmp_path, "--overwrite")
    assert "_rgb.tif: is a folder" in line
    assert (tmp_path / f"{NAME}_rgb.tif" / "mine").is_dir()


# --- the same in Python ------------------------------------------------------------------------


def test_python_and_the_command_line_give_the_same_pixels(scene, mapped, tmp_path):
    with flora.open_scene(scene) as opened:
        outputs = flora.map_scene(opened, tmp_path, flora.predictor(flora.load_model()))
    for path in (outputs.water_probability, outputs.water_mask, outputs.rgb):
        np.testing.assert_array_equal(read(path), read(mapped / path.name), path.name)
    assert outputs.quicklook.read_bytes() == (mapped / outputs.quicklook.name).read_bytes()


# --- many scenes --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_many_scenes_and_a_broken_one(workers, scene, mapped, occurrence, tmp_path):
    if workers:
        pytest.importorskip("distributed")
    other = write_sar(tmp_path / "in" / "S1B_20200102T000000.tif", 4)
    broken = tmp_path / "in" / "broken.tif"
    broken.write_bytes(scene.read_bytes()[:700])
    out = tmp_path / "out"
    arguments = [scene, broken, other, "--out", out, "--html", out / "pages", "--polygons"]
    arguments += ["--permanent-water", occurrence, "--permanent-threshold", 50]
    result = CliRunner().invoke(app, ["map", *map(str, arguments), "--workers", str(workers)])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:][0] == "Failed: 1 of 3 scenes"
    assert "broken.tif: SAR" in result.stderr.splitlines()[-1]
    assert not list(out.glob("broken*"))
    # The same network: what one scene alone gives, at least to rounding.
    for ending in ("water_probability", "rgb"):
        name = f"{NAME}_{ending}.tif"
        np.testing.assert_allclose(read(out / name), read(mapped / name), atol=1e-5)
    assert "Sentinel data 2019" in (out / "pages" / f"{NAME}.html").read_text()
    assert "Sentinel data 2020" in (out / "pages" / f"{other.stem}.html").read_text()
    assert {path.name for path in out.glob("*_flood.tif")} == {
        f"{stem}_flood.tif" for stem in (NAME, other.stem)
    }


@SAID
def test_scenes_are_added_to_a_finished_run(scene, finished):
    other = write_sar(finished / "in" / "other.tif", 4)
    said = run(scene, other, "--out", finished, "--reuse")
    assert f"{NAME}.tif: mapped before" in said and "other.tif: mapped before" not in said
    assert (finished / "other_water_mask.tif").is_file()


def test_an_option_given_twice_is_refused_and_not_half_read(scene, occurrence, tmp_path):
    twice = ["--permanent-water", occurrence, "--permanent-water", scene]
    line = refused(scene, "--out", tmp_path / "o", *twice)
    assert "--permanent-water: given twice" in line and not (tmp_path / "o").exists()
    assert "a.tif: no such" in refused(scene, "--out", tmp_path, "--dem", "a.tif", "--dem", "b.tif")
    assert "given twice" not in refused("no.tif", "--out", tmp_path, "--quiet", "--quiet")


def test_nothing_is_said_of_the_threshold_where_there_is_no_scene(tmp_path):
    result = CliRunner().invoke(
        app, ["map", str(tmp_path / "no.tif"), "--out", str(tmp_path / "o")]
    )
    assert result.exit_code == 1 and "no such file" in result.stderr
    assert not result.stdout


def test_no_scheduler_is_said_in_one_line(scene, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("flora.scenes.many.CONNECT_TIMEOUT", 0.2)
    line = refused(scene, "--out", tmp_path, "--dask", "tcp://127.0.0.1:9")
    assert "tcp://127.0.0.1:9" in line and "dask scheduler" in line


# --- a catalogue --------------------------------------------------------------------------------


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StacSite]:
    """A catalogue with a radar scene as power, and a clear optical image of twelve days before."""
    pytest.importorskip("pystac_client")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = fake_scene(3, SIDE)
    gamma0 = 10 ** (made["sar"] / 10) / np.cos(np.radians(34.5))
    power = gamma0.astype(np.float32)
    stored = made["optical"].astype(np.uint16)
    folder = tmp_path / "archive"
    radar = {
        name: write_raster(folder / f"{name}.tif", power[i : i + 1], None, GRID, UTM)
        for i, name in enumerate(("vv", "vh"))
    }
    optical = {
        name: write_raster(folder / f"{name}.tif", stored[i : i + 1], None, GRID, UTM)
        for name, i in {"B04": 3, "B03": 2, "B02": 1, "B08": 7}.items()
    }
    with serve_stac() as served:
        served.add(
            "s1", "sentinel-1-rtc", "2019-09-17T06:00:00Z", radar, {"view:incidence_angle": 34.5}
        )
        said = {"s2:processing_baseline": "02.14", "eo:cloud_cover": 4}
        served.add("s2", "sentinel-2-l2a", "2019-09-05T11:00:00Z", optical, said)
        yield served


def test_item_of_a_catalogue(site, scene, mapped, tmp_path):
    """An item's file lies elsewhere than its catalogue, which is where `auto` would search."""
    address = f"{site.base}/collections/sentinel-1-rtc/items/s1"
    out, page = tmp_path / "out", tmp_path / "map.html"
    said = run("--stac", address, "--out", out, "--html", page)
    assert "Backscatter: sigma0, from gamma0 at 34.5 degrees" in said
    assert "Contains modified Copernicus Sentinel data 2019" in page.read_text()
    np.testing.assert_allclose(
        read(out / "s1_sar_water_probability.tif"),
        read(mapped / f"{NAME}_water_probability.tif"),
        atol=1e-3,
    )
    asked = len(site.asked("/files"))
    assert "--reuse" in refused("--stac", address, "--out", out)
    run("--stac", address, "--out", out, "--reuse", "--polygons")
    assert len(site.asked("/files")) == asked  # not fetched again
    west, south, east, north = site.items["s1"]["bbox"]
    half = (west, south, (west + east) / 2, north)
    run("--stac", address, "--out", tmp_path / "half", "--bbox", ",".join(map(str, half)))
    rows, columns = read(tmp_path / "half" / "s1_sar_water_mask.tif").shape[1:]
    assert rows >= SIDE - 3 and abs(columns - SIDE // 2) < 4


@SAID
def test_earlier_passes_of_the_same_orbit_are_fetched(site, tmp_path):
    orbit = {"sat:orbit_state": "ascending", "sat:relative_orbit": 110}
    radar = {name: tmp_path / "archive" / f"{name}.tif" for name in ("vv", "vh")}
    for name, day in (("s1", 17), ("s1_older", 5), ("s1_later", 11)):
        site.add(name, "sentinel-1-rtc", f"2019-09-{day:02}T06:00:00Z", radar, orbit)
    address = f"{site.base}/collections/sentinel-1-rtc/items/s1"
    out = tmp_path / "out"
    options = ["--stac", address, "--out", out, "--method", "otsu", "--sar-before", "auto"]
    assert "Radar from before the flood: s1_older of 2019-09-05" in run(*options, "--item")
    item = json.loads((out / "s1_sar_item.json").read_text())
    assert item["properties"]["flora:sar_before"] == "s1_older_sar.tif"
    asked = len(site.requests)
    assert "s1_older" in run(*options, "--reuse", "--html", tmp_path / "map.html")
    assert len(site.requests) <= asked + 2  # the two items, no search and no file


def test_item_in_a_file_with_the_image_from_before(site, tmp_path):
    address = f"{site.base}/collections/sentinel-1-rtc/items/s1"
    with urllib.request.urlopen(address) as answer:
        item = tmp_path / "s1.json"
        item.write_bytes(answer.read())
    out, page = tmp_path / "out", tmp_path / "map.html"
    arguments = ["--stac", item, "--out", out, "--before", "auto", "--html", page]
    assert "Image from before the flood: s2 of 2019-09-05" in run(*arguments)
    assert "optical, before" in layer_names(page)
    run("--stac", item, "--out", tmp_path / "alone")
    name = "s1_sar_rgb.tif"
    assert (read(out / name) != read(tmp_path / "alone" / name)).any()


@SAID
def test_noise_of_a_ground_range_product_stays_if_asked(tmp_path):
    product = fake_safe(tmp_path)
    run(product, "--out", tmp_path / "without")
    run(product, "--out", tmp_path / "with", "--keep-noise")
    name = f"{product.stem}_water_probability.tif"
    assert (read(tmp_path / "with" / name) != read(tmp_path / "without" / name)).any()
    for folder, option, says in (
        ("with", (), "noise kept, expected subtracted; pass the same --keep-noise"),
        ("without", ("--keep-noise",), "noise subtracted, expected kept"),
    ):
        command = ["map", product, "--out", tmp_path / folder, "--reuse", *option]
        result = CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
        assert result.exit_code == 1 and says in result.stderr.splitlines()[-1], result.stderr
    run(product, "--out", tmp_path / "with", "--keep-noise", "--reuse")


def test_finished_maps_of_backscatter_at_another_angle_are_refused(tmp_path):
    path = tmp_path / f"{NAME}_gamma0.tif"
    write_raster(path, fake_scene(3, SIDE)["sar"], np.nan, GRID, UTM)
    how = [path, "--out", tmp_path / "o", "--method", "otsu"]
    run(*how, "--incidence", 30)
    run(*how, "--incidence", 30, "--reuse")
    line = refused(*how, "--incidence", 40, "--reuse")
    assert "gamma0 at 30.0 degrees, expected read as sigma0 from gamma0 at 40.0 degrees" in line
    assert "expected as it is; pass the same --incidence" in refused(
        *how, "--incidence", 0, "--reuse"
    )


# --- how likely, and against a rival ------------------------------------------------------------


def test_likelihood_and_interval_are_written_and_said(scene, occurrence, mapped, finished):
    likely = read(mapped / f"{NAME}_likelihood.tif")
    chance = read(mapped / f"{NAME}_water_probability.tif")
    calibration = load_calibration(shipped_weights())
    np.testing.assert_array_equal(likely, np.rint(100 * calibration.likelihood(chance)))
    page = finished / "map.html"
    known = ["--permanent-water", occurrence, "--permanent-threshold", 50, "--html", page]
    said = run(scene, "--out", finished, "--reuse", "--item", *known)
    number = r"([0-9.e-]+) to ([0-9.e-]+) km2"
    beyond = r"( \(the map shows (?:more|less), [0-9.e-]+ km2\))?"
    said_of = rf"True area, 90% interval for .*: flood {number}{beyond}; water {number}{beyond}"
    low, high, more, least, most, _ = re.search(said_of, said).groups()
    low, high, least, most = map(float, (low, high, least, most))
    shown = dict(re.findall(r"(New flood|Water): ([0-9.]+) km2", said))
    assert bool(more) != (low <= float(shown["New flood"]) <= high)
    assert 0 <= low < high < most and low < least
    (flood, water) = page_data(page)["intervals"]
    assert flood["of"] == "flood" and water["of"] == "water"
    assert flood["ends"] == pytest.approx([low, high], rel=1e-3)
    promise = "made to hold for 90 % of simulated scenes, whatever the threshold; on 6 real chips, "
    assert flood["promise"] == promise + "that of all water held for 3"
    assert made_by(page) == "a model that was trained on simulated scenes only"
    item = json.loads((finished / f"{NAME}_item.json").read_text())
    kept = item["properties"]["flora:area_interval"]
    assert (kept["coverage"], kept["unit"]) == (0.9, "km2")
    assert kept["calibrated_on"]["interval"]["scenes"] == 99
    assert kept["real_chips"] == {"of": "water", "chips": 6, "covered": 3}
    for name, wanted in (("flood", (low, high)), ("water", (least, most))):
        ends = kept[name]
        assert (ends["low"], ends["high"]) == pytest.approx(wanted, rel=1e-3)
        assert ends["low"] < ends["expected"] < ends["high"]


@pytest.mark.parametrize(
    ("square", "says"), [(0.5, "less, 0.5 km2"), (2.0, ""), (3.5, "more, 3.5 km2")]
)
def test_a_map_beyond_its_interval_is_told(square, says):
    likely = Likely(load_calibration(shipped_weights()), "", reuse=False, fitted_on={})
    intervals = AreaIntervals(AreaInterval(1.0, 1.5, 3.0, 0.9), None, "km2")
    said = likely.said(intervals, {"water": square})
    assert "scenes like those it was fitted on (on real chips it was not tested)" in said
    assert said.endswith(f"water 1 to 3 km2 (the map shows {says})" if says else "1 to 3 km2")


def test_maps_take_the_threshold_of_their_weights_and_another_that_is_named(
    scene, mapped, finished, tmp_path
):
    own = load_thresholds(shipped_weights())["sar"].value
    chance = read(mapped / f"{NAME}_water_probability.tif")
    np.testing.assert_array_equal(read(mapped / f"{NAME}_water_mask.tif") == 1, chance >= own)
    page = tmp_path / "map.html"
    said = run(scene, "--out", finished, "--reuse", "--html", page, "--item")
    assert f"Water from a probability of {own:g} on, which 4 real chips chose" in said
    assert page_data(page)["threshold"] == own
    item = json.loads((finished / f"{NAME}_item.json").read_text())
    assert item["properties"]["flora:water_threshold"] == f"{own:g}"
    said = run(scene, "--out", tmp_path / "even", "--threshold", 0.5, "--quiet")
    assert "Water from a probability" not in said
    even = read(tmp_path / "even" / f"{NAME}_water_mask.tif") == 1
    np.testing.assert_array_equal(even, chance >= 0.5)
    assert even.sum() < (chance >= own).sum()


@SAID
def test_what_has_no_calibration_says_so(scene, tmp_path):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(shipped_weights().read_bytes())
    said = run(scene, "--out", tmp_path / "o", "--weights", weights, "--quiet")
    assert "No likelihood, and no interval of the area: these weights have none" in said
    assert "Water from a probability of 0.5 on: none was chosen for these maps" in said
    assert not list((tmp_path / "o").glob("*likelihood*"))
    assert "Otsu's method has none" in run(scene, "--out", tmp_path / "p", "--method", "otsu")


def test_calibration_of_other_weights_is_refused_before_anything_is_mapped(scene, tmp_path):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(shipped_weights().read_bytes() + b" ")
    beside = calibration_file(weights)
    beside.write_bytes(calibration_file(shipped_weights()).read_bytes())
    line = refused(scene, "--out", tmp_path / "o", "--weights", weights)
    assert "of other weights" in line or "not a readable" in line
    assert not (tmp_path / "o").exists()


@SAID
def test_against_otsu_the_page_shows_where_both_differ(scene, finished, tmp_path):
    page = tmp_path / "map.html"
    options = ["--reuse", "--against", "otsu", "--html", page]
    said = run(scene, "--out", finished, *options)
    run(scene, "--out", tmp_path / "otsu", "--method", "otsu", "--quiet")
    ours, theirs = (
        read(folder / f"{NAME}_water_mask.tif") == 1 for folder in (finished, tmp_path / "otsu")
    )
    expected = np.where(ours & theirs, 1, np.where(ours, 2, np.where(theirs, 3, 0)))
    np.testing.assert_array_equal(read(finished / f"{NAME}_against_otsu.tif"), expected)
    share = (ours & theirs).sum() / (ours | theirs).sum()
    assert f"Otsu alone {(theirs & ~ours).sum() * 1e-4:.4g} km2; IoU of the two {share:.2f}" in (
        said.replace("\n", " ")
    )
    names = layer_names(page)
    assert names[-2:] == ["water in this map alone", "water by Otsu alone"]
    assert page_data(page)["images"][-1]["over"] == [204, 121, 167]
    line = refused(scene, "--out", tmp_path / "p", "--method", "otsu", "--against", "otsu")
    assert "--against otsu: compares" in line and not (tmp_path / "p").exists()


# --- Otsu's method ------------------------------------------------------------------------------


@SAID
def test_otsu_writes_the_same_products_and_says_its_threshold(scene, tmp_path):
    out, page = tmp_path / "otsu", tmp_path / "map.html"
    said = run(scene, "--out", out, "--method", "otsu", "--polygons", "--html", page, "--quiet")
    names = {path.name.removeprefix(f"{NAME}_") for path in out.iterdir()}
    products = {"polygons.gpkg", "polygons.geojson"}
    assert names == {"water_probability.tif", "water_mask.tif", "quicklook.png"} | products
    with rasterio.open(out / f"{NAME}_water_mask.tif") as file:
        tags = file.tags()
    assert f"Otsu: VH below {tags['FLORA_OTSU_VH_BELOW_DB']} dB" in said
    assert tags["FLORA_METHOD"] == "otsu"
    assert made_by(page) == "Otsu&#x27;s threshold"
    assert layer_names(page) == ["SAR VV"]
    chance = read(out / f"{NAME}_water_probability.tif")
    np.testing.assert_array_equal(chance.astype(int), read(out / f"{NAME}_water_mask.tif"))


@pytest.mark.parametrize(
    "option", [("--threshold", 0.3), ("--weights", "w"), ("--device", "cpu"), ("--before", "b")]
)
def test_otsu_refuses_what_it_has_no_use_for(scene, tmp_path, option):
    line = refused(scene, "--out", tmp_path / "o", "--method", "otsu", *option)
    assert f"{option[0]} {option[1]}: --method otsu" in line
    assert not (tmp_path / "o").exists()


def test_maps_keep_what_made_them(mapped):
    with rasterio.open(mapped / f"{NAME}_rgb.tif") as file:
        tags = file.tags()
    assert tags["FLORA_METHOD"] == "flora" and tags["FLORA_VERSION"] == flora.__version__
    assert len(tags["FLORA_WEIGHTS_SHA256"]) == 64


# --- two dates ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene twelve days before, 3 dB brighter, on a grid of its own."""
    sar = fake_scene(3, SIDE + 8)["sar"] + 3
    grid = Affine(10, 0, 599_965, 0, -10, 4_400_035)
    name = "S1A_20190905T060141.tif"
    return write_raster(tmp_path_factory.mktemp("in") / name, sar, np.nan, grid, UTM)


@SAID
def test_otsu_of_two_dates_maps_new_water_and_shows_both(scene, earlier, tmp_path):
    out, page = tmp_path / "o", tmp_path / "map.html"
    options = ["--method", "otsu", "--sar-before", earlier, "--html", page, "--quiet"]
    said = run(scene, "--out", out, *options)
    assert re.search(r"Otsu: VH below \S+ dB, its change below -?\S+ dB", said)
    assert layer_names(page) == ["SAR VV", "SAR VV, before"]
    one = run(scene, "--out", tmp_path / "one", "--method", "otsu", "--quiet")
    assert "its change" not in one
    both, alone = (read(f / f"{NAME}_water_mask.tif") for f in (out, tmp_path / "one"))
    assert (both == 1).sum() < (alone == 1).sum()


@SAID
def test_otsu_takes_several_dates_in_any_order(scene, earlier, tmp_path):
    middle = tmp_path / "S1A_20190911T060141.tif"
    middle.write_bytes(earlier.read_bytes())
    masks = []
    for name, dates in (("a", (earlier, middle)), ("b", (middle, earlier))):
        options = [text for path in dates for text in ("--sar-before", path)]
        run(scene, "--out", tmp_path / name, "--method", "otsu", *options, "--quiet")
        masks.append(read(tmp_path / name / f"{NAME}_water_mask.tif"))
    np.testing.assert_array_equal(*masks)
    with rasterio.open(tmp_path / "a" / f"{NAME}_water_mask.tif") as file:
        assert file.tags()["FLORA_SAR_BEFORE_DATES"] == "2019-09-05 2019-09-11"
    options = ["--sar-before", earlier, "--sar-before", middle]
    line = refused(scene, "--out", tmp_path / "o", *options)
    assert "3 dates of radar given" in line


@SAID
def test_shipped_weights_for_two_dates_are_taken_where_two_are_given(scene, earlier, tmp_path):
    for number, more in enumerate(([], ["--sar-before", earlier]), 1):
        out = tmp_path / str(number)
        run(scene, "--out", out, "--quiet", *more)
        with rasterio.open(out / f"{NAME}_water_mask.tif") as file:
            assert file.tags()["FLORA_WEIGHTS"] == shipped_weights(number).name


def test_weights_of_one_date_refuse_a_second_and_say_what_to_do(scene, earlier, tmp_path):
    options = ["--sar-before", earlier, "--weights", shipped_weights()]
    line = refused(scene, "--out", tmp_path / "o", *options)
    assert f"--sar-before {earlier}: two dates of radar given, and the weights map one date" in line
    assert "--method otsu" in line
    assert not (tmp_path / "o").exists()


@SAID
def test_weights_of_two_dates_take_both_and_refuse_one(scene, earlier, tmp_path):
    weights = tmp_path / "two.safetensors"
    config = replace(flora.named_config("tiny"), sar_channels=4)
    scalings = {
        "sar_scaling": asdict(SENTINEL1.repeat(2)),
        "optical_scaling": asdict(SENTINEL2_RGB),
    }
    metadata = {"model": "flora", "config": asdict(config), **scalings}
    torch.manual_seed(0)
    save_weights(flora.Flora(config), weights, metadata)
    options = ["--weights", weights, "--quiet"]
    run(scene, "--out", tmp_path / "o", *options, "--sar-before", earlier)
    assert (tmp_path / "o" / f"{NAME}_rgb.tif").is_file()
    assert "map two dates" in refused(scene, "--out", tmp_path / "p", *options)
    with flora.open_scene(scene) as after, open_dates(after, earlier) as both:
        model = flora.predictor(flora.load_model(weights))
        outputs = flora.map_scene(both, tmp_path / "python", model)
    np.testing.assert_array_equal(
        read(outputs.water_probability), read(tmp_path / "o" / outputs.water_probability.name)
    )


# --- where not to trust -------------------------------------------------------------------------


def test_elevation_tells_where_not_to_trust(scene, finished, tmp_path):
    columns = np.arange(260) + np.zeros((260, 1))
    heights = np.where(columns > 130, 60.0 * (columns - 130), 0).astype(np.float32)
    corner = Affine(30, 0, 600_000 - 3500, 0, -30, 4_400_000 + 3500)
    dem = write_raster(tmp_path / "dem.tif", heights[None], None, corner, UTM)
    page = tmp_path / "map.html"
    said = run(scene, "--out", finished, "--reuse", "--dem", dem, "--html", page, "--depth")
    assert re.search(r"Depth of the flood: half of it below \S+ m, 95 % below", said)
    assert np.nanmax(read(finished / f"{NAME}_depth.tif")) >= 0
    assert "shadow and layover not looked for without --orbit" in said
    found = re.search(r"Of the water, (\S+) km2 lie where the map is not to be trusted", said)
    bits, water = (read(finished / f"{NAME}_{kind}.tif") for kind in ("trust", "water_mask"))
    doubtful = (water == 1) & (bits & 47 > 0)
    assert float(found[1]) == pytest.approx(doubtful.sum() * 1e-4, rel=5e-3)
    assert layer_names(page)[-1] == "not to be trusted"
    assert [image["over"] for image in page_data(page)["images"]] == [None, None, [213, 94, 0]]
    again = refused(scene, "--out", finished, "--reuse", "--dem", dem)
    assert "_trust.tif: exists already; pass --overwrite, too: the maps are kept" in again
    orbit = ["--orbit", "descending", "--overwrite"]
    assert "not looked for" not in run(scene, "--out", finished, "--reuse", "--dem", dem, *orbit)


def test_elevation_comes_from_the_catalogue_of_the_scene(site, tmp_path):
    degrees = Affine(1 / 1200, 0, -2, 0, -1 / 1200, 40)
    heights = np.full((1, 1200, 1200), 5, np.float32)
    tile = write_raster(tmp_path / "tile.tif", heights, None, degrees, "EPSG:4326")
    site.add("N39_W002", "cop-dem-glo-30", "2021-04-22T00:00:00Z", {"data": tile})
    address = f"{site.base}/collections/sentinel-1-rtc/items/s1"
    out, page = tmp_path / "out", tmp_path / "map.html"
    given = ["--stac", address, "--out", out, "--dem", "auto"]
    said = run(*given, "--item", "--html", page)
    assert f"Elevation: 1 tiles of cop-dem-glo-30 from {site.base}" in " ".join(said.split())
    assert (read(out / "s1_sar_dem.tif") == 5).mean() > 0.2  # the tile ends in the north and east
    assert (out / "s1_sar_trust.tif").is_file()
    item = json.loads((out / "s1_sar_item.json").read_text())["properties"]
    dem = next(entry for entry in item["flora:inputs"] if entry["role"] == "dem")
    assert (dem["items"], dem["endpoint"]) == ("N39_W002", site.base)
    for text in (item["attribution"], page.read_text()):
        assert "Copernicus Sentinel data 2019" in text and "provided under COPERNICUS" in text
    asked = len(site.requests)
    other = run(*given, "--reuse", "--polygons", "--overwrite", "--slope-limit", 5)
    assert "fetched before" in other and not site.asked("/search")[1:]
    assert len(site.requests) - asked <= 1  # the item


@SAID
def test_product_on_a_hill_is_put_at_its_place_by_elevation(tmp_path):
    safe, out = fake_hill(tmp_path), tmp_path / "out"
    corner = Affine(30, 0, CENTRE[0] - 4500, 0, -30, CENTRE[1] + 4500)
    row, column = np.mgrid[:300, :300] + 0.5
    heights = elevation(corner.c + 30 * column, corner.f - 30 * row).astype(np.float32)
    dem = write_raster(tmp_path / "dem.tif", heights[None], None, corner, UTM)
    given = [safe, "--out", out, "--method", "otsu", "--dem", dem, "--geoid", 48]
    said = run(*given, "--item")
    assert "without terrain correction" not in said and "not looked for" not in said
    mask = out / f"{safe.stem}_water_mask.tif"
    with rasterio.open(mask) as file:
        assert file.tags()["FLORA_TERRAIN_CORRECTED_BY"] == "dem.tif; geoid at 48 m"
    item = json.loads((out / f"{safe.stem}_item.json").read_text())["properties"]
    assert item["flora:terrain_corrected_by"] == "dem.tif; geoid at 48 m"
    elsewhere = [*given[:2], tmp_path / "descending", *given[3:], "--orbit", "descending"]
    assert "--orbit descending: the product's annotation says ascending" in refused(*elsewhere)
    assert not list(elsewhere[2].glob("*.tif"))
    line = refused(*given[:-1], 20, "--reuse", "--overwrite")
    assert "with its terrain corrected by dem.tif; geoid at 48 m, expected corrected by" in line


def test_elevation_of_two_kinds_is_refused(scene, tmp_path):
    line = refused(scene, "--out", tmp_path, "--dem", "auto", "--dem", "dem.tif")
    assert "--dem auto, dem.tif: is fetched from one catalogue, or read from files" in line


def test_options_of_trust_are_refused_before_anything_is_mapped(scene, tmp_path):
    out = ["--out", tmp_path / "o"]
    assert "--orbit ascending: goes with --dem" in refused(scene, *out, "--orbit", "ascending")
    assert "--depth: goes with --dem" in refused(scene, *out, "--depth")
    line = refused(scene, *out, "--dem", scene, "--slope-limit", 0)
    assert "--slope-limit 0.0: expected degrees" in line
    assert not (tmp_path / "o").exists()


def test_half_the_digits_give_nearly_the_same_map_and_are_recorded(scene, tmp_path):
    for precision in ("float32", "bfloat16"):
        run(scene, "--out", tmp_path / precision, "--precision", precision)
    maps = []
    for precision in ("float32", "bfloat16"):
        with rasterio.open(tmp_path / precision / f"{NAME}_water_probability.tif") as file:
            maps.append(file.read(1).astype(float))
            assert file.tags()["FLORA_PRECISION"] == precision
    difference = np.abs(maps[0] - maps[1])
    assert 0 < np.nanmax(difference) < 0.05
