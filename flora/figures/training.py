"""Pictures of training: its log, and which error a loss punishes and where it pushes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from flora.errors import FloraError
from flora.figures.plots import BookFigure, figure, style

# Share of the pixels whose gradients lie within the colour limits: few outliers set no scale.
WITHIN_LIMITS = 99.0
LEVELS = 15
WIDTH = 4.1  # inches of a whole figure: its letters can be read on a telephone


def training_curves(
    rows: Sequence[Mapping[str, float]],
    *,
    terms: Sequence[str] | None = None,
) -> BookFigure:
    """Plot the log of a training run, one panel a loss term (no unit), against the step.

    The thin line is each logged value, the thick one its mean over a twentieth of the run, which
    is what can be read: crops differ more from each other than a term moves in a few steps.

    Args:
        rows: Rows with a `step` and numbers; a row may lack a term.
        terms: Which columns to plot; by default all but `step`, `epoch` and `lr`.

    Raises:
        FloraError: If there is no row, or nowhere a value of a term.

    Example:
        >>> from flora.figures.training import training_curves
        >>> rows = [{"step": step, "dice": 1 / step} for step in range(1, 50)]
        >>> training_curves(rows).savefig("curves.png")
    """
    if terms is None:
        terms = list(dict.fromkeys(k for row in rows for k in row))
        terms = [name for name in terms if name not in ("step", "epoch", "lr")]
    if not rows or not terms:
        raise FloraError("the training log is empty: expected rows with a step and loss terms")
    columns = 2 if len(terms) in (2, 4) else min(3, len(terms))
    panel = (WIDTH / columns, 1.35 if columns == 3 else 1.7)
    made, axes = figure(math.ceil(len(terms) / columns), columns, panel=panel)
    with style():
        for ax, name in zip(axes.flat, terms, strict=False):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if not points:
                raise FloraError(f"the training log has no {name!r}: it has {', '.join(rows[0])}")
            steps, values = np.asarray(points, dtype=np.float64).T
            window = max(1, len(values) // 20)
            if window > 1:
                ax.plot(steps, values, linewidth=0.5, alpha=0.35)
            mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
            sparse = "o-" if len(values) < 40 else "-"
            ax.plot(steps[window // 2 :][: len(mean)], mean, sparse, color="C0", markersize=3)
            ax.set_title(name.replace("_", " "))
            ax.locator_params(nbins=3)
        for unused in axes.flat[len(terms) :]:
            unused.set_axis_off()
        made.supxlabel("step", fontsize=9)
    return made


def show_penalties(
    ax: Axes, values: ArrayLike, errors: Sequence[str], terms: Sequence[str], *, decimals: int = 2
) -> Axes:
    """Draw a table of losses: a row an error, a column a term, shaded within each column.

    A column's largest value is darkest, since the terms differ in scale. What rounds to 0 is blank;
    0.25 is written .25, so that ten columns fit on a telephone.

    Args:
        ax: Where to draw.
        values: (errors, terms), 0 or more.
        errors: Names of the rows.
        terms: Names of the columns.
        decimals: Digits after the point.

    Raises:
        FloraError: If the shape does not fit the names, or a value is negative or not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (len(errors), len(terms)) or table.size == 0:
        raise FloraError(
            f"values of shape {table.shape}: expected one row for each of {len(errors)} errors and "
            f"one column for each of {len(terms)} terms"
        )
    if not (np.isfinite(table) & (table >= 0)).all():
        raise FloraError("values: expected finite losses of 0 or more; clip what lies below 0")
    largest = table.max(axis=0)
    shares = table / np.where(largest > 0, largest, 1.0)
    blank = np.round(table, decimals) == 0
    shaded = np.ma.masked_array(shares, blank)
    ax.imshow(shaded, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.argwhere(~blank):
        ax.text(
            column,
            row,
            f"{table[row, column]:.{decimals}f}".removeprefix("0"),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 0.8 else "black",
        )
    ax.set_xticks(range(len(terms)), terms, rotation=90)
    ax.set_yticks(range(len(errors)), errors)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    ax.spines[:].set_visible(False)
    return ax


def show_gradient(
    ax: Axes,
    gradient: ArrayLike,
    *,
    title: str,
    signed: bool = True,
    limit: float | None = None,
) -> Axes:
    """Draw a map such as a gradient: orange below 0, white at 0, purple above.

    Args:
        ax: Where to draw.
        gradient: (H, W), finite.
        title: Above the panel.
        signed: False for lengths, which have no values below 0: the colours begin at white.
        limit: Magnitude drawn in full colour; by default the 99th percentile of those above 0.

    Raises:
        FloraError: If it is no map of finite numbers, or `limit` is not above 0.
    """
    values = np.asarray(gradient, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise FloraError(
            f"gradient of shape {values.shape}: expected (rows, columns) of finite numbers"
        )
    if limit is None:
        limit = _limit(values)
    elif not (np.isfinite(limit) and limit > 0):
        raise FloraError(f"limit {limit}: expected a finite number above 0")
    # Few levels, of an odd number so that 0 is white: noise in 256 makes pages of megabytes.
    colours = mpl.colormaps["PuOr" if signed else "Purples"].resampled(LEVELS)
    low = -limit if signed else 0.0
    image = ax.imshow(values, cmap=colours, vmin=low, vmax=limit, interpolation="nearest")
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(True)
    owner = ax.get_figure()
    if owner is not None:
        extend = "both" if signed else "max"
        bar = owner.colorbar(image, ax=ax, shrink=0.8, pad=0.02, extend=extend)
        bar.ax.tick_params(labelsize=8)
        bar.locator = MaxNLocator(4)
        bar.update_ticks()
    return ax


def _limit(values: NDArray[np.float64]) -> float:
    magnitudes = np.abs(values)
    pushed = magnitudes[magnitudes > 0]
    return float(np.percentile(pushed, WITHIN_LIMITS)) if pushed.size else 1.0
