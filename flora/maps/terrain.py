"""What elevation says of a radar scene: slope, height above drainage, shadow and layover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from flora.errors import FloraError
from flora.grid import LON_LAT, Grid, apply
from flora.scenes.elevation import PIXEL, elevation_on, terrain_grid
from flora.scenes.names import IW_INCIDENCE
from flora.scenes.viewing import LOOK, OrbitDirection, Viewing
from flora.sensors import BoolArray, FloatArray

CHANNEL = 100  # cells that drain through one from which it is a channel, as in ASF's GLO-30 HAND


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

    def hidden(self, view: Viewing | OrbitDirection) -> BoolArray:
        """Where a mountain may shade the ground, or fold it over other ground (rows, columns).

        In the vertical plane of a ray with incidence angle i, dr = sin i dx - cos i dz is how the
        range grows with distance x and height z, and dq = cos i dx + sin i dz how the ray rises
        across it. Ground lies in shadow if ground nearer to the radar has a larger q; in layover,
        if r does not grow with x (Kropatsch and Strobl 1990).

        Args:
            view: How the radar looked. Of the direction of flight alone the angle within the swath
                does not follow, so that shadow is sought at the flattest ray of the mode and
                layover at the steepest: more than there is.
        """
        azimuth = view.azimuth(self._crs) if isinstance(view, Viewing) else LOOK[view]
        turned = self._turned(azimuth)
        heights = np.full(turned.shape, np.nan, dtype=np.float32)
        place = {"src_crs": self.grid.crs, "dst_crs": self.grid.crs}
        forth = {"src_transform": self.grid.transform, "dst_transform": turned.transform, **place}
        reproject(
            self.elevation, heights, resampling=Resampling.bilinear, src_nodata=np.nan, **forth
        )
        back = {"src_transform": turned.transform, "dst_transform": self.grid.transform, **place}
        found = np.zeros(self.grid.shape, dtype=np.uint8)
        if isinstance(view, Viewing):
            steepest = flattest = np.radians(view.angles(turned))
        else:
            steepest, flattest = (np.radians(np.full((1, 1), angle)) for angle in IW_INCIDENCE)
        flags = _shadow(heights, flattest) | _layover(heights, steepest)
        reproject(flags.astype(np.uint8), found, resampling=Resampling.nearest, **back)
        return found.astype(bool)

    @property
    def _crs(self) -> CRS:
        return self.grid.crs or LON_LAT

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


def _shadow(heights: FloatArray, angle: FloatArray) -> BoolArray:
    """Where ground nearer to the radar rises higher across the ray; angles in radians."""
    seen = np.isfinite(heights)
    z = np.where(seen, heights, -1e6)  # what is unknown hides nothing
    across = _summed(np.cos(angle), heights.shape) + z * np.sin(angle)
    return np.asarray((across < np.maximum.accumulate(across, axis=1)) & seen)


def _layover(heights: FloatArray, angle: FloatArray) -> BoolArray:
    """Where ground at another distance has the same range; angles in radians."""
    seen = np.isfinite(heights)
    slant = _summed(np.sin(angle), heights.shape) - heights * np.cos(angle)
    nearer = np.maximum.accumulate(np.where(seen, slant, -np.inf), axis=1)
    beyond = np.minimum.accumulate(np.where(seen, slant, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(((nearer > slant) | (beyond < slant)) & seen)


def _summed(share: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """A share of the distance, summed along the ray from its first pixel on."""
    summed: FloatArray = np.cumsum(np.broadcast_to(PIXEL * share, shape), axis=1)
    return summed


def read_terrain(dem: Sequence[str | Path], around: Grid) -> ElevationModel:
    """Read elevation around a scene from one file or several, such as tiles of Copernicus DEM.

    Args:
        dem: Rasters of elevation in m, each with a CRS; where they overlap, the first one counts.
        around: The scene's pixels.

    Raises:
        FloraError: If the scene has no CRS, a file is refused, or none reaches the scene.

    Example:
        >>> from flora import open_scene
        >>> from flora.maps.terrain import read_terrain
        >>> with open_scene("S1.tif") as scene:  # doctest: +SKIP
        ...     terrain = read_terrain(["dem.tif"], scene.grid)
    """
    grid = terrain_grid(around)
    return ElevationModel(grid, elevation_on(dem, grid, required=True))
