"""Whole trainings from a dataset to weights, as the command line and the experiments run them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from flora.datasets.base import FloodDataset
from flora.datasets.unlabelled import Mixed, Unlabelled
from flora.errors import FloraError
from flora.models.checkpoints import load_weights
from flora.models.config import FloraConfig, named_config
from flora.models.network import Flora
from flora.models.unet import UNet
from flora.training.config import BatchChange, TrainingConfig
from flora.training.fit import FitResult, fit
from flora.training.objective import LossWeights
from flora.training.task import Task
from flora.training.tasks import GuidanceMix, StudentTask, TeacherTask, UNetTask
from flora.training.teaching import Dates, OpticalWater, OpticalWaterTask, Teacher, teach

UNDISTILLED = LossWeights(distill_fused=0.0, distill_prior=0.0)
ONLY_SAR = GuidanceMix(sar=1.0, before=0.0, oracle=0.0)


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


@dataclass(frozen=True)
class Lesson:
    """How the student is taught.

    Attributes:
        loss: Weights of its loss terms; the teacher always has the defaults.
        mix: Shares of the guidance modes.
        change: A random change of its batches, see `flora.training.config.BatchChange`.
    """

    loss: LossWeights = field(default_factory=LossWeights)
    mix: GuidanceMix = field(default_factory=GuidanceMix)
    change: BatchChange | None = None


def train(
    config: FloraConfig,
    chips: FloodDataset,
    folder: Path,
    *,
    student: TrainingConfig,
    teacher: TrainingConfig | None = None,
    valid: FloodDataset | None = None,
    lesson: Lesson | None = None,
    quiet: bool = False,
) -> FitResult:
    """Pre-train the teacher, freeze it, train the student; both continue where they were.

    Args:
        config: The model's shape.
        chips: Chips to train on; some may be without labels, see
            `flora.datasets.unlabelled.Unlabelled`.
        folder: Where the runs `teacher` and `student` go.
        student: Length and schedule of the student.
        teacher: Length and schedule of the teacher, which learns with it the decoders; None leaves
            both at their random start.
        valid: Chips that choose the best weights, or None.
        lesson: How the student is taught, see `flora.training.Lesson`; the defaults if None.
        quiet: Hide the progress bars.

    Example:
        >>> from pathlib import Path
        >>> from flora import TrainingConfig, load_model, open_dataset, train
        >>> from flora.training.recipes import config_for
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> short = TrainingConfig(steps=1, batch=1, crop=32)
        >>> config, folder = config_for("tiny", chips), Path("runs/tiny")
        >>> result = train(config, chips, folder, teacher=short, student=short, quiet=True)
        >>> model = load_model(result.best)
    """
    torch.manual_seed(student.seed)
    model = Flora(config)
    if teacher is not None:
        taught = fit(TeacherTask(model), chips, teacher, folder / "teacher", quiet=quiet)
        load_weights(model, taught.last)
    lesson = lesson or Lesson()
    task = StudentTask(model, lesson.loss, lesson.mix, chips.sar_scaling.dates)
    return fit(task, chips, student, folder / "student", valid, quiet, lesson.change)


def train_unet(
    chips: FloodDataset,
    folder: Path,
    *,
    training: TrainingConfig,
    valid: FloodDataset | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train the plain U-Net on water alone; see `train` for the arguments."""
    torch.manual_seed(training.seed)
    task = UNetTask(UNet(len(chips.sar_scaling.bands)), dates=chips.sar_scaling.dates)
    return fit(task, chips, training, folder / "unet", valid, quiet)


def train_optical(
    labelled: FloodDataset,
    folder: Path,
    *,
    training: TrainingConfig,
    dates: Dates,
    quiet: bool = False,
) -> OpticalWater:
    """Train a network that sees water in the optical image; see `with_pairs` for the arguments."""
    torch.manual_seed(training.seed)
    model = OpticalWater(len(labelled.optical_scaling.bands), dates)
    taught = fit(OpticalWaterTask(model), labelled, training, folder, quiet=quiet)
    load_weights(model, taught.last)
    return model


def dates_shown(labelled: FloodDataset, pairs: FloodDataset) -> Dates:
    """What an optical teacher can look at: both dates, where the first chip of each has both."""
    return "both" if "before" in labelled[0] and "before" in pairs[0] else "after"


def with_pairs(
    labelled: FloodDataset,
    pairs: FloodDataset,
    folder: Path,
    *,
    training: TrainingConfig,
    dates: Dates,
    confidence: float = 0.8,
    share: float = 0.5,
    quiet: bool = False,
) -> tuple[Mixed, OpticalWater]:
    """Train an optical teacher on labelled chips, and let it map pairs without labels.

    Args:
        labelled: Chips with labels and optical images.
        pairs: Chips whose labels, if any, are not looked at.
        folder: Where the teacher's run goes.
        training: Length and schedule of the teacher.
        dates: What it looks at, see `flora.training.teaching.OpticalWater`.
        confidence: See `flora.training.teaching.teach`.
        share: Share of the pairs in training, see `flora.datasets.unlabelled.Mixed`.
        quiet: Hide the progress bar.

    Returns:
        Chips to train on, and the teacher.

    Raises:
        FloraError: If the teacher is sure of nothing on all pairs.

    Example:
        >>> from pathlib import Path
        >>> from flora import TrainingConfig, open_dataset
        >>> from flora.datasets import drawn
        >>> from flora.training.recipes import with_pairs
        >>> chips = open_dataset("simulated", None, "train", count=4, size=64)
        >>> short = TrainingConfig(steps=1, batch=1, crop=32)
        >>> run = Path("runs/optical")
        >>> mixed, teacher = with_pairs(
        ...     drawn(chips, 1, seed=0),
        ...     chips,
        ...     run,
        ...     training=short,
        ...     dates="after",
        ...     confidence=0.5,
        ...     quiet=True,
        ... )
        >>> len(mixed)  # the labelled chip four times, and the four pairs
        8
    """
    model = train_optical(labelled, folder, training=training, dates=dates, quiet=quiet)
    return Mixed(labelled, taught_pairs(model.teach, pairs, confidence), share), model


def taught_pairs(teacher: Teacher, pairs: FloodDataset, confidence: float = 0.8) -> Unlabelled:
    """Pairs with a teacher's maps in place of their labels.

    Args:
        teacher: Who is asked, see `flora.training.teaching.teach`.
        pairs: The chips.
        confidence: See `flora.training.teaching.teach`.

    Raises:
        FloraError: If the teacher is sure of nothing on all pairs.
    """
    heard = teach(teacher, pairs, confidence)
    if not any(bool(words.isfinite().any()) for words in heard):
        raise FloraError(
            f"{pairs.name}: the teacher is sure of no pixel of {len(pairs)} pairs (cloud, or no "
            "optical image): choose clearer pairs or a lower confidence"
        )
    return Unlabelled(pairs, heard)


def adapt(
    model: Flora | UNet,
    pairs: FloodDataset,
    folder: Path,
    *,
    teacher: Teacher,
    training: TrainingConfig,
    confidence: float = 0.8,
    labelled: FloodDataset | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train weights further on pairs of radar and optical images without labels.

    The teacher says what the optical images show of water, and the model learns to say so from
    radar alone. Labels of the pairs, if there are any, are not looked at.

    Args:
        model: The weights to begin with; changed in place.
        pairs: Chips of the region or the flood to adapt to.
        folder: Where the run goes.
        teacher: Who says what is water, see `flora.training.teaching.teach`.
        training: Length and schedule; `flora adapt` takes a quarter of the usual learning rate,
            which keeps what was learned.
        confidence: See `flora.training.teaching.teach`.
        labelled: Chips with labels that take half of every batch, so that what they teach is not
            forgotten; None trains on the pairs alone.
        quiet: Hide the progress bar.

    Raises:
        FloraError: If the teacher is sure of nothing on all pairs.

    Example:
        >>> from pathlib import Path
        >>> from flora import TrainingConfig, load_model, open_dataset
        >>> from flora.training.recipes import adapt
        >>> from flora.training.teaching import flora_teacher
        >>> pairs = open_dataset("simulated", None, "test", count=2, size=64)
        >>> short = TrainingConfig(steps=1, batch=1, crop=32)
        >>> run = Path("runs/adapted")
        >>> model = load_model()
        >>> teacher = flora_teacher(load_model())
        >>> result = adapt(model, pairs, run, teacher=teacher, training=short, quiet=True)
        >>> result.last.name
        'last.safetensors'
    """
    unlabelled = taught_pairs(teacher, pairs, confidence)
    seen = unlabelled if labelled is None else Mixed(labelled, unlabelled)
    lesson = Lesson(UNDISTILLED, ONLY_SAR)
    return fine_tune(model, seen, folder, training=training, lesson=lesson, quiet=quiet)


def fine_tune(
    model: Flora | UNet,
    chips: FloodDataset,
    folder: Path,
    *,
    training: TrainingConfig,
    valid: FloodDataset | None = None,
    lesson: Lesson | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train weights further on labelled chips.

    Args:
        model: The weights to begin with; changed in place. FLoRA's teacher stays as it is.
        chips: Chips to train on. `flora.datasets.unlabelled.Mixed` adds others that rehearse what
            the weights know already.
        folder: Where the run goes.
        training: Length and schedule; a quarter of the usual learning rate keeps what was learned.
        valid: Chips that choose the best weights, or None.
        lesson: How FLoRA is taught; the defaults if None. A U-Net learns water alone.
        quiet: Hide the progress bar.

    Example:
        >>> from pathlib import Path
        >>> from flora import TrainingConfig, load_model, open_dataset
        >>> from flora.training.recipes import fine_tune
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> short = TrainingConfig(steps=1, batch=1, crop=32, learning_rate=5e-4)
        >>> result = fine_tune(load_model(), chips, Path("runs/tuned"), training=short, quiet=True)
        >>> tuned = load_model(result.best)
    """
    lesson = lesson or Lesson()
    torch.manual_seed(training.seed)
    dates = chips.sar_scaling.dates
    task: Task
    if isinstance(model, Flora):
        task = StudentTask(model, lesson.loss, lesson.mix, dates)
    else:
        task = UNetTask(model, dates=dates)
    return fit(task, chips, training, folder, valid, quiet, lesson.change)
