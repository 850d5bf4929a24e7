"""Three fusions of one short training on simulated scenes, which `misalignment` compares.

All see the same scenes, as many steps, and crops of the same size; FLoRA's teacher comes before
that. Settings, names and folders are those of the experiment `fusion`, so that what
`flora experiment fusion --runs R` has trained is read from `R/fusion` and not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.experiments.makers import Job, MakeFlora, MakeLateFusion, Maker, MakeUNet, Setting
from flora.models.network import Flora
from flora.models.unet import LateFusion, UNet
from flora.models.weights import load_any
from flora.training.config import TrainingConfig
from flora.training.task import Task
from flora.training.tasks import UNetTask

TRAIN = {"split": "train", "count": 256, "size": 128}
TRAINING = TrainingConfig(steps=500, crop=64)
TEACHER_STEPS = 300
NARROW = (11, 22, 44, 88)  # channels: two such networks have as many parameters as the early one


@dataclass(frozen=True)
class NarrowLateFusion(MakeLateFusion):
    """Late fusion of the size of early fusion."""

    def task(self, job: Job) -> Task:
        """See `MakeLateFusion.task`."""
        optical, bands = (
            len(scaling.bands) for scaling in (job.chips.optical_scaling, job.chips.sar_scaling)
        )
        return UNetTask(LateFusion(bands, optical + 2, optical, self.sees, NARROW))


MAKERS: Mapping[str, Maker] = {
    "added": MakeFlora(config={"joining": "added", "detail": 0, "marked": False}),
    "early_before": MakeUNet(sees="before"),
    "early_oracle": MakeUNet(sees="oracle"),
    "late_narrow_before": NarrowLateFusion(sees="before"),
}


@cache
def scenes() -> InMemory:
    """The scenes that all are trained on."""
    return InMemory(Simulated(**TRAIN))  # type: ignore[arg-type]


def trained(name: str, runs: Path, seed: int = 0) -> Flora | UNet | LateFusion:
    """One of `MAKERS`, trained or read from its run."""
    job = Job(
        scenes(),
        replace(TRAINING, seed=seed),
        runs / f"{name}-{seed}",
        Setting(teacher_steps=TEACHER_STEPS),
        quiet=True,
    )
    return load_any(MAKERS[name].make(job).weights).eval()


def described_training() -> dict[str, Any]:
    """What a record says of these trainings."""
    steps = {"steps": TRAINING.steps, "batch": TRAINING.batch, "crop": TRAINING.crop}
    return {**TRAIN, **steps, "teacher_steps": TEACHER_STEPS}
