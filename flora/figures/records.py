"""Figures of experiment records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from flora.errors import FloraError
from flora.experiments.evidence import judge, signed
from flora.experiments.records import METRICS, by_place, differences
from flora.figures.plots import BookFigure, figure, style

SEED = "#555555"
MEAN = {True: "#0072B2", False: "#D55E00"}  # better and worse than the reference
# Told apart by shape, too: Okabe and Ito's colours, safe for colour-blind readers.
MARKS = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#555555", "X"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#E69F00", "P"),
)


def difference_figure(
    record: Mapping[str, Any],
    test: str,
    metric: str,
    groups: Sequence[str],
    mode: str = "sar",
    limits: tuple[float, float] | None = None,
) -> BookFigure:
    """What each competitor scores above or below FLoRA with the same seed.

    A dot is one seed, the bar their mean, the whisker its 95 % interval where there are three
    seeds or more; FLoRA is the line at 0. A bar that leaves `limits` is broken off, and its mean
    written at the break, so that one large difference does not hide the small ones.

    Args:
        record: From `flora.experiments.records.load_record`.
        test: Name of the test chips.
        metric: Name from `flora.experiments.records.METRICS`.
        groups: Groups of competitors to show, in this order.
        mode: Guidance mode of all.
        limits: Ends of the axis; by default all of it is drawn.

    Raises:
        FloraError: If nothing of these groups is recorded beside FLoRA, or the limits do not hold
            0 between them.
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
    if limits is not None and not limits[0] < 0 < limits[1]:
        raise FloraError(f"limits {limits}: expected a lower end below 0 and an upper one above it")
    labels = [fill(record["competitors"][name]["says"], 28) for name in reversed(names)]
    lines = max(label.count("\n") + 1 for label in labels)
    fig, axes = figure(panel=(4.8, 0.6 + max(0.3, 0.16 * lines) * len(names)))
    with style():
        ax = axes[0, 0]
        if limits is not None:
            ax.set_xlim(limits)
        for row, name in enumerate(reversed(names)):
            values = paired[name]
            mean = float(np.mean(values))
            ax.barh(row, mean, height=0.6, color=MEAN[mean >= 0], alpha=0.85)
            found = judge(values)
            if found.low is not None and found.high is not None:
                whisker = {"color": "black", "linewidth": 1.2, "solid_capstyle": "butt"}
                ax.plot([found.low, found.high], [row + 0.36] * 2, **whisker)
            ax.plot(values, [row] * len(values), "o", color=SEED, markersize=3.5)
            if limits is not None and not limits[0] <= mean <= limits[1]:
                _break_off(ax, row, limits[mean > 0], signed(mean, METRICS[metric][1]))
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(names)), labels)
        ax.set_ylim(-0.7, len(names) - 0.3)
        ax.locator_params(axis="x", nbins=5)
        ax.set_xlabel(f"{METRICS[metric][0]}, less FLoRA ({mode}, {test})")
    return fig


def _break_off(ax: Axes, row: int, end: float, text: str) -> None:
    """Two white strokes across a bar near the end of the axis, and the value that it reaches."""
    for aside in (0.90, 0.93):
        ax.plot([aside * end] * 2, [row - 0.42, row + 0.42], color="white", linewidth=2.5)
    inwards = "left" if end < 0 else "right"
    ax.text(0.86 * end, row, text, ha=inwards, va="center", color="white", fontweight="bold")


def places_figure(
    records: Sequence[Mapping[str, Any]],
    test: str,
    competitors: Sequence[str],
    metric: str,
    mode: str = "sar",
) -> BookFigure:
    """The scores of several competitors on each place, one row a place.

    Args:
        records: From `flora.load_record`, each with other places in its test chips.
        test: Name of the test chips in all of them.
        competitors: Names of the competitors, at most seven.
        metric: Name from `flora.experiments.records.METRICS`.
        mode: Guidance mode of all.

    Raises:
        FloraError: If there are too many competitors, or a score of one of them is not recorded.
    """
    if not 0 < len(competitors) <= len(MARKS):
        raise FloraError(f"{len(competitors)} competitors: expected 1 to {len(MARKS)}")
    scores = {name: by_place(records, test, name, metric, mode) for name in competitors}
    places = sorted(scores[competitors[0]], key=scores[competitors[0]].__getitem__)
    for name, found in scores.items():
        if not places or set(found) != set(places):
            raise FloraError(f"{name}: not recorded on the same places as {competitors[0]}")
    fig, axes = figure(panel=(4.6, 0.9 + 0.27 * len(places)))
    with style():
        ax = axes[0, 0]
        for name, (colour, marker) in zip(competitors, MARKS, strict=False):
            says = next(r["competitors"][name]["says"] for r in records if name in r["competitors"])
            values = [scores[name][place] for place in places]
            rows = range(len(places))
            # Hollow, so that none hides another.
            look = {"markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.5}
            ax.plot(values, rows, marker, color=colour, label=says, **look)
        ax.set_yticks(range(len(places)))
        ax.set_yticklabels(places)
        ax.grid(axis="y", linewidth=0.4, color="#dddddd")
        ax.set_axisbelow(True)
        ax.set_xlabel(f"{METRICS[metric][0]} (mode {mode}, {test})")
        handles, says = ax.get_legend_handles_labels()
        wrapped = [fill(words, 44) for words in says]
        fig.legend(handles, wrapped, loc="outside upper left", fontsize=8, frameon=False)
    return fig


def score_curve(
    record: Mapping[str, Any],
    tests: str | Sequence[str],
    metric: str,
    families: Mapping[str, str],
    level: tuple[str, str] | None = None,
    mode: str = "sar",
    along: str = "labelled chips",
) -> BookFigure:
    """A score against a number, as that of labelled chips, one line a family of competitors.

    A dot is one seed, the line joins the means. Families stand side by side at each number. What is
    not recorded is left out.

    Args:
        record: From `flora.load_record`; competitors are called "FAMILY_N".
        tests: Name of the test chips; of several, each has a panel, one below the other.
        metric: Name from `flora.experiments.METRICS`.
        families: What each family is called in the legend, at most seven.
        level: A competitor without a number, and what it is called: a dashed line.
        mode: Guidance mode of all.
        along: What N counts.

    Raises:
        FloraError: If there are too many families, or nothing of one of them is recorded.
    """
    if not 0 < len(families) <= len(MARKS):
        raise FloraError(f"{len(families)} families: expected 1 to {len(MARKS)}")
    panels = [tests] if isinstance(tests, str) else list(tests)
    fig, axes = figure(len(panels), panel=(4.4, 3.0 if len(panels) == 1 else 2.7))
    with style():
        for ax, test in zip(axes[:, 0], panels, strict=True):
            scores = _by_competitor(record, test, metric, mode)
            ticks = _lines(ax, scores, families, test)
            if level is not None and level[0] in scores:
                height = float(np.mean(scores[level[0]]))
                ax.axhline(height, color="#555555", linestyle="--", linewidth=1.2, label=level[1])
            ax.set_xscale("log")
            ax.set_xticks(sorted(ticks), labels=[str(tick) for tick in sorted(ticks)])
            ax.minorticks_off()
            ax.set_ylabel(f"{METRICS[metric][0]} ({test})")
            ax.grid(axis="y", linewidth=0.4, color="#dddddd")
        ax.set_xlabel(along)
        handles = axes[0, 0].get_legend_handles_labels()
        fig.legend(*handles, loc="outside upper left", fontsize=8, frameon=False)
    return fig


def _by_competitor(
    record: Mapping[str, Any], test: str, metric: str, mode: str
) -> dict[str, list[float]]:
    """The scores of all seeds of each competitor that has one."""
    scores: dict[str, list[float]] = {}
    for trial in record["trials"].values():
        score = trial["scores"].get(test, {}).get(mode, {}).get("all", {})
        if metric in score:
            scores.setdefault(trial["competitor"], []).append(score[metric])
    return scores


def _lines(
    ax: Axes, scores: Mapping[str, Sequence[float]], families: Mapping[str, str], test: str
) -> set[int]:
    """Draw the line and the dots of each family, and return the numbers at which there are any."""
    ticks: set[int] = set()
    for number, (family, says) in enumerate(families.items()):
        colour, marker = MARKS[number]
        aside = 1.08 ** (number - (len(families) - 1) / 2)  # so that none hides another
        named = {
            int(name.removeprefix(f"{family}_")): values
            for name, values in scores.items()
            if name.removeprefix(f"{family}_").isdecimal()
        }
        if not named:
            raise FloraError(f"{family}: nothing of that family is recorded on {test}")
        counts = sorted(named)
        ticks |= set(counts)
        shown = [count * aside for count in counts]
        for x, count in zip(shown, counts, strict=True):
            dots = named[count]
            ax.plot([x] * len(dots), dots, marker, color=colour, markersize=4, alpha=0.5)
        means = [float(np.mean(named[count])) for count in counts]
        ax.plot(shown, means, marker + "-", color=colour, markersize=6, label=says)
    return ticks


def forest_figure(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    label: str,
    scale: float = 1.0,
    width: float = 7.2,
) -> BookFigure:
    """Differences with their intervals, one row each, on one axis: a forest plot.

    A dot is one value (a seed, or a place), the square their mean, the bar its 95 % interval
    (`flora.experiments.evidence.judge`). The ends of a bar across the line at 0 say which effects
    it excludes. The axis ends with the longest bar; dots beyond are not drawn.

    Args:
        groups: Differences by row, by heading.
        label: What the axis shows.
        scale: Times which the values are drawn.
        width: Of the figure with the names of its rows, in inches; short names need less.

    Raises:
        FloraError: If a row holds fewer than two values.
    """
    count = sum(len(rows) + 1 for rows in groups.values())
    fig, axes = figure(panel=(width, 0.7 + 0.26 * count))
    with style():
        ax = axes[0, 0]
        names, places, ends, row = [], [], [0.0], 0
        for heading, rows in groups.items():
            ax.axhline(-row, color="#eeeeee", linewidth=11, zorder=0)
            names.append(heading)
            places.append(-row)
            row += 1
            for name, values in rows.items():
                found = judge(values, fewest=2)
                mean, low, high = found.mean, found.low, found.high
                if mean is None or low is None or high is None:
                    raise FloraError(f"{name}: {len(values)} values, and a bar needs two or more")
                colour = SEED if low <= 0 <= high else MEAN[mean > 0]
                drawn = [scale * value for value in values]
                ax.plot(drawn, [-row] * len(drawn), "o", color="#bbbbbb", markersize=3)
                ax.plot([scale * low, scale * high], [-row, -row], color=colour, linewidth=1.6)
                ax.plot(scale * mean, -row, "s", color=colour, markersize=5)
                ends += [scale * low, scale * high]
                names.append(f"{name} ({len(values)})")
                places.append(-row)
                row += 1
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(places, names)
        for tick in ax.get_yticklabels():
            tick.set_fontweight("bold" if tick.get_text() in groups else "normal")
        ax.tick_params(axis="y", length=0)
        margin = 0.04 * (max(ends) - min(ends))
        ax.set_xlim(min(ends) - margin, max(ends) + margin)
        ax.set_ylim(-row + 0.4, 0.6)
        ax.set_xlabel(label)
    return fig
