"""Bands, units, label codes and the constants that put a sensor's values on the model's scale.

A scaling belongs to the sensor and never to the chip: absolute backscatter is what tells water
from land, so two chips with the same sigma0 must reach the model with the same value.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from flora.errors import FloraError, FloraWarning, Given

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DRY = 0
WATER = 1
IGNORE = 255

Units = Literal["db", "linear"]
"""What a file holds its backscatter in: decibels, or power."""

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
ByteArray = NDArray[np.uint8]


def require_units(units: str) -> None:
    """Refuse what is none of `Units`.

    Raises:
        FloraError: See above.
    """
    if units not in ("db", "linear"):
        raise FloraError('expected "db" or "linear"', argument="units", value=repr(units))


@dataclass(frozen=True)
class OpticalStack:
    """What an optical satellite saw: image, index, and where it saw the ground.

    A batch has a first axis B; a single chip has none.

    Attributes:
        image: (B, C_o, H, W) float32 in [0, 1].
        index: (B, 1, H, W) float32 in [-1, 1], the index that `OpticalScaling` names.
        valid: (B, H, W) bool, false in nodata and cloud.
        of_flood: Whether it shows the flood that is to be mapped, or the ground before it.
    """

    image: Tensor
    index: Tensor
    valid: Tensor
    of_flood: bool = field(default=False, kw_only=True)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same change of all three layers, e.g. a crop."""
        layers = (change(layer) for layer in (self.image, self.index, self.valid))
        return type(self)(*layers, of_flood=self.of_flood)

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        """The same on a device."""
        return self.map(lambda layer: layer.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same in page-locked memory, which a `DataLoader` asks for before a GPU."""
        return self.map(lambda layer: layer.pin_memory())


@dataclass(frozen=True)
class Limits:
    """The range of a measurement; values beyond it are of another sensor or unit.

    Attributes:
        low: Least value.
        high: Greatest value.
        unit: Its unit.
        scale: Stored value of one unit.
        tolerated: Share of values that may lie beyond, e.g. sun glint.
    """

    low: float
    high: float
    unit: str
    scale: float = 1.0
    tolerated: float = 0.0


# Sen1Floods11 reaches from -79 to +30 dB. Cloud and glint pass a reflectance of 1, not of 3.
DECIBEL = Limits(-100.0, 60.0, "dB")
REFLECTANCE = Limits(0.0, 3.0, "reflectance", scale=10_000.0, tolerated=0.001)


@dataclass(frozen=True)
class SarScaling:
    """How one SAR product's values become the model's input.

    Attributes:
        name: Product name, written into checkpoints.
        bands: Polarisations in channel order.
        unit: Unit of the stored values.
        mean: Per-band value that becomes 0, in `unit`.
        std: Per-band spread that becomes 1, in `unit`.
        low: Values below are clipped; they carry no more than "very dark".
        high: Values above are clipped; they are corner reflectors.

    Example:
        >>> import numpy as np
        >>> from flora.sensors import SENTINEL1
        >>> sigma0 = np.array([[[-12.5, -17.5]], [[-20.0, -26.0]]], dtype=np.float32)  # VV, VH
        >>> SENTINEL1.normalise(sigma0, np.array([[True, True]])).tolist()
        [[[0.0, -1.0]], [[0.0, -1.0]]]
    """

    name: str
    bands: tuple[str, ...]
    unit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: float
    high: float

    def normalise(self, values: FloatArray, valid: BoolArray) -> FloatArray:
        """Scale stored values to the model's input.

        Nodata becomes 0, the sensor's mean, so that it looks neither like water nor like a
        building; `valid` is what says that nothing was measured there.

        Args:
            values: (C, H, W) in `unit`, NaN allowed where not valid.
            valid: (H, W), true where all bands were measured.

        Returns:
            (C, H, W) float32, finite.

        Raises:
            FloraError: If the number of bands differs from `bands`.
        """
        self._check_bands(values)
        clipped = np.clip(np.where(valid, values, 0.0), self.low, self.high)
        scaled = (clipped - self._column(self.mean)) / self._column(self.std)
        return np.where(valid, scaled, 0.0).astype(np.float32)

    def restore(self, scaled: FloatArray) -> FloatArray:
        """Invert `normalise` up to its clipping: (C, H, W) model input to `unit`."""
        self._check_bands(scaled)
        return (scaled * self._column(self.std) + self._column(self.mean)).astype(np.float32)

    def repeat(self, dates: int) -> Self:
        """The scaling of several acquisitions stacked as channels, the earliest first."""
        return replace(self, bands=self.bands * dates, mean=self.mean * dates, std=self.std * dates)

    @property
    def dates(self) -> int:
        """How many acquisitions are stacked as channels."""
        return len(self.bands) // len(set(self.bands))

    def of_one_date(self) -> Self:
        """The scaling of the first of them: what `repeat` was called on."""
        first = slice(len(self.bands) // self.dates)
        return replace(self, bands=self.bands[first], mean=self.mean[first], std=self.std[first])

    def _check_bands(self, values: FloatArray) -> None:
        if values.ndim != 3 or values.shape[0] != len(self.bands):
            raise FloraError(
                f"SAR values of shape {values.shape} for {self.name}: expected (bands, rows, "
                f"columns) with {len(self.bands)} bands in the order {', '.join(self.bands)}"
            )

    @staticmethod
    def _column(constants: tuple[float, ...]) -> NDArray[np.float64]:
        return np.asarray(constants)[:, None, None]


@dataclass(frozen=True)
class OpticalScaling:
    """How one optical product's values become an image in [0, 1].

    Attributes:
        name: Product name, written into checkpoints.
        bands: Band names in channel order; red, green, blue first where they exist.
        white: Stored value that becomes 1. Every PSNR depends on it, so every PSNR names it.
        index_name: The index that goes with the image: "NDVI", "NDWI", "MNDWI" or "NGRDI".

    Example:
        >>> import numpy as np
        >>> from flora.sensors import SENTINEL2_RGB
        >>> stored = np.array([[[300]], [[1500]], [[4000]]])  # reflectance 0.03, 0.15 and 0.4
        >>> SENTINEL2_RGB.normalise(stored, np.array([[True]])).ravel()
        array([0.1, 0.5, 1. ], dtype=float32)
        >>> SENTINEL2_RGB.scaling
        'B4/B3/B2, stored value / 3000'
    """

    name: str
    bands: tuple[str, ...]
    white: float
    index_name: str

    def normalise(self, values: NDArray[np.generic], valid: BoolArray) -> FloatArray:
        """Scale stored values (C, H, W) to [0, 1]; what is not valid (H, W) becomes 0."""
        scaled = np.clip(np.asarray(values, dtype=np.float32) / self.white, 0.0, 1.0)
        return np.where(valid, scaled, 0.0).astype(np.float32)

    @property
    def scaling(self) -> str:
        """The phrase that stands beside every PSNR, e.g. "B4/B3/B2, stored value / 3000"."""
        return f"{'/'.join(self.bands)}, stored value / {self.white:g}"


# Means and spreads are round numbers near those of land and water chips in Sen1Floods11
# (published: -12.6 and -20.3 dB, 5.2 and 5.9 dB). The clip keeps what speckle and calm water
# reach: clipping VH at -25 dB would saturate a sixth of a flooded chip.
SENTINEL1 = SarScaling(
    name="sentinel-1 sigma0",
    bands=("VV", "VH"),
    unit="dB",
    mean=(-12.5, -20.0),
    std=(5.0, 6.0),
    low=-50.0,
    high=15.0,
)

# OMBRIA's radar images are 8-bit and stretched per chip by their publisher: absolute dB is lost.
OMBRIA_S1 = SarScaling(
    name="ombria sentinel-1",
    bands=("VV",),
    unit="8-bit count",
    mean=(140.0,),
    std=(50.0,),
    low=0.0,
    high=255.0,
)

# Level-1C bands in the order in which Sen1Floods11 and SEN12MS store them.
SENTINEL2_BANDS = (
    "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12",
)  # fmt: skip

# Level-2A holds no cirrus band.
SENTINEL2_L2A_BANDS = tuple(band for band in SENTINEL2_BANDS if band != "B10")

# What an image, and NDVI, are made of: red, green, blue and near infrared.
COLOUR_BANDS = ("B4", "B3", "B2", "B8")
_IN_ORDER = {4: COLOUR_BANDS, 12: SENTINEL2_L2A_BANDS, 13: SENTINEL2_BANDS}
_COLOURS = {"RED": "B4", "GREEN": "B3", "BLUE": "B2", "NIR": "B8", "INFRARED": "B8"}
_OTHER_COLOURS = {"EDGE", "NARROW", "COASTAL", "SHORTWAVE", "SHORT", "SWIR", "THERMAL"}

# Reflectance 0.3 is the usual white of a true-colour Sentinel-2 picture.
SENTINEL2_RGB = OpticalScaling(
    name="sentinel-2 true colour", bands=("B4", "B3", "B2"), white=3000.0, index_name="NDVI"
)

# No red band, hence neither true colour nor NDVI: shortwave infrared, near infrared, green.
OMBRIA_S2 = OpticalScaling(
    name="ombria sentinel-2", bands=("B11", "B8", "B3"), white=255.0, index_name="NDWI"
)


def normalised_difference(first: FloatArray, second: FloatArray) -> FloatArray:
    """(first - second) / (first + second), and 0 where the sum is 0; in [-1, 1].

    NDVI is of (near infrared, red), NDWI of (green, near infrared) after McFeeters (1996),
    MNDWI of (green, shortwave infrared) after Xu (2006).

    Example:
        >>> import numpy as np
        >>> from flora.sensors import normalised_difference
        >>> near_infrared = np.array([0.4, 0.02], dtype=np.float32)  # a field, water
        >>> red = np.array([0.1, 0.03], dtype=np.float32)
        >>> normalised_difference(near_infrared, red).round(2)  # NDVI
        array([ 0.6, -0.2], dtype=float32)
    """
    first = np.asarray(first, dtype=np.float32)
    second = np.asarray(second, dtype=np.float32)
    total = first + second
    nonzero = np.abs(total) > 1e-6
    ratio = np.divide(first - second, total, out=np.zeros_like(total), where=nonzero)
    clipped: FloatArray = np.clip(ratio, -1.0, 1.0)
    return clipped


def sentinel2_band(description: str) -> str | None:
    """The band of Sentinel-2 that a description names by a word, or None.

    Example:
        >>> from flora.sensors import sentinel2_band
        >>> said = ("B4, central wavelength 665 nm", "S2_B08", "blue", "red edge 1", "Band 4")
        >>> [sentinel2_band(text) for text in said]
        ['B4', 'B8', 'B2', None, None]
    """
    words = set(re.split(r"[^A-Z0-9]+", description.upper()))
    numbers = (re.fullmatch(r"B0*(\d{1,2}A?)", word) for word in words)
    named = {f"B{match[1]}" for match in numbers if match} & set(SENTINEL2_BANDS)
    if not named and not words & _OTHER_COLOURS:
        named = {band for word, band in _COLOURS.items() if word in words}
    return named.pop() if len(named) == 1 else None


def sentinel2_bands(descriptions: Sequence[str | None], source: Given) -> tuple[str | None, ...]:
    """Which band of Sentinel-2 each band of a file is: by description, else by their number.

    Without a description that names one, 13 bands are Level-1C, 12 are Level-2A, and 4 are
    `COLOUR_BANDS`. Of four bands of which three are named red, green and blue, the other is near
    infrared.

    Args:
        descriptions: One a band, None where there is none.
        source: The argument that named the file.

    Raises:
        FloraError: If there are others than named ones to choose from, one of `COLOUR_BANDS` is
            named twice, or not all of them are named.

    Warns:
        FloraWarning: If the order is taken for granted where it might be another.

    Example:
        >>> from flora.errors import Given
        >>> from flora.sensors import sentinel2_bands
        >>> sentinel2_bands(["blue", "green", "red", "nir"], Given("before_path", "b.tif"))
        ('B2', 'B3', 'B4', 'B8')
    """
    names = [sentinel2_band(text or "") for text in descriptions]
    if len(names) == 4 and names.count(None) == 1 and {"B4", "B3", "B2"} < {*names}:
        names[names.index(None)] = "B8"
    said = ", ".join(text or "-" for text in descriptions)
    twice = [band for band in COLOUR_BANDS if names.count(band) > 1]
    if twice:
        raise FloraError(
            f"its bands are described as {said}: expected one {twice[0]}",
            argument=source,
            remedy="write a file of one date's B4, B3, B2 and B8",
        )
    if set(COLOUR_BANDS) <= set(names):
        return tuple(names)
    if any(names):
        raise FloraError(
            f"its bands are described as {said}: expected {', '.join(COLOUR_BANDS)} among them",
            argument=source,
            remedy="choose a file that has them, or correct the descriptions",
        )
    described = f"described as {said}" if any(descriptions) else "without names"
    if len(names) not in _IN_ORDER:
        raise FloraError(
            f"{len(names)} bands {described}, expected 13 (Level-1C: "
            f"{', '.join(SENTINEL2_BANDS)}), 12 (Level-2A: the same without B10) or 4 "
            f"({', '.join(COLOUR_BANDS)})",
            argument=source,
            remedy="describe the bands, e.g. as B4",
        )
    order = _IN_ORDER[len(names)]
    if len(names) == 12 or any(descriptions):
        warnings.warn(
            FloraWarning(
                f"{len(names)} bands {described}: taken for {', '.join(order)} in this order",
                argument=source,
                remedy="describe the bands, e.g. as B4, if it is another",
            ),
            stacklevel=2,
        )
    return order
