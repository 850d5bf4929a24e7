"""From where a radar looks at the ground: direction of flight, direction of the rays, incidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from numpy.polynomial.polynomial import polyval2d, polyvander2d
from rasterio.crs import CRS
from rasterio.warp import transform

from flora.grid import LON_LAT, Grid, apply, unwrapped
from flora.sensors import FloatArray

OrbitDirection = Literal["ascending", "descending"]
"""Whether the satellite flies north or south; Sentinel-1 looks to the right of its path."""

# Degrees from north in which the radar looks: 90 to the right of headings near -13 and 193. Over
# most land the heading lies within 6 degrees of these.
LOOK: dict[OrbitDirection, float] = {"ascending": 77.0, "descending": 283.0}

EARTH, HEIGHT = 6371e3, 700e3  # m: radius, and of Sentinel-1 above it
SWATH = (30.5, 46.0)  # degrees: the incidence angles of a scene of the wide swath
DEGREE = 2  # of the polynomial in each of a map's coordinates


@dataclass(frozen=True, eq=False)
class Viewing:
    """How a scene was looked at, from points of known place and angle.

    Attributes:
        flight: The direction of flight.
        longitude: (lines, pixels) of the points in degrees; pixels run away from the radar.
        latitude: (lines, pixels) in degrees.
        incidence: (lines, pixels), of the ray against the vertical of the ellipsoid, in degrees.
    """

    flight: OrbitDirection
    longitude: FloatArray
    latitude: FloatArray
    incidence: FloatArray

    def azimuth(self, crs: CRS) -> float:
        """Direction in which the rays go in the middle of the scene, degrees from a map's north."""
        middle = len(self.longitude) // 2
        x, y = self._on(crs)
        run, rise = x[middle, -1] - x[middle, 0], y[middle, -1] - y[middle, 0]
        return float(np.degrees(np.arctan2(run, rise)) % 360)

    def angles(self, grid: Grid) -> FloatArray:
        """Incidence (rows, columns) at the centres of a map's pixels, in degrees.

        A polynomial of the map's coordinates is fitted to the points: between
        those of an annotation it is off by some hundredths of a degree.
        """
        x, y = (values.ravel() for values in self._on(grid.crs or LON_LAT))
        at, by = (x.mean(), y.mean()), (np.ptp(x), np.ptp(y))
        terms = polyvander2d((x - at[0]) / by[0], (y - at[1]) / by[1], (DEGREE, DEGREE))
        weights = np.linalg.lstsq(terms, self.incidence.ravel(), rcond=None)[0]
        weights = weights.reshape(DEGREE + 1, DEGREE + 1)
        rows, columns = grid.shape
        found = np.empty(grid.shape, dtype=np.float32)
        for row in range(rows):
            u, v = apply(grid.transform, np.arange(columns) + 0.5, row + 0.5)
            found[row] = polyval2d((u - at[0]) / by[0], (v - at[1]) / by[1], weights)
        return found

    def __str__(self) -> str:
        low, high = self.incidence.min(), self.incidence.max()
        return f"{self.flight}, incidence {low:.1f} to {high:.1f} degrees"

    def _on(self, crs: CRS) -> tuple[FloatArray, FloatArray]:
        shape = self.longitude.shape
        there = transform(LON_LAT, crs, self.longitude.ravel(), self.latitude.ravel())
        x, y = (np.reshape(values, shape) for values in there)
        return (unwrapped(x.ravel()).reshape(shape) if crs.is_geographic else x), y


def swath_incidence(
    outline: FloatArray, flight: OrbitDirection, longitude: float, latitude: float
) -> float:
    """Angle of incidence at a place in a scene of the wide swath, in degrees, from its outline.

    The place's distance from the near edge, as a share of the outline's width in the direction of
    the rays, gives the distance from the satellite's track, and so the angle above a sphere.

    Args:
        outline: (n, 2) longitudes and latitudes of the scene's outline, in degrees.
        flight: The direction of flight.
        longitude: Of the place.
        latitude: Of the place.
    """
    north = (outline[:, 1].min() + outline[:, 1].max()) / 2
    squeeze = math.cos(math.radians(north))
    east = unwrapped(np.append(outline[:, 0], longitude)) * squeeze
    points = np.stack([east, np.append(outline[:, 1], latitude)], axis=-1)
    box = shapely.oriented_envelope(shapely.MultiPoint(points[:-1]))
    sides = np.diff(np.array(box.exterior.coords)[:3], axis=0)
    wanted = math.radians(LOOK[flight])
    ray = np.array([math.sin(wanted), math.cos(wanted)])
    lengths = np.linalg.norm(sides, axis=1)
    across = sides[np.argmax(np.abs(sides @ ray) / lengths)]
    across = across * np.sign(across @ ray) / np.linalg.norm(across)
    along = points @ across
    near, far = along[:-1].min(), along[:-1].max()
    share = float(np.clip((along[-1] - near) / (far - near), 0, 1))
    angles = np.linspace(*SWATH, 200)
    # From the angle at the ground, that at the satellite by the law of sines; their difference is
    # the angle at the centre of the earth, which grows with the distance.
    seen = np.radians(angles)
    centre = seen - np.arcsin(np.sin(seen) * EARTH / (EARTH + HEIGHT))
    return float(np.interp(centre[0] + share * (centre[-1] - centre[0]), centre, angles))
