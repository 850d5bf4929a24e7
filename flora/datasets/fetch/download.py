"""A dataset from its publisher to a folder: what is missing is fetched, verified and unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from flora.datasets.fetch.archives import unpack, unpacked_before
from flora.datasets.fetch.publishers import Publisher
from flora.datasets.fetch.remote import BadFile, Remote, Stopped
from flora.datasets.fetch.transfer import Transfer, Unreachable
from flora.errors import FloraError

Report = Callable[[Remote, int], None]
"""Called, by several threads, with a file and how many of its bytes have arrived."""


@dataclass(frozen=True)
class Plan:
    """What a download will do.

    Attributes:
        publisher: Where the dataset comes from.
        licence: Its terms, as the publisher states them.
        root: The dataset's folder.
        present: What is there already.
        missing: What will be fetched.
        transfer_bytes: Bytes that will come over the network; for an archive whose size is not
            stated, as many as its files have.
        disk_bytes: Free bytes that the disk needs, estimates of unpacked archives included.
    """

    publisher: Publisher
    licence: str
    root: Path
    present: tuple[Remote, ...]
    missing: tuple[Remote, ...]
    transfer_bytes: int
    disk_bytes: int

    @property
    def unverified(self) -> int:
        """Files of which the publisher gives no checksum: only their size is verified."""
        return sum(not remote.verified for remote in self.missing)

    def summary(self) -> list[tuple[str, int, int]]:
        """(folder or archive, files, bytes) of what is missing; sizes as in `transfer_bytes`."""
        groups: dict[str, list[int]] = {}
        for remote in self.missing:
            folder = str(remote.path if remote.unpacking else remote.path.parent)
            groups.setdefault(folder, []).append(_size(remote))
        return [(folder, len(sizes), sum(sizes)) for folder, sizes in groups.items()]


def plan_download(
    publisher: Publisher, root: Path, transfer: Transfer, *, verify: bool = False, workers: int = 8
) -> Plan:
    """Ask the publisher what there is, and look what of it is in `root` already.

    Args:
        publisher: Where the dataset comes from.
        root: Its folder; need not exist.
        transfer: How to ask.
        verify: Read what is there again and compare its checksums, not only sizes.
        workers: Files that will be fetched at once; archives among them need room together.

    Raises:
        FloraError: If the publisher does not answer, or the disk has too little room.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise FloraError(f"root {root} is a file: choose a folder for the dataset")
    try:
        remotes, licence = publisher.files(transfer, root), publisher.terms(transfer)
    except Unreachable as error:
        raise FloraError(_by_hand(error, publisher, root)) from error
    there = [_is_present(remote, root, verify) for remote in remotes]
    present = tuple(remote for remote, found in zip(remotes, there, strict=True) if found)
    missing = tuple(remote for remote, found in zip(remotes, there, strict=True) if not found)
    to_come = sum(_to_come(remote, root) for remote in missing)
    room = _room(missing, root, min(workers, publisher.connections))
    folder = next(path for path in (root, *root.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if room > free:
        raise FloraError(
            f"{publisher.name} needs {decimal(room)} of disk and {folder} has {decimal(free)}: "
            "make room, choose another --root, or fetch less of it at a time"
        )
    return Plan(publisher, licence, root, present, missing, to_come, room)


def download(
    plan: Plan, transfer: Transfer, report: Report = lambda remote, done: None, *, workers: int = 8
) -> None:
    """Fetch, verify and unpack what the plan says is missing.

    A file that its server does not have, or has wrong, does not keep the others from coming; any
    other failure ends the download. Either way, running again goes on from there.

    Args:
        plan: From `plan_download`.
        transfer: How to fetch.
        report: See `Report`.
        workers: Files fetched at once, if the publisher's server is asked for so many.

    Raises:
        FloraError: With what failed and what to do about it.
    """
    bad: list[BadFile] = []
    pool = ThreadPoolExecutor(max_workers=max(1, min(workers, plan.publisher.connections)))
    try:
        pending = {pool.submit(_obtain, each, plan, transfer, report) for each in plan.missing}
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            bad += [error for error in map(_failure, finished) if error is not None]
    except Unreachable as error:
        raise FloraError(_by_hand(error, plan.publisher, plan.root)) from error
    finally:
        transfer.stop.set()  # those still at work after a failure, or after Ctrl-C
        pool.shutdown(wait=True, cancel_futures=True)
        transfer.stop.clear()
    if bad:
        raise FloraError(
            f"{len(bad)} of {len(plan.missing)} files could not be fetched, the others are there. "
            f"The first: {bad[0]}"
        )


def _by_hand(error: Unreachable, publisher: Publisher, root: Path) -> str:
    return f"{error}. By hand: {publisher.by_hand} (ROOT is {root})"


def _failure(future: Future[None]) -> BadFile | None:
    """The failure of one file; anything worse is raised."""
    try:
        future.result()
    except BadFile as error:
        return error
    return None


def _obtain(remote: Remote, plan: Plan, transfer: Transfer, report: Report) -> None:
    if transfer.stop.is_set():
        raise Stopped
    target = plan.root / remote.path
    if remote.unpacking is None or not target.is_file():
        transfer.fetch(remote, target, lambda done: report(remote, done))
    elif not remote.found_in(plan.root, verify=True):  # put there by hand
        raise BadFile(
            f"{target} is not the publisher's file, by its size or checksum, perhaps half a "
            "download: delete it and run again"
        )
    if remote.unpacking is not None:
        unpack(target, plan.root, remote.unpacking, transfer.stop)
        target.unlink()


def _is_present(remote: Remote, root: Path, verify: bool) -> bool:
    if remote.unpacking is None:
        return remote.found_in(root, verify)
    return unpacked_before(remote.path.name, root, remote.unpacking, verify)


def _size(remote: Remote) -> int:
    if remote.size is not None:
        return remote.size
    return remote.unpacking.estimate if remote.unpacking else 0


def _to_come(remote: Remote, root: Path) -> int:
    """Bytes of the file that are not on the disk yet."""
    target = root / remote.path
    part = target.with_name(f"{target.name}.part")
    # A file at its final name that is not present is another one, and will be replaced.
    there = (target, part) if remote.unpacking else (part,)
    return max(0, _size(remote) - next((p.stat().st_size for p in there if p.is_file()), 0))


def _room(missing: tuple[Remote, ...], root: Path, workers: int) -> int:
    """Bytes of disk: files, unpacked archives, and as many archives as are there at once."""
    files = sum(_to_come(remote, root) for remote in missing if remote.unpacking is None)
    unpacked = sum(remote.unpacking.estimate for remote in missing if remote.unpacking)
    archives = sorted((_to_come(r, root) for r in missing if r.unpacking), reverse=True)
    return files + unpacked + sum(archives[: max(1, workers)])
