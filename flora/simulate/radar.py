"""Simulated Sentinel-1: mean backscatter of each surface, and what the instrument adds to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from flora.sensors import BoolArray, FloatArray
from flora.simulate.landcover import Cover, LandCover
from flora.simulate.terrain import PIXEL_M, random_field

# Mean sigma0 (VV, VH) in dB at 38 degrees and its standard deviation between fields, in dB.
# Set by eye to what is usual at C band (compare Ulaby and Dobson 1989; crops: Vreugdenhil et al.
# 2018) and to the medians of real Sentinel-1 chips; every scene shifts each class by about 1 dB.
# How far the result is from those chips: results/simulator_realism.json.
_SIGMA0 = {
    Cover.FOREST: (-8.5, -14.0, 0.6),
    Cover.GRASS: (-12.0, -18.5, 1.2),
    Cover.SHRUB: (-10.0, -16.0, 1.2),
    Cover.SETTLEMENT: (-4.5, -11.5, 2.0),
    Cover.ROAD: (-13.5, -20.5, 1.0),
}
_BARE_SIGMA0 = (-13.0, -21.5, 2.0)
_CROP_SIGMA0 = (-10.0, -15.5, 1.2)
_SAND_SIGMA0 = (-18.0, -25.0, 1.0)

# Exponent n of sigma0 ~ cos(theta) ** n: 2 for volume scattering, more for bare ground
# (compare Mladenova et al. 2013; the values are set by hand).
_INCIDENCE_EXPONENT = {Cover.FOREST: 1.5, Cover.SHRUB: 1.7, Cover.BARE: 3.0, Cover.ROAD: 3.0}
_REFERENCE_INCIDENCE = 38.0

# Co-polarised sigma0 of soil rises by 0.2 to 0.3 dB per percent of volumetric moisture (compare
# Ulaby et al. 1986), here 6 dB from dry to wet; cross-polarised by less.
_MOISTURE_GAIN_DB = (6.0, 4.0)

# Double bounce between water and stems, trunks or walls, in dB at C band, VV and VH
# (compare the review of Tsyganskaya et al. 2018; the values are set by hand).
_DOUBLE_BOUNCE_DB = (4.0, 1.0)


@dataclass(frozen=True)
class LookAlikes:
    """Land that is as dark as water, and water that is not; without arguments there is none.

    Attributes:
        gustiness: Standard deviation of the wind's strength over the scene, relative to its mean:
            0.25 is a breeze over one lake, 0.8 puts calm and rough water side by side.
        snow: Share of the open land under wet snow, 0 to 1. Wet snow absorbs: it lowers sigma0
            by 3 dB and more against the same land without it (Nagler and Rott 2000).
        snow_drop: By how much, in dB.
        smooth: Share of the bare and cropped parcels that lie wet and smooth (rolled, sealed by
            rain, drained after a flood) and reflect away from the radar (compare Ulaby et al.
            1986, the fall of sigma0 with roughness).
        smooth_drop: By how much their sigma0 falls, in dB.
        sand_drop: By how much dry sand is darker than the typical one, in dB: dunes reach the
            noise floor (compare Martinis et al. 2018 on sand exclusion).
        border_noise: Whether the swath edge holds the dark noise of old processors in place of
            nodata (Ali et al. 2018).
    """

    gustiness: float = 0.25
    snow: float = 0.0
    snow_drop: float = 0.0
    smooth: float = 0.0
    smooth_drop: float = 0.0
    sand_drop: float = 0.0
    border_noise: bool = False

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Draw each with a chance of its own; most scenes have one or none."""
        gusty, snowy, smooth, sandy, noisy = rng.random(5) < (0.35, 0.08, 0.35, 0.3, 0.3)
        return cls(
            gustiness=float(rng.uniform(0.4, 0.9)) if gusty else 0.25,
            snow=float(rng.uniform(0.3, 1.0)) if snowy else 0.0,
            snow_drop=float(rng.uniform(3.0, 8.0)) if snowy else 0.0,
            smooth=float(rng.uniform(0.05, 0.5)) if smooth else 0.0,
            smooth_drop=float(rng.uniform(2.0, 6.0)) if smooth else 0.0,
            sand_drop=float(rng.uniform(1.0, 6.0)) if sandy else 0.0,
            border_noise=bool(noisy),
        )


@dataclass(frozen=True)
class SarParameters:
    """The radar, its geometry and the weather on the water.

    Attributes:
        incidence: Incidence angle at the ellipsoid, in degrees; 29.1 to 46 in IW mode.
        look_east: Whether the radar looks east (ascending pass) or west.
        looks: Equivalent number of looks; 4.4 for IW GRD (product specification).
        resolution: Width of the speckle, the standard deviation in pixels of the Gaussian
            that correlates the complex looks, in pixels.
        nesz: Noise-equivalent sigma0 of VV and VH, in dB; specified as -22 or better, -24 to -29
            in flight.
        noise_removed: Share of the noise power that processing subtracts, 0 to 1.
        wind: Wind speed before and after, in m/s.
        moisture: Soil moisture before and after, 0 dry to 1 saturated.
        calibration: Offset of VV and VH, in dB; the specification is 1 dB absolute.
        class_offset: Offset of each cover class's mean in this scene, in dB, by class code.
        emergent: Largest share of plants and walls that stand out of open flood water, 0 to 1.
        double_bounce: Strength of the double bounce relative to the typical one.
        targets: Share of settlement pixels that are corner reflectors, 0 to 1.
        speckle: Whether the image has speckle.
        border: Width of the swath edge without data at its widest, in pixels; 0 for none.
        look_alikes: What is dark and no water, or water and not dark.
    """

    incidence: float
    look_east: bool
    looks: float
    resolution: float
    nesz: tuple[float, float]
    noise_removed: float
    wind: tuple[float, float]
    moisture: tuple[float, float]
    calibration: tuple[float, float]
    class_offset: tuple[float, ...]
    emergent: float
    double_bounce: float
    targets: float
    speckle: bool = True
    border: int = 0
    look_alikes: LookAlikes = LookAlikes()

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Draw over swath position, weather and processing."""
        nesz = rng.uniform(-28.0, -22.5)
        dry, wetter = rng.uniform(0.0, 0.8), rng.uniform(0.0, 0.5)
        offset = rng.normal(0.0, 0.4)
        return cls(
            incidence=float(rng.uniform(30.5, 45.5)),
            look_east=bool(rng.random() < 0.5),
            looks=float(rng.uniform(4.0, 5.2)),
            resolution=float(rng.uniform(1.1, 1.35)),
            nesz=(float(nesz), float(nesz + rng.normal(0.0, 0.4))),
            noise_removed=float(rng.uniform(0.3, 0.95) * (rng.random() < 0.7)),
            wind=(float(1.0 + rng.gamma(1.6, 1.4)), float(1.0 + rng.gamma(1.6, 1.4))),
            moisture=(float(dry), float(min(dry + wetter, 1.0))),
            calibration=(float(offset), float(offset + rng.normal(0.0, 0.3))),
            class_offset=tuple(float(x) for x in rng.normal(0.0, 1.0, len(Cover))),
            emergent=float(rng.beta(0.7, 4.0)),
            double_bounce=float(rng.uniform(0.4, 1.4)),
            targets=float(rng.uniform(0.01, 0.06)),
            border=int(rng.integers(10, 60)) if rng.random() < 0.1 else 0,
        )


@dataclass(frozen=True)
class WaterState:
    """Water at a date; every array (H, W).

    Attributes:
        depth: Water above the ground, in m; 0 on dry land.
        open: Water whose surface the sensors see.
        vegetated: Water under plants that stand out of it.
        emergent: Share of open water hidden by plants and walls, 0 to 1.
    """

    depth: FloatArray
    open: BoolArray
    vegetated: BoolArray
    emergent: FloatArray


@dataclass(frozen=True)
class Ground:
    """What of the land's backscatter both dates share.

    Attributes:
        texture: (2, H, W) deviation from the class mean, VV and VH, in dB.
        relief_gain: (H, W) factor by which slopes and edges change sigma0.
        shadow: (H, W) radar shadow.
        snow: (H, W) wet snow.
    """

    texture: FloatArray
    relief_gain: FloatArray
    shadow: BoolArray
    snow: BoolArray


def make_ground(
    rng: Generator, elevation: FloatArray, land: LandCover, parameters: SarParameters
) -> Ground:
    """Draw the texture of the land and work out its geometry for the radar.

    Args:
        rng: Source of randomness.
        elevation: (H, W) in m.
        land: The land surface.
        parameters: The radar.
    """
    shape = (elevation.shape[0], elevation.shape[1])
    count = int(land.parcel.max()) + 1
    fields = rng.normal(0.0, 1.0, count)
    spread = np.zeros(shape, dtype=np.float32)
    for kind, (_, _, deviation) in _SIGMA0.items():
        spread[land.cover == kind] = deviation
    spread[land.cover == Cover.CROP] = _CROP_SIGMA0[2]
    spread[land.cover == Cover.BARE] = _BARE_SIGMA0[2]
    texture = []
    common = fields[land.parcel] + 0.5 * random_field(rng, shape, 12.0, 0.2)
    built = land.cover == Cover.SETTLEMENT
    # Few walls face the radar, and those return a hundred times the average.
    target = built & (rng.random(shape) < parameters.targets)
    strength = rng.exponential(6.0, shape)
    for _ in range(2):
        own = 0.4 * rng.normal(0.0, 1.0, count)[land.parcel]
        rough = random_field(rng, shape, 4.0, 0.0)
        layer = spread * (common + own) + np.where(built, 2.5, 0.3) * rough
        texture.append(layer + np.where(target, 6.0 + strength, 0.0))
    darker, snow = _dark_land(rng, land, parameters.look_alikes)

    # Tree tops and roofs count: their edges are bright towards the radar and dark behind.
    top = ndimage.gaussian_filter(elevation + 0.5 * land.canopy, 0.8)
    rise = np.gradient(top, PIXEL_M, axis=1)
    towards = rise if parameters.look_east else -rise
    angle = np.deg2rad(parameters.incidence)
    local = np.clip(angle - np.arctan(towards), np.deg2rad(8.0), np.deg2rad(88.0))
    # Illuminated area of a slope relative to flat ground, sin / sin as in one dimension (compare
    # Small 2011), and a fall with the local angle set by eye. Layover piles several slopes into
    # one pixel and is held by the clip on the local angle.
    gain = np.sin(angle) / np.sin(local) * (np.cos(local) / np.cos(angle)) ** 0.5
    return Ground(
        texture=(np.stack(texture) - darker).astype(np.float32),
        relief_gain=np.clip(gain, 0.25, 4.0).astype(np.float32),
        shadow=_shadow(elevation, angle, parameters.look_east),
        snow=snow,
    )


def _dark_land(
    rng: Generator, land: LandCover, look_alikes: LookAlikes
) -> tuple[FloatArray, BoolArray]:
    """By how much land is darker than its class, in dB (H, W), and where wet snow lies (H, W)."""
    shape = (land.cover.shape[0], land.cover.shape[1])
    field = random_field(rng, shape, 80.0, 0.4)
    rank = rng.random(int(land.parcel.max()) + 1)[land.parcel]
    open_land = ~np.isin(land.cover, (Cover.FOREST, Cover.SETTLEMENT, Cover.WATER))
    level = np.quantile(field, 1.0 - look_alikes.snow) if look_alikes.snow else np.inf
    snow = open_land & (field > level)
    tilled = np.isin(land.cover, (Cover.CROP, Cover.BARE)) & ~land.sand
    darker = look_alikes.smooth_drop * (tilled & (rank < look_alikes.smooth))
    darker = darker + look_alikes.sand_drop * (land.sand & (land.cover == Cover.BARE))
    return np.where(snow, look_alikes.snow_drop, darker).astype(np.float32), snow


def mean_backscatter(
    rng: Generator,
    land: LandCover,
    ground: Ground,
    water: WaterState,
    parameters: SarParameters,
    date: int,
) -> FloatArray:
    """Expected sigma0 of VV and VH in linear power (2, H, W), before noise and speckle.

    Args:
        rng: Source of randomness, for the wind.
        land: The land surface.
        ground: Texture and geometry.
        water: Water at the date.
        parameters: The radar and the weather.
        date: 0 before the flood, 1 after.
    """
    shape = (land.cover.shape[0], land.cover.shape[1])
    green = land.green[date]
    moisture = parameters.moisture[date]
    cosine = np.cos(np.deg2rad(parameters.incidence)) / np.cos(np.deg2rad(_REFERENCE_INCIDENCE))
    offset = np.array(parameters.class_offset, dtype=np.float32)[land.cover]
    gust = 1.0 + parameters.look_alikes.gustiness * random_field(rng, shape, 150.0, 0.6)
    lakes = water_backscatter(np.maximum(parameters.wind[date] * gust, 0.5), parameters.incidence)

    bands = []
    for band in range(2):
        wetting = _MOISTURE_GAIN_DB[band] * (moisture - 0.4)
        bare = np.where(
            land.sand, _SAND_SIGMA0[band] + 3.0 * moisture, _BARE_SIGMA0[band] + wetting
        )
        decibel = bare.astype(np.float32)
        for kind, means in _SIGMA0.items():
            decibel[land.cover == kind] = means[band]
        # Sparse plants let the soil through, in proportion to the gaps.
        crop = green * _linear(_CROP_SIGMA0[band]) + (1 - green) * _linear(bare)
        decibel = np.where(land.cover == Cover.CROP, 10 * np.log10(crop), decibel)
        decibel = decibel + np.where(land.cover == Cover.GRASS, 0.5 * wetting, 0.0)
        for kind in Cover:
            exponent = _INCIDENCE_EXPONENT.get(kind, 2.0)
            decibel[land.cover == kind] += 10 * exponent * np.log10(cosine)
        decibel = decibel + offset + ground.texture[band]
        dry = _linear(decibel) * ground.relief_gain

        bounce = parameters.double_bounce * _DOUBLE_BOUNCE_DB[band]
        standing = dry * _linear(bounce)
        flooded = (1 - water.emergent) * lakes[band] + water.emergent * standing
        power = np.where(water.open, flooded, np.where(water.vegetated, standing, dry))
        bands.append(np.where(ground.shadow & ~water.open, 1e-3 * power, power))
    return np.stack(bands).astype(np.float32)


def water_backscatter(wind: FloatArray, incidence: float) -> tuple[FloatArray, FloatArray]:
    """Sigma0 of open water in linear power, VV and VH.

    VV follows the wind by 17 dB a decade and the angle by 0.4 dB a degree about its value of
    -20 dB at 5 m/s and 38 degrees: a straight line set by hand to the trend of wind functions
    such as CMOD5.N (Hersbach 2010), and some dB lower because the fetch inland is short; real
    chips suggest too low. VH = 0.592 wind - 35.6 dB at any angle (Vachon and Wolfe 2011), which
    they measured on the sea at winds that lift VH above the noise.

    Args:
        wind: Wind speed in m/s.
        incidence: Incidence angle in degrees.
    """
    vv = -20.0 + 17.0 * np.log10(wind / 5.0) - 0.4 * (incidence - _REFERENCE_INCIDENCE)
    vh = 0.592 * wind - 35.6
    return _linear(vv), _linear(vh)


def speckle(rng: Generator, shape: tuple[int, int], looks: float, resolution: float) -> FloatArray:
    """Multi-look speckle with mean 1, gamma-like, correlated between neighbours.

    Complex Gaussian looks are blurred by the point spread function and their powers averaged
    (Goodman 1976; Lee and Pottier 2009). The correlation of intensity at a lag of d pixels is
    exp(-d**2 / (2 resolution**2)): 0.63 to 0.79 at one pixel in five real chips at 10 m
    (results/simulator_realism.json).

    Args:
        rng: Source of randomness.
        shape: (rows, columns).
        looks: Equivalent number of looks, at least 1.
        resolution: Standard deviation of the blur, in pixels.
    """
    whole = int(np.floor(looks))
    rest = looks - whole
    # Weights 1, ..., 1, w with an equivalent number (n + w)**2 / (n + w**2) equal to `looks`.
    last = 0.0
    if rest > 1e-9:
        last = (whole - np.sqrt(looks * whole * (1.0 - rest))) / (looks - 1.0)
    weights = [1.0] * whole + ([last] if last else [])
    power = np.zeros(shape, dtype=np.float32)
    for weight in weights:
        for _ in range(2):
            part = rng.standard_normal(shape, dtype=np.float32)
            part = ndimage.gaussian_filter(part, resolution, mode="wrap", truncate=3.0)
            power += np.float32(weight) * part * part
    return np.asarray(power / power.mean(), dtype=np.float32)


def acquire(
    rng: Generator,
    sigma0: FloatArray,
    parameters: SarParameters,
    shift: tuple[float, float] = (0.0, 0.0),
) -> FloatArray:
    """Image a scene: resolution, speckle, thermal noise and its removal, calibration, border.

    Args:
        rng: Source of randomness.
        sigma0: (2, H, W) expected linear power.
        parameters: The radar.
        shift: Rows and columns by which the image lies away from the ground.

    Returns:
        (2, H, W) sigma0 in dB; in the border NaN, or where the border is noise, dark values.
    """
    bands = []
    shape = (sigma0.shape[1], sigma0.shape[2])
    for band in range(2):
        # 20 x 22 m resolution sampled every 10 m (IW GRD, product specification).
        seen = ndimage.gaussian_filter(sigma0[band], 0.75, mode="nearest")
        if shift != (0.0, 0.0):
            seen = ndimage.shift(seen, shift, order=1, mode="nearest")
        noise = float(_linear(parameters.nesz[band]))
        power = seen + noise
        if parameters.speckle:
            power = power * speckle(rng, shape, parameters.looks, parameters.resolution)
        power = power - parameters.noise_removed * noise
        # Subtraction leaves some values below 0. Processors clip and resample them to a tail
        # of tiny powers; this smooth clip gives -36 dB at 0.
        power = 0.5 * (power + np.sqrt(power**2 + 4.0 * _linear(-36.0) ** 2))
        bands.append(10.0 * np.log10(power) + parameters.calibration[band])
    image = np.stack(bands).astype(np.float32)
    if parameters.border:
        row = np.arange(shape[0])[:, None]
        # The swath edge leans as the orbit does, some 10 degrees from north.
        width = parameters.border - 0.18 * row
        edge = np.arange(shape[1])[None, :] < width
        image[:, edge] = np.nan
        if parameters.look_alikes.border_noise:
            image[:, edge] = rng.normal(-38.0, 4.0, (2, int(edge.sum())))
    return image


def _shadow(elevation: FloatArray, angle: float, look_east: bool) -> BoolArray:
    """Ground that a radar at this angle cannot see behind higher ground, along rows."""
    surface = elevation if look_east else elevation[:, ::-1]
    drop = np.arange(surface.shape[1]) * PIXEL_M / np.tan(angle)
    ray = surface + drop
    hidden: BoolArray = ray < np.maximum.accumulate(ray, axis=1) - 1.0
    return hidden if look_east else hidden[:, ::-1]


def _linear(decibel: NDArray[np.floating] | float) -> FloatArray:
    return np.asarray(10.0 ** (np.asarray(decibel) / 10.0), dtype=np.float32)
