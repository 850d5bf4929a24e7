"""Optical images as people have them: other names, orders, units, products; each case a line."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from flora.errors import FloraError, FloraWarning
from flora.maps.layers import read_map
from flora.predictors import Prediction
from flora.scenes.before import open_before
from flora.scenes.inputs import open_scene
from flora.scenes.mapping import map_scene
from flora.sensors import SENTINEL2_BANDS, SENTINEL2_L2A_BANDS
from tests.support.fake_scenes import GRID, map_truth, write_scene
from tests.support.fake_sentinel2 import LEVEL_1C, LEVEL_2A, VALUES, fake_sentinel2

SHAPE = (64, 64)
STORED = {"B4": 1300, "B3": 1100, "B2": 900, "B8": 3100}  # reflectance x 10000
WANTED = list(STORED.values())
GDAL = "{}, central wavelength 490 nm"


@pytest.fixture
def sar(tmp_path):
    return write_scene(tmp_path / "sar.tif", map_truth(GRID, SHAPE).astype(np.float32))


def seen(sar: Path, path: Path) -> tuple[np.ndarray, str]:
    """Reflectance x 10000 at the middle, and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FloraWarning)
        with open_scene(sar) as scene, open_before(path, scene) as before:
            with before.reopen() as again:
                values = again.read(0, SHAPE[0])
            image, index, valid = before.scale(values)
    assert image[:, valid].min() >= 0 and np.abs(index).max() <= 1
    said = [str(one.message) for one in caught if issubclass(one.category, FloraWarning)]
    return values[:, 32, 32], " | ".join(said)


def write(path, stored, names=(), tags=None, **profile):
    """One value a band, varied a little."""
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    values = np.asarray(stored)[:, None, None] * np.ones(SHAPE, np.asarray(stored).dtype)
    write_scene(path, values, names=names, **profile)
    with rasterio.open(path, "r+") as file:
        if scales is not None:
            file.scales, file.offsets = scales, offsets
        file.update_tags(**(tags or {}))
    return path


def stack(order, kind=np.uint16):
    return np.array([STORED.get(band, 500) for band in order], dtype=kind)


BGRN = ("B2", "B3", "B4", "B8")


@pytest.mark.parametrize(
    ("order", "names", "says"),
    [
        (BGRN, ("blue", "green", "red", "nir"), ""),
        (BGRN, ("Blue", "Green", "Red", "Near Infrared"), ""),
        (BGRN, [GDAL.format(band) for band in BGRN], ""),
        (BGRN, ("S2_B2", "S2_B3", "S2_B4", "S2_B8"), ""),
        (BGRN, ("B02", "B03", "B04", "B08"), ""),
        (BGRN, ("blue", "green", "red", "unknown"), ""),
        (("B4", "B3", "B2", "B8"), (), ""),
        (("B4", "B3", "B2", "B8"), ("a", "b", "c", "d"), "described as a, b, c, d: taken for B4"),
        (SENTINEL2_BANDS, (), ""),
        (SENTINEL2_BANDS[::-1], SENTINEL2_BANDS[::-1], ""),
        (SENTINEL2_L2A_BANDS, (), "12 bands without names: taken for B1, B2"),
        (SENTINEL2_L2A_BANDS, [f"Band {n}" for n in range(1, 13)], "taken for B1, B2"),
        (SENTINEL2_L2A_BANDS[::-1], [GDAL.format(b) for b in SENTINEL2_L2A_BANDS[::-1]], ""),
        (("B5", "B4", "B3", "B2", "B8A", "B8"),
         ("red edge 1", "red", "green", "blue", "narrow nir", "nir"), ""),
    ],
)  # fmt: skip
def test_bands_are_found_by_their_names(sar, tmp_path, order, names, says):
    values, said = seen(sar, write(tmp_path / "b.tif", stack(order), names))
    assert values.tolist() == WANTED
    assert says in said and bool(said) == bool(says)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("B11", "B8", "B3", "B2"), "described as B11, B8, B3, B2: expected B4, B3, B2, B8"),
        (("B4", "B4", "B2", "B8"), "expected one B4"),
        (("red", "green", "blue", "B12"), "expected B4, B3, B2, B8 among them"),
        ((None,) * 5, "5 bands without names"),
        ((None,) * 3, "3 bands without names"),
        ((None,) * 2, "2 bands without names"),
        (("VV", "VH"), "2 bands described as VV, VH, expected 13"),
    ],
)
def test_bands_that_are_not_there_are_refused(sar, tmp_path, names, message):
    path = write(tmp_path / "b.tif", np.full(len(names), 900, np.uint16), [n or "" for n in names])
    with pytest.raises(FloraError, match=message):
        seen(sar, path)


def test_colours_with_transparency_are_no_near_infrared(sar, tmp_path):
    path = write(tmp_path / "b.tif", stack(STORED))
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colours
    with pytest.raises(FloraError, match="transparency"):
        seen(sar, path)


NAMED = "S2A_MSIL1C_20190907T105621_{}_R094_T30SXH_20190907T131245.tif"
RAISED = [value + 1000 for value in WANTED]
TENTH = {"scales": (1e-4,) * 4, "offsets": (-0.1,) * 4}


@pytest.mark.parametrize(
    ("name", "stored", "more", "says"),
    [
        ("b.tif", WANTED, {}, ""),
        ("b.tif", WANTED, {"scales": (1e-4,) * 4, "offsets": (0,) * 4}, ""),
        ("b.tif", RAISED, TENTH, ""),
        ("b.tif", RAISED, {"scales": (1,) * 4, "offsets": (-1000,) * 4}, ""),
        (NAMED.format("N0510"), RAISED, TENTH, ""),  # once, not twice
        ("b.tif", [2 * v for v in WANTED], {"scales": (5e-5,) * 4, "offsets": (0,) * 4}, ""),
        (NAMED.format("N0208"), WANTED, {}, ""),
        (NAMED.format("N0301"), WANTED, {}, ""),
        (NAMED.format("N0400"), RAISED, {}, "baseline 04.00, its name says"),
        (NAMED.format("N0510"), RAISED, {}, "baseline 05.10, its name says"),
        ("b_N0509.tif", RAISED, {}, "baseline 05.09"),
        ("bN0509.tif", WANTED, {}, ""),
        ("b.tif", RAISED, {"tags": {"PROCESSING_BASELINE": "04.00"}}, "04.00, its tags say"),
        ("b.tif", RAISED, {"tags": {"s2:processing_baseline": "5.09"}}, "05.09, its tags say"),
        ("b.tif", WANTED, {"tags": {"PROCESSING_BASELINE": "03.01"}}, ""),
        ("b.tif", WANTED, {"tags": {"PROCESSING_BASELINE": "unknown"}}, ""),
        ("b_N0510.tif", WANTED, {"tags": {"FLORA_ITEMS": "S2A_N0510"}}, ""),  # fetched
        (NAMED.format("N0400"), [400, 300, 300, 3100], {}, "taken off already"),
    ],
)
def test_what_values_mean_is_taken_from_the_file(sar, tmp_path, name, stored, more, says):
    values, said = seen(sar, write(tmp_path / name, np.array(stored, np.uint16), **more))
    expected = stored if "already" in says else WANTED
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert says in said and bool(said) == bool(says)


@pytest.mark.parametrize(("cirrus", "says"), [(12, ""), (1012, "offset of 1000 .*probably there")])
def test_an_offset_that_nothing_tells_of_is_seen_in_cirrus(sar, tmp_path, cirrus, says):
    stored = [STORED.get(band, 500) + cirrus // 1000 * 1000 for band in SENTINEL2_BANDS]
    stored[SENTINEL2_BANDS.index("B10")] = cirrus
    values, said = seen(sar, write(tmp_path / "b.tif", np.array(stored, np.uint16)))
    assert values.tolist() == [value + cirrus // 1000 * 1000 for value in WANTED]
    assert re.search(says, said) and bool(said) == bool(says)


def test_what_is_dark_under_the_offset_is_not_nodata(sar, tmp_path):
    path = write(tmp_path / "b_N0400.tif", np.array([990, 1000, 1040, 3000], np.uint16))
    values, _ = seen(sar, path)
    assert values.tolist() == [1, 1, 40, 2000]


@pytest.mark.parametrize(
    ("stored", "kind", "message"),
    [
        ([0.13, 0.11, 0.09, 0.31], np.float32, "probably reflectance"),
        ([13, 11, 9, 31], np.uint16, "probably per cent"),
        ([13.1, 11.2, 9.3, 31.4], np.float32, "probably per cent"),
        ([140, 120, 100, 250], np.uint16, "probably 8-bit counts"),
        ([140, 120, 100, 250], np.int16, "probably 8-bit counts"),
        ([140, 120, 100, 250], np.uint8, "transparency"),
        ([30000, 28000, 27000, 60000], np.uint16, "expected reflectance x 10000"),
        ([-13, -14, -15, -20], np.float32, "expected reflectance x 10000"),
        ([1300, 1100, 900, 3100], np.complex64, "complex values"),
        ([0, 0, 0, 0], np.uint16, "no valid pixel"),
        ([np.nan] * 4, np.float32, "no valid pixel"),
        ([np.inf] * 4, np.float32, "no valid pixel"),
    ],
)
def test_values_that_are_no_reflectance_are_refused(sar, tmp_path, stored, kind, message):
    with pytest.raises(FloraError, match=message):
        seen(sar, write(tmp_path / "b.tif", np.array(stored, kind)))


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ([130, 110, 90, 310], "darker than a reflectance of 0.1"),  # x 1000
        ([6000, 5800, 5600, 7000], "probably cloud"),
        ([2300, 1800, 1400, 2600], ""),  # desert
    ],
)
def test_values_that_are_doubtful_are_told(sar, tmp_path, stored, says):
    values, said = seen(sar, write(tmp_path / "b.tif", np.array(stored, np.uint16)))
    assert values.tolist() == stored
    assert says in said and bool(said) == bool(says)


def zipped(safe: Path) -> Path:
    archive = safe.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in safe.rglob("*"):
            file.write(path, path.relative_to(safe.parent))
    return archive


PRODUCT = [VALUES[band] for band in ("B04", "B03", "B02", "B08")]


@pytest.mark.parametrize(
    ("name", "baseline", "given", "taken_off"),
    [
        (LEVEL_1C, "02.08", lambda safe: safe, 0),
        (LEVEL_1C, "02.08", zipped, 0),
        (LEVEL_1C, "02.08", lambda safe: safe / "MTD_MSIL1C.xml", 0),
        (LEVEL_2A, "05.09", lambda safe: safe, 1000),
        (LEVEL_2A, "05.09", zipped, 1000),
        (LEVEL_2A, "05.09", lambda safe: safe.rename(safe.with_name("renamed")), 1000),
    ],
)
def test_a_product_is_read_as_it_is(sar, tmp_path, name, baseline, given, taken_off):
    path = given(fake_sentinel2(tmp_path / "p", name, baseline))
    values, said = seen(sar, path)
    assert values.tolist() == [value - taken_off for value in PRODUCT]
    assert ("offset of 1000" in said) == bool(taken_off)
    with warnings.catch_warnings(), open_scene(sar, grid="EPSG:4326") as scene:
        warnings.simplefilter("ignore", FloraWarning)
        with open_before(path, scene) as before:  # resampled, and nodata stays nodata
            values = before.read(0, scene.shape[0])
    inside = np.isfinite(values).all(axis=0)
    assert 0.7 < inside.mean() < 0.95
    np.testing.assert_allclose(values[:, inside].T - values[:, inside].T[0], 0, atol=0.5)


def test_a_product_is_shown_on_a_page(tmp_path):
    path = fake_sentinel2(tmp_path, LEVEL_2A, "05.09")
    write_scene(tmp_path / "p.tif", np.full((1, *SHAPE), 0.5, np.float32), nodata=np.nan)
    ((name, image),) = read_map(tmp_path / "p.tif", before=path).images.items()
    assert name == "optical, before"
    colours = image[image.shape[0] // 2, image.shape[1] // 2].tolist()
    assert colours == [round(255 * (v - 1000) / 3000) for v in PRODUCT[:3]] + [255]


def test_maps_say_which_image_guided_them(sar, tmp_path):
    path = fake_sentinel2(tmp_path / "p")
    fetched = write(
        tmp_path / "b.tif",
        stack(STORED),
        tags={"FLORA_ITEMS": "S2A_30SXH", "FLORA_DATES": "2019-09-05"},
    )

    def dry(values, valid, guide):
        return Prediction(values[:, :1] * 0 + 0.1, None)

    for before, expected in (
        (path, {"FLORA_BEFORE": path.name, "FLORA_BEFORE_DATES": "2019-09-07"}),
        (
            fetched,
            {
                "FLORA_BEFORE": "b.tif",
                "FLORA_BEFORE_ITEMS": "S2A_30SXH",
                "FLORA_BEFORE_DATES": "2019-09-05",
            },
        ),
    ):
        with open_scene(sar) as scene, open_before(before, scene) as image:
            maps = map_scene(scene, tmp_path / "out", dry, before=image, overwrite=True)
        with rasterio.open(maps.water_mask) as file:
            tags = {k: v for k, v in file.tags().items() if "BEFORE" in k}
        # Of one colour: no edge tells how it lies.
        assert tags == expected | {"FLORA_BEFORE_ALIGNED": "no"}


def broken(safe: Path) -> Path:
    archive = zipped(safe)
    archive.write_bytes(archive.read_bytes()[:2000])
    return archive


def without(pattern):
    def remove(safe: Path) -> Path:
        for path in safe.rglob(pattern):
            path.unlink()
        return safe

    return remove


def halved(safe: Path) -> Path:
    for path in safe.rglob("*_B03.jp2"):
        path.write_bytes(path.read_bytes()[:60])
    return safe


@pytest.mark.parametrize(
    ("granules", "spoil", "message"),
    [
        (2, lambda safe: safe, "2 files of B4 at 10 m"),
        (1, without("*_B08*"), "0 files of B8 at 10 m"),
        (1, without("*.jp2"), "a folder, expected a raster file"),
        (1, lambda safe: zipped(without("*.jp2")(safe)), "a zip, expected a raster file"),
        (1, broken, "cannot be read as a zip file"),
        (1, halved, "B03|truncated|damaged|not a raster"),
    ],
)
def test_a_product_that_is_not_whole_is_refused(sar, tmp_path, granules, spoil, message):
    path = spoil(fake_sentinel2(tmp_path / "p", granules=granules))
    with pytest.raises(FloraError, match=message):
        seen(sar, path)


def test_gdal_without_jpeg_2000_is_told(sar, tmp_path, monkeypatch):
    path = fake_sentinel2(tmp_path / "p")
    monkeypatch.setattr(rasterio.Env, "drivers", lambda self: {"GTiff": "GeoTIFF"})
    with pytest.raises(FloraError, match="JPEG 2000 files, which the GDAL of this rasterio"):
        seen(sar, path)
