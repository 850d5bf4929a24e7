"""What the book asked beyond the paper, and what its records answer, as one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flora.experiments.evidence import Judgement, judge
from flora.experiments.records import Table, differences, load_record


def beyond_the_paper() -> Table:
    """A row a question: what was asked, what its record answers, what that does not show.

    The words follow the rule of `judge`: an effect *helps* or *hurts* if its whole 95 % interval
    lies on one side of 0, otherwise there is *no difference*. Differences are of water IoU where
    nothing else is said.

    Raises:
        FloraError: If a record is missing.

    Example:
        >>> from flora.experiments import beyond_the_paper
        >>> beyond_the_paper().header
        ['asked, and the record', 'found', 'what it does not show']
        >>> beyond_the_paper().rows[0][0]
        'A radar date from before the flood, with the weights that ship? `two_dates`'
    """
    rows = []
    for name, (asked, answer, not_shown) in _ASKED.items():
        rows.append([f"{asked} `{name}`", answer(load_record(name)), not_shown])
    return Table(["asked, and the record", "found", "what it does not show"], rows)


def _judged(row: Mapping[str, Any]) -> Judgement:
    """An effect as benchmarks record it."""
    mean = row.get("difference", row.get("mean"))
    return Judgement(mean, row["low"], row["high"], row.get("chips", 0))


def _gain(found: Judgement, lower_is_better: bool = False) -> str:
    """A gain with its interval, after the word that it deserves."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        word = "open" if found.low is None else "no difference"
    else:
        word = "helps" if (found.low > 0) != lower_is_better else "hurts"
    return f"**{word}**, {found.text()}"


def _two_dates(record: Mapping[str, Any]) -> str:
    return _gain(_judged(record["rows"]["two dates"]["water_iou"]))


def _season(record: Mapping[str, Any]) -> str:
    steps = record["steps"]["own network"]
    first, second, more = (_gain(_judged(steps[step])) for step in ("0 to 1", "1 to 2", "2 to 4"))
    return f"the first: {first}; the second: {second}; two more: {more}"


def _many_dates(record: Mapping[str, Any]) -> str:
    gains = {}
    for dates, rival in (("1", "stacked"), ("4", "after"), ("4", "stacked")):
        paired = differences(record, f"{dates} before", "water_iou", rival)["statistics"]
        gains[dates, rival] = _gain(judge(paired))
    return (
        f"against no date: {gains['4', 'after']}; against one that is stacked: "
        f"{gains['4', 'stacked']}; where there is only one, against the same stacked: "
        f"{gains['1', 'stacked']}"
    )


def _alignment(record: Mapping[str, Any]) -> str:
    shown = record["modes"]["before"]

    def gain(moved: str, by: str) -> str:
        return _gain(_judged(shown[moved][by]["water_iou"]))

    inside = "inside the fusion"
    return (
        f"registering it by edges: {gain('shift 8 px', 'registered')}; moving features in the "
        f"fusion: {gain('shift 8 px', inside)}; for 2 degrees of rotation: "
        f"{gain('rotation 2 degrees', inside)}; for relief of up to 8 px: "
        f"{gain('relief up to 8 px', inside)}"
    )


def _offsets_real(record: Mapping[str, Any]) -> str:
    shifted = [record[pairs]["shifted"] for pairs in ("ombria", "sih1733")]
    near = sum(round(row["within_1_px"] * row["found"]) for row in shifted)
    return f"**{near} of {sum(row['tried'] for row in shifted)}** within a pixel"


def _misalignment_fusions(record: Mapping[str, Any]) -> str:
    def cost(side: str, mode: str) -> str:
        return _judged(record["shifted"][mode][side]["8"]["water_iou"]).text()

    return (
        f"the image from before: early fusion {cost('early', 'before')}, FLoRA "
        f"{cost('FLoRA', 'before')}; that of the flood: early fusion "
        f"{cost('early', 'oracle')}, FLoRA {cost('FLoRA', 'oracle')}"
    )


def _uncertainty(record: Mapping[str, Any]) -> str:
    simulated, real = (
        _gain(_judged(record[on]["less_plain"]["error head"]["brier"]), lower_is_better=True)
        for on in ("simulated", "real")
    )
    return f"Brier score on simulated scenes: {simulated}; on real chips: {real}"


def _likelihood(record: Mapping[str, Any]) -> str:
    alone = record["modes"]["sar"]
    held = {}
    for on in ("simulated", "real"):
        area = alone[on]["intervals"]["water"]
        held[on] = f"{round(area['covered'] * area['scenes'])} of {area['scenes']}"
    before, after = (alone["real"][of]["ece"] for of in ("probability", "likelihood"))
    return (
        f"on **{held['simulated']}** simulated scenes, on **{held['real']}** real chips; "
        f"calibration error there, of the probability {before:.3f}, of the likelihood {after:.3f}"
    )


def _leakage(record: Mapping[str, Any]) -> str:
    edges = record["counts"]["official"]
    beside = edges["test chips that share an edge with a training chip"]
    return f"**{beside} of {edges['chips']['test']}** share an edge with a training chip"


def _few_real_labels(record: Mapping[str, Any]) -> str:
    test = record["test"]
    shipped = test["weights that ship"]["pooled"]["water_iou"]
    without, taught = (
        _gain(judge([row["pooled"]["water_iou"] - shipped for row in test[lesson]]))
        for lesson in ("without the teacher", "with the teacher")
    )
    return f"with the teacher: {taught} from {shipped:.3f} pooled; without: {without}"


def _real_threshold(record: Mapping[str, Any]) -> str:
    left_out = judge(
        [
            chip["water_iou"] - chip["water_iou_at_0.5"]
            for chip in record["left_out"].values()
            if isinstance(chip, dict)
        ]
    )
    pooled, chosen = record["test"]["pooled"], record["chosen"]
    there, plain = (
        f"{pooled[f'FLoRA, weights that ship, {at:g}']['water_iou']:.3f}" for at in (chosen, 0.5)
    )
    return (
        f"{chosen:g} in place of 0.5; on the chip left out: {_gain(left_out)}; "
        f"on the test chips, pooled, {there} in place of {plain}"
    )


def _other_products(record: Mapping[str, Any]) -> str:
    coarse = record["adapted"]["20 m pixels"]
    labelled, without = (
        _gain(_judged(coarse[lesson]["gained"]["water_iou"]))
        for lesson in ("with labels", "without labels")
    )
    return f"with their labels: {labelled}; without: {without}"


# By record: the question, how it is answered, and what no answer to it shows.
_ASKED: dict[str, tuple[str, Callable[[Mapping[str, Any]], str], str]] = {
    "two_dates": (
        "A radar date from before the flood, with the weights that ship?",
        _two_dates,
        "another training of either: one each, of one date on more scenes and steps; real floods: "
        "48 simulated scenes",
    ),
    "season": (
        "Each further date before the flood?",
        _season,
        "FLoRA: a small network, 32 simulated scenes",
    ),
    "many_dates": (
        "FLoRA itself, told of four dates before the flood by their statistics?",
        _many_dates,
        "long trainings; three seeds, 48 simulated scenes",
    ),
    "alignment": (
        "An optical guide that lies 8 px beside: what undoes it?",
        _alignment,
        "real layover; 12 simulated scenes, mode `before`",
    ),
    "offsets_real": (
        "Do edges find shifts made by hand in real pairs?",
        _offsets_real,
        "cloudy pairs, nor what lay beside before",
    ),
    "misalignment_fusions": (
        "What does a shift of 8 px cost early fusion, and FLoRA?",
        _misalignment_fusions,
        "long trainings; one seed, 24 simulated scenes",
    ),
    "uncertainty": (
        "Does a head that learnt where the network errs know it better?",
        _uncertainty,
        "a better map: it is the same; six real chips",
    ),
    "likelihood": (
        "Does the true area lie in its interval, nine times of ten?",
        _likelihood,
        "any other product or season; six real chips",
    ),
    "leakage": (
        "Sen1Floods11: how near do test chips lie to training chips?",
        _leakage,
        "by how much scores gain from it",
    ),
    "few_real_labels": (
        "Does training further on four labelled real chips help?",
        _few_real_labels,
        "more chips, other recipes; six test chips, three seeds",
    ),
    "real_threshold": (
        "Do they choose a better threshold of the water map?",
        _real_threshold,
        "any other season; six test chips",
    ),
    "other_products": (
        "Pixels of 20 m: what does training further on 32 scenes give back?",
        _other_products,
        "real products; 24 simulated scenes",
    ),
}
