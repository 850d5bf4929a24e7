"""Simulated land cover: what grows and stands where, and how green it is at a date."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from flora.sensors import BoolArray, FloatArray
from flora.simulate.terrain import PIXEL_M, Terrain, random_field

IntArray = NDArray[np.int32]


class Cover(IntEnum):
    """Land-cover classes; flood water lies on top of them and is no class."""

    WATER = 0
    FOREST = 1
    CROP = 2
    GRASS = 3
    BARE = 4
    SHRUB = 5
    SETTLEMENT = 6
    ROAD = 7


@dataclass(frozen=True)
class CoverParameters:
    """Mix and pattern of the land cover.

    Attributes:
        forest: Share of the land under forest, 0 to 1.
        crop: Weight of crops among the classes that share the open land.
        grass: Weight of grass.
        bare: Weight of bare soil and fallow.
        shrub: Weight of shrub and orchard.
        parcel: Typical side of a field, in m.
        hedges: Share of the districts whose fields are lined by trees, 0 to 1.
        villages: Number of settlements in a square of 5 km.
        farms: Isolated buildings per km2.
        roads: Number of roads across the scene.
        day_of_year: Date of the image before the flood, 1 to 365.
        interval: Days from the image before the flood to the one after.
        vigour: How green plants are at their best, 0 to 1.
        soil: Brightness of the soil, 0 dark to 1 bright.
        sand: Share of the bare soil that is smooth dry sand, 0 to 1.
    """

    forest: float
    crop: float
    grass: float
    bare: float
    shrub: float
    parcel: float
    hedges: float
    villages: int
    farms: float
    roads: int
    day_of_year: int
    interval: int
    vigour: float
    soil: float
    sand: float

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Draw from boreal forest to irrigated plains and steppe; ranges are set by eye."""
        crop, grass, bare, shrub = rng.dirichlet([1.6, 1.2, 0.7, 0.8])
        return cls(
            forest=float(rng.beta(1.0, 2.5)),
            crop=float(crop),
            grass=float(grass),
            bare=float(bare),
            shrub=float(shrub),
            parcel=float(np.exp(rng.uniform(np.log(50), np.log(500)))),
            hedges=float(rng.beta(0.8, 1.5)),
            villages=int(rng.poisson(3.0)),
            farms=float(rng.gamma(1.0, 6.0)),
            roads=int(rng.poisson(2.0)),
            day_of_year=int(rng.integers(1, 366)),
            interval=int(rng.integers(5, 37)),
            vigour=float(rng.uniform(0.4, 1.0)),
            soil=float(rng.uniform(0.0, 1.0)),
            sand=float(rng.beta(0.5, 2.0)),
        )


@dataclass(frozen=True)
class Growth:
    """When what grows on the land is green.

    Attributes:
        peak: Day of the year on which each field's crop is greenest, one value a field.
        length: Days in which it falls from there to 1/e, one value a field.
        leafless: Share of the forest's leaves that winter takes.
        vigour: How green plants are at their best, 0 to 1.
        variation: (H, W) relative deviation within fields.
    """

    peak: NDArray[np.float64]
    length: NDArray[np.float64]
    leafless: float
    vigour: float
    variation: FloatArray

    def green(self, cover: NDArray[np.uint8], parcel: IntArray, day: int) -> FloatArray:
        """Share of the ground hidden by green leaves (H, W) on a day of the year.

        Args:
            cover: (H, W) codes of `Cover`.
            parcel: (H, W) number of the field.
            day: 1 to 365; days before and after stand for those of other years.
        """
        away = (day - self.peak + 182.5) % 365.0 - 182.5
        crop = np.exp(-((away / self.length) ** 2))[parcel]
        warm = 0.5 - 0.5 * np.cos(2 * np.pi * (day - 20) / 365.0)
        green = np.zeros((cover.shape[0], cover.shape[1]))
        for kind, value in (
            (Cover.FOREST, 1.0 - self.leafless * (1.0 - warm)),
            (Cover.CROP, 0.97 * crop),
            (Cover.GRASS, 0.45 + 0.4 * warm),
            (Cover.BARE, 0.05),
            (Cover.SHRUB, 0.45 + 0.2 * warm),
            (Cover.SETTLEMENT, 0.12),
            (Cover.ROAD, 0.1),
        ):
            green = np.where(cover == kind, value, green)
        scaled = green * np.where(cover != Cover.FOREST, self.vigour, 0.6 + 0.4 * self.vigour)
        shared: FloatArray = np.clip(scaled * (1.0 + 2.0 * self.variation), 0.0, 1.0)
        return shared.astype(np.float32)


@dataclass(frozen=True)
class LandCover:
    """The land surface; every array (H, W).

    Attributes:
        cover: uint8 codes of `Cover`.
        parcel: Number of the field each pixel belongs to, counted from 0.
        canopy: Height of plants and buildings above the ground, in m.
        raised: Height of the ground above its surroundings (road banks, levelled fields), in m.
        green: (2, H, W) share of the ground hidden by green leaves, before and after.
        soil: Brightness of the soil, 0 to 1.
        sand: Dry sand.
        growth: What `green` follows from, for other dates.
    """

    cover: NDArray[np.uint8]
    parcel: IntArray
    canopy: FloatArray
    raised: FloatArray
    green: FloatArray
    soil: FloatArray
    sand: BoolArray
    growth: Growth

    def at(self, day: int) -> LandCover:
        """The same land on one other day of the year, the same at both dates."""
        green = self.growth.green(self.cover, self.parcel, day)
        return replace(self, green=np.stack([green, green]))


def make_cover(rng: Generator, terrain: Terrain, parameters: CoverParameters) -> LandCover:
    """Cover the land: fields on gentle ground, forest on slopes, villages with streets.

    Args:
        rng: Source of randomness.
        terrain: The land.
        parameters: Mix and pattern.
    """
    shape = (terrain.hand.shape[0], terrain.hand.shape[1])
    district = _districts(rng, shape)
    parcel, edge = _parcels(rng, shape, district, parameters.parcel)
    count = int(parcel.max()) + 1

    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(terrain.elevation, 2.0), PIXEL_M))
    wild = random_field(rng, shape, 120.0, 0.5) + 12.0 * np.minimum(slope, 0.25)
    wild = wild + 0.8 * np.exp(-terrain.hand / 0.3) * (random_field(rng, shape, 30.0) > 0)
    forest = wild > np.quantile(wild, 1.0 - parameters.forest)
    cover = _grown(rng, parcel, count, parameters)
    cover[forest] = Cover.FOREST
    hedged = rng.random(int(district.max()) + 1) < parameters.hedges
    gaps = random_field(rng, shape, 12.0, 0.4) > -0.3
    cover[edge & hedged[district] & gaps & ~forest] = Cover.SHRUB
    _build(rng, cover, district, ~terrain.permanent & (slope < 0.15), forest, parameters)
    cover[terrain.permanent] = Cover.WATER

    canopy, green, growth = _plants(rng, cover, parcel, count, parameters)
    raised = _raised(rng, cover, parcel, count)
    bright = parameters.soil + 0.15 * random_field(rng, shape, 60.0)
    bright = bright + rng.normal(0.0, 0.12, count)[parcel]
    sandy = (rng.random(count) < parameters.sand)[parcel] & (cover == Cover.BARE)
    return LandCover(
        cover=cover,
        parcel=parcel,
        canopy=canopy,
        raised=np.where(terrain.permanent, 0.0, raised).astype(np.float32),
        green=green,
        soil=np.clip(bright, 0.0, 1.0).astype(np.float32),
        sand=sandy,
        growth=growth,
    )


def _grown(
    rng: Generator, parcel: IntArray, count: int, parameters: CoverParameters
) -> NDArray[np.uint8]:
    """Every field grows one thing: what scores highest on its average pixel."""
    kinds = (Cover.CROP, Cover.GRASS, Cover.BARE, Cover.SHRUB)
    weights = (parameters.crop, parameters.grass, parameters.bare, parameters.shrub)
    area = np.maximum(np.bincount(parcel.ravel(), minlength=count), 1)
    scores = []
    for weight in weights:
        patch = random_field(rng, (parcel.shape[0], parcel.shape[1]), 150.0)
        mean = np.bincount(parcel.ravel(), patch.ravel(), minlength=count) / area
        scores.append(np.log(weight + 1e-3) + 0.6 * mean + rng.gumbel(0.0, 0.7, count))
    grown: NDArray[np.uint8] = np.array(kinds, dtype=np.uint8)[np.argmax(scores, axis=0)]
    return grown[parcel]


def _build(
    rng: Generator,
    cover: NDArray[np.uint8],
    district: IntArray,
    sites: BoolArray,
    forest: BoolArray,
    parameters: CoverParameters,
) -> None:
    """Put villages with gardens and streets, farms and roads onto the land, in place."""
    shape = (cover.shape[0], cover.shape[1])
    road = _roads(rng, shape, parameters.roads)
    village = _villages(rng, shape, sites, parameters.villages)
    blocks, street = _parcels(rng, shape, district, 70.0)
    gardens = rng.random(int(blocks.max()) + 1)[blocks] < 0.2
    cover[village & ~gardens] = Cover.SETTLEMENT
    cover[village & gardens] = Cover.GRASS
    cover[village & street] = Cover.ROAD
    cover[_farms(rng, sites & ~forest, parameters.farms)] = Cover.SETTLEMENT
    cover[road] = Cover.ROAD


def _plants(
    rng: Generator,
    cover: NDArray[np.uint8],
    parcel: IntArray,
    count: int,
    parameters: CoverParameters,
) -> tuple[FloatArray, FloatArray, Growth]:
    """Height of plants and buildings (H, W), in m, green cover (2, H, W), and its season."""
    shape = (cover.shape[0], cover.shape[1])
    height = 1.0 + 0.3 * random_field(rng, shape, 10.0, 0.3)
    stand = np.maximum(height, 0.2) * rng.uniform(8.0, 22.0)
    growth = _growth(rng, shape, count, parameters)
    days = (parameters.day_of_year, parameters.day_of_year + parameters.interval)
    green = np.stack([growth.green(cover, parcel, day) for day in days])
    crop_height = (rng.uniform(0.3, 2.2, count) * (rng.random(count) < 0.9))[parcel]
    canopy = np.zeros(shape)
    for kind, tall in (
        (Cover.FOREST, stand),
        (Cover.CROP, crop_height * green.max(axis=0)),
        (Cover.GRASS, 0.4 * green.max(axis=0)),
        (Cover.SHRUB, 0.25 * stand),
        (Cover.SETTLEMENT, 7.0 * np.maximum(height, 0.2)),
    ):
        canopy = np.where(cover == kind, tall, canopy)
    return canopy.astype(np.float32), green, growth


def _raised(rng: Generator, cover: NDArray[np.uint8], parcel: IntArray, count: int) -> FloatArray:
    """Height of the ground above its surroundings, in m.

    Fields differ by some decimetres in level; roads run on banks of about a metre.
    """
    level = rng.exponential(0.25, count) * rng.uniform(0.0, 1.2)
    raised = level[parcel]
    raised = np.where(cover == Cover.ROAD, raised.clip(max=0.5) + rng.uniform(0.3, 1.8), raised)
    return np.where(cover == Cover.SETTLEMENT, raised.clip(max=0.5) + rng.uniform(0, 1), raised)


def _districts(rng: Generator, shape: tuple[int, int]) -> IntArray:
    """Parts of the scene whose fields share a direction: Voronoi cells of about a kilometre."""
    count = max(int(np.prod(shape) * (PIXEL_M / 1100.0) ** 2), 2)
    row = np.arange(shape[0], dtype=np.float32)[:, None] + 6 * random_field(rng, shape, 60.0)
    column = np.arange(shape[1], dtype=np.float32)[None, :] + 6 * random_field(rng, shape, 60.0)
    nearest = np.full(shape, np.inf, dtype=np.float32)
    district = np.zeros(shape, dtype=np.int32)
    for number in range(count):
        centre = rng.uniform(0.0, 1.0, 2) * np.array(shape)
        away = (row - np.float32(centre[0])) ** 2 + (column - np.float32(centre[1])) ** 2
        district[away < nearest] = number
        nearest = np.minimum(nearest, away)
    return district


def _parcels(
    rng: Generator, shape: tuple[int, int], district: IntArray, side: float
) -> tuple[IntArray, BoolArray]:
    """Rectangular fields in strips, turned with their district, and the lines between them."""
    count = int(district.max()) + 1
    angle = rng.uniform(0.0, np.pi, count).astype(np.float32)[district]
    across = (side / PIXEL_M * rng.lognormal(0.0, 0.3, count)).astype(np.float32)[district]
    along = across * rng.uniform(1.2, 4.0, count).astype(np.float32)[district]
    row, column = np.indices(shape, dtype=np.float32)
    u = (row * np.sin(angle) + column * np.cos(angle)) / np.maximum(across, 2.0)
    v = (row * np.cos(angle) - column * np.sin(angle)) / np.maximum(along, 2.0)
    # Boundaries at uneven distances: half the length scale of jitter keeps them in order.
    jitter = rng.uniform(-0.4, 0.4, 4096).astype(np.float32)
    strip = np.floor(u)
    key = strip.astype(np.int64) + 611 * district
    strip = strip + (u - strip < np.abs(jitter[key % 4096]))
    key = strip.astype(np.int64) + 611 * district
    v = v + 8.0 * jitter[(key * 7) % 4096]
    field = np.floor(v)
    field = field + (v - field < np.abs(jitter[(key * 13 + field.astype(np.int64) * 31) % 4096]))
    code = (district.astype(np.int64) << 40) + ((strip + 4096).astype(np.int64) << 20)
    code += (field + 4096).astype(np.int64)
    parcel = np.unique(code, return_inverse=True)[1].reshape(shape).astype(np.int32)
    edge = np.zeros(shape, dtype=bool)
    edge[:, 1:] |= parcel[:, 1:] != parcel[:, :-1]
    edge[1:] |= parcel[1:] != parcel[:-1]
    return parcel, edge


def _roads(rng: Generator, shape: tuple[int, int], count: int) -> BoolArray:
    """Gently winding roads from edge to edge."""
    road = np.zeros(shape, dtype=bool)
    steps = 4 * max(shape)
    along = np.linspace(-0.75, 0.75, steps)
    for _ in range(count):
        heading = rng.uniform(0.0, np.pi)
        through = rng.uniform(0.2, 0.8, 2) * np.array(shape)
        sway = 0.03 * np.sin(2 * np.pi * (along * rng.uniform(0.7, 2.5) + rng.random()))
        direction = np.array([np.sin(heading), np.cos(heading)])
        normal = np.array([direction[1], -direction[0]])
        path = through + max(shape) * (along[:, None] * direction + sway[:, None] * normal)
        for offset in (0, 1) if rng.random() < 0.35 else (0,):
            points = np.round(path + offset * normal).astype(int)
            inside = ((points >= 0) & (points < np.array(shape))).all(axis=1)
            road[points[inside, 0], points[inside, 1]] = True
    return road


def _villages(rng: Generator, shape: tuple[int, int], sites: BoolArray, density: int) -> BoolArray:
    """Built-up blobs on buildable ground, most of them small."""
    built = np.zeros(shape, dtype=bool)
    row, column = np.ogrid[: shape[0], : shape[1]]
    ragged = random_field(rng, shape, 40.0, 0.5)
    expected = density * np.prod(shape) * (PIXEL_M / 5000.0) ** 2
    for _ in range(int(expected) + int(rng.random() < expected % 1)):
        centre = rng.uniform(0.0, 1.0, 2) * np.array(shape)
        radius = rng.lognormal(np.log(22.0), 0.6)
        near = np.hypot(row - centre[0], column - centre[1]) / radius
        built |= near + 0.35 * ragged < 1.0
    return built & sites


def _farms(rng: Generator, sites: BoolArray, density: float) -> BoolArray:
    """Isolated buildings of one to nine pixels."""
    count = rng.poisson(density * sites.size * (PIXEL_M / 1000.0) ** 2)
    built = np.zeros(sites.shape, dtype=bool)
    for row, column in zip(*(rng.integers(0, n, count) for n in sites.shape), strict=True):
        tall, wide = rng.integers(1, 4, 2)
        built[row : row + tall, column : column + wide] = True
    return built & sites


def _growth(
    rng: Generator, shape: tuple[int, int], count: int, parameters: CoverParameters
) -> Growth:
    """Draw the seasons of the fields: each has its own."""
    # Winter cereals peak in May, summer crops in July and August; farmers sow weeks apart. Dates
    # and shares of green are set by eye, for the northern mid-latitudes.
    summer = rng.random(count) < rng.random()
    peak = np.where(summer, 215.0, 130.0) + rng.normal(0.0, 18.0, count)
    length = rng.uniform(25.0, 55.0, count)
    leafless = rng.uniform(0.0, 0.6)
    variation = 0.08 * random_field(rng, shape, 30.0)
    return Growth(peak, length, leafless, parameters.vigour, variation)
