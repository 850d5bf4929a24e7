r"""Whether a head that is taught where the network errs knows it, beside the network's own word.

    FLORA_DATA=my-data python benchmarks/uncertainty.py --runs runs --record FILE

The weights that ship, as they answer, and corrected by `flora.models.doubt.ErrorHead`, which
learned on simulated scenes that neither they nor this test have seen. The measures and chips are
those of `benchmarks/calibration.py`, whose record has the mean over flips and quarter turns. The
map is the same for both, so all that differs is how sure they are.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
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
)
from benchmarks.simulated_chips import described, read_chips, rounded
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.experiments.evidence import judge
from flora.experiments.provenance import write_record
from flora.models.doubt import ErrorHead, doubting, load_error_head
from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.predictors import Predictor
from flora.sensors import DRY, WATER
from flora.training.config import TrainingConfig
from flora.training.doubting import DoubtTask
from flora.training.fit import fit

TAUGHT_ON = {"split": "train", "count": 40, "size": 128, "seed": 1}
TRAINING = TrainingConfig(steps=300, batch=4, crop=64, learning_rate=3e-3)


def taught(runs: Path) -> ErrorHead:
    """The head of the weights that ship, trained or read from its run."""
    torch.manual_seed(TRAINING.seed)
    base = load_model()
    task = DoubtTask(base, ErrorHead(base.config.widths[0]))
    chips = InMemory(Simulated(**TAUGHT_ON))  # type: ignore[arg-type]
    return load_error_head(fit(task, chips, TRAINING, runs / "error-head", quiet=True).last)


def measure(
    sides: dict[str, Predictor], chips: Iterator[tuple[str, Tensor, Tensor, Tensor]]
) -> dict[str, Any]:
    """All sides on these chips, pooled, and the second less the first chip by chip."""
    parts: dict[str, list[Pixels]] = {side: [] for side in sides}
    for _, sar, valid, label in chips:
        scored = (valid & ((label == DRY) | (label == WATER))).numpy()
        if scored.any():
            for side, predict in sides.items():
                probability = plain(predict, sar, valid).double().numpy()[scored]
                parts[side].append((probability, (label == WATER).numpy()[scored]))
    first, second = parts.values()
    less = {}
    for metric, of in (("brier", brier), ("ece", calibration_error)):
        found = judge([of(b) - of(a) for a, b in zip(first, second, strict=True)])
        ends = {"low": rounded(found.low), "high": rounded(found.high), "chips": found.count}
        less[metric] = {"difference": rounded(found.mean), **ends}
    same = [np.array_equal(a[0] >= 0.5, b[0] >= 0.5) for a, b in zip(first, second, strict=True)]
    whole = {side: {**row(pooled(p)), "area_covered": covered(p)} for side, p in parts.items()}
    return {"pooled": whole, "head_less_plain": less, "same_map": all(same)}


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
    base = load_model()
    sides = {"plain": predictor(base), "error head": doubting(base, taught(asked.runs))}
    chips = read_chips(asked.scenes, asked.size, asked.seed, asked.keep)
    record = {
        "question": "Does a head that is taught where the network errs know it?",
        "taught_on": {**TAUGHT_ON, "steps": TRAINING.steps, "head_seed": TRAINING.seed},
        "chips": described(chips, asked.seed),
        "simulated": measure(sides, simulated_chips(asked)),
        "real": measure(sides, few_chips(Path(os.environ["FLORA_DATA"]))),
        "cite": "Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel "
        "data 2016-2019.",
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
