"""A scene of a STAC catalogue, fetched so that it can be mapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import rasterio

from flora.errors import FloraError
from flora.scenes.inputs import Units
from flora.stac.fetch import FetchedScene, Progress, fetch_scene
from flora.stac.search import StacItem, check_bbox, endpoint_at, find_before, read_item


class StacScene(NamedTuple):
    """A fetched scene, in dB.

    Attributes:
        sar: See `FetchedScene`.
        before: See there.
        year: When the radar passed.
    """

    sar: Path
    before: Path | None
    year: int


def fetch_item(
    href: str,
    folder: str | Path,
    *,
    bbox: Sequence[float] | None = None,
    before: bool = False,
    units: Units = "linear",
    overwrite: bool = False,
    reuse: bool = False,
    progress: Progress | None = None,
) -> StacScene:
    """Fetch the radar item of a STAC catalogue into a folder of its own below `folder`.

    The folder is named after the bbox, so that parts of one scene do not mix.

    Args:
        href: Address of the item, or a JSON file that holds it.
        folder: Where the maps will go.
        bbox: West, south, east, north in degrees; default is the whole item.
        before: Fetch the clearest optical pass of the two months before, too.
        units: What the archive holds.
        overwrite: Replace what was fetched before.
        reuse: Take what was fetched before.
        progress: See `flora.stac.fetch.fetch_scene`.

    Raises:
        FloraError: See `read_item`, `find_before` and `fetch_scene`.
    """
    item = _placed(read_item(href))
    box = None if bbox is None else check_bbox(bbox)
    part = "" if box is None else "_" + "_".join(f"{side:g}" for side in box)
    target = Path(folder) / f"scene{part}"
    fetched = _present(target, item.id)
    if fetched is not None and not (reuse or overwrite):
        raise FloraError(
            f"--stac: {fetched.sar} was fetched by an earlier run; pass --reuse to go on with it, "
            "or --overwrite to fetch it again"
        )
    if fetched is not None and reuse and before and fetched.before is None:
        raise FloraError(
            f"--before auto: {fetched.sar} was fetched without an image from before the flood; "
            "pass --overwrite without --reuse, or no --before"
        )
    if fetched is None or not reuse:
        optical = find_before(item, box) if before else []
        fetched = fetch_scene(
            item,
            target,
            bbox=box,
            before=optical,
            units=units,
            overwrite=overwrite,
            progress=progress,
        )
    return StacScene(fetched.sar, fetched.before if before else None, item.time.year)


def _placed(item: StacItem) -> StacItem:
    """The item, with the API that it is of: where optical images are searched, and links renewed.

    An item in a file, or of another API than the presets, says so by its own address.
    """
    root, sign, _ = (item.href or "").partition("/collections/")
    return StacItem(item.record, endpoint_at(root)) if sign else item


def _present(folder: Path, identity: str) -> FetchedScene | None:
    """What an earlier run fetched of an item."""
    for sar in sorted(folder.glob("*_sar.tif")):
        with rasterio.open(sar) as file:
            items = file.tags().get("FLORA_ITEMS", "").split()
        if items[:1] == [identity]:
            image = sar.with_name(sar.name.removesuffix("_sar.tif") + "_before.tif")
            return FetchedScene(sar, image if image.is_file() else None)
    return None
