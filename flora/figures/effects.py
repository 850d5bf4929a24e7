"""What single parts of a model bring, and how evidence grows with the number of differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from flora.errors import FloraError
from flora.experiments.evidence import Judgement, digits_that_show, judge, signed
from flora.experiments.records import METRICS, differences
from flora.figures.plots import BookFigure, figure, style
from flora.figures.records import MEAN, SEED

SIGNED = LinearSegmentedColormap.from_list("signed", [MEAN[False], "#ffffff", MEAN[True]])
SHOWN_IN = {"psnr": 1.0}  # dB; shares are shown in hundredths, called points


def parts_map(
    record: Mapping[str, Any],
    test: str,
    full: Mapping[str, float],
    group: str = "ablation",
    mode: str = "sar",
) -> BookFigure:
    """What FLoRA scores above itself without each part: a row a part, a column a metric.

    Only cells whose 95 % interval leaves out 0 are coloured: blue where FLoRA is ahead, so the
    part helps, orange where it is behind. Shares are in points, hundredths.

    Args:
        record: From `flora.load_record`.
        test: Name of the test chips.
        full: Metrics from `flora.experiments.METRICS`, each with the difference from which on its
            colour is full, in the metric's own unit.
        group: Group of the competitors to show.
        mode: Guidance mode of all.

    Raises:
        FloraError: If nothing of the group is recorded beside FLoRA.
    """
    paired = {metric: differences(record, test, metric, mode=mode) for metric in full}
    names = [
        name
        for name, competitor in record["competitors"].items()
        if competitor["group"] == group and any(name in found for found in paired.values())
    ]
    if not names:
        raise FloraError(f"group {group}: no trial of it is recorded beside FLoRA")
    fig, axes = figure(panel=(2.0 + 0.8 * len(full), 0.8 + 0.31 * len(names)))
    with style():
        ax = axes[0, 0]
        colours = np.zeros((len(names), len(full)))
        for column, (metric, most) in enumerate(full.items()):
            scale = SHOWN_IN.get(metric, 100.0)
            for row, name in enumerate(names):
                gain = judge([-value for value in paired[metric].get(name, [])])
                found = gain.word in ("helps", "hurts")
                if found and gain.mean is not None:
                    colours[row, column] = np.clip(gain.mean / most, -1, 1)
                look = {"fontweight": "bold" if found else "normal"}
                look["color"] = "white" if abs(colours[row, column]) > 0.6 else "#444444"
                ax.text(column, row, _cell(gain, scale), ha="center", va="center", **look)
        ax.imshow(colours, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto")
        ax.set_yticks(range(len(names)))
        ax.set_yticklabels([fill(record["competitors"][name]["says"], 28) for name in names])
        units = {metric: METRICS[metric][0].replace(", dB", "") for metric in full}
        unit = {metric: "dB" if metric in SHOWN_IN else "points" for metric in full}
        ax.set_xticks(range(len(full)), [f"{units[m]}\n({unit[m]})" for m in full])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.set_xticks(np.arange(1, len(full)) - 0.5, minor=True)
        ax.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
        ax.grid(which="minor", color="#dddddd", linewidth=0.8)
        ax.tick_params(which="minor", length=0)
    return fig


def _cell(gain: Judgement, scale: float) -> str:
    if gain.mean is None:
        return "-"
    digits = 1 if scale > 1 else 2
    if gain.word in ("helps", "hurts"):
        digits = digits_that_show(scale * gain.mean, digits)
    return signed(scale * gain.mean, digits)


def evidence_frames(
    rows: Mapping[str, Sequence[float]], counts: Sequence[int], label: str, scale: float = 1.0
) -> dict[int, BookFigure]:
    """The same comparisons judged on the first few differences, then on more: one figure each.

    A filled dot is a difference that counts, a hollow one is still to come; square and bar are
    mean and 95 % interval of those that count, and the verdict stands beside them. All figures
    share one axis, so that they can be frames of `flora.figures.PictureSlider`.

    Args:
        rows: Differences by the name of the comparison, as many in each.
        counts: How many of them count in each figure.
        label: What the axis shows.
        scale: Times which the values are drawn.

    Raises:
        FloraError: If a row holds fewer differences than a figure counts.
    """
    short = [name for name, values in rows.items() if len(values) < max(counts)]
    if short:
        raise FloraError(f"{short[0]}: fewer than {max(counts)} differences, which a figure counts")
    every = [scale * value for values in rows.values() for value in (0.0, *values)]
    margin = 0.08 * (max(every) - min(every))
    limits = (min(every) - margin, max(every) + margin)
    return {count: _evidence(rows, count, label, scale, limits) for count in counts}


WORDS = {
    "helps": ("behind", MEAN[False]),
    "hurts": ("ahead", MEAN[True]),
    "no difference": ("not shown", SEED),
    "open": ("open: too few", SEED),
}


def _evidence(
    rows: Mapping[str, Sequence[float]],
    count: int,
    label: str,
    scale: float,
    limits: tuple[float, float],
) -> BookFigure:
    fig, axes = figure(panel=(7.0, 0.8 + 0.75 * len(rows)))
    with style():
        ax = axes[0, 0]
        for row, (name, values) in enumerate(rows.items()):
            found = judge(values[:count])
            word, colour = WORDS[found.word]
            drawn = scale * np.asarray(values)
            ax.plot(drawn[:count], [-row] * count, "o", color="#777777", markersize=5)
            later = {"markerfacecolor": "none", "color": "#bbbbbb", "markersize": 5}
            ax.plot(drawn[count:], [-row] * (len(drawn) - count), "o", **later)
            if found.mean is not None:
                ax.plot(scale * found.mean, -row - 0.28, "s", color=colour, markersize=6)
            if found.low is not None and found.high is not None:
                ends = [scale * found.low, scale * found.high]
                ax.plot(ends, [-row - 0.28] * 2, color=colour, linewidth=2)
            look = {"color": colour, "fontweight": "bold", "backgroundcolor": "white"}
            ax.text(limits[0], -row + 0.26, f"{name}: {word}", **look)
        ax.axvline(0, color="black", linewidth=0.8, zorder=0)
        ax.set_xlim(limits)
        ax.set_ylim(0.45 - len(rows), 0.55)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(label)
    return fig
