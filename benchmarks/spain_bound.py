"""What can be read from the radar image of the one real Sen1Floods11 chip at hand, "Spain".

    FLORA_DATA=my-data python benchmarks/spain_bound.py --record results/spain_bound.json

Three looks, none of which is a result, since all but the first use the chip's own label:

- the shipped weights (mode `sar`) at other thresholds, and with the whole image made brighter or
  darker by some dB: is the network at fault for its threshold, or for an absolute level?
- the best threshold there is on VV, VH or their sum, after median filters: how good can the map
  be that one number per chip makes?
- a U-Net trained on one half of the chip and tested on the other: how much does a network learn
  here that has seen this flood, this day and this labeller?
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from flora.datasets import open_dataset
from flora.datasets.base import FloodDataset, Sample, Window, collate, crop_sample
from flora.datasets.changes import Changed
from flora.experiments.provenance import write_record
from flora.models.predict import predictor
from flora.models.unet import UNet
from flora.models.weights import load_any, load_model
from flora.training.config import TrainingConfig
from flora.training.evaluation import answer, evaluate
from flora.training.fit import fit
from flora.training.tasks import UNetTask

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
OFFSETS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
WINDOWS = (1, 5, 9, 13)
TRAINING = TrainingConfig(steps=400, crop=96, learning_rate=1e-3)

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Half(Changed):
    """The western or the eastern half of every chip."""

    def __init__(self, dataset: FloodDataset, name: str) -> None:
        super().__init__(dataset)
        self.change = name  # type: ignore[misc]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        rows, columns = self.dataset.shape(index)
        return rows, columns // 2

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        rows, columns = self.shape(index)
        column = 0 if self.change == "west" else columns
        half = self.dataset.read(index, Window(0, column, rows, columns))
        return half if window is None else crop_sample(half, window)


def iou(found: Mask, water: Mask) -> float:
    """Intersection over union of two masks of the labelled pixels."""
    return float((found & water).sum() / (found | water).sum())


def network(chips: FloodDataset) -> dict[str, dict[str, float]]:
    """The shipped weights at other thresholds and other brightness."""
    predict = predictor(load_model())
    sample = chips[0]
    labelled = (sample["water"] != 255).numpy()
    water = (sample["water"] == 1).numpy()[labelled]
    decibels = chips.sar_scaling.restore(sample["sar"].numpy())
    maps = {}
    for offset in OFFSETS:
        shifted = chips.sar_scaling.normalise(decibels + offset, sample["sar_valid"].numpy())
        batch = collate([Sample(**{**sample, "sar": torch.from_numpy(shifted)})])
        with torch.inference_mode():
            maps[offset] = answer(predict, batch).water[0, 0].numpy()[labelled]
    return {
        "water_iou_at_threshold": {str(t): iou(maps[0.0] >= t, water) for t in THRESHOLDS},
        "water_iou_at_offset_db": {str(o): iou(maps[o] >= 0.5, water) for o in OFFSETS},
    }


def thresholds(chips: FloodDataset) -> list[dict[str, float | str]]:
    """The best threshold of each band and filter, chosen on the label."""
    sample = chips[0]
    labelled = ((sample["water"] != 255) & sample["sar_valid"]).numpy()
    water = (sample["water"] == 1).numpy()[labelled]
    vv, vh = chips.sar_scaling.restore(sample["sar"].numpy()).astype(np.float64)
    rows: list[dict[str, float | str]] = []
    for band, values in (("VV", vv), ("VH", vh), ("VV + VH", vv + vh)):
        for window in WINDOWS:
            smooth = median_filter(values, window)[labelled]
            tried = np.arange(*np.percentile(smooth, [1, 99]), 0.1)
            scores = [iou(smooth < threshold, water) for threshold in tried]
            best = int(np.argmax(scores))
            row = {"band": band, "median_px": window, "threshold_db": round(float(tried[best]), 1)}
            rows.append(row | {"water_iou": scores[best]})
    return rows


def other_half(chips: FloodDataset) -> dict[str, dict[str, float]]:
    """Water IoU on each half: a U-Net trained on the other half, and the shipped weights."""
    halves = {name: Half(chips, name) for name in ("west", "east")}
    shipped = predictor(load_model())
    scores: dict[str, dict[str, float]] = {}
    for tested, trained in (("west", "east"), ("east", "west")):
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(TRAINING.seed)
            task = UNetTask(UNet(2, norm="group"))
            weights = fit(task, halves[trained], TRAINING, Path(folder), quiet=True).last
            learnt = predictor(load_any(weights))
        scores[tested] = {
            name: evaluate(predict, halves[tested])["all"]["water_iou"]
            for name, predict in (("trained_on_other_half", learnt), ("shipped", shipped))
        }
    return scores


def main() -> None:
    """Look, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, help="write the figures as JSON to this file")
    arguments = parser.parse_args()
    root = Path(os.environ["FLORA_DATA"]) / "sen1floods11"
    chips = open_dataset("sen1floods11", root, "test", require_all=False)
    record = {
        "benchmark": "spain_bound",
        "chip": chips.manifest(),
        "data_sha256": chips.manifest_hash(),
        "citation": chips.citation,
        "shipped": network(chips),
        "best_threshold_on_the_label": thresholds(chips),
        "other_half": other_half(chips),
        "other_half_training": {"steps": TRAINING.steps, "crop": TRAINING.crop},
    }
    for key in ("shipped", "best_threshold_on_the_label", "other_half"):
        print(key, record[key], sep="\n  ")
    if arguments.record:
        write_record(arguments.record, record)


if __name__ == "__main__":
    main()
