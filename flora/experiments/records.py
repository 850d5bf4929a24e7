"""Records of experiments as tables, for the pages of the book."""

from __future__ import annotations

import html
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flora.errors import FloraError
from flora.experiments.evidence import digits_that_show

METRICS: dict[str, tuple[str, int]] = {
    "water_iou": ("water IoU", 3),
    "water_f1": ("water F1", 3),
    "miou": ("two-class mIoU", 3),
    "boundary_f1": ("shoreline F1", 3),
    "psnr": ("PSNR, dB", 1),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
}


@dataclass(frozen=True)
class Table:
    """A table that a notebook shows as a table; cells may hold `code` and **bold**.

    Attributes:
        header: Column names.
        rows: As many cells each.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr>{''.join(f'<td>{_html(cell)}</td>' for cell in row)}</tr>" for row in self.rows
        )
        head = "".join(f'<th scope="col">{_html(cell)}</th>' for cell in self.header)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        # A wide table scrolls by itself, also from the keyboard.
        label = f"Table: {_html(', '.join(self.header))}".replace('"', "")
        plain = re.sub("<[^>]*>", "", label)
        return (
            f'<div style="overflow-x: auto" role="region" tabindex="0" aria-label="{plain}">'
            f"{table}</div>"
        )

    def __repr__(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(cell: str) -> str:
    """A cell's text, with `code` and **bold** as in Markdown."""
    text = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(cell, quote=False))
    return re.sub(r"\*\*(.*?)\*\*", r"<strong>\1</strong>", text)


def results_folder() -> Path:
    """The folder of the records: that of the repository, or the copy that was installed.

    Raises:
        FloraError: If there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "results", package / "results"):
        if (folder / "README.md").is_file():
            return folder
    raise FloraError("no records: install flora from its repository, where results/ lies")


def load_record(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Read a record.

    Args:
        name: Its name, without ".json".
        folder: Where it lies; the records of the book if None.

    Raises:
        FloraError: If there is none of that name, or it is damaged.

    Example:
        >>> from flora import load_record
        >>> record = load_record("speed")
        >>> sorted(record["provenance"])
        ['commit', 'date', 'hardware', 'versions']
    """
    path = (folder or results_folder()) / f"{name}.json"
    if not path.is_file():
        raise FloraError(f"no record {path.name} in {path.parent}: run `flora experiment {name}`")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FloraError(
            f"record {path} is damaged ({error}): take it from the repository again, or run "
            f"`flora experiment {name}` into another folder"
        ) from error
    if not isinstance(record, dict):
        raise FloraError(f"record {path} holds no record: take it from the repository again")
    return record


def scored(record: Mapping[str, Any], competitor: str, test: str, mode: str) -> dict[str, Any]:
    """Mean, spread and number of seeds of every metric; empty where nothing is recorded yet."""
    scores = record["competitors"].get(competitor, {"scores": {}})["scores"]
    found: dict[str, Any] = scores.get(test, {}).get(mode, {})
    return found


def mean_and_spread(score: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Write "0.653 ± 0.012" for several seeds, "0.653" for one, "-" for none.

    A spread that `digits` would write as 0 gets up to two more: "19.82 ± 0.03".

    Example:
        >>> from flora.experiments.records import mean_and_spread
        >>> mean_and_spread({"mean": 0.6534, "sd": 0.0121, "n": 3})
        '0.653 ± 0.012'
    """
    if score is None:
        return "-"
    if score["sd"] is None:
        return f"{score['mean']:.{digits}f}"
    digits = digits_that_show(score["sd"], digits)
    return f"{score['mean']:.{digits}f} ± {score['sd']:.{digits}f}"


def comparison(
    record: Mapping[str, Any],
    test: str,
    metrics: Sequence[str],
    groups: Iterable[str] | None = None,
) -> Table:
    """A row for every competitor and mode of which a trial is recorded, with mean ± sd.

    Args:
        record: From `load_record`.
        test: Name of the test chips.
        metrics: Some of "water_iou", "water_f1", "miou", "boundary_f1", "psnr", "ssim" and
            "lpips".
        groups: Only these groups of competitors.

    Raises:
        FloraError: If the record has no such test.

    Example:
        >>> from flora.experiments.records import comparison
        >>> score = {"water_iou": {"mean": 0.6534, "sd": 0.0121, "n": 3}}
        >>> flora = {"says": "FLoRA", "group": "FLoRA", "scores": {"test": {"sar": score}}}
        >>> record = {"tests": {"test": {}}, "competitors": {"flora": flora}}
        >>> comparison(record, "test", ["water_iou"])
        | competitor | mode | water IoU | seeds | in the record |
        | --- | --- | --- | --- | --- |
        | FLoRA | sar | 0.653 ± 0.012 | 3 | `flora` |
    """
    if test not in record["tests"]:
        raise FloraError(f"test {test!r}: the record has {', '.join(record['tests'])}")
    rows = []
    for name, competitor in record["competitors"].items():
        if groups is not None and competitor["group"] not in groups:
            continue
        for mode, score in competitor["scores"].get(test, {}).items():
            values = [mean_and_spread(score.get(m), METRICS[m][1]) for m in metrics]
            seeds = next(iter(score.values()))["n"] if score else 0
            rows.append([competitor["says"], mode, *values, str(seeds), f"`{name}`"])
    header = ["competitor", "mode", *(METRICS[m][0] for m in metrics), "seeds", "in the record"]
    return Table(header, rows)


def differences(
    record: Mapping[str, Any], test: str, metric: str, reference: str = "flora", mode: str = "sar"
) -> dict[str, list[float]]:
    """Score of each competitor less that of the reference, seed by seed.

    Competitors of one seed are trained on the same crops in the same order, so the difference is
    paired. Those without a seed in common with the reference are left out.

    Args:
        record: From `load_record`.
        test: Name of the test chips.
        metric: One of "water_iou", "water_f1", "miou", "boundary_f1", "psnr", "ssim" and "lpips".
        reference: What the others are compared with.
        mode: Guidance mode of both.

    Example:
        >>> from flora.experiments.records import differences
        >>> def trial(name, seed, iou):
        ...     scores = {"test": {"sar": {"all": {"water_iou": iou}}}}
        ...     return {"competitor": name, "seed": seed, "scores": scores}
        >>> trials = [trial("flora", 0, 0.75), trial("flora", 1, 0.5), trial("unet", 0, 0.5)]
        >>> record = {"trials": {str(number): one for number, one in enumerate(trials)}}
        >>> differences(record, "test", "water_iou")  # seed 0 is what both have
        {'unet': [-0.25]}
    """
    values: dict[str, dict[int, float]] = {}
    for trial in record["trials"].values():
        score = trial["scores"].get(test, {}).get(mode, {}).get("all", {})
        if trial["seed"] is not None and metric in score:
            values.setdefault(trial["competitor"], {})[trial["seed"]] = score[metric]
    base = values.get(reference, {})
    return {
        name: [seeds[seed] - base[seed] for seed in sorted(seeds) if seed in base]
        for name, seeds in values.items()
        if name != reference and set(seeds) & set(base)
    }


def by_place(
    records: Iterable[Mapping[str, Any]],
    test: str,
    competitor: str,
    metric: str,
    mode: str = "sar",
) -> dict[str, float]:
    """Score of a competitor on every place of the test chips, its mean over seeds.

    Args:
        records: From `load_record`, each with other places in its test chips.
        test: Name of the test chips in all of them.
        competitor: Its name in all of them; a record that lacks it adds nothing.
        metric: As of `differences`; a place without it (one class only) is left out.
        mode: Guidance mode.

    Example:
        >>> from flora.experiments.records import by_place
        >>> def trial(seed, iou):
        ...     places = {"Ebro": {"water_iou": iou}, "Segura": {"water_iou": 0.5}}
        ...     return {"competitor": "unet", "scores": {"test": {"sar": {"places": places}}}}
        >>> record = {"trials": {"unet-0": trial(0, 0.5), "unet-1": trial(1, 0.75)}}
        >>> by_place([record], "test", "unet", "water_iou")
        {'Ebro': 0.625, 'Segura': 0.5}
    """
    found: dict[str, list[float]] = {}
    for record in records:
        for trial in record["trials"].values():
            scores = trial["scores"].get(test, {}).get(mode, {})
            if trial["competitor"] == competitor:
                for place, score in scores.get("places", {}).items():
                    if metric in score:
                        found.setdefault(place, []).append(score[metric])
    return {place: statistics.mean(values) for place, values in found.items()}


def gains_on_own_site(
    records: Iterable[Mapping[str, Any]], test: str, less: str, metric: str, mode: str = "sar"
) -> dict[str, float]:
    """What adapting to one site alone brings on that site, paired by seed, its mean over seeds.

    Args:
        records: From `load_record`, of experiments with `flora.experiments.makers.Adapted`. Trials
            count that name their site, and those that were adapted where there is one site only.
        test: Name of the test chips in all of them.
        less: Name of the competitor whose score with the same seed is taken away.
        metric: One of "water_iou", "water_f1", "miou", "boundary_f1", "psnr", "ssim" and "lpips".
        mode: Guidance mode.

    Example:
        >>> from flora.experiments.records import gains_on_own_site
        >>> def trial(name, iou, **of):
        ...     places = {"Ebro": {"water_iou": iou}, "Segura": {"water_iou": 0.5}}
        ...     scores = {"test": {"sar": {"places": places}}}
        ...     return {"competitor": name, "seed": 0, "scores": scores, **of}
        >>> trials = {
        ...     "adapted_alone_0-0": trial("adapted_alone_0", 0.75, adapted_to=["1"], site="Ebro"),
        ...     "longer-0": trial("longer", 0.5),
        ... }
        >>> gains_on_own_site([{"trials": trials}], "test", "longer", "water_iou")
        {'Ebro': 0.25}
    """
    found: dict[str, list[float]] = {}
    for record in records:
        trials = record["trials"]
        for trial in trials.values():
            places = trial["scores"].get(test, {}).get(mode, {}).get("places", {})
            sites = [trial["site"]] if "site" in trial else list(places)
            other = trials.get(f"{less}-{trial['seed']}") or trials.get(less)
            if "adapted_to" in trial and len(sites) == 1 and other not in (None, trial):
                [site] = sites
                rival = other["scores"][test][mode]["places"][site][metric]
                found.setdefault(site, []).append(places[site][metric] - rival)
    return {site: statistics.mean(gains) for site, gains in found.items()}
