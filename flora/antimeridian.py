"""Grids across 180 degrees of longitude, where most coordinate systems are cut."""

from __future__ import annotations

import math
from typing import Any

from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from flora.grid import Grid, apply

MERCATOR = CRS.from_epsg(3857)
RADIUS = 6378137.0  # m: of the sphere of Web Mercator, the semi-major axis of WGS 84


def across(grid: Grid) -> float | None:
    """Longitude of the middle of a grid that reaches beyond ±180 degrees, else None.

    Its west edge is taken within ±180 degrees, so that the middle may lie east of 180.
    """
    west, _, east, _ = grid.lon_lat_box()
    if west >= -180 and east <= 180:
        return None
    return (west + 180) % 360 - 180 + (east - west) / 2


def mercator(middle: float | None) -> CRS:
    """Web Mercator, or the same coordinates cut opposite to a middle longitude in degrees."""
    if middle is None:
        return MERCATOR
    return CRS.from_proj4(
        f"+proj=merc +a={RADIUS} +b={RADIUS} +lat_ts=0 +lon_0={(middle + 180) % 360 - 180!r} "
        f"+x_0={RADIUS * math.radians(middle)!r} +y_0=0 +k=1 +units=m +nadgrids=@null +wktext "
        "+no_defs"
    )


def seamless(grid: Grid) -> Grid:
    """The same pixels in a CRS that is not cut within them, for GDAL's transformations."""
    middle = None if grid.crs is None else across(grid)
    if middle is None or grid.crs is None:
        return grid
    centre = apply(grid.transform, grid.shape[1] / 2, grid.shape[0] / 2)[0]
    if grid.crs == MERCATOR:
        turns = round((centre / RADIUS - math.radians(middle)) / (2 * math.pi))
        return Grid(mercator(middle + 360 * turns), grid.transform, grid.shape)
    if not grid.crs.is_geographic:
        return grid  # UTM and its like run on
    # Longitudes are counted from the middle, as from a prime meridian.
    unit = math.degrees(grid.crs.units_factor[1])
    turns = round((centre * unit - middle) / 360)
    shift = (middle + 360 * turns) / unit
    crs = CRS.from_proj4(f"{grid.crs.to_proj4()} +pm={(middle + 180) % 360 - 180!r}")
    a, b, c, d, e, f = grid.transform[:6]
    return Grid(crs, Affine(a, b, c - shift, d, e, f), grid.shape)


def view_on(dataset: Any, target: Grid, **options: Any) -> WarpedVRT:
    """A view of an open raster on another grid, even where the longitudes of one run on beyond 180.

    Args:
        dataset: The raster.
        target: The grid.
        options: Passed to rasterio's `WarpedVRT`.
    """
    own, onto = seamless(Grid.of(dataset)), seamless(target)
    return WarpedVRT(
        dataset,
        src_crs=own.crs,
        src_transform=own.transform,
        crs=onto.crs,
        transform=onto.transform,
        height=target.shape[0],
        width=target.shape[1],
        **options,
    )
