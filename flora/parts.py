"""The part of a grid that a window in pixels or a box in degrees names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

from flora.errors import NAME_ALONE, FloraError
from flora.grid import GDAL_ERRORS, LON_LAT, Grid, LonLatBox, Part, PixelWindow, apply

EDGE = 0.01  # degrees, about 1 km: more than any change of datum moves a box
EDGE_POINTS = 181  # along each side of a box, which is curved in most projections
MOST_PIXELS = 50_000_000_000  # a hundred products of interferometric wide swath


def choose_part(grid: Grid, window: PixelWindow | None, bbox: LonLatBox | None, scene: str) -> Part:
    """The part of a grid that a window in pixels or a box in degrees names; all of it without.

    Args:
        grid: Whose pixels are meant.
        window: (column, row, width, height), wholly inside.
        bbox: (west, south, east, north), WGS 84; clipped to the grid.
        scene: What messages call the scene.

    Raises:
        FloraError: If both are given, one is malformed, it does not lie on the grid, or is larger
            than any scene.
    """
    part = _named_part(grid, window, bbox, scene)
    if part.width * part.height > MOST_PIXELS:
        raise FloraError(
            f"{scene} has {part.width:,} x {part.height:,} px, expected at most {MOST_PIXELS:,} px "
            "at once",
            remedy="choose a part, with {window} or {bbox}",
            window=NAME_ALONE,
            bbox=NAME_ALONE,
        )
    return part


def _named_part(grid: Grid, window: PixelWindow | None, bbox: LonLatBox | None, scene: str) -> Part:
    rows, columns = grid.shape
    if window is not None and bbox is not None:
        raise FloraError(
            "{window} and {bbox}: expected one of them",
            remedy="leave one out",
            window=window,
            bbox=bbox,
        )
    if window is not None:
        return _checked_window(grid, window, scene)
    if bbox is None:
        return Part(0, 0, rows, columns)
    west, south, east, north = bbox
    if not (-360 <= west < east <= 360 and -90 <= south < north <= 90):
        raise FloraError(
            "expected west < east and south < north in degrees",
            argument="bbox",
            value=bbox,
            remedy="check the order (west, south, east, north), and cut a box across the "
            "antimeridian in two",
        )
    if grid.crs is None:
        raise FloraError(
            f"{scene} has no CRS to find it in",
            argument="bbox",
            value=bbox,
            remedy="pass {window} in pixels, or {grid} if the file has ground control points",
            window=NAME_ALONE,
            grid="utm",
        )
    box = _cut(grid, bbox, scene)
    if box is None:
        return Part(0, 0, rows, columns)
    left, bottom, right, top = box
    x, y = np.array([left, left, right, right]), np.array([bottom, top, bottom, top])
    u, v = apply(~grid.transform, x, y)
    low, high = (u.min(), v.min()), (u.max(), v.max())
    part = part_around(np.maximum(low, 0), np.minimum(high, (columns, rows)))
    if part.width < 1 or part.height < 1:
        raise _no_overlap(grid, bbox, scene)
    return part


def part_around(low: Sequence[float] | NDArray[Any], high: Sequence[float] | NDArray[Any]) -> Part:
    """The whole pixels around a rectangle from corner `low` to `high`, each (column, row).

    A corner on a pixel's edge does not draw in the next pixel through rounding.
    """
    left, top = np.floor(np.asarray(low) + 1e-6).astype(int).tolist()
    right, bottom = np.ceil(np.asarray(high) - 1e-6).astype(int).tolist()
    return Part(top, left, bottom - top, right - left)


def _cut(grid: Grid, bbox: LonLatBox, scene: str) -> LonLatBox | None:
    """The box in coordinates of a grid, where it does not reach beyond it; None if it holds it all.

    What lies far outside has no place in most projections. Longitudes are taken a turn of the
    earth on or back, where the grid counts them so.

    Raises:
        FloraError: If it does not reach the grid, or has no place in its CRS.
    """
    own = grid.lon_lat_box()
    if not np.isfinite(own).all():
        raise _no_place(grid, bbox, "part of the scene has no longitude and latitude")
    whole = bbox[2] - bbox[0] >= 360
    sides = [(max(own[0], bbox[0] + turn), min(own[2], bbox[2] + turn)) for turn in (-360, 0, 360)]
    west, east = own[0::2] if whole else max(sides, key=lambda side: side[1] - side[0])
    south, north = max(own[1], bbox[1]), min(own[3], bbox[3])
    if west - east > EDGE or south - north > EDGE:
        raise _no_overlap(grid, bbox, scene)
    if (west, south, east, north) == own:
        return None
    try:
        box = transform_bounds(
            LON_LAT,
            grid.crs,
            west - EDGE * (west == own[0]),
            max(-90, south - EDGE * (south == own[1])),
            east + EDGE * (east == own[2]),
            min(90, north + EDGE * (north == own[3])),
            densify_pts=EDGE_POINTS,
        )
    except GDAL_ERRORS as error:
        raise _no_place(grid, bbox, str(error)) from error
    left, bottom, right, top = box
    if grid.crs is not None and grid.crs.is_geographic:
        turn = 360 / math.degrees(grid.crs.units_factor[1])
        shift = turn * round(((grid.bounds[0] + grid.bounds[2]) / 2 - (left + right) / 2) / turn)
        left, right = left + shift, right + shift
    return left, bottom, right, top


def _no_place(grid: Grid, bbox: LonLatBox, reason: str) -> FloraError:
    return FloraError(
        f"cannot be converted to {grid.crs} ({reason})",
        argument="bbox",
        value=bbox,
        remedy="choose a box within the scene, or pass {window}",
        window=NAME_ALONE,
    )


def _no_overlap(grid: Grid, bbox: LonLatBox, scene: str) -> FloraError:
    spans = ", ".join(f"{degrees:.4f}" for degrees in grid.lon_lat_box())
    return FloraError(
        f"does not overlap {scene}, which spans {spans}",
        argument="bbox",
        value=bbox,
        remedy="choose a box inside (west, south, east, north)",
    )


def _checked_window(grid: Grid, window: PixelWindow, scene: str) -> Part:
    column, row, width, height = window
    rows, columns = grid.shape
    inside = min(column, row) >= 0 and column + width <= columns and row + height <= rows
    if not inside or min(width, height) < 1:
        raise FloraError(
            f"expected (column, row, width, height) inside {scene} of {columns} x {rows} px "
            "(width x height)",
            argument="window",
            value=window,
            remedy="choose a smaller one",
        )
    return Part(row, column, height, width)
