"""Figures that a reader moves in the browser: no kernel, no network, one output cell."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flora.errors import FloraError
from flora.figures.widgets import widget_page
from flora.sensors import IGNORE, WATER

# One byte a pixel: seven bits of backscatter, and whether the label says water. The last level
# is a pixel that does not count.
_STEP = 0.25
_LEVELS = 127
_UNSEEN = 127
_WATER_BIT = 128


class ThresholdSlider:
    """A radar image and its label under a threshold that the reader moves.

    Whatever is darker than the threshold is called water. Colours tell found, missed and false
    water apart, by lightness too; the IoU stands beside. Thresholds are multiples of 0.25 dB, and
    the image is stored in steps of as much, so what the browser counts is exact.

    Args:
        backscatter: (H, W) in dB, NaN without data; best of at most 256 x 256 px, because every
            pixel takes 1.3 bytes of the page.
        water: (H, W) label codes: 0 dry, 1 water, 255 ignored.
        band: Its name, e.g. "VH".
        limits: Lowest and highest threshold in dB, which are also drawn black and white.
        start: The threshold at first, in dB; the nearest multiple of 0.25 is taken.

    Raises:
        FloraError: If the shapes differ, the limits are more than 31 dB apart, or `start` lies
            outside them.

    Example:
        >>> from flora.simulate.scene import simulate
        >>> from flora.figures.threshold_slider import ThresholdSlider
        >>> scene = simulate(7, 64)
        >>> slider = ThresholdSlider(scene.sar_after[1], scene.water_after)
        >>> slider
        ThresholdSlider(VH, 64 x 64 px, -32 to -8 dB)
        >>> slider.iou(slider.best()) >= slider.iou(-20.0)
        True
    """

    def __init__(
        self,
        backscatter: ArrayLike,
        water: ArrayLike,
        *,
        band: str = "VH",
        limits: tuple[float, float] = (-32.0, -8.0),
        start: float = -20.0,
    ) -> None:
        values = np.asarray(backscatter, dtype=np.float64)
        codes = np.asarray(water)
        if values.ndim != 2 or values.shape != codes.shape:
            raise FloraError(
                f"backscatter of shape {values.shape} and water of shape {codes.shape}: expected "
                "the same (rows, columns)"
            )
        low, high = (round(limit / _STEP) * _STEP for limit in limits)
        if not 0.0 < high - low <= (_LEVELS - 2) * _STEP:
            raise FloraError(f"limits {limits}: expected the lower first, at most 31 dB apart")
        if not low <= start <= high:
            raise FloraError(f"start {start} dB: expected a threshold within {low:g} to {high:g}")
        self.band = band
        self.low = low
        self.high = high
        self.start = round(start / _STEP) * _STEP
        self.pixels = self._pack(values, codes)

    def iou(self, threshold: float) -> float:
        """IoU of the label and what is darker than a multiple of 0.25 dB; 0 without any water."""
        found, missed, false = self._counts(threshold)
        return found / max(found + missed + false, 1)

    def thresholds(self) -> NDArray[np.float64]:
        """Every threshold that the slider offers, in dB."""
        return np.arange(self.low, self.high + _STEP / 2, _STEP)

    def best(self) -> float:
        """The threshold of the highest IoU: known only to whoever knows the label."""
        thresholds = self.thresholds()
        return float(thresholds[np.argmax([self.iou(t) for t in thresholds])])

    def __repr__(self) -> str:
        rows, columns = self.pixels.shape
        return (
            f"ThresholdSlider({self.band}, {rows} x {columns} px, {self.low:g} to {self.high:g} dB)"
        )

    def _repr_html_(self) -> str:
        rows, columns = self.pixels.shape
        data = self.pixels.tobytes()
        return widget_page("threshold_slider").substitute(
            key=hashlib.sha256(data + repr(self).encode()).hexdigest()[:12],
            band=self.band,
            rows=rows,
            columns=columns,
            low=self.low,
            high=self.high,
            start=self.start,
            step=_STEP,
            pixels=base64.b64encode(data).decode("ascii"),
        )

    def _pack(self, values: NDArray[np.float64], codes: NDArray[np.generic]) -> NDArray[np.uint8]:
        seen = np.isfinite(values) & (codes != IGNORE)
        # Level n holds values from low + (n - 1) steps up to low + n steps: a value is darker than
        # low + k steps exactly where its level is at most k.
        level = np.floor((np.where(seen, values, 0.0) - self.low) / _STEP) + 1
        packed = np.clip(level, 0, _LEVELS - 1).astype(np.uint8)
        packed |= np.where(codes == WATER, _WATER_BIT, 0).astype(np.uint8)
        return np.where(seen, packed, _UNSEEN).astype(np.uint8)

    def _counts(self, threshold: float) -> tuple[int, int, int]:
        seen = self.pixels != _UNSEEN
        label = (self.pixels & _WATER_BIT) > 0
        dark = (self.pixels & (_WATER_BIT - 1)) <= round((threshold - self.low) / _STEP)
        return tuple(  # type: ignore[return-value]
            int((seen & part).sum()) for part in (dark & label, ~dark & label, dark & ~label)
        )
