"""Tables of the book's pages, made of the records in results/."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from flora.experiments import METRICS, comparison

ROOT = Path(__file__).resolve().parent.parent


def record(name: str) -> dict[str, Any]:
    """A record of the folder results/."""
    read: dict[str, Any] = json.loads((ROOT / f"results/{name}.json").read_text(encoding="utf-8"))
    return read


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory_table() -> str:
    """What the weights explain of the memory of a training step, from results/speed.json."""
    measured = record("speed")["rows"]
    rows = [
        [
            f"`{name}`",
            f"{measured[name]['parameters'] / 1e6:.2f}",
            f"{16 * measured[name]['parameters'] / 1e9:.2f}",
            f"{measured[name]['peak_memory_training_gb']:.1f}",
        ]
        for name in ("tiny", "small", "paper")
    ]
    return table(["size", "weights, million", "16 bytes a weight, GB", "measured peak, GB"], rows)


def likelihood_table() -> str:
    """What likelihood and interval are worth, from results/likelihood*.json."""
    modes = record("likelihood")["modes"]
    two = record("likelihood_two_dates")["modes"]
    judged = {
        "simulated scenes, radar alone": modes["sar"]["simulated"],
        "simulated scenes, with an image from before": modes["before"]["simulated"],
        "simulated scenes, radar of two dates": two["sar"]["simulated"],
        "simulated scenes, radar of two dates and an image from before": two["before"]["simulated"],
        "real test chips, radar alone": modes["sar"]["real"],
    }

    def held(found: dict[str, Any] | None) -> str:
        if found is None:
            return "-"
        covered = round(found["covered"] * found["scenes"])
        return f"{covered} of {found['scenes']}"

    rows = [
        [
            name,
            *(f"{100 * found[said]['ece']:.1f}" for said in ("probability", "likelihood")),
            held(found["intervals"]["water"]),
            held(found["intervals"].get("flood")),
        ]
        for name, found in judged.items()
    ]
    larger = record("area_interval")["sizes"]["512"]["modes"]
    for mode, name in (
        ("1 sar", "simulated scenes of 5 km, radar alone"),
        ("1 before", "simulated scenes of 5 km, with an image from before"),
        ("2 sar", "simulated scenes of 5 km, radar of two dates"),
        ("2 before", "simulated scenes of 5 km, radar of two dates and an image from before"),
    ):
        rows.append([name, "-", "-", held(larger[mode]["water"]), held(larger[mode]["flood"])])
    header = ["", "error of the probability", "of the likelihood", "area of water", "of flood"]
    return table(header, rows)


def real_chips_held() -> str:
    """How many real test chips lie in their interval, from results/likelihood.json."""
    found = record("likelihood")["modes"]["sar"]["real"]["intervals"]["water"]
    return f"{round(found['covered'] * found['scenes'])} of {found['scenes']}"


def larger_scenes_held() -> str:
    """What the share of larger scenes in their interval may be, from results/area_interval.json."""
    found = record("area_interval")["sizes"]["512"]["modes"]["1 sar"]["water"]
    low, high = found["interval"]
    return f"{100 * low:.0f} % to {100 * high:.0f} %"


def points_of_iou(row: str) -> str:
    """What a row of results/other_products.json loses or gains, in points of water IoU."""
    found = record("other_products")["rows"][row]["water_iou"]
    mean, *ends = (100 * found[key] for key in ("difference", "low", "high"))
    return f"{mean:+.1f} points of water IoU [{ends[0]:+.1f}, {ends[1]:+.1f}]"


def farthest_from_sarsen() -> str:
    """How far the places of results/terrain.json lie apart at most, in m."""
    found = record("terrain")["products"].values()
    return f"{max(max(one['along_m'], one['across_m']) for one in found):.1f} m"


def products() -> list[dict[str, Any]]:
    """The products of results/terrain.json."""
    return list(record("terrain")["products"].values())


def brightness_of_slopes(slope: str) -> str:
    """Median brightness of slopes less that of level ground, from results/terrain.json."""
    found = [one["slopes"][slope]["db"][1] for one in products()]
    low, high = (f"{end:.1f}" for end in sorted((abs(min(found)), abs(max(found)))))
    return f"{low} dB" if low == high else f"{low} to {high} dB"


def spread_of_slopes(slope: str) -> str:
    """Between what their brightness lies in nine of ten cells of all products."""
    ends = [abs(one["slopes"][slope]["db"][end]) for one in products() for end in (0, 2)]
    return f"{min(ends):.1f} to {max(ends):.1f} dB"


def realism_table() -> str:
    """Medians, speckle and threshold errors of results/simulator_realism.json."""
    sources = record("simulator_realism")["sources"]
    rows = []
    for part in ("water", "land"):
        for key, digits in (("VV", 1), ("VH", 1), ("NDVI", 2)):
            found = [values[key][part] for values in sources.values()]
            row = [f"{one['median']:.{digits}f}" if one else "-" for one in found]
            rows.append([f"{part}, {key}", *row])
    grains = [values["VV"]["speckle"] for values in sources.values()]
    rows.append(["looks", *(f"{grain['looks']:.1f}" for grain in grains)])
    for way in ("down", "across"):
        lags = [grain[f"correlation_{way}"][0] for grain in grains]
        rows.append([f"lag 1, {way}", *(f"{lag:.2f}" for lag in lags)])
    errors = [values["VH"]["best_threshold_error"] for values in sources.values()]
    rows.append(["error, %", *("-" if one is None else f"{100 * one:.1f}" for one in errors)])
    # Where these names may break, so that seven columns fit on a telephone.
    breaks = {
        "simulated": "simu\u00adlated",
        "farmland": "farm\u00adland",
        "SEN12MS": "SEN\u00ad12MS",
    }
    return table(["value", *(breaks.get(name, name) for name in sources)], rows)


def spain_table() -> str:
    """The weights that ship and Otsu's threshold on the chip Spain, from results/spain_*.json."""
    rows = []
    constant = ""
    for name, says in (
        ("spain_otsu_median_1", "Otsu on VH"),
        ("spain_otsu_median_9", "Otsu on VH, 9 px median"),
        ("spain_flora_tiny_sar", "FLoRA, the weights that ship, `sar`"),
        ("spain_flora_tiny_oracle", "the same, `oracle`: a bound"),
    ):
        score = record(name)["scores"]["all"]
        cells = [
            f"{score[metric]:.{METRICS[metric][1]}f}" if metric in score else "-"
            for metric in ("water_iou", "miou", "psnr")
        ]
        rows.append([says, *cells, f"`{name}`"])
        constant = f"{score['psnr_constant']:.1f}" if "psnr_constant" in score else constant
    rows.append(["a constant image", "-", "-", constant, "`spain_flora_tiny_oracle`"])
    return table(["on the chip Spain", "water IoU", "two-class mIoU", "PSNR, dB", "record"], rows)


def sim_to_real_table() -> str:
    """What models trained on simulated scenes alone find on the chip Spain."""
    made = comparison(record("sim_to_real"), "Spain", ["water_iou", "boundary_f1", "psnr"])
    # One seed each, as the text says; names in the record would make it too wide for a telephone.
    return table(made.header[:-2], [row[:-2] for row in made.rows])


def bound_table() -> str:
    """What can be read from the chip Spain by whoever knows its label, from spain_bound.json."""
    bound = record("spain_bound")
    shipped = bound["shipped"]["water_iou_at_threshold"]
    best = max(bound["best_threshold_on_the_label"], key=lambda row: row["water_iou"])
    weights = "the weights that ship"
    says = f"best of all thresholds: {best['band']}, {best['median_px']} px median"
    rows = [
        [f"{weights}, threshold 0.5", "whole", shipped["0.5"]],
        ["the same, the best threshold", "whole", max(shipped.values())],
        [says, "whole", best["water_iou"]],
    ]
    for half, score in bound["other_half"].items():
        rows.append(["a U-Net trained on the other half", half, score["trained_on_other_half"]])
        rows.append([f"{weights}, threshold 0.5", half, score["shipped"]])
    return table(
        ["on the chip Spain", "half", "water IoU"], [[a, b, f"{iou:.3f}"] for a, b, iou in rows]
    )


def test_chips_table() -> str:
    """Water IoU of the weights that ship and of two rivals on test chips: real_threshold.json."""
    rows = record("real_threshold")["test"]
    methods = [name for name in rows["pooled"] if isinstance(rows["pooled"][name], dict)]
    cells = [
        [
            chip.replace("_", " "),
            f"{100 * row['water_share']:.1f}" if "water_share" in row else "",
            *(f"{row[name]['water_iou']:.3f}" if name in row else "-" for name in methods),
        ]
        for chip, row in rows.items()
        if chip == "pooled" or all("water_iou" in row.get(name, {}) for name in methods)
    ]
    shown = [name.replace(", weights that ship, ", ", from ") for name in methods]
    # The text says that both thresholds follow a filter: a telephone is too narrow for it here.
    shown = [name.removesuffix(", 9 px median") for name in shown]
    return table(["test chip", "water, %", *shown], cells)


def real_threshold_table() -> str:
    """The four chips that choose a threshold, each by the choice of the others."""
    found = record("real_threshold")
    own, labelled = f"{found['chosen']:g}", found["labelled"]
    left_out = {name: found["left_out"][name] for name in labelled}
    rows = [
        [
            name.replace("_", " "),
            f"{labelled[name]['0.5']:.3f}",
            f"{row['water_iou']:.3f} (from {row['threshold']:g})",
            f"{labelled[name][own]:.3f}",
        ]
        for name, row in left_out.items()
    ]
    others = sum(row["water_iou"] for row in left_out.values()) / len(left_out)
    mean = [found["mean"]["0.5"], others, found["mean"][own]]
    rows.append(["mean", *(f"{iou:.3f}" for iou in mean)])
    simulated = found["simulated"]["water_iou"]
    cost = [f"{simulated['0.5']:.3f}", "-", f"{simulated[own]:.3f}"]
    rows.append([f"{found['simulated']['scenes']} simulated scenes, pooled", *cost])
    header = [
        "water IoU",
        "from 0.5 on",
        "from what the others choose",
        f"from {own} on, of all four",
    ]
    return table(header, rows)


def threshold_gain() -> str:
    """What the threshold of the others gains on the chip left out, from real_threshold.json."""
    return str(record("real_threshold")["left_out"]["less_0.5"])


def few_real_labels_table() -> str:
    """Weights that ship, trained further on four real chips, from results/few_real_labels.json."""
    found = record("few_real_labels")
    left_out, tested = found["left_out"], found["test"]

    def pooled(name: str) -> str:
        trials = tested[name] if isinstance(tested[name], list) else [tested[name]]
        return ", ".join(f"{trial['pooled']['water_iou']:.3f}" for trial in trials)

    rows = [
        [
            name if name.startswith("weights") else f"trained further, {name}",
            f"{left_out[name]['pooled']['water_iou']:.3f}",
            left_out[name].get("less those that ship", "-"),
            pooled(name),
        ]
        for name in left_out
    ]
    header = [
        "water IoU",
        "the four, each left out, pooled",
        "less those that ship, mean of the four",
        "test chips, pooled, each seed",
    ]
    return table(header, rows)


def seams() -> dict[str, str]:
    """The side of the scene that was mapped in the default tiles, and the largest difference."""
    found = record("scenes")
    return {"side": f"{found['seams_side']:,}", "largest": f"{found['seams'][-1]['largest']:.5f}"}


SENTENCES: dict[str, Callable[[], str]] = {
    "seams_side": lambda: seams()["side"],
    "seams_largest": lambda: seams()["largest"],
    "real_held": real_chips_held,
    "threshold_gain": threshold_gain,
    "larger_held": larger_scenes_held,
    "low_cost": lambda: points_of_iou("1 dB too low"),
    "sarsen_off": farthest_from_sarsen,
    "sarsen_products": lambda: {2: "two", 3: "three"}[len(record("terrain")["products"])],
    "facing_10": lambda: brightness_of_slopes("10 to 20"),
    "facing_10_range": lambda: spread_of_slopes("10 to 20"),
    "away_10_range": lambda: spread_of_slopes("-20 to -10"),
    "away_10": lambda: brightness_of_slopes("-20 to -10"),
    "facing_5": lambda: brightness_of_slopes("5 to 10"),
    "away_5": lambda: brightness_of_slopes("-10 to -5"),
    "gamma0_cost": lambda: points_of_iou("gamma0 at 38 degrees"),
    "coarse_cost": lambda: points_of_iou("20 m pixels"),
}
TABLES: dict[str, Callable[[], str]] = {
    "memory_table": memory_table,
    "realism_table": realism_table,
    "likelihood_table": likelihood_table,
    "spain_table": spain_table,
    "sim_to_real_table": sim_to_real_table,
    "bound_table": bound_table,
    "test_chips_table": test_chips_table,
    "few_real_labels_table": few_real_labels_table,
    "real_threshold_table": real_threshold_table,
}
