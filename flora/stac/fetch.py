"""Acquisitions of a STAC API as local files that `flora.map_scene` reads.

Pixels are read block by block, so that memory is bounded by the block and not by the scene. Needs
the extra `stac`.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray

from flora.errors import FloraError, FloraWarning
from flora.files import folder_beside, publish
from flora.grid import GDAL_ERRORS, Grid, LonLatBox, Part, apply
from flora.parts import choose_part, part_around
from flora.scenes.bands import is_fill, is_stored_fill
from flora.scenes.inputs import check_units
from flora.scenes.names import BACKSCATTER_TAG, INCIDENCE_TAG
from flora.scenes.optical import CLOUDY, QUANTIFICATION, is_cloud
from flora.scenes.viewing import LOOK, swath_incidence
from flora.sensors import BoolArray, FloatArray, Units, require_units
from flora.stac.assets import OPTICAL_BANDS, SAR_BANDS, ItemBands, gdal_options
from flora.stac.search import (
    TIMEOUT,
    check_bbox,
    endpoint_of,
    find_before,
    orbit_of,
    read_item,
    same_pass,
    time_of,
)

if TYPE_CHECKING:
    from pystac import Item

BLOCK = 2048  # px: a block of four float32 bands takes 67 MB, some copies of it included 0.3 GB
LONGEST_STEM = 200  # bytes: a file name takes 255, endings included

Blocks = Callable[[int, int], None]
"""Called with the number of blocks done and of all blocks."""
Convert = Callable[[ItemBands, FloatArray, BoolArray], tuple[NDArray[Any], BoolArray]]
TILED = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": 512,
    "blockysize": 512,
    "compress": "deflate",
    "bigtiff": "if_safer",
}


class FetchedScene(NamedTuple):
    """Local files of a scene, on one grid; their tags hold the items they were made of.

    Attributes:
        sar: GeoTIFF, float32, VV and VH in dB, NaN in nodata.
        before: GeoTIFF, uint16, B4, B3, B2, B8 as reflectance x 10000, 0 in nodata; or None.
        taken: When the radar passed.
        image: Dates and items of the image from before; empty without.
        endpoint: The landing page of the catalogue; empty where the item does not say.
    """

    sar: Path
    before: Path | None
    taken: date
    image: str
    endpoint: str


def fetch_scene(
    sar: Item | Sequence[Item],
    folder: str | Path,
    *,
    bbox: LonLatBox | None = None,
    before: Sequence[Item] = (),
    units: Units = "linear",
    block: int = BLOCK,
    overwrite: bool = False,
    timeout: float = TIMEOUT,
    progress: Blocks | None = None,
) -> FetchedScene:
    """Fetch a radar scene, and an optical image on its grid, into GeoTIFFs.

    Writes `ID_sar.tif` and, with `before`, `ID_before.tif`, where ID is the first radar item's.
    Both appear together at the end, or neither does.

    The radar keeps the grid it has in the archive. Terrain-corrected (RTC) archives hold gamma0
    as power; it is written as 10 log10 gamma0, and tags say so, with the angle of incidence in the
    middle of the part: by these, `open_scene` reads sigma0 = gamma0 cos(incidence angle), which is
    0.6 dB to 1.6 dB darker at the 29 to 46 degrees of Sentinel-1's wide swath.

    The optical image is resampled bilinearly. Since processing baseline 04.00, Sentinel-2
    products hold 1000 more than reflectance x 10000 (Sentinel-2 Products Specification
    Document, 14.9); it is taken off again where an item says that it is there.

    Args:
        sar: The radar item, or several of one pass; where they overlap, the first is taken.
        folder: Where the files go; made if need be.
        bbox: West, south, east, north in degrees; default is all of the items.
        before: Optical items from before the flood, see `flora.stac.search.find_before`.
        units: What the radar's archive holds: "linear" power, or "db".
        block: Side of the blocks that are read at once, a multiple of 512 px.
        overwrite: Replace existing files.
        timeout: Seconds without an answer before a server is given up.
        progress: Called with the number of blocks that are done, and of all.

    Raises:
        FloraError: If an argument is refused, radar items are of several passes, a link does not
            work even when renewed, the radar is not calibrated or has no grid (GRD products),
            nothing was measured in the area, or the disk refuses.

    Example:
        >>> from flora.stac.search import find_before, search
        >>> from flora.stac.fetch import fetch_scene
        >>> plain = (-1.0, 38.0, -0.6, 38.2)
        >>> scenes = search(plain, "2019-09-10/2019-09-20")  # doctest: +SKIP
        >>> clear = find_before(scenes[0], plain)  # doctest: +SKIP
        >>> fetched = fetch_scene(scenes[0], "scenes", bbox=plain, before=clear)  # doctest: +SKIP
    """
    items = list(sar) if isinstance(sar, Sequence) else [sar]
    _check_arguments(items, before, block, units)
    folder, stem = Path(folder), stem_of(items[0].id)
    targets = {"sar": folder / f"{stem}_sar.tif", "before": folder / f"{stem}_before.tif"}
    present = [path.name for path in targets.values() if path.exists()]
    if present and not overwrite:
        text = f"folder {folder} already holds {', '.join(present)}"
        remedy = "choose another folder, or pass {overwrite}"
        raise FloraError(text, remedy=remedy, overwrite=True)
    with rasterio.Env(**gdal_options(timeout)):
        radar = [ItemBands(item, SAR_BANDS, timeout) for item in items]
        optical = [ItemBands(item, OPTICAL_BANDS, timeout) for item in before]
        grid = _common_grid(radar, bbox and check_bbox(bbox))
        parts = list(parts_of(grid.shape, block))
        with folder_beside(targets["sar"], GDAL_ERRORS) as temporary:
            finished = {"sar": temporary / "sar.tif"}
            convert = partial(_decibels, units=units)
            tags = _radar_tags(items[0], grid, units)
            steps = _write(finished["sar"], grid, parts, radar, convert, **tags)
            if optical:
                finished["before"] = temporary / "before.tif"
                image = _write(finished["before"], grid, parts, optical, _reflectance)
                steps = chain(steps, image)
            for done, _ in enumerate(steps, 1):
                if progress is not None:
                    progress(done, len(parts) * len(finished))
            if optical:
                _warn_of_cloud(finished["before"])
            publish(finished, targets, temporary / "earlier")
    return _described(targets["sar"], items[0])


def fetch_item(
    href: str,
    folder: str | Path,
    *,
    bbox: LonLatBox | None = None,
    before_gap: int | None = None,
    units: Units = "linear",
    overwrite: bool = False,
    reuse: bool = False,
    progress: Blocks | None = None,
) -> FetchedScene:
    """Fetch the radar item of a STAC catalogue into a folder of its own below `folder`.

    The folder is named after the bbox, so that parts of one scene do not mix.

    Args:
        href: Address of the item, or a JSON file that holds it.
        folder: Where the maps will go.
        bbox: West, south, east, north in degrees; default is the whole item.
        before_gap: Fetch the clearest optical pass of the two months before, too, and this many
            days before at least, see `find_before`; None fetches none.
        units: What the archive holds.
        overwrite: Replace what was fetched before.
        reuse: Take what was fetched before.
        progress: Called with the number of blocks that are done, and of all.

    Raises:
        FloraError: See `read_item`, `find_before` and `fetch_scene`.
    """
    item = read_item(href)
    part = "" if bbox is None else "_" + "_".join(f"{side:g}" for side in bbox)
    target = Path(folder) / f"scene{part}"
    present = next((path for path in target.glob("*_sar.tif") if _says(path)[0] == item.id), None)
    if present is not None and reuse:
        fetched = _described(present, item)
        if before_gap is not None and fetched.before is None:
            raise FloraError(
                f"--before auto: {present} was fetched without an image from before the flood; "
                "pass --overwrite without --reuse, or no --before"
            )
        return fetched if before_gap is not None else fetched._replace(before=None, image="")
    if present is not None and not overwrite:
        raise FloraError(
            f"--stac: {present} was fetched by an earlier run; pass --reuse to go on with it, or "
            "--overwrite to fetch it again"
        )
    return fetch_scene(
        item,
        target,
        bbox=bbox,
        before=() if before_gap is None else find_before(item, bbox, gap=before_gap),
        units=units,
        overwrite=overwrite,
        progress=progress,
    )


def stem_of(identity: str) -> str:
    """The beginning of a file's name; of ids that no disk holds, their beginning and a digest."""
    plain = re.sub(r"[^\w.-]+", "_", identity)
    if len(plain.encode()) <= LONGEST_STEM:
        return plain
    return f"{plain[:40]}_{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _radar_tags(item: Item, grid: Grid, units: Units) -> dict[str, str]:
    """What a file of radar says of its values, and at which angle its middle was looked at."""
    tags = {BACKSCATTER_TAG: "gamma0, dB" if units == "linear" else "as archived, dB"}
    angle = item.properties.get("view:incidence_angle")
    said = str(item.properties.get("sat:orbit_state", "")).lower()
    flight = next((name for name in LOOK if name == said), None)
    wide = item.properties.get("sar:instrument_mode") == "IW" and item.geometry is not None
    if angle is None and wide and flight is not None:
        west, south, east, north = grid.lon_lat_box()
        outline = shapely.get_coordinates(shapely.geometry.shape(item.geometry))
        angle = swath_incidence(outline, flight, (west + east) / 2, (south + north) / 2)
    return tags if angle is None else tags | {INCIDENCE_TAG: f"{float(angle):.1f}"}


def _check_arguments(items: Sequence[Item], before: Sequence[Item], block: int, units: str) -> None:
    if not items:
        raise FloraError("sar: no item, expected one or more; take them from `flora.stac.search`")
    if block < 512 or block % 512:
        raise FloraError(f"block {block}: expected a multiple of 512 px, the tiles of the files")
    require_units(units)
    if not all(same_pass(items[0], item) for item in items):
        passes = "; ".join(f"{i.id}, {time_of(i):%Y-%m-%d %H:%M}, {orbit_of(i)}" for i in items)
        raise FloraError(
            f"sar: items of several passes, expected slices of one: {passes}; fetch each pass into "
            "a folder of its own"
        )
    if len({time_of(item).date() for item in before}) > 1:
        taken = ", ".join(f"{item.id} of {time_of(item):%Y-%m-%d}" for item in before)
        text = f"before: images of several days are put together: {taken}"
        warnings.warn(text, FloraWarning, stacklevel=3)


def _common_grid(sources: Sequence[ItemBands], bbox: LonLatBox | None) -> Grid:
    """The first item's grid, enlarged to all items and cut to the box."""
    first = sources[0].grid
    low, high = np.zeros(2), np.array(first.shape[::-1], float)
    for source in sources[1:]:
        pixels = np.array(apply(~first.transform, *source.grid.outline(first.crs)))
        low, high = np.minimum(low, pixels.min(axis=1)), np.maximum(high, pixels.max(axis=1))
    whole = first.part(part_around(low, high))
    return whole.part(choose_part(whole, None, bbox, f"item {sources[0].item.id}"))


def parts_of(shape: tuple[int, int], side: int = BLOCK) -> Iterator[Part]:
    """The blocks of a grid of this shape, row by row."""
    for row, column in product(*(range(0, length, side) for length in shape)):
        yield Part(row, column, min(side, shape[0] - row), min(side, shape[1] - column))


def _write(
    path: Path,
    grid: Grid,
    parts: Sequence[Part],
    sources: Sequence[ItemBands],
    convert: Convert,
    **tags: str,
) -> Iterator[None]:
    """Write a GeoTIFF part by part, each pixel from the first source that has it."""
    bands, items = list(sources[0].names), [source.item for source in sources]
    kind: dict[str, Any] = {"dtype": "float32", "nodata": np.nan, "predictor": 3}
    if bands != list(SAR_BANDS):
        kind = {"dtype": "uint16", "nodata": 0, "predictor": 2}
    kind |= {"crs": grid.crs, "transform": grid.transform, "count": len(bands)}
    seen, (height, width) = False, grid.shape
    with rasterio.open(path, "w", **TILED, **kind, height=height, width=width) as file:
        file.descriptions = bands
        days = sorted({f"{time_of(item):%Y-%m-%d}" for item in items})
        names = " ".join(item.id for item in items)
        file.update_tags(FLORA_ITEMS=names, FLORA_DATES=" ".join(days), **tags)
        for part in parts:
            merged = np.full((len(bands), part.height, part.width), file.nodata, kind["dtype"])
            missing = np.ones(merged.shape[1:], dtype=bool)
            for source in sources:
                values, valid = convert(source, *source.read(grid.part(part)))
                np.copyto(merged, values, where=valid & missing)
                missing &= ~valid
                if not missing.any():
                    break
            file.write(merged, window=part.rows(0, part.height))
            seen |= not missing.all()
            yield
    if not seen:
        raise FloraError(
            f"item {items[0].id}: shows nothing of the area (all nodata); choose one that covers it"
        )


def _decibels(
    source: ItemBands, stored: FloatArray, valid: BoolArray, units: Units
) -> tuple[NDArray[Any], BoolArray]:
    values = stored * source.scale.astype(np.float32) + source.offset.astype(np.float32)
    valid = valid & ~(is_stored_fill(stored) | is_fill(values)).any(axis=0)
    if valid.any():
        check_units(values[:, valid], units, source.item.id)
    if units == "db":
        return values, valid
    positive = np.asarray(valid & (values > 0).all(axis=0))
    return 10 * np.log10(np.where(positive, values, np.float32(1))), positive


def _reflectance(
    source: ItemBands, stored: FloatArray, valid: BoolArray
) -> tuple[NDArray[Any], BoolArray]:
    """Reflectance x 10000; at least 1, because 0 is nodata."""
    scale, offset = source.scale * QUANTIFICATION, source.offset * QUANTIFICATION
    values = np.where(valid, scale * stored + offset, 0)
    return np.clip(np.rint(values), 1, np.iinfo(np.uint16).max).astype(np.uint16), valid


def _warn_of_cloud(path: Path) -> None:
    with rasterio.open(path) as file:
        shape = [min(side, 1024) for side in file.shape]
        visible = file.read((1, 2, 3), out_shape=(3, *shape))
    share = float(is_cloud(visible[:, visible.any(axis=0)]).mean())
    if share > CLOUDY:
        warnings.warn(
            f"the image from before, {' of '.join(_says(path))}, is probably cloud (or snow): "
            f"{share:.0%} of it is brighter than land; choose another, or do without",
            FloraWarning,
            stacklevel=3,
        )


def _says(path: Path) -> tuple[str, str]:
    """The items of a fetched file, and their dates."""
    with rasterio.open(path) as file:
        return file.tags().get("FLORA_ITEMS", ""), file.tags().get("FLORA_DATES", "")


def _described(sar: Path, item: Item) -> FetchedScene:
    before = sar.with_name(f"{sar.name.removesuffix('_sar.tif')}_before.tif")
    taken, endpoint = time_of(item).date(), endpoint_of(item)
    if not before.is_file():
        return FetchedScene(sar, None, taken, "", endpoint)
    return FetchedScene(sar, before, taken, " of ".join(_says(before)), endpoint)
