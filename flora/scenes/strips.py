"""What the model gets of a scene, one row of tiles at a time, read ahead by a thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora.scenes.before import BeforeScene
from flora.scenes.inputs import SarScene
from flora.scenes.tiles import Axis
from flora.sensors import BoolArray, FloatArray, OpticalStack

CHUNK = 256  # rows read and scaled at a time


class Strip(NamedTuple):
    """What the model gets of one row of tiles, as wide as they reach.

    Attributes:
        sar: (C, h, W), normalised.
        valid: (h, W).
        optical: Image (3, h, W), index (1, h, W) and validity (h, W) from before the flood; or
            nothing.
    """

    sar: FloatArray
    valid: BoolArray
    optical: tuple[NDArray[Any], ...] = ()

    @property
    def layers(self) -> list[NDArray[Any]]:
        """All arrays."""
        return [self.sar, self.valid, *self.optical]

    def batch(self, columns: Sequence[slice]) -> tuple[Tensor, Tensor, OpticalStack | None]:
        """Tiles of one width as `Predictor` gets them."""

        def stack(layer: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.stack([layer[..., c] for c in columns]))

        guide = OpticalStack(*map(stack, self.optical)) if self.optical else None
        return stack(self.sar), stack(self.valid), guide


def read_ahead(
    scene: SarScene, before: BeforeScene | None, down: Axis, across: Axis, done_rows: int = 0
) -> Iterator[tuple[int, Strip]]:
    """Number and strip of each row of tiles; a thread of its own reads one ahead.

    A finished row of tiles comes too where it reaches below what it finished: the next one is
    blended with it.
    """
    if done_rows == len(down.starts):
        return
    first = down.cores[done_rows].start
    wanted = [k for k, core in enumerate(down.cores) if core.stop > first]
    with ThreadPoolExecutor(1, "flora-read") as reader:
        coming = reader.submit(read_strip, scene, before, down, across, wanted[0])
        for k in wanted:
            strip = coming.result()
            if k != wanted[-1]:
                coming = reader.submit(read_strip, scene, before, down, across, k + 1, strip)
            yield k, strip


def read_strip(
    scene: SarScene,
    before: BeforeScene | None,
    down: Axis,
    across: Axis,
    number: int,
    last: Strip | None = None,
) -> Strip:
    """Read and scale one row of tiles; where tiles reach beyond the scene, it is mirrored.

    Args:
        scene: The scene.
        before: The optical image from before the flood.
        down: How the rows of the scene are cut.
        across: How its columns are.
        number: Which row of tiles.
        last: The row of tiles above it; what both share is not read again.
    """
    place = down.places[number]
    known = 0 if last is None else down.places[number - 1].stop - place.start
    rows, (above, below) = down.inside(place.start + known, place.stop)
    size = (place.stop - place.start, across.end)
    layers: list[NDArray[Any]] = []
    for row in range(rows.start, rows.stop, CHUNK):
        part = read_scaled(scene, before, row, min(CHUNK, rows.stop - row))
        layers = layers or [np.empty((*read.shape[:-2], *size), read.dtype) for read in part]
        at = known + above + row - rows.start
        for layer, read in zip(layers, part, strict=True):
            layer[..., at : at + read.shape[-2], across.mapped] = read
            _mirror(layer[..., at : at + read.shape[-2], :], across.mapped)
    for layer, earlier in zip(layers, last.layers if last is not None else (), strict=False):
        layer[..., :known, :] = earlier[..., earlier.shape[-2] - known :, :]
    for layer in layers:
        _mirror(layer.swapaxes(-1, -2), slice(above, size[0] - below))
    sar, valid, *optical = layers
    return Strip(sar, valid, tuple(optical))


def read_scaled(
    scene: SarScene, before: BeforeScene | None, row: int, height: int
) -> list[NDArray[Any]]:
    """The layers of a `Strip` for whole rows of the scene."""
    sar, valid = scene.read(row, height)
    layers: list[NDArray[Any]] = [scene.scaling.normalise(sar, valid), valid]
    return layers if before is None else [*layers, *before.scale(before.read(row, height))]


def _mirror(layer: NDArray[Any], known: slice) -> None:
    """Fill what lies beside the known columns of a layer (..., n) with their mirror images."""
    beside = known.start, layer.shape[-1] - known.stop
    if any(beside):
        source = np.pad(np.arange(known.start, known.stop), beside, mode="symmetric")
        for beyond in (slice(0, known.start), slice(known.stop, None)):
            layer[..., beyond] = layer[..., source[beyond]]
