"""Elevation around a scene, read from rasters such as tiles of Copernicus DEM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from flora.errors import FloraError, Given
from flora.grid import (
    GDAL_ERRORS,
    Grid,
    check_georeference,
    map_crs,
    open_raster,
    read_bands,
)
from flora.sensors import FloatArray

PIXEL = 30.0  # m: Copernicus DEM GLO-30
MARGIN = 3000.0  # m around a scene: what drains into it and shades it from beyond its edge
HEIGHTS = (-500.0, 9000.0)  # m: of all land


def elevation_on(dem: Sequence[str | Path], grid: Grid, *, required: bool = False) -> FloatArray:
    """Elevation on a grid (rows, columns) in m, NaN where it is not known.

    Args:
        dem: Rasters of elevation in m, each with a CRS; where they overlap, the first one counts.
        grid: Where it is wanted.
        required: Refuse files of which none reaches the grid.

    Raises:
        FloraError: If a file is refused.
    """
    elevation = np.full(grid.shape, np.nan, dtype=np.float32)
    for path in dem:
        heights = _read_heights(Path(path), grid)
        elevation = np.where(np.isfinite(elevation), elevation, heights)
    if required and not np.isfinite(elevation).any():
        raise FloraError(
            "no elevation within the scene",
            argument="dem",
            value=", ".join(map(str, dem)),
            remedy="choose the tiles of the same place",
        )
    return elevation


def terrain_grid(around: Grid) -> Grid:
    """Pixels of `PIXEL` m in the UTM zone of a scene, `MARGIN` wider on every side.

    Raises:
        FloraError: If the scene has no CRS, or lies beyond UTM.
    """
    if around.crs is None:
        raise FloraError(
            "the scene has no CRS, so that no elevation can be laid on it",
            argument="dem",
            remedy="pass {grid} if it has ground control points, or leave {dem} out",
            grid="utm",
            dem="FILE",
        )
    crs = map_crs("utm", around.lon_lat_box())
    x, y = around.outline(crs)
    left, top = x.min() - MARGIN, y.max() + MARGIN
    columns = math.ceil((x.max() + MARGIN - left) / PIXEL)
    rows = math.ceil((top - y.min() + MARGIN) / PIXEL)
    return Grid(crs, Affine(PIXEL, 0.0, left, 0.0, -PIXEL, top), (rows, columns))


def _read_heights(path: Path, grid: Grid) -> FloatArray:
    with open_raster(path, "dem") as file:
        return heights_on(file, grid, Given("dem", path))


def heights_on(file: Any, grid: Grid, source: Given) -> FloatArray:
    """An open raster of elevation on a grid (rows, columns) in m, NaN where it says nothing.

    Args:
        file: The raster.
        grid: Where it is wanted.
        source: What messages call it.

    Raises:
        FloraError: If it has no CRS, cannot be read, or holds no elevation.
    """
    if file.crs is None:
        raise FloraError("no CRS", argument=source, remedy="georeference it first")
    own = Grid.of(file)
    check_georeference(own, source, resampled=True)
    heights = _warped(file, own, grid, source)
    seen = heights[np.isfinite(heights)]
    low, high = HEIGHTS
    if seen.size and (seen.min() < low or seen.max() > high):
        raise FloraError(
            f"values from {seen.min():.4g} to {seen.max():.4g}, expected elevation in m",
            argument=source,
            remedy="declare its nodata value (gdal_edit -a_nodata), or choose another file",
        )
    return heights


def _warped(file: Any, own: Grid, grid: Grid, source: Given) -> FloatArray:
    finer = math.sqrt(abs(own.transform.determinant))
    if own.crs is not None and own.crs.is_geographic:
        finer *= 111_000
    how = Resampling.average if finer < PIXEL / 2 else Resampling.bilinear
    try:
        with WarpedVRT(
            file,
            crs=grid.crs,
            transform=grid.transform,
            height=grid.shape[0],
            width=grid.shape[1],
            resampling=how,
            nodata=np.nan,
            dtype="float32",
        ) as view:
            values: FloatArray = read_bands(view, source=source, indexes=1)
    except GDAL_ERRORS as error:
        raise FloraError(f"cannot be laid on the scene ({error})", argument=source) from error
    return values
