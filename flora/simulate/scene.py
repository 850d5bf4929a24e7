"""A simulated flood: one seed gives a landscape and what two satellites see of it, twice.

What can be known exactly here is what real chips leave in doubt: where water is, under which
plants, where it always was, and how far the radar image lies from the optical one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import rasterio
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from rasterio.transform import Affine

from flora.errors import FloraError
from flora.files import write_text, write_whole
from flora.sensors import BoolArray, FloatArray
from flora.simulate.hydrology import flood_extent
from flora.simulate.landcover import Cover, CoverParameters, LandCover, make_cover
from flora.simulate.optical import (
    OpticalParameters,
    clouds,
    hill_shade,
    quantise,
    surface_reflectance,
    top_of_atmosphere,
)
from flora.simulate.radar import (
    Ground,
    LookAlikes,
    SarParameters,
    WaterState,
    acquire,
    make_ground,
    mean_backscatter,
)
from flora.simulate.season import REPEAT_DAYS, another_day
from flora.simulate.terrain import (
    Terrain,
    TerrainParameters,
    make_terrain,
    random_field,
)

# Counts changes of what a seed gives; the manifest keeps it beside the seeds.
SIMULATOR_VERSION = 2

SMALLEST = 32
CRS = "EPSG:4326"
# 10 m at the equator, the grid of Sen1Floods11. Scenes lie at 0 N 0 E, in the sea, so that
# nobody takes them for a place.
_DEGREES = 8.983152841195215e-05

# One stream of random numbers a layer: what one layer draws never shifts another's numbers.
_LAYERS = (
    "parameters", "terrain", "cover", "emergent", "ground",
    "wind before", "wind after", "speckle before", "speckle after",
    "texture", "cloud before", "cloud after", "air before", "air after", "earlier",
)  # fmt: skip


@dataclass(frozen=True)
class SceneParameters:
    """Everything about a scene but its random pattern; change one part with `replace`.

    Attributes:
        terrain: Shape of the land.
        cover: Mix and pattern of the land cover.
        sar: The radar and the weather on the water.
        optical: The sun, the water's colour and the air.
        flooded: Share of the land that the flood reaches for, 0 to 1, where `stage` is None; it
            covers less where roads, levelled fields and ridges keep it out, and more where so
            much land lies lower than the smallest flood, 0.2 m.
        stage: Rise of the water above its banks, in m; None takes what `flooded` needs.
        misregistration: Rows and columns in pixels by which the SAR images lie away from
            the ground; the optical images and every mask lie on it.
    """

    terrain: TerrainParameters
    cover: CoverParameters
    sar: SarParameters
    optical: OpticalParameters
    flooded: float
    stage: float | None = None
    misregistration: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Draw a scene; its wide ranges are what makes a model trained on scenes general."""
        sar = SarParameters.draw(rng)
        drawn = cls(
            terrain=TerrainParameters.draw(rng),
            cover=CoverParameters.draw(rng),
            sar=sar,
            optical=OpticalParameters.draw(rng, sar.moisture),
            # Some images after the rain show no flood, and a model must say so.
            flooded=float(rng.beta(1.1, 3.0) * (rng.random() < 0.93)),
        )
        # Last, so that all else is what it was before there were any.
        return replace(drawn, sar=replace(sar, look_alikes=LookAlikes.draw(rng)))


@dataclass(frozen=True)
class Scene:
    """A flood seen twice by two sensors; all layers on one grid of 10 m pixels.

    Attributes:
        seed: What the scene came from.
        parameters: Its parameters.
        stage: Rise of the water above its banks, in m.
        elevation: (H, W) ground, in m.
        hand: (H, W) height above the nearest drainage, in m.
        land_cover: (H, W) uint8 codes of `Cover`.
        permanent: (H, W) rivers and lakes.
        flood: (H, W) land under water after the flood, seen or hidden by plants and houses.
        flooded_vegetation: (H, W) flooded land whose plants stand out of the water.
        water_before: (H, W) open water before the flood.
        water_after: (H, W) open water after it: `permanent` and the part of `flood` that lies
            open. Flooded vegetation and flooded settlements are left out, as they mostly are
            in the hand labels of Sen1Floods11.
        sar_before: (2, H, W) VV and VH in dB, NaN without data.
        sar_after: The same after the flood.
        sar_earlier: (N, 2, H, W), the same at N dates before `sar_before`, the latest first.
        optical_before: (13, H, W) Level-1C reflectance, bands of `SENTINEL2_BANDS`.
        optical_after: The same after the flood.
        cloud_before: (H, W) cloud.
        cloud_after: The same after the flood.
        shadow_before: (H, W) shadow of a cloud.
        shadow_after: The same after the flood.
        crs: Coordinate reference system.
        transform: Affine transform of the grid, six numbers.
    """

    seed: int
    parameters: SceneParameters
    stage: float
    elevation: FloatArray
    hand: FloatArray
    land_cover: NDArray[np.uint8]
    permanent: BoolArray
    flood: BoolArray
    flooded_vegetation: BoolArray
    water_before: BoolArray
    water_after: BoolArray
    sar_before: FloatArray
    sar_after: FloatArray
    sar_earlier: FloatArray
    optical_before: FloatArray
    optical_after: FloatArray
    cloud_before: BoolArray
    cloud_after: BoolArray
    shadow_before: BoolArray
    shadow_after: BoolArray
    crs: str
    transform: tuple[float, ...]


def draw_parameters(seed: int) -> SceneParameters:
    """The parameters that `simulate` uses for a seed, to be changed with `replace`.

    Example:
        >>> from dataclasses import replace
        >>> from flora.simulate.scene import draw_parameters, simulate
        >>> parameters = replace(draw_parameters(7), flooded=0.0, stage=0.0)
        >>> bool(simulate(7, 64, parameters).flood.any())
        False
    """
    return SceneParameters.draw(_stream(seed, "parameters"))


def simulate(
    seed: int,
    size: int | tuple[int, int] = 256,
    parameters: SceneParameters | None = None,
    earlier: int = 0,
) -> Scene:
    """Simulate one scene; the same arguments give the same bytes.

    Args:
        seed: Any integer from 0.
        size: Side in pixels, or (rows, columns); at least 32.
        parameters: The scene's parameters; drawn from the seed if not given.
        earlier: Further radar dates before the flood, 12 days apart.

    Raises:
        FloraError: If the seed or `earlier` is negative, or the size too small.

    Example:
        >>> from flora.simulate.scene import simulate
        >>> scene = simulate(seed=7, size=64)
        >>> scene.sar_after.shape, scene.optical_after.shape
        ((2, 64, 64), (13, 64, 64))
        >>> bool((scene.permanent <= scene.water_after).all())  # a flood takes no water away
        True
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    if min(rows, columns) < SMALLEST:
        raise FloraError(f"size {size}: a scene needs {SMALLEST} px or more a side for a river")
    if seed < 0:
        raise FloraError(f"seed {seed}: expected an integer from 0; negate it")
    if earlier < 0:
        raise FloraError("expected 0 or more dates", argument="earlier", value=earlier)
    chosen = draw_parameters(seed) if parameters is None else parameters
    terrain = make_terrain(_stream(seed, "terrain"), (rows, columns), chosen.terrain)
    land = make_cover(_stream(seed, "cover"), terrain, chosen.cover)
    stage = _stage(terrain, chosen)
    flood = flood_extent(terrain.hand, terrain.permanent, stage)
    flood &= terrain.hand + land.raised < stage
    states = (
        _standing_water(seed, terrain, land, np.zeros_like(flood), 0.0, chosen),
        _standing_water(seed, terrain, land, flood, stage, chosen),
    )

    ground = make_ground(_stream(seed, "ground"), terrain.elevation, land, chosen.sar)
    shade = hill_shade(terrain.elevation, chosen.optical)
    before, after = (
        _observe(seed, date, terrain, shade, land, ground, water, chosen)
        for date, water in enumerate(states)
    )
    return Scene(
        seed=seed,
        parameters=chosen,
        stage=stage,
        elevation=terrain.elevation,
        hand=terrain.hand,
        land_cover=land.cover,
        permanent=terrain.permanent,
        flood=flood,
        flooded_vegetation=states[1].vegetated & (land.cover != Cover.SETTLEMENT),
        water_before=states[0].open,
        water_after=states[1].open,
        sar_before=before.sar,
        sar_after=after.sar,
        sar_earlier=_observe_earlier(seed, earlier, land, ground, states[0], chosen),
        optical_before=before.optical,
        optical_after=after.optical,
        cloud_before=before.cloud,
        cloud_after=after.cloud,
        shadow_before=before.shadow,
        shadow_after=after.shadow,
        crs=CRS,
        transform=(_DEGREES, 0.0, 0.0, 0.0, -_DEGREES, 0.0),
    )


class _Observation(NamedTuple):
    """What the two satellites see at one date; the fields of `Scene` of the same names."""

    sar: FloatArray
    optical: FloatArray
    cloud: BoolArray
    shadow: BoolArray


def _observe(
    seed: int,
    date: int,
    terrain: Terrain,
    shade: FloatArray,
    land: LandCover,
    ground: Ground,
    water: WaterState,
    parameters: SceneParameters,
) -> _Observation:
    """Look at the land before the flood (date 0) or after it (date 1)."""
    name = ("before", "after")[date]
    wind = _stream(seed, f"wind {name}")
    sigma0 = mean_backscatter(wind, land, ground, water, parameters.sar, date)
    looks = _stream(seed, f"speckle {name}")
    sar = acquire(looks, sigma0, parameters.sar, parameters.misregistration)
    looked = parameters.optical
    surface = surface_reflectance(
        _stream(seed, "texture"), land, terrain.hand, water, looked, date, ground.snow
    )
    shape = (terrain.hand.shape[0], terrain.hand.shape[1])
    opacity, shaded = clouds(_stream(seed, f"cloud {name}"), shape, looked, date)
    air = _stream(seed, f"air {name}")
    optical = top_of_atmosphere(air, surface, shade, opacity, shaded, looked, date)
    cloud = opacity > 0.1
    return _Observation(sar, optical, cloud, (shaded > 0.2) & ~cloud)


def _observe_earlier(
    seed: int, dates: int, land: LandCover, ground: Ground, water: WaterState, of: SceneParameters
) -> FloatArray:
    """Radar images (N, 2, H, W) of N dates before that before the flood, the latest first."""
    season = np.zeros((dates, 2, *land.cover.shape), dtype=np.float32)
    for date in range(dates):
        rng = _stream(seed, "earlier", date)
        then = land.at(of.cover.day_of_year - REPEAT_DAYS * (date + 1))
        radar = another_day(rng, of.sar)
        power = mean_backscatter(rng, then, ground, water, radar, date=0)
        season[date] = acquire(rng, power, radar, of.misregistration)
    return season


def write_sen1floods11(
    seeds: Mapping[str, Sequence[int]], root: Path, size: int = 512, event: str = "Simulated"
) -> list[Path]:
    """Write scenes as hand-labelled chips in the folder layout of Sen1Floods11 v1.1.

    Args:
        seeds: Seeds of each split: "train", "valid", "test" or "bolivia".
        root: Folder that is to hold `v1.1`.
        size: Side of the chips, in pixels.
        event: First part of the chips' names.

    Returns:
        The label files, in order.

    Raises:
        FloraError: If a split is unknown or a seed is in two of them.
    """
    unknown = sorted(set(seeds) - {"train", "valid", "test", "bolivia"})
    if unknown:
        raise FloraError(f"splits {unknown}: Sen1Floods11 has train, valid, test and bolivia")
    every = [seed for chosen in seeds.values() for seed in chosen]
    if len(set(every)) < len(every):
        raise FloraError("a seed is given twice: a chip can be in one split only")
    chips = root / "v1.1" / "data" / "flood_events" / "HandLabeled"
    lists = root / "v1.1" / "splits" / "flood_handlabeled"
    labels = []
    for split, chosen in seeds.items():
        lines = []
        for seed in chosen:
            scene = simulate(seed, size)
            layers: dict[str, tuple[NDArray[np.generic], float | None]] = {
                "S1Hand": (scene.sar_after, float("nan")),
                "S2Hand": (quantise(scene.optical_after), 0.0),
                "LabelHand": (_label(scene)[None], None),
            }
            for layer, (values, nodata) in layers.items():
                path = chips / layer / f"{event}_{seed}_{layer}.tif"
                _write_geotiff(path, values, nodata, scene)
                if layer == "LabelHand":
                    labels.append(path)
            lines.append(f"{event}_{seed}_S1Hand.tif,{event}_{seed}_LabelHand.tif\n")
        write_text(lists / f"flood_{split}_data.csv", "".join(lines))
    return labels


def _stream(seed: int, layer: str, *number: int) -> Generator:
    return np.random.default_rng(SeedSequence(seed, spawn_key=(_LAYERS.index(layer), *number)))


def _stage(terrain: Terrain, parameters: SceneParameters) -> float:
    """The given stage, or the one below which the wanted share of the land lies."""
    if parameters.stage is not None:
        return parameters.stage
    land = terrain.hand[~terrain.permanent]
    if land.size == 0 or parameters.flooded <= 0.0:
        return 0.0
    # Rivers seldom rise more than some metres above their banks.
    return float(np.clip(np.quantile(land, min(parameters.flooded, 1.0)), 0.2, 5.0))


def _standing_water(
    seed: int,
    terrain: Terrain,
    land: LandCover,
    flood: BoolArray,
    stage: float,
    parameters: SceneParameters,
) -> WaterState:
    """Where water stands, how deep, and what stands out of it."""
    depth = np.where(flood, stage - terrain.hand - land.raised, 0.0)
    depth = np.where(terrain.permanent, 3.0 + stage, depth)
    # Plants hide the water while more than half of their height and some leaves are above it;
    # forest always does, and houses stand in it.
    thick = land.green.max(axis=0) > 0.25
    tall = (land.canopy > 2.0 * depth) & thick & (land.canopy > 0.2)
    hidden = (land.cover == Cover.FOREST) | (land.cover == Cover.SETTLEMENT) | tall
    vegetated = flood & hidden
    patches = random_field(_stream(seed, "emergent"), (flood.shape[0], flood.shape[1]), 25.0, 0.3)
    shallow = np.exp(-depth / 0.6)
    share = parameters.sar.emergent * np.clip(0.5 + 0.6 * patches, 0.0, 1.0) * shallow
    return WaterState(
        depth=depth.astype(np.float32),
        open=terrain.permanent | (flood & ~hidden),
        vegetated=vegetated,
        emergent=np.where(flood & ~hidden, share, 0.0).astype(np.float32),
    )


def _label(scene: Scene) -> NDArray[np.int16]:
    """The hand label's codes: -1 no data, 0 dry, 1 water."""
    measured = np.isfinite(scene.sar_after).all(axis=0)
    return np.where(measured, scene.water_after, -1).astype(np.int16)


def _write_geotiff(
    path: Path, values: NDArray[np.generic], nodata: float | None, scene: Scene
) -> None:
    """Write (bands, H, W), whole or not at all."""
    profile = {
        "driver": "GTiff",
        "height": values.shape[1],
        "width": values.shape[2],
        "count": values.shape[0],
        "dtype": values.dtype.name,
        "crs": scene.crs,
        "transform": Affine(*scene.transform[:6]),
        "compress": "deflate",
        "nodata": nodata,
    }

    def write(partial: Path) -> None:
        with rasterio.open(partial, "w", **profile) as target:
            target.write(values)

    write_whole(path, write)
