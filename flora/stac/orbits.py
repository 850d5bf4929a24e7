"""Earlier passes of the same orbit, from which the radar looked at the same place the same way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
import shapely

from flora.errors import FloraError
from flora.grid import LonLatBox
from flora.sensors import Units
from flora.stac.fetch import fetch_scene
from flora.stac.search import GAP, check_bbox, endpoint_of, orbit_of, outline_of, search, time_of

if TYPE_CHECKING:
    from pystac import Item

DAYS = 90  # of an orbit that is flown every 6 or 12 days
LEAST_COVERED = 0.95  # of the area, by a pass that is as good as any


def find_same_orbit(
    sar: Item,
    bbox: Sequence[float] | None = None,
    *,
    count: int = 1,
    days: int = DAYS,
    gap: int = GAP,
    endpoint: str | None = None,
    **options: Any,
) -> list[list[Item]]:
    """Find earlier passes of the orbit and direction of a radar acquisition.

    On another orbit, slopes and fields look different without any flood. Of the passes those that
    cover 95 % of the area come first, then the others by what they cover; among equals, the latest.

    Args:
        sar: The acquisition of the flood.
        bbox: West, south, east, north in degrees; default is the whole acquisition.
        count: How many passes are wanted.
        days: How long before the acquisition the earliest may have been; 90 by default, since an
            orbit is flown every 6 or 12 days.
        gap: How long before it the latest may have been; more than the flood had lasted by then; 10
            by default.
        endpoint: Where to search; default is where the radar was found.
        options: Passed to `flora.stac.search.search`.

    Returns:
        The slices of each pass, to be given to `flora.stac.fetch.fetch_scene`; the latest pass
        first.

    Raises:
        FloraError: If the acquisition says no orbit, or fewer passes were found; see also `search`.

    Example:
        >>> from flora.stac.orbits import find_same_orbit
        >>> from flora.stac.search import search
        >>> plain = (-1.0, 38.0, -0.6, 38.2)
        >>> scenes = search(plain, "2019-09-10/2019-09-20")  # doctest: +SKIP
        >>> (before,) = find_same_orbit(scenes[0], plain)  # doctest: +SKIP
    """
    if not 0 <= gap <= days:
        raise FloraError(f"gap {gap}, days {days}: expected 0 <= gap <= days")
    orbit = orbit_of(sar)
    if not orbit:
        raise FloraError(
            f"item {sar.id}: says neither the direction nor the number of its orbit, so earlier "
            "passes of it cannot be told",
            remedy="name the earlier scene's file",
        )
    area = outline_of(sar) if bbox is None else shapely.box(*check_bbox(bbox))
    day = time_of(sar).date()
    passes: dict[date, list[Item]] = defaultdict(list)
    for item in search(
        area.bounds,
        (day - timedelta(days=days), day - timedelta(days=gap)),
        endpoint=endpoint or endpoint_of(sar),
        **options,
    ):
        if orbit_of(item) == orbit:
            passes[time_of(item).date()].append(item)

    def covered(taken: date) -> tuple[float, date]:
        seen = shapely.union_all([outline_of(item) for item in passes[taken]])
        share = seen.intersection(area).area / area.area
        return min(round(share, 3), LEAST_COVERED), taken

    best = sorted(sorted(passes, key=covered)[-count:], reverse=True)
    if len(best) < count:
        found = ", ".join(map(str, best)) or "none"
        raise FloraError(
            f"expected {count} earlier passes of orbit {orbit} within {days} days, at least {gap} "
            f"before {day}, found {found}",
            remedy="ask for fewer, pass a smaller {before_gap}, or name the earlier scene's file",
            before_gap=f"{min(gap, 6)}",
        )
    return [passes[taken] for taken in best]


def fetch_same_orbit(
    sar: Item,
    folder: str | Path,
    *,
    bbox: LonLatBox | None = None,
    count: int = 1,
    gap: int = GAP,
    units: Units = "linear",
    overwrite: bool = False,
    reuse: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Fetch the latest earlier passes of the same orbit, each into a GeoTIFF in dB.

    Args:
        sar: The acquisition of the flood.
        folder: Where the files go; made if need be.
        bbox: See `find_same_orbit`.
        count: See there.
        gap: See there.
        units: What the archive holds.
        overwrite: Replace files that are there.
        reuse: Take files that are there, without asking the catalogue.
        progress: Called with the number of blocks done and of all blocks.

    Returns:
        The files, the latest pass first.

    Raises:
        FloraError: See `find_same_orbit` and `fetch_scene`.
    """
    there = sorted(Path(folder).glob("*_sar.tif"), key=_taken, reverse=True)
    if reuse and len(there) >= count:
        return there[:count]
    fetched = []
    for slices in find_same_orbit(sar, bbox, count=count, gap=gap):
        taken = fetch_scene(
            slices, folder, bbox=bbox, units=units, overwrite=overwrite or reuse, progress=progress
        )
        fetched.append(taken.sar)
    return fetched


def said_of(path: Path) -> str:
    """What a fetched file was made of: the items, and when they were taken."""
    with rasterio.open(path) as file:
        tags = file.tags()
    return f"{tags.get('FLORA_ITEMS', path.name)} of {tags.get('FLORA_DATES', '?')}"


def _taken(path: Path) -> str:
    with rasterio.open(path) as file:
        return str(file.tags().get("FLORA_DATES", ""))
