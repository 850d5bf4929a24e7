"""A dataset from its publisher to a folder: what is missing is fetched, verified and unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from flora.datasets.fetch.archives import unpack, unpacked_before
from flora.datasets.fetch.sources import (
    DeepFloodSource,
    Item,
    OmbriaSource,
    Sen1Floods11Source,
    Sen12MSSource,
    Source,
)
from flora.datasets.fetch.transfer import BadFile, Stopped, Transfer, Unreachable
from flora.errors import FloraError

__all__ = [
    "DeepFloodSource",
    "OmbriaSource",
    "Plan",
    "Sen1Floods11Source",
    "Sen12MSSource",
    "Source",
    "Transfer",
    "download",
    "plan_download",
]

Report = Callable[[Item, int], None]


@dataclass(frozen=True)
class Plan:
    """What a download will do.

    Attributes:
        source: Whence.
        root: The dataset's folder.
        present: What is there already.
        missing: What will be fetched.
        transfer_bytes: Bytes that will come over the network; for an archive whose size is not
            stated, as many as its files have.
        disk_bytes: Free bytes that the disk needs, estimates of unpacked archives included.
    """

    source: Source
    root: Path
    present: tuple[Item, ...]
    missing: tuple[Item, ...]
    transfer_bytes: int
    disk_bytes: int

    @property
    def unverified(self) -> int:
        """Files of which the publisher gives no checksum: only their size is verified."""
        return sum(
            1
            for item in self.missing
            if item.remote.checksum is None
            and (item.unpacking is None or item.unpacking.members is None)
        )

    def summary(self) -> list[tuple[str, int, int]]:
        """(folder or archive, files, bytes) of what is missing; sizes as in `transfer_bytes`."""
        groups: dict[str, list[int]] = {}
        for item in self.missing:
            path = item.remote.path
            folder = str(path if item.unpacking else path.parent)
            groups.setdefault(folder, []).append(_size(item))
        return [(folder, len(sizes), sum(sizes)) for folder, sizes in groups.items()]


def plan_download(
    source: Source, root: Path, transfer: Transfer, *, verify: bool = False, workers: int = 8
) -> Plan:
    """Ask the publisher what there is, and look what of it is in `root` already.

    Args:
        source: The dataset.
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
        items = source.items(transfer, root)
    except Unreachable as error:
        raise FloraError(_by_hand(error, source, root)) from error
    present: list[Item] = []
    missing: list[Item] = []
    for item in items:
        (present if _is_present(item, root, verify) else missing).append(item)
    plan = Plan(
        source,
        root,
        tuple(present),
        tuple(missing),
        sum(_to_come(item, root) for item in missing),
        _room(missing, root, min(workers, source.connections)),
    )
    _require_room(plan)
    return plan


def download(
    plan: Plan, transfer: Transfer, report: Report = lambda item, done: None, *, workers: int = 8
) -> None:
    """Fetch, verify and unpack what the plan says is missing.

    A file that its server does not have, or has wrong, does not keep the others from coming; any
    other failure ends the download. Either way, running again goes on from there.

    Args:
        plan: From `plan_download`.
        transfer: How to fetch.
        report: Told, by several threads, how many bytes of an item have arrived.
        workers: Files fetched at once, if the publisher's server is asked for so many.

    Raises:
        FloraError: With what failed and what to do about it.
    """
    bad: list[BadFile] = []
    pool = ThreadPoolExecutor(max_workers=max(1, min(workers, plan.source.connections)))
    try:
        pending = {pool.submit(_obtain, item, plan, transfer, report) for item in plan.missing}
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            bad += [error for error in map(_failure, finished) if error is not None]
    except Unreachable as error:
        raise FloraError(_by_hand(error, plan.source, plan.root)) from error
    finally:
        transfer.stop.set()  # those still at work after a failure, or after Ctrl-C
        pool.shutdown(wait=True, cancel_futures=True)
        transfer.stop.clear()
    if bad:
        raise FloraError(
            f"{len(bad)} of {len(plan.missing)} files could not be fetched, the others are there. "
            f"The first: {bad[0]}"
        )


def _by_hand(error: Unreachable, source: Source, root: Path) -> str:
    return f"{error}. By hand: {source.by_hand} (ROOT is {root})"


def _failure(future: Future[None]) -> BadFile | None:
    """The failure of one file; anything worse is raised."""
    try:
        future.result()
    except BadFile as error:
        return error
    return None


def _obtain(item: Item, plan: Plan, transfer: Transfer, report: Report) -> None:
    if transfer.stop.is_set():
        raise Stopped
    target = plan.root / item.remote.path
    if item.unpacking is None:
        transfer.fetch(item.remote, target, lambda done: report(item, done))
        return
    if not target.is_file():
        transfer.fetch(item.remote, target, lambda done: report(item, done))
    elif not item.remote.found_at(target, verify=True):  # put there by hand
        raise BadFile(
            f"{target} is not the publisher's file, by its size or checksum, perhaps half a "
            "download: delete it and run again"
        )
    unpack(target, plan.root, item.unpacking, transfer.stop)
    target.unlink()


def _is_present(item: Item, root: Path, verify: bool) -> bool:
    if item.unpacking is None:
        return item.remote.found_at(root / item.remote.path, verify)
    return unpacked_before(item.remote.path.name, root, item.unpacking, verify)


def _size(item: Item) -> int:
    if item.remote.size is not None:
        return item.remote.size
    return item.unpacking.estimate if item.unpacking else 0


def _to_come(item: Item, root: Path) -> int:
    """Bytes of the item that are not on the disk yet."""
    target = root / item.remote.path
    part = target.with_name(f"{target.name}.part")
    there = next((path.stat().st_size for path in (target, part) if path.is_file()), 0)
    # A file at its final name that is not present is another one, and will be replaced.
    if item.unpacking is None and target.is_file():
        there = 0
    return max(0, _size(item) - there)


def _room(missing: list[Item], root: Path, workers: int) -> int:
    """Bytes of disk: files, unpacked archives, and as many archives as are there at once."""
    files = sum(_to_come(item, root) for item in missing if item.unpacking is None)
    unpacked = sum(item.unpacking.estimate for item in missing if item.unpacking)
    archives = sorted((_to_come(item, root) for item in missing if item.unpacking), reverse=True)
    return files + unpacked + sum(archives[: max(1, workers)])


def _require_room(plan: Plan) -> None:
    folder = next(path for path in (plan.root, *plan.root.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if plan.disk_bytes > free:
        raise FloraError(
            f"{plan.source.name} needs {decimal(plan.disk_bytes)} of disk and {folder} has "
            f"{decimal(free)}: make room, choose another --root, or fetch less of it at a time"
        )
