"""Ground range products put on a map by orbit and elevation: each pixel at its true place.

The ellipsoid's radiometry stays: slopes that face the radar are brighter than level ground.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.transformer import TransformerGroup
from rasterio.enums import MaskFlags, Resampling
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window
from scipy import ndimage

from flora.errors import FloraError, FloraWarning
from flora.grid import LON_LAT, Grid, Part, apply, read_bands
from flora.scenes.elevation import PIXEL, elevation_on
from flora.scenes.safe.noise import Numbers
from flora.scenes.safe.range_doppler import EARTH_FIXED, ELLIPSOIDAL, RangeDoppler
from flora.sensors import FloatArray

ABOVE_GEOID = "EPSG:9518"  # WGS 84 with EGM2008 heights, those of Copernicus DEM
GEOID_LIMIT = 120.0  # m: the geoid lies within 110 m of the ellipsoid
SOURCE_SIDE = 1024  # px of the image: about what a block is resampled from
TERRAIN_TAG = "FLORA_TERRAIN_CORRECTED_BY"
EDGE = 2  # nodes around a part: what is interpolated between needs neighbours


@dataclass(frozen=True)
class Correction:
    """The elevation that terrain is corrected with.

    Attributes:
        dem: Rasters of elevation in m above the geoid; where they overlap, the first one counts;
            where there is none, sea level is taken.
        geoid: Height of the geoid above the ellipsoid in m; None asks PROJ for EGM2008.

    Raises:
        FloraError: If there is no file, or no geoid is so high.
    """

    dem: tuple[Path, ...]
    geoid: float | None = None

    def __post_init__(self) -> None:
        if not self.dem:
            raise FloraError("no file, expected one or more", argument="dem")
        if self.geoid is not None and not abs(self.geoid) <= GEOID_LIMIT:
            raise FloraError(
                f"expected -{GEOID_LIMIT:g} to {GEOID_LIMIT:g} m",
                argument="geoid",
                value=self.geoid,
            )

    def __str__(self) -> str:
        known = self.geoid is not None or geoid_model() is None
        geoid = f"geoid at {self.geoid or 0:g} m" if known else "geoid EGM2008"
        return f"{', '.join(path.name for path in self.dem)}; {geoid}"

    def check(self, grid: Grid) -> None:
        """Refuse elevation that lies elsewhere; warn where the geoid is not known.

        Raises:
            FloraError: If a file is refused, or none reaches the scene.
        """
        step = max(1, max(grid.shape) // 200)
        elevation_on(self.dem, grid.coarse(step), required=True)
        if self.geoid is None and geoid_model() is None:
            warnings.warn(
                FloraWarning(
                    "the geoid is not known (PROJ has no EGM2008 grid), and elevation is taken for "
                    "heights above the ellipsoid: each metre between the two displaces the map by "
                    "about 1.3 m across the flight",
                    argument="geoid",
                    remedy="look up the height of the geoid (EGM2008) at the place and pass it, "
                    "{geoid} where it is 48 m, or let PROJ have its grid us_nga_egm08_25.tif "
                    "(PROJ_NETWORK=ON, or projsync)",
                    geoid=GEOID_EXAMPLE,
                ),
                stacklevel=6,
            )


GEOID_EXAMPLE = 48.0


@lru_cache(maxsize=1)
def geoid_model() -> Transformer | None:
    """What turns heights above EGM2008 into places fixed to the earth; None without its grid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        known = TransformerGroup(ABOVE_GEOID, EARTH_FIXED, always_xy=True)
    return known.transformers[0] if known.best_available else None


@dataclass(frozen=True, eq=False)
class Nodes:
    """Where places lie in an image, at every `step`-th pixel of a map and around it.

    Attributes:
        step: Pixels of the map from node to node.
        line: (rows, columns) in the image.
        pixel: (rows, columns) in the image.
    """

    step: int
    line: Numbers
    pixel: Numbers

    def within(self, part: Part) -> tuple[Numbers, Numbers]:
        """Lines and pixels (height, width) of a part of the map, between the nodes linearly."""
        at = (
            (np.arange(first, first + side) + 0.5) / self.step - 0.5 + EDGE
            for first, side in ((part.row, part.height), (part.column, part.width))
        )
        where = np.meshgrid(*at, indexing="ij")
        line, pixel = (
            ndimage.map_coordinates(values, where, order=1, mode="nearest")
            for values in (self.line, self.pixel)
        )
        return line, pixel


@dataclass(frozen=True, eq=False)
class ProductGeometry:
    """A product's geometry on the ground.

    Attributes:
        image: The geometry of the image.
        correction: What terrain is corrected by.
    """

    image: RangeDoppler
    correction: Correction

    @lru_cache(maxsize=2)  # noqa: B019 - both polarisations of a strip ask one after the other
    def nodes(self, grid: Grid) -> Nodes:
        """Where a map's pixels lie in the image: nodes about as dense as elevation is."""
        sides = grid.pixel_metres() or (PIXEL, PIXEL)
        step = max(1, round(PIXEL / max(sides)))
        rows, columns = (-(-side // step) + 2 * EDGE for side in grid.shape)
        a, b, _, d, e, _ = grid.transform[:6]
        x, y = apply(grid.transform, -EDGE * step, -EDGE * step)
        moved = Affine(a * step, b * step, x, d * step, e * step, y)
        nodes = Grid(grid.crs, moved, (rows, columns))
        elevation = np.nan_to_num(elevation_on(self.correction.dem, nodes))
        row, column = np.mgrid[:rows, :columns] + 0.5
        x, y = apply(moved, column.ravel(), row.ravel())
        longitude, latitude = transform(nodes.crs, LON_LAT, x, y)
        place = self._earth_fixed(np.array(longitude), np.array(latitude), elevation.ravel())
        line, pixel = self.image.image_of(place)
        return Nodes(step, line.reshape(rows, columns), pixel.reshape(rows, columns))

    def _earth_fixed(
        self, longitude: NDArray[Any], latitude: NDArray[Any], height: NDArray[Any]
    ) -> NDArray[Any]:
        model = geoid_model() if self.correction.geoid is None else None
        if model is None:
            model = Transformer.from_crs(ELLIPSOIDAL, EARTH_FIXED, always_xy=True)
            height = height + (self.correction.geoid or 0.0)
        return np.stack(model.transform(longitude, latitude, height), axis=-1)


class CorrectedBand:
    """One polarisation on a map, read like an open raster: what `SarScene` asks of one.

    Args:
        parts: Open images of the slices in swath geometry, 0 in nodata, each with its geometry;
            where they overlap, the last one counts.
        grid: The map.
        resampling: Nearest or bilinear.

    Attributes:
        name: What messages call it.
        shape: Rows and columns.
    """

    count, indexes, dtypes, nodatavals = 1, (1,), ("float32",), (0.0,)
    mask_flag_enums = ([MaskFlags.nodata],)

    def __init__(
        self, parts: Sequence[tuple[Any, ProductGeometry]], grid: Grid, resampling: Resampling
    ) -> None:
        self._parts, self._grid = parts, grid
        self._order = 0 if resampling == Resampling.nearest else 1
        self.name, self.shape = parts[0][0].name, grid.shape

    def read(
        self,
        indexes: int | Sequence[int] = 1,
        window: Window | None = None,
        out_dtype: str = "float32",
    ) -> FloatArray:
        """Values of a part, (rows, columns), or with a list of bands (1, rows, columns)."""
        rows, columns = self.shape
        part = Part(0, 0, rows, columns)
        if window is not None:
            part = Part(*map(int, (window.row_off, window.col_off, window.height, window.width)))
        values = np.zeros((part.height, part.width), dtype=out_dtype)
        for image, ground in self._parts:
            nodes = ground.nodes(self._grid.part(part))
            for block in self._blocks(part):
                found = self._resampled(image, *nodes.within(block))
                there = np.s_[block.row : block.row + block.height]
                here = values[there, block.column : block.column + block.width]
                np.copyto(here, found, where=found > 0)
        return values if isinstance(indexes, int) else values[None]

    def _blocks(self, part: Part) -> Iterator[Part]:
        """Parts of a part, of which each lies in a small part of the image."""
        metres = max(self._grid.pixel_metres() or (PIXEL, PIXEL))
        spacing = self._parts[0][1].image.pixel_spacing
        side = max(16, round(SOURCE_SIDE * min(1.0, spacing / metres)))
        for row, column in product(range(0, part.height, side), range(0, part.width, side)):
            height, width = min(side, part.height - row), min(side, part.width - column)
            yield Part(row, column, height, width)

    def _resampled(self, image: Any, line: Numbers, pixel: Numbers) -> FloatArray:
        """Values of the image at lines and pixels (height, width), 0 where there are none."""
        height, width = image.shape
        inside = (line > -0.5) & (line < height - 0.5) & (pixel > -0.5) & (pixel < width - 0.5)
        if not inside.any():
            return np.zeros(line.shape, dtype=np.float32)
        (top, bottom), (left, right) = (
            (max(0, int(np.floor(at[inside].min()))), min(side, int(np.ceil(at[inside].max())) + 1))
            for at, side in ((line, height), (pixel, width))
        )
        window = Window(left, top, right - left, bottom - top)
        stored = read_bands(image, indexes=1, window=window, out_dtype="float32")
        where = np.stack([line - top, pixel - left])
        power, seen = (
            ndimage.map_coordinates(values, where, order=self._order, mode="nearest")
            for values in (stored, (stored > 0).astype(np.float32))
        )
        measured = inside & (seen > 0.5)
        return np.where(measured, power / np.where(measured, seen, 1), 0).astype(np.float32)
