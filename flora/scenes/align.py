"""By how much an optical image lies away from a radar image, told from where their edges agree."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from flora.errors import FloraError
from flora.sensors import BoolArray, FloatArray

# Widths of the Gaussians whose gradients are edges, in px: speckle takes the wider one.
SAR_WIDTH, OPTICAL_WIDTH = 2.0, 1.5
BRIGHTEST = 0.98  # quantile at which edges are cut, or a few houses decide
PEAK_WIDTH = 5.0  # px around the peak that belong to it
LEAST_CONFIDENCE = 6.0  # standard deviations; chosen on the simulated validation split
LEAST_SEEN = 0.2  # share of the pixels that both saw

Plane = NDArray[np.float64]


class Offset(NamedTuple):
    """Where the optical image lies, seen from the radar's.

    Its pixel (r + rows, c + columns) shows the ground of the radar's pixel (r, c).

    Attributes:
        rows: Down, in whole pixels.
        columns: To the right, in whole pixels.
        confidence: Height of the correlation's peak, in standard deviations of the rest of it.
    """

    rows: int
    columns: int
    confidence: float


def find_offset(sar: FloatArray, optical: FloatArray, most: int = 16) -> Offset | None:
    """The offset between two images on one grid, or None where their edges do not tell it.

    Brightness of radar and of reflected light have little in common, but fields, roads and shores
    have the same outlines in both. So what is correlated are magnitudes of gradients, by their
    phases alone (Reddy and Chatterji, 1996, doi 10.1109/83.506761; Guizar-Sicairos et al., 2008,
    doi 10.1364/OL.33.000156), smoothed by a pixel. The peak has to stand out of all other offsets
    that are looked at, else nothing is said.

    Args:
        sar: (C, H, W) in dB or normalised, NaN where not measured.
        optical: (C, H, W) of any scale, NaN where the ground was not seen.
        most: Largest offset to look at, in pixels.

    Raises:
        FloraError: If the two differ in size, or are smaller than four times `most`.

    Example:
        >>> import numpy as np
        >>> from flora.scenes.align import find_offset
        >>> fields = np.kron(np.random.default_rng(0).random((12, 12)), np.ones((8, 8)))
        >>> moved = np.roll(fields, (3, -2), axis=(0, 1))
        >>> find_offset(-20 - 5 * fields[None], moved[None])[:2]
        (3, -2)
        >>> noise = np.random.default_rng(1).random((1, 96, 96))
        >>> find_offset(-20 - 5 * fields[None], noise) is None
        True
    """
    if sar.shape[1:] != optical.shape[1:]:
        raise FloraError(
            f"expected {sar.shape[1]} x {sar.shape[2]} px as the radar image has",
            argument="optical",
            value=f"of {optical.shape[1]} x {optical.shape[2]} px",
            remedy="put both on one grid",
        )
    if min(sar.shape[1:]) < 4 * most:
        raise FloraError(
            f"expected {4 * most} px or more a side to look for offsets up to {most} px",
            argument="sar",
            value=f"of {sar.shape[1]} x {sar.shape[2]} px",
            remedy="give a larger part, or look less far",
        )
    seen: list[BoolArray] = [np.asarray(np.isfinite(one).all(axis=0)) for one in (sar, optical)]
    if min(float(mask.mean()) for mask in seen) < LEAST_SEEN:
        return None
    edges, guide = _edges(sar, seen[0], SAR_WIDTH), _edges(optical, seen[1], OPTICAL_WIDTH)
    if not (edges.any() and guide.any()):
        return None
    surface = _correlation(edges, guide, most)
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    steps = np.arange(2 * most + 1)
    rest = surface[np.hypot(steps[:, None] - row, steps[None] - column) > PEAK_WIDTH]
    spread = float(rest.std())
    confidence = float(surface.max() - rest.mean()) / spread if spread > 0 else 0.0
    if confidence < LEAST_CONFIDENCE:
        return None
    return Offset(int(row) - most, int(column) - most, confidence)


def _edges(image: FloatArray, seen: BoolArray, width: float) -> Plane:
    """Sum of the bands' gradient magnitudes (H, W), mean 0, and 0 near what was not seen."""
    total: Plane = np.zeros(seen.shape)
    for band in image:
        filled = np.where(seen, band, band[seen].mean()).astype(np.float64)
        gradient = ndimage.gaussian_gradient_magnitude(filled, width)
        spread = float(gradient[seen].std())
        total += gradient / spread if spread > 0 else 0.0
    inside: Any = ndimage.binary_erosion(seen, iterations=int(2 * width) + 1)
    if not inside.any():
        return np.zeros(seen.shape)
    total = np.minimum(total, np.quantile(total[inside], BRIGHTEST))
    return np.where(inside, total - total[inside].mean(), 0.0)


def _correlation(sar: Plane, optical: Plane, most: int) -> Plane:
    """Phase correlation at offsets from -most to most: (2 most + 1, 2 most + 1)."""
    shape = [fft.next_fast_len(2 * side, real=True) for side in sar.shape]
    spectrum = fft.rfft2(optical, shape) * fft.rfft2(sar, shape).conj()
    power = np.abs(spectrum)
    whitened = spectrum / np.maximum(power, 1e-9 * power.max())
    surface = ndimage.gaussian_filter(fft.irfft2(whitened, shape), 1.0, mode="wrap")
    near: Plane = np.roll(surface, (most, most), axis=(0, 1))[: 2 * most + 1, : 2 * most + 1]
    return near
