"""Sheets of panels: all layers of a chip, the results of a scene."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from flora.errors import FloraError
from flora.figures.plots import (
    BookFigure,
    colour_bar_beside,
    figure,
    scale_bar,
    show_backscatter,
    show_index,
    show_rgb,
    show_water,
    show_water_over,
    style,
)
from flora.sensors import SENTINEL1, SENTINEL2_RGB, OpticalScaling, SarScaling

QUICKLOOK_WIDTH = 4.2  # inches


def sample_figure(
    sample: Mapping[str, Any],
    sar_scaling: SarScaling = SENTINEL1,
    optical_scaling: OpticalScaling = SENTINEL2_RGB,
    *,
    pixel_metres: float | None = None,
) -> BookFigure:
    """Draw all layers of one sample, two in a row: SAR, optical, index, before, water.

    Args:
        sample: A sample of a dataset (`flora.datasets.base.Sample`).
        sar_scaling: What turned its backscatter into the model's input.
        optical_scaling: Names the bands and the index.
        pixel_metres: Width of a pixel in metres, for a scale bar.

    Example:
        >>> from flora import open_dataset
        >>> from flora.figures import sample_figure
        >>> chips = open_dataset("simulated", None, "test", count=1, size=64)
        >>> figure = sample_figure(chips[0], pixel_metres=10)
        >>> figure.savefig("chip.png")
    """
    stored = sar_scaling.restore(np.asarray(sample["sar"]))
    stored = np.where(np.asarray(sample["sar_valid"]), stored, np.nan)
    count = len(sar_scaling.bands) + 3 + ("before" in sample)
    made, axes = figure(math.ceil(count / 2), 2, panel=(2.15, 2.15))
    panels = iter(axes.flat)
    with style():
        for band, values in zip(sar_scaling.bands, stored, strict=True):
            show_backscatter(next(panels), values, band=band, unit=sar_scaling.unit)
        if pixel_metres is not None:
            scale_bar(axes.flat[0], pixel_metres)
        bands = ", ".join(optical_scaling.bands)
        if "before" in sample:
            before, title = sample["before"], f"optical before ({bands})"
            show_rgb(next(panels), before.image[:3], before.valid, title=title)
        optical, valid = sample["optical"], sample["optical_valid"]
        show_rgb(next(panels), optical[:3], valid, title=f"optical ({bands})")
        show_index(next(panels), sample["index"][0], valid, name=optical_scaling.index_name)
        show_water(next(panels), sample["water"], title="water label")
        for unused in panels:
            unused.set_axis_off()
    return made


def quicklook(
    backscatter: ArrayLike,
    water: ArrayLike,
    rgb: ArrayLike | None = None,
    *,
    band: str = "VV",
    unit: str = "dB",
    pixel_metres: tuple[float, float] | None = None,
    title: str = "",
) -> BookFigure:
    """The results of a scene at a glance: SAR, reconstruction, water over SAR.

    With a reconstruction the water is drawn twice as large, below the two others, unless the scene
    is a strip. Letters are large enough for the width of a telephone.

    Args:
        backscatter: (H, W) in `unit`, NaN in nodata.
        water: Label codes (H, W): 0 dry, 1 water, 255 no data.
        rgb: Reconstructed image (3, H, W) in [0, 1], if the model makes one.
        band: Polarisation of `backscatter`.
        unit: Its unit.
        pixel_metres: Width and height of a pixel in metres, for the scale bar and the aspect.
        title: Above all panels.

    Example:
        >>> from flora.figures.sheets import quicklook
        >>> from flora.simulate.scene import simulate
        >>> scene = simulate(7, 64)
        >>> quicklook(scene.sar_after[0], scene.water_after).savefig("quicklook.png")
    """
    codes = np.asarray(water)
    if codes.ndim != 2 or codes.size == 0:
        raise FloraError(f"water of shape {codes.shape}: expected (rows, columns)")
    width_metres, height_metres = pixel_metres or (1.0, 1.0)
    aspect = height_metres / width_metres
    shape = codes.shape[0] * aspect / codes.shape[1]
    made, panels = _quicklook_panels(shape, 2 if rgb is None else 3)
    with style():
        for ax in (panels[0], panels[-1]):
            show_backscatter(ax, backscatter, band=band, unit=unit, colour_bar=False, aspect=aspect)
        if rgb is not None:
            show_rgb(panels[1], rgb, codes != 255, title="drawn from SAR", aspect=aspect)
        panels[-1].set_title(f"water on SAR {band}")
        show_water_over(panels[-1], codes)
        colour_bar_beside(panels[-1], panels[-1].images[0], f"SAR ({unit})", extend="both")
        if pixel_metres is not None:
            scale_bar(panels[0], width_metres)
        if title:
            made.suptitle(title, fontsize=10, parse_math=False)
    return made


def _quicklook_panels(shape: float, count: int) -> tuple[BookFigure, list[Axes]]:
    """A figure for a scene of `shape` times its width in height, and its panels, water last."""
    if shape < 0.4:
        made, axes = figure(count, 1, panel=(QUICKLOOK_WIDTH, QUICKLOOK_WIDTH * shape + 0.6))
        return made, list(axes.flat)
    if count == 2 or shape > 1.5:
        side = QUICKLOOK_WIDTH / count
        made, axes = figure(1, count, panel=(side, min(side * shape, 8.0) + 0.6))
        return made, list(axes.flat)
    half = QUICKLOOK_WIDTH / 2
    made, axes = figure(2, 2, panel=(half, 1.5 * half * shape + 0.5))
    grid = axes[0, 0].get_gridspec()
    grid.set_height_ratios((1, 2))
    for ax in axes[1]:
        ax.remove()
    with style():
        return made, [*axes[0], made.add_subplot(grid[1, :])]
