"""Files as pictures: radar in grey, optical images in true colour, bands found by their names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from flora.colours import BACKSCATTER_LIMITS
from flora.maps.screen import Screen
from flora.scenes.names import polarisation
from flora.sensors import SENTINEL2_RGB, BoolArray, ByteArray, sentinel2_band

COLOURS = SENTINEL2_RGB.bands
# 13 bands are Level-1C, 12 Level-2A, which lacks B10: both begin with B1, B2, B3, B4.
BANDS_IN_ORDER = {12: (4, 3, 2), 13: (4, 3, 2)}
MOST_REFLECTANCE = 2.0  # above it, values are reflectance x 10000


def is_radar(file: Any) -> bool:
    """Whether an open raster is a radar image: by its bands' names, else by their number."""
    return file.count < 3 or any(polarisation(name or "") for name in file.descriptions)


def radar_band(file: Any) -> tuple[int, str]:
    """Number (from 1) and polarisation of the band to show: VV where there is one.

    Polarisations are found by the bands' descriptions, that of a single band also by the file's
    name; without either, the first band is VV.
    """
    names = [polarisation(name or "") for name in file.descriptions]
    if file.count == 1 and names == [None]:
        names = [polarisation(re.split(r"[\\/]", file.name)[-1])]
    if "VV" in names or not any(names):
        return names.index("VV") + 1 if "VV" in names else 1, "VV"
    return next((number, name) for number, name in enumerate(names, 1) if name is not None)


def radar_picture(screen: Screen, file: Any) -> ByteArray:
    """Grey (H, W, 4) of one polarisation, with alpha; see `radar_band`.

    Values whose median lies above 0 are power: backscatter in dB lies below it nearly everywhere.
    """
    band, name = radar_band(file)
    values = _in_units(file, (band,), screen.read(file, (band,)))[0]
    seen = np.isfinite(values)
    if seen.any() and np.median(values[seen]) > 0:
        values = 10 * np.log10(np.where(values > 0, values, np.nan))
    low, high = BACKSCATTER_LIMITS.get(name, BACKSCATTER_LIMITS["VV"])
    colours = np.repeat((values - low)[None] / (high - low), 3, axis=0)
    return _picture(colours, np.isfinite(values))


def colour_bands(file: Any) -> tuple[int, int, int]:
    """Numbers (from 1) of red, green and blue: by description, by colour, else in order.

    A description names a band by a word, such as "red", "B04" or "B4, central wavelength 665 nm".
    """
    bands = [sentinel2_band(text or "") for text in file.descriptions]
    named = [[n for n, band in enumerate(bands, 1) if band == wanted] for wanted in COLOURS]
    painted = [
        [n for n, colour in enumerate(file.colorinterp, 1) if colour == wanted]
        for wanted in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    ]
    for found in (named, painted):
        if all(len(numbers) == 1 for numbers in found):
            return found[0][0], found[1][0], found[2][0]
    return BANDS_IN_ORDER.get(file.count, (1, 2, 3))


def optical_picture(screen: Screen, file: Any) -> ByteArray:
    """Red, green, blue, alpha (H, W, 4) of 8-bit colours, or of reflectance (0 to 1, or x 10000).

    Seen is what alpha says; without alpha, where not every band is 0.
    """
    bands: tuple[int, ...] = colour_bands(file)
    counts = file.dtypes[0] == "uint8"
    alpha = (4,) if counts and file.count == 4 else ()
    stored = screen.read(file, bands + alpha, np.nan if alpha else 0.0)
    seen = stored[3] > 127 if alpha else (stored[:3] != 0).any(axis=0)
    seen &= np.isfinite(stored[:3]).all(axis=0)
    if counts:
        return _picture(stored[:3] / 255, seen)
    values = _in_units(file, bands, stored)
    bright = np.percentile(values[:, seen], 99) if seen.any() else 0.0
    white = SENTINEL2_RGB.white / (10_000 if bright <= MOST_REFLECTANCE else 1)
    return _picture(values / white, seen)


def _in_units(file: Any, bands: tuple[int, ...], stored: NDArray[Any]) -> NDArray[Any]:
    """Stored values (C, H, W) with the scale and the offset that the file declares."""
    scales, offsets = (
        np.array([declared[band - 1] for band in bands])[:, None, None]
        for declared in (file.scales, file.offsets)
    )
    values: NDArray[Any] = stored * scales + offsets
    return values


def _picture(colours: NDArray[Any], seen: BoolArray) -> ByteArray:
    stored = np.where(seen, 255 * np.clip(np.nan_to_num(colours), 0, 1), 0)
    picture: ByteArray = np.moveaxis(np.rint([*stored, 255 * seen]), 0, -1).astype(np.uint8)
    return picture
