"""Products in swath geometry: across 180 degrees, in pixels of another size, in other modes."""

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.warp import transform

from flora.errors import FloraError, FloraWarning
from flora.grid import apply
from flora.scenes.inputs import open_scene
from flora.scenes.safe.product import pixel_spacing
from tests.support.fake_scenes import BORDER, UTM, fake_safe, truth, write_scene

TERRAIN = pytest.mark.filterwarnings("ignore:.*without terrain correction:flora.FloraWarning")
TURN = 181.815  # degrees that bring the fake product across 180


def turned(points, degrees):
    """Control points further east, in longitudes from -180 to 180."""
    return [
        GroundControlPoint(p.row, p.col, (p.x + degrees + 180) % 360 - 180, p.y, p.z)
        for p in points
    ]


def across(folder):
    safe = fake_safe(folder)
    for file in safe.glob("measurement/*"):
        with rasterio.open(file, "r+") as image:
            points, crs = image.gcps
            image.gcps = turned(points, TURN), crs
    return safe


@TERRAIN
@pytest.mark.parametrize("grid", [None, "EPSG:4326"])
def test_a_swath_across_180_degrees_is_mapped_as_a_whole(tmp_path, grid):
    with open_scene(across(tmp_path), grid=grid) as scene:
        values, valid = scene.read(0, scene.shape[0])
        if grid:
            west, _, east, _ = scene.grid.lon_lat_box()
            assert 179.9 < west < 180 < east < 180.1
    # 190 x 260 px less the border, each 9.98 m wide, as of a swath that lies elsewhere.
    area = 190 * (260 - BORDER) * (9.8**2 + 1.9**2) / 100
    if grid:
        area /= np.cos(np.radians(39.7))
    assert valid.sum() == pytest.approx(area, rel=0.02)
    row, column = np.nonzero(valid)
    x, y = apply(scene.transform, column + 0.5, row + 0.5)
    longitude, latitude = transform(scene.crs, "EPSG:4326", x, y)
    back = transform("EPSG:4326", UTM, np.asarray(longitude) % 360 - TURN, latitude)
    error = np.abs(values[:, valid] - truth(*map(np.asarray, back)))
    assert np.quantile(error, 0.95) < 0.12


@TERRAIN
def test_a_grid_that_is_torn_at_180_degrees_is_refused(tmp_path):
    with pytest.raises(FloraError, match=r'EPSG:3857 is torn apart; choose a grid="utm"'):  # noqa: SIM117
        with open_scene(across(tmp_path), grid="EPSG:3857"):
            pass


@TERRAIN
def test_a_real_swath_across_180_degrees_is_the_same_as_elsewhere(flora_data, tmp_path):
    """Kerala, 2018: 210 control points; moved by whole pixels, nothing of it may change."""
    files = sorted(flora_data.glob("fixtures/gcp/**/iw-v?.tiff"), reverse=True)
    stack = []
    for file in files:
        with rasterio.open(file) as image:
            stack.append((image.read(1) / np.float32(500)) ** 2)
            points, crs = image.gcps
    pixel = 10 / 111_319.49
    turn = round(104 / pixel) * pixel
    read = []
    for name, control in (("here", points), ("there", turned(points, turn))):
        path = write_scene(tmp_path / name, stack, crs=crs, transform=None, gcps=control)
        with open_scene(path, units="linear", grid="EPSG:4326") as scene:
            read.append(scene.sample)
            west, _, east, _ = scene.grid.lon_lat_box()
    assert west < 180 < east
    assert np.isfinite(read[0]).all(axis=0).mean() > 0.5
    np.testing.assert_array_equal(np.isfinite(read[0]), np.isfinite(read[1]))
    assert np.nanquantile(np.abs(read[0] - read[1]), 0.99) < 0.01


def annotated(folder, spacing, product="S1A_EW_GRDM_1SDV_20221130T014342_X"):
    """A product whose annotation and file names are those of another mode."""
    safe = fake_safe(folder, product=product)
    mode = product[4:6].lower()
    for file in [*safe.glob("measurement/*"), *safe.glob("annotation/**/*.xml")]:
        if file.parent.name == "annotation":
            said = f"<rangePixelSpacing>{spacing:e}</rangePixelSpacing></product>"
            file.write_text(file.read_text().replace("</product>", said))
        file.rename(file.with_name(file.name.replace("-iw-", f"-{mode}-")))
    return safe


@TERRAIN
@pytest.mark.filterwarnings("ignore:.*taken in extra wide:flora.FloraWarning")
def test_a_product_of_large_pixels_keeps_them_and_says_so(tmp_path):
    path = annotated(tmp_path, 40)
    said = r'pixels of about 40 m, expected about 10 m.*pass grid="utm" to resample'
    with pytest.warns(FloraWarning, match=said) as told, open_scene(path) as scene:
        assert (scene.transform.a, scene.transform.e) == (40, -40)
        coarse = scene.read(0, scene.shape[0])[1].sum()
    assert any("taken in extra wide swath" in str(warning.message) for warning in told)
    with (
        pytest.warns(FloraWarning, match="extra wide") as told,
        open_scene(path, grid="utm") as scene,
    ):
        assert scene.transform.a == 10 and scene.crs == UTM
        assert scene.read(0, scene.shape[0])[1].sum() == pytest.approx(16 * coarse, rel=0.03)
    assert not any("pixels of about" in str(warning.message) for warning in told)


@TERRAIN
def test_stripmap_is_said(tmp_path):
    path = annotated(tmp_path, 10, "S1C_S4_GRDH_1SDV_20250118T171404_X")
    said = "taken in stripmap, beam 4, models are trained on"
    with pytest.warns(FloraWarning, match=said), open_scene(path) as scene:
        assert scene.transform.a == 10


@TERRAIN
@pytest.mark.filterwarnings("error:.*taken in:flora.FloraWarning")
def test_names_of_the_archive_on_aws_are_known(tmp_path):
    safe = fake_safe(tmp_path)
    with open_scene(safe) as scene:
        expected = scene.sample
    for file in [*safe.glob("measurement/*"), *safe.glob("annotation/**/*.xml")]:
        kind, _, _ = file.name.partition("s1a-")
        band = "vv" if "-vv-" in file.name else "vh"
        file.rename(file.with_name(f"{kind}iw-{band}{file.suffix}"))
    with open_scene(safe) as scene:
        np.testing.assert_array_equal(scene.sample, expected)


@pytest.mark.parametrize("name", ["S1A_EW_GRDM*", "S1C_S4_GRDH*"])
def test_real_products_in_other_polarisations_are_refused_by_name(flora_data, name):
    (path,) = flora_data.glob(f"fixtures/safe/{name}")
    with pytest.raises(FloraError, match="measurement/ holds HH, HV, expected VV and VH"):  # noqa: SIM117
        with open_scene(path):
            pass


@pytest.mark.parametrize(("name", "spacing"), [("S1A_EW_GRDM*", 40), ("S1C_S4_GRDH*", 10)])
def test_the_spacing_of_real_products(flora_data, name, spacing):
    (path,) = flora_data.glob(f"fixtures/safe/{name}")
    for annotation in path.glob("annotation/*.xml"):
        assert pixel_spacing(annotation.read_bytes()) == spacing
