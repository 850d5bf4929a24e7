"""What elevation says of a radar scene: slope, height above drainage, shadow and layover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

from flora.errors import FloraError, Given
from flora.grid import (
    GDAL_ERRORS,
    Grid,
    apply,
    check_georeference,
    map_crs,
    open_raster,
    read_bands,
)
from flora.scenes.names import IW_INCIDENCE
from flora.sensors import BoolArray, FloatArray

OrbitDirection = Literal["ascending", "descending"]
"""Whether the satellite flies north or south; Sentinel-1 looks to the right of its path."""

PIXEL = 30.0  # m: Copernicus DEM GLO-30
MARGIN = 3000.0  # m around a scene: what drains into it and shades it from beyond its edge
HEIGHTS = (-500.0, 9000.0)  # m: of all land
CHANNEL = 100  # cells that drain through one from which it is a channel, as in ASF's GLO-30 HAND
# Degrees from north in which the radar looks: 90 to the right of headings near -13 and 193. Over
# most land the heading lies within 6 degrees of these.
LOOK: dict[OrbitDirection, float] = {"ascending": 77.0, "descending": 283.0}


@dataclass(frozen=True)
class ElevationModel:
    """Elevation around a scene, in square pixels of metres.

    Attributes:
        grid: Where it lies: a UTM zone.
        elevation: (rows, columns) in m, NaN where it is not known.
    """

    grid: Grid
    elevation: FloatArray

    @property
    def known(self) -> BoolArray:
        """Where the elevation is known."""
        return np.asarray(np.isfinite(self.elevation))

    @cached_property
    def slope(self) -> FloatArray:
        """Angle of the ground against the horizontal (rows, columns), in degrees; NaN unknown."""
        steepness = np.hypot(*np.gradient(self.elevation, self.grid.transform.a))
        angle: FloatArray = np.degrees(np.arctan(steepness)).astype(np.float32)
        return angle

    @cached_property
    def hand(self) -> FloatArray:
        """Height above the nearest drainage (rows, columns), in m (Nobre et al. 2011).

        Depressions are filled, cells drain to the lowest of eight neighbours, and a cell through
        which `CHANNEL` cells drain is a channel. NaN where the elevation is not known.

        Raises:
            FloraError: If the extra `terrain` is missing.
        """
        check_installed()
        import pyflwdir

        unknown = -9999.0
        stored = np.where(self.known, self.elevation, unknown).astype(np.float32)
        flow = pyflwdir.from_dem(stored, nodata=unknown)
        channels = flow.upstream_area("cell") >= CHANNEL
        heights = np.asarray(flow.hand(channels, stored))
        return np.where(self.known, heights, np.nan).astype(np.float32)

    def hidden(self, orbit: OrbitDirection) -> BoolArray:
        """Where a mountain may shade the ground, or fold it over other ground (rows, columns).

        In the vertical plane of a ray with incidence angle i, ground at distance x and height z has
        the range r = x sin i - z cos i, and q = x cos i + z sin i across it. It lies in shadow if
        ground nearer to the radar has a larger q; in layover, if r does not grow with x (Kropatsch
        and Strobl 1990). The angle within the swath is not known here, so that shadow is sought at
        the flattest ray of the mode and layover at the steepest: more than there is.

        Args:
            orbit: The direction of flight.
        """
        turned = self._turned(LOOK[orbit])
        heights = np.full(turned.shape, np.nan, dtype=np.float32)
        place = {"src_crs": self.grid.crs, "dst_crs": self.grid.crs}
        forth = {"src_transform": self.grid.transform, "dst_transform": turned.transform, **place}
        reproject(
            self.elevation, heights, resampling=Resampling.bilinear, src_nodata=np.nan, **forth
        )
        back = {"src_transform": turned.transform, "dst_transform": self.grid.transform, **place}
        found = np.zeros(self.grid.shape, dtype=np.uint8)
        flags = _shadow(heights) | _layover(heights)
        reproject(flags.astype(np.uint8), found, resampling=Resampling.nearest, **back)
        return found.astype(bool)

    def _turned(self, azimuth: float) -> Grid:
        """A grid of the same pixels whose columns run away from the radar, around all of it."""
        rows, columns = self.grid.shape
        side = math.ceil(math.hypot(rows, columns))
        east, north = math.sin(math.radians(azimuth)), math.cos(math.radians(azimuth))
        x, y = apply(self.grid.transform, columns / 2, rows / 2)
        a, b, d, e = (PIXEL * part for part in (east, north, north, -east))
        corner = x - side / 2 * (a + b), y - side / 2 * (d + e)
        return Grid(self.grid.crs, Affine(a, b, corner[0], d, e, corner[1]), (side, side))


def check_installed() -> None:
    """Refuse to go on without the library that the height above drainage is computed by.

    Raises:
        FloraError: If the extra `terrain` is missing.
    """
    if find_spec("pyflwdir") is None:
        raise FloraError(
            "the height above drainage needs pyflwdir, which is not installed: "
            'pip install "flora[terrain]"'
        )


def _along(heights: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance (columns,) and height (rows, columns) in m; what is unknown lies far below."""
    x = PIXEL * np.arange(heights.shape[1], dtype=np.float64)
    return x, np.where(np.isfinite(heights), heights, -1e6)


def _shadow(heights: FloatArray) -> BoolArray:
    x, z = _along(heights)
    angle = math.radians(IW_INCIDENCE[1])
    across = x * math.cos(angle) + z * math.sin(angle)
    return np.asarray((across < np.maximum.accumulate(across, axis=1)) & np.isfinite(heights))


def _layover(heights: FloatArray) -> BoolArray:
    x, z = _along(heights)
    angle = math.radians(IW_INCIDENCE[0])
    seen = np.isfinite(heights)
    slant = x * math.sin(angle) - z * math.cos(angle)
    nearer = np.maximum.accumulate(np.where(seen, slant, -np.inf), axis=1)
    beyond = np.minimum.accumulate(np.where(seen, slant, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(((nearer > slant) | (beyond < slant)) & seen)


def read_terrain(dem: Sequence[str | Path], around: Grid) -> ElevationModel:
    """Read elevation around a scene from one file or several, such as tiles of Copernicus DEM.

    Args:
        dem: Rasters of elevation in m, each with a CRS; where they overlap, the first one counts.
        around: The scene's pixels.

    Raises:
        FloraError: If the scene has no CRS, a file is refused, or none reaches the scene.
    """
    grid = terrain_grid(around)
    elevation = np.full(grid.shape, np.nan, dtype=np.float32)
    for path in dem:
        heights = _read_heights(Path(path), grid)
        elevation = np.where(np.isfinite(elevation), elevation, heights)
    if not np.isfinite(elevation).any():
        raise FloraError(
            "no elevation within the scene",
            argument="dem",
            value=", ".join(map(str, dem)),
            remedy="choose the tiles of the same place",
        )
    return ElevationModel(grid, elevation)


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
    source = Given("dem", path)
    with open_raster(path, "dem") as file:
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
