from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from threading import Event

import numpy as np
import pytest

from flora.datasets.fetch.archives import unpack, unpacked_before
from flora.datasets.fetch.remote import Checksum, Known, Unpacking
from flora.errors import FloraError
from tests.support.servers import below, make_tar, make_zip, md5

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8))


def files(folder: Path) -> set[str]:
    return set(below(folder))


ALL = Unpacking(estimate=0)
GOOD = {"folder/one.txt": b"1", "folder/deep/two.txt": b"22"}


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_archive_is_unpacked_and_recorded(tmp_path: Path, suffix: str) -> None:
    make = make_zip if suffix == "zip" else make_tar
    archive, root = make(tmp_path / f"a.{suffix}", {"./": b"", **GOOD}), tmp_path / "root"
    root.mkdir()
    assert not unpacked_before(archive.name, root, ALL)
    unpack(archive, root, ALL, Event())
    record = {f".unpacked/a.{suffix}.txt"}
    assert files(root) == set(GOOD) | record
    assert {name: (root / name).read_bytes() for name in GOOD} == GOOD
    assert unpacked_before(archive.name, root, ALL)
    (root / "folder/one.txt").write_bytes(b"longer")
    assert not unpacked_before(archive.name, root, ALL)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: make_zip(path, {"a/one": b"1", "../evil": b"x"}),
        lambda path: make_zip(path, {"a/one": b"1", "a/../../evil": b"x"}),
        lambda path: make_zip(path, {"a/one": b"1", "/tmp/evil": b"x"}),
        lambda path: make_zip(path, {"a/one": b"1"}, link="a/link"),
        lambda path: make_tar(path, {"a/one": b"1", "../evil": b"x"}),
        lambda path: make_tar(path, {"a/one": b"1", "/tmp/evil": b"x"}),
        lambda path: make_tar(path, {"a/one": b"1"}, link("a/link", tarfile.SYMTYPE, "..")),
        lambda path: make_tar(path, {"a/one": b"1"}, link("a/link", tarfile.LNKTYPE, "a/one")),
        lambda path: make_tar(path, {"a/one": b"1"}, link("a/pipe", tarfile.FIFOTYPE, "")),
    ],
)
def test_archive_that_would_leave_its_folder_is_refused(make, tmp_path) -> None:
    root = tmp_path / "here" / "root"
    root.mkdir(parents=True)
    archive = make(tmp_path / "archive")
    with pytest.raises(FloraError, match=r"would leave|a link or a device"):
        unpack(archive, root, ALL, Event())
    assert files(tmp_path) == {"archive"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "name",
    ["a/new\nline", "a/\ttab", "a/" + "x" * 300, "a/" + "\N{SNOWMAN}" * 90, "caf\udce9"],
    ids=ascii,
)
def test_name_that_not_every_disk_holds_is_refused(make, name, tmp_path) -> None:
    if make is make_zip:  # its names are code page 437 or UTF-8: they can always be read
        name = name.replace("\udce9", "\u0085")
    archive = make(tmp_path / "archive", {"a/one": b"1", name: b"2"})
    with pytest.raises(FloraError, match=r"which not every disk can hold") as raised:
        unpack(archive, tmp_path / "root", ALL, Event())
    assert str(raised.value).isascii() and "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
    assert files(tmp_path) == {"archive"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_flipped_bit_is_noticed(make, tmp_path: Path) -> None:
    """Wherever it is in the compressed content; a gzip's checksum is its last eight bytes."""
    archive = make(tmp_path / "archive", {"one": CONTENT[:2000], "two": CONTENT[2000:4000]})
    good, root = archive.read_bytes(), tmp_path / "root"
    for place in range(40, 2000, 97):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        archive.write_bytes(damaged)
        with pytest.raises(FloraError, match=r"cannot be unpacked.*delete the archive"):
            unpack(archive, root, ALL, Event())
        assert files(tmp_path) == {"archive"}
    archive.write_bytes(good)
    unpack(archive, root, ALL, Event())
    assert (root / "two").read_bytes() == CONTENT[2000:4000]


def test_remains_of_a_killed_run_are_gone(tmp_path: Path) -> None:
    left = tmp_path / "root" / ".unpacking-archive" / "deep"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    unpack(make_zip(tmp_path / "archive", GOOD), tmp_path / "root", ALL, Event())
    assert files(tmp_path / "root") == set(GOOD) | {".unpacked/archive.txt"}


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_damaged_archive_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    make = make_zip if suffix == "zip" else make_tar
    archive = make(tmp_path / "archive", {"one": CONTENT, "two": CONTENT})
    content = bytearray(archive.read_bytes())
    # A zip's table of contents is at its end: damage the second file instead of cutting it.
    if suffix == "zip":
        content[len(content) * 3 // 4] ^= 255
    archive.write_bytes(content if suffix == "zip" else content[: len(content) * 3 // 4])
    with pytest.raises(FloraError, match=r"cannot be unpacked.*delete the archive"):
        unpack(archive, tmp_path / "root", ALL, Event())
    assert files(tmp_path) == {"archive"}


def test_members_are_held_against_the_listing(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", {f"top/{name}": GOOD[name] for name in GOOD})
    checksums = {name: Checksum("md5", md5(GOOD[name])) for name in GOOD}
    one, two = (PurePosixPath(name) for name in GOOD)
    good = (Known(one, 1, checksums[str(one)]), Known(two, 2, checksums[str(two)]))

    def attempt(members: tuple[Known, ...], layout: str = "") -> None:
        how = Unpacking(estimate=0, strip=1, members=members, layout=layout)
        unpack(archive, tmp_path / "root", how, Event())

    with pytest.raises(FloraError, match=r"two\.txt is not that of the publisher's listing"):
        attempt((good[0], Known(two, 2, checksums[str(one)])))
    with pytest.raises(FloraError, match="three is missing"):
        attempt((*good, Known(PurePosixPath("three"), 3)))
    with pytest.raises(FloraError, match=r"but no \*\.tif: its publisher has changed the layout"):
        attempt(good, "*.tif")
    assert files(tmp_path) == {"archive"}
    attempt(good[1:], "*.txt")  # what is not wanted stays in the archive
    assert files(tmp_path / "root") == {str(two), ".unpacked/archive.txt"}
