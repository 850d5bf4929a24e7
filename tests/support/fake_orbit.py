"""A ground range product of hilly ground, seen from a circular orbit whose equations are closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from scipy.interpolate import LinearNDInterpolator

from tests.support.fake_scenes import (
    _calibration,
    noise_annotation,
    sigma_nought,
    truth,
    write_scene,
)

PRODUCT = "S1A_IW_GRDH_1SDV_20190917T060141_20190917T060206_029045_034BE1_2B2F"
LINES, PIXELS, SPACING = 320, 420, 10.0
CENTRE = 668_000.0, 4_396_000.0  # of the image, in UTM
HEADING, INCIDENCE = np.radians(-13.0), np.radians(38.0)
SLANT, SPEED, LINE_TIME = 880_000.0, 7_500.0, 1.5e-3
GEOID = 48.0  # m above the ellipsoid
HILL, WIDTH = 600.0, 800.0  # m: height of the hill in the middle, and its standard deviation
TARGET = CENTRE  # a bright reflector on the top
START = "2019-09-17T06:01:41.000000"

_TO_EARTH = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
_TO_DEGREES = Transformer.from_crs("EPSG:32630", "EPSG:4326", always_xy=True)


def elevation(x: Any, y: Any) -> NDArray[np.float64]:
    """Height above the geoid in m, in UTM: a hill on a plain."""
    return HILL * np.exp(-((x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2) / (2 * WIDTH**2))


def place(x: Any, y: Any, height: Any) -> NDArray[np.float64]:
    """Coordinates (..., 3) fixed to the earth, of UTM and height above the ellipsoid."""
    longitude, latitude = _TO_DEGREES.transform(x, y)
    height = np.broadcast_to(height, np.shape(longitude))
    return np.stack(_TO_EARTH.transform(longitude, latitude, height), axis=-1)


class Orbit:
    """A circle around the middle of the earth, from which `CENTRE` is seen at `INCIDENCE`."""

    def __init__(self) -> None:
        at = place(*CENTRE, 0.0)
        longitude, latitude = (np.radians(angle) for angle in _TO_DEGREES.transform(*CENTRE))
        east = np.array([-np.sin(longitude), np.cos(longitude), 0])
        up = np.array(
            [
                np.cos(latitude) * np.cos(longitude),
                np.cos(latitude) * np.sin(longitude),
                np.sin(latitude),
            ]
        )
        north = np.cross(up, east)
        flight = np.sin(HEADING) * east + np.cos(HEADING) * north
        look = np.cos(HEADING) * east - np.sin(HEADING) * north  # to the right
        above = at + SLANT * (np.cos(INCIDENCE) * up - np.sin(INCIDENCE) * look)
        self.radius = np.linalg.norm(above)
        self.outwards = above / self.radius
        along = flight - (flight @ self.outwards) * self.outwards
        self.along = along / np.linalg.norm(along)
        self.turn = SPEED / self.radius  # per second
        self.middle = float(self._closest(at)[0])
        near = self._closest(self._ground(-PIXELS * SPACING / 2))[1]
        # How slant range becomes ground range, along the middle of the image on the ellipsoid.
        along_range = np.linspace(-6000, 6000, 41)
        slant = np.array([self._closest(self._ground(x))[1] for x in along_range])
        self.near = float(near)
        self.ranges = np.polynomial.Polynomial.fit(
            slant - near, along_range + PIXELS * SPACING / 2, 4
        ).convert()

    def _ground(self, distance: float) -> NDArray[np.float64]:
        x = CENTRE[0] + distance * np.cos(HEADING)
        return place(x, CENTRE[1] - distance * np.sin(HEADING), 0.0)

    def _closest(self, at: Any) -> tuple[Any, Any]:
        """When the satellite is nearest to places (..., 3), in seconds, and how near."""
        angle = np.arctan2(at @ self.along, at @ self.outwards)
        return angle / self.turn, np.linalg.norm(at - self.position(angle / self.turn), axis=-1)

    def position(self, time: Any) -> NDArray[np.float64]:
        angle = np.asarray(time)[..., None] * self.turn
        return self.radius * (np.cos(angle) * self.outwards + np.sin(angle) * self.along)

    def velocity(self, time: Any) -> NDArray[np.float64]:
        angle = np.asarray(time)[..., None] * self.turn
        return SPEED * (np.cos(angle) * self.along - np.sin(angle) * self.outwards)

    @property
    def start(self) -> float:
        """Time of the first line."""
        return self.middle - LINES / 2 * LINE_TIME

    def image_of(self, at: Any) -> tuple[Any, Any]:
        """Line and pixel of places (..., 3)."""
        time, slant = self._closest(at)
        return (time - self.start) / LINE_TIME, self.ranges(slant - self.near) / SPACING


def fake_hill(root: Path) -> Path:
    """Write the product: `truth` on the ground, and a reflector at `TARGET`; returns its folder."""
    orbit = Orbit()
    x, y = (middle + np.arange(-3600, 3600, 20.0) for middle in CENTRE)
    x, y = np.meshgrid(x, y)
    line, pixel = np.mgrid[:LINES, :PIXELS]
    seen = orbit.image_of(place(x, y, elevation(x, y) + GEOID))
    where = np.stack(seen, axis=-1).reshape(-1, 2)
    ground = LinearNDInterpolator(where, np.stack([x.ravel(), y.ravel()], axis=-1))(line, pixel)
    sigma0 = 10 ** (truth(ground[..., 0], ground[..., 1]) / 10)
    row, column = (round(float(at)) for at in orbit.image_of(place(*TARGET, HILL + GEOID)))
    sigma0[:, row, column] = 1000.0
    sigma0 = np.nan_to_num(sigma0)
    numbers = np.rint(np.sqrt(sigma0) * sigma_nought(line, pixel)).clip(0, 65535)
    safe = root / f"{PRODUCT}.SAFE"
    flat = np.stack(orbit.image_of(place(x, y, 0.0)), axis=-1).reshape(-1, 2)
    to_ground = LinearNDInterpolator(flat, np.stack([x.ravel(), y.ravel()], axis=-1))
    for number, (band, values) in enumerate(zip(("vv", "vh"), numbers, strict=True), start=1):
        stem = f"s1a-iw-grd-{band}-20190917t060141-20190917t060206-029045-034be1-{number:03d}"
        image = safe / "measurement" / f"{stem}.tiff"
        profile = {"crs": CRS.from_epsg(4326), "transform": None, "gcps": _points(to_ground)}
        write_scene(image, values.astype(np.uint16)[None], **profile)
        folder = safe / "annotation" / "calibration"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"calibration-{stem}.xml").write_text(_calibration(LINES, PIXELS))
        (folder / f"noise-{stem}.xml").write_text(noise_annotation(LINES, PIXELS))
        (safe / "annotation" / f"{stem}.xml").write_text(_annotation(orbit, to_ground))
    (safe / "manifest.safe").write_text("<xfdu:XFDU/>")
    return safe


def _grid_points() -> list[tuple[int, int]]:
    lines, pixels = np.linspace(0, LINES, 7), np.linspace(0, PIXELS, 9)
    return [(int(line), int(pixel)) for line in lines for pixel in pixels]


def _points(to_ground: LinearNDInterpolator) -> list[GroundControlPoint]:
    """As on the ellipsoid, corner of the pixel."""
    points = []
    for line, pixel in _grid_points():
        longitude, latitude = _TO_DEGREES.transform(*to_ground(line - 0.5, pixel - 0.5))
        points.append(GroundControlPoint(line, pixel, longitude, latitude, 0.0))
    return points


def _annotation(orbit: Orbit, to_ground: LinearNDInterpolator) -> str:
    """What the Product Specification says of orbit, ranges and places."""
    start = np.datetime64(START)

    def clock(time: float) -> str:
        return str(start + np.timedelta64(round((time - orbit.start) * 1e6), "us"))

    def vector(values: Any) -> str:
        return "".join(f"<{a}>{v!r}</{a}>" for a, v in zip("xyz", map(float, values), strict=True))

    states = "".join(
        f"<orbit><time>{clock(time)}</time><position>{vector(orbit.position(time))}</position>"
        f"<velocity>{vector(orbit.velocity(time))}</velocity></orbit>"
        for time in orbit.start + np.arange(-60.0, 70.0, 10.0)
    )
    numbers = " ".join(repr(float(value)) for value in orbit.ranges.coef)
    ranges = "".join(
        f"<coordinateConversion><azimuthTime>{clock(orbit.start + second)}</azimuthTime>"
        f"<sr0>{orbit.near!r}</sr0><srgrCoefficients>{numbers}</srgrCoefficients>"
        "</coordinateConversion>"
        for second in (-1.0, 0.0, 1.0)
    )
    grid = ""
    for line, pixel in _grid_points():
        x, y = to_ground(line, pixel)
        at = place(x, y, 0.0)
        time, slant = orbit._closest(at)
        ray, up = orbit.position(time) - at, place(x, y, 1.0) - at
        angle = np.degrees(np.arccos(ray @ up / np.linalg.norm(ray)))
        longitude, latitude = _TO_DEGREES.transform(x, y)
        values = {
            "slantRangeTime": float(slant * 2 / 299_792_458.0),
            "line": line,
            "pixel": pixel,
            "latitude": float(latitude),
            "longitude": float(longitude),
            "incidenceAngle": float(angle),
        }
        said = "".join(f"<{name}>{value!r}</{name}>" for name, value in values.items())
        grid += f"<geolocationGridPoint>{said}</geolocationGridPoint>"
    return (
        "<product><adsHeader><missionId>S1A</missionId><mode>IW</mode><absoluteOrbitNumber>29045"
        "</absoluteOrbitNumber><missionDataTakeId>216033</missionDataTakeId></adsHeader>"
        "<generalAnnotation><productInformation><pass>Ascending</pass></productInformation>"
        f"<orbitList>{states}</orbitList></generalAnnotation><imageAnnotation><imageInformation>"
        f"<productFirstLineUtcTime>{START}</productFirstLineUtcTime><rangePixelSpacing>{SPACING!r}"
        f"</rangePixelSpacing><azimuthTimeInterval>{LINE_TIME!r}</azimuthTimeInterval>"
        "</imageInformation><processingInformation><thermalNoiseCorrectionPerformed>true"
        "</thermalNoiseCorrectionPerformed></processingInformation></imageAnnotation>"
        "<geolocationGrid><geolocationGridPointList>"
        f"{grid}</geolocationGridPointList></geolocationGrid><coordinateConversion>"
        f"<coordinateConversionList>{ranges}</coordinateConversionList></coordinateConversion>"
        "</product>"
    )
