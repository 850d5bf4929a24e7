"""How a competitor comes to its weights: what is built, and what it is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import nn

from flora.datasets.base import FloodDataset
from flora.datasets.unlabelled import Mixed, Unlabelled, drawn, of_place
from flora.errors import FloraError
from flora.models.checkpoints import load_weights
from flora.models.network import Flora
from flora.models.norms import Norm
from flora.models.unet import LateFusion, UNet
from flora.models.weights import load_any
from flora.predictors import Mode
from flora.training.config import BatchChange, TrainingConfig
from flora.training.fit import fit
from flora.training.objective import LossWeights
from flora.training.pix2pix import Pix2PixTask
from flora.training.recipes import (
    ONLY_SAR,
    UNDISTILLED,
    Lesson,
    adapt,
    config_for,
    fine_tune,
    taught_pairs,
    train,
    train_optical,
    with_pairs,
)
from flora.training.released import ReleasedTask, released_config
from flora.training.task import Task
from flora.training.tasks import GuidanceMix, UNetTask
from flora.training.teaching import Dates, IndexTeacher, Teacher, flora_teacher

# The training's learning rate is divided by this for adaptation.
ADAPTING_RATE = 4
# The release freezes its mask decoder for 3 of 1,000 epochs.
FROZEN_SHARE = 0.003


@dataclass(frozen=True)
class Setting:
    """What a training needs to know of its experiment.

    Attributes:
        size: Named size of FLoRA.
        teacher_steps: Steps of its teacher.
        norm: Its normalisation where nothing else is said.
        pairs: Chips whose labels are never looked at, to adapt to.
        perceptual: A module from `flora.training.metrics.load_lpips`, where its weights are there.
    """

    size: str = "tiny"
    teacher_steps: int = 300
    norm: Norm = "layer"
    pairs: FloodDataset | None = None
    perceptual: nn.Module | None = None


@dataclass(frozen=True)
class Job:
    """One training of an experiment.

    Attributes:
        chips: What is trained on.
        training: Length and schedule.
        folder: Where the run goes; an interrupted one is continued.
        setting: What else the experiment says.
        quiet: Hide the progress bars.
    """

    chips: FloodDataset
    training: TrainingConfig
    folder: Path
    setting: Setting = field(default_factory=Setting)
    quiet: bool = False


@dataclass(frozen=True)
class Made:
    """What a maker left.

    Attributes:
        weights: Weights of the last step.
        teacher: Who taught it, if anyone did; its own scores belong into the record.
        notes: What else should be recorded, as plain values.
    """

    weights: Path
    teacher: Teacher | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


class Maker(Protocol):
    """Something that trains."""

    kind: ClassVar[str]

    def make(self, job: Job) -> Made:
        """Train, or continue where it was."""
        ...


@dataclass(frozen=True)
class MakeFlora:
    """FLoRA: its teacher, then the student.

    Attributes:
        config: Changes to the configuration.
        loss: Changes to the weights of the student's loss terms.
        mix: Shares of the guidance modes in training.
        teacher: Whether teacher and decoders are pre-trained.
        change: A random change of the batches.
    """

    kind: ClassVar[str] = "flora"
    config: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, float] = field(default_factory=dict)
    mix: GuidanceMix = field(default_factory=GuidanceMix)
    teacher: bool = True
    change: BatchChange | None = None

    def make(self, job: Job) -> Made:
        """See `Maker.make`."""
        shape = replace(config_for(job.setting.size, job.chips), norm=job.setting.norm)
        config = replace(shape, **self.config)
        steps = job.setting.teacher_steps if self.teacher else 0
        result = train(
            config,
            job.chips,
            job.folder,
            student=job.training,
            teacher=replace(job.training, steps=steps) if steps else None,
            lesson=Lesson(replace(LossWeights(), **self.loss), self.mix, self.change),
            quiet=job.quiet,
        )
        if not steps:
            return Made(result.last)
        model = Flora(config)
        load_weights(model, job.folder / "teacher" / "last.safetensors")
        return Made(result.last, flora_teacher(model))


class _Baseline:
    """What is one task and one run."""

    change: BatchChange | None = None

    def task(self, job: Job) -> Task:
        raise NotImplementedError

    def make(self, job: Job) -> Made:
        """See `Maker.make`."""
        torch.manual_seed(job.training.seed)
        task = self.task(job)
        run = job.folder / "baseline"
        result = fit(task, job.chips, job.training, run, quiet=job.quiet, change=self.change)
        return Made(result.last)


@dataclass(frozen=True)
class MakeUNet(_Baseline):
    """A U-Net of SAR, or by early fusion of SAR and an optical image.

    Attributes:
        norm: See `flora.models.norms.Norm`.
        optical: Whether it also draws the optical image.
        sees: What stands beside SAR in its input.
        change: A random change of the batches.
    """

    kind: ClassVar[str] = "unet"
    norm: Norm = "batch"
    optical: bool = True
    sees: Mode = "sar"
    change: BatchChange | None = None

    def task(self, job: Job) -> Task:
        """The U-Net under all of FLoRA's losses but distillation."""
        optical = len(job.chips.optical_scaling.bands)
        model = UNet(
            len(job.chips.sar_scaling.bands),
            optical_channels=optical if self.optical else 0,
            sees=self.sees,
            guide_channels=0 if self.sees == "sar" else optical + 2,
            norm=self.norm,
        )
        return UNetTask(model, dates=job.chips.sar_scaling.dates)


@dataclass(frozen=True)
class MakeLateFusion(_Baseline):
    """Two U-Nets, of SAR and of an optical image, that meet at their heads."""

    kind: ClassVar[str] = "late"
    sees: Mode = "before"

    def task(self, job: Job) -> Task:
        """Both U-Nets under all of FLoRA's losses but distillation."""
        optical = len(job.chips.optical_scaling.bands)
        bands = len(job.chips.sar_scaling.bands)
        model = LateFusion(bands, optical + 2, optical, self.sees)
        return UNetTask(model, dates=job.chips.sar_scaling.dates)


@dataclass(frozen=True)
class MakePix2Pix(_Baseline):
    """The generator of pix2pix with a water head."""

    kind: ClassVar[str] = "pix2pix"

    def task(self, job: Job) -> Task:
        """Generator and discriminator."""
        optical = len(job.chips.optical_scaling.bands)
        model = UNet(len(job.chips.sar_scaling.bands), optical_channels=optical)
        return Pix2PixTask(model, optical)


@dataclass(frozen=True)
class ForSteps:
    """Train something for longer or shorter than the experiment says, and its teacher likewise.

    Attributes:
        learner: What is trained.
        steps: Steps of its training; the schedule of the learning rate ends with them.
        taught: Steps of its teacher, if not in proportion.
    """

    kind: ClassVar[str] = "for steps"
    learner: Maker
    steps: int
    taught: int | None = None

    def make(self, job: Job) -> Made:
        """See `Maker.make`."""
        taught = self.taught
        if taught is None:
            taught = round(job.setting.teacher_steps * self.steps / job.training.steps)
        setting = replace(job.setting, teacher_steps=taught)
        training = replace(job.training, steps=self.steps)
        made = self.learner.make(replace(job, training=training, setting=setting))
        steps = {"student": self.steps, "teacher": taught if made.teacher else 0}
        return replace(made, notes={**made.notes, "steps": steps})


@dataclass(frozen=True)
class MakeReleased:
    """The wiring of the paper's released code."""

    kind: ClassVar[str] = "released"

    def make(self, job: Job) -> Made:
        """See `Maker.make`."""
        torch.manual_seed(job.training.seed)
        model = Flora(released_config(config_for(job.setting.size, job.chips)))
        frozen = max(1, round(FROZEN_SHARE * job.training.steps))
        task = ReleasedTask(model, job.setting.perceptual, frozen)
        result = fit(task, job.chips, job.training, job.folder / "baseline", quiet=job.quiet)
        return Made(result.last, notes={"lpips_term": job.setting.perceptual is not None})


PairUse = Literal["none", "pairs", "output", "index"]
"""What unlabelled pairs are used for: not at all; for the image and the features alone; for water
too, as a teacher that learned from the labelled chips says; or as a water index says."""


@dataclass(frozen=True)
class FewLabels:
    """Train something on a few labelled chips, and on the others without their labels.

    Attributes:
        learner: What is trained.
        labels: How many chips keep their label, drawn by the seed of the training; 0 for none.
        word: What the unlabelled pairs are used for.
        confidence: See `flora.training.teaching.teach`.
        share: See `flora.datasets.unlabelled.Mixed`.
        dates: What the teacher looks at, see `flora.training.teaching.OpticalWater`.
    """

    kind: ClassVar[str] = "few labels"
    learner: MakeFlora | MakeUNet
    labels: int
    word: PairUse = "none"
    confidence: float = 0.8
    share: float = 0.5
    dates: Dates = "both"

    def make(self, job: Job) -> Made:
        """See `Maker.make`."""
        chips, training = job.chips, job.training
        labelled = drawn(chips, self.labels, training.seed) if self.labels else None
        teacher: Teacher | None = None
        seen: FloodDataset
        if self.word == "index":
            teacher = IndexTeacher(chips.optical_scaling.index_name, self.dates)
            pairs = taught_pairs(teacher, chips)
            seen = pairs if labelled is None else Mixed(labelled, pairs, self.share)
        elif labelled is None:
            raise FloraError("0 labels: only a water index can teach without any")
        elif self.word == "output":
            of = f"{labelled.manifest_hash()[:12]}-{self.dates}-{training.seed}"
            seen, model = with_pairs(
                labelled,
                chips,
                job.folder.parent / f"optical-{of}",  # of nothing else, so competitors share it
                training=training,
                dates=self.dates,
                confidence=self.confidence,
                share=self.share,
                quiet=job.quiet,
            )
            teacher = model.teach
        else:
            pairs = Unlabelled(chips)
            seen = labelled if self.word == "none" else Mixed(labelled, pairs, self.share)
        made = self.learner.make(replace(job, chips=seen))
        ids = [] if labelled is None else sorted(labelled.manifest())
        notes = {"labelled": len(ids), "labelled_ids": ids if len(ids) < len(chips) else "all"}
        return Made(made.weights, teacher or made.teacher, {**made.notes, **notes})


@dataclass(frozen=True)
class Adapted:
    """Train something on labelled chips, then adapt it to the pairs of the setting.

    Attributes:
        learner: What is trained first.
        steps: Steps of the adaptation.
        word: Who teaches: an optical network that learned from the labelled chips, or a water
            index; "none" trains as long on the labelled chips alone.
        dates: What the teacher looks at, see `flora.training.teaching.OpticalWater`.
        site: The place whose pairs alone are adapted to; None for all pairs at once.
    """

    kind: ClassVar[str] = "adapted"
    learner: MakeFlora | MakeUNet
    steps: int = 500
    word: Literal["output", "index", "none"] = "output"
    dates: Dates = "both"
    site: str | None = None

    def make(self, job: Job) -> Made:
        """See `Maker.make`."""
        chips, training, pairs = job.chips, job.training, job.setting.pairs
        if pairs is None:
            raise FloraError("an adapted competitor needs an experiment with pairs to adapt to")
        if self.site is not None:
            pairs = of_place(pairs, self.site)
        shared = job.folder.parent  # for all competitors that begin alike
        base = self.learner.make(replace(job, folder=shared / f"base-{training.seed}"))
        model = load_any(base.weights)
        if isinstance(model, LateFusion):
            raise FloraError("late fusion needs the optical image itself: nothing to adapt")
        further = replace(
            training, steps=self.steps, learning_rate=training.learning_rate / ADAPTING_RATE
        )
        run = job.folder / "adapted"
        if self.word == "none":
            lesson = Lesson(UNDISTILLED, ONLY_SAR)
            tuned = fine_tune(model, chips, run, training=further, lesson=lesson, quiet=job.quiet)
            return Made(tuned.last)
        teacher = self._teacher(job)
        result = adapt(
            model,
            pairs,
            run,
            teacher=teacher,
            training=further,
            labelled=chips,
            quiet=job.quiet,
        )
        notes: dict[str, Any] = {"adapted_to": sorted(pairs.manifest())}
        if self.site is not None:
            notes["site"] = self.site
        return Made(result.last, teacher, notes)

    def _teacher(self, job: Job) -> Teacher:
        """Who teaches; an optical network is trained once for all competitors beside it."""
        chips, training = job.chips, job.training
        if self.word == "index":
            return IndexTeacher(chips.optical_scaling.index_name, self.dates)
        run = job.folder.parent / f"optical-all-{self.dates}-{training.seed}"
        optical = train_optical(chips, run, training=training, dates=self.dates, quiet=job.quiet)
        return optical.teach
