"""Sentinel-1 and Sentinel-2 chips as GeoTIFFs: what several datasets store in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flora.datasets.base import Window
from flora.datasets.rasters import (
    Raster,
    band_descriptions,
    looks_linear,
    read_raster,
    require_decibel,
    require_same_grid,
)
from flora.errors import FloraError, Given
from flora.grid import Grid
from flora.sensors import (
    IGNORE,
    SENTINEL1,
    SENTINEL2_BANDS,
    BoolArray,
    FloatArray,
    OpticalScaling,
    Units,
    normalised_difference,
    sentinel2_bands,
)

CLOUD_SCORE = 0.2

# What an image, its NDVI and its cloud mask need: reading 7 bands of 13 halves the decoding.
_COLOUR_BANDS = ("B4", "B3", "B2", "B8")
_READ_BANDS = (*_COLOUR_BANDS, "B1", "B10", "B11")


@dataclass(frozen=True)
class OpticalLayers:
    """A true-colour image (3, H, W) in [0, 1], its validity, its NDVI (1, H, W), its whole grid."""

    image: FloatArray
    valid: BoolArray
    index: FloatArray
    grid: Grid


def read_sentinel1(
    path: Path | tuple[Path, Path], window: Window | None = None, units: Units = "db"
) -> tuple[FloatArray, Grid]:
    """Read VV and VH in dB, NaN where either has no data, and the grid of the whole file.

    Args:
        path: The file of both bands, or one file of each.
        window: The part to read.
        units: What the file holds; linear power is converted, and none of it is no data.

    Raises:
        FloraError: If a file is unreadable, has other bands, or is empty, infinite or not in
            `units`, or if two files differ in their grids.
    """
    if isinstance(path, Path):
        rasters = [read_raster(path, SENTINEL1.bands, window)]
    else:
        rasters = [
            read_raster(file, (band,), window)
            for file, band in zip(path, SENTINEL1.bands, strict=True)
        ]
        require_same_grid(rasters[0].grid, path[0], rasters[1].grid, path[1])
    first = path if isinstance(path, Path) else path[0]
    values = np.concatenate([_without_nodata(raster) for raster in rasters])
    if units == "linear":
        values = _decibel(values, str(first))
    values[:, np.isnan(values).any(axis=0)] = np.nan
    whole = None if window is None else lambda: read_sentinel1(path, None, units)[0]
    _require_whole_decibel(values, str(first), whole)
    return values, rasters[0].grid


def _without_nodata(raster: Raster) -> FloatArray:
    values = raster.values.astype(np.float32)
    if raster.nodata is not None:
        values[raster.values == raster.nodata] = np.nan
    return values


def _decibel(power: FloatArray, source: str) -> FloatArray:
    """10 log10 of linear power; no power is no data."""
    if (power < 0).any():
        raise FloraError(
            f"{source} or its VH holds negative values, which linear power never is: pass "
            "units='db'"
        )
    decibel: FloatArray = np.full_like(power, np.nan)
    np.log10(power, out=decibel, where=power > 0)
    return 10 * decibel


def _require_whole_decibel(
    values: FloatArray, source: str, whole: Callable[[], object] | None
) -> None:
    """Refuse backscatter that is empty, infinite or not in dB, see `require_decibel`.

    Args:
        values: (C, H, W) backscatter, NaN where nothing was measured.
        source: What the message calls the values.
        whole: Reads and checks the whole chip, where `values` are a window of it: a window of a
            good chip may be all nodata or all bright, so that the whole chip decides.

    Raises:
        FloraError: See above.
    """
    odd = not np.isfinite(values).any() or looks_linear(values)
    if whole is not None and odd and not np.isinf(values).any():
        whole()
    else:
        require_decibel(values, source)


def read_sentinel2(
    path: Path,
    scaling: OpticalScaling,
    window: Window | None = None,
    bands: tuple[str | None, ...] = SENTINEL2_BANDS,
) -> OpticalLayers:
    """Read a Level-1C image, `bands` in order, reflectance x 10000, 0 where there is no data.

    Cloud and nodata are not valid, and 0 in the image and in NDVI.

    Raises:
        FloraError: If the file is unreadable or has other bands.
    """
    raster = read_raster(path, bands, window, only=_READ_BANDS)
    counts = unsigned(raster.values)
    colours = counts[: len(_COLOUR_BANDS)]
    reflectance = counts.astype(np.float32) / np.float32(10_000.0)
    valid = (colours > 0).all(axis=0) & ~cloud_mask(reflectance, bands=_READ_BANDS)
    return _optical_layers(colours, valid, scaling, raster.grid)


def read_optical(
    path: Path, scaling: OpticalScaling, window: Window | None = None
) -> OpticalLayers:
    """Read an image of Sentinel-2, its bands by their names, see `sentinel2_bands`.

    Level-1C has its clouds masked, see `read_sentinel2`; in others they have to be 0.

    Raises:
        FloraError: If the file is unreadable, or its bands are not clear.
    """
    names = sentinel2_bands(band_descriptions(path), Given("", path))
    if set(_READ_BANDS) <= set(names):
        return read_sentinel2(path, scaling, window, names)
    raster = read_raster(path, names, window, only=_COLOUR_BANDS)
    counts = unsigned(raster.values)
    measured: BoolArray = np.asarray((counts > 0).all(axis=0))
    return _optical_layers(counts, measured, scaling, raster.grid)


def _optical_layers(
    counts: NDArray[Any], valid: BoolArray, scaling: OpticalScaling, grid: Grid
) -> OpticalLayers:
    """Image and NDVI of red, green, blue and near infrared, both 0 where not valid."""
    ndvi = np.where(valid, normalised_difference(counts[3], counts[0]), 0.0)
    image = scaling.normalise(counts[:3], valid)
    return OpticalLayers(image, valid, ndvi[None].astype(np.float32), grid)


def cloud_mask(
    reflectance: FloatArray,
    threshold: float = CLOUD_SCORE,
    bands: Sequence[str] = SENTINEL2_BANDS,
) -> BoolArray:
    """Mark cloudy pixels of a Sentinel-2 Level-1C image by brightness, moisture and snow index.

    The score is the lowest of six ramps: cloud is bright in blue, in coastal aerosol (also with
    cirrus added) and in the sum of the visible bands, is moist (B8, B11) and is not snow
    (B3, B11). Source: the cloud score of Schmitt et al. (2019), "Aggregating cloud-free Sentinel-2
    images with Google Earth Engine", ISPRS Annals IV-2/W7, after Housman et al. (2018), Remote
    Sensing 10(8):1184, here pixel by pixel, without their smoothing and their shadow test. Thin
    cloud and shadow pass; bright roofs, sand and salt may be taken for cloud, as are
    2.9 % of the pixels of the cloudless chip Spain_7370579.

    Args:
        reflectance: (bands, H, W) top-of-atmosphere reflectance in [0, 1].
        threshold: Score above which a pixel is cloud; the sources use 0.1 to 0.3.
        bands: Names of the bands, in order; B1, B2, B3, B4, B8, B10 and B11 are used.

    Returns:
        (H, W), true in cloud.

    Raises:
        FloraError: If the number of bands differs from `bands`.
    """
    if reflectance.ndim != 3 or reflectance.shape[0] != len(bands):
        raise FloraError(
            f"reflectance of shape {reflectance.shape}: expected ({len(bands)}, rows, columns), "
            f"{', '.join(bands)}"
        )
    aerosol, blue, green, red, near_infrared, cirrus, shortwave = (
        reflectance[bands.index(name)] for name in ("B1", "B2", "B3", "B4", "B8", "B10", "B11")
    )

    def ramp(values: FloatArray, low: float, high: float) -> FloatArray:
        return (values - low) / (high - low)

    score = np.minimum.reduce(
        [
            ramp(blue, 0.1, 0.5),
            ramp(aerosol, 0.1, 0.3),
            ramp(aerosol + cirrus, 0.15, 0.2),
            ramp(red + green + blue, 0.2, 0.8),
            ramp(normalised_difference(near_infrared, shortwave), -0.1, 0.1),
            ramp(normalised_difference(green, shortwave), 0.8, 0.6),
        ]
    )
    cloudy: BoolArray = score > threshold
    return cloudy


def decode_labels(
    stored: NDArray[Any], codes: Mapping[int, int], path: Path, meaning: str
) -> NDArray[np.int64]:
    """Translate a publisher's label codes (H, W) to 0 dry, 1 water, 255 ignore.

    Args:
        stored: The codes of the file.
        codes: What each of them becomes.
        path: The file, for the message.
        meaning: The codes in words, for the message.

    Raises:
        FloraError: If the file holds a code that is not listed: it is not what it is taken for.
    """
    unknown = set(np.unique(stored).tolist()) - set(codes)
    if unknown:
        raise FloraError(f"{path} holds label {min(unknown)}: expected {meaning}")
    water = np.full(stored.shape, IGNORE, np.int64)
    for code, becomes in codes.items():
        water[stored == code] = becomes
    return water


def unsigned(stored: NDArray[Any]) -> NDArray[Any]:
    """Reflectance x 10000 as the uint16 it is, although files type it int16."""
    return stored.view(np.uint16) if stored.dtype == np.int16 else stored
