"""A scene predicted from top to bottom, one row of tiles in memory at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flora.errors import FloraError
from flora.predictors import PartPredictor, Prediction, Predictor
from flora.scenes.before import BeforeScene
from flora.scenes.blending import Blend
from flora.scenes.inputs import SarScene
from flora.scenes.strips import Strip, read_ahead
from flora.scenes.tiles import Axis, Tiling
from flora.sensors import BoolArray, FloatArray, OpticalStack

TilesDone = Callable[[int, int], None]


class PredictedRows(NamedTuple):
    """Finished rows of a scene, from `row` on.

    Attributes:
        row: First row.
        probability: (h, W) in [0, 1].
        rgb: (3, h, W) uint8, 255 for 1; or None.
        valid: (h, W); elsewhere the values mean nothing.
    """

    row: int
    probability: FloatArray
    rgb: NDArray[np.uint8] | None
    valid: BoolArray


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
    columns = range(len(across.starts))
    total = len(down.starts) * len(columns)
    blend = Blend(down, across)
    if done_rows and progress is not None:
        progress(done_rows * len(columns), total)
    for k, strip in read_ahead(scene, before, down, across, done_rows):
        blend.begin(k)
        for first in range(0, len(columns), tiling.batch):
            group = columns[first : first + tiling.batch]
            for column, answer in _answers(model, strip, down, k, across, group):
                blend.add(column, answer)
            if progress is not None and k >= done_rows:
                progress(k * len(columns) + group[-1] + 1, total)
        if k >= done_rows:
            start = down.cores[k].start
            rows = slice(max(down.before - start, 0), min(down.steps[k], down.mapped.stop - start))
            part = np.s_[..., rows, across.mapped]
            read = start - down.starts[k]
            valid = strip.valid[read + rows.start : read + rows.stop, across.mapped]
            probability, rgb = blend.rows()
            image = None if rgb is None else rgb[part]
            row = start + rows.start - down.before
            yield PredictedRows(row, probability[part], image, valid)


def _answers(
    model: Predictor, strip: Strip, down: Axis, number: int, across: Axis, group: Sequence[int]
) -> Iterator[tuple[int, list[FloatArray]]]:
    """The tiles of a group whose cores hold a valid pixel, and layers (C, h, w) of their cores."""
    rows = down.core_in_tile(number)
    seen = [k for k in group if strip.valid[rows, across.cores[k]].any()]

    for _, same in itertools.groupby(seen, lambda k: across.places[k].stop - across.starts[k]):
        numbers = list(same)
        inside = [across.core_in_tile(k) for k in numbers]
        columns = slice(min(core.start for core in inside), max(core.stop for core in inside))
        inputs = strip.batch([across.places[k] for k in numbers])
        layers = _predict(model, inputs, rows, columns)
        for k, core, *answer in zip(numbers, inside, *layers, strict=True):
            own = slice(core.start - columns.start, core.stop - columns.start)
            yield k, [layer[..., own] for layer in answer]


def _predict(
    model: Predictor,
    inputs: tuple[Tensor, Tensor, OpticalStack | None],
    rows: slice,
    columns: slice,
) -> list[FloatArray]:
    """The probability (B, 1, h, w) in a part, then the image (B, 3, h, w) if there is one."""
    with torch.no_grad():
        if partly := isinstance(model, PartPredictor):
            water, rgb = Prediction(*model.part(*inputs, rows, columns))
            height, width = rows.stop - rows.start, columns.stop - columns.start
        else:
            water, rgb = Prediction(*model(*inputs))
            height, width = inputs[0].shape[-2:]
    layers = [(water, 1, "water probability")]
    layers += [] if rgb is None else [(rgb, 3, "rgb")]
    arrays = []
    for layer, channels, name in layers:
        expected = (len(inputs[0]), channels, height, width)
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
        arrays.append((values if partly else values[..., rows, columns]).numpy())
    return arrays
