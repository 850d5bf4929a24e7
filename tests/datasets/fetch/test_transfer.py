from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from flora.datasets.fetch import transfer
from flora.datasets.fetch.remote import BadFile, Checksum, Remote, relative_path
from flora.datasets.fetch.transfer import Transfer, Unreachable
from flora.errors import FloraError
from tests.support.servers import (
    Fault,
    Site,
    below,
    http_server,
    impatient_transfer,
    md5,
    without_proxy,
)

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    without_proxy(monkeypatch)
    with http_server() as served:
        served.files["/file"] = CONTENT
        yield served


@pytest.fixture
def impatient() -> Transfer:
    return impatient_transfer()


def remote(site: Site, size: int | None = len(CONTENT), digest: str = md5(CONTENT)) -> Remote:
    return Remote(PurePosixPath("file"), size, Checksum("md5", digest), url=f"{site.base}/file")


def fetch(fetcher: Transfer, wanted: Remote, target: Path) -> list[int]:
    """Fetch; the numbers of bytes reported on the way."""
    reported: list[int] = []
    fetcher.fetch(wanted, target, reported.append)
    return reported


def files(folder: Path) -> set[str]:
    return set(below(folder))


def test_file_is_whole_and_verified(site: Site, impatient: Transfer, tmp_path: Path) -> None:
    reported = fetch(impatient, remote(site), tmp_path / "deep" / "file")
    assert below(tmp_path) == {"deep/file": CONTENT}
    assert reported == sorted(reported) and reported[-1] == len(CONTENT)
    assert len(site.requests) == 1 and site.requests[0].range is None


def test_cut_connections_are_resumed(site: Site, impatient: Transfer, tmp_path: Path) -> None:
    site.faults["/file"] = [Fault(cut_after=30_000), Fault(cut_after=20_000)]
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}
    assert [request.range for request in site.requests] == [None, "bytes=30000-", "bytes=50000-"]


def test_part_of_an_earlier_run_is_resumed(site: Site, impatient: Transfer, tmp_path: Path) -> None:
    site.always["/file"] = Fault(cut_after=10_000)
    with pytest.raises(Unreachable, match=r"at 30000 bytes: .*70000 bytes missing; .*run again"):
        fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file.part": CONTENT[:30_000]}
    site.always.clear()
    fetch(Transfer(), remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}
    assert site.requests[-1].range == "bytes=30000-"


def test_complete_part_is_verified_without_asking(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT} and site.requests == []


@pytest.mark.parametrize("stale", [b"x" * 40_000, b"x" * len(CONTENT), b"x" * 200_000])
def test_part_of_another_version_is_replaced(
    site: Site, impatient: Transfer, tmp_path: Path, stale: bytes
) -> None:
    (tmp_path / "file.part").write_bytes(stale)
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}
    assert site.requests[-1].range is None


def test_server_without_ranges_starts_again(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    site.ranges = False
    site.faults["/file"] = [Fault(cut_after=70_000)]
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}
    assert [request.range for request in site.requests] == [None, "bytes=70000-", None]


def test_range_from_another_byte_is_not_taken(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    site.faults["/file"] = [Fault(cut_after=500), Fault(wrong_range=True)]
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}
    assert [request.range for request in site.requests] == [None, "bytes=500-", None]


def test_link_that_expires_is_asked_for_anew(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    """As figshare does it: its own address leads to one that holds for a short time."""
    for number in (1, 2):
        site.files[f"/signed-{number}"] = CONTENT
    site.faults["/file"] = [
        Fault(status=302, headers={"Location": f"/signed-{number}"}) for number in (1, 2)
    ]
    site.faults["/signed-1"] = [Fault(cut_after=30_000), Fault(status=403)]
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}
    assert [(request.path, request.range) for request in site.requests] == [
        ("/file", None),
        ("/signed-1", None),
        ("/file", "bytes=30000-"),
        ("/signed-2", "bytes=30000-"),
    ]


@pytest.mark.parametrize("place", ["file:///etc/hostname", "gopher://127.0.0.1/"])
def test_nothing_but_http_and_ftp_is_followed(
    site: Site, impatient: Transfer, tmp_path: Path, place: str
) -> None:
    site.always["/file"] = Fault(status=302, headers={"Location": place})
    with pytest.raises(FloraError, match=r"Protocol.*check the address"):
        fetch(impatient, Remote(PurePosixPath("file"), url=f"{site.base}/file"), tmp_path / "file")
    assert files(tmp_path) == set() and len(site.requests) == 1


def test_trouble_of_the_server_passes(site: Site, impatient: Transfer, tmp_path: Path) -> None:
    site.faults["/file"] = [Fault(status=500), Fault(status=503)]
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT} and len(site.requests) == 3


def test_server_that_asks_to_wait_is_obeyed(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    site.faults["/file"] = [Fault(status=429, headers={"Retry-After": "1"})]
    start = time.monotonic()
    fetch(impatient, remote(site), tmp_path / "file")
    assert time.monotonic() - start >= 1 and len(site.requests) == 2


@pytest.mark.parametrize(
    ("fault", "error", "says", "requests"),
    [
        (Fault(status=404), BadFile, "404.*dataset's page", 1),
        (Fault(status=403), FloraError, "403.*browser.*HTTPS_PROXY", 1),
        (
            Fault(status=403, headers={"X-RateLimit-Remaining": "0"}),
            FloraError,
            "wait an hour",
            1,
        ),
        (Fault(status=500), Unreachable, "500.*3 attempts", 3),
        (Fault(body=b"<html>log in"), BadFile, "sends 12 bytes, not the 100000", 1),
        (Fault(claimed=100_001), BadFile, "sends more bytes, not the 100000", 1),
        (
            Fault(body=CONTENT + b"more", no_length=True),
            BadFile,
            "sends more bytes, not the 100000",
            1,
        ),
        (Fault(body=CONTENT[::-1]), BadFile, "md5 checksum is not [0-9a-f]+; nothing was kept", 2),
        (Fault(silent=2.5), Unreachable, "too slow.*3 attempts", 3),
    ],
)
def test_failures_say_what_to_do_and_leave_nothing(
    site: Site,
    impatient: Transfer,
    tmp_path: Path,
    fault: Fault,
    error: type[FloraError],
    says: str,
    requests: int,
) -> None:
    site.always["/file"] = fault
    with pytest.raises(error, match=says) as raised:
        fetch(impatient, remote(site), tmp_path / "file")
    assert type(raised.value) is error
    assert files(tmp_path) == set() and len(site.requests) == requests


def test_damage_on_the_way_is_mended(site: Site, impatient: Transfer, tmp_path: Path) -> None:
    site.faults["/file"] = [Fault(body=CONTENT[::-1])]
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}


def test_large_file_is_not_fetched_twice(
    site: Site, impatient: Transfer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "TWICE", len(CONTENT) - 1)
    site.always["/file"] = Fault(body=CONTENT[::-1])
    with pytest.raises(BadFile, match="checksum"):
        fetch(impatient, remote(site), tmp_path / "file")
    assert len(site.requests) == 1
    (tmp_path / "file.part").write_bytes(b"an older version")
    site.always.clear()
    fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}


def test_failure_keeps_the_good_file_that_was_there(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"the old one")
    site.always["/file"] = Fault(body=CONTENT[::-1])
    with pytest.raises(BadFile):
        fetch(impatient, remote(site), tmp_path / "file")
    assert below(tmp_path) == {"file": b"the old one"}


def test_trickle_is_given_up_and_gone_on_with(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    site.always["/file"] = Fault(pause=0.02)  # 50 bytes a second, never silent for long
    start = time.monotonic()
    with pytest.raises(Unreachable, match=r"too slow"):
        fetch(impatient, remote(site), tmp_path / "file")
    assert time.monotonic() - start < 9
    come = (tmp_path / "file.part").stat().st_size
    assert 0 < come < 200 and files(tmp_path) == {"file.part"}
    site.always.clear()
    fetch(impatient, remote(site), tmp_path / "file")
    assert site.requests[-1].range == f"bytes={come}-"
    assert below(tmp_path) == {"file": CONTENT}


@pytest.mark.parametrize("fault", [Fault(chunked=True), Fault(no_length=True)])
def test_length_may_be_unknown(
    site: Site, impatient: Transfer, tmp_path: Path, fault: Fault
) -> None:
    site.always["/file"] = fault
    fetch(impatient, remote(site, size=None), tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}


def test_cut_archive_of_unknown_length_is_fetched_from_the_start(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    site.always["/file"] = Fault(chunked=True)
    site.faults["/file"] = [Fault(chunked=True, cut_after=5_000)]
    wanted = Remote(PurePosixPath("file"), url=f"{site.base}/file")
    fetch(impatient, wanted, tmp_path / "file")
    assert below(tmp_path) == {"file": CONTENT}
    assert [request.range for request in site.requests] == [None, None]


def test_disk_that_refuses_is_named(site: Site, impatient: Transfer, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(FloraError, match=r"cannot write .*blocked.*choose another --root"):
        fetch(impatient, remote(site), tmp_path / "blocked" / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_named(
    site: Site, impatient: Transfer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(FloraError, match=r"cannot write .*file\.part: No space left.*make room"):
        fetch(impatient, remote(site), tmp_path / "file")
    assert not (tmp_path / "file").exists() and len(site.requests) == 1
    assert capfd.readouterr().err == ""  # libcurl would print what a callback raises


def test_nobody_listens(impatient: Transfer, tmp_path: Path) -> None:
    with http_server() as closed:
        wanted = remote(closed)
    with pytest.raises(Unreachable, match=r"Could not connect.*HTTPS_PROXY"):
        fetch(impatient, wanted, tmp_path / "file")


def test_ftp_server_says_nothing(impatient: Transfer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ftp://user:secret@127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(Unreachable, match=r"timed out after") as raised:
            impatient.size(address)
    assert "secret" not in str(raised.value)


def test_proxy_of_the_environment_is_used(
    site: Site, impatient: Transfer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.base)
    wanted = Remote(PurePosixPath("file"), len(CONTENT), url="http://publisher.invalid/file")
    fetch(impatient, wanted, tmp_path / "file")
    assert [request.target for request in site.requests] == ["http://publisher.invalid/file"]
    monkeypatch.setenv("no_proxy", "publisher.invalid")
    with pytest.raises(Unreachable):
        fetch(impatient, wanted, tmp_path / "other")
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "name", ["../up", "a/../../up", "/etc/x", "", ".", "C:\\x", "a\\..\\..\\up", "C:x", "a\0b"]
)
def test_names_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(FloraError, match="would leave the dataset's folder"):
        relative_path(name, "server")
    assert relative_path("a/b.c/..d", "server") == PurePosixPath("a/b.c/..d")


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31mb", "caf\udce9", "x" * 250, "a/" + "\u00e9" * 130], ids=ascii
)
def test_names_fit_every_disk(name: str) -> None:
    with pytest.raises(FloraError, match="not every disk can hold") as raised:
        relative_path(name, "server")
    assert str(raised.value).isascii() and len(str(raised.value)) < 500
    longest = "\u00e9" * 120
    assert relative_path(f"{longest}/{longest}", "server").name == longest
