"""Which product is meant, and what a damaged one is told."""

import shutil
import zipfile

import numpy as np
import pytest

from flora.errors import FloraError, FloraWarning
from flora.scenes.inputs import open_scene
from flora.scenes.safe.folders import product_of
from tests.support.fake_scenes import PRODUCT, fake_safe

pytestmark = pytest.mark.filterwarnings("ignore:.*without terrain correction:flora.FloraWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds one product, as an archive program leaves it."""
    return fake_safe(tmp_path_factory.mktemp("unpacked")).parent


@pytest.mark.parametrize(
    "inside", ["manifest.safe", "measurement", "annotation", "annotation/calibration", ".", ".."]
)
def test_a_product_is_found_by_what_is_in_it_and_around_it(folder, inside):
    named = (folder / f"{PRODUCT}.SAFE" / inside).resolve()
    with open_scene(named) as scene:
        assert scene.stem == PRODUCT
        assert scene.paths == (folder.resolve() / f"{PRODUCT}.SAFE",)


def test_what_is_no_product_stays_what_it_is(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "S1.tif", tmp_path / "S1.zip"):
        assert product_of(path) == path


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("x/measurement", "product without its manifest.safe: there is measurement/ in x, but"),
        ("measurement", "product without its manifest.safe: there is measurement/ in it, but"),
        ("x", "it holds no GeoTIFF): expected NAME.SAFE"),
        ("a.tif", "it holds a.tif): expected NAME.SAFE or its .zip, a GeoTIFF, or two; name the f"),
        ("a.tif b.tif c.tiff", "it holds a.tif, b.tif, ...)"),
    ],
)
def test_a_folder_that_is_no_product_is_told_what_is_missing(tmp_path, made, says):
    for name in made.split():
        (tmp_path / name).mkdir(parents=True)
    said = refusal(tmp_path)
    assert says in said and f"name {tmp_path}" not in said


def test_one_of_several_products_has_to_be_named(folder, tmp_path):
    for name in "ab":
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        (tmp_path / f"{PRODUCT}.SAFE").rename(tmp_path / f"{name}.SAFE")
    with pytest.raises(FloraError, match=r"a folder of 2 products, a\.SAFE, b\.SAFE; expected one"):
        product_of(tmp_path)


def test_an_image_of_a_product_is_refused_with_the_folder_to_name(folder):
    image = next(folder.rglob("measurement/*-vv-*"))
    with pytest.raises(FloraError, match=rf"in digital numbers; .*name its folder, .*{PRODUCT}"):
        product_of(image)


def packed(folder, tmp_path, method=zipfile.ZIP_STORED):
    path = tmp_path / f"{PRODUCT}.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def refusal(path):
    with pytest.raises(FloraError) as caught, open_scene(path):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("what", ["-vv-", "-vh-", "calibration-s1a", "manifest"])
def test_a_flipped_bit_in_a_zip_is_found(folder, tmp_path, method, what):
    path = packed(folder, tmp_path, method)
    with open_scene(path) as scene:
        assert np.isfinite(scene.sample).any()
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if what in entry.filename)
    content = bytearray(path.read_bytes())
    content[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0x10
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_an_encrypted_zip_is_refused(folder, tmp_path):
    path = packed(folder, tmp_path)
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + flags] |= 1
            place = content.find(mark, place + 4)
    path.write_bytes(content)
    assert "encrypted" in refusal(path) and "unpack it yourself" in refusal(path)


def test_an_annotation_that_unpacks_to_too_much_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("flora.scenes.safe.folders.LONGEST", 1 << 10)
    assert "which no annotation has" in refusal(packed(folder, tmp_path, zipfile.ZIP_DEFLATED))


def test_a_zip_that_is_not_there_is_no_damaged_one(tmp_path):
    assert "S1.zip: no such file; check the path" in refusal(tmp_path / "S1.zip")


def test_a_zip_of_zips_is_refused(folder, tmp_path):
    inner = packed(folder, tmp_path)
    outer = tmp_path / "outer.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, inner.name)
    assert "no manifest.safe in it" in refusal(outer)


def test_bands_of_different_size_are_refused(folder, tmp_path):
    safe = fake_safe(tmp_path / "small", height=100)
    whole = fake_safe(tmp_path / "whole")
    image = next(whole.glob("measurement/*-vh-*"))
    shutil.copy(next(safe.glob("measurement/*-vh-*")), image)
    assert "VH is of 260 x 100 px, VV of 260 x 190: expected one size" in refusal(whole)


def test_the_warning_of_lost_noise_names_the_product(folder, tmp_path):
    safe = fake_safe(tmp_path)
    next(safe.glob("annotation/calibration/noise-*-vh-*")).unlink()
    with pytest.warns(FloraWarning, match="thermal noise stays in VH"), open_scene(safe):
        pass
