"""What the pixels of a raster measure on the ground, whatever its projection does to areas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

# WGS 84. Other datums' ellipsoids change areas by less than 0.02 %.
SEMI_MAJOR_AXIS = 6378137.0
ECCENTRICITY_SQUARED = 0.00669437999014

REACH = (
    640.0  # m to either side over which differences are taken: the earth is flat, rounding small
)
SPACING = 6378.0  # m between points where areas are computed: a thousandth of a radian
PART = 128  # rows summed at a time, so that no large copy is made
UNIFORM = 1e-8  # relative: areas that differ by less in a row are rounding alone


class CellAreas:
    """Areas of the cells of a raster on the WGS 84 ellipsoid.

    A cell is spanned by the tangents of the ellipsoid along a row and along a column, which are
    taken from coordinates that the inverse projection gives; no property of the projection is
    assumed. That is done at points a thousandth of a radian apart, between which the areas of
    map projections change so smoothly that a linear interpolation is off by less than 1e-6.

    Args:
        crs: CRS of the raster.
        transform: From (column, row) to coordinates of the CRS.
        shape: (rows, columns).

    Raises:
        ValueError: If the CRS is neither geographic nor projected; see `measurable`.
    """

    def __init__(self, crs: Any, transform: Any, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._ground = _Ground(crs, transform)
        sides = zip(shape, reversed(self._ground.nominal), strict=True)
        rows, columns = (_nodes(count, metres) for count, metres in sides)
        v, u = np.meshgrid(rows, columns, indexing="ij")
        areas = np.linalg.norm(np.cross(*self._ground.tangents(u, v)), axis=-1) / 1e6
        # Beyond the edge of a projection there is no ground.
        areas = np.where(np.isfinite(areas), areas, 0.0)
        if np.ptp(areas, axis=1).max() <= UNIFORM * areas.max():
            areas, columns = areas[:, :1], columns[:1]
        self._rows, self._columns, self._areas = rows, columns, areas

    def rows(self, row: int, height: int) -> NDArray[np.float64]:
        """Areas in km2 of the cells of whole rows: (height, columns), not to be written into."""
        lines, upper, lower, share = self._around(row, height)
        areas = lines[upper] + share[:, None] * (lines[lower] - lines[upper])
        return np.broadcast_to(areas, (height, self.shape[1]))

    def sum(self, row: int, chosen: NDArray[np.bool_]) -> float:
        """Area in km2 of the chosen cells (height, columns) of rows that begin at `row`."""
        lines, upper, lower, share = self._around(row, len(chosen))
        if len(self._columns) == 1:
            summed = np.count_nonzero(chosen, axis=1)[:, None] * lines.T
        else:
            parts = (chosen[first : first + PART] for first in range(0, len(chosen), PART))
            summed = np.concatenate([part @ lines.T for part in parts])
        one = np.arange(len(chosen))
        above, below = summed[one, upper], summed[one, lower]
        return float((above + share * (below - above)).sum())

    def _around(self, row: int, height: int) -> tuple[NDArray[np.float64], *tuple[Any, ...]]:
        """Areas along the nodes around some rows, and of each row the nodes and its place."""
        before, share = _between(self._rows, np.arange(row, row + height) + 0.5)
        first, last = before[0], min(before[-1] + 1, len(self._rows) - 1)
        lines = self._areas[first : last + 1]
        if len(self._columns) > 1:
            across = np.arange(self.shape[1]) + 0.5
            lines = np.stack([np.interp(across, self._columns, line) for line in lines])
        return lines, before - first, np.minimum(before - first + 1, last - first), share

    @property
    def largest(self) -> float:
        """Area in km2 of the largest cell."""
        return float(self._areas.max())

    @property
    def total(self) -> float:
        """Area in km2 of all cells."""
        down, across = (
            _weights(nodes, count)
            for nodes, count in zip((self._rows, self._columns), self.shape, strict=True)
        )
        return float(down @ self._areas @ across)


def measurable(crs: Any) -> bool:
    """Whether coordinates of a CRS (or None) say where on the earth they are and how far apart."""
    return crs is not None and bool(crs.is_geographic or crs.is_projected)


def pixel_metres(crs: Any, transform: Any, shape: tuple[int, int]) -> tuple[float, float] | None:
    """Width and height of the middle pixel on the ground, in metres; None if not `measurable`."""
    if not measurable(crs):
        return None
    middle = np.array([shape[1] / 2]), np.array([shape[0] / 2])
    width, height = (
        float(np.linalg.norm(tangent)) for tangent in _Ground(crs, transform).tangents(*middle)
    )
    return width, height


class _Ground:
    """The surface of the ellipsoid under a raster, in geocentric coordinates."""

    def __init__(self, crs: Any, transform: Any) -> None:
        if not measurable(crs):
            raise ValueError(f"{crs} is neither geographic nor projected")
        own = pyproj.CRS.from_wkt(crs.to_wkt(version="WKT2_2019")).to_2d()
        # Of a rotated pole: the longitude and latitude that it is derived from.
        rotated = own.is_derived and not own.is_projected
        base: Any = own.source_crs if rotated else own.geodetic_crs
        # Into its own longitude and latitude, without a change of datum: that one may jump.
        self._inverse = pyproj.Transformer.from_crs(own, base, always_xy=True)
        self._degree = base.axis_info[0].unit_conversion_factor
        unit = own.axis_info[0].unit_conversion_factor
        unit *= SEMI_MAJOR_AXIS if crs.is_geographic else 1.0
        a, b, _, d, e, _ = transform[:6]
        self._transform = transform[:6]
        self.nominal = unit * math.hypot(a, d), unit * math.hypot(b, e)

    def tangents(self, u: Any, v: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Vectors (..., 3) in metres along a column and along a row of one pixel, at points."""
        along, down = (REACH / metres for metres in self.nominal)
        east = self._surface(u + along, v) - self._surface(u - along, v)
        south = self._surface(u, v + down) - self._surface(u, v - down)
        return east / (2 * along), south / (2 * down)

    def _surface(self, u: Any, v: Any) -> NDArray[np.float64]:
        """Geocentric x, y, z (..., 3) in metres of columns and rows (Snyder 1987, eq. 4-20)."""
        a, b, c, d, e, f = self._transform
        angles = self._inverse.transform(a * u + b * v + c, d * u + e * v + f)
        longitude, latitude = (np.asarray(angle) * self._degree for angle in angles)
        normal = SEMI_MAJOR_AXIS / np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
        parallel = normal * np.cos(latitude)
        polar = normal * (1 - ECCENTRICITY_SQUARED) * np.sin(latitude)
        return np.stack(
            [parallel * np.cos(longitude), parallel * np.sin(longitude), polar], axis=-1
        )


def _nodes(count: int, metres: float) -> NDArray[np.float64]:
    """Middles of some of `count` pixels of a size, the first and the last among them."""
    spaces = math.ceil((count - 1) * metres / SPACING)
    return np.linspace(0.5, count - 0.5, min(count, spaces + 1))


def _between(
    nodes: NDArray[np.float64], places: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of the node before each place, and how far it is on the way to the next one."""
    number = np.interp(places, nodes, np.arange(len(nodes)))
    before = np.minimum(number.astype(np.int64), max(0, len(nodes) - 2))
    return before, number - before


def _weights(nodes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """How many of `count` pixels each node stands for."""
    before, share = _between(nodes, np.arange(count) + 0.5)
    weights = np.zeros(len(nodes) + 1)
    np.add.at(weights, before, 1 - share)
    np.add.at(weights, before + 1, share)
    return weights[:-1]
