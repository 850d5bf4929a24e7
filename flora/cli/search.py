"""The command that finds acquisitions by place and date, and fetches one: search."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer
from rich.progress import Progress
from rich.table import Table

from flora.cli.console import console
from flora.cli.options import OnceCommand
from flora.errors import FloraError, Given
from flora.files import check_outputs, check_writable

if TYPE_CHECKING:
    from pystac import Item


BOX = "WEST,SOUTH,EAST,NORTH"


class BoxCommand(OnceCommand):
    """A command with --bbox, which refuses sides set apart by spaces, and says how to write them.

    Without it, a negative side would be taken for an option, and another one for a file.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Look at what follows --bbox, then parse as ever."""
        for place, argument in enumerate(args):
            name, sign, first = argument.partition("=")
            if name == "--bbox":
                given = [first] * bool(sign) + args[place + 1 :]
                sides = list(takewhile(_SIDE.fullmatch, given[:4]))
                if len(sides) > 1:
                    joined = ",".join(side.strip(",") for side in sides)
                    raise FloraError(
                        f"--bbox {' '.join(sides)}: expected {BOX}, joined by commas without "
                        f"spaces; write --bbox {joined}"
                    )
        return super().parse_args(ctx, args)


_SIDE = re.compile(r"[-+]?(\d+\.?\d*|\.\d+),?")


@dataclass(frozen=True)
class CatalogueOptions:
    """What is looked for, and where."""

    bbox: Annotated[
        str,
        typer.Option(
            help="West, south, east, north in degrees (EPSG:4326): -0.80,38.08,-0.74,38.12.",
            metavar="W,S,E,N",
        ),
    ]
    date: Annotated[str, typer.Option(help="A day, or the first and last: 2019-09-10/2019-09-20.")]
    sensor: Annotated[
        Literal["sar", "optical"],
        typer.Option(help="Sentinel-1 radar with VV and VH, or Sentinel-2."),
    ] = "sar"
    endpoint: Annotated[
        str, typer.Option(help="planetary-computer, earth-search, or the address of a STAC API.")
    ] = "planetary-computer"
    collection: Annotated[
        str | None, typer.Option(help="Collection; default: the endpoint's own for the sensor.")
    ] = None
    max_cloud: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Cloud at most, per cent; optical only.")
    ] = 20.0

    def find(self) -> list[Item]:
        """The items found, the earliest first.

        Raises:
            FloraError: If the catalogue refuses, or holds nothing of the kind.
        """
        from flora.stac.search import search

        return search(
            parse_bbox(self.bbox),
            self.date,
            sensor=self.sensor,
            endpoint=self.endpoint,
            collection=self.collection,
            max_cloud=self.max_cloud if self.sensor == "optical" else None,
        )


@dataclass(frozen=True)
class FetchOptions:
    """What of it is fetched."""

    fetch: Annotated[
        Path | None,
        typer.Option(
            help="Fetch the latest radar pass that was found into this folder, cut to the bbox: "
            "VV and VH as gamma0 in dB, ready for `flora map`."
        ),
    ] = None
    before: Annotated[
        bool,
        typer.Option(
            help="With --fetch: the clearest Sentinel-2 image from before it too, on its grid."
        ),
    ] = False
    before_days: Annotated[
        int, typer.Option(min=1, help="How many days before the radar that image may be.")
    ] = 60
    before_gap: Annotated[
        int,
        typer.Option(
            min=0, help="How many days before it must be: more than the flood had lasted by then."
        ),
    ] = 10
    pairs: Annotated[
        bool,
        typer.Option(
            help="With --fetch: every radar pass that was found and has a Sentinel-2 image of "
            "nearly the same day, with that image, clouds hidden: chips for `flora adapt`."
        ),
    ] = False
    pair_days: Annotated[
        int, typer.Option(min=0, help="How many days before or after the radar that image may be.")
    ] = 2
    overwrite: Annotated[bool, typer.Option(help="Replace files that exist.")] = False

    def check(self, sensor: str) -> None:
        """Refuse options that do not go together.

        Raises:
            FloraError: If optical images were to be fetched by themselves.
        """
        if self.fetch is not None and sensor != "sar":
            raise FloraError("--fetch: fetches radar; search with --sensor sar, and add --before")
        if (self.before or self.pairs) and self.fetch is None:
            raise FloraError(f"--{'pairs' if self.pairs else 'before'}: goes with --fetch FOLDER")
        if self.before and self.pairs:
            raise FloraError("--before, --pairs: expected one of the two")


def search(
    catalogue: CatalogueOptions,
    wanted: FetchOptions,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the items found to this file.")
    ] = None,
) -> None:
    """Find Sentinel-1 or Sentinel-2 acquisitions by place and date in a STAC catalogue."""
    wanted.check(catalogue.sensor)
    if json_path is not None:
        check_outputs([Given("json", json_path)], [])
        check_writable([Given("json", json_path)])
    items = catalogue.find()
    _print_items(items)
    if json_path is not None:
        from flora.files import write_text

        features = [item.to_dict(transform_hrefs=False) for item in items]
        text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"
        write_text(json_path, text)
    if wanted.fetch is not None:
        fetch = _fetch_pairs if wanted.pairs else _fetch
        fetch(items, catalogue, wanted, wanted.fetch)


def parse_bbox(text: str) -> tuple[float, float, float, float]:
    """The numbers of "WEST,SOUTH,EAST,NORTH".

    Raises:
        FloraError: If they are no four numbers; what they say is checked where they are used.

    Example:
        >>> from flora.cli.search import parse_bbox
        >>> parse_bbox("-0.80,38.08,-0.74,38.12")
        (-0.8, 38.08, -0.74, 38.12)
    """
    try:
        west, south, east, north = (float(side) for side in text.split(","))
    except ValueError as error:
        raise FloraError(
            f"--bbox {text!r}: expected {BOX} in degrees, four numbers joined by commas without "
            "spaces, e.g. -0.80,38.08,-0.74,38.12"
        ) from error
    return west, south, east, north


def _fetch(
    items: list[Item], catalogue: CatalogueOptions, wanted: FetchOptions, folder: Path
) -> None:
    """Fetch the latest pass of the items, and the image from before it."""
    from flora.stac.fetch import fetch_scene
    from flora.stac.search import find_before, same_pass, time_of

    box = parse_bbox(catalogue.bbox)
    before = []
    if wanted.before:
        days, gap = wanted.before_days, wanted.before_gap
        before = find_before(items[-1], box, days=days, gap=gap, endpoint=catalogue.endpoint)
    radar = [item for item in items if same_pass(item, items[-1])]
    screen = console()
    for item in (*radar, *before):
        screen.print(f"Fetching {item.id} of {time_of(item):%Y-%m-%d}")
    with BlocksBar() as bar:
        fetched = fetch_scene(
            radar,
            folder,
            bbox=box,
            before=before,
            overwrite=wanted.overwrite,
            progress=bar.show,
        )
    guide = "" if fetched.before is None else f" --before {fetched.before}"
    screen.print("The radar is gamma0; flora map reads it as the sigma0 of training.")
    screen.print(f"Map it with: flora map {fetched.sar} --out {folder / 'maps'}{guide}")


def _fetch_pairs(
    items: list[Item], catalogue: CatalogueOptions, wanted: FetchOptions, folder: Path
) -> None:
    """Fetch every pass of the items that has an image of nearly the same day."""
    from flora.stac.pairs import fetch_pair, find_pairs
    from flora.stac.search import time_of

    box = parse_bbox(catalogue.bbox)
    pairs = find_pairs(
        items,
        box,
        pair_days=wanted.pair_days,
        max_cloud=catalogue.max_cloud,
        endpoint=catalogue.endpoint,
    )
    screen = console()
    for pair in pairs:
        names = ", ".join(item.id for item in pair.optical)
        taken = f"{time_of(pair.sar[0]):%Y-%m-%d}"
        screen.print(f"Fetching {pair.sar[0].id} of {taken}, and {names}, {pair.days:+d} days")
        with BlocksBar() as bar:
            fetch_pair(pair, folder, bbox=box, overwrite=wanted.overwrite, progress=bar.show)
    screen.print(f"{len(pairs)} pairs. The radar is gamma0, as is every scene of this archive.")
    screen.print(
        f"Adapt weights to them with: flora adapt --dataset folder --root {folder} --out RUN"
    )


def _print_items(items: list[Item]) -> None:
    from flora.stac.search import cloud_of, orbit_of, time_of

    screen = console()
    table = Table("time, UTC", "orbit", "cloud, %", "item")
    for item in items:
        cover = cloud_of(item)
        cloud = "-" if cover is None else f"{cover:.0f}"
        table.add_row(f"{time_of(item):%Y-%m-%d %H:%M}", orbit_of(item) or "-", cloud, item.id)
    screen.print(table)
    latest = items[-1].get_self_href()
    screen.print(f"{len(items)} found. Address of the latest: {latest}")


class BlocksBar:
    """A progress bar that appears with the first block, after everything was accepted."""

    def __init__(self) -> None:
        self._bar = Progress(*Progress.get_default_columns(), console=console(error=True))
        self._row = self._bar.add_task("blocks", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:  # stopping writes a line even where nothing was shown
            self._bar.stop()

    def show(self, done: int, total: int) -> None:
        """Show `done` of `total` blocks."""
        self._bar.start()
        self._bar.update(self._row, completed=done, total=total)
