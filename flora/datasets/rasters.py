"""Reading rasters and 8-bit pictures, and refusing what is not what it has to be."""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from flora.datasets.base import Window
from flora.datasets.pairing import how_to_exclude
from flora.errors import FloraError
from flora.files import readable
from flora.grid import Grid
from flora.sensors import ByteArray, FloatArray

POSIX = hasattr(os, "sysconf")  # which tells how much memory there is

# What Pillow raises for files that are damaged.
PICTURE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError)

_PICTURE_MODES = ("1", "L", "P", "RGB", "RGBA")


@dataclass(frozen=True)
class Raster:
    """Stored values (bands, rows, columns), the file's nodata value and its whole grid."""

    values: NDArray[Any]
    nodata: float | None
    grid: Grid


def read_grid(path: Path) -> Grid:
    """Read where a raster's pixels lie, without its pixels.

    Raises:
        FloraError: If the file is missing or no raster.
    """
    try:
        with rasterio.open(path) as source:
            return Grid.of(source)
    except (RasterioError, UnicodeEncodeError) as error:
        raise _unreadable(path, error) from error


def band_descriptions(path: Path) -> tuple[str | None, ...]:
    """What the bands of a raster are described as, None where there is no description.

    Raises:
        FloraError: If the file is missing or no raster.
    """
    try:
        with rasterio.open(path) as source:
            return tuple(source.descriptions)
    except (RasterioError, UnicodeEncodeError) as error:
        raise _unreadable(path, error) from error


def read_raster(
    path: Path,
    bands: tuple[str | None, ...],
    window: Window | None = None,
    only: tuple[str, ...] | None = None,
) -> Raster:
    """Read bands of a raster, whole or a window of it.

    Args:
        path: The file.
        bands: Names of the bands it must hold, in order.
        window: The part to read.
        only: Names of the bands to read, in the order wanted; all of them without.

    Raises:
        FloraError: If the file is missing, truncated or no raster, has another number of bands,
            or if the window leaves it.
    """
    try:
        with rasterio.open(path) as source:
            grid = Grid.of(source)
            if source.count != len(bands):
                wanted = ", ".join(map(str, bands))
                raise FloraError(
                    f"{path} has {source.count} bands: expected {len(bands)}, {wanted}"
                )
            part = None if window is None else _raster_window(window, grid, path)
            numbers = None if only is None else [bands.index(name) + 1 for name in only]
            size = grid.shape if window is None else (window.height, window.width)
            _require_room(path, len(numbers or bands), size, np.dtype(source.dtypes[0]).itemsize)
            return Raster(source.read(numbers, window=part), source.nodata, grid)
    except (RasterioError, UnicodeEncodeError) as error:
        raise _unreadable(path, error) from error


def _require_room(path: Path, bands: int, size: tuple[int, int], itemsize: int) -> None:
    """Refuse what does not fit into memory before it is read: a header may say any size."""
    needed = bands * size[0] * size[1] * itemsize
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if POSIX else 2**40
    if needed > room // 4:
        raise FloraError(
            f"{path} has {size[0]} x {size[1]} px, {needed / 1e9:,.0f} GB when it is read: "
            "expected a chip; cut it into chips of some hundred pixels a side, or map it as a "
            "scene (flora map)"
        )


def require_same_grid(first: Grid, first_path: Path, second: Grid, second_path: Path) -> None:
    """Refuse two rasters that do not share their pixels.

    Raises:
        FloraError: If size, CRS or position differ.
    """
    if not first.same_as(second):
        names = [path.name for path in (first_path, second_path)]
        if names[0] == names[1]:  # in folders of their own
            names = [f"{path.parent.name}/{path.name}" for path in (first_path, second_path)]
        raise FloraError(
            f"{' and '.join(names)} lie on different grids ({first}; {second}): reproject one onto "
            "the other, for example with gdalwarp"
        )


def require_size(grid: Grid, path: Path, size: tuple[int, int]) -> None:
    """Refuse a raster that has not the size of all others of its dataset.

    Raises:
        FloraError: If it has another number of rows or columns.
    """
    if grid.shape != size:
        raise FloraError(
            f"{path} has {grid.shape[0]} x {grid.shape[1]} px where the first chip has "
            f"{size[0]} x {size[1]}: download it again, or exclude this chip: "
            f"{how_to_exclude(path)}"
        )


def require_decibel(values: FloatArray, source: str) -> None:
    """Refuse backscatter that is empty or infinite, or looks like linear power.

    Args:
        values: (C, H, W) backscatter, NaN where nothing was measured.
        source: What the message calls the values.

    Raises:
        FloraError: See above. Over land and water sigma0 is far below 1, so that dB are nearly all
            negative, while linear power is never negative.
    """
    if np.isinf(values).any():
        raise FloraError(
            f"{source} holds infinite values: expected dB, with NaN for nodata (10*log10(0) is "
            "-infinity: write NaN there)"
        )
    valid = values[np.isfinite(values)]
    if valid.size == 0:
        raise FloraError(
            f"{source} holds nodata only: expected backscatter in dB; exclude this chip: "
            f"{how_to_exclude(Path(source))}"
        )
    if looks_linear(values):
        raise FloraError(
            f"{source} looks like linear power (values from {valid.min():.3g} to "
            f"{valid.max():.3g}, none negative): expected dB; convert with 10*log10(value)"
        )


def looks_linear(values: FloatArray) -> bool:
    """Whether backscatter (NaN allowed) is never negative and small, as linear power is."""
    valid = values[np.isfinite(values)]
    return valid.size > 0 and bool(valid.min() >= 0 and np.median(valid) <= 5)


def picture_shape(path: Path) -> tuple[int, int]:
    """(rows, columns) of a picture, without decoding it."""
    with _open_picture(path) as picture:
        return picture.height, picture.width


def read_grey(path: Path) -> ByteArray:
    """Read a picture that is grey, however it is stored (1-bit, palette, equal channels): (H, W).

    Raises:
        FloraError: If the file is no 8-bit picture, is truncated or coloured.
    """
    counts, grey = _picture(path)
    if not grey:
        raise FloraError(f"{path} is a colour picture: expected a grey one; are folders swapped?")
    first: ByteArray = counts[0]
    return first


def read_colour(path: Path) -> ByteArray:
    """Read a picture of three bands: (3, H, W).

    Raises:
        FloraError: If the file is no 8-bit picture, is truncated or grey (all black is allowed).
    """
    counts, grey = _picture(path)
    if grey and counts.any():
        raise FloraError(f"{path} is a grey picture: expected three bands; are folders swapped?")
    return counts


def _picture(path: Path) -> tuple[ByteArray, bool]:
    """(3, H, W) counts, and whether the three channels are equal."""
    with _open_picture(path) as picture:
        try:
            counts = np.asarray(picture.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1)
        except PICTURE_ERRORS as error:
            raise FloraError(
                f"cannot decode {path} ({error}): it is truncated; download it again"
            ) from error
    grey = bool((counts[0] == counts[1]).all() and (counts[0] == counts[2]).all())
    return counts, grey


def _open_picture(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FloraError(
            f"{path} claims to be larger than {Image.MAX_IMAGE_PIXELS or 0:,} pixels ({error}): "
            "expected a chip; download it again"
        ) from error
    except PICTURE_ERRORS as error:
        raise FloraError(f"cannot read {path} as a picture ({error}): download it again") from error
    if picture.mode not in _PICTURE_MODES:
        raise FloraError(f"{path} holds pixels of kind {picture.mode!r}: expected 8-bit counts")
    return picture


def _raster_window(window: Window, grid: Grid, path: Path) -> RasterWindow:
    rows, columns = grid.shape
    bottom, right = window.row + window.height, window.column + window.width
    if min(window.row, window.column) < 0 or bottom > rows or right > columns:
        raise FloraError(f"{window} leaves {path.name} of {rows} x {columns} px: crop inside it")
    return RasterWindow(window.column, window.row, window.width, window.height)


def _unreadable(path: Path, error: Exception) -> FloraError:
    return FloraError(
        f"cannot read {readable(path)} as a raster ({readable(error)}): it is missing, truncated "
        "or of another format; download it again"
    )
