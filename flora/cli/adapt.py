"""The command that adapts weights to pairs without labels: adapt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flora.cli.console import console
from flora.cli.options import ChipOptions, Confidence, LearningRate, Quiet, TrainingOptions, Weights
from flora.errors import FloraError, Given

if TYPE_CHECKING:
    from flora.datasets.base import FloodDataset
    from flora.models.network import Flora
    from flora.models.unet import UNet
    from flora.training.teaching import Teacher


@dataclass(frozen=True)
class AdaptingOptions(TrainingOptions):
    """How weights are adapted."""

    teacher: Annotated[
        Literal["weights", "index"],
        typer.Option(
            help="Who says what the optical images show: the teacher in the weights, or a water "
            "index of the image."
        ),
    ] = "weights"
    confidence: Confidence = 0.8
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 500
    learning_rate: LearningRate = 5e-4


def adapt(
    chips: ChipOptions,
    adapting: AdaptingOptions,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted one continues.")],
    split: Annotated[str, typer.Option(help="Split of the pairs.")] = "all",
    weights: Weights = None,
    rehearse: Annotated[
        int,
        typer.Option(
            min=0,
            help="Simulated scenes with labels that take half of every batch, so that what the "
            "weights know is not forgotten; only for weights of Sentinel-1 in dB.",
        ),
    ] = 0,
    quiet: Quiet = False,
) -> None:
    """Adapt weights to pairs of radar and optical images of a region or a flood, without labels.

    Writes OUT/weights.safetensors. Mapping with them needs radar alone.
    """
    from flora.datasets.registry import open_dataset
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
    teacher = _teacher(adapting.teacher, model, path, pairs)
    result = recipes.adapt(
        model,
        pairs,
        out / "adapted",
        teacher=teacher,
        training=adapting.config(),
        confidence=adapting.confidence,
        labelled=InMemory(open_dataset("simulated", None, "train", count=rehearse))
        if rehearse
        else None,
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
