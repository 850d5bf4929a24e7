"""The answers to overlapping tiles become one: their weighed mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flora.errors import FloraError
from flora.scenes.tiles import Axis
from flora.sensors import FloatArray


class Blend:
    """The weighed mean of the answers to tiles, from top to bottom and from left to right.

    The core of a tile weighs what `Axis.shares` says. What two cores share is kept until the second
    one comes: a few columns, and a few rows as wide as the scene. All else is finished at once, in
    the types in which it is stored. Cores without a valid pixel are never added: where they lie,
    nothing is valid.

    Args:
        down: How the rows of the scene are cut.
        across: How its columns are.
    """

    def __init__(self, down: Axis, across: Axis) -> None:
        self._down, self._across = down, across
        self._down_shares, self._across_shares = down.shares(), across.shares()
        self._channels = 0
        self._shared: FloatArray = np.zeros((0, 0, across.end), dtype=np.float32)

    def begin(self, number: int) -> None:
        """Begin a row of tiles; that before it is finished."""
        self._number = number
        self._above = self._shared
        self._beside: tuple[int, FloatArray] | None = None  # for which tile, and what it shares
        self._allocate()

    def add(self, column: int, answer: Sequence[FloatArray]) -> None:
        """Add the core of a tile, layers (C, h, w) in [0, 1]: the probability, then an image.

        Raises:
            FloraError: If earlier tiles had another number of channels.
        """
        bands = [band for layer in answer for band in layer]
        if not self._channels:
            self._channels = len(bands)
            self._allocate()
        if len(bands) != self._channels:
            raise FloraError("model gave an rgb image for some tiles only: expected all or none")
        weight = np.outer(self._down_shares[self._number], self._across_shares[column])
        block: FloatArray = np.empty((len(bands), *weight.shape), dtype=np.float32)
        for weighed, band in zip(block, bands, strict=True):
            np.multiply(weight, band, out=weighed)
        if self._beside is not None and self._beside[0] == column:
            shared = self._beside[1]
            block[..., : shared.shape[-1]] += shared
        start, step = self._across.cores[column].start, self._across.steps[column]
        self._beside = column + 1, block[..., step:].copy()
        self._finish(block[..., :step], slice(start, start + step))

    def rows(self) -> tuple[FloatArray, NDArray[np.uint8] | None]:
        """Probability (h, W) and image (3, h, W) of the rows that this row of tiles finished.

        The image is None if no tile has been added so far, or none had an image.
        """
        return self._probability, self._image if len(self._image) else None

    def _finish(self, block: FloatArray, columns: slice) -> None:
        """Join columns (C, h, w) to the tiles above, and keep what those below share.

        The columns are overwritten.
        """
        if self._above.size:
            block[:, : self._above.shape[1]] += self._above[..., columns]
        ready = len(self._probability)
        self._shared[..., columns] = block[:, ready:]
        finished = block[:, :ready]
        np.clip(finished, 0, 1, out=finished)  # in place: fresh memory costs more than the sums
        self._probability[:, columns] = finished[0]
        grey = finished[1:]
        grey *= 255
        self._image[..., columns] = np.rint(grey, out=grey)

    def _allocate(self) -> None:
        """Make room for what this row of tiles finishes, and for what it shares with the next."""
        ready, place = self._down.steps[self._number], self._down.cores[self._number]
        below, width = place.stop - place.start - ready, self._across.end
        self._probability: FloatArray = np.zeros((ready, width), dtype=np.float32)
        self._image = np.zeros((max(self._channels - 1, 0), ready, width), dtype=np.uint8)
        self._shared = np.zeros((self._channels, below, width), dtype=np.float32)
