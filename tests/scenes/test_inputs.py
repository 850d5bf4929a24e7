import math
import os
import shutil
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from flora.errors import FloraError, FloraWarning, Given
from flora.scenes.before import open_before
from flora.scenes.inputs import open_scene
from flora.scenes.names import polarisation
from flora.scenes.safe.noise import NOISE_CELL, noise_power
from flora.scenes.safe.product import GAIN_STEP, calibration_gain
from flora.sensors import SENTINEL1, SENTINEL2_RGB
from tests.support.fake_scenes import (
    BORDER,
    GRID,
    UTM,
    fake_safe,
    map_truth,
    noise,
    noise_annotation,
    sigma_nought,
    swath_position,
    write_scene,
    zipped,
)

X = Given("sar_path", "x")
SHAPE = (120, 90)


def moved(columns, rows):
    return Affine(10.0, 0.0, GRID.c + 10 * columns, 0.0, -10.0, GRID.f - 10 * rows)


def decibel(transform=GRID, shape=SHAPE):
    return map_truth(transform, shape).astype(np.float32)


def power(values):
    return (10 ** (values / 10)).astype(np.float32)


def whole(scene):
    return scene.read(0, scene.shape[0])


def opened(*args, **options):
    """Values and validity of a scene opened, read at once and closed."""
    with open_scene(*args, **options) as scene:
        return whole(scene)


@pytest.fixture
def scene_path(tmp_path):
    return write_scene(tmp_path / "scene.tif", decibel())


# --- one file or two ----------------------------------------------------------------------------


def test_one_file_is_read_as_it_is(scene_path):
    with open_scene(scene_path) as scene:
        assert (scene.shape, scene.crs, scene.transform) == (SHAPE, UTM, GRID)
        assert scene.scaling is SENTINEL1
        values, valid = scene.read(20, 30)
        np.testing.assert_array_equal(values, decibel()[:, 20:50])
        assert values.dtype == np.float32 and valid.all() and valid.shape == (30, 90)


@pytest.mark.parametrize(
    ("names", "described"),
    [
        (("S1_VV.tif", "S1_VH.tif"), ("", "")),
        (("s1a-iw-grd-vh-x.tiff", "s1a-iw-grd-vv-x.tiff"), ("", "")),
        (("iw-vh.rtc.tiff", "iw-vv.rtc.tiff"), ("", "")),
        (("a.tif", "b.tif"), ("VH", "Sigma0_VV_db")),
        (("first.tif", "second.tif"), ("", "")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*gamma0:flora.errors.FloraWarning")
def test_two_files_are_told_apart(tmp_path, names, described):
    bands = dict(zip(("VV", "VH"), decibel(), strict=True))
    paths = []
    for name, text, by_order in zip(names, described, ("VV", "VH"), strict=True):
        band = polarisation(name) or polarisation(text) or by_order
        values = bands[band][None]
        paths.append(write_scene(tmp_path / name, values, names=[text] if text else ()))
    values, valid = opened(paths)
    share = 10 * math.log10(math.cos(math.radians(38.8))) if "rtc" in names[0] else 0
    np.testing.assert_allclose(values, decibel() + share, atol=1e-5)
    assert valid.all()


def test_a_pixel_needs_both_files(tmp_path):
    vv, vh = decibel()[:, None].copy()
    vv[:, :4], vh[:, :, :6] = np.nan, -9999
    paths = write_scene(tmp_path / "VV.tif", vv), write_scene(tmp_path / "VH.tif", vh, nodata=-9999)
    _, valid = opened(paths)
    expected = np.ones(SHAPE, bool)
    expected[:4] = expected[:, :6] = False
    np.testing.assert_array_equal(valid, expected)


def test_described_bands_are_found_in_any_order_beside_others(tmp_path):
    vv, vh = decibel()
    path = write_scene(tmp_path / "gee.tif", [vh, vv * 0 + 38, vv], names=["VH", "angle", "VV"])
    np.testing.assert_array_equal(opened(path)[0], decibel())


def test_a_polarisation_is_a_word():
    assert polarisation("S1A_IW_20190917T060141_DVP_RTC10_G_gpuned_2B2F_VV.tif") == "VV"
    assert polarisation("s1a-iw-grd-vh-20190917.tiff") == "VH"
    assert polarisation("vvx_1SDV.tif") is None
    assert polarisation("stack_vv_vh.tif") is None


# --- units, scale, fill values ------------------------------------------------------------------


def test_linear_power_of_two_files_becomes_db(tmp_path):
    linear = power(decibel())
    linear[:, :, :7] = 0
    paths = [write_scene(tmp_path / f"{n}.tif", v[None]) for n, v in zip("ab", linear, strict=True)]
    values, valid = opened(paths, units="linear")
    assert not valid[:, :7].any() and valid[:, 7:].all()
    np.testing.assert_allclose(values[:, valid], decibel()[:, valid], atol=1e-4)


def test_a_declared_scale_is_applied(tmp_path):
    stored = np.rint(decibel() * 100).astype(np.int16)
    stored[:, :5] = -32768
    path = write_scene(tmp_path / "scaled.tif", stored)
    with pytest.raises(FloraError, match="scaled by 100"):
        opened(path)
    with rasterio.open(path, "r+") as file:
        file.scales = (0.01, 0.01)
    values, valid = opened(path)
    assert not valid[:5].any() and valid[5:].all()
    np.testing.assert_allclose(values[:, 5:], decibel()[:, 5:], atol=0.0051)


@pytest.mark.parametrize(
    "fill",
    [np.nan, -9999, -32768, -999, -99, -np.inf, np.finfo(np.float32).min, 1e20, 32767, 9999, 255],
)
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("grid", [None, "utm"])
@pytest.mark.parametrize("units", ["db", "linear"])
def test_fill_values_are_not_backscatter(tmp_path, fill, declared, grid, units):
    values = decibel() if units == "db" else power(decibel())
    values[:, :40, 20:60] = fill
    path = write_scene(tmp_path / "filled.tif", values, nodata=fill if declared else None)
    with open_scene(path, grid=grid, units=units) as scene:
        read, valid = whole(scene)
        assert np.nanmin(scene.sample) > -35 and np.nanmax(scene.sample) < 10
    assert scene.transform == GRID and scene.shape == SHAPE
    np.testing.assert_array_equal(~valid[:40, 20:60], True)
    ring = 0 if grid is None or np.isfinite(fill) or np.isnan(fill) else 1
    assert valid.sum() >= np.prod(SHAPE) - (40 + ring) * (40 + 2 * ring)
    np.testing.assert_allclose(read[:, valid], decibel()[:, valid], atol=1e-3)


@pytest.mark.parametrize("value", [-50.1, 50.1, -3000, 1234.5])
@pytest.mark.parametrize("grid", [None, "utm"])
def test_values_beyond_plausible_ones_are_nodata(tmp_path, value, grid):
    values = decibel()
    values[1, 10:30, 10:30] = value
    values[:, 50, 50] = -49, 49
    _, valid = opened(write_scene(tmp_path / "beyond.tif", values), grid=grid)
    assert not valid[10:30, 10:30].any()
    assert valid[50, 50] and valid.sum() == valid.size - 400


def test_a_fill_that_resampling_blended_into_the_edges_is_nodata(tmp_path):
    """As somebody else's warp, without nodata declared, leaves it."""
    share = np.clip((np.arange(90) - 29.5) / 4, 0, 1)  # a ramp of a few pixels beside a border
    values = (decibel() * share + -9999 * (1 - share)).astype(np.float32)
    read, valid = opened(write_scene(tmp_path / "blended.tif", values))
    np.testing.assert_array_equal(valid, np.broadcast_to(share == 1, SHAPE))
    np.testing.assert_allclose(read[:, valid], decibel()[:, valid], atol=1e-4)


@pytest.mark.parametrize(
    ("units", "constant", "said"),
    [
        ("db", 0, "25% of its pixels hold exactly 0 dB.*-a_nodata 0"),
        ("db", -35, "25% of its pixels hold exactly -35 dB.*-a_nodata -35"),
        ("db", -21.5, "25% of its pixels hold exactly -21.5 dB.*-a_nodata -21.5"),
        ("linear", 1e-4, "25% of its pixels hold exactly 0.0001 in power.*-a_nodata 0.0001"),
    ],
)
def test_a_constant_that_many_pixels_hold_is_a_warning(tmp_path, units, constant, said):
    values = decibel() if units == "db" else power(decibel())
    values[:, :30] = constant
    path = write_scene(tmp_path / "constant.tif", values)
    with pytest.warns(FloraWarning, match=said) as caught:
        assert opened(path, units=units)[1].all()
    assert sum("hold exactly" in str(warning.message) for warning in caught) == 1
    with rasterio.open(path, "r+") as file:
        file.nodata = constant
    assert not opened(path, units=units)[1][:30].any()


def test_whole_decibels_are_no_constant(tmp_path):
    assert opened(write_scene(tmp_path / "whole.tif", np.rint(decibel())))[1].all()


@pytest.mark.parametrize(
    ("made", "units", "said"),
    [
        (lambda db: np.sqrt(power(db)), "linear", "amplitude, expected power; square them"),
        (lambda db: db / 2, "db", "dB of amplitude, or z-scores, expected sigma0 in dB"),
        (lambda db: (db - db.mean()) / db.std(), "db", "dB of amplitude, or z-scores"),
    ],
)
def test_values_brighter_than_land_are_suspected(tmp_path, made, units, said):
    path = write_scene(tmp_path / "bright.tif", made(decibel()).astype(np.float32))
    with pytest.warns(FloraWarning, match=f"median VH .* is brighter than land: .*{said}") as told:
        opened(path, units=units)
    assert len(told) == 1


def test_gamma0_by_its_name_is_read_as_sigma0(tmp_path):
    names = ("S1A_IW_20190917T060141_DVP_RTC10_G_{}uned_2B2F_VV.tif", "x_{}uned_VH.tif")
    linear = power(decibel())[:, None]

    def write(word):
        pairs = zip(names, linear, strict=True)
        return [write_scene(tmp_path / name.format(word), band) for name, band in pairs]

    said = r"read as sigma0 = gamma0 cos\(38\.8 degrees\).*-0\.5 dB.*\+0\.5 dB"
    with pytest.warns(FloraWarning, match=said):
        values, _ = opened(write("gp"), units="linear")
    np.testing.assert_allclose(values, decibel() - 1.0829, atol=1e-3)  # 10 log10 cos(38.8)
    values, _ = opened(write("gp"), units="linear", incidence=60.0)
    np.testing.assert_allclose(values, decibel() - 3.0103, atol=1e-3)
    with pytest.raises(FloraError, match="incidence 5: expected 15 to 60 degrees"):
        opened(write("gp"), units="linear", incidence=5)
    values, _ = opened(write("sp"), units="linear")  # sigma0, by its name
    np.testing.assert_allclose(values, decibel(), atol=1e-4)
    with pytest.raises(FloraError, match=r"amplitude, as its name says \(gauned\)"):
        opened(write("ga"), units="linear")


@pytest.mark.parametrize(
    ("quantity", "says", "share"),
    [
        ("Gamma0", r"gamma0 cos.*-0\.5 dB.*\+0\.5 dB", math.cos(math.radians(38.8))),
        ("Beta0", r"beta0 sin.*\+1\.1 dB.*-0\.6 dB", math.sin(math.radians(38.8))),
    ],
)
def test_a_quantity_in_the_bands_names_is_read_as_sigma0(tmp_path, quantity, says, share):
    names = [f"{quantity}_{band}_db" for band in ("VV", "VH")]
    path = write_scene(tmp_path / "s.tif", decibel(), names=names)
    with pytest.warns(FloraWarning, match=says):
        values, _ = opened(path)
    np.testing.assert_allclose(values, decibel() + 10 * math.log10(share), atol=1e-4)
    with open_scene(path, incidence=38.8) as scene:  # known: nothing to warn of
        assert scene.tags["FLORA_SIGMA0_FROM"] == f"{quantity.lower()} at 38.8 degrees"
        identity = scene.identity()
    np.testing.assert_allclose(opened(path, incidence=0)[0], decibel(), atol=1e-4)
    with open_scene(path, incidence=40.0) as scene:
        assert scene.identity() != identity


def test_sigma0_in_the_bands_names_is_believed_and_amplitude_refused(tmp_path):
    opened(write_scene(tmp_path / "rtc.tif", decibel(), names=("Sigma0_VV_db", "Sigma0_VH_db")))
    path = write_scene(tmp_path / "a.tif", decibel(), names=("Amplitude_VV", "Amplitude_VH"))
    with pytest.raises(FloraError, match="amplitude, as its name says"):
        opened(path)


# --- a part -------------------------------------------------------------------------------------


def test_a_window_is_that_part_of_the_scene(scene_path):
    with open_scene(scene_path, window=(30, 20, 40, 50)) as scene:
        assert (scene.shape, scene.transform) == ((50, 40), moved(30, 20))
        np.testing.assert_array_equal(whole(scene)[0], decibel()[:, 20:70, 30:70])
        np.testing.assert_array_equal(scene.read(7, 3)[0], decibel()[:, 27:30, 30:70])
        np.testing.assert_array_equal(scene.sample, decibel()[:, 20:70, 30:70])


@pytest.mark.parametrize("turned", [False, True])
def test_a_box_in_degrees_is_the_pixels_it_touches(tmp_path, turned):
    grid = Affine(6.0, 8.0, GRID.c, 8.0, -6.0, GRID.f) if turned else GRID
    path = write_scene(tmp_path / "scene.tif", decibel(grid), transform=grid)
    centre = [GRID.c + (340 + 360 if turned else 405), GRID.f - (-100 if turned else 605)]
    bounds = (centre[0] - 30, centre[1] - 50, centre[0] + 30, centre[1] + 50)
    box = transform_bounds(UTM, "EPSG:4326", *bounds)
    with open_scene(path, bbox=box) as scene:
        rows, columns = scene.shape
        x, y = scene.grid.outline(UTM)
        assert x.min() <= bounds[0] and x.max() >= bounds[2]
        assert y.min() <= bounds[1] and y.max() >= bounds[3]
        assert rows * columns < (13 * 9 if not turned else 20 * 20)
        np.testing.assert_allclose(whole(scene)[0], map_truth(scene.transform, scene.shape), 1e-4)


def test_a_box_that_reaches_beyond_is_clipped(scene_path):
    with open_scene(scene_path, bbox=(-3, 38, 0, 41)) as scene:
        assert (scene.shape, scene.transform) == (SHAPE, GRID)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (60, 0, 40, 40)}, r"window \(60, 0, 40, 40\).* inside .* 90 x 120 px"),
        ({"window": (-1, 0, 40, 40)}, "inside"),
        ({"window": (0, 0, 0, 40)}, "inside"),
        ({"bbox": (10, 10, 11, 11)}, r"does not overlap .* spans -1\.8"),
        ({"bbox": (11, 10, 10, 11)}, "west < east"),
        ({"bbox": (39, -2, 40, -100)}, "check the order"),
        ({"bbox": (-2, 39, -1, 40), "window": (0, 0, 9, 9)}, "expected one of them"),
        ({"grid": "EPSG:0"}, "grid 'EPSG:0': no CRS"),
        ({"units": "power"}, "units 'power'"),
    ],
)
def test_a_part_or_option_that_does_not_fit_is_refused(scene_path, options, message):
    with pytest.raises(FloraError, match=message):
        opened(scene_path, **options)


# --- another grid -------------------------------------------------------------------------------


def test_degrees_become_utm_at_ten_metres(tmp_path):
    degrees = Affine(1.1e-4, 0, -1.83, 0, -0.9e-4, 39.74)
    values = map_truth(degrees, (140, 130), CRS.from_epsg(4326)).astype(np.float32)
    path = write_scene(tmp_path / "degrees.tif", values, crs="EPSG:4326", transform=degrees)
    with open_scene(path, grid="utm") as scene:
        assert scene.crs == UTM
        assert (scene.transform.a, scene.transform.e) == (10, -10)
        assert (scene.transform.c % 10, scene.transform.f % 10) == (0, 0)
        read, valid = whole(scene)
        assert 0.9 < valid.mean() < 1  # the corners of a turned rectangle are empty
        error = np.abs(read - map_truth(scene.transform, scene.shape))[:, valid]
        assert np.quantile(error, 0.95) < 0.05  # half a pixel of shift would be 0.1 dB
        rows, _ = scene.read(50, 9)
        np.testing.assert_array_equal(rows, read[:, 50:59])
        assert np.isfinite(scene.sample).all(axis=0).mean() == pytest.approx(valid.mean(), abs=0.02)


def test_files_on_different_grids_meet_on_a_common_one(tmp_path):
    vv = decibel()[:1]
    vh = decibel(moved(0.5, 0.25), (100, 80))[1:]
    paths = [write_scene(tmp_path / "VV.tif", vv)]
    paths.append(write_scene(tmp_path / "VH.tif", vh, transform=moved(0.5, 0.25)))
    with pytest.raises(FloraError, match=r'VH\.tif: 80 x 100 px .* pass grid="utm"'):
        opened(paths)
    with open_scene(paths, grid="utm") as scene:
        read, valid = whole(scene)
        assert (scene.shape, scene.transform) == (SHAPE, GRID)
    assert 0.9 * 8000 < valid.sum() < 1.05 * 8000
    np.testing.assert_allclose(read[:, valid], decibel()[:, valid], atol=0.15)


def test_a_turned_scene_is_kept_or_put_upright(tmp_path):
    turned = Affine(9.5, 3.1, 600000.0, 3.1, -9.5, 4400000.0)
    path = write_scene(tmp_path / "turned.tif", decibel(turned), transform=turned)
    with open_scene(path) as scene:
        assert scene.transform == turned and whole(scene)[1].all()
    with open_scene(path, grid="utm") as scene:
        read, valid = whole(scene)
        assert (scene.transform.b, scene.transform.d) == (0, 0)
        assert 0.4 < valid.mean() < 0.9
        error = np.abs(read - map_truth(scene.transform, scene.shape))[:, valid]
        assert np.quantile(error, 0.95) < 0.05


def test_the_southern_hemisphere_has_its_own_zones(tmp_path):
    south = Affine(1e-4, 0, 36.2, 0, -1e-4, -17.1)
    path = write_scene(tmp_path / "beira.tif", decibel(), crs="EPSG:4326", transform=south)
    with open_scene(path, grid="utm") as scene:
        assert scene.crs == CRS.from_epsg(32737)


# --- georeference -------------------------------------------------------------------------------


def test_without_a_crs_pixels_remain(tmp_path):
    path = write_scene(tmp_path / "plain.tif", decibel(), crs=None, transform=None)
    with pytest.warns(FloraWarning, match=r"no CRS \(no georeference\).*counted in pixels"):
        values, _ = opened(path, window=(0, 0, 9, 9))
    assert values.shape == (2, 9, 9)
    with pytest.raises(FloraError, match='grid="utm" cannot be made'):
        opened(path, grid="utm")
    with (
        pytest.warns(FloraWarning, match="no CRS"),
        pytest.raises(FloraError, match="no CRS to find it in"),
    ):
        opened(path, bbox=(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("crs", "transform", "message"),
    [
        ("EPSG:4326", GRID, r"600450, 4.3994e\+06.*impossible.*EPSG:4326"),
        (UTM, Affine(9e-5, 0, -1.8, 0, -9e-5, 39.7), "pixels of 9e-05 are impossible"),
        (UTM, Affine(10, 10, 600000, 10, 10, 4400000), "one line"),
    ],
)
def test_a_wrong_crs_is_refused(tmp_path, crs, transform, message):
    path = write_scene(tmp_path / "wrong.tif", decibel(), crs=crs, transform=transform)
    with pytest.raises(FloraError, match=message):
        opened(path)


def test_pixels_of_another_size_are_a_warning(tmp_path):
    large = Affine(40, 0, 600000, 0, -40, 4400000)
    path = write_scene(tmp_path / "coarse.tif", decibel(large), transform=large)
    with pytest.warns(FloraWarning, match="pixels of about 40 m"):
        opened(path)
    with open_scene(path, grid="utm") as scene:
        assert scene.shape == (480, 360)


@pytest.mark.parametrize(("side", "told"), [(20, True), (12, False)])
def test_pixels_of_20_m_are_told_at_the_edge_of_a_zone_too(tmp_path, side, told):
    """There the ellipsoid makes them a little smaller than the grid says."""
    grid = Affine(side, 0, 820_000, 0, -side, 4_400_000)
    path = write_scene(tmp_path / "edge.tif", decibel(grid), transform=grid)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        opened(path)
    assert any("pixels of about" in str(one.message) for one in said) == told


# --- GRD products -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    return fake_safe(tmp_path_factory.mktemp("safe"))


@pytest.fixture
def own_safe(tmp_path):
    return fake_safe(tmp_path)


GEOCODED = pytest.mark.filterwarnings("ignore:.*without terrain correction:flora.FloraWarning")


def test_a_grd_product_is_calibrated_and_put_on_the_map(safe):
    with (
        pytest.warns(FloraWarning, match="without terrain correction"),
        open_scene(safe) as scene,
    ):
        assert scene.crs == UTM and (scene.transform.a, scene.transform.e) == (10, -10)
        read, valid = whole(scene)
        error = np.abs(read - map_truth(scene.transform, scene.shape))
    # A calibration constant that is off by 10 % would be 0.9 dB; so would a pixel and a half.
    assert np.quantile(error[:, valid], 0.95) < 0.12
    # The footprint: 190 x 260 px less the border, each 9.98 m wide.
    measured = 190 * (260 - BORDER) * (9.8**2 + 1.9**2) / 100
    assert valid.sum() == pytest.approx(measured, rel=0.02)
    x, y = swath_position(np.array([95.0, 95.0]), np.array([BORDER - 3.0, BORDER + 3.0]))
    column = ((x - scene.transform.c) / 10).astype(int)
    row = ((scene.transform.f - y) / 10).astype(int)
    assert valid[row, column].tolist() == [False, True]


def test_calibration_follows_the_annotation(own_safe):
    """Doubling A of one polarisation lowers it by 6 dB and leaves the other."""
    with pytest.warns(FloraWarning):
        before, valid = opened(own_safe)
    file = next(own_safe.glob("annotation/calibration/calibration-*-vh-*.xml"))
    words = file.read_text().split("<sigmaNought ")
    for number, part in enumerate(words[1:], start=1):
        head, numbers = part.split(">", 1)
        values, rest = numbers.split("</", 1)
        doubled = " ".join(str(2 * float(value)) for value in values.split())
        words[number] = f"{head}>{doubled}</{rest}"
    file.write_text("<sigmaNought ".join(words))
    with pytest.warns(FloraWarning):
        after, _ = opened(own_safe)
    change = (after - before)[:, valid]
    np.testing.assert_array_equal(change[0], 0)
    np.testing.assert_allclose(change[1], -20 * np.log10(2), atol=1e-4)


def test_the_gain_is_interpolated_between_vectors(own_safe):
    annotation = next(own_safe.glob("annotation/calibration/calibration-*.xml")).read_bytes()
    gain = calibration_gain(annotation, (190, 260), X)
    assert gain.shape == (5, 7)
    line, pixel = np.mgrid[:5, :7] * GAIN_STEP + (GAIN_STEP - 1) / 2
    expected = 1 / sigma_nought(line, np.minimum(pixel, 259)) ** 2
    np.testing.assert_allclose(gain, expected, rtol=1e-5)  # A is linear, so this is exact


def noise_xml(safe, band):
    return next(safe.glob(f"annotation/calibration/noise-*-{band}-*"))


@GEOCODED
def test_thermal_noise_is_subtracted_unless_it_is_to_stay(safe):
    without, valid = opened(safe)
    kept, _ = opened(safe, remove_noise=False)
    with open_scene(safe) as scene:
        expected = map_truth(scene.transform, scene.shape)
    vv, vh = np.median((kept - expected)[:, valid], axis=1)
    # VH has -16 dB, noise -22 dB: together 1 dB more. VV is 7 dB brighter: a fifth of that.
    assert 0.7 < vh < 1.5 and 0.1 < vv < 0.35
    assert np.quantile(np.abs(without - expected)[:, valid], 0.95) < 0.12


VECTOR = "<{0}Vector><line>{1}</line><pixel>{2}</pixel><{0}Lut>{3}</{0}Lut></{0}Vector>"
BLOCK = (
    "<noiseAzimuthVector><firstAzimuthLine>{0}</firstAzimuthLine><firstRangeSample>{1}"
    "</firstRangeSample><lastAzimuthLine>{2}</lastAzimuthLine><lastRangeSample>{3}"
    "</lastRangeSample><line>{4}</line><noiseAzimuthLut>{5}</noiseAzimuthLut></noiseAzimuthVector>"
)


def noise_of(*parts, size=(80, 8)):
    return noise_power(f"<noise>{''.join(parts)}</noise>".encode(), size, X)


def test_noise_of_the_old_layout_by_hand():
    """Cells of 40 x 4 px: their centres lie on lines 19.5 and 59.5, pixels 1.5 and 5.5."""
    assert NOISE_CELL == (40, 4)
    near = VECTOR.format("noise", 19.5, "0 4 8", "100 140 100")
    far = VECTOR.format("noise", 99.5, "0 4 8", "300 340 300")
    # On line 19.5: 100 + 40 * 1.5 / 4 = 115, and 140 - 40 * 1.5 / 4 = 125. Half-way on: + 100.
    np.testing.assert_allclose(noise_of(far, near), [[115, 125], [215, 225]])
    np.testing.assert_allclose(noise_of(near), [[115, 125], [115, 125]])  # held beyond


def test_noise_along_the_track_by_hand():
    """Each sub-swath has a factor of its own, and is not blended with its neighbour."""
    vector = VECTOR.format("noiseRange", 0, "0 3 4 7", "100 100 500 500")
    first = BLOCK.format(0, 0, 79, 3, "9.5 29.5 69.5", "1.0 2.0 1.0")
    second = BLOCK.format(40, 4, 79, 7, "0", "3.0")
    # At line 19.5 the first factor is 1.5, at 59.5 it is 1.25; the second has no block there.
    np.testing.assert_allclose(noise_of(vector, first, second), [[150, 500], [125, 1500]])


def test_a_sub_swath_that_moves_keeps_its_own_noise():
    """Where the border moves from pixel 4 to 8, both lines say 100 of the first sub-swath."""
    vectors = [
        VECTOR.format("noiseRange", 19.5, "0 3 4 11", "100 100 500 500"),
        VECTOR.format("noiseRange", 59.5, "0 7 8 11", "100 100 500 500"),
    ]
    blocks = [
        BLOCK.format(*block, "0", "1.0")
        for block in ((0, 0, 39, 3), (0, 4, 39, 11), (40, 0, 79, 7), (40, 8, 79, 11))
    ]
    found = noise_of(*vectors, *blocks, size=(80, 12))
    np.testing.assert_allclose(found, [[100, 500, 500], [100, 100, 500]])


def test_noise_follows_the_annotation(safe):
    power = noise_power(noise_xml(safe, "vh").read_bytes(), (190, 260), X)
    assert power.shape == (5, 65)
    line, pixel = np.mgrid[:5, :65].astype(float)
    line, pixel = line * 40 + 19.5, pixel * 4 + 1.5
    np.testing.assert_allclose(power[:4], noise(line, pixel)[:4], rtol=0.02)


@GEOCODED
def test_more_noise_than_signal_leaves_a_tenth(own_safe):
    kept, valid = opened(own_safe, remove_noise=False)
    noise_xml(own_safe, "vh").write_text(
        "<noise>" + VECTOR.format("noise", 0, "0 259", "1e9 1e9") + "</noise>"
    )
    least, still = opened(own_safe)
    np.testing.assert_array_equal(still, valid)
    np.testing.assert_allclose((kept - least)[1, valid], 10, atol=1e-3)


@GEOCODED
def test_old_products_have_noise_too(own_safe):
    after, valid = opened(own_safe)
    for band in ("vv", "vh"):
        noise_xml(own_safe, band).write_text(noise_annotation(190, 260, old=True))
    old, _ = opened(own_safe)
    # The part along the track, 1 to 1.3, is missing: less is subtracted.
    change = (old - after)[1, valid]
    assert change.min() > -0.01 and 0.05 < np.median(change) < 0.5


@GEOCODED
@pytest.mark.parametrize("case", ["no file", "zeros", "subtracted already"])
def test_noise_that_cannot_be_subtracted(own_safe, case):
    kept, _ = opened(own_safe, remove_noise=False)
    before, _ = opened(own_safe)
    file = noise_xml(own_safe, "vh")
    if case == "subtracted already":
        for annotation in own_safe.glob("annotation/*.xml"):
            annotation.write_text(annotation.read_text().replace("false", "true"))
        np.testing.assert_array_equal(opened(own_safe)[0], kept)
        return
    if case == "no file":
        file.unlink()
    else:
        file.write_text("<noise>" + VECTOR.format("noise", 0, "0 9", "0.0e+00 0") + "</noise>")
    said = "no annotation" if case == "no file" else "only zeros in annotation"
    with pytest.warns(FloraWarning, match=f"{said}.*noise stays in VH"):
        after, _ = opened(own_safe)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], kept[1])


@GEOCODED
def test_a_zipped_product_gives_the_same(safe, tmp_path):
    shutil.copytree(safe, tmp_path / safe.name)
    archive = zipped(tmp_path / safe.name)
    shutil.rmtree(tmp_path / safe.name)
    first, second = opened(safe), opened(archive)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@GEOCODED
def test_a_product_goes_to_the_grid_asked_for(safe):
    with open_scene(safe, grid="EPSG:4326") as scene:
        assert scene.crs == CRS.from_epsg(4326)
        assert scene.transform.a == pytest.approx(8.983e-5, rel=1e-4)
        read, valid = whole(scene)
        error = np.abs(read - map_truth(scene.transform, scene.shape, scene.crs))[:, valid]
    assert np.quantile(error, 0.95) < 0.12
    with open_scene(safe) as scene:
        full, _ = whole(scene)
    with open_scene(safe, window=(40, 30, 60, 50)) as scene:
        np.testing.assert_array_equal(whole(scene)[0], full[:, 30:80, 40:100])


def test_any_raster_with_control_points_can_be_put_on_the_map(safe, tmp_path):
    source = next(safe.glob("measurement/*-vv-*"))
    with rasterio.open(source) as file:
        values, (points, crs) = file.read(), file.gcps
    linear = (np.repeat(values, 2, axis=0) / 600.0) ** 2
    linear[1] /= 5
    path = write_scene(
        tmp_path / "swath.tif", linear.astype(np.float32), crs=crs, transform=None, gcps=points
    )
    with pytest.warns(FloraWarning, match="only ground control points"):
        opened(path, units="linear")
    with pytest.warns(FloraWarning, match="without terrain correction"):
        put, valid = opened(path, units="linear", grid="utm")
    with pytest.warns(FloraWarning, match="without terrain correction"):
        product, there = opened(safe, remove_noise=False)
    np.testing.assert_array_equal(valid, there)
    # The constant 600 in place of A, which falls from 620 to 412.
    change = (put - product)[0, valid]
    assert change.min() > 20 * np.log10(412 / 600) - 0.1
    assert change.max() < 20 * np.log10(620 / 600) + 0.1


def _spoil(safe, case):
    if case == "not a product":
        (safe / "manifest.safe").unlink()
    elif case == "single":
        next(safe.glob("measurement/*-vh-*")).unlink()
    elif case == "slc":
        for file in (safe / "measurement").iterdir():
            file.rename(file.with_name(file.name.replace("-grd-", "-slc-").replace("iw", "iw1")))
    elif case == "no annotation":
        next(safe.glob("annotation/calibration/calibration-*-vv-*")).unlink()
    elif case == "damaged annotation":
        file = next(safe.glob("annotation/calibration/calibration-*-vv-*"))
        file.write_text(file.read_text()[:900])
    elif case == "empty annotation":
        next(safe.glob("annotation/calibration/calibration-*-vv-*")).write_text("<calibration/>")
    elif case == "negative annotation":
        file = next(safe.glob("annotation/calibration/calibration-*-vv-*"))
        file.write_text(file.read_text().replace('count="8">6', 'count="8">-6'))
    elif case == "damaged noise":
        noise_xml(safe, "vv").write_text("<noise><noiseRangeVector>")
    elif case == "empty noise":
        noise_xml(safe, "vv").write_text("<noise/>")
    elif case == "uneven noise":
        noise_xml(safe, "vv").write_text(f"<noise>{VECTOR.format('noise', 0, '0 9', '5')}</noise>")
    elif case == "negative noise":
        noise_xml(safe, "vv").write_text(f"<noise>{VECTOR.format('noise', 0, '0', '-5')}</noise>")
    elif case == "truncated":
        file = next(safe.glob("measurement/*-vv-*"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return safe


@GEOCODED
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("not a product", "product without its manifest.safe: there is measurement/ in it"),
        ("single", "holds VV, expected VV and VH.*1SDV"),
        ("slc", "SLC, expected GRD"),
        ("no annotation", "no annotation/calibration/calibration-s1a-iw-grd-vv-"),
        ("damaged annotation", "damaged calibration annotation"),
        ("empty annotation", "damaged calibration annotation"),
        ("negative annotation", "not above 0"),
        ("damaged noise", r"noise of VV: damaged noise annotation.*remove_noise=False"),
        ("empty noise", "neither noiseRangeVector nor noiseVector"),
        ("uneven noise", "1 noiseLut for 2 pixels"),
        ("negative noise", "noise below 0"),
        ("truncated", "truncated or damaged"),
    ],
)
def test_a_spoilt_product_is_refused(own_safe, case, message):
    with pytest.raises(FloraError, match=message):
        opened(_spoil(own_safe, case))


def test_a_zip_that_is_no_product_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    write_scene(tmp_path / "folder" / "scene.tif", decibel())
    archive = Path(shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path / "folder"))
    with pytest.raises(FloraError, match=r"no manifest\.safe in it"):
        opened(archive)
    (tmp_path / "broken.zip").write_bytes(archive.read_bytes()[:100])
    with pytest.raises(FloraError, match="cannot be read, or is damaged"):
        opened(tmp_path / "broken.zip")


# --- bad files ----------------------------------------------------------------------------------


def _bad(folder, case):
    """Paths that open_scene is to refuse."""
    vv, vh = decibel()[:, None]
    path = folder / "scene.tif"
    pair = {
        "both VV": ("a_VV.tif", "b_VV.tif"),
        "one named": ("a_VV.tif", "b.tif"),
        "other polarisations": ("a_HH.tif", "b_HV.tif"),
    }
    if case in pair:
        return [write_scene(folder / n, v) for n, v in zip(pair[case], (vv, vh), strict=True)]
    if case == "contradiction":
        write_scene(folder / "b_VH.tif", vh)
        return [write_scene(folder / "a_VV.tif", vv, names=["VH"]), folder / "b_VH.tif"]
    if case == "three files":
        return [path] * 3
    if case == "two stacks":
        return [write_scene(path, decibel())] * 2
    if case == "second missing":
        return [write_scene(folder / "a_VV.tif", vv), folder / "b_VH.tif"]
    if case == "folder":
        return folder
    if case == "text":
        path.write_text("VV,VH")
        return path
    values, names = {
        "HH and HV": (decibel(), ["HH", "HV"]),
        "complex": ((decibel() + 1j).astype(np.complex64), ()),
        "integers x 10": (np.rint(decibel() * 10).astype(np.int16), ()),
        "all border": (np.full((2, *SHAPE), -9999, np.float32), ()),
    }[case]
    return write_scene(path, values, names=names)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("both VV", r"not clear \(a_VV.tif: VV, b_VV.tif: VV\)"),
        ("one named", r"not clear \(a_VV.tif: VV, b.tif: None\)"),
        ("other polarisations", "not clear"),
        ("contradiction", "VV in its name, VH in its band's description"),
        ("three files", "3 files, expected one with VV, VH, or one for each"),
        ("two stacks", "2 bands in one of 2 files"),
        ("second missing", "b_VH.tif: no such file"),
        ("folder", r"a folder, without the manifest\.safe .*no GeoTIFF.*name a file"),
        ("text", "not a raster"),
        ("HH and HV", "described as HH, HV, expected VV, VH"),
        ("complex", "complex values"),
        ("integers x 10", "too low for dB"),
        ("all border", "no pixel was measured"),
    ],
)
def test_bad_files_are_refused(tmp_path, case, message):
    with pytest.raises(FloraError, match=message):
        opened(_bad(tmp_path, case))


def test_swapped_polarisations_are_a_warning(tmp_path):
    path = write_scene(tmp_path / "swapped.tif", decibel()[::-1])
    with pytest.warns(FloraWarning, match="probably swapped"):
        opened(path)


@pytest.mark.parametrize("grid", [None, "utm"])
def test_a_file_cut_short_while_it_is_read_is_refused(tmp_path, grid):
    values = decibel(shape=(1500, 600))
    path = write_scene(tmp_path / "scene.tif", values)
    with open_scene(path, grid=grid) as scene, scene.reopen() as again:
        os.truncate(path, path.stat().st_size // 10)
        with rasterio.Env(GDAL_CACHEMAX=0), pytest.raises(FloraError, match="truncated or damaged"):
            for row in range(0, 1500, 100):
                again.read(row, 100)


# --- a thread of its own ------------------------------------------------------------------------


@GEOCODED
def test_a_scene_is_reopened_in_another_thread(safe, scene_path):
    for path in (scene_path, safe):
        with open_scene(path, window=(20, 30, 50, 60)) as scene:
            expected = whole(scene)
            found = []

            def read(scene=scene, found=found):
                with scene.reopen() as again:
                    found.append(whole(again))
                    found.append(again.sample)

            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        np.testing.assert_array_equal(found[0][0], expected[0])
        np.testing.assert_array_equal(found[0][1], expected[1])
        assert found[1] is scene.sample


def test_reopening_a_file_that_vanished_is_refused(own_safe, scene_path):
    with open_scene(scene_path) as scene:
        scene_path.unlink()
        with pytest.raises(FloraError, match="no such file"), scene.reopen():
            pass
    with pytest.warns(FloraWarning), open_scene(own_safe) as scene:
        shutil.rmtree(own_safe)
        with pytest.raises(FloraError), scene.reopen() as again:
            whole(again)


# --- the image from before the flood ------------------------------------------------------------


def ramp(grid, shape, crs=UTM):
    """B4, B3, B2, B8 that rise with the coordinates, in reflectance x 10000."""
    row, column = np.mgrid[: shape[0], : shape[1]] + 0.5
    x, y = grid.a * column + grid.c, grid.e * row + grid.f
    if crs != UTM:
        x, y = rasterio.warp.transform(crs, UTM, x.ravel(), y.ravel())
        x, y = (np.reshape(values, shape) for values in (x, y))
    east, south = x - GRID.c, GRID.f - y
    return np.stack([1000 + east, 1000 + south, 2000 + east, 2000 + south]).astype(np.float32)


@pytest.mark.parametrize("zone", [32629, 32630, 32631, 4326])
def test_before_in_any_zone_lies_where_it_belongs(scene_path, tmp_path, zone):
    crs = CRS.from_epsg(zone)
    left, bottom, right, top = transform_bounds(
        UTM, crs, GRID.c - 300, GRID.f - 1500, GRID.c + 1200, GRID.f + 300
    )
    pixel = 10.0 if zone != 4326 else 1e-4
    grid = Affine(pixel, 0, left, 0, -pixel, top)
    shape = (int((top - bottom) / pixel), int((right - left) / pixel))
    path = write_scene(tmp_path / "before.tif", ramp(grid, shape, crs), crs=crs, transform=grid)
    with open_scene(scene_path) as scene, open_before(path, scene, SENTINEL2_RGB) as before:
        stored = before.read(0, SHAPE[0])
        assert before.scale(stored)[2].all()
        # A pixel is 10; GDAL's transformer is allowed an eighth of one.
        np.testing.assert_allclose(stored, ramp(GRID, SHAPE), atol=1.3)
        with before.reopen() as again:
            np.testing.assert_array_equal(again.read(30, 9), before.read(30, 9))


@pytest.mark.parametrize("nodata", [None, 0, -9999, np.nan])
def test_before_that_covers_a_part_is_not_valid_beyond(scene_path, tmp_path, nodata):
    values = ramp(moved(20, 0), SHAPE)
    values[:, :, 40:50] = 0 if nodata is None else nodata
    path = write_scene(tmp_path / "before.tif", values, transform=moved(20, 0), nodata=nodata)
    with open_scene(scene_path) as scene, open_before(path, scene, SENTINEL2_RGB) as before:
        image, index, valid = before.scale(before.read(0, SHAPE[0]))
    expected = np.ones(SHAPE, bool)
    expected[:, :20] = expected[:, 60:70] = False
    np.testing.assert_array_equal(valid, expected)
    assert (image[:, ~valid] == 0).all() and (index[:, ~valid] == 0).all()
    assert image[:, valid].min() > 0.3


@GEOCODED
def test_before_fits_a_part_of_a_product(safe, tmp_path):
    path = write_scene(tmp_path / "before.tif", ramp(moved(-60, -60), (400, 500)))
    with rasterio.open(path, "r+") as file:
        file.transform = moved(-60, -60)
    with (
        open_scene(safe, window=(80, 60, 70, 50)) as scene,
        open_before(path, scene, SENTINEL2_RGB) as before,
    ):
        stored = before.read(0, 50)
        np.testing.assert_allclose(stored, ramp(scene.transform, (50, 70)), atol=0.5)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("elsewhere", "does not overlap it"),
        ("other zone", "does not overlap it"),
        ("missing", "no such file"),
        ("folder", "a folder, expected a raster file"),
        ("wrong crs", "wrong CRS"),
    ],
)
def test_before_that_does_not_fit_is_refused(scene_path, tmp_path, case, message):
    path = tmp_path / "before.tif"
    place = {
        "elsewhere": {"transform": moved(90, 0)},
        # The same numbers, six degrees further east.
        "other zone": {"crs": CRS.from_epsg(32631)},
        "wrong crs": {"crs": "EPSG:4326"},
    }.get(case)
    if place is not None:
        write_scene(path, ramp(GRID, SHAPE), **place)
    elif case == "folder":
        path.mkdir()
    with open_scene(scene_path) as scene, pytest.raises(FloraError, match=message):  # noqa: SIM117
        with open_before(path, scene, SENTINEL2_RGB):
            pass


# --- real files ---------------------------------------------------------------------------------


@pytest.fixture
def data():
    root = os.environ.get("FLORA_DATA")
    if not root:
        pytest.skip("needs FLORA_DATA, a folder of real samples")
    return Path(root)


def real(data, pattern):
    found = sorted(data.glob(pattern))
    if not found:
        pytest.skip(f"FLORA_DATA has no {pattern}")
    return found


HAND = "sen1floods11/v1.1/data/flood_events/HandLabeled"


def test_the_real_chip_on_a_utm_grid(data):
    """Statistics of backscatter survive; the chip's area does too."""
    (path,) = real(data, f"{HAND}/S1Hand/Spain_7370579_S1Hand.tif")
    (optical,) = real(data, f"{HAND}/S2Hand/Spain_7370579_S2Hand.tif")
    with ExitStack() as stack:
        own = stack.enter_context(open_scene(path))
        put = stack.enter_context(open_scene(path, grid="utm"))
        assert own.crs == CRS.from_epsg(4326) and put.crs == CRS.from_epsg(32630)
        first, first_valid = whole(own)
        second, second_valid = whole(put)
        for band in (0, 1):
            medians = np.median(first[band][first_valid]), np.median(second[band][second_valid])
            assert medians[0] == pytest.approx(medians[1], abs=0.15)
        # 8.983e-5 degrees are 10 m of longitude on the equator.
        shrink = np.cos(np.radians(38.1))
        assert second_valid.sum() == pytest.approx(first_valid.sum() * shrink, rel=0.01)
        before = stack.enter_context(open_before(optical, put, SENTINEL2_RGB))
        near = before.read(0, put.shape[0])[3].astype(float)
        dark = second[1] < -22
        assert near[second_valid & dark].mean() < 0.8 * near[second_valid & ~dark].mean()


def test_two_real_bands_cut_into_files_are_the_chip(data, tmp_path):
    (path,) = real(data, f"{HAND}/S1Hand/Spain_7370579_S1Hand.tif")
    with rasterio.open(path) as file:
        profile, values = file.profile, file.read()
    paths = []
    for name, band in zip(("VH", "VV"), values[::-1], strict=True):
        place = {key: profile[key] for key in ("crs", "transform", "nodata")}
        paths.append(write_scene(tmp_path / f"spain_{name}.tif", band[None], **place))
    whole_chip, split_chip = opened(path), opened(paths)
    np.testing.assert_array_equal(whole_chip[0], split_chip[0])
    np.testing.assert_array_equal(whole_chip[1], split_chip[1])


def test_real_chips_of_terramesh_with_their_optical_image(data):
    for path in real(data, "terramesh/S1RTC/*.tif"):
        optical = data / "terramesh" / "S2L1C" / path.name
        with (
            pytest.warns(FloraWarning) as told,
            open_scene(path) as scene,
            open_before(optical, scene, SENTINEL2_RGB, align=False) as before,
        ):
            values, valid = whole(scene)
            assert valid.all() and -25 < np.median(values[1]) < np.median(values[0]) < -5
            assert before.scale(before.read(0, 224))[2].all()
        said = " ".join(str(one.message) for one in told)
        assert "offset of 1000 since processing baseline 04.00 is probably there" in said
        assert ("cloud (or snow)" in said) == (path.stem == "609U_541L_3_0")
        with open_scene(path, grid="EPSG:4326", bbox=scene.grid.lon_lat_box()) as degrees:
            read, inside = whole(degrees)
            assert inside.mean() > 0.6
            assert np.median(read[0][inside]) == pytest.approx(np.median(values[0]), abs=0.2)
