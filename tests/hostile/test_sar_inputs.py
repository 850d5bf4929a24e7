"""Radar scenes as people have them: other units, fills, products, damage; each case a line."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from flora.cli.main import app
from flora.errors import FloraError, FloraWarning
from flora.scenes.inputs import open_scene
from tests.support.fake_scenes import GRID, fake_safe, map_truth, write_scene

SHAPE = (96, 80)
DB = map_truth(GRID, SHAPE).astype(np.float32)
POWER = (10 ** (DB / 10)).astype(np.float32)
RANDOM = np.random.default_rng(5)


def opened(paths, **options) -> tuple[np.ndarray, np.ndarray, str]:
    """dB, validity, and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FloraWarning)
        with open_scene(paths, **options) as scene:
            values, valid = scene.read(0, scene.shape[0])
    said = [str(one.message) for one in caught if issubclass(one.category, FloraWarning)]
    return values, valid, " | ".join(said)


def refusal(paths, **options) -> str:
    with pytest.raises(FloraError) as caught:
        opened(paths, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- values -------------------------------------------------------------------------------------


def spread(values, share, replacement):
    """The same, with a share of the pixels replaced."""
    return np.where(RANDOM.random(SHAPE) < share, replacement, values).astype(np.float32)


REFUSED_VALUES = {
    "power": (POWER, "db", "mostly 0 or more"),
    "power, 3 % negative": (spread(POWER, 0.03, -1e-4), "db", "linear power, expected dB"),
    "power, 8 % negative": (spread(POWER, 0.08, -1e-4), "db", "linear power, expected dB"),
    "dB as power": (DB, "linear", "dB, expected linear power"),
    "amplitude as dB": (np.sqrt(POWER), "db", "linear power, expected dB"),
    "digital numbers": (np.sqrt(POWER) * 500, "db", "uncalibrated digital numbers"),
    "digital numbers as power": (np.sqrt(POWER) * 500, "linear", "uncalibrated digital numbers"),
    "dB times 100": (DB * 100, "db", "too low for dB"),
    "NaN": (DB * np.nan, "db", "no pixel was measured"),
    "0": (DB * 0, "db", "no pixel was measured"),
    "-50": (DB * 0 - 50, "db", "no pixel was measured"),
}


@pytest.mark.parametrize("case", REFUSED_VALUES)
def test_values_that_cannot_be_meant_are_refused(tmp_path, case):
    values, units, said = REFUSED_VALUES[case]
    assert said in refusal(write_scene(tmp_path / "S1.tif", values), units=units)


SAID_VALUES = {
    "amplitude as power": (np.sqrt(POWER), "linear", "amplitude, expected power"),
    "dB of amplitude": (DB / 2, "db", "dB of amplitude, or z-scores"),
    "z-scores": ((DB - DB.mean()) / DB.std(), "db", "dB of amplitude, or z-scores"),
    "exchanged": (DB[::-1], "db", "probably swapped"),
    "VV twice": (DB[[0, 0]], "db", "hardly differ: probably one polarisation twice"),
    "VV twice, of two dates": (DB[[0, 0]] + [[[0.4]], [[0]]], "db", "hardly differ"),
    "a border of -35": (np.where(np.arange(80) < 20, -35, DB), "db", "hold exactly -35 dB"),
}


@pytest.mark.parametrize("case", SAID_VALUES)
def test_values_that_are_probably_not_meant_are_said(tmp_path, case):
    values, units, said = SAID_VALUES[case]
    path = write_scene(tmp_path / "S1.tif", np.asarray(values, np.float32))
    assert said in opened(path, units=units)[2]


@pytest.mark.parametrize(
    "fill", [-99, -50, -1e30, -999, 9999, 1e20, 32767, 255, -32768, -np.inf, np.inf]
)
@pytest.mark.parametrize("units", ["db", "linear"])
@pytest.mark.parametrize("grid", [None, "utm"])
def test_fills_are_nodata_whoever_wrote_them(tmp_path, fill, units, grid):
    values = (DB if units == "db" else POWER).copy()
    values[:, 20:50, 10:60] = fill
    path = write_scene(tmp_path / "S1.tif", values)
    read, valid, said = opened(path, units=units, grid=grid)
    assert not valid[20:50, 10:60].any() and valid[:18].all() and valid[:, 62:].all()
    np.testing.assert_allclose(read[:, valid], DB[:, valid], atol=1e-3)
    assert said == ""


# --- files --------------------------------------------------------------------------------------


def two(folder, names, described=("", "")):
    return [
        write_scene(folder / name, band[None], names=[text] if text else ())
        for name, band, text in zip(names, DB, described, strict=True)
    ]


def test_polarisations_of_two_dates_are_said(tmp_path):
    names = "S1A_20190917T060141_VV.tif", "S1A_20190929T060141_VH.tif"
    said = opened(two(tmp_path, names))[2]
    assert "different days" in said and "2019-09-17" in said and "2019-09-29" in said
    names = "S1A_20190917T060141_VV.tif", "S1A_20190917T060142_VH.tif"
    assert opened(two(tmp_path, names))[2] == ""


REFUSED_FILES = {
    "VV as VH, by name": (("a_VV.tif", "b_VV.tif"), ("", ""), "polarisations are not clear"),
    "VV as VH, by band": (("a.tif", "b.tif"), ("VV", "VV"), "polarisations are not clear"),
    "HH and HV": (("a_HH.tif", "b_HV.tif"), ("", ""), "polarisations are not clear"),
    "a contradiction": (("a_VV.tif", "b_VH.tif"), ("VH", ""), "VV in its name, VH in its band"),
}


@pytest.mark.parametrize("case", REFUSED_FILES)
def test_files_that_are_not_vv_and_vh_are_refused(tmp_path, case):
    names, described, said = REFUSED_FILES[case]
    assert said in refusal(two(tmp_path, names, described))


@pytest.mark.parametrize("described", ["Gamma0_{}_db", "Beta0_{}_db"])
def test_other_quantities_are_said(tmp_path, described):
    names = [described.format(band) for band in ("VV", "VH")]
    said = opened(write_scene(tmp_path / "S1.tif", DB, names=names))[2]
    assert f"{described[:-6].lower()}, as its name says, read as sigma0" in said


@pytest.mark.parametrize("kind", ["complex_int16", "complex64"])
def test_complex_images_are_refused(tmp_path, kind):
    path = tmp_path / "slc.tif"
    profile = dict(driver="GTiff", count=2, width=80, height=96, transform=GRID, crs="EPSG:32630")
    with rasterio.open(path, "w", dtype=kind, **profile) as file:
        file.write(np.ones((2, *SHAPE), np.complex64))
    assert "complex values, expected detected backscatter" in refusal(path)


def test_a_pipe_is_no_scene(tmp_path):
    os.mkfifo(tmp_path / "S1.tif")
    assert "no such file" in refusal(tmp_path / "S1.tif")


# --- products -----------------------------------------------------------------------------------


def single_look(safe: Path) -> Path:
    for file in (safe / "measurement").iterdir():
        with rasterio.open(file) as image:
            points, crs = image.gcps
            values = image.read().astype(np.complex64)
        name = file.name.replace("s1a-iw-grd", "s1a-iw1-slc")
        profile = dict(driver="GTiff", count=1, width=values.shape[2], height=values.shape[1])
        with rasterio.open(
            file.with_name(name), "w", dtype="complex_int16", gcps=points, crs=crs, **profile
        ) as image:
            image.write(values)
        file.unlink()
    return safe


def complex_in_a_product(safe: Path) -> Path:
    """Named as GRD, as one image of it."""
    for file in single_look(safe).glob("measurement/*"):
        file.rename(file.with_name(file.name.replace("s1a-iw1-slc", "s1a-iw-grd")))
    return safe


def cut(safe: Path) -> Path:
    archive = Path(shutil.make_archive(str(safe), "zip", safe.parent, safe.name))
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    return archive


def emptied(safe: Path) -> Path:
    for file in safe.glob("measurement/*"):
        file.write_bytes(b"")
    return safe


def undressed(safe: Path) -> Path:
    shutil.rmtree(safe / "annotation")
    return safe


REFUSED_PRODUCTS = {
    "SLC": (single_look, "SLC, expected GRD"),
    "complex": (complex_in_a_product, "complex values"),
    "half a zip": (cut, "cannot be read, or is damaged"),
    "empty images": (emptied, "not a raster, or truncated"),
    "no annotation": (undressed, "without which digital numbers cannot become sigma0"),
}


@pytest.mark.parametrize("case", REFUSED_PRODUCTS)
def test_products_that_cannot_be_calibrated_are_refused(tmp_path, case):
    spoil, said = REFUSED_PRODUCTS[case]
    assert said in refusal(spoil(fake_safe(tmp_path)))


def test_one_bad_product_does_not_stop_the_others(tmp_path):
    good = write_scene(tmp_path / "good.tif", np.where(np.arange(80) < 40, DB - 12, DB))
    bad = complex_in_a_product(fake_safe(tmp_path))
    out = tmp_path / "out"
    given = ["map", str(bad), str(good), "--out", str(out), "--method", "otsu", "--quiet"]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 1
    failed = result.stderr.splitlines()
    assert failed[-2] == "Failed: 1 of 2 scenes" and "complex values" in failed[-1]
    assert {path.name for path in out.iterdir()} >= {"good_water_mask.tif", "good_quicklook.png"}
