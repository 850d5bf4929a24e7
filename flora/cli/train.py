"""The command that trains a model: train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flora.cli.console import console
from flora.cli.options import ChipOptions, Confidence, Quiet, TrainingOptions
from flora.errors import FloraError, Given

if TYPE_CHECKING:
    from flora.datasets.base import FloodDataset
    from flora.training.config import TrainingConfig


@dataclass(frozen=True)
class NetworkOptions:
    """What is trained."""

    model: Annotated[
        Literal["flora", "unet"],
        typer.Option(help="FLoRA, or the U-Net it is compared with."),
    ] = "flora"
    size: Annotated[
        Literal["tiny", "small", "paper"], typer.Option(help="Named size of FLoRA.")
    ] = "small"


@dataclass(frozen=True)
class ScheduleOptions(TrainingOptions):
    """How long and how it is trained: the student, and its teacher before that."""

    teacher_steps: Annotated[
        int,
        typer.Option(min=0, help="Optimiser steps of the teacher, before those of the student."),
    ] = 300
    workers: Annotated[int, typer.Option(min=0, help="Processes that read crops.")] = 0
    precision: Annotated[str, typer.Option(help="auto, no (32 bits) or bf16.")] = "auto"

    def config(self) -> TrainingConfig:
        """The same for the student."""
        return replace(super().config(), workers=self.workers, mixed_precision=self.precision)


@dataclass(frozen=True)
class PairOptions:
    """Chips without labels, for which a teacher maps the water instead."""

    unlabelled: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pairs of radar and optical images without labels, named as the dataset "
            "`folder` has them: an optical teacher learns from the labelled chips, and says what "
            "these show."
        ),
    ] = None
    labels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Keep the labels of so many chips, drawn by --seed; the others are pairs."
        ),
    ] = None
    confidence: Confidence = 0.8

    def mixed(
        self, seen: FloodDataset, out: Path, config: TrainingConfig, quiet: bool
    ) -> FloodDataset:
        """The chips with the pairs, where there are any.

        Raises:
            FloraError: If the pairs are of another sensor, or show the teacher nothing.
        """
        from flora.datasets.registry import open_dataset
        from flora.datasets.unlabelled import drawn
        from flora.datasets.wrapped import InMemory
        from flora.training.recipes import dates_shown, with_pairs

        if self.unlabelled is None and self.labels is None:
            return seen
        if self.unlabelled is not None and self.labels is not None:
            raise FloraError(
                "the pairs of --unlabelled are without labels already",
                argument="labels",
                value=str(self.labels),
                remedy="leave one of both out",
            )
        labelled, pairs = seen, seen
        if self.labels is not None:
            labelled = drawn(seen, self.labels, config.seed)
        else:
            pairs = InMemory(open_dataset("folder", self.unlabelled, "all"))
        mixed, _ = with_pairs(
            labelled,
            pairs,
            out / "optical",
            training=config,
            dates=dates_shown(labelled, pairs),
            confidence=self.confidence,
            quiet=quiet,
        )
        return mixed


def train(
    chips: ChipOptions,
    network: NetworkOptions,
    schedule: ScheduleOptions,
    pairs: PairOptions,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted one continues.")],
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    valid_split: Annotated[
        str, typer.Option(help="Split that chooses the best weights; empty keeps the last.")
    ] = "valid",
    cache: Annotated[
        bool, typer.Option(help="Keep chips in memory after their first reading.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Train FLoRA (teacher, then student) or a U-Net; writes OUT/weights.safetensors."""
    from flora.datasets.check import require_labels
    from flora.datasets.wrapped import InMemory
    from flora.files import check_outputs, write_whole
    from flora.training.recipes import config_for, train_unet
    from flora.training.recipes import train as train_flora

    weights = out / "weights.safetensors"
    check_outputs([Given("folder", weights)], [])
    seen = chips.open(split)
    valid = chips.open(valid_split, share=16) if valid_split else None
    if cache:
        seen = InMemory(seen)
        valid = InMemory(valid) if valid is not None else None
    require_labels(seen)
    config = schedule.config()
    seen = pairs.mixed(seen, out, config, quiet)
    other = {"flora": "unet", "unet": "student"}[network.model]
    if (out / other).exists():
        raise FloraError(f"--out {out} holds a run of the other model: choose another folder")
    if network.model == "unet":
        result = train_unet(seen, out, training=config, valid=valid, quiet=quiet)
    else:
        taught = schedule.teacher_steps
        teaching = replace(config, steps=taught) if taught else None
        shape = config_for(network.size, seen)
        result = train_flora(
            shape, seen, out, student=config, teacher=teaching, valid=valid, quiet=quiet
        )
    write_whole(weights, lambda partial: partial.write_bytes(result.best.read_bytes()))
    chosen = "" if result.score is None else f" (validation mIoU {result.score:.3f})"
    console().print(f"Weights: {weights}{chosen}")
