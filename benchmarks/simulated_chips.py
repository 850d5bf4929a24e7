"""Simulated test chips that several benchmarks share, and paired differences over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from flora.datasets.base import Sample, collate
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.experiments.evidence import judge
from flora.files import write_whole
from flora.predictors import Prediction
from flora.sensors import WATER
from flora.training.metrics import Scores, SplitScores

METRICS = ("water_iou", "psnr")
LEAST_WATER = 0.01  # share of a chip: the IoU of a few pixels says nothing


def read_chips(count: int, size: int, seed: int, keep: Path | None = None) -> list[Sample]:
    """Chips of the simulated test split; simulating them is what takes longest.

    Args:
        count: Number of chips.
        size: Side in pixels.
        seed: Seed of the split.
        keep: File to read them from; it is written where it is missing.

    Raises:
        FloraError: If the file holds other chips.
    """
    source = Simulated("test", count=count, size=size, seed=seed)
    if keep is not None and keep.is_file():
        chips: list[Sample] = torch.load(keep, weights_only=False)
        if [chip["meta"]["id"] for chip in chips] != source.manifest():
            raise FloraError(
                "holds other chips than those asked for",
                argument="keep",
                value=keep,
                remedy="name another file, or delete it",
            )
        return chips
    chips = [source[index] for index in range(count)]
    if keep is not None:
        write_whole(keep, lambda partial: torch.save(chips, partial))
    return chips


def chip_scores(prediction: Prediction, chip: Sample) -> Scores:
    """Scores of one chip; water IoU only where it has water enough."""
    scores = SplitScores("B4/B3/B2, stored value / 3000")
    scores.update(prediction.rgb, prediction.water, collate([chip]))
    found = scores.compute()
    if float((chip["water"] == WATER).float().mean()) < LEAST_WATER:
        found.pop("water_iou", None)
    return found


def paired(these: Sequence[Scores], those: Sequence[Scores]) -> dict[str, Any]:
    """Mean of each metric, and of its differences chip by chip, with 95 % intervals."""
    row: dict[str, Any] = {}
    for metric in METRICS:
        pairs = [(a[metric], b[metric]) for a, b in zip(these, those, strict=True) if metric in a]
        found = judge([a - b for a, b in pairs])
        row[metric] = {
            "mean": rounded(sum(a for a, _ in pairs) / len(pairs)),
            "difference": rounded(found.mean),
            "low": rounded(found.low),
            "high": rounded(found.high),
            "chips": found.count,
        }
    return row


def described(chips: Sequence[Sample], seed: int) -> Mapping[str, Any]:
    """What a record says of its chips."""
    side = chips[0]["sar"].shape[-1]
    return {
        "dataset": "simulated",
        "split": "test",
        "seed": seed,
        "scenes": len(chips),
        "size": side,
        "first": chips[0]["meta"]["id"],
        "last": chips[-1]["meta"]["id"],
        "least_water": LEAST_WATER,
    }


def rounded(value: float | None) -> float | None:
    """Five digits after the point, as records keep them."""
    return None if value is None else round(value, 5)
