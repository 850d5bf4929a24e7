"""Whether an average of the weights over the last steps beats the weights of the last step.

    python benchmarks/averaging.py --record results/averaging.json

FLoRA, FLoRA without a teacher and the U-Net are trained on simulated scenes; of each training,
exponential averages of its weights (`torch.optim.swa_utils`) are kept beside, so that what is
compared differs in nothing else. Scored from SAR alone on scenes of the validation split, whose
pairs, chip by chip, give the intervals: they are over scenes, of one training each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.simulated_chips import chip_scores, paired
from flora.datasets.base import Batch, FloodDataset, collate
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.experiments.provenance import write_record
from flora.models.network import Flora
from flora.models.predict import predictor
from flora.models.unet import UNet
from flora.training.config import TrainingConfig
from flora.training.fit import fit
from flora.training.metrics import Scores
from flora.training.recipes import ONLY_SAR, UNDISTILLED, config_for
from flora.training.task import Task
from flora.training.tasks import StudentTask, TeacherTask, UNetTask

SCENES, TESTED, SIDE = 128, 48, 128
DECAYS = (0.99, 0.995, 0.998)  # averages of about the last 100, 200 and 500 steps
TAUGHT = 0.3  # steps of the teacher, as a share of the student's
COMPARED = ("no_teacher", "unet", "flora")


class Averages:
    """Averages of a model's weights, updated with every batch that is drawn for it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.of = {
            decay: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
            for decay in DECAYS
        }

    def __call__(self, batch: Batch) -> Batch:
        """The batch as it is: `fit` offers every batch for a change, once a step."""
        for average in self.of.values():
            average.update_parameters(self.model)
        return batch

    def __repr__(self) -> str:
        return f"Averages({DECAYS})"


def task_of(name: str, chips: FloodDataset, training: TrainingConfig, folder: Path) -> Task:
    """What is trained, FLoRA after its teacher."""
    torch.manual_seed(training.seed)
    if name == "unet":
        bands = len(chips.sar_scaling.bands), len(chips.optical_scaling.bands)
        return UNetTask(UNet(bands[0], optical_channels=bands[1], norm="layer"))
    model = Flora(config_for("tiny", chips))
    if name == "no_teacher":
        return StudentTask(model, UNDISTILLED, ONLY_SAR)
    teacher = replace(training, steps=round(TAUGHT * training.steps))
    fit(TeacherTask(model), chips, teacher, folder / "teacher", quiet=True)
    return StudentTask(model)


def scores(model: nn.Module, chips: FloodDataset) -> list[Scores]:
    """Scores of every chip, from SAR alone."""
    predict = predictor(model.eval())  # type: ignore[arg-type]
    found = []
    for index in range(len(chips)):
        chip = chips[index]
        batch = collate([chip])
        found.append(chip_scores(predict(batch["sar"], batch["sar_valid"], None), chip))
    return found


def compared(
    name: str, chips: FloodDataset, valid: FloodDataset, training: TrainingConfig, folder: Path
) -> dict[str, Any]:
    """Each average beside the weights of the last step."""
    task = task_of(name, chips, training, folder)
    averages = Averages(task.model)
    fit(task, chips, training, folder / "student", quiet=True, change=averages)
    for average in averages.of.values():
        average.update_parameters(task.model)  # the last step's
    last = scores(task.model, valid)
    rows = {"last": paired(last, last)}
    for decay, average in averages.of.items():
        rows[f"average_{decay:g}"] = paired(scores(average.module, valid), last)
    return rows


def main() -> None:
    """Train, compare, print, record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", choices=COMPARED, nargs="+", default=COMPARED)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    chips = InMemory(Simulated("train", count=SCENES, size=SIDE))
    valid = InMemory(Simulated("valid", count=TESTED, size=SIDE))
    training = TrainingConfig(steps=arguments.steps, crop=64, seed=arguments.seed)
    found: dict[str, Any] = {}
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:  # an average of half a run is of no use
            found[name] = compared(name, chips, valid, training, Path(folder))
        for which, row in found[name].items():
            iou = row["water_iou"]
            print(f"{name:<11} {which:<14} {iou['mean']:.3f} {iou['difference']:+.4f}", flush=True)
        if arguments.record:
            write_record(arguments.record, described(training, found))


def described(training: TrainingConfig, found: dict[str, Any]) -> dict[str, Any]:
    """The record."""
    return {
        "benchmark": "averaging",
        "question": "Does an average of the weights over the last steps beat the last ones?",
        "train": {"dataset": "simulated", "split": "train", "scenes": SCENES, "size": SIDE},
        "valid": {"dataset": "simulated", "split": "valid", "scenes": TESTED, "size": SIDE},
        "training": asdict(training),
        "teacher_steps": round(TAUGHT * training.steps),
        "intervals_over": "scenes",
        "found": found,
    }


if __name__ == "__main__":
    main()
