"""Where the chips of a dataset lie, and which split each of them is in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from flora.errors import FloraError
from flora.figures.plots import BookFigure, figure, style

KILOMETRES = 111.32  # in a degree of latitude
COLOURS = {
    "train": "#56b4e9",
    "valid": "#cccccc",
    "test": "#e69f00",
    "test, beside a training chip": "#a23b00",
}


def splits_figure(chips: Sequence[Mapping[str, Any]], place: str) -> BookFigure:
    """The chips of one place by split, and the test chips of every place that touch training ones.

    Args:
        chips: Rows with `chip` (PLACE_NUMBER), `split`, `touches_training` and `bounds` (west,
            south, east, north in degrees), as `results/leakage.json` has them.
        place: The place that is drawn as a map.

    Raises:
        FloraError: If there is no chip of the place.
    """
    here = [row for row in chips if _place(row) == place]
    if not here:
        places = ", ".join(sorted({_place(row) for row in chips}))
        raise FloraError(f"expected one of {places}", argument="place", value=place)
    fig, axes = figure(1, 2, panel=(4.0, 3.6))
    with style():
        _draw_map(axes[0, 0], here, place)
        _draw_counts(axes[0, 1], [row for row in chips if row["split"] == "test"])
    return fig


def _place(row: Mapping[str, Any]) -> str:
    return str(row["chip"]).split("_")[0]


def _colour(row: Mapping[str, Any]) -> str:
    beside = row["split"] == "test" and row["touches_training"]
    return COLOURS["test, beside a training chip" if beside else row["split"]]


def _draw_map(ax: Any, rows: Sequence[Mapping[str, Any]], place: str) -> None:
    west, south, east, north = (
        pick(row["bounds"][side] for row in rows)
        for pick, side in ((min, 0), (min, 1), (max, 2), (max, 3))
    )
    shrink = math.cos(math.radians((south + north) / 2)) * KILOMETRES
    for row in rows:
        left, bottom, right, top = row["bounds"]
        corner = ((left - west) * shrink, (bottom - south) * KILOMETRES)
        size = ((right - left) * shrink, (top - bottom) * KILOMETRES)
        ax.add_patch(Rectangle(corner, *size, facecolor=_colour(row), edgecolor="white"))
    ax.set_xlim(-2, (east - west) * shrink + 2)
    ax.set_ylim(-2, (north - south) * KILOMETRES * 1.45)  # room for the legend
    ax.set_aspect("equal")
    ax.set(xlabel="km", ylabel="km", title=f"Chips of {place}")
    handles = [Patch(facecolor=colour, label=split) for split, colour in COLOURS.items()]
    ax.legend(handles=handles, loc="upper left", frameon=True)


def _draw_counts(ax: Any, tested: Sequence[Mapping[str, Any]]) -> None:
    places = sorted({_place(row) for row in tested}, reverse=True)
    for number, place in enumerate(places):
        rows = [row for row in tested if _place(row) == place]
        near = sum(row["touches_training"] for row in rows)
        ax.barh(number, near, color=COLOURS["test, beside a training chip"])
        ax.barh(number, len(rows) - near, left=near, color=COLOURS["test"])
    ax.set_yticks(range(len(places)), places)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="official test chips", title="Beside a training chip, by place")
