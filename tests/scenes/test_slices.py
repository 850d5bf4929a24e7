"""Slices of one pass, mapped as one scene."""

import numpy as np
import pytest
from typer.testing import CliRunner

from flora.cli.main import app
from flora.errors import FloraError
from flora.scenes.inputs import open_scene
from flora.scenes.safe.product import Pass, pass_of
from tests.support.fake_scenes import PRODUCT, fake_safe

pytestmark = pytest.mark.filterwarnings("ignore:.*without terrain correction:flora.FloraWarning")
SECOND = PRODUCT.replace("T060141", "T060206").replace("_2B2F", "_77AA")


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pass")
    return [fake_safe(folder, 100), fake_safe(folder, 90, product=SECOND, start=100)]


@pytest.mark.parametrize("order", [1, -1])
def test_slices_of_one_pass_are_one_scene_without_a_seam(slices, tmp_path, order):
    with open_scene(fake_safe(tmp_path), remove_noise=False) as scene:
        grid, (expected, whole) = scene.grid, scene.read(0, scene.shape[0])
    with open_scene(slices[::order], remove_noise=False) as scene:
        assert scene.grid == grid and scene.stem == slices[::order][0].stem
        values, valid = scene.read(0, scene.shape[0])
        assert np.isfinite(scene.sample).all(axis=0).sum() == pytest.approx(valid.sum(), rel=0.01)
    assert (valid ^ whole).sum() < 0.001 * whole.sum()
    error = np.abs(values - expected)[:, valid & whole]
    # Control points of their own put them elsewhere by a part of a pixel, and power is rounded.
    assert np.quantile(error, 0.99) < 0.1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("absoluteOrbitNumber", "29046", "S1A's IW orbit 29046, data take 216033, but S1A_IW"),
        ("missionId", "S1B", "S1B's IW orbit 29045"),
        ("missionDataTakeId", "", "a pass that its annotation does not name"),
    ],
)
def test_products_of_different_passes_are_refused(slices, tmp_path, name, value, said):
    other = fake_safe(tmp_path, 90, product=SECOND, start=100)
    for file in other.glob("annotation/*.xml"):
        head, rest = file.read_text().split(f"<{name}>")
        file.write_text(f"{head}<{name}>{value}<{rest.split('<', 1)[1]}")
    with pytest.raises(FloraError, match=f"{said}.*expected slices of one pass"):  # noqa: SIM117
        with open_scene([slices[0], other]):
            pass


def test_a_product_and_a_file_are_no_scene(slices, tmp_path):
    (tmp_path / "S1.tif").write_text("")
    with pytest.raises(FloraError), open_scene([slices[0], tmp_path / "S1.tif"]):
        pass


def mapped(*arguments):
    return CliRunner().invoke(app, ["map", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.filterwarnings("ignore:.*Otsu's threshold:flora.FloraWarning")
def test_the_command_line_maps_slices_as_one(slices, tmp_path):
    result = mapped(*slices, "--as-one", "--out", tmp_path, "--method", "otsu")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.glob("*.tif")} == {
        f"{PRODUCT}_water_mask.tif",
        f"{PRODUCT}_water_probability.tif",
    }
    alone = mapped(slices[0], "--as-one", "--out", tmp_path)
    assert alone.exit_code == 1 and "--as-one: goes with several products" in alone.stderr


def test_the_pass_of_a_real_product(flora_data):
    (path,) = flora_data.glob("fixtures/safe/S1C_S4*")
    said = {pass_of(file.read_bytes()) for file in path.glob("annotation/*.xml")}
    assert said == {Pass("S1C", "S4", "638", "1336")}
