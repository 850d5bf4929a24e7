"""Datasets as they lie on disks: lists, names and files that are damaged; each case a line."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from typer.testing import CliRunner

from flora.cli.main import app
from flora.datasets import open_dataset
from flora.datasets.check import check_dataset
from flora.errors import FloraError
from flora.experiments.records import load_record
from tests.support.fake_data import (
    fake_deepflood,
    fake_folder,
    fake_ombria,
    fake_sen1floods11,
    fake_sen12ms,
    fake_weak,
    rewrite,
    write_raster,
)

LIST = "v1.1/splits/flood_handlabeled/flood_train_data.csv"
PAIR = "Ghana_103272_S1Hand.tif,Ghana_103272_LabelHand.tif"
THREE = ["Ghana_103272", "Sri-Lanka_12348", "USA_9"]


def train_list(root: Path) -> tuple[Path, str]:
    path = fake_sen1floods11(root) / LIST
    return path, path.read_text()


@pytest.mark.parametrize(
    "stored",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: (text + "\n\n  \n").encode(),
        lambda text: text.replace(PAIR, '"' + PAIR.replace(",", '","') + '"').encode(),
        lambda text: text.replace(",", " , ").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: text.replace(",", ',"', 1).encode(),  # an open quote ends with its line
    ],
)
def test_lists_that_are_read_whole(tmp_path, stored):
    path, text = train_list(tmp_path)
    path.write_bytes(stored(text))
    assert sorted(open_dataset("sen1floods11", tmp_path, "train").manifest()) == sorted(THREE)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (lambda text: ('"' + text).encode(), "is not a pair"),  # swallowed all lines after it
        (lambda text: text.replace("Ghana", "Gh\u00e4na").encode("latin-1"), "UTF-8"),
        (lambda text: text.replace("Ghana", "Gh\u00e4na").encode(), "is not a pair"),
        (lambda text: text.encode("utf-16-le"), "is not a pair"),
        (lambda text: b"\xff\xfe" + text.encode()[:-1], "UTF-8|is not a pair"),
        (lambda text: b"", "is empty"),
        (lambda text: b"\n \n", "is empty"),
        (lambda text: b"\x00" * 900, "is not a pair"),
        (lambda text: bytes(range(256)), "UTF-8"),
        (lambda text: (PAIR + "\n" + PAIR).encode(), "lists a chip twice"),
        (lambda text: text.replace("USA_9_S1", "USA_8_S1").encode(), "is not a pair"),
        (lambda text: (text + "../../x_1_S1Hand.tif,../../x_1_LabelHand.tif").encode(), "a pair"),
        (lambda text: ("file,label\n" + text).encode(), "is not a pair"),
        (lambda text: text.replace(".tif", ".png").encode(), "is not a pair"),
    ],
)
def test_lists_that_are_refused(tmp_path, stored, message):
    path, text = train_list(tmp_path)
    path.write_bytes(stored(text))
    with pytest.raises(FloraError, match=message):
        open_dataset("sen1floods11", tmp_path, "train")


PATCH = "ROIs1970_fall_s2_139_p839.tif"


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (PATCH.encode("utf-16"), ""),
        (PATCH.encode("utf-8-sig"), ""),
        ("ROIs1970_fäll".encode("latin-1"), "UTF-8"),
        (b"", "is empty"),
        (b'"' + PATCH.encode(), "is no file name like"),
    ],
)
def test_a_test_list_of_sen12ms(tmp_path, stored, message):
    root = fake_sen12ms(tmp_path)
    path = tmp_path / "list.txt"
    path.write_bytes(stored)
    if not message:
        listed = open_dataset("sen12ms", root, "test", test_list=path, land_cover=None)
        assert listed.manifest() == ["ROIs1970_fall_139_p839"]
        return
    with pytest.raises(FloraError, match=message):
        open_dataset("sen12ms", root, "valid", test_list=path)


FAKES = {
    "sen1floods11": (fake_sen1floods11, "train"),
    "sen1floods11-weak": (fake_weak, "train"),
    "deepflood": (fake_deepflood, "train"),
    "sen12ms": (fake_sen12ms, "valid"),
    "ombria": (fake_ombria, "train"),
    "folder": (fake_sen1floods11, "all"),
}


@pytest.mark.parametrize("name", FAKES)
@pytest.mark.parametrize("prefix", ["._", "."])
def test_hidden_files_of_macos_are_no_chips(tmp_path, name, prefix):
    make, split = FAKES[name]
    root = make(tmp_path)
    before = open_dataset(name, root, split).manifest()
    for path in [*root.rglob("*.tif"), *root.rglob("*.png")]:
        path.with_name(f"{prefix}{path.name}").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    assert open_dataset(name, root, split).manifest() == before


def bomb(path: Path, side: int) -> None:
    """A PNG of a few bytes that claims to be side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    data = zlib.compress(b"\x00" * 1000)
    end = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: bomb(path, 10_000), "larger than 89,478,485 pixels"),
        (lambda path: bomb(path, 60_000), "larger than 89,478,485 pixels"),
        (lambda path: bomb(path, 48), "truncated"),
        (lambda path: path.write_bytes(b""), "as a picture"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "as a picture|truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "truncated"),
        (lambda path: Image.new("I;16", (48, 48)).save(path), "expected 8-bit"),
        (lambda path: Image.new("RGB", (48, 48), (1, 2, 3)).save(path), "colour picture"),
        (lambda path: Image.new("L", (20, 20)).save(path), "must have one size"),
    ],
)
def test_pictures_that_are_refused(tmp_path, spoil, message):
    root = fake_ombria(tmp_path)
    for path in sorted((root / "OmbriaS1/train/AFTER").glob("*.png")):
        spoil(path)
    with pytest.raises(FloraError, match=message):
        open_dataset("ombria", root, "train")[0]


def test_a_raster_that_claims_more_than_memory_holds_is_refused(tmp_path):
    """A sparse file of some kilobytes that would be two terabytes."""
    root = fake_sen1floods11(tmp_path)
    (path,) = root.rglob("S1Hand/Ghana_103272_S1Hand.tif")
    side = 500_000
    profile = {"driver": "GTiff", "count": 2, "height": side, "width": side, "dtype": "float32"}
    profile |= {"crs": "EPSG:4326", "transform": rasterio.Affine(1e-4, 0, 0, 0, -1e-4, 0)}
    profile |= {"sparse_ok": True, "tiled": True, "blockxsize": 4096, "blockysize": 4096}
    path.unlink()
    with rasterio.open(path, "w", bigtiff="yes", **profile):
        pass
    assert path.stat().st_size < 1e6
    with pytest.raises(FloraError, match="2,000 GB when it is read: expected a chip"):
        open_dataset("sen1floods11", root, "train")[0]


def test_leaving_a_chip_out_is_told_and_works(tmp_path):
    root = fake_sen1floods11(tmp_path)
    (path,) = root.rglob("S1Hand/Ghana_103272_S1Hand.tif")
    with rasterio.open(path, "r+") as file:
        file.write(file.read() * float("nan"))
    with pytest.raises(FloraError, match="--option exclude=Ghana_103272") as refused:
        open_dataset("sen1floods11", root, "train")[0]
    assert 'exclude="Ghana_103272"' in str(refused.value)
    rest = open_dataset("sen1floods11", root, "train", exclude="Ghana_103272")
    assert rest.manifest() == THREE[1:]


@pytest.mark.parametrize("stored", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"a": 1', b"\x00" * 64])
def test_a_damaged_record_is_refused(tmp_path, stored):
    (tmp_path / "speed.json").write_bytes(stored)
    with pytest.raises(FloraError, match=r"record .*speed\.json"):
        load_record("speed", tmp_path)


def exchange(first: str, second: str):
    """Exchange the files of two folders."""

    def change(root: Path) -> None:
        for path in list(root.rglob(f"{first}/*")):
            other = path.parent.with_name(second) / path.name.replace(first.lower(), second.lower())
            stored = path.read_bytes()
            path.write_bytes(other.read_bytes())
            other.write_bytes(stored)

    return change


def rewritten(pattern: str, change):
    def all_of(root: Path) -> None:
        for path in list(root.rglob(pattern)):
            rewrite(path, change)

    return all_of


def one_of(pattern: str, change):
    return lambda root: rewrite(next(iter(sorted(root.rglob(pattern)))), change)


def emptied(root: Path) -> None:
    for path in list((root / "train").rglob("*.tif")):
        path.unlink()


FLOODS, S1, S2 = "sen1floods11", "*_S1Hand.tif", "*_S2Hand.tif"


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (FLOODS, rewritten(S1, lambda v: v[::-1]), "VV is darker than VH in 8 of 8"),
        (FLOODS, one_of(S1, lambda v: v[::-1]), "VV is darker than VH in 1 of 8"),
        (FLOODS, rewritten(S1, lambda v: v / 100), "8 of 8 radar .*VH around -0.* -50 to -3"),
        (FLOODS, one_of(S1, lambda v: v + 30), "1 of 8 radar .*first is "),
        ("folder", rewritten("*_vv.tif", lambda v: -v), "1 of 3 radar .*VV around .* to 5"),
        (FLOODS, rewritten(S2, lambda v: v.astype("f4") / 1e4), "8 of 8 .*nearly black"),
        (FLOODS, rewritten(S2, lambda v: v // 100), "8 of 8 .*nearly black"),
        (FLOODS, one_of(S2, lambda v: v // 20), "1 of 8 .*nearly black"),
        (FLOODS, lambda root: (root / LIST).write_text(""), "list .* is empty"),
        ("ombria", exchange("BEFORE", "AFTER"), "the optical images from before are wetter"),
        ("folder", rewritten("*_sar.tif", lambda v: v[::-1]), "VV is darker than VH"),
        ("folder", rewritten("*_optical.tif", lambda v: v / 1e4), "nearly black"),
        ("folder", rewritten("*_before.tif", lambda v: v // 100), "nearly black"),
        ("folder", emptied, "no chip in"),
    ],
)
def test_check_finds(tmp_path, name, spoil, message):
    make = {"folder": fake_folder}.get(name) or FAKES[name][0]
    root = make(tmp_path)
    assert check_dataset(name, root).problems == []
    spoil(root)
    problems = check_dataset(name, root).problems
    assert re.search(message, " | ".join(problems)), problems


def test_check_finds_exchanged_radar_dates(tmp_path):
    root = fake_ombria(tmp_path)
    exchange("BEFORE", "AFTER")(root / "OmbriaS1")
    problems = check_dataset("ombria", root).problems
    assert any("the radar images from before are wetter" in line for line in problems), problems
    assert not any("the optical images" in line for line in problems)


def test_a_split_without_a_label_trains_nothing_and_is_told(tmp_path):
    root = fake_sen1floods11(tmp_path / "chips")
    rewritten("*_LabelHand.tif", lambda v: v * 0 - 1)(root)
    notes = check_dataset("sen1floods11", root).notes
    assert "split 'train' holds no label: it can train only what needs none" in notes
    out = tmp_path / "run"
    arguments = ["train", "--dataset", "sen1floods11", "--root", str(root), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--steps", "1", "--crop", "32"])
    assert result.exit_code == 1 and not out.exists()
    assert "none of the 3 chips to train on has a label" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ((2, 1, 0, 3), ("blue", "green", "red", "nir")),
        ((3, 2, 1, 0), ("B8", "S2_B2", "B03, central wavelength 560 nm", "B4")),
        ((0, 1, 2, 3), ()),
    ],
)
def test_bands_of_chips_are_found_by_their_names(tmp_path, order, names):
    stored = np.array([1300, 1100, 900, 3100], np.uint16)[list(order)]
    values = stored[:, None, None] * np.ones((32, 32), np.uint16)
    write_raster(tmp_path / "a_1_sar.tif", np.full((2, 32, 32), -12, np.float32))
    path = write_raster(tmp_path / "a_1_optical.tif", values)
    with rasterio.open(path, "r+") as file:
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    chip = open_dataset("folder", tmp_path, "all")[0]
    np.testing.assert_allclose(chip["optical"][:, 0, 0] * 3000, [1300, 1100, 900], rtol=1e-5)
    assert chip["index"][0, 0, 0].item() == pytest.approx(1800 / 4400)


LONG = "a" * 300
BYTES = os.fsdecode(b"a\xff")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["map", f"{LONG}.tif", "--out", "o"], "longer than the disk allows"),
        (["map", f"{BYTES}.tif", "--out", "o"], "not UTF-8"),
        (["check", "folder", LONG], "longer than the disk allows"),
        (["check", "folder", "."], "not UTF-8|utf-8"),
    ],
)
def test_names_that_no_disk_or_gdal_takes_are_refused(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    path = write_raster(tmp_path / "a.tif", np.full((2, 32, 32), -12, np.float32))
    os.link(path, tmp_path / f"{BYTES}.tif")
    path.rename(tmp_path / f"{BYTES}_sar.tif")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert re.search(says, " ".join(result.output.split())), result.output
    assert not (tmp_path / "o").exists()
