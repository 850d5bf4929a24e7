"""Radar and optical images of nearly the same day, as chips that weights are adapted to.

Needs the extra `stac`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rasterio

from flora.errors import FloraError
from flora.files import folder_beside, publish
from flora.grid import GDAL_ERRORS, Grid, LonLatBox
from flora.stac.assets import ItemBands, gdal_options
from flora.stac.fetch import Blocks, fetch_scene, parts_of, stem_of
from flora.stac.search import (
    TIMEOUT,
    check_bbox,
    endpoint_of,
    same_pass,
    search,
    time_of,
    visible,
)

if TYPE_CHECKING:
    from pystac import Item

CLASSES = {"SCL": ("scl",)}
# Sentinel-2 Level-2A scene classification: nodata, defective, cloud shadow, cloud of medium and of
# high probability, thin cirrus, snow.
HIDDEN = (0, 1, 3, 8, 9, 10, 11)


class Pair(NamedTuple):
    """What was taken of a place on nearly the same day.

    Attributes:
        sar: The slices of one radar pass.
        optical: The images of one day.
    """

    sar: list[Item]
    optical: list[Item]

    @property
    def days(self) -> int:
        """Days from the radar to the image."""
        return (time_of(self.optical[0]).date() - time_of(self.sar[0]).date()).days


def find_pairs(
    radar: Sequence[Item],
    bbox: Sequence[float],
    *,
    pair_days: int = 2,
    max_cloud: float = 20.0,
    endpoint: str | None = None,
) -> list[Pair]:
    """Find the optical images of nearly the same day as radar passes.

    Of the images within `pair_days` of a pass it is that of the nearest day; of two such days, the
    one that probably shows more of the area. Passes without one are left out.

    Args:
        radar: Radar acquisitions, the earliest first, as `flora.stac.search.search` gives them.
        bbox: West, south, east, north in degrees.
        pair_days: How long before or after the radar an image may be; a flood moves in a day.
        max_cloud: Images with a larger share of cloud, in per cent, are left out.
        endpoint: Where to search; default is where the radar was found.

    Raises:
        FloraError: If there is no such pair; see also `flora.stac.search.search`.

    Example:
        >>> from flora.stac.pairs import find_pairs
        >>> from flora.stac.search import search
        >>> plain = (-1.0, 38.0, -0.6, 38.2)
        >>> radar = search(plain, "2019-09-01/2019-10-31")  # doctest: +SKIP
        >>> pairs = find_pairs(radar, plain)  # doctest: +SKIP
    """
    if pair_days < 0:
        raise FloraError("expected 0 or more", argument="pair_days", value=pair_days)
    if not radar:
        raise FloraError("no item, expected one or more", argument="radar")
    box, near = check_bbox(bbox), timedelta(days=pair_days)
    taken = [time_of(item).date() for item in radar]
    images: dict[date, list[Item]] = defaultdict(list)
    for item in search(
        box,
        (min(taken) - near, max(taken) + near),
        sensor="optical",
        endpoint=endpoint or endpoint_of(radar[0]),
        max_cloud=max_cloud,
    ):
        images[time_of(item).date()].append(item)
    passes: list[list[Item]] = []
    for item in radar:
        if passes and same_pass(passes[-1][0], item):
            passes[-1].append(item)
        else:
            passes.append([item])
    pairs = []
    for slices in passes:
        day = time_of(slices[0]).date()
        close = [other for other in images if abs(other - day) <= near]
        if close:
            best = min(close, key=lambda other: (abs(other - day), -visible(images[other], box)))
            pairs.append(Pair(slices, images[best]))
    if not pairs:
        raise FloraError(
            f"{len(passes)} radar passes and {len(images)} days of images, none within {pair_days} "
            "days of another",
            argument="pair_days",
            value=pair_days,
            remedy="allow more days or more cloud, or search a longer time",
        )
    return pairs


def fetch_pair(
    pair: Pair,
    folder: str | Path,
    *,
    bbox: LonLatBox | None = None,
    overwrite: bool = False,
    timeout: float = TIMEOUT,
    progress: Blocks | None = None,
) -> tuple[Path, Path]:
    """Fetch a pair as a chip of the dataset `folder`: ID_sar.tif and ID_optical.tif, on one grid.

    The radar is as `flora.stac.fetch.fetch_scene` writes it. The image has 0 where it shows
    cloud, the shadow of one, or snow, by the scene classification of Level-2A.

    Args:
        pair: See `find_pairs`.
        folder: Where the chip goes.
        bbox: West, south, east, north in degrees; default is all of the radar.
        overwrite: Replace existing files.
        timeout: Seconds without an answer before a server is given up.
        progress: Called with the number of blocks done and of all blocks.

    Returns:
        Both files, which appear together or not at all.

    Raises:
        FloraError: If the chip is there already, or the images come without a scene
            classification; see also `flora.stac.fetch.fetch_scene`.

    Example:
        >>> from flora.stac.pairs import fetch_pair, find_pairs
        >>> from flora.stac.search import search
        >>> plain = (-1.0, 38.0, -0.6, 38.2)
        >>> radar = search(plain, "2019-09-01/2019-10-31")  # doctest: +SKIP
        >>> pairs = find_pairs(radar, plain)  # doctest: +SKIP
        >>> sar, optical = fetch_pair(pairs[0], "chips", bbox=plain)  # doctest: +SKIP
    """
    folder, stem = Path(folder), stem_of(pair.sar[0].id)
    targets = {layer: folder / f"{stem}_{layer}.tif" for layer in ("sar", "optical")}
    if not overwrite and any(path.exists() for path in targets.values()):
        raise FloraError(
            f"holds {stem} already",
            argument="folder",
            value=folder,
            remedy="choose another folder, or pass {overwrite}",
            overwrite=True,
        )
    with folder_beside(targets["sar"], GDAL_ERRORS) as temporary:
        fetched = fetch_scene(
            pair.sar,
            temporary / "scene",
            bbox=bbox,
            before=pair.optical,
            timeout=timeout,
            progress=progress,
        )
        image = fetched.sar.with_name(f"{stem}_before.tif")
        _hide_clouds(image, pair.optical, timeout)
        publish({"sar": fetched.sar, "optical": image}, targets, temporary / "earlier")
    return targets["sar"], targets["optical"]


def _hide_clouds(path: Path, images: Sequence[Item], timeout: float) -> None:
    """Write 0 where the first image that shows a pixel shows cloud, shadow or snow there."""
    with rasterio.Env(**gdal_options(timeout)), rasterio.open(path, "r+") as file:
        sources = [ItemBands(item, CLASSES, timeout) for item in images]
        grid = Grid.of(file)
        for part in parts_of(grid.shape):
            missing = np.ones((part.height, part.width), dtype=bool)
            hidden = np.zeros_like(missing)
            for source in sources:
                (classes,), seen = source.read(grid.part(part), "nearest")
                hidden |= missing & seen & np.isin(classes, HIDDEN)
                missing &= ~seen
            window = part.rows(0, part.height)
            values = file.read(window=window)
            values[:, hidden | missing] = 0
            file.write(values, window=window)
