from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from threading import Event

import numpy as np
import pytest

from flora.datasets.fetch.archives import Member, Unpacking, unpack, unpacked_before
from flora.datasets.fetch.transfer import Checksum
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
    good = {one: Member(1, checksums[str(one)]), two: Member(2, checksums[str(two)])}

    def attempt(members: dict[PurePosixPath, Member], layout: str = "") -> None:
        how = Unpacking(estimate=0, strip=1, members=members, layout=layout)
        unpack(archive, tmp_path / "root", how, Event())

    with pytest.raises(FloraError, match="not those of the publisher's listing"):
        attempt(good | {two: Member(2, checksums[str(one)])})
    with pytest.raises(FloraError, match="lacks three, one of 1 files"):
        attempt(good | {PurePosixPath("three"): Member(3)})
    with pytest.raises(FloraError, match=r"but no \*\.tif: its publisher has changed the layout"):
        attempt(good, "*.tif")
    assert files(tmp_path) == {"archive"}
    attempt({two: good[two]}, "*.txt")  # what is not wanted stays in the archive
    assert files(tmp_path / "root") == {str(two), ".unpacked/archive.txt"}
