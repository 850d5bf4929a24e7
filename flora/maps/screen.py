"""Where the layers of a map lie on a screen: square pixels of Web Mercator, also across 180°."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points

from flora.antimeridian import MERCATOR, RADIUS, across, mercator, seamless
from flora.errors import FloraError
from flora.grid import Grid, apply, read_bands


@dataclass(frozen=True)
class Screen:
    """The pixels of a map.

    Attributes:
        grid: Square pixels of Web Mercator (EPSG:3857), where x runs on beyond 180 degrees east;
            of a scene without a CRS its reduced pixels.
        crs: What the layers are warped to: the same coordinates, but cut on the other side of the
            earth, so that a scene across 180 degrees stays in one piece.
    """

    grid: Grid
    crs: CRS | None

    @classmethod
    def of(cls, file: Any, size: int) -> Self:
        """The screen of an open raster, at most `size` pixels a side and never finer than it.

        Raises:
            FloraError: If the raster reaches where Web Mercator ends, near the poles.
        """
        own = Grid.of(file)
        rows, columns = own.shape
        if own.crs is None:
            step = max(1.0, max(rows, columns) / size)
            shape = (math.ceil(rows / step), math.ceil(columns / step))
            scale = Affine.scale(columns / shape[1], rows / shape[0])
            return cls(Grid(None, scale, shape), None)
        crs = mercator(across(own))
        x, y = seamless(own).outline(crs)
        if not (np.isfinite(x).all() and np.isfinite(y).all() and np.abs(y).max() < 2.5e7):
            raise FloraError(f"{file.name}: reaches too near a pole for a map in Web Mercator")
        # The outline goes along the top and then down the right side.
        side = len(x) // 4
        top, right = (
            np.hypot(np.diff(x[part]), np.diff(y[part])).sum()
            for part in (slice(side), slice(side, 2 * side))
        )
        native = math.sqrt(top / columns * right / rows)
        width, height = float(np.ptp(x)), float(np.ptp(y))
        pixel = max(native, max(width, height) / size)
        # Float noise must not add a row or a column.
        shape = (math.ceil(height / pixel - 0.01), math.ceil(width / pixel - 0.01))
        transform = Affine(pixel, 0.0, float(x.min()), 0.0, -pixel, float(y.max()))
        return cls(Grid(MERCATOR, transform, shape), crs)

    def read(
        self, file: Any, bands: tuple[int, ...], nodata: float = math.nan
    ) -> NDArray[np.float32]:
        """Bands (C, H, W) of an open raster, as stored; `nodata` where there is nothing.

        Raises:
            FloraError: If the map has a CRS and the raster none, or it is damaged.
        """
        shape = self.grid.shape
        reduced = file.width * file.height > 2 * shape[0] * shape[1]
        how = Resampling.average if reduced else Resampling.nearest
        if self.crs is None or file.crs is None:
            if self.crs is not None:
                raise FloraError(f"{file.name}: has no CRS, so it cannot be laid on the map")
            values = read_bands(
                file, indexes=bands, out_shape=(len(bands), *shape), resampling=how
            ).astype(np.float32)
            if file.nodata is not None:
                values[values == np.float32(file.nodata)] = nodata
            return values
        own = seamless(Grid.of(file))
        with WarpedVRT(
            file,
            src_crs=own.crs,
            src_transform=own.transform,
            crs=self.crs,
            transform=self.grid.transform,
            height=shape[0],
            width=shape[1],
            resampling=how,
            src_nodata=nodata if file.nodata is None else file.nodata,
            nodata=nodata,
            dtype="float32",
        ) as warped:
            return read_bands(warped, source=file.name, indexes=bands)

    def pixels_of(self, file: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column (H, W) of the raster's pixel under each pixel; -1 outside."""
        shape = self.grid.shape
        row, column = np.mgrid[: shape[0], : shape[1]].reshape(2, -1) + 0.5
        x, y = apply(self.grid.transform, column, row)
        own = seamless(Grid.of(file))
        if self.crs is not None:
            x, y = np.array(transform_points(self.crs, own.crs, x, y))
        column, row = apply(~own.transform, x, y)
        inside = (row >= 0) & (row < file.height) & (column >= 0) & (column < file.width)
        rows, columns = (np.where(inside, np.floor(v), -1).astype(np.int64) for v in (row, column))
        return rows.reshape(shape), columns.reshape(shape)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Column and row (n, 2) of points in longitude and latitude (n, 2), in degrees."""
        longitude, latitude = np.radians(points).T
        transform, columns = self.grid.transform, self.grid.shape[1]
        middle = transform.c + transform.a * columns / 2
        circle = 2 * math.pi * RADIUS
        x = RADIUS * longitude
        x -= circle * np.round((x - middle) / circle)
        y = RADIUS * np.arcsinh(np.tan(latitude))
        return np.stack(apply(~transform, x, y), axis=1)
