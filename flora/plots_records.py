"""Figures of experiment records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flora.errors import FloraError
from flora.plots import BookFigure, figure, style
from flora.records import METRICS, differences

SEED = "#555555"
MEAN = {True: "#0072B2", False: "#D55E00"}  # better and worse than the reference


def difference_figure(
    record: Mapping[str, Any],
    test: str,
    metric: str,
    groups: Sequence[str],
    mode: str = "sar",
) -> BookFigure:
    """What each competitor scores above or below FLoRA with the same seed.

    A dot is one seed, the bar their mean; FLoRA is the line at 0, and the grey band one standard
    deviation of its own scores over seeds.

    Args:
        record: From `flora.records.load_record`.
        test: Name of the test chips.
        metric: Name from `flora.records.METRICS`.
        groups: Groups of competitors to show, in this order.
        mode: Guidance mode of all.

    Raises:
        FloraError: If nothing of these groups is recorded beside FLoRA.
    """
    paired = differences(record, test, metric, mode=mode)
    names = [
        name
        for group in groups
        for name, competitor in record["competitors"].items()
        if competitor["group"] == group and name in paired
    ]
    if not names:
        raise FloraError(f"groups {', '.join(groups)}: no trial of theirs is recorded beside FLoRA")
    fig, axes = figure(panel=(7.0, 0.6 + 0.3 * len(names)))
    with style():
        ax = axes[0, 0]
        spread = record["competitors"]["flora"]["scores"][test][mode][metric]["sd"]
        if spread is not None:
            ax.axvspan(-spread, spread, color="#dddddd", zorder=0, label="FLoRA, ± 1 sd over seeds")
        for row, name in enumerate(reversed(names)):
            values = paired[name]
            mean = float(np.mean(values))
            ax.barh(row, mean, height=0.6, color=MEAN[mean >= 0], alpha=0.85)
            ax.plot(values, [row] * len(values), "o", color=SEED, markersize=3.5)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(names)))
        ax.set_yticklabels([record["competitors"][name]["says"] for name in reversed(names)])
        ax.set_xlabel(f"{METRICS[metric][0]}, difference to FLoRA (mode {mode}, {test})")
        if spread is not None:
            ax.legend(loc="lower left", fontsize=7)
    return fig
