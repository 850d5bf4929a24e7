"""How a scene is cut into tiles, predicted, and blended, one row of tiles in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora.errors import FloraError
from flora.scenes.inputs import BeforeScene, OpticalInput, SarScene
from flora.sensors import BoolArray, FloatArray

PAD_MULTIPLE = 32  # px: scenes smaller than a tile are padded to a multiple of it
# px: side of the coarsest attention window (8 at stride 8). Tiles that begin at multiples of it
# cut the scene into the same windows as the whole scene would.
ALIGNMENT = 64
CHUNK = 2048  # columns scaled at a time
FAINT = 1e-6  # weight of a tile's margin
PATCH = 256  # px: side of the patches that a scene is surveyed by, side by side

Progress = Callable[[int, int], None]


class Predictor(Protocol):
    """A model as `map_scene` sees it."""

    def __call__(self, sar: Tensor, before: OpticalInput | None, /) -> tuple[Tensor | None, Tensor]:
        """Predict a batch of tiles; the model moves its input to its own device.

        Args:
            sar: (B, C, h, w) float32, normalised, 0 in nodata.
            before: The optical image from before the flood on these pixels, if one was given.

        Returns:
            The reconstructed image (B, 3, h, w) in [0, 1], or None, and the probability of water
            (B, 1, h, w) in [0, 1].
        """
        ...


class Patch(NamedTuple):
    """A small tile that tells what a part of the scene is like.

    Attributes:
        row: Its centre.
        column: Its centre.
        share: Share of valid pixels.
        sar: (1, C, h, w), see `Predictor`.
        before: See `Predictor`.
    """

    row: float
    column: float
    share: float
    sar: Tensor
    before: OpticalInput | None


@runtime_checkable
class ScenePredictor(Predictor, Protocol):
    """A model that sees patches of the whole scene first, and is told where each tile lies."""

    def survey(self, patches: Iterable[Patch], /) -> None:
        """Look at a scene before its tiles come."""
        ...

    def place(self, row: int, columns: Sequence[int], side: tuple[int, int], /) -> None:
        """Say where the tiles of the next call lie: first row, first columns, (rows, columns)."""
        ...


class Tiling(NamedTuple):
    """How a scene is cut.

    Attributes:
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share, at most half a tile.
        batch: Tiles predicted at once.
    """

    tile: int = 512
    overlap: int = 128
    batch: int = 4


class Axis(NamedTuple):
    """How one side of a scene is cut.

    Attributes:
        starts: First pixels of its tiles.
        tile: Side of a tile; less than asked for where the scene is smaller.
        overlap: Pixels that neighbouring tiles share.
    """

    starts: list[int]
    tile: int
    overlap: int

    @classmethod
    def cut(cls, length: int, tile: int, overlap: int) -> Self:
        """Cut `length` pixels."""
        starts = tile_starts(length, tile, overlap)
        tile = min(tile, -(-length // PAD_MULTIPLE) * PAD_MULTIPLE)
        return cls(starts, tile, overlap if len(starts) > 1 else 0)

    @property
    def end(self) -> int:
        """Where the last tile ends: at the end of the scene or beyond it."""
        return self.starts[-1] + self.tile


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

    def batch(self, columns: Sequence[slice]) -> tuple[Tensor, OpticalInput | None]:
        """Tiles as `Predictor` gets them."""

        def stack(layer: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.stack([layer[..., c] for c in columns]))

        before = None if self.optical is None else OpticalInput(*map(stack, self.optical))
        return stack(self.sar), before


def predict_rows(
    scene: SarScene,
    predict: Predictor,
    tiling: Tiling,
    before: BeforeScene | None = None,
    progress: Progress | None = None,
    done_rows: int = 0,
) -> Generator[PredictedRows, None, None]:
    """Predict a scene from top to bottom, holding one row of tiles in memory.

    A thread of its own reads the next row of tiles while the model computes; nothing else may
    read from `scene` and `before` meanwhile. Tiles without a valid pixel are not predicted.

    Args:
        scene: The scene.
        predict: The model.
        tiling: How the scene is cut.
        before: The optical image from before the flood.
        progress: Called with the number of tiles done and of all tiles.
        done_rows: Rows of tiles that an earlier run has finished: they are not yielded again.

    Raises:
        FloraError: If a read fails, or `predict` returns anything but finite probabilities of
            the right shape.
    """
    down, across = (Axis.cut(side, tiling.tile, tiling.overlap) for side in scene.shape)
    tiles = [slice(start, start + across.tile) for start in across.starts]
    weight = np.outer(taper(down.tile, down.overlap), taper(across.tile, across.overlap))
    weights = np.zeros((down.tile, across.end), dtype=np.float32)
    sums: FloatArray | None = None
    total = len(down.starts) * len(tiles)
    if isinstance(predict, ScenePredictor):
        predict.survey(patches(scene, tiling, before))
    if done_rows and progress is not None:
        progress(done_rows * len(tiles), total)
    ends = [*down.starts[1:], scene.shape[0]]
    for k, strip in read_ahead(scene, before, down, across, done_rows):
        for first in range(0, len(tiles), tiling.batch):
            group = tiles[first : first + tiling.batch]
            columns = [c for c in group if strip.valid[:, c].any()]
            if columns:
                if isinstance(predict, ScenePredictor):
                    starts = [c.start for c in columns]
                    predict.place(down.starts[k], starts, (down.tile, across.tile))
                answers = _predict(predict, *strip.batch(columns))
                if sums is None:
                    sums = np.zeros((answers.shape[1], *weights.shape), dtype=np.float32)
                if answers.shape[1] != len(sums):
                    raise FloraError("predict gave an rgb image for some tiles only")
                for answer, c in zip(answers, columns, strict=True):
                    sums[..., c] += weight * answer
                    weights[:, c] += weight
            if progress is not None and k >= done_rows:
                progress(k * len(tiles) + first + len(group), total)

        ready = ends[k] - down.starts[k]
        if k >= done_rows:
            shape = np.s_[:ready, : scene.shape[1]]
            yield _finished(down.starts[k], sums, weights[shape], strip.valid[shape])
        for kept in (weights, *(() if sums is None else sums)):
            kept[: down.tile - ready] = kept[ready:].copy()
            kept[down.tile - ready :] = 0


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
                coming = reader.submit(read_strip, scene, before, down, across, k + 1)
            yield k, strip


def read_strip(
    scene: SarScene, before: BeforeScene | None, down: Axis, across: Axis, number: int
) -> Strip:
    """Read and scale one row of tiles; where tiles reach beyond the scene, it is mirrored."""
    row = down.starts[number]
    height, width = min(down.tile, scene.shape[0] - row), scene.shape[1]
    beyond = [(0, down.tile - height), (0, across.end - width)]

    def whole(layer: NDArray[Any]) -> NDArray[Any]:
        if not any(after for _, after in beyond):
            return layer
        return np.pad(layer, [(0, 0)] * (layer.ndim - 2) + beyond, mode="symmetric")

    sar, valid = scene.read(row, height)
    parts = [slice(c, c + CHUNK) for c in range(0, width, CHUNK)]
    for part in parts:
        sar[..., part] = scene.scaling.normalise(sar[..., part], valid[:, part])
    optical = None
    if before is not None:
        stored = before.read(row, height)
        scaled = zip(*(before.scale(stored[..., part]) for part in parts), strict=True)
        optical = tuple(whole(np.concatenate(layer, axis=-1)) for layer in scaled)
    return Strip(whole(sar), whole(valid), optical)


def patches(scene: SarScene, tiling: Tiling, before: BeforeScene | None = None) -> Iterator[Patch]:
    """Patches on a grid over a scene, where it has a valid pixel; none if it is a single tile."""
    if max(scene.shape) <= tiling.tile:
        return
    down, across = (Axis.cut(side, PATCH, 0) for side in scene.shape)
    for k, strip in read_ahead(scene, before, down, across):
        for start in across.starts:
            columns = slice(start, start + across.tile)
            share = float(strip.valid[:, columns].mean())
            if share:
                centre = down.starts[k] + down.tile / 2, start + across.tile / 2
                yield Patch(*centre, share, *strip.batch([columns]))


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover `length`.

    The last tile ends where the scene does, or up to `ALIGNMENT` beyond it, so that all tiles
    begin at multiples of `ALIGNMENT` where `tile - overlap` is one.
    """
    if length <= tile:
        return [0]
    step = math.gcd(ALIGNMENT, tile - overlap)
    return [*range(0, length - tile, tile - overlap), -(-(length - tile) // step) * step]


def taper(length: int, overlap: int) -> FloatArray:
    """Weights (length,) in (0, 1] that rise over `overlap` pixels at both ends.

    The outer quarter of the overlap, where a tile has the least context, counts nearly nothing;
    then follows a raised cosine, sin^2(pi/2 (i + 1/2) / n) over the n pixels of the inner half.
    The weights of two tiles that overlap by this much sum to 1.
    """
    margin = overlap // 4
    blended = overlap - 2 * margin
    ramp = np.sin(np.pi / 2 * (np.arange(blended) + 0.5) / max(blended, 1)) ** 2
    # Not 0: at the edge of the scene there is no other tile.
    rise = np.concatenate([np.full(margin, FAINT), ramp, np.full(margin, 1 - FAINT)])
    weights = np.ones(length)
    weights[:overlap] = rise
    weights[length - overlap :] = rise[::-1]
    return weights.astype(np.float32)


def _predict(predict: Predictor, sar: Tensor, before: OpticalInput | None) -> FloatArray:
    """Predictions (B, 1 or 4, h, w): the probability, then the image if there is one."""
    with torch.no_grad():
        rgb, probability = predict(sar, before)
    batch, _, height, width = sar.shape
    layers = [(probability, 1, "water probability")] + [(rgb, 3, "rgb")] * (rgb is not None)
    arrays = []
    for layer, channels, name in layers:
        expected = (batch, channels, height, width)
        if layer is None or tuple(layer.shape) != expected:
            shape = None if layer is None else tuple(layer.shape)
            raise FloraError(f"predict gave {name} of shape {shape}: expected {expected}")
        array = layer.float().cpu().numpy()
        if not (np.isfinite(array).all() and array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
            raise FloraError(
                f"predict gave {name} from {array.min():.4g} to {array.max():.4g}: expected finite "
                "values in [0, 1]; check the weights, and that logits went through a sigmoid"
            )
        arrays.append(array)
    return np.concatenate(arrays, axis=1)


def _finished(
    row: int, sums: FloatArray | None, weights: FloatArray, valid: BoolArray
) -> PredictedRows:
    if sums is None:  # nothing but nodata so far
        return PredictedRows(row, np.zeros(valid.shape, dtype=np.float32), None, valid)
    height, width = valid.shape
    reached = np.where(valid, weights, np.float32(1))
    mean: FloatArray = np.divide(sums[:, :height, :width], reached, dtype=np.float32)
    np.clip(mean, 0, 1, out=mean)
    return PredictedRows(row, mean[0], mean[1:] if len(mean) > 1 else None, valid)
