"""Where a place on the ground lies in a Sentinel-1 ground range product: by orbit and range.

The range-Doppler equations, solved for zero Doppler, after Small and Schubert, Guide to Sentinel-1
Geocoding (UZH-S1-GC-AD, ESA); the annotation's layout after the Sentinel-1 Product Specification
(S1-RS-MDA-52-7441).
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from flora.errors import FloraError, Given
from flora.scenes.safe.noise import Numbers

LIGHT = 299_792_458.0  # m/s
ITERATIONS = 5  # of Newton's method, each of which squares the error: it starts within seconds
ELLIPSOIDAL, EARTH_FIXED = "EPSG:4979", "EPSG:4978"


@dataclass(frozen=True, eq=False)
class RangeDoppler:
    """The geometry of one product.

    Attributes:
        orbit: Position (3,) in m, fixed to the earth, by seconds since the first line.
        line_time: Seconds from line to line.
        pixel_spacing: Metres of ground range from pixel to pixel.
        times: (n,) of the polynomials that turn slant range into ground range, in seconds.
        origins: (n,) of slant range, that these count from.
        coefficients: (n, degree + 1), the constant first.
        ranges: The least and the largest slant range of the image, in m.
    """

    orbit: CubicHermiteSpline
    line_time: float
    pixel_spacing: float
    times: Numbers
    origins: Numbers
    coefficients: Numbers
    ranges: tuple[float, float]

    def image_of(self, place: Numbers) -> tuple[Numbers, Numbers]:
        """Line and pixel, (0, 0) the centre of the first one, of places (..., 3) on the ground.

        Places are coordinates in m fixed to the earth (`EARTH_FIXED`).
        """
        velocity, acceleration = self.orbit.derivative(), self.orbit.derivative(2)
        time = np.full(place.shape[:-1], float(self.times.mean()))
        for _ in range(ITERATIONS):
            ray, speed = place - self.orbit(time), velocity(time)
            doppler = (ray * speed).sum(axis=-1)
            time = time - doppler / ((ray * acceleration(time)).sum(axis=-1) - (speed**2).sum(-1))
        slant = np.linalg.norm(place - self.orbit(time), axis=-1)
        return time / self.line_time, self._ground_range(time, slant) / self.pixel_spacing

    def _ground_range(self, time: Numbers, slant: Numbers) -> Numbers:
        """Of the polynomials before and after, between which the time lies, interpolated.

        Beyond the ranges of the image, where polynomials of this degree run wild, straight on.
        """
        place = np.interp(time, self.times, np.arange(len(self.times)))
        before = np.floor(place).astype(int)
        after = np.minimum(before + 1, len(self.times) - 1)
        share = place - before
        inside = slant.clip(*self.ranges)
        ground, slope = np.zeros_like(slant), np.zeros_like(slant)
        for at, weight in ((before, 1 - share), (after, share)):
            from_origin = inside - self.origins[at]
            for power in range(self.coefficients.shape[1]):
                factor = weight * self.coefficients[at, power]
                ground += factor * from_origin**power
                if power:
                    slope += factor * power * from_origin ** (power - 1)
        beyond: Numbers = ground + slope * (slant - inside)
        return beyond


def range_doppler_of(annotation: bytes | None, source: Given) -> RangeDoppler:
    """The geometry that a product's annotation tells.

    Args:
        annotation: Its text.
        source: What messages call it.

    Raises:
        FloraError: If there is none, or it lacks orbit, line times or ranges.
    """
    try:
        tree = ElementTree.fromstring(annotation or b"")
        start = np.datetime64(_text(tree, ".//imageInformation/productFirstLineUtcTime"))
        orbits = tree.findall(".//orbitList/orbit")
        ranges = tree.findall(".//coordinateConversionList/coordinateConversion")
        if len(orbits) < 2 or not ranges:
            raise ValueError(f"{len(orbits)} orbit positions, {len(ranges)} range polynomials")
        delays = [
            float(p.text or "") for p in tree.iterfind(".//geolocationGridPoint/slantRangeTime")
        ]
        known = [_seconds(orbit, "time", start) for orbit in orbits]
        position, velocity = (
            np.array(
                [[float(_text(orbit, f"{what}/{axis}")) for axis in "xyz"] for orbit in orbits]
            )
            for what in ("position", "velocity")
        )
        return RangeDoppler(
            CubicHermiteSpline(known, position, velocity),
            float(_text(tree, ".//imageInformation/azimuthTimeInterval")),
            float(_text(tree, ".//imageInformation/rangePixelSpacing")),
            np.array([_seconds(one, "azimuthTime", start) for one in ranges]),
            np.array([float(_text(one, "sr0")) for one in ranges]),
            np.array([_text(one, "srgrCoefficients").split() for one in ranges], dtype=float),
            (min(delays) * LIGHT / 2, max(delays) * LIGHT / 2),
        )
    except (ElementTree.ParseError, ValueError) as error:
        raise FloraError(
            f"its annotation does not tell orbit and ranges ({error}), without which terrain "
            "cannot be corrected",
            argument=source,
            remedy="unpack the product again, or leave {dem} out",
            dem="FILE",
        ) from error


def _text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    if not found:
        raise ValueError(f"no {path.rpartition('/')[2]}")
    return found


def _seconds(element: ElementTree.Element, path: str, start: np.datetime64) -> float:
    return float((np.datetime64(_text(element, path)) - start) / np.timedelta64(1, "s"))
