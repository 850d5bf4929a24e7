"""Border noise of ground range products from older processors."""

import re
import shutil
import zipfile

import numpy as np
import pytest
import rasterio

from flora.errors import FloraWarning
from flora.scenes.inputs import open_scene
from flora.scenes.safe.border import ALONG, CELL, SEA, WIDEST, border_cells
from flora.scenes.safe.noise import noise_factor
from flora.scenes.safe.product import processor_version
from tests.support.fake_scenes import fake_safe, swath_position

ROWS, COLUMNS = 200, 700  # cells
LAND, WATER, NOISE = 0.05, 0.003, 0.002


def scene(**dark):
    """sigma0 of land, with what each slice of rows and columns is told to be."""
    cells = np.full((ROWS, COLUMNS), LAND, np.float32)
    for rows, columns, value in dark.values():
        cells[rows, columns] = value
    return cells


def found(cells, other=None):
    return border_cells([cells, cells if other is None else other])


def test_border_is_masked_on_every_edge_up_to_what_was_measured():
    border = found(
        scene(
            left=(slice(None), slice(0, 5), NOISE),
            right=(slice(None), slice(COLUMNS - 40, None), NOISE),
            top=(slice(0, 7), slice(None), NOISE),
            bottom=(slice(ROWS - 3, None), slice(None), NOISE),
        )
    )
    expected = np.ones((ROWS, COLUMNS), bool)
    expected[8 : ROWS - 4, 6 : COLUMNS - 41] = False  # and the cell that both may share
    np.testing.assert_array_equal(border, expected)


def test_zeros_before_the_noise_are_nodata_already_and_a_step_along_the_edge_stays():
    cells = scene(zeros=(slice(None), slice(0, 10), 0), noise=(slice(None), slice(10, 14), NOISE))
    cells[100:, 14:24] = NOISE  # where a sub-swath begins later
    border = found(cells)
    assert not border[:, :10].any()
    assert border[:99, 10:15].all() and not border[:99, 15:].any()
    assert border[100:, 10:25].all() and not border[100:, 25:].any()


def test_lakes_and_rivers_stay_inside_and_where_they_touch_the_border():
    lake = scene(
        noise=(slice(None), slice(0, 5), NOISE),
        inside=(slice(40, 90), slice(200, 300), WATER),
        touching=(slice(120, 120 + ALONG // 2), slice(5, 80), WATER),
        river=(slice(20, 23), slice(None), WATER),
    )
    border = found(lake)
    assert border[:, :6].all() and not border[:, 6:].any()


def test_nothing_is_border_without_a_dark_edge():
    lake = scene(inside=(slice(40, 90), slice(200, 300), WATER))
    assert not found(lake).any()
    assert not found(scene(zeros=(slice(0, 9), slice(None), 0))).any()
    # A rough sea at the edge is dark in VH alone.
    sea = scene(sea=(slice(None), slice(0, 200), WATER))
    assert not found(scene(), sea).any() and found(sea).any()


def test_of_a_calm_sea_at_the_edge_a_strip_is_given_up():
    sea = scene(sea=(slice(None), slice(0, WIDEST + 50), WATER))
    border = found(sea)
    assert border[100, : SEA + 1].all() and not border[100, SEA + 1 : COLUMNS - 1].any()


def spoilt(folder, version):
    """A product with a lake, and digital numbers of 0 to 60 along two edges."""
    safe = fake_safe(folder, height=400, width=480)
    (safe / "manifest.safe").write_text(
        f'<safe:software name="Sentinel-1 IPF" version="{version}"/>'
    )
    random = np.random.default_rng(0)
    for file in safe.glob("measurement/*"):
        with rasterio.open(file, "r+") as image:
            numbers = image.read(1)
            numbers[:, :40] = random.integers(0, 61, (400, 40))
            numbers[:24] = random.integers(0, 61, (24, 480))
            numbers[150:250, 200:300] = random.integers(20, 40, (100, 100))
            image.write(numbers, 1)
    return safe


def valid_at(scene, line, pixel):
    x, y = swath_position(line + 0.5, pixel + 0.5)
    column = int((x - scene.transform.c) / 10)
    row = int((scene.transform.f - y) / 10)
    return bool(scene.read(row, 1)[1][0, column])


@pytest.mark.filterwarnings("ignore:.*without terrain correction:flora.FloraWarning")
@pytest.mark.parametrize("packed", [False, True])
def test_a_product_of_an_old_processor_loses_its_border_and_keeps_its_lake(tmp_path, packed):
    path = spoilt(tmp_path, "002.72")
    if packed:
        path = shutil.make_archive(str(tmp_path / "product"), "zip", tmp_path, path.name)
    with (
        pytest.warns(FloraWarning, match=r"17\.2% of its pixels are border noise.*Ali et al"),
        open_scene(path) as scene,
    ):
        inside = [valid_at(scene, *place) for place in ((200, 250), (40, 100), (390, 60))]
        outside = [valid_at(scene, *place) for place in ((10, 250), (200, 20), (390, 5))]
        backscatter, valid = scene.read(0, scene.shape[0])
    assert (inside, outside) == ([True] * 3, [False] * 3)
    lake = (backscatter < -19.5).all(axis=0) & valid
    assert lake.sum() == pytest.approx(100 * 100, rel=0.08)  # the swath is bent


@pytest.mark.filterwarnings("ignore:.*without terrain correction:flora.FloraWarning")
@pytest.mark.filterwarnings("error:.*border noise:flora.FloraWarning")
def test_a_product_of_a_new_processor_is_taken_as_it_is(tmp_path):
    with open_scene(spoilt(tmp_path, "002.90")) as scene:
        assert valid_at(scene, 10, 250) and valid_at(scene, 200, 20)


@pytest.mark.parametrize(("year", "version"), [(2015, 2.70), (2021, 3.31), (2026, 4.03)])
def test_real_products_name_their_processor(flora_data, year, version):
    (path,) = flora_data.glob(f"fixtures/safe/*_{year}*.zip")
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("manifest.safe"))
        assert processor_version(archive.read(name)) == version
        (name,) = (n for n in archive.namelist() if re.search("/calibration-.*-vv-", n))
        assert noise_factor(version, "measurement/s1a-iw-grd-vv-1.tiff", archive.read(name)) == 1


def test_noise_of_the_first_processors_is_relative_to_the_scaling():
    vectors = b'<dn count="2">4.740000e+02 4.740000e+02</dn>'
    image = "x.SAFE/measurement/s1a-iw-grd-vv-20141003t0-001.tiff"
    assert noise_factor(2.36, image, vectors) == pytest.approx(75088.7 * 474**2)
    assert noise_factor(2.30, image, vectors) == pytest.approx(75088.7 * 474)
    assert noise_factor(2.36, image.replace("-iw-", "-ew-"), vectors) == 56065.87 * 474**2
    assert noise_factor(2.50, image, vectors) == noise_factor(None, image, vectors) == 1


def test_the_cells_of_the_border_divide_its_widths():
    assert WIDEST * CELL == 2000 and SEA * CELL == 496
