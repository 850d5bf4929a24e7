"""How a scene is cut into tiles, predicted, and blended, one row of tiles in memory at a time.

A local model answers at a pixel by what is around it. Tiles therefore do not show: they overlap,
what lies near their edges has no weight, and they begin where the attention windows of the whole
scene do. No statistics of the scene are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora.errors import FloraError
from flora.predictors import Prediction, Predictor
from flora.scenes.before import BeforeScene
from flora.scenes.inputs import SarScene
from flora.sensors import BoolArray, FloatArray, OpticalStack

# px: side of the coarsest attention window (8 at stride 8). Tiles that begin at multiples of it,
# counted from the origin of the scene's grid, are cut into the same windows as the whole scene.
ALIGNMENT = 64
OVERLAP = 320  # px; the weights that ship answer in such tiles as they do in one piece, to 2e-5
BLEND = 64  # px: tiles are blended over at most so much of their overlap
CHUNK = 2048  # columns scaled at a time
FAINT = 1e-6  # weight of a tile's margin

TilesDone = Callable[[int, int], None]


@dataclass(frozen=True)
class Tiling:
    """How a scene is cut.

    Attributes:
        tile: Height of a tile in pixels. Tiles are twice as wide: rows of tiles as high as the
            memory allows, and little that is computed twice.
        overlap: Pixels that neighbouring tiles share, at most half of `tile`; None is `OVERLAP`,
            or that half where it is less. Tiles do not show where half of it exceeds what a model
            looks at around a pixel by 32 px or more; `flora.FloraConfig.reach` bounds that from
            above.
        batch: Tiles predicted at once.

    Raises:
        FloraError: If one is out of range.

    Example:
        >>> from flora.scenes.tiles import Tiling
        >>> Tiling(512).shared
        256
    """

    tile: int = 1024
    overlap: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        for name, value in (("tile", self.tile), ("batch", self.batch)):
            if value < 1:
                raise FloraError("expected 1 or more", argument=name, value=value)
        if not 0 <= self.shared <= self.tile // 2:
            raise FloraError(
                f"expected 0 to half of tile {self.tile} px, {self.tile // 2}",
                argument="overlap",
                value=self.overlap,
            )

    @property
    def shared(self) -> int:
        """The overlap in pixels."""
        return min(OVERLAP, self.tile // 2) if self.overlap is None else self.overlap

    @property
    def across(self) -> Self:
        """How the columns are cut."""
        return replace(self, tile=2 * self.tile, overlap=self.shared)

    @property
    def step(self) -> int:
        """From one tile to the next, a multiple of `ALIGNMENT` unless it is less than that."""
        step = self.tile - self.shared
        return step - step % ALIGNMENT if step > ALIGNMENT else step

    @property
    def grain(self) -> int:
        """Tiles begin at multiples of it: of `ALIGNMENT`, unless their step is no multiple."""
        return math.gcd(ALIGNMENT, self.step)


class Axis(NamedTuple):
    """How one side of a scene is cut, in pixels from `before` ahead of its first one.

    Attributes:
        starts: First pixels of its tiles.
        tile: Side of a tile; less than asked for where the scene is smaller.
        overlap: Pixels over which neighbouring tiles are weighed.
        before: Pixels from the last place where a tile may begin to the mapped part.
        length: Pixels of the mapped part.
    """

    starts: list[int]
    tile: int
    overlap: int
    before: int
    length: int

    @classmethod
    def cut(cls, length: int, tiling: Tiling, origin: int = 0) -> Self:
        """Cut `length` pixels that begin at pixel `origin` of the scene's grid."""
        before = origin % tiling.grain
        starts = tile_starts(before + length, tiling)
        tile = min(tiling.tile, -(-(before + length) // ALIGNMENT) * ALIGNMENT)
        return cls(starts, tile, tiling.shared if len(starts) > 1 else 0, before, length)

    @property
    def end(self) -> int:
        """Where the last tile ends: at the end of the scene or beyond it."""
        return self.starts[-1] + self.tile

    @property
    def mapped(self) -> slice:
        """The mapped part."""
        return slice(self.before, self.before + self.length)

    def shares(self) -> list[FloatArray]:
        """Weights (tile,) of each tile, which sum to 1 at every pixel."""
        weights = taper(self.tile, self.overlap)
        total = np.zeros(self.end, dtype=np.float32)
        places = [slice(start, start + self.tile) for start in self.starts]
        for place in places:
            total[place] += weights
        return [weights / total[place] for place in places]

    def inside(self, start: int, stop: int) -> tuple[slice, tuple[int, int]]:
        """The pixels of the mapped part in [start, stop), and how many lack before and after."""
        first, last = max(start - self.before, 0), min(stop - self.before, self.length)
        return slice(first, last), (first - (start - self.before), stop - self.before - last)


class PredictedRows(NamedTuple):
    """Finished rows of a scene, from `row` on.

    Attributes:
        row: First row.
        probability: (h, W) in [0, 1].
        rgb: (3, h, W) in [0, 1], or None.
        valid: (h, W); elsewhere the values mean nothing.
    """

    row: int
    probability: FloatArray
    rgb: FloatArray | None
    valid: BoolArray


class Strip(NamedTuple):
    """What the model gets of one row of tiles, as wide as they reach.

    Attributes:
        sar: (C, h, W), normalised.
        valid: (h, W).
        optical: Image (3, h, W), index (1, h, W) and validity (h, W) from before the flood.
    """

    sar: FloatArray
    valid: BoolArray
    optical: tuple[NDArray[Any], ...] | None

    def batch(self, columns: Sequence[slice]) -> tuple[Tensor, Tensor, OpticalStack | None]:
        """Tiles as `Predictor` gets them."""

        def stack(layer: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.stack([layer[..., c] for c in columns]))

        guide = None if self.optical is None else OpticalStack(*map(stack, self.optical))
        return stack(self.sar), stack(self.valid), guide


def predict_rows(
    scene: SarScene,
    model: Predictor,
    tiling: Tiling,
    before: BeforeScene | None = None,
    progress: TilesDone | None = None,
    done_rows: int = 0,
) -> Generator[PredictedRows, None, None]:
    """Predict a scene from top to bottom, holding one row of tiles in memory.

    A thread of its own reads the next row of tiles while the model computes; nothing else may
    read from `scene` and `before` meanwhile. Tiles without a valid pixel are not predicted.

    Args:
        scene: The scene.
        model: The model.
        tiling: How the scene is cut.
        before: The optical image from before the flood.
        progress: Called with the number of tiles done and of all tiles.
        done_rows: Rows of tiles that an earlier run has finished: they are not yielded again.

    Raises:
        FloraError: If a read fails, or `model` returns anything but finite probabilities of
            the right shape.
    """
    down, across = (
        Axis.cut(side, cut, origin)
        for side, cut, origin in zip(
            scene.shape, (tiling, tiling.across), scene.origin, strict=True
        )
    )
    tiles = [slice(start, start + across.tile) for start in across.starts]
    total = len(down.starts) * len(tiles)
    blend = Blend(down, across)
    if done_rows and progress is not None:
        progress(done_rows * len(tiles), total)
    ends = [*down.starts[1:], down.mapped.stop]
    for k, strip in read_ahead(scene, before, down, across, done_rows):
        for first in range(0, len(tiles), tiling.batch):
            group = tiles[first : first + tiling.batch]
            columns = [c for c in group if strip.valid[:, c].any()]
            if columns:
                blend.add(k, columns, _predict(model, *strip.batch(columns)))
            if progress is not None and k >= done_rows:
                progress(k * len(tiles) + first + len(group), total)

        start, ready = down.starts[k], ends[k] - down.starts[k]
        if k >= done_rows:
            rows = slice(max(down.before - start, 0), ready)
            valid = strip.valid[rows, across.mapped]
            yield PredictedRows(start + rows.start - down.before, *blend.mean(rows), valid)
        blend.move(ready)


class Blend:
    """The weighed mean of the answers to a row of tiles and to those above it.

    A tile weighs what its `taper` is of all tapers at a pixel. Tiles without a valid pixel are
    never added: where they lie, nothing is valid.

    Args:
        down: How the rows of the scene are cut.
        across: How its columns are.
    """

    def __init__(self, down: Axis, across: Axis) -> None:
        self._mapped, self._size = across.mapped, (down.tile, across.end)
        self._down, self._across = (
            down.shares(),
            dict(zip(across.starts, across.shares(), strict=True)),
        )
        self._sums: FloatArray | None = None

    def add(self, number: int, columns: Sequence[slice], answers: Sequence[FloatArray]) -> None:
        """Add layers of answers (B, C, h, w) to tiles at these columns of a row of tiles.

        Raises:
            FloraError: If earlier tiles had another number of channels.
        """
        channels = sum(layer.shape[1] for layer in answers)
        if self._sums is None:
            self._sums = np.zeros((channels, *self._size), dtype=np.float32)
        if channels != len(self._sums):
            raise FloraError("model gave an rgb image for some tiles only: expected all or none")
        for tile, c in enumerate(columns):
            weight = np.outer(self._down[number], self._across[c.start])
            bands = (band for layer in answers for band in layer[tile])
            for total, band in zip(self._sums, bands, strict=True):
                total[:, c] += weight * band

    def mean(self, rows: slice) -> tuple[FloatArray, FloatArray | None]:
        """Probability (h, W) and image (3, h, W) in [0, 1] of some rows of the mapped columns."""
        if self._sums is None:  # nothing but nodata so far
            shape = (rows.stop - rows.start, self._mapped.stop - self._mapped.start)
            return np.zeros(shape, dtype=np.float32), None
        mean: FloatArray = np.clip(self._sums[:, rows, self._mapped], 0, 1)
        return mean[0], mean[1:] if len(mean) > 1 else None

    def move(self, rows: int) -> None:
        """Go down by so many rows."""
        for kept in () if self._sums is None else self._sums:
            kept[: len(kept) - rows] = kept[rows:].copy()
            kept[len(kept) - rows :] = 0


def read_ahead(
    scene: SarScene, before: BeforeScene | None, down: Axis, across: Axis, done_rows: int = 0
) -> Iterator[tuple[int, Strip]]:
    """Number and strip of each row of tiles; a thread of its own reads one ahead.

    A finished row of tiles comes too where it reaches below what it finished: the next one is
    blended with it.
    """
    if done_rows == len(down.starts):
        return
    reach = down.starts[done_rows] - down.tile
    wanted = [k for k, start in enumerate(down.starts) if start > reach]
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
    start, width = down.starts[number], scene.shape[1]
    known = 0 if last is None else down.starts[number - 1] + down.tile - start
    rows, (above, below) = down.inside(start + known, start + down.tile)
    sides = across.inside(0, across.end)[1]

    def whole(layer: NDArray[Any], earlier: NDArray[Any] | None) -> NDArray[Any]:
        wide = _mirrored(layer, (0, 0), sides)
        if earlier is not None:
            wide = np.concatenate([earlier[..., down.tile - known :, :], wide], axis=-2)
        return _mirrored(wide, (above, below), (0, 0))

    sar, valid = scene.read(rows.start, rows.stop - rows.start)
    parts = [slice(c, c + CHUNK) for c in range(0, width, CHUNK)]
    for part in parts:
        sar[..., part] = scene.scaling.normalise(sar[..., part], valid[:, part])
    optical: tuple[NDArray[Any], ...] | None = None
    if before is not None:
        stored = before.read(rows.start, rows.stop - rows.start)
        scaled = zip(*(before.scale(stored[..., part]) for part in parts), strict=True)
        optical = tuple(np.concatenate(layer, axis=-1) for layer in scaled)
    read = (sar, valid, *(optical or ()))
    seen = (None,) * len(read) if last is None else (last.sar, last.valid, *(last.optical or ()))
    sar, valid, *image = (whole(*pair) for pair in zip(read, seen, strict=True))
    return Strip(sar, valid, None if optical is None else tuple(image))


def _mirrored(layer: NDArray[Any], rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
    """The layer (..., h, w), mirrored beyond its edges by so many rows and columns."""
    beyond = (rows, columns)
    if not any(map(any, beyond)):
        return layer
    return np.pad(layer, [(0, 0)] * (layer.ndim - 2) + list(beyond), mode="symmetric")


def tile_starts(length: int, tiling: Tiling) -> list[int]:
    """First pixels of tiles that cover `length`; the last one may reach beyond it."""
    if length <= tiling.tile:
        return [0]
    last = -(-(length - tiling.tile) // tiling.grain) * tiling.grain
    return [*range(0, length - tiling.tile, tiling.step), last]


def taper(length: int, overlap: int) -> FloatArray:
    """Weights (length,) in (0, 1] that rise over `overlap` pixels at both ends.

    The outer part of the overlap, where a tile lacks context, counts nearly nothing: a quarter of
    it, or more where more than `BLEND` pixels were left. Between such margins follows a raised
    cosine, sin^2(pi/2 (i + 1/2) / n) over n pixels. The weights of two tiles that overlap by this
    much sum to 1.
    """
    margin = max(overlap // 4, (overlap - BLEND) // 2)
    blended = overlap - 2 * margin
    ramp = np.sin(np.pi / 2 * (np.arange(blended) + 0.5) / max(blended, 1)) ** 2
    # Not 0: at the edge of the scene there is no other tile.
    rise = np.concatenate([np.full(margin, FAINT), ramp, np.full(margin, 1 - FAINT)])
    weights = np.ones(length)
    weights[:overlap] = rise
    weights[length - overlap :] = rise[::-1]
    return weights.astype(np.float32)


def _predict(
    model: Predictor, sar: Tensor, valid: Tensor, guide: OpticalStack | None
) -> list[FloatArray]:
    """The probability (B, 1, h, w), then the image (B, 3, h, w) if there is one."""
    with torch.no_grad():
        water, rgb = Prediction(*model(sar, valid, guide))
    batch, _, height, width = sar.shape
    layers = [(water, 1, "water probability")]
    layers += [] if rgb is None else [(rgb, 3, "rgb")]
    arrays = []
    for layer, channels, name in layers:
        expected = (batch, channels, height, width)
        if layer is None or tuple(layer.shape) != expected:
            shape = None if layer is None else tuple(layer.shape)
            raise FloraError(f"model gave {name} of shape {shape}: expected {expected}")
        values = layer.float().cpu()
        low, high = (float(end) for end in values.aminmax())  # NaN if one of them is
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise FloraError(
                f"model gave {name} from {low:.4g} to {high:.4g}: expected finite values in "
                "[0, 1]; check the weights, and that logits went through a sigmoid"
            )
        arrays.append(values.numpy())
    return arrays
