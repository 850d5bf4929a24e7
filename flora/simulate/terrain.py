"""Simulated terrain: a river in its valley, eroded hills, tributaries and lakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from flora.sensors import BoolArray, FloatArray
from flora.simulate.hydrology import Drainage, drainage_level, route

PIXEL_M = 10.0

# Drainage is routed on every second pixel of a domain wider than the scene: rivers come from
# somewhere, and 20 m is finer than the valleys.
_COARSE = 2
_MARGIN = 64

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class TerrainParameters:
    """Shape of the land.

    Attributes:
        relief: Height of the hills above the floodplain, in m.
        hurst: Hurst exponent of the relief; 0.5 rough, 1 smooth.
        floodplain: Half width of the valley floor, in m.
        unevenness: Height variation of the valley floor, in m.
        valley_slope: Fall of the valley floor downstream, in m per m.
        river_width: Width of the main river, in m.
        sinuosity: Largest angle between the river and its valley, in radians.
        stream_area: Catchment from which a tributary holds water all year, in km2.
        lakes: Number of lake basins dug into the domain.
        lake_radius: Typical radius of a basin, in m.
    """

    relief: float
    hurst: float
    floodplain: float
    unevenness: float
    valley_slope: float
    river_width: float
    sinuosity: float
    stream_area: float
    lakes: int
    lake_radius: float

    @classmethod
    def draw(cls, rng: Generator) -> Self:
        """Draw from lowland deltas to hill valleys."""
        return cls(
            # Ranges without a source are set by eye, to be wide.
            relief=float(np.exp(rng.uniform(np.log(3), np.log(250)))),
            hurst=float(rng.uniform(0.55, 0.95)),
            floodplain=float(np.exp(rng.uniform(np.log(150), np.log(2500)))),
            unevenness=float(rng.uniform(0.5, 3.0)),
            # Range set by eye to the slopes of lowland rivers (compare Leopold and Wolman 1957).
            valley_slope=float(np.exp(rng.uniform(np.log(5e-5), np.log(2e-3)))),
            river_width=float(np.exp(rng.uniform(np.log(15), np.log(300)))),
            sinuosity=float(rng.uniform(0.2, 1.3)),
            stream_area=float(rng.uniform(1.0, 6.0)),
            lakes=int(rng.poisson(1.2)),
            lake_radius=float(np.exp(rng.uniform(np.log(60), np.log(900)))),
        )


@dataclass(frozen=True)
class Terrain:
    """The land before the flood; every array (H, W).

    Attributes:
        elevation: Ground, or the water surface where water stands all year, in m.
        hand: Height above the nearest drainage along the flow path, in m, 0 in it.
        permanent: Rivers and lakes.
    """

    elevation: FloatArray
    hand: FloatArray
    permanent: BoolArray


def random_field(
    rng: Generator, shape: tuple[int, int], wavelength: float, hurst: float = 0.7
) -> FloatArray:
    """A fractal surface by spectral synthesis (Saupe 1988): mean 0, standard deviation 1.

    Args:
        rng: Source of randomness.
        shape: (rows, columns).
        wavelength: Longest wavelength, in pixels; shorter ones follow the power law.
        hurst: Hurst exponent; spectral density falls as frequency ** -(2 hurst + 2).
    """
    rows, columns = (scipy.fft.next_fast_len(n, real=True) for n in shape)
    noise = rng.standard_normal((rows, columns), dtype=np.float32)
    down = scipy.fft.fftfreq(rows).astype(np.float32)
    along = scipy.fft.rfftfreq(columns).astype(np.float32)
    squared = down[:, None] ** 2 + along[None, :] ** 2
    amplitude = np.maximum(squared, wavelength**-2.0) ** np.float32(-0.5 * (hurst + 1.0))
    amplitude[0, 0] = 0.0
    surface = scipy.fft.irfft2(scipy.fft.rfft2(noise) * amplitude, s=(rows, columns))
    surface = surface[: shape[0], : shape[1]]
    spread = float(surface.std())
    return np.asarray((surface - surface.mean()) / max(spread, 1e-12), dtype=np.float32)


def make_terrain(rng: Generator, shape: tuple[int, int], parameters: TerrainParameters) -> Terrain:
    """Lay a river through the domain, erode the land that drains to it, and fill its lakes.

    Args:
        rng: Source of randomness.
        shape: (rows, columns) of the scene at 10 m.
        parameters: Shape of the land.
    """
    domain = (_padded(shape[0]), _padded(shape[1]))
    line = _meander(rng, domain, parameters)
    # Width of a natural river varies by a fifth or so along its course.
    variation = 1.0 + 0.2 * random_field(rng, domain, 60.0)
    width_px = np.maximum(parameters.river_width / PIXEL_M * variation, 1.0)
    river = _distance(line, domain) < width_px / 2
    floor, uplift = _valley(rng, line, domain, parameters)
    # Rivers are drawn bankful, so that the stage counts from the top of the bank.
    floor = np.where(river, floor - 0.2, floor)
    basin = _basins(rng, domain, parameters)

    trunk = river[::_COARSE, ::_COARSE].copy()
    outlet = _outlet(line, domain, trunk.shape)
    trunk.ravel()[outlet] = True
    hills = _erode(rng, floor[::_COARSE, ::_COARSE], uplift[::_COARSE, ::_COARSE], trunk, outlet)
    highest = float(np.quantile(hills, 0.98))
    hills *= parameters.relief / max(highest, 1e-6) * min(1.0, float(uplift.max()))

    detail = 0.03 * random_field(rng, domain, 40.0, parameters.hurst)
    ground = floor + _fine(hills) * (1.0 + detail) - basin
    coarse = ground[::_COARSE, ::_COARSE].astype(np.float64)
    drainage = route(coarse, outlet)
    catchment = drainage.accumulation * (_COARSE * PIXEL_M / 1000.0) ** 2
    stream = (catchment > parameters.stream_area) & ~trunk
    lake = (drainage.filled - coarse > 0.3) & (basin[::_COARSE, ::_COARSE] > 0) & ~trunk
    lake = ndimage.binary_opening(lake, _EIGHT)
    level = drainage_level(drainage, trunk | stream | lake)
    # Steps of the level at divides would cut the flood along straight lines.
    level = ndimage.gaussian_filter(level, 2.0)

    permanent = river | (_fine(lake.astype(np.float64)) > 0.5)
    permanent |= _stream_pixels(rng, drainage, stream, catchment, domain)
    surface = np.maximum(ground, _fine(np.where(lake, drainage.filled, -1e9)))
    hand = np.where(permanent, 0.0, np.maximum(surface - _fine(level), 0.0))
    inside = (slice(_MARGIN, _MARGIN + shape[0]), slice(_MARGIN, _MARGIN + shape[1]))
    return Terrain(
        elevation=surface[inside].astype(np.float32),
        hand=hand[inside].astype(np.float32),
        permanent=permanent[inside].copy(),
    )


def _padded(length: int) -> int:
    """Pixels of the domain along an axis on which the scene has `length`."""
    return -(-length // _COARSE) * _COARSE + 2 * _MARGIN


def _fine(layer: NDArray[np.float64]) -> FloatArray:
    """Magnify a coarse layer to 10 m."""
    magnified = ndimage.zoom(layer.astype(np.float32), _COARSE, order=1)
    return np.asarray(magnified, dtype=np.float32)


def _meander(
    rng: Generator, shape: tuple[int, int], parameters: TerrainParameters
) -> NDArray[np.float64]:
    """Centre line of the river as (points, 2) rows and columns, half a pixel apart.

    A sine-generated curve (Langbein and Leopold 1966) with a meander length of eleven river
    widths (Leopold and Wolman 1960), its amplitude and length wandering.
    """
    step = 0.5
    count = int(4 * (shape[0] + shape[1]) / step)
    wavelength = 11.0 * max(parameters.river_width / PIXEL_M, 3.0) * rng.uniform(0.8, 1.5)
    wander = np.cumsum(rng.normal(0.0, np.sqrt(step / wavelength) * 1.8, count))
    amplitude = parameters.sinuosity * np.exp(
        0.7 * np.sin(np.cumsum(rng.normal(0.0, np.sqrt(step / wavelength), count)))
    )
    phase = 2.0 * np.pi * step * np.arange(count) / wavelength + wander
    bend = np.cumsum(rng.normal(0.0, 0.01, count)) * np.sqrt(step)
    bend -= np.linspace(bend[0], bend[-1], count)
    heading = rng.uniform(0.0, 2.0 * np.pi) + np.minimum(amplitude, 1.4) * np.sin(phase)
    heading += np.clip(bend, -0.5, 0.5)
    path = step * np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
    through = np.array(shape) * rng.uniform(0.35, 0.65, 2)
    return np.asarray(path - path[count // 2] + through)


def _distance(line: NDArray[np.float64], shape: tuple[int, int]) -> FloatArray:
    """Distance to a line in pixels."""
    away = np.ones(shape, dtype=bool)
    points = np.round(line).astype(int)
    within = ((points >= 0) & (points < np.array(shape))).all(axis=1)
    away[points[within, 0], points[within, 1]] = False
    return np.asarray(ndimage.distance_transform_edt(away), dtype=np.float32)


def _valley(
    rng: Generator,
    line: NDArray[np.float64],
    shape: tuple[int, int],
    parameters: TerrainParameters,
) -> tuple[FloatArray, FloatArray]:
    """Valley floor in m, and the uplift that makes hills (0 on the floor, about 1 far from it)."""
    direction = line[-1] - line[0]
    direction = direction / max(float(np.hypot(*direction)), 1e-9)
    row, column = np.ogrid[: shape[0], : shape[1]]
    downstream = (row * direction[0] + column * direction[1]) * PIXEL_M

    # The valley follows the river's course with its meanders taken out.
    points = max(int(3.0 * 11.0 * max(parameters.river_width / PIXEL_M, 3.0)), 50)
    axis = _distance(ndimage.gaussian_filter1d(line, points, axis=0), shape) * PIXEL_M
    edge = parameters.floodplain * (1.0 + 0.35 * random_field(rng, shape, 150.0, 0.9))
    across = np.clip((axis - 0.6 * edge) / np.maximum(0.9 * edge, 100.0), 0.0, 1.0)
    across = across * across * (3.0 - 2.0 * across)

    # Heterogeneous terrain (Musgrave et al. 1989): roughness grows with height, which makes
    # the surface multifractal, rough on the heights and smooth in the hollows.
    height = np.maximum(0.7 + 0.45 * random_field(rng, shape, 350.0, 0.9), 0.05)
    rough = random_field(rng, shape, 120.0, parameters.hurst)
    uplift = across * height * np.maximum(1.0 + 0.5 * rough * np.minimum(height, 1.0), 0.1)

    # The bed falls steadily; the valley floor beside it is uneven and rises to the valley's edge.
    beside = np.minimum(_distance(line, shape) * PIXEL_M / 250.0, 1.0)
    bumps = np.maximum(1.5 + random_field(rng, shape, 80.0, 0.6), 0.0) * beside
    rise = np.minimum(axis / parameters.floodplain, 3.0)
    floor = parameters.unevenness * (0.5 * bumps + rise) - parameters.valley_slope * downstream
    return np.asarray(floor, dtype=np.float32), np.asarray(uplift, dtype=np.float32)


def _erode(
    rng: Generator, floor: FloatArray, uplift: FloatArray, trunk: BoolArray, outlet: int
) -> NDArray[np.float64]:
    """Hills in the shape that running water leaves them, in arbitrary units, 0 at the river.

    Where erosion balances uplift, slope falls as a power of catchment area (Whipple and Tucker
    1999); -0.45 is the usual exponent (Gailleton et al. 2021). Heights follow from the drainage
    tree, summed upstream from the river.
    """
    rough = 4.0 * random_field(rng, (floor.shape[0], floor.shape[1]), 60.0, 0.5)
    drainage = route(floor + uplift * (60.0 + 8.0 * rough) + 0.1 * rough, outlet)
    slope = uplift * drainage.accumulation**-0.45
    rise = np.where(trunk, 0.0, slope).ravel().tolist()
    down = drainage.receiver.tolist()
    for here in drainage.order.tolist()[1:]:
        rise[here] += rise[down[here]]
    # Creep rounds the ridges off.
    height = np.asarray(rise).reshape(floor.shape)
    return np.asarray(ndimage.gaussian_filter(height, 1.8))


def _basins(rng: Generator, shape: tuple[int, int], parameters: TerrainParameters) -> FloatArray:
    """Depth in m of the basins dug for lakes, 0 elsewhere."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    depth = np.zeros(shape, dtype=np.float32)
    shore = random_field(rng, shape, 60.0, 0.8)
    for _ in range(parameters.lakes):
        centre = rng.uniform(0.0, 1.0, 2) * np.array(shape)
        radius = parameters.lake_radius / PIXEL_M * rng.lognormal(0.0, 0.4)
        near = ((row - centre[0]) ** 2 + (column - centre[1]) ** 2) / radius**2
        bowl = 8.0 * np.clip(1.0 - near * np.maximum(1.0 + 0.5 * shore, 0.2), 0.0, 0.5)
        depth = np.maximum(depth, bowl.astype(np.float32))
    return depth


def _outlet(
    line: NDArray[np.float64], shape: tuple[int, int], coarse_shape: tuple[int, int]
) -> int:
    """Number of the coarse cell where the river leaves the domain."""
    points = np.round(line).astype(int)
    within = ((points >= 0) & (points < np.array(shape))).all(axis=1)
    last = np.flatnonzero(within)[-1]
    row, column = np.minimum(points[last] // _COARSE, np.array(coarse_shape) - 1)
    return int(row) * coarse_shape[1] + int(column)


def _stream_pixels(
    rng: Generator,
    drainage: Drainage,
    stream: BoolArray,
    catchment: NDArray[np.float64],
    shape: tuple[int, int],
) -> BoolArray:
    """Draw tributaries at full resolution, their steps of 45 degrees rounded off by a warp."""
    source = np.flatnonzero(stream.ravel())
    target = drainage.receiver[source]
    source, target = source[target >= 0], target[target >= 0]
    columns = stream.shape[1]
    pixels = np.zeros(shape, dtype=bool)
    warp = [1.5 * random_field(rng, shape, 16.0, 0.9) for _ in range(2)]
    # Bankfull width grows with the square root of discharge (Leopold and Maddock 1953).
    width = 1.0 + np.sqrt(catchment.ravel()[source] / 12.0)
    for part in np.linspace(0.0, 1.0, 2 * _COARSE, endpoint=False):
        row = _COARSE * ((1 - part) * (source // columns) + part * (target // columns))
        column = _COARSE * ((1 - part) * (source % columns) + part * (target % columns))
        at = (row.astype(int), column.astype(int))
        row, column = row + warp[0][at], column + warp[1][at]
        for side in (0.0, 0.5):
            wide = width > 1.0 + side
            r = np.clip(np.round(row + 2 * side), 0, shape[0] - 1).astype(int)[wide]
            c = np.clip(np.round(column), 0, shape[1] - 1).astype(int)[wide]
            pixels[r, c] = True
    return np.asarray(ndimage.binary_closing(pixels, _EIGHT), dtype=bool)
