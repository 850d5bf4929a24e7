"""The map of a flood on paper."""

from __future__ import annotations

import math
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from flora.antimeridian import RADIUS
from flora.errors import FloraError
from flora.figures.plots import (
    BookFigure,
    figure,
    scale_bar,
    show_probability,
    show_rgb,
    style,
)
from flora.maps.layers import RGB, SceneMap, area_text
from flora.sensors import ByteArray

SIDE = 2.4  # inches a panel: four of them, however tall, fit on a page of a report


def print_figure(
    scene: SceneMap, *, threshold: float | None = None, before: str | None = None
) -> BookFigure:
    """A figure for print: before, after, and the flood over the radar image.

    Four panels stand two by two, fewer in a row. Save it with
    `figure.savefig("flood.pdf", dpi=300, bbox_inches="tight")`.

    Args:
        scene: What to draw; its `size` is the resolution of the panels.
        threshold: Probability from which a pixel is water, in hundredths; by default the map's.
        before: Name of an image of `scene.images` for the first panel; by default the one from
            before the flood, if there is one.

    Raises:
        FloraError: If there is no such image, or the threshold is not a hundredth.

    Example:
        >>> from pathlib import Path
        >>> from flora import load_model, map_scene, open_scene, predictor
        >>> from flora import read_map
        >>> from flora.figures import print_figure
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = predictor(load_model())
        >>> with open_scene(sar) as scene:
        ...     outputs = map_scene(scene, "flood", predict)
        >>> figure = print_figure(read_map(outputs.water_probability, sar=sar))
        >>> figure.savefig("flood.png", dpi=50)
    """
    threshold = scene.threshold if threshold is None else threshold
    flood, permanent = scene.area(threshold)
    if before is None:
        before = scene.before
    elif before not in scene.images:
        raise FloraError(
            f"expected one of {', '.join(scene.images)}", argument="before", value=repr(before)
        )
    names = [name for name in (before, scene.radar, RGB) if name is not None]
    names = [name for name in names if name in scene.images]
    rows, columns = scene.levels.shape
    across = 2 if len(names) == 3 else len(names) + 1
    made, axes = figure(
        (len(names) + 1) // across,
        across,
        panel=(SIDE, min(SIDE * rows / columns, 2 * SIDE) + 0.3),
    )
    codes = scene.classes(threshold)
    ground = scene.radar or next(iter(scene.images), None)
    with style():
        for ax, name in zip(axes.flat, names, strict=False):
            _show(ax, scene.images[name], name)
        last = axes[-1, -1]
        if ground is None:
            show_probability(last, np.where(codes == 255, np.nan, 1.0))
        else:
            _show(last, scene.images[ground], "")
        last.set_title(f"{'flood' if scene.split else 'water'}, probability ≥ {threshold:.2f}")
        last.imshow(scene.water_colours(threshold), interpolation="nearest")
        handles = [
            Patch(color=colour, label=f"{name} {area_text(area, scene.unit)}")
            for (name, colour), area in zip(
                scene.water_layers.items(), (flood, permanent), strict=False
            )
        ]
        last.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), frameon=False)
        if scene.grid.crs is not None:
            scale_bar(axes[0, 0], pixel_on_ground(scene))
            _north_arrow(axes[0, 0])
        made.suptitle(scene.title, fontsize=11)
        source = fill(f"{scene.attribution}. Made with FLoRA.", 75)
        made.supxlabel(source, fontsize=8, color="0.35")
    return made


def pixel_on_ground(scene: SceneMap) -> float:
    """Side in metres of a pixel in the middle of the map: Web Mercator stretches by 1 / cos."""
    transform, rows = scene.grid.transform, scene.grid.shape[0]
    y = transform.f + transform.e * rows / 2
    return float(transform.a / math.cosh(y / RADIUS))


def _show(ax: Any, image: ByteArray, title: str) -> None:
    show_rgb(ax, np.moveaxis(image[..., :3], -1, 0) / 255, image[..., 3] > 0, title=title)


def _north_arrow(ax: Any) -> None:
    """Web Mercator has north at the top everywhere."""
    ax.annotate(
        "N",
        xy=(0.94, 0.97),
        xytext=(0.94, 0.83),
        xycoords="axes fraction",
        ha="center",
        va="top",
        fontsize=8,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        arrowprops={
            "arrowstyle": "simple,head_length=0.7,head_width=0.7,tail_width=0.2",
            "facecolor": "white",
            "edgecolor": "black",
        },
    )
