"""Whole trainings from a dataset to weights, as the command line and the experiments run them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from flora.datasets.base import FloodDataset
from flora.models.checkpoints import load_weights
from flora.models.network import Flora, FloraConfig, named_config
from flora.models.unet import UNet
from flora.training.fit import FitResult, TrainingConfig, fit
from flora.training.jitter import RadiometricJitter
from flora.training.losses import LossWeights
from flora.training.tasks import GuidanceMix, StudentTask, TeacherTask, UNetTask


def config_for(size: str, dataset: FloodDataset) -> FloraConfig:
    """A named size with the bands of a dataset.

    Example:
        >>> from flora import open_dataset
        >>> from flora.training.recipes import config_for
        >>> chips = open_dataset("simulated", None, "train", sar_dates=("before", "after"))
        >>> config_for("tiny", chips).sar_channels  # VV and VH of two dates
        4
    """
    return replace(
        named_config(size),
        sar_channels=len(dataset.sar_scaling.bands),
        optical_channels=len(dataset.optical_scaling.bands),
    )


def train_flora(
    config: FloraConfig,
    dataset: FloodDataset,
    valid: FloodDataset | None,
    teaching: TrainingConfig | None,
    training: TrainingConfig,
    folder: Path,
    loss: LossWeights | None = None,
    mix: GuidanceMix | None = None,
    quiet: bool = False,
    jitter: bool = False,
) -> FitResult:
    """Pre-train the teacher, freeze it, train the student; both continue where they were.

    Args:
        config: The model's shape.
        dataset: Chips to train on.
        valid: Chips that choose the best weights, or None.
        teaching: Length and schedule of the teacher; None leaves it at its random start.
        training: Length and schedule of the student.
        folder: Where the runs `teacher` and `student` go.
        loss: Weights of the loss terms.
        mix: Shares of the guidance modes.
        quiet: Hide the progress bars.
        jitter: Whether the student's SAR is changed by `RadiometricJitter`.

    Example:
        >>> from pathlib import Path
        >>> from flora import TrainingConfig, load_model, open_dataset, train_flora
        >>> from flora.training.recipes import config_for
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> short = TrainingConfig(steps=1, batch=1, crop=32)
        >>> config, folder = config_for("tiny", chips), Path("runs/tiny")
        >>> result = train_flora(config, chips, None, short, short, folder, quiet=True)
        >>> model = load_model(result.best)
    """
    torch.manual_seed(training.seed)
    model = Flora(config)
    if teaching is not None:
        taught = fit(TeacherTask(model, loss), dataset, teaching, folder / "teacher", quiet=quiet)
        load_weights(model, taught.last)
    task = StudentTask(model, loss, mix)
    student = RadiometricJitter(task) if jitter else task
    return fit(student, dataset, training, folder / "student", valid, quiet)


def train_unet(
    dataset: FloodDataset,
    valid: FloodDataset | None,
    training: TrainingConfig,
    folder: Path,
    quiet: bool = False,
) -> FitResult:
    """Train the plain U-Net on water alone; see `train_flora` for the arguments."""
    torch.manual_seed(training.seed)
    model = UNet(len(dataset.sar_scaling.bands))
    return fit(UNetTask(model), dataset, training, folder / "unet", valid, quiet)
