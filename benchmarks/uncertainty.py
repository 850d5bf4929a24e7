r"""How a network's word of how sure it is can be bettered: a head, flips, or three seeds.

    FLORA_DATA=my-data python benchmarks/uncertainty.py --runs runs --record FILE

The weights that ship, as they answer, and corrected by `flora.models.doubt.ErrorHead`, which
learned on simulated scenes that neither they nor this test have seen. Three seeds of them there
are not, so three networks of one short training are compared besides, those of the trials `after`
of the experiment `many_dates`: FLoRA from radar alone, of water alone. One as it answers, averaged
over flips and quarter turns, and with a head of its own; and the mean of all three
(Lakshminarayanan et al., 2017). The measures and chips are those of `benchmarks/calibration.py`. A
head leaves the map as it is; flips and seeds change it too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.calibration import (
    Pixels,
    brier,
    calibration_error,
    covered,
    few_chips,
    plain,
    pooled,
    row,
    simulated_chips,
    turned,
)
from benchmarks.simulated_chips import described, read_chips, rounded
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.experiments import named_experiment
from flora.experiments.evidence import judge
from flora.experiments.makers import Job, Setting
from flora.experiments.provenance import write_record
from flora.models.doubt import ErrorHead, doubting, load_error_head
from flora.models.network import Flora
from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.sensors import DRY, WATER
from flora.training.config import TrainingConfig
from flora.training.doubting import DoubtTask
from flora.training.fit import fit

SEEDS = (0, 1, 2)
MEMBERS = named_experiment("many_dates")
TAUGHT_ON = {"split": "train", "count": 40, "size": 128, "seed": 1}
TRAINING = TrainingConfig(steps=300, batch=4, crop=64, learning_rate=3e-3)


Answers = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Probabilities of water (H, W) of radar (C, H, W) and where it is valid, by who says so."""


def taught(base: Flora, run: Path) -> ErrorHead:
    """The head of a network, trained or read from its run."""
    torch.manual_seed(TRAINING.seed)
    task = DoubtTask(base, ErrorHead(base.config.widths[0]))
    chips = InMemory(Simulated(**TAUGHT_ON))  # type: ignore[arg-type]
    return load_error_head(fit(task, chips, TRAINING, run, quiet=True).last)


def shipped(runs: Path) -> Answers:
    """The weights that ship and their head."""
    base = load_model()
    sides = {"plain": predictor(base), "error head": doubting(base, taught(base, runs / "head"))}
    return lambda sar, valid: {side: plain(one, sar, valid) for side, one in sides.items()}


def members(runs: Path) -> list[Flora]:
    """The networks of all seeds, trained or read from their runs."""
    after = MEMBERS.competitors["after"]
    chips = InMemory(Simulated("train", **{**MEMBERS.train.options, **after.options}))
    setting = Setting(MEMBERS.size, MEMBERS.teacher_steps, MEMBERS.norm)
    networks = []
    for seed in SEEDS:
        training, run = replace(MEMBERS.training, seed=seed), runs / f"after-{seed}"
        made = after.by.make(Job(chips, training, run, setting, quiet=True))  # type: ignore[union-attr]
        networks.append(load_model(made.weights).eval())
    return networks


def three_seeds(runs: Path) -> Answers:
    """The first of three networks in three ways, the mean of all, and the others by themselves."""
    networks = members(runs)
    head = doubting(networks[0], taught(networks[0], runs / "after-0-head"))
    predicts = [predictor(network) for network in networks]

    def answers(sar: Tensor, valid: Tensor) -> dict[str, Tensor]:
        own = [plain(predict, sar, valid) for predict in predicts]
        return {
            "plain": own[0],
            "flips and turns": turned(predicts[0], sar, valid),
            "error head": plain(head, sar, valid),
            "mean of three seeds": torch.stack(own).mean(0),
            **{f"seed {seed}": water for seed, water in zip(SEEDS[1:], own[1:], strict=True)},
        }

    return answers


def measure(
    answers: Answers, chips: Iterator[tuple[str, Tensor, Tensor, Tensor]]
) -> dict[str, Any]:
    """All sides on these chips, pooled, and the others less the first chip by chip."""
    parts: dict[str, list[Pixels]] = {}
    for _, sar, valid, label in chips:
        scored = (valid & ((label == DRY) | (label == WATER))).numpy()
        if scored.any():
            for side, water in answers(sar, valid).items():
                probability = water.double().numpy()[scored]
                parts.setdefault(side, []).append((probability, (label == WATER).numpy()[scored]))
    first, *others = parts
    whole = {side: {**row(pooled(p)), "area_covered": covered(p)} for side, p in parts.items()}
    return {
        "pooled": whole,
        "less_plain": {side: less(parts[side], parts[first]) for side in others},
        "same_map": [side for side in others if same_map(parts[side], parts[first])],
    }


def less(these: list[Pixels], those: list[Pixels]) -> dict[str, Any]:
    """Difference of each measure, the mean of chips, with its 95 % interval."""
    rows = {}
    for metric, of in (("brier", brier), ("ece", calibration_error)):
        found = judge([of(a) - of(b) for a, b in zip(these, those, strict=True)])
        ends = {"low": rounded(found.low), "high": rounded(found.high), "chips": found.count}
        rows[metric] = {"difference": rounded(found.mean), **ends}
    return rows


def same_map(these: list[Pixels], those: list[Pixels]) -> bool:
    """Whether all say water at the same pixels."""
    return all(np.array_equal(a[0] >= 0.5, b[0] >= 0.5) for a, b in zip(these, those, strict=True))


def main() -> None:
    """Train the head, measure both sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--runs", type=Path, required=True, help="folder for the head's training")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file to keep the simulated scenes in")
    asked = parser.parse_args()
    data = Path(os.environ["FLORA_DATA"])
    chips = read_chips(asked.scenes, asked.size, asked.seed, asked.keep)

    def both(answers: Answers) -> dict[str, Any]:
        return {
            "simulated": measure(answers, simulated_chips(asked)),
            "real": measure(answers, few_chips(data)),
        }

    record = {
        "question": "Who knows best how sure a network can be: a head, flips, or three seeds?",
        "taught_on": {**TAUGHT_ON, "steps": TRAINING.steps, "head_seed": TRAINING.seed},
        "chips": described(chips, asked.seed),
        **both(shipped(asked.runs)),
        "short": {
            "trained_on": {
                "experiment": "many_dates",
                "trials": [f"after-{seed}" for seed in SEEDS],
                "training": asdict(MEMBERS.training),
            },
            **both(three_seeds(asked.runs)),
        },
        "cite": "Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel "
        "data 2016-2019.",
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
