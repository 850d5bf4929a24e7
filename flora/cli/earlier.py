"""Radar scenes from before the flood, as `flora map --sar-before` names them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flora.errors import FloraError
from flora.sensors import Units

if TYPE_CHECKING:
    from flora.grid import LonLatBox

AUTO = re.compile(r"auto(?::([1-9]\d?))?")  # auto, or auto:3 for the three latest


def earlier_dates(named: Sequence[str] | None, stac: str | None) -> int:
    """How many dates before the flood are asked for.

    Args:
        named: Files, or one `auto` or `auto:N`.
        stac: The catalogue's item, if the scene is one.

    Raises:
        FloraError: If files and `auto` are mixed, or `auto` comes without an item.
    """
    named = named or []
    wanted = [found for text in named if (found := AUTO.fullmatch(text)) is not None]
    if not wanted:
        return len(named)
    if len(named) > 1:
        raise FloraError(
            "is in place of files, and named once",
            argument="sar_before",
            value=" ".join(named),
            remedy="pass auto:N for N dates, or files alone",
        )
    if stac is None:
        raise FloraError(
            "goes with --stac, whose catalogue is searched",
            argument="sar_before",
            value=named[0],
            remedy="name files",
        )
    return int(wanted[0][1] or 1)


def earlier_files(named: Sequence[str] | None) -> tuple[Path, ...]:
    """The files that are named; none for `auto`."""
    from flora.scenes.safe.folders import product_of

    files = [Path(text).absolute() for text in named or () if AUTO.fullmatch(text) is None]
    return tuple(product_of(path) for path in files)


def fetched_earlier(
    href: str,
    folder: Path,
    *,
    count: int,
    gap: int,
    bbox: LonLatBox | None,
    units: Units,
    overwrite: bool,
    reuse: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[Path, ...]:
    """Earlier passes of the orbit of a catalogue's item, fetched; what they are is printed.

    Raises:
        FloraError: See `flora.stac.orbits.fetch_same_orbit`.
    """
    from flora.stac.orbits import fetch_same_orbit, said_of
    from flora.stac.search import read_item

    files = fetch_same_orbit(
        read_item(href),
        folder,
        bbox=bbox,
        count=count,
        gap=gap,
        units=units,
        overwrite=overwrite,
        reuse=reuse,
        progress=progress,
    )
    for path in files:
        typer.echo(f"Radar from before the flood: {said_of(path)}")
    return tuple(files)
