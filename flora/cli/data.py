"""The commands that bring a dataset to the disk and check what is there: download, check."""

from __future__ import annotations

import threading
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from flora.cli.console import console
from flora.cli.options import OnceCommand, Quiet
from flora.datasets.registry import DATASETS, DatasetName, dataset_class

if TYPE_CHECKING:
    from flora.datasets.fetch.download import Plan
    from flora.datasets.fetch.publishers import Publisher
    from flora.datasets.fetch.remote import Remote

download_app = typer.Typer(
    help="Fetch a dataset from its publisher; run again to go on after an interruption.",
    no_args_is_help=True,
)


# Enumerations, since typer takes no Literal for an option that may be given several times.
class LabelKind(StrEnum):
    """Parts of Sen1Floods11."""

    hand = "hand"
    weak = "weak"
    perm = "perm"


class Season(StrEnum):
    """Seasons of SEN12MS."""

    spring = "spring"
    summer = "summer"
    fall = "fall"
    winter = "winter"


Root = Annotated[Path, typer.Option(help="Folder for the dataset; made if it is not there.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before fetching.")]
Verify = Annotated[
    bool, typer.Option(help="Compare the checksums of what is there already, not only its size.")
]
AtOnce = Annotated[int, typer.Option(min=1, max=32, help="Files fetched at once, at most.")]


@download_app.command(cls=OnceCommand)
def sen1floods11(
    root: Root,
    part: Annotated[
        list[LabelKind] | None,
        typer.Option(help="Labelled by hand (default), weakly, or permanent water; repeatable."),
    ] = None,
    place: Annotated[
        list[str] | None,
        typer.Option(help="Only chips of this flood, e.g. Bolivia; repeatable."),
    ] = None,
    yes: Yes = False,
    verify: Verify = False,
    workers: AtOnce = 8,
    quiet: Quiet = False,
) -> None:
    """Sen1Floods11, from its public bucket."""
    parts = tuple(chosen.value for chosen in part or [LabelKind.hand])
    asked = replace(publishers()["sen1floods11"], parts=parts, places=tuple(place or ()))
    fetch(asked, root, yes, verify, workers, quiet)


@download_app.command(cls=OnceCommand)
def sen12ms(
    root: Root,
    season: Annotated[
        list[Season] | None, typer.Option(help="Only this season; repeatable. Default: all.")
    ] = None,
    yes: Yes = False,
    verify: Verify = False,
    workers: AtOnce = 2,
    quiet: Quiet = False,
) -> None:
    """SEN12MS, from its university's FTP server."""
    chosen = tuple(each.value for each in season or ())
    fetch(replace(publishers()["sen12ms"], chosen=chosen), root, yes, verify, workers, quiet)


@download_app.command(cls=OnceCommand)
def deepflood(
    root: Root,
    yes: Yes = False,
    verify: Verify = False,
    workers: AtOnce = 4,
    quiet: Quiet = False,
) -> None:
    """DeepFlood, from figshare."""
    fetch(publishers()["deepflood"], root, yes, verify, workers, quiet)


@download_app.command(cls=OnceCommand)
def ombria(root: Root, yes: Yes = False, verify: Verify = False, quiet: Quiet = False) -> None:
    """OMBRIA, from its authors' repository."""
    fetch(publishers()["ombria"], root, yes, verify, 1, quiet)


def check(
    dataset: Annotated[DatasetName, typer.Argument(help="Dataset, in its publisher's layout.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
) -> None:
    """Check a dataset on the disk: what is there, readable, aligned and physically possible."""
    from flora.datasets.check import check_dataset

    report = check_dataset(dataset, root)
    screen = console()
    if report.places:
        screen.print(report.table(), soft_wrap=False)
    for note in report.notes:
        screen.print(f"Note: {note}")
    for problem in report.problems:
        screen.print(f"- {problem}")
    if report.problems:
        raise typer.Exit(1)


def publishers() -> dict[str, Any]:
    """Where each dataset that can be downloaded comes from, by its name: `Publisher`s."""
    found = {name: dataset_class(name).publisher for name in DATASETS}
    return {name: publisher for name, publisher in found.items() if publisher is not None}


def fetch(
    publisher: Publisher, root: Path, yes: bool, verify: bool, workers: int, quiet: bool
) -> None:
    """Show what is missing of a dataset, ask, and download it.

    Args:
        publisher: Where it comes from.
        root: Folder for the dataset.
        yes: Do not ask.
        verify: Compare the checksums of what is there already.
        workers: Files fetched at once, at most.
        quiet: No progress bar.
    """
    from flora.datasets.fetch.download import download, plan_download
    from flora.datasets.fetch.transfer import Transfer

    screen = console()
    transfer = Transfer()
    plan = plan_download(publisher, root, transfer, verify=verify, workers=workers)
    screen.print(f"{publisher.name}: {publisher.page}")
    screen.print(f"Please cite: {dataset_class(publisher.name).citation}")
    screen.print(f"Licence: {plan.licence}")
    if publisher.note:
        screen.print(f"Note: {publisher.note}")
    if not plan.missing:
        screen.print(f"All of it is in {root} already.")
        return
    _print_plan(plan, screen)
    if not yes:
        typer.confirm("Fetch it?", abort=True)
    with FilesBar(plan, quiet) as bar:
        download(plan, transfer, bar.show, workers=workers)
    screen.print(f"Complete in {root}.")
    for name in publisher.opened_as:
        screen.print(f"Look at it with: flora check {name} {root}")
    if plan.unverified:
        screen.print(f"{plan.unverified} files have no checksum at their publisher: size verified")


def _print_plan(plan: Plan, screen: Console) -> None:
    table = Table("what", "files", "size", title=f"To fetch into {plan.root}")
    for folder, files, size in plan.summary():
        table.add_row(folder, str(files), decimal(size) if size else "small")
    screen.print(table)
    rest = f"; {len(plan.present)} files are there already" if plan.present else ""
    screen.print(
        f"About {decimal(plan.transfer_bytes)} to fetch, {decimal(plan.disk_bytes)} of disk{rest}."
    )


class FilesBar:
    """One progress bar for all files, fed by several threads."""

    def __init__(self, plan: Plan, quiet: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console(error=True), disable=quiet)
        sizes = [remote.size for remote in plan.missing]
        known = [size for size in sizes if size is not None]
        self._row = self._bar.add_task(
            plan.publisher.name, total=sum(known) if len(known) == len(sizes) else None
        )
        self._arrived: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> FilesBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, remote: Remote, done: int) -> None:
        """Show that `done` bytes of a file have arrived."""
        key = str(remote.path)
        with self._lock:
            gained = done - self._arrived.get(key, 0)
            self._arrived[key] = done
            self._bar.advance(self._row, gained)
