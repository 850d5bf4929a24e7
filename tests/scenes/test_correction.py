from __future__ import annotations

import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from pyproj import Transformer, datadir
from rasterio.transform import Affine

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import apply
from flora.scenes.inputs import SarScene, open_scene
from flora.scenes.safe.correction import TERRAIN_TAG, Correction, geoid_model
from flora.scenes.safe.range_doppler import EARTH_FIXED, ELLIPSOIDAL, range_doppler_of
from tests.scenes.test_viewing import annotation
from tests.support.fake_orbit import CENTRE, GEOID, TARGET, elevation, fake_hill
from tests.support.fake_scenes import UTM, fake_safe, map_truth, write_scene


@pytest.fixture(scope="module")
def hill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_hill(tmp_path_factory.mktemp("hill"))


@pytest.fixture(scope="module")
def dem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corner = Affine(30, 0, CENTRE[0] - 4500, 0, -30, CENTRE[1] + 4500)
    row, column = np.mgrid[:300, :300] + 0.5
    heights = elevation(corner.c + 30 * column, corner.f - 30 * row).astype(np.float32)
    path = tmp_path_factory.mktemp("dem") / "dem.tif"
    return write_scene(path, heights[None], crs=UTM, transform=corner)


def off(scene: SarScene) -> float:
    """How far from its place the reflector is on the map, in pixels."""
    values, _ = scene.read(0, scene.shape[0])
    row, column = np.unravel_index(values[0].argmax(), values[0].shape)
    x, y = apply(scene.transform, column + 0.5, row + 0.5)
    return float(np.hypot(x - TARGET[0], y - TARGET[1]) / 10)


def difference(scene: SarScene) -> float:
    """Mean difference of VH to what is on the ground, in dB, where no reflector is."""
    values, valid = scene.read(0, scene.shape[0])
    wanted = map_truth(scene.transform, scene.shape)
    wrong = np.abs(values[1] - wanted[1])
    return float(wrong[valid & (values[0] < 0)].mean())


def test_hill_is_put_at_its_place(hill, dem):
    with pytest.warns(FloraWarning, match="without terrain"), open_scene(hill) as scene:
        displaced, blurred = off(scene), difference(scene)
    with open_scene(hill, correction=Correction((dem,), GEOID)) as scene:
        placed, sharp = off(scene), difference(scene)
    # 648 m above the ellipsoid, seen at 38 degrees: 648 / tan(38) = 829 m towards the radar.
    assert displaced == pytest.approx(83, abs=4)
    assert placed < 1
    assert sharp < 0.1 < 5 * sharp < blurred


def test_part_and_other_grid_are_those_of_the_whole(hill, dem):
    by = Correction((dem,), GEOID)
    with open_scene(hill, correction=by) as scene:
        whole, _ = scene.read(0, scene.shape[0])
        identity = scene.identity()
        assert scene.tags[TERRAIN_TAG] == "dem.tif; geoid at 48 m"
    with open_scene(hill, correction=by, window=(120, 90, 100, 80)) as part:
        values, _ = part.read(13, 40)
    np.testing.assert_allclose(values, whole[:, 103:143, 120:220], atol=1e-2)
    with open_scene(hill, correction=Correction((dem,), 20.0)) as other:
        assert other.identity() != identity
    with open_scene(hill, correction=by, grid="EPSG:4326") as degrees:
        values, valid = degrees.read(0, degrees.shape[0])
        wanted = map_truth(degrees.transform, degrees.shape, degrees.crs)
        wrong = np.abs(values[1] - wanted[1])[valid & (values[0] < 0)]
    assert wrong.mean() < 0.1


def test_geoid_that_is_not_known_is_said(hill, dem, monkeypatch):
    monkeypatch.setattr("flora.scenes.safe.correction.geoid_model", lambda: None)
    said = pytest.warns(FloraWarning, match="the geoid is not known")
    with said, open_scene(hill, correction=Correction((dem,))) as scene:
        assert 5 < off(scene) < 8  # 48 / tan(38) = 61 m


@pytest.fixture
def grid_of_egm2008(tmp_path, monkeypatch):
    """Where PROJ finds a geoid, as its grid us_nga_egm08_25.tif would tell it: 50 m high in the
    north, one metre less a degree; as PROJ's geodetic TIFF grids are laid out."""
    height = np.repeat(50 + np.arange(90, -91, -1.0)[:, None] - 40, 360, axis=1)
    path = tmp_path / "us_nga_egm08_25.tif"
    corner = Affine(1, 0, -180.5, 0, -1, 90.5)  # values at whole degrees
    write_scene(
        path,
        height[None].astype(np.float32),
        names=["geoid_undulation"],
        crs="EPSG:4326",
        transform=corner,
    )
    with rasterio.open(path, "r+") as file:
        file.update_tags(TYPE="VERTICAL_OFFSET_GEOGRAPHIC_TO_VERTICAL", AREA_OR_POINT="Point")
    folders = datadir.get_data_dir()
    datadir.append_data_dir(str(tmp_path))
    geoid_model.cache_clear()
    yield lambda latitude: 50 + latitude - 40
    datadir.set_data_dir(folders)
    geoid_model.cache_clear()


def test_geoid_is_taken_from_the_grid_of_proj(hill, dem, grid_of_egm2008):
    model = geoid_model()
    assert model is not None
    ellipsoidal = Transformer.from_crs(ELLIPSOIDAL, EARTH_FIXED, always_xy=True)
    wanted = ellipsoidal.transform(-1.25, 39.5, 100 + grid_of_egm2008(39.5))
    np.testing.assert_allclose(model.transform(-1.25, 39.5, 100), wanted, atol=0.01)
    by = Correction((dem,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is known, and nothing is to be said
        with open_scene(hill, correction=by) as scene:
            assert scene.tags[TERRAIN_TAG] == "dem.tif; geoid EGM2008"
            assert off(scene) < 1  # 49.7 m at the hill, which stands 48 m above the ellipsoid


def test_what_cannot_be_corrected_is_refused(hill, dem, tmp_path):
    elsewhere = Affine(30, 0, 200_000, 0, -30, 4_000_000)
    other = write_scene(tmp_path / "dem.tif", np.zeros((1, 9, 9), np.float32), transform=elsewhere)
    with (
        pytest.raises(FloraError, match="no elevation within the scene"),
        open_scene(hill, correction=Correction((other,), 0.0)),
    ):
        pass
    with (
        pytest.raises(FloraError, match="does not tell orbit and ranges"),
        open_scene(fake_safe(tmp_path), correction=Correction((dem,), 0.0)),
    ):
        pass
    with pytest.raises(FloraError, match="expected -120 to 120 m"):
        Correction((dem,), 500.0)


@pytest.mark.parametrize(
    "start", ["S1A_IW_GRDH_1SDV_2015", "S1A_IW_GRDH_1SDV_2021", "S1A_EW", "S1C"]
)
def test_real_annotations_locate_their_own_points(start, flora_data):
    """Lines and pixels of the geolocation grid, from its places and heights alone."""
    text = annotation(flora_data, start)
    names = ("longitude", "latitude", "height", "line", "pixel")
    points = ElementTree.fromstring(text).iterfind(".//geolocationGridPoint")
    table = np.array([[float(point.findtext(name)) for name in names] for point in points]).T
    to_earth = Transformer.from_crs(ELLIPSOIDAL, EARTH_FIXED, always_xy=True)
    place = np.stack(to_earth.transform(*table[:3]), axis=-1)
    line, pixel = range_doppler_of(text, Given("sar_path", "a product")).image_of(place)
    assert np.abs(line - table[3]).max() < 0.3
    assert np.abs(pixel - table[4]).max() < 2  # polynomials of ground range change each second
    assert (pixel - table[4]).std() < 0.4
