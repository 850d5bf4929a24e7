"""The backscatter of a scene as a page shows it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

if TYPE_CHECKING:
    from flora.scenes.inputs import SarScene
    from flora.sensors import FloatArray

STRIP = 512  # rows of a scene read at a time


def write_view(scene: SarScene, path: Path, channel: int) -> None:
    """Write one channel of a scene in dB, averaged in power to about a thousand pixels a side.

    Every kind of scene comes out alike: one file, two files, a product, a part of one.
    """
    step = scene.sample_step
    grid = scene.grid.coarse(step)
    view = np.empty(grid.shape, dtype=np.float32)
    lines = max(1, STRIP // step)
    for row in range(0, len(view), lines):
        height = min(lines * step, scene.shape[0] - row * step)
        values, valid = scene.read(row * step, height)
        view[row : row + lines] = multilook(np.where(valid, values[channel], np.nan), step)
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": np.nan}
    profile |= {"height": grid.shape[0], "width": grid.shape[1]}
    profile |= {"crs": grid.crs, "transform": grid.transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a page shows such a scene, too
        with rasterio.open(path, "w", **profile) as file:
            file.write(view, 1)


def multilook(decibels: FloatArray, step: int) -> FloatArray:
    """Mean power in dB of blocks of `step` x `step` pixels.

    Args:
        decibels: (rows, columns), NaN in nodata; the last blocks may be cut.
        step: Side of a block.

    Returns:
        (rows / step, columns / step), rounded up; NaN where nothing is known.
    """
    rows, columns = (-(-side // step) for side in decibels.shape)
    padding = [
        (0, whole * step - side)
        for whole, side in zip((rows, columns), decibels.shape, strict=True)
    ]
    power = np.pad(10 ** (decibels / 10), padding, constant_values=np.nan)
    blocks = power.reshape(rows, step, columns, step)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3))
    known = count > 0
    mean = np.divide(total, count, out=np.ones((rows, columns)), where=known)
    return np.where(known, 10 * np.log10(mean), np.nan).astype(np.float32)
