from __future__ import annotations

import io
import itertools
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flora.cli.main import app
from flora.datasets import open_dataset
from flora.datasets.deepflood import DeepFlood
from flora.datasets.fetch import publishers, transfer
from flora.datasets.fetch.download import Plan, download, plan_download
from flora.datasets.fetch.publishers import Publisher
from flora.datasets.fetch.transfer import Transfer
from flora.datasets.ombria import Ombria
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.datasets.sen12ms import Sen12MS
from flora.errors import FloraError
from tests.support.fake_data import (
    fake_deepflood,
    fake_ombria,
    fake_ombria_2021,
    fake_sen1floods11,
    fake_sen12ms,
    fake_weak,
)
from tests.support.servers import (
    Fault,
    Site,
    below,
    ftp_server,
    http_server,
    impatient_transfer,
    make_tar,
    make_zip,
    md5,
    serve_bucket,
    serve_figshare,
    serve_github,
    without_proxy,
)

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    without_proxy(monkeypatch)
    with http_server() as served:
        yield served


@pytest.fixture
def impatient() -> Transfer:
    return impatient_transfer()


def files(folder: Path) -> set[str]:
    return set(below(folder))


def get(source: Publisher, root: Path, transfer: Transfer) -> Plan:
    plan = plan_download(source, root, transfer)
    download(plan, transfer)
    return plan


def fetched(plan: Plan) -> set[str]:
    return {str(remote.path) for remote in plan.missing}


def leftovers(root: Path) -> set[str]:
    """Half files, and archives that should have been unpacked and removed."""
    return {name for name in files(root) if name.endswith((".part", ".zip", ".gz"))}


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A bucket's objects: fake hand-labelled chips, and others that nobody asked for."""
    folder = tmp_path_factory.mktemp("chips")
    served = below(fake_weak(fake_sen1floods11(folder, size=24), size=24))
    served["v1.1/Sen1Floods11_Metadata.geojson"] = b"{}"
    served["v1.1/data/perm_water/S1Perm/1_S1Perm.tif"] = b"permanent"
    served["v1.1/data/flood_events/HandLabeled/S1Hand/"] = b""  # a folder made in a browser
    return served


def sen1floods11(site: Site, **asked: Any) -> Publisher:
    return replace(Sen1Floods11.publisher, base=site.base, **asked)


def hand(chips: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        name: content
        for name, content in chips.items()
        if not re.search("perm_water|Weakly|/$", name)
    }


def test_sen1floods11_opens_after_its_download(
    site: Site, impatient: Transfer, chips: dict[str, bytes], tmp_path: Path
) -> None:
    serve_bucket(site, chips)
    site.faults[f"/sen1floods11/{next(iter(hand(chips)))}"] = [Fault(cut_after=100)]
    site.faults["/storage/v1/b/sen1floods11/o"] = [Fault(status=500)]
    plan = get(sen1floods11(site), tmp_path, impatient)
    assert below(tmp_path) == hand(chips)
    assert plan.transfer_bytes == plan.disk_bytes == sum(map(len, hand(chips).values()))
    assert plan.unverified == 0
    asked = site.asked("/storage/v1/b/sen1floods11/o")
    assert len([request for request in asked if "pageToken" in request.query]) >= 5
    for split, count in {"train": 3, "valid": 2, "test": 2, "bolivia": 1}.items():
        dataset = open_dataset("sen1floods11", tmp_path, split)
        assert len(dataset) == count
        assert dataset[0]["sar"].shape == (2, 24, 24)


def test_sen1floods11_parts_and_places(
    site: Site, impatient: Transfer, chips: dict[str, bytes], tmp_path: Path
) -> None:
    serve_bucket(site, chips)
    source = sen1floods11(site, places=("bolivia", "Cambodia"))
    plan = get(source, tmp_path, impatient)
    places = {name.split("/")[-1].split("_")[0] for name in fetched(plan) if "/data/" in name}
    assert places == {"Bolivia", "Mekong"}
    assert len(open_dataset("sen1floods11", tmp_path, "bolivia")) == 1
    source = sen1floods11(site, parts=("weak", "perm"))
    plan = get(source, tmp_path, impatient)
    assert len(fetched(plan)) == 4 * 3 + 1
    assert len(plan.present) == 5  # the split lists and the metadata came before
    assert source.opened_as == ("sen1floods11-weak",)
    assert len(open_dataset("sen1floods11-weak", tmp_path, "train")) == 3
    with pytest.raises(FloraError, match="no place 'Atlantis'; choose Bolivia, Ghana"):
        plan_download(sen1floods11(site, places=("Atlantis",)), tmp_path, impatient)
    with pytest.raises(FloraError, match="no part 'foot'; choose hand, weak, perm"):
        sen1floods11(site, parts=("foot",))


def test_second_run_fetches_what_is_lacking(
    site: Site, impatient: Transfer, chips: dict[str, bytes], tmp_path: Path
) -> None:
    serve_bucket(site, chips)
    source = sen1floods11(site)
    get(source, tmp_path, impatient)
    assert fetched(plan_download(source, tmp_path, impatient)) == set()
    images = sorted(tmp_path.rglob("*.tif"))
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:-1])
    images[2].write_bytes(images[2].read_bytes()[::-1])
    names = [path.relative_to(tmp_path).as_posix() for path in images[:3]]
    assert fetched(plan_download(source, tmp_path, impatient)) == set(names[:2])
    plan = plan_download(source, tmp_path, impatient, verify=True)
    assert fetched(plan) == set(names)
    download(plan, impatient)
    assert below(tmp_path) == hand(chips)


def test_one_bad_file_does_not_keep_the_others(
    site: Site, impatient: Transfer, chips: dict[str, bytes], tmp_path: Path
) -> None:
    serve_bucket(site, chips)
    first, second, *_ = (name for name in hand(chips) if name.endswith(".tif"))
    del site.files[f"/sen1floods11/{first}"]
    site.always[f"/sen1floods11/{second}"] = Fault(body=chips[second][::-1])
    with pytest.raises(FloraError, match=r"2 of \d+ files could not be fetched"):
        get(sen1floods11(site), tmp_path, impatient)
    assert files(tmp_path) == set(hand(chips)) - {first, second}


def test_server_that_fails_ends_the_download(
    site: Site, impatient: Transfer, chips: dict[str, bytes], tmp_path: Path
) -> None:
    serve_bucket(site, chips)
    for name in chips:
        site.always[f"/sen1floods11/{name}"] = Fault(status=503)
    with pytest.raises(FloraError, match=r"503.*By hand: copy gs://sen1floods11"):
        get(sen1floods11(site), tmp_path, impatient)
    # Not every file is tried for as long as a server that is down lets it.
    assert len(site.requests) < 3 * len(hand(chips))
    assert files(tmp_path) == set()


def test_listing_that_is_none_is_refused(site: Site, impatient: Transfer, tmp_path: Path) -> None:
    path = "/storage/v1/b/sen1floods11/o"
    source = sen1floods11(site)
    site.files[path] = b"<html>Please log in</html>"
    with pytest.raises(FloraError, match="not a listing, perhaps the login page"):
        plan_download(source, tmp_path, impatient)
    entry = {"name": "v1.1/data/flood_events/HandLabeled/../../../../x", "size": "1"}
    for answer, says in (
        ([], "not a listing"),
        ({}, "lists nothing under v1.1/data/flood_events/HandLabeled/"),
        ({"items": [{"name": "v1.1/a", "size": "-3"}]}, "size=-3 where a number of bytes was"),
        ({"items": [{"name": "v1.1/a", "size": "3", "md5Hash": "?"}]}, r"md5Hash '\?' of v1\.1/a"),
        ({"items": [{"name": ["v1.1/a"]}]}, r"name=\['v1\.1/a'\] where str was expected"),
        ({"items": [entry]}, "would leave the dataset's folder"),
    ):
        site.listings[path] = lambda query, answer=answer: answer
        with pytest.raises(FloraError, match=says):
            plan_download(source, tmp_path, impatient)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("step", [1, 0])
def test_listing_that_never_ends_is_given_up(
    site: Site, impatient: Transfer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Pages that lead to another without end, each to a new one or all to the same."""
    monkeypatch.setattr(publishers, "PAGES", 5)
    pages = itertools.count(0, step)
    bucket, figshare = "/storage/v1/b/sen1floods11/o", "/v2/articles/26791243/files"
    site.listings[bucket] = lambda query: {"nextPageToken": f"page {next(pages)}"}
    site.listings[figshare] = lambda query: [{"name": f"{next(pages)}", "size": 1}]
    article = replace(DeepFlood.publisher, api=f"{site.base}/v2")
    for source, path in ((sen1floods11(site), bucket), (article, figshare)):
        with pytest.raises(FloraError, match="its listing does not end"):
            plan_download(source, tmp_path, impatient)
        assert len(site.asked(path)) == (5 if step else 2)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"[" * 100_000, "not a listing"),
        (b'{"a": "\xff"}', "not a listing"),
        (b"{" + b" " * 200_000 + b"}", "more bytes, not the 150000"),
    ],
    ids=["deep", "no UTF-8", "long"],
)
def test_listing_that_is_no_json_or_too_long(
    site: Site,
    impatient: Transfer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
    says: str,
) -> None:
    monkeypatch.setattr(transfer, "LISTING", 150_000)
    site.files["/storage/v1/b/sen1floods11/o"] = answer
    with pytest.raises(FloraError, match=says):
        plan_download(sen1floods11(site), tmp_path, impatient)


def test_listing_that_does_not_come_says_why(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    site.files["/storage/v1/b/sen1floods11/o"] = b"{}"
    for status, says in ((503, "HTTP 503.*By hand: copy gs://sen1floods11"), (403, "refuses it")):
        site.always["/storage/v1/b/sen1floods11/o"] = Fault(status=status)
        with pytest.raises(FloraError, match=says):
            plan_download(sen1floods11(site), tmp_path, impatient)


def test_full_disk_is_noticed_first(
    site: Site,
    impatient: Transfer,
    chips: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve_bucket(site, chips)
    source = sen1floods11(site)
    needed = sum(map(len, hand(chips).values()))
    root = tmp_path / "not" / "there" / "yet"
    usage = shutil.disk_usage(tmp_path)
    asked: list[Path] = []

    def free(amount: int) -> None:
        def disk_usage(path: Path) -> object:
            asked.append(path)
            return usage._replace(free=amount)

        monkeypatch.setattr(shutil, "disk_usage", disk_usage)

    free(needed - 1)
    with pytest.raises(FloraError, match=r"sen1floods11 needs .* of disk and .* has .*make room"):
        plan_download(source, root, impatient)
    assert asked == [tmp_path] and files(tmp_path) == set()
    free(needed)
    assert plan_download(source, root, impatient).disk_bytes == needed


INTERRUPTED = """
import signal
import sys
from pathlib import Path
from dataclasses import replace
from flora.datasets.fetch.download import download, plan_download
from flora.datasets.fetch.transfer import Transfer
from flora.datasets.sen1floods11 import Sen1Floods11
# A shell that starts tests in its background hands them an ignored Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
transfer = Transfer(timeout=20)
plan = plan_download(replace(Sen1Floods11.publisher, base=sys.argv[1]), Path(sys.argv[2]), transfer)
print("begin", flush=True)
download(plan, transfer)
"""


def test_interrupted_process_goes_on_where_it_was(
    site: Site, chips: dict[str, bytes], tmp_path: Path
) -> None:
    big = "v1.1/data/flood_events/HandLabeled/S2Hand/USA_9_S2Hand.tif"
    served = hand(chips) | {big: CONTENT}
    serve_bucket(site, served, per_page=100)
    site.always[f"/sen1floods11/{big}"] = Fault(pause=0.001)
    processes = {}
    for how in (signal.SIGKILL, signal.SIGINT):
        command = [sys.executable, "-c", INTERRUPTED, site.base, str(tmp_path / how.name)]
        processes[how] = subprocess.Popen(command, stderr=subprocess.PIPE)
    for how, process in processes.items():
        part = tmp_path / how.name / f"{big}.part"
        deadline = time.monotonic() + 120
        while not part.is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode not in (0, None) and part.is_file()
        assert not (tmp_path / how.name / big).exists()
    site.always.clear()
    for how in processes:
        root, seen = tmp_path / how.name, len(site.requests)
        come = (root / f"{big}.part").stat().st_size
        plan = get(sen1floods11(site), root, Transfer())
        assert big in fetched(plan) and len(plan.present) > 0
        assert come > 0
        ranges = [r.range for r in site.requests[seen:] if r.path.endswith(big)]
        assert ranges == [f"bytes={come}-"]
        assert below(root) == served


def test_real_chip_is_served_fetched_and_opened(
    site: Site, impatient: Transfer, flora_data: Path, tmp_path: Path
) -> None:
    real = below(flora_data / "sen1floods11")
    serve_bucket(site, real, per_page=2)
    chip = "v1.1/data/flood_events/HandLabeled/S2Hand/Spain_7370579_S2Hand.tif"
    site.faults[f"/sen1floods11/{chip}"] = [Fault(cut_after=len(real[chip]) // 2)]
    get(sen1floods11(site, places=("Spain",)), tmp_path, Transfer(backoff=0.01))
    assert below(tmp_path) == real
    assert f"bytes={len(real[chip]) // 2}-" in {
        r.range for r in site.asked(f"/sen1floods11/{chip}")
    }
    dataset = open_dataset("sen1floods11", tmp_path, "test", require_all=False)
    assert dataset.manifest() == ["Spain_7370579"]
    assert dataset[0]["sar"].shape == (2, 512, 512)


# --- SEN12MS, over FTP --------------------------------------------------------------------------

SPRING, FALL = "ROIs1158_spring", "ROIs1970_fall"


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The FTP server's folder: the three archives of spring, patches of a held-out scene."""
    folder = tmp_path_factory.mktemp("ftp")
    patches = below(fake_sen12ms(tmp_path_factory.mktemp("patches"), size=64))
    for layer in ("s1", "s2", "lc"):
        layers = {name: patches[name] for name in patches if f"{SPRING}/{layer}_" in name}
        make_tar(folder / f"{SPRING}_{layer}.tar.gz", layers)
    return folder


TEST_LIST = f"{SPRING}_s1_15_p1.tif\n{SPRING}_s1_15_p2.tif\n".encode()
TRAIN_LIST = f"{SPRING}_s1_1_p1.tif\n".encode()


def sen12ms(site: Site, ftp: str, folder: Path, name: str = "spring") -> Publisher:
    site.files |= {"/splits/test_list.txt": TEST_LIST, "/splits/train_list.txt": TRAIN_LIST}
    checksums = {name: md5(content) for name, content in below(folder).items()}
    checksums |= {"test_list.txt": md5(TEST_LIST), "train_list.txt": md5(TRAIN_LIST)}
    published = Sen12MS.publisher
    lists = f"{site.base}/splits"
    return replace(published, chosen=(name,), ftp=ftp, lists=lists, checksums=checksums)


@pytest.mark.parametrize("resumes", [True, False])
def test_sen12ms_comes_over_ftp_and_opens(
    site: Site, season: Path, impatient: Transfer, tmp_path: Path, resumes: bool
) -> None:
    with ftp_server(season, resumes) as ftp:
        ftp.cuts = [3000, 2000] if resumes else [3000]
        source = sen12ms(site, ftp.base, season)
        plan = plan_download(source, tmp_path, impatient)
        assert plan.transfer_bytes == sum(path.stat().st_size for path in season.iterdir())
        assert plan.disk_bytes > plan.transfer_bytes
        download(plan, impatient, workers=1)
        if resumes:
            assert ftp.restarts == [3000, 5000]
        assert len(ftp.retrieved) >= 4
    assert leftovers(tmp_path) == set()
    assert (tmp_path / SPRING / "s2_15" / f"{SPRING}_s2_15_p2.tif").is_file()
    dataset = open_dataset("sen12ms", tmp_path, "test")
    assert dataset.manifest() == [f"{SPRING}_15_p1", f"{SPRING}_15_p2"]
    assert dataset[1]["optical"].shape == (3, 64, 64)
    assert set(dataset[1]["water"].unique().tolist()) == {0, 1, 255}
    # The server is gone, and is not needed to see that all is there.
    assert fetched(plan_download(source, tmp_path, impatient)) == set()


def test_sen12ms_that_is_not_the_publishers_is_refused(
    site: Site, season: Path, impatient: Transfer, tmp_path: Path
) -> None:
    with ftp_server(season) as ftp:
        source = sen12ms(site, ftp.base, season)
        other = {**source.checksums, f"{SPRING}_s1.tar.gz": "0" * 32}
        source = replace(source, checksums=other)
        with pytest.raises(FloraError, match=r"1 of 5 files.*md5 checksum is not 0+;"):
            get(source, tmp_path, impatient)
        assert leftovers(tmp_path) == set()
        assert not (tmp_path / SPRING / "s1_15").exists() and (tmp_path / SPRING / "s2_15").is_dir()
        with pytest.raises(FloraError, match=r"550.*dataset's page"):
            plan_download(
                replace(Sen12MS.publisher, chosen=("winter",), ftp=ftp.base, lists=source.lists),
                tmp_path / "other",
                impatient,
            )
        wrong = ftp.base.replace("m1474000@", "nobody@")
        with pytest.raises(FloraError, match="530") as raised:
            plan_download(sen12ms(site, wrong, season), tmp_path / "other", impatient)
        assert "nobody" not in str(raised.value)


def test_sen12ms_by_hand_where_ftp_is_closed(
    site: Site, season: Path, impatient: Transfer, tmp_path: Path
) -> None:
    with ftp_server(season) as ftp:
        address = ftp.base
    source = sen12ms(site, address, season)
    with pytest.raises(FloraError, match=r"By hand: .*dataserv\.ub\.tum\.de/s/m1474000.*ROOT is"):
        plan_download(source, tmp_path, impatient)
    for archive in season.iterdir():
        shutil.copy(archive, tmp_path)
    half = tmp_path / f"{SPRING}_s2.tar.gz"
    half.write_bytes(half.read_bytes()[:-1])
    with pytest.raises(FloraError, match=r"s2.tar.gz is not the publisher's file.*delete it"):
        get(source, tmp_path, impatient)
    shutil.copy(season / half.name, tmp_path)
    get(source, tmp_path, impatient)
    assert leftovers(tmp_path) == set()
    assert len(open_dataset("sen12ms", tmp_path, "test")) == 2


def test_real_patch_of_sen12ms(
    site: Site, flora_data: Path, impatient: Transfer, tmp_path: Path
) -> None:
    real = below(flora_data / "sen12ms")
    folder, root = tmp_path / "ftp", tmp_path / "root"
    folder.mkdir()
    for layer in ("s1", "s2"):
        layers = {name: real[name] for name in real if f"/{layer}_139/" in name}
        make_tar(folder / f"{FALL}_{layer}.tar.gz", layers)
    # The sample has no land cover: a file of another patch stands in for the layer.
    make_tar(folder / f"{FALL}_lc.tar.gz", {f"{FALL}/lc_1/{FALL}_lc_1_p1.tif": b"none"})
    with ftp_server(folder) as ftp:
        ftp.cuts = [100_000]
        get(sen12ms(site, ftp.base, folder, "fall"), root, impatient)
        assert 100_000 in ftp.restarts
    dataset = open_dataset("sen12ms", root, "valid", land_cover=None)
    assert dataset.manifest() == [f"{FALL}_139_p839"]
    assert dataset[0]["sar"].shape == (2, 256, 256)


# --- DeepFlood, OMBRIA --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """DeepFlood as a zip of TILES and a text file; invented, for no real file could be seen."""
    folder = tmp_path_factory.mktemp("tiles")
    archive = make_zip(folder / "TILES.zip", below(fake_deepflood(folder / "made")))
    return {"TILES.zip": archive.read_bytes(), "README.txt": b"read me", "more.txt": b"more"}


def test_deepflood_comes_from_figshare(
    site: Site, tiles: dict[str, bytes], impatient: Transfer, tmp_path: Path
) -> None:
    serve_figshare(site, tiles)
    site.faults["/files/1"] = [Fault(cut_after=1000)]
    source = replace(DeepFlood.publisher, api=f"{site.base}/v2")
    assert get(source, tmp_path, impatient).licence == "CC BY 4.0 https://example.org/by/4.0"
    assert (tmp_path / "more.txt").is_file() and leftovers(tmp_path) == set()
    dataset = open_dataset("deepflood", tmp_path, "test")
    assert dataset.manifest() == ["Kinston_Mattew_15_10_16_01_tile_1"]
    assert set(dataset[0]["water"].unique().tolist()) == {0, 1}
    assert fetched(plan_download(source, tmp_path, impatient)) == set()


def test_file_that_figshare_only_links_to_is_named(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    serve_figshare(site, {})
    source = replace(DeepFlood.publisher, api=f"{site.base}/v2")
    with pytest.raises(FloraError, match="lists no file"):
        plan_download(source, tmp_path, impatient)
    entry = {"name": "big.tif", "is_link_only": True, "download_url": "https://example.org/big"}
    pages = {"1": [entry], "2": []}
    site.listings["/v2/articles/26791243/files"] = lambda query: pages[query["page"]]
    with pytest.raises(FloraError, match=r"by hand from https://example\.org/big"):
        plan_download(source, tmp_path, impatient)


COMMIT = "38a4903" + "0" * 33


def repository(pictures: Mapping[str, bytes]) -> tuple[dict[str, bytes], bytes]:
    """What git lists of OMBRIA's repository, and GitHub's zip of it."""
    whole = {**pictures, "README.md": b"# OMBRIA", "OmbriaS1/notes.txt": b"notes"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"OMBRIA-{COMMIT}/", "")
        for name, content in whole.items():
            archive.writestr(f"OMBRIA-{COMMIT}/{name}", content)
    return whole, buffer.getvalue()


def ombria_source(site: Site) -> Publisher:
    return replace(Ombria.publisher, api=site.base, archives=site.base)


def test_ombria_comes_as_one_archive_of_its_commit(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    fake_ombria(made)
    fake_ombria_2021(made)
    pictures, root = below(made), tmp_path / "root"
    serve_github(site, *repository(pictures), COMMIT)
    source = ombria_source(site)
    plan = get(source, root, impatient)
    assert plan.disk_bytes == 2 * sum(map(len, pictures.values())) and plan.unverified == 0
    assert {n: c for n, c in below(root).items() if not n.startswith(".unpacked")} == pictures
    assert len(open_dataset("ombria", root, "test")) == 2
    assert open_dataset("ombria", root, "2021")[0]["sar"].shape == (1, 48, 48)
    assert fetched(plan_download(source, root, impatient)) == set()
    next(root.rglob("*.png")).unlink()
    assert fetched(plan_download(source, root, impatient)) == {"OMBRIA-38a4903.zip"}


def test_ombria_of_another_commit_or_content_is_refused(
    site: Site, impatient: Transfer, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    fake_ombria(made)
    whole, archive = repository(below(made))
    changed = next(name for name in whole if name.endswith(".png"))
    serve_github(site, whole | {changed: whole[changed][::-1]}, archive, COMMIT)
    source, root = ombria_source(site), tmp_path / "root"
    with pytest.raises(FloraError, match="is not that of the publisher's listing"):
        get(source, root, impatient)
    assert [name for name in files(root) if name.endswith((".png", ".part"))] == []
    other = {"sha": "f" * 40}
    site.listings["/repos/geodrak/OMBRIA/commits/38a4903"] = lambda query: other
    with pytest.raises(FloraError, match="gives commit ffff"):
        plan_download(source, root, impatient)


def test_real_pictures_of_ombria(
    site: Site, flora_data: Path, impatient: Transfer, tmp_path: Path
) -> None:
    part = below(flora_data / "ombria" / "OmbriaS1" / "test")
    pictures = {f"OmbriaS1/test/{name}": content for name, content in part.items()}
    part = below(flora_data / "ombria" / "OmbriaS2" / "test")
    pictures |= {f"OmbriaS2/test/{name}": content for name, content in part.items()}
    serve_github(site, *repository(pictures), COMMIT)
    get(ombria_source(site), tmp_path, impatient)
    dataset = open_dataset("ombria", tmp_path, "test")
    assert len(dataset) == 70 and dataset[0]["optical"].shape == (3, 256, 256)


# --- the commands -------------------------------------------------------------------------------


def flora(*arguments: object, answer: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(
        app, [str(a) for a in arguments], input=answer, catch_exceptions=False
    )
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def bucket(site: Site, chips: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Site:
    """The command's Sen1Floods11, on the local server."""
    serve_bucket(site, chips)
    monkeypatch.setattr(Sen1Floods11, "publisher", sen1floods11(site))
    return site


def test_command_lists_asks_fetches_and_is_done(bucket: Site, tmp_path: Path) -> None:
    command = ("download", "sen1floods11", "--root", tmp_path / "data", "--place", "Spain")
    code, said, _ = flora(*command, answer="n\n")
    assert code != 0 and "Fetch it?" in said
    assert re.search(r"HandLabeled/S1Hand\s+│\s+1\s+│\s+[\d.]+ (bytes|kB)", said)
    assert "Please cite: Bonafilia" in said and "Licence: none stated" in said
    assert not (tmp_path / "data").exists()
    assert {r.path for r in bucket.requests} == {"/storage/v1/b/sen1floods11/o"}
    code, said, _ = flora(*command, "--yes", "--quiet")
    assert code == 0 and f"flora check sen1floods11 {tmp_path / 'data'}" in said
    assert (tmp_path / "data/v1.1/splits/flood_handlabeled/flood_test_data.csv").is_file()
    code, said, _ = flora(*command)
    assert code == 0 and "already" in said
    code, said, _ = flora("download", "sen1floods11", "--root", tmp_path / "data", "--yes")
    assert code == 0 and re.search(r"\d+ files are there already", said)
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sen1floods11", "--root", "data", "--place", "Atlantis"], "no place 'Atlantis'"),
        (["sen1floods11", "--root", "file"], "is a file"),
    ],
)
def test_command_refuses_in_one_line(
    bucket: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    code, _, error = flora("download", *arguments, "--yes")
    assert code == 1 and error.startswith("Error: ") and len(error.splitlines()) == 1
    assert says in error and files(tmp_path) == {"file"}


def test_check_command_fails_where_something_is_wrong(bucket: Site, tmp_path: Path) -> None:
    flora("download", "sen1floods11", "--root", tmp_path, "--yes", "--quiet")
    code, said, _ = flora("check", "sen1floods11", tmp_path)
    assert "bolivia" in said, said
    image = next(tmp_path.rglob("*_S1Hand.tif"))
    image.write_bytes(image.read_bytes()[:200])
    code, said, _ = flora("check", "sen1floods11", tmp_path)
    assert code == 1 and image.name in said
    code, said, _ = flora("check", "sen1floods11", tmp_path / "none")
    assert code == 1 and len(said.splitlines()) == 1, said
