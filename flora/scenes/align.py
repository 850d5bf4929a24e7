"""By how much an optical image lies away from a radar image, told from where their edges agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from flora.errors import FloraError
from flora.scenes.optical import is_cloud
from flora.sensors import BoolArray, FloatArray

# Widths of the Gaussians whose gradients are edges, in px: speckle takes the wider one.
SAR_WIDTH, OPTICAL_WIDTH = 2.0, 1.5
BRIGHTEST = 0.98  # quantile at which edges are cut, or a few houses decide
PEAK_WIDTH = 5.0  # px around the peak that belong to it
LEAST_CONFIDENCE = 6.0  # standard deviations; chosen on the simulated validation split
ROUNDING = 1e-6  # of the largest value: the edges that float32 leaves in an image of one value
LEAST_SEEN = 0.2  # share of the pixels that both saw
# px: what is found of an image in its place is up to a pixel and a half (results/misalignment.json)
LEAST_MOVED = 2
MOST = 16  # px, the largest offset that is looked at
BLOCK, BLOCKS = 512, 4  # px, and how many of them along a side of a scene

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

    @property
    def clear(self) -> bool:
        """Whether the peak stands out of all other offsets."""
        return self.confidence >= LEAST_CONFIDENCE

    @property
    def trusted(self) -> bool:
        """Whether an image is better moved back, as its offset is clear and 2 px or more.

        Less than that is found of images in their place, too.
        """
        return self.clear and max(abs(self.rows), abs(self.columns)) >= LEAST_MOVED


class Rows(Protocol):
    """A radar scene that is read by whole rows, such as `flora.scenes.inputs.SarScene`."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        ...

    def read(self, row: int, height: int) -> tuple[FloatArray, BoolArray]:
        """Backscatter (C, height, columns) in dB, and where it is valid."""
        ...


class OpticalRows(Protocol):
    """An optical image on its pixels, such as `flora.scenes.before.BeforeScene`."""

    def read(self, row: int, height: int) -> FloatArray:
        """Whole rows (4, height, columns) of reflectance x 10000."""
        ...

    def scale(self, values: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Image (3, h, w), index (1, h, w) and validity (h, w) of them."""
        ...


def find_offset(sar: FloatArray, optical: FloatArray, most: int = MOST) -> Offset | None:
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
    found = _peak(_surfaces([(sar, optical)], most), most)
    return found if found is not None and found.clear else None


def scene_offset(scene: Rows, before: OpticalRows, most: int = MOST) -> Offset | None:
    """The offset between a scene and an image on its grid, clear or not; see `Offset.clear`.

    Up to sixteen blocks of 512 px, spread over the scene, have one offset in common: the
    correlations of all of them are averaged. It says nothing of relief, whose displacements differ
    from place to place. What is as bright as cloud or snow is left out.

    Args:
        scene: The scene.
        before: The image.
        most: Largest offset to look at, in pixels.

    Returns:
        The strongest offset; None if the scene has less than four times `most` px a side, or both
        saw too little of it.

    Example:
        >>> from pathlib import Path
        >>> from flora import open_before, open_scene
        >>> from flora.scenes.align import scene_offset
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=96)
        >>> sar, optical = (next(Path("chips").rglob(f"*_{kind}Hand.tif")) for kind in ("S1", "S2"))
        >>> with open_scene(sar) as scene, open_before(optical, scene, align=False) as before:
        ...     found = scene_offset(scene, before)
        >>> found is None or abs(found.rows) <= 16
        True
    """
    if min(scene.shape) < 4 * most:
        return None
    return _peak(_surfaces(_blocks(scene, before), most), most)


def _blocks(scene: Rows, before: OpticalRows) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Blocks (C, h, w) of both, NaN where not seen."""
    down, across = ([slice(s, s + min(BLOCK, n)) for s in _starts(n)] for n in scene.shape)
    for rows in down:
        height = rows.stop - rows.start
        values, measured = scene.read(rows.start, height)
        stored = before.read(rows.start, height)
        for columns in across:
            image, index, seen = before.scale(stored[..., columns])
            layers = np.concatenate([image, index])
            ground = seen & ~is_cloud(stored[:, :, columns])
            yield (
                np.where(measured[:, columns], values[..., columns], np.nan),
                np.where(ground, layers, np.nan),
            )


def _starts(length: int) -> list[int]:
    """Where blocks begin along a side: not overlapping, evenly spread."""
    count = max(1, min(BLOCKS, length // BLOCK))
    room = max(0, length - BLOCK)
    return [room // 2] if count == 1 else [room * k // (count - 1) for k in range(count)]


def _surfaces(pairs: Iterable[tuple[FloatArray, FloatArray]], most: int) -> Plane | None:
    """Mean correlation (2 most + 1, 2 most + 1) of the pairs that both saw; None without any."""
    total, count = np.zeros((2 * most + 1, 2 * most + 1)), 0
    for sar, optical in pairs:
        seen: list[BoolArray] = [np.asarray(np.isfinite(one).all(axis=0)) for one in (sar, optical)]
        if min(float(mask.mean()) for mask in seen) < LEAST_SEEN:
            continue
        edges, guide = _edges(sar, seen[0], SAR_WIDTH), _edges(optical, seen[1], OPTICAL_WIDTH)
        if edges.any() and guide.any():
            total += _correlation(edges, guide, most)
            count += 1
    return total / count if count else None


def _peak(surface: Plane | None, most: int) -> Offset | None:
    """The strongest offset of a correlation, and by how much it stands out of the rest."""
    if surface is None:
        return None
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    steps = np.arange(2 * most + 1)
    rest = surface[np.hypot(steps[:, None] - row, steps[None] - column) > PEAK_WIDTH]
    spread = float(rest.std())
    confidence = float(surface.max() - rest.mean()) / spread if spread > 0 else 0.0
    return Offset(int(row) - most, int(column) - most, confidence)


def _edges(image: FloatArray, seen: BoolArray, width: float) -> Plane:
    """Sum of the bands' gradient magnitudes (H, W), mean 0, and 0 near what was not seen."""
    total: Plane = np.zeros(seen.shape)
    for band in image:
        filled = np.where(seen, band, band[seen].mean()).astype(np.float64)
        gradient = ndimage.gaussian_gradient_magnitude(filled, width)
        spread = float(gradient[seen].std())
        if spread > ROUNDING * float(np.abs(filled).max()):
            total += gradient / spread
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
