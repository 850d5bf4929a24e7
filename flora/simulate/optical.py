"""Simulated Sentinel-2: surface reflectance, light and shade, the atmosphere and its clouds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from flora.sensors import SENTINEL2_BANDS, BoolArray, FloatArray
from flora.simulate.landcover import Cover, LandCover
from flora.simulate.radar import WaterState
from flora.simulate.terrain import PIXEL_M, random_field

# Central wavelength in micrometres and ground sampling in pixels of 10 m (Sentinel-2 handbook).
_WAVELENGTH = np.array(
    [0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783, 0.842, 0.865, 0.945, 1.375, 1.610, 2.190],
    dtype=np.float32,
)
_SAMPLING = (6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 6, 2, 2)


def _spectrum(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float32)


# Surface reflectance of pure materials in the order of SENTINEL2_BANDS. Set by hand after the usual
# shapes of these materials, not sampled from a library (USGS: Kokaly et al. 2017; ECOSTRESS:
# Meerdink et al. 2019); random mixing covers more than the error of any one value.
# fmt: off
_LEAVES = _spectrum(.020, .025, .055, .030, .085, .270, .350, .380, .400, .40, .40, .195, .090)
_NEEDLES = _spectrum(.015, .020, .035, .022, .060, .190, .240, .260, .275, .27, .27, .120, .055)
_STRAW = _spectrum(.055, .070, .110, .150, .175, .215, .240, .265, .285, .29, .30, .340, .250)
_SOIL_DARK = _spectrum(.045, .055, .070, .085, .100, .110, .120, .130, .140, .14, .15, .170, .150)
_SOIL_BRIGHT = _spectrum(.095, .120, .175, .250, .275, .295, .310, .330, .345, .35, .37, .410, .360)
_SAND = _spectrum(.180, .220, .290, .360, .385, .400, .415, .430, .440, .44, .46, .510, .470)
_SNOW = _spectrum(.780, .800, .790, .780, .770, .760, .750, .740, .720, .65, .30, .120, .080)
_ROOFS = _spectrum(.090, .105, .130, .170, .185, .200, .210, .220, .230, .23, .24, .255, .235)
_ASPHALT = _spectrum(.080, .090, .100, .110, .115, .120, .125, .130, .135, .135, .14, .155, .150)
_CLEAR = _spectrum(.025, .027, .024, .012, .008, .005, .005, .004, .003, .003, .0, .001, .001)
_TURBID = _spectrum(.065, .085, .130, .150, .145, .085, .085, .060, .055, .03, .0, .008, .005)
# Diffuse attenuation of clear water per m, rounded: from the red on, absorption of pure water
# (Pope and Fry 1997; Kou et al. 1993); in blue and green, where it hardly absorbs, set by eye.
_ATTENUATION = _spectrum(.1, .1, .15, .5, .8, 2.4, 2.4, 3.6, 4.6, 25., 400., 700., 1800.)
# Share of light that gases leave in each band: ozone, oxygen and above all water vapour. B9 and B10
# were set by the real Level-1C chips, the others by hand.
_GAS = _spectrum(.99, .98, .94, .96, .96, .94, .98, .95, .98, .17, .004, .96, .93)
# fmt: on

# Cloud by hand after white cumulus: flat in the visible, absorbing in the shortwave infrared.
_CLOUD = _spectrum(1.0, 0.98, 0.96, 0.98, 1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.62, 0.50)


@dataclass(frozen=True)
class OpticalParameters:
    """The sun, the water's colour, and the air.

    Attributes:
        sun_elevation: Height of the sun, in degrees.
        sun_azimuth: Direction of the sun clockwise from north, in degrees.
        turbidity: Suspended matter before and after, 0 clear to 1 muddy.
        aerosol: Aerosol optical depth at 550 nm, before and after.
        cloud: Share of the image under cloud, before and after, 0 to 1.
        cloud_height: Height of the clouds, in m; sets where their shadows fall.
        needles: Share of needles in the forest, 0 to 1.
        moisture: Soil moisture before and after, 0 to 1.
        noise: Standard deviation of the reflectance noise.
    """

    sun_elevation: float
    sun_azimuth: float
    turbidity: tuple[float, float]
    aerosol: tuple[float, float]
    cloud: tuple[float, float]
    cloud_height: float
    needles: float
    moisture: tuple[float, float]
    noise: float

    @classmethod
    def draw(cls, rng: Generator, moisture: tuple[float, float]) -> Self:
        """Draw over seasons, rivers and weather; half of the images are free of cloud.

        Args:
            rng: Source of randomness.
            moisture: Soil moisture before and after, shared with the radar.
        """
        clouds = tuple(float(rng.beta(0.8, 2.5) * (rng.random() < 0.5)) for _ in range(2))
        before = float(rng.beta(1.2, 2.0))
        return cls(
            sun_elevation=float(rng.uniform(22.0, 68.0)),
            # Sentinel-2 crosses at 10:30 local time: the sun stands in the east to south-east
            # in the north, in the north-east in the south.
            sun_azimuth=float(rng.uniform(30.0, 170.0)),
            turbidity=(before, float(min(before + rng.beta(2.0, 2.0), 1.0))),
            aerosol=(float(rng.gamma(2.0, 0.07)), float(rng.gamma(2.0, 0.07))),
            cloud=(clouds[0], clouds[1]),
            cloud_height=float(rng.uniform(600.0, 2500.0)),
            needles=float(rng.uniform(0.0, 1.0)),
            moisture=moisture,
            # Signal-to-noise ratios at reference radiance are specified as 50 to 174, by band
            # (Sentinel-2 handbook); one noise for all bands is a simplification.
            noise=float(rng.uniform(0.0008, 0.002)),
        )


def surface_reflectance(
    rng: Generator,
    land: LandCover,
    hand: FloatArray,
    water: WaterState,
    parameters: OpticalParameters,
    date: int,
    snow: BoolArray | None = None,
) -> FloatArray:
    """Bottom-of-atmosphere reflectance (13, H, W) in the order of `SENTINEL2_BANDS`.

    Args:
        rng: Source of randomness, for texture and plumes; give both dates the same one to
            keep the texture of the land.
        land: The land surface.
        hand: (H, W) height above the nearest drainage, in m.
        water: Water at the date.
        parameters: Light, water and air.
        date: 0 before the flood, 1 after.
        snow: (H, W) wet snow, whose grains of a millimetre darken the infrared (Warren 1982).
    """
    shape = (hand.shape[0], hand.shape[1])
    count = int(land.parcel.max()) + 1
    cover, green = land.cover, land.green[date]
    hue = rng.normal(0.0, 0.10, (2, count)).astype(np.float32)[:, land.parcel]
    grain = random_field(rng, shape, 8.0, 0.0)
    plume = random_field(rng, shape, 120.0, 0.6)
    contrast = np.full(shape, 0.05, dtype=np.float32)
    for kind, value in ((Cover.FOREST, 0.12), (Cover.SHRUB, 0.15), (Cover.SETTLEMENT, 0.30)):
        contrast[cover == kind] = value

    # Soil near the water is wet, and wet soil is about half as bright (Lobell and Asner 2002).
    wet = np.clip(parameters.moisture[date] + 0.6 * np.exp(-hand / 0.5), 0.0, 1.0)
    darkening = (1.0 - 0.5 * wet) * (1.0 + hue[0])
    forest, roofs = cover == Cover.FOREST, cover == Cover.SETTLEMENT
    needles = np.where(forest, parameters.needles, 0.0).astype(np.float32)
    straw = np.where((cover == Cover.GRASS) | (cover == Cover.SHRUB), 0.7, 0.15)
    straw = np.where(cover == Cover.CROP, np.clip(0.5 + 4 * hue[1], 0, 1), straw)
    straw = straw.astype(np.float32)
    muddy = np.clip(parameters.turbidity[date] * (1.0 + 0.3 * plume), 0.0, 1.0)
    texture = contrast * grain
    slant = np.linspace(-0.6, 0.6, len(SENTINEL2_BANDS), dtype=np.float32)

    bands = []
    for band in range(len(SENTINEL2_BANDS)):
        soil = _SOIL_DARK[band] + (_SOIL_BRIGHT[band] - _SOIL_DARK[band]) * land.soil
        soil = np.where(land.sand, _SAND[band], soil) * darkening
        dead = straw * _STRAW[band] * (1.0 + hue[0]) + (1 - straw) * soil
        leaf = (1 - needles) * _LEAVES[band] + needles * _NEEDLES[band]
        ground = green * leaf * (1.0 - 0.5 * hue[0]) + (1 - green) * dead
        ground = np.where(roofs, 0.8 * _ROOFS[band] + 0.2 * ground, ground)
        ground = np.where(cover == Cover.ROAD, 0.6 * _ASPHALT[band] + 0.4 * ground, ground)
        if snow is not None:
            ground = np.where(snow, 0.85 * _SNOW[band] + 0.15 * ground, ground)
        ground = ground * np.clip(1.0 + texture + slant[band] * hue[1], 0.3, 2.0)

        # Deep-water reflectance and a bottom seen through the water (Maritorena et al. 1994);
        # suspended matter dims the bottom in every band, by an amount set by eye.
        deep = _CLEAR[band] + (_TURBID[band] - _CLEAR[band]) * muddy
        through = np.exp(-2.0 * (_ATTENUATION[band] + 6.0 * muddy) * water.depth)
        lake = deep * (1.0 - through) + 0.6 * ground * through
        emergent = water.emergent
        lake = (1 - emergent) * lake + emergent * ground
        # Under plants the water shows through the gaps and darkens what lies between.
        gaps = (1.0 - green) * ground * 0.45 + green * ground
        bands.append(np.where(water.open, lake, np.where(water.vegetated, gaps, ground)))
    return np.stack(bands).astype(np.float32)


def hill_shade(elevation: FloatArray, parameters: OpticalParameters) -> FloatArray:
    """Light on each slope relative to flat ground (H, W), a fifth of it from the sky.

    Lambert's cosine law for the direct beam (Teillet et al. 1982).
    """
    north, east = np.gradient(ndimage.gaussian_filter(elevation, 1.0), PIXEL_M)
    north = -north  # rows count southwards
    zenith = np.deg2rad(90.0 - parameters.sun_elevation)
    azimuth = np.deg2rad(parameters.sun_azimuth)
    facing = np.cos(zenith) - np.sin(zenith) * (east * np.sin(azimuth) + north * np.cos(azimuth))
    facing = np.maximum(facing, 0.0) / np.sqrt(1.0 + north**2 + east**2)
    return np.asarray(0.2 + 0.8 * facing / np.cos(zenith), dtype=np.float32)


def clouds(
    rng: Generator, shape: tuple[int, int], parameters: OpticalParameters, date: int
) -> tuple[FloatArray, FloatArray]:
    """Cloud opacity and the share of direct sun that cloud shadow takes, (H, W) in [0, 1]."""
    cover = parameters.cloud[date]
    reach = parameters.cloud_height / np.tan(np.deg2rad(parameters.sun_elevation)) / PIXEL_M
    azimuth = np.deg2rad(parameters.sun_azimuth)
    # Shadows fall away from the sun; columns count east, rows south.
    offset = (round(reach * np.cos(azimuth)), round(-reach * np.sin(azimuth)))
    margin = max(abs(offset[0]), abs(offset[1]))
    wide = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    pattern = random_field(rng, wide, 90.0, 0.55)
    inside = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    if cover <= 0.0:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    threshold = float(np.quantile(pattern[inside], 1.0 - min(cover, 1.0)))
    opacity = np.clip((pattern - threshold) / 0.45, 0.0, 1.0) ** 0.7
    cast = opacity[
        margin - offset[0] : margin - offset[0] + shape[0],
        margin - offset[1] : margin - offset[1] + shape[1],
    ]
    shadow = ndimage.gaussian_filter(cast, 1.5)
    return np.asarray(opacity[inside], np.float32), np.asarray(shadow, np.float32)


def top_of_atmosphere(
    rng: Generator,
    surface: FloatArray,
    shade: FloatArray,
    cloud: FloatArray,
    shadow: FloatArray,
    parameters: OpticalParameters,
    date: int,
) -> FloatArray:
    """Level-1C reflectance (13, H, W): light, haze, cloud, optics and noise.

    Args:
        rng: Source of randomness, for the noise and the brightness of cloud.
        surface: (13, H, W) surface reflectance.
        shade: (H, W) light relative to flat ground.
        cloud: (H, W) cloud opacity.
        shadow: (H, W) share of direct sun lost to cloud shadow.
        parameters: Light and air.
        date: 0 before the flood, 1 after.
    """
    shape = (shade.shape[0], shade.shape[1])
    cosine = np.sin(np.deg2rad(parameters.sun_elevation))
    # Optical depth of air (Hansen and Travis 1974, first two terms) and of aerosol (Angstrom
    # exponent 1.3).
    rayleigh = 0.008569 * _WAVELENGTH**-4 * (1 + 0.0113 * _WAVELENGTH**-2)
    aerosol = parameters.aerosol[date] * (_WAVELENGTH / 0.55) ** -1.3
    # Single scattering towards a nadir view; phase functions near backward of 1.2 (Rayleigh) and
    # 0.3 (by hand) give the dark-water reflectance of the real Level-1C chips.
    clean, dusty = 1.2 * rayleigh / (4.0 * cosine), 0.3 * aerosol / (4.0 * cosine)
    # Half of what air scatters and most of what aerosol scatters still reaches the ground.
    passed = np.exp(-(0.5 * rayleigh + 0.17 * aerosol) * (1.0 / cosine + 1.0))
    haze = np.maximum(1.0 + 0.15 * random_field(rng, shape, 250.0, 0.9), 0.2)
    white = np.clip(0.62 + 0.08 * random_field(rng, shape, 40.0, 0.5), 0.3, 1.0)
    lit = shade * (1.0 - 0.75 * shadow)
    image = np.empty_like(surface)
    for band in range(surface.shape[0]):
        path = clean[band] + dusty[band] * haze
        clear = _GAS[band] * (path + passed[band] * surface[band] * lit)
        bright = _CLOUD[band] * white * (0.25 + 0.75 * _GAS[band])
        seen = (1.0 - cloud) * clear + cloud * bright
        size = _SAMPLING[band]
        # The optics blur by half a pixel; coarser bands are resampled to 10 m.
        seen = ndimage.gaussian_filter(seen, 0.45 * size, truncate=3.0)
        if size > 1:
            rows, columns = shape
            row = np.minimum(np.arange(rows) // size * size + size // 2, rows - 1)
            column = np.minimum(np.arange(columns) // size * size + size // 2, columns - 1)
            seen = seen[np.ix_(row, column)]
        noise = rng.standard_normal(shape, dtype=np.float32)
        image[band] = seen + np.float32(parameters.noise) * noise
    return np.asarray(np.clip(image, 1e-4, 1.6), dtype=np.float32)


def quantise(reflectance: FloatArray) -> NDArray[np.int16]:
    """Reflectance as Level-1C integers, x 10000; at least 1, because 0 means no data."""
    return np.clip(np.round(reflectance * 10_000.0), 1, 32_767).astype(np.int16)
