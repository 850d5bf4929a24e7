"""The command that adapts weights to pairs without labels: adapt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flora.cli.console import console
from flora.cli.options import ChipOptions, Confidence, LearningRate, Quiet, TrainingOptions, Weights
from flora.datasets import DatasetName
from flora.errors import FloraError, Given

if TYPE_CHECKING:
    from flora.datasets.base import FloodDataset
    from flora.models.network import Flora
    from flora.models.unet import UNet
    from flora.training.config import TrainingConfig
    from flora.training.teaching import Teacher


@dataclass(frozen=True)
class AdaptingOptions(TrainingOptions):
    """How weights are adapted."""

    teacher: Annotated[
        Literal["labels", "weights", "index"] | None,
        typer.Option(
            help="Who says what the optical images show: a network that learns it from the chips "
            "of --labelled, the teacher in the weights, or a water index of the image. Default: "
            "labels, where there are any, else weights."
        ),
    ] = None
    teacher_steps: Annotated[
        int,
        typer.Option(min=1, help="Optimiser steps of a teacher that learns from labels."),
    ] = 1500
    confidence: Confidence = 0.8
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 500
    learning_rate: LearningRate = 5e-4

    def teaching(self) -> TrainingConfig:
        """Length and schedule of a teacher that learns from labels, which starts at random."""
        rate = TrainingOptions.learning_rate
        return replace(self.config(), steps=self.teacher_steps, learning_rate=rate)


@dataclass(frozen=True)
class LabelledOptions:
    """Chips of other floods, with labels."""

    labelled: Annotated[
        Path | None,
        typer.Option(
            help="Folder of chips of other floods with labels. They take half of every batch, and "
            "a teacher may learn from them."
        ),
    ] = None
    labelled_dataset: Annotated[
        DatasetName | None,
        typer.Option(help="Their dataset; default: that of the pairs, with its options."),
    ] = None
    labelled_split: Annotated[str, typer.Option(help="Their split.")] = "train"
    rehearse: Annotated[
        int,
        typer.Option(
            min=0,
            help="Simulated scenes with labels that take half of every batch in place of "
            "--labelled, so that what the weights know is not forgotten; only for weights of "
            "Sentinel-1 in dB.",
        ),
    ] = 0

    def speaker(self, asked: str | None) -> str:
        """Who says what the images show.

        Raises:
            FloraError: If it is to learn from labels, and there are none.
        """
        if asked == "labels" and self.labelled is None:
            raise FloraError(
                "expected chips that it can learn from",
                argument="teacher",
                value=asked,
                remedy="name their folder by --labelled",
            )
        return asked or ("weights" if self.labelled is None else "labels")

    def open(self, pairs: ChipOptions) -> FloodDataset | None:
        """The chips, if there are any.

        Raises:
            FloraError: If two kinds are asked for, or they have no labels.
        """
        from flora.datasets.check import require_labels
        from flora.datasets.registry import open_dataset
        from flora.datasets.wrapped import InMemory

        if self.labelled is None:
            if self.labelled_dataset is not None:
                raise FloraError(
                    "there are no labelled chips that it could be of",
                    argument="labelled_dataset",
                    value=self.labelled_dataset,
                    remedy="name their folder by --labelled",
                )
            if not self.rehearse:
                return None
            return InMemory(open_dataset("simulated", None, "train", count=self.rehearse))
        if self.rehearse:
            raise FloraError(
                "the chips of --labelled take half of every batch already",
                argument="rehearse",
                value=str(self.rehearse),
                remedy="leave one of both out",
            )
        if self.labelled_dataset is None:
            chips = replace(pairs, root=self.labelled).open(self.labelled_split)
        else:
            chips = open_dataset(self.labelled_dataset, self.labelled, self.labelled_split)
        require_labels(chips)
        return InMemory(chips)


def adapt(
    chips: ChipOptions,
    adapting: AdaptingOptions,
    others: LabelledOptions,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted one continues.")],
    split: Annotated[
        str,
        typer.Option(help="Split of the pairs; `all` is there where chips are your own (folder)."),
    ] = "all",
    weights: Weights = None,
    quiet: Quiet = False,
) -> None:
    """Adapt weights to pairs of radar and optical images of a region or a flood, without labels.

    Writes OUT/weights.safetensors. Mapping with them needs radar alone.
    """
    from flora.datasets.wrapped import InMemory
    from flora.files import check_outputs, write_whole
    from flora.models.checkpoints import shipped_weights
    from flora.models.unet import LateFusion
    from flora.models.weights import check_sensor, load_any
    from flora.training import recipes

    path, target = weights or shipped_weights(), out / "weights.safetensors"
    check_outputs([Given("folder", target)], [Given("weights", path)])
    pairs = InMemory(chips.open(split))
    check_sensor(path, pairs)
    model = load_any(path)
    if isinstance(model, LateFusion):
        raise FloraError(
            "of a late fusion, which needs the optical image on every map",
            argument="weights",
            value=str(path),
            remedy="choose weights of FLoRA or of a U-Net",
        )
    labelled = others.open(chips)
    if labelled is not None:
        check_sensor(path, labelled)
    name = others.speaker(adapting.teacher)
    if labelled is None or name != "labels":
        teacher = _teacher(name, model, path, pairs)
    else:
        teacher = recipes.train_optical(
            labelled,
            out / "optical",
            training=adapting.teaching(),
            dates=recipes.dates_shown(labelled, pairs),
            quiet=quiet,
        ).teach
    result = recipes.adapt(
        model,
        pairs,
        out / "adapted",
        teacher=teacher,
        training=adapting.config(),
        confidence=adapting.confidence,
        labelled=labelled,
        quiet=quiet,
    )
    write_whole(target, lambda partial: partial.write_bytes(result.last.read_bytes()))
    console().print(f"Weights: {target}")


def _teacher(name: str, model: Flora | UNet, path: Path, pairs: FloodDataset) -> Teacher:
    """Who says what the optical images show.

    Raises:
        FloraError: If the weights have no teacher.
    """
    from flora.models.network import Flora
    from flora.models.weights import load_model
    from flora.training.teaching import IndexTeacher, flora_teacher

    if name == "index":
        return IndexTeacher(pairs.optical_scaling.index_name)
    if isinstance(model, Flora):
        return flora_teacher(load_model(path))  # a copy, which adapting does not change
    raise FloraError(
        "these weights have no optical teacher",
        argument="teacher",
        value=name,
        remedy="choose index",
    )
