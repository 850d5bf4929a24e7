"""The commands that bring a dataset to the disk and check what is there: download, check."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

from flora.cli.options import Quiet
from flora.datasets import DatasetName

if TYPE_CHECKING:
    from flora.datasets.fetch.download import Plan, Source
    from flora.datasets.fetch.sources import Item

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
Workers = Annotated[int, typer.Option(min=1, max=32, help="Files fetched at once, at most.")]


@download_app.command()
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
    workers: Workers = 8,
    quiet: Quiet = False,
) -> None:
    """Sen1Floods11, from its public bucket."""
    from flora.datasets.fetch.download import Sen1Floods11Source

    parts = [chosen.value for chosen in part or [LabelKind.hand]]
    fetch(Sen1Floods11Source(parts, place or ()), root, yes, verify, workers, quiet)


@download_app.command()
def sen12ms(
    root: Root,
    season: Annotated[
        list[Season] | None, typer.Option(help="Only this season; repeatable. Default: all.")
    ] = None,
    yes: Yes = False,
    verify: Verify = False,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """SEN12MS, from its university's FTP server."""
    from flora.datasets.fetch.download import Sen12MSSource

    seasons = [chosen.value for chosen in season or ()]
    fetch(Sen12MSSource(seasons), root, yes, verify, workers, quiet)


@download_app.command()
def deepflood(
    root: Root,
    yes: Yes = False,
    verify: Verify = False,
    workers: Workers = 4,
    quiet: Quiet = False,
) -> None:
    """DeepFlood, from figshare."""
    from flora.datasets.fetch.download import DeepFloodSource

    fetch(DeepFloodSource(), root, yes, verify, workers, quiet)


@download_app.command()
def ombria(root: Root, yes: Yes = False, verify: Verify = False, quiet: Quiet = False) -> None:
    """OMBRIA, from its authors' repository."""
    from flora.datasets.fetch.download import OmbriaSource

    fetch(OmbriaSource(), root, yes, verify, 1, quiet)


def check(
    dataset: Annotated[DatasetName, typer.Argument(help="Dataset, in its publisher's layout.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
) -> None:
    """Check a dataset on the disk: what is there, readable, aligned and physically possible."""
    from flora.datasets.check import check_dataset

    report = check_dataset(dataset, root)
    console = Console()
    console.print(report.table())
    for note in report.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False, highlight=False)
    for problem in report.problems:
        console.print(f"- {problem}", soft_wrap=True, markup=False, highlight=False)
    if report.problems:
        raise typer.Exit(1)


def sources() -> dict[str, Callable[[], Source]]:
    """Where each dataset comes from that can be downloaded, by name, with its default parts."""
    from flora.datasets.fetch.download import (
        DeepFloodSource,
        OmbriaSource,
        Sen1Floods11Source,
        Sen12MSSource,
    )

    return {
        "sen1floods11": Sen1Floods11Source,
        "sen12ms": Sen12MSSource,
        "deepflood": DeepFloodSource,
        "ombria": OmbriaSource,
    }


def fetch(source: Source, root: Path, yes: bool, verify: bool, workers: int, quiet: bool) -> None:
    """Tell what is missing of a dataset, ask, and download it.

    Args:
        source: Where it comes from.
        root: Folder for the dataset.
        yes: Do not ask.
        verify: Compare the checksums of what is there already.
        workers: Files fetched at once, at most.
        quiet: No progress bar.
    """
    from flora.datasets.fetch.download import Transfer, download, plan_download

    console = Console(soft_wrap=True, highlight=False, markup=False)
    transfer = Transfer()
    plan = plan_download(source, root, transfer, verify=verify, workers=workers)
    console.print(f"{source.name}: {source.page}")
    console.print(f"Please cite: {source.citation}")
    console.print(f"Licence: {source.licence}")
    if source.note:
        console.print(f"Note: {source.note}")
    if not plan.missing:
        console.print(f"All of it is in {root} already.")
        return
    _print_plan(plan, console)
    if not yes:
        typer.confirm("Fetch it?", abort=True)
    with FilesBar(plan, quiet) as bar:
        download(plan, transfer, bar.show, workers=workers)
    console.print(f"Complete in {root}.")
    for name in source.opened_as:
        console.print(f"Look at it with: flora check {name} {root}")
    if plan.unverified:
        console.print(f"{plan.unverified} files have no checksum at their publisher: size verified")


def _print_plan(plan: Plan, console: Console) -> None:
    table = Table("what", "files", "size", title=f"To fetch into {plan.root}")
    for folder, files, size in plan.summary():
        table.add_row(folder, str(files), decimal(size) if size else "small")
    console.print(table)
    rest = f"; {len(plan.present)} files are there already" if plan.present else ""
    console.print(
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
        self._bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
        sizes = [item.remote.size for item in plan.missing]
        known = [size for size in sizes if size is not None]
        self._row = self._bar.add_task(
            plan.source.name, total=sum(known) if len(known) == len(sizes) else None
        )
        self._arrived: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> FilesBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, item: Item, done: int) -> None:
        """Show that `done` bytes of an item have arrived."""
        key = str(item.remote.path)
        with self._lock:
            gained = done - self._arrived.get(key, 0)
            self._arrived[key] = done
            self._bar.advance(self._row, gained)
