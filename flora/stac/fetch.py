"""Acquisitions of a STAC API as local files that `flora.scenes.mapping.map_scene` reads.

Pixels are read block by block, so that memory is bounded by the block and not by the scene. Needs
the extra `stac`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from flora.errors import FloraError
from flora.files import make_folder
from flora.scenes.inputs import GDAL_ERRORS, Units, check_units
from flora.sensors import BoolArray, FloatArray
from flora.stac.api import TIMEOUT
from flora.stac.assets import OPTICAL_KEYS, SAR_KEYS, Grid, Source, gdal_options
from flora.stac.search import Bbox, StacItem, check_bbox

BLOCK = 2048  # px: a block of four float32 bands takes 67 MB, some copies of it included 0.3 GB
QUANTIFICATION = 10_000  # Sentinel-2 stores reflectance times this
OFFSET_SINCE = 4.0  # processing baseline since which 1000 is added to what is stored

Progress = Callable[[int, int], None]


class FetchedScene(NamedTuple):
    """Local files of a scene, on one grid.

    Attributes:
        sar: GeoTIFF, float32, VV and VH in dB, NaN in nodata.
        before: GeoTIFF, uint16, B4, B3, B2, B8 as reflectance x 10000, 0 in nodata; or None.
    """

    sar: Path
    before: Path | None


def fetch_scene(
    sar: StacItem | Sequence[StacItem],
    folder: str | Path,
    *,
    bbox: Sequence[float] | None = None,
    before: Sequence[StacItem] = (),
    units: Units = "linear",
    block: int = BLOCK,
    overwrite: bool = False,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
) -> FetchedScene:
    """Fetch a radar scene, and an optical image on its grid, into GeoTIFFs.

    Writes `ID_sar.tif` and, with `before`, `ID_before.tif`, where ID is the first radar item's.
    Both appear together at the end, or neither does.

    The radar keeps the grid it has in the archive. Terrain-corrected (RTC) archives hold gamma0
    as power; it is written as 10 log10 gamma0. That is not the sigma0 that the models are trained
    on: over flat land gamma0 = sigma0 / cos(incidence angle), so it is 0.6 dB to 1.6 dB brighter
    at the 29 to 46 degrees of Sentinel-1's wide swath.

    The optical image is resampled bilinearly. Since processing baseline 04.00, Sentinel-2
    products hold 1000 more than reflectance x 10000 (Sentinel-2 Products Specification
    Document, 14.9); it is taken off again where an item says, by `raster:bands` or by its
    baseline, that it is there.

    Args:
        sar: The radar item, or several of one pass; where they overlap, the first is taken.
        folder: Where the files go; made if need be.
        bbox: West, south, east, north in degrees; default is all of the items.
        before: Optical items from before the flood, see `flora.stac.search.find_before`.
        units: What the radar's archive holds: "linear" power, or "db".
        block: Side of the blocks that are read at once, a multiple of 512 px.
        overwrite: Replace existing files.
        timeout: Seconds without an answer before a server is given up.
        progress: Called with the number of blocks done and of all blocks.

    Raises:
        FloraError: If an argument is refused, a link does not work even when renewed, the radar
            is not calibrated or has no grid (GRD products), nothing was measured in the area, or
            the disk refuses.

    Example:
        >>> from flora.stac.search import find_before, search
        >>> from flora.stac.fetch import fetch_scene
        >>> plain = (-1.0, 38.0, -0.6, 38.2)
        >>> scenes = search(plain, "2019-09-10/2019-09-20")  # doctest: +SKIP
        >>> clear = find_before(scenes[0], plain)  # doctest: +SKIP
        >>> fetched = fetch_scene(scenes[0], "scenes", bbox=plain, before=clear)  # doctest: +SKIP
    """
    sar_items = [sar] if isinstance(sar, StacItem) else list(sar)
    _check_arguments(sar_items, block, units)
    box = None if bbox is None else check_bbox(bbox)
    folder, stem = Path(folder), re.sub(r"[^\w.-]+", "_", sar_items[0].id)
    targets = {"sar": folder / f"{stem}_sar.tif", "before": folder / f"{stem}_before.tif"}
    present = [path.name for path in targets.values() if path.exists()]
    if present and not overwrite:
        raise FloraError(
            f"folder {folder} already holds {', '.join(present)}: choose another folder, or pass "
            "overwrite=True (--overwrite)"
        )
    with rasterio.Env(**gdal_options(timeout)):
        radar = [Source(item, SAR_KEYS, timeout) for item in sar_items]
        optical = [Source(item, OPTICAL_KEYS, timeout) for item in before]
        grid = _grid(radar, box)
        blocks = list(_blocks(grid.shape, block))
        total = len(blocks) * (1 + bool(optical))

        def show(done: int, offset: int) -> None:
            if progress is not None:
                progress(offset + done, total)

        with _beside(folder) as temporary:
            finished = {"sar": temporary / "sar.tif"}
            tags = {
                "FLORA_ITEMS": " ".join(item.id for item in sar_items),
                "FLORA_BACKSCATTER": "gamma0, dB" if units == "linear" else "as archived, dB",
            }
            with _create(finished["sar"], grid, tuple(SAR_KEYS), np.float32, tags) as file:
                convert, done = partial(_decibels, units=units), partial(show, offset=0)
                if not _write(file, radar, grid, blocks, convert, done):
                    raise FloraError(
                        f"item {sar_items[0].id}: nothing was measured in the area (all nodata); "
                        "choose an item that covers it"
                    )
            if optical:
                finished["before"] = temporary / "before.tif"
                tags = {"FLORA_ITEMS": " ".join(item.id for item in before)}
                with _create(
                    finished["before"], grid, tuple(OPTICAL_KEYS), np.uint16, tags
                ) as file:
                    done = partial(show, offset=len(blocks))
                    if not _write(file, optical, grid, blocks, _reflectance, done):
                        raise FloraError(
                            f"item {before[0].id}: shows nothing of the radar's area (all "
                            "nodata); choose another image from before"
                        )
            for name, target in targets.items():
                if name in finished:
                    finished[name].replace(target)
                else:
                    target.unlink(missing_ok=True)  # of an earlier run
    return FetchedScene(targets["sar"], targets["before"] if optical else None)


def reflectance_scale(item: StacItem, asset: Mapping[str, Any]) -> tuple[float, float]:
    """(scale, offset) with which stored values become reflectance: scale x stored + offset.

    What the asset says itself (`raster:bands`, or `bands` since STAC 1.1) comes first. Earth
    Search says of some items that the offset was taken off the pixels already; that is believed
    before anything else. Else the processing baseline decides.

    Args:
        item: A Sentinel-2 item.
        asset: One of its assets.
    """
    properties = item.properties
    band: Mapping[str, Any] = (asset.get("raster:bands") or asset.get("bands") or [{}])[0]
    scale = float(band.get("scale", band.get("raster:scale", 1 / QUANTIFICATION)))
    if properties.get("earthsearch:boa_offset_applied") is True:
        return scale, 0.0
    offset = band.get("offset", band.get("raster:offset"))
    if offset is None:
        baseline = properties.get("s2:processing_baseline", properties.get("processing:version"))
        if baseline is None:
            raise FloraError(
                f"item {item.id}: says neither its offset (raster:bands) nor its processing "
                "baseline (s2:processing_baseline), so reflectance cannot be known; choose "
                "another collection"
            )
        offset = -1000 / QUANTIFICATION if float(baseline) >= OFFSET_SINCE else 0.0
    return scale, float(offset)


# --- grids and files ----------------------------------------------------------------------------


def _grid(sources: Sequence[Source], box: Bbox | None) -> Grid:
    """The first item's grid, cut to the box and to where there are items."""
    first = sources[0].grid()
    corners = [_pixel_bounds(first, other.grid()) for other in sources[1:]]
    rows, columns = first.shape
    extent = np.array([(0, 0, columns, rows), *corners])
    left, top = extent[:, :2].min(axis=0)
    right, bottom = extent[:, 2:].max(axis=0)
    if box is not None:
        wanted = _outline((box[0], box[3], box[2], box[1]), Affine.identity(), "EPSG:4326", first)
        left, top = max(left, wanted[0]), max(top, wanted[1])
        right, bottom = min(right, wanted[2]), min(bottom, wanted[3])
    left, top, right, bottom = (
        *(int(np.floor(side + 1e-6)) for side in (left, top)),
        *(int(np.ceil(side - 1e-6)) for side in (right, bottom)),
    )
    if right <= left or bottom <= top:
        raise FloraError(
            f"bbox {box}: item {sources[0].item.id} does not reach there, it covers "
            f"{','.join(f'{side:.4f}' for side in sources[0].item.bbox)}; search with this bbox"
        )
    transform = first.transform * Affine.translation(left, top)
    return Grid(first.crs, transform, (bottom - top, right - left))


def _pixel_bounds(grid: Grid, other: Grid) -> tuple[float, float, float, float]:
    rows, columns = other.shape
    return _outline((0, 0, columns, rows), other.transform, other.crs, grid)


def _outline(
    box: tuple[float, float, float, float], transform: Affine, crs: Any, grid: Grid
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a box's outline in pixels of a grid."""
    side = np.linspace(0, 1, 21)
    x = np.concatenate([side, side, 0 * side, 0 * side + 1]) * (box[2] - box[0]) + box[0]
    y = np.concatenate([0 * side, 0 * side + 1, side, side]) * (box[3] - box[1]) + box[1]
    x, y = transform * (x, y)
    there = np.array(transform_points(crs, grid.crs, x, y))
    column, row = ~grid.transform * there
    return column.min(), row.min(), column.max(), row.max()


def _blocks(shape: tuple[int, int], side: int) -> Iterator[Window]:
    for row in range(0, shape[0], side):
        for column in range(0, shape[1], side):
            yield Window(column, row, min(side, shape[1] - column), min(side, shape[0] - row))


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`; reading errors are told elsewhere, these are of writing.

    Raises:
        FloraError: If the disk refuses.
    """
    make_folder(folder)
    try:
        with TemporaryDirectory(prefix=".flora-", dir=folder) as temporary:
            yield Path(temporary)
    except GDAL_ERRORS as error:
        raise FloraError(
            f"folder {folder}: cannot be written ({error}); choose a folder that is writable and "
            "has free space"
        ) from error


def _create(
    path: Path, grid: Grid, bands: Sequence[str], dtype: type[np.generic], tags: Mapping[str, str]
) -> Any:
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=grid.shape[0],
        width=grid.shape[1],
        dtype=np.dtype(dtype),
        crs=grid.crs,
        transform=grid.transform,
        nodata=np.nan if dtype is np.float32 else 0,
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
        predictor=3 if dtype is np.float32 else 2,
        bigtiff="if_safer",
    )
    file.descriptions = bands
    file.update_tags(**tags)
    return file


def _write(
    file: Any,
    sources: Sequence[Source],
    grid: Grid,
    blocks: Sequence[Window],
    convert: Callable[[Source, FloatArray], tuple[NDArray[Any], BoolArray]],
    done: Callable[[int], None],
) -> int:
    """Fill a file block by block, each pixel from the first source that has it; count them."""
    seen = 0
    for number, window in enumerate(blocks, 1):
        shape = (file.count, window.height, window.width)
        merged = np.full(shape, file.nodata, dtype=file.dtypes[0])
        missing = np.ones(shape[1:], dtype=bool)
        for source in sources:
            values, valid = convert(source, source.read(grid, window))
            np.copyto(merged, values, where=valid & missing)
            missing &= ~valid
            if not missing.any():
                break
        file.write(merged, window=window)
        seen += missing.size - int(np.count_nonzero(missing))
        done(number)
    return seen


def _decibels(source: Source, stored: FloatArray, units: Units) -> tuple[FloatArray, BoolArray]:
    valid = np.asarray(np.isfinite(stored).all(axis=0) & (stored != 0).any(axis=0))
    if valid.any():
        check_units(stored[:, valid], units, source.item.id)
    if units == "db":
        return stored, valid
    positive = np.asarray(valid & (stored > 0).all(axis=0))
    return 10 * np.log10(np.where(positive, stored, np.float32(1))), positive


def _reflectance(source: Source, stored: FloatArray) -> tuple[NDArray[np.uint16], BoolArray]:
    """Reflectance x 10000; at least 1, because 0 is nodata."""
    valid = np.asarray(np.isfinite(stored).all(axis=0) & (stored > 0).any(axis=0))
    scales = np.array([reflectance_scale(source.item, asset) for asset in source.assets])
    scale, offset = scales.T[:, :, None, None] * QUANTIFICATION
    values = np.where(valid, scale * stored + offset, 0)
    return np.clip(np.rint(values), 1, np.iinfo(np.uint16).max).astype(np.uint16), valid


def _check_arguments(items: Sequence[StacItem], block: int, units: str) -> None:
    if not items:
        raise FloraError("sar: no item, expected one or more; take them from `flora.stac.search`")
    if block < 512 or block % 512:
        raise FloraError(f"block {block}: expected a multiple of 512 px, the tiles of the files")
    if units not in ("db", "linear"):
        raise FloraError(f'units {units!r}: expected "db" or "linear"')
