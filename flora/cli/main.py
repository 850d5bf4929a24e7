"""The command line: download, check, train, evaluate, search, map."""

from __future__ import annotations

import warnings
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from flora.cli.data import check, download_app
from flora.cli.experiment import experiment
from flora.cli.map import Device, map_
from flora.cli.runs import in_options
from flora.cli.search import BoxCommand, search
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.datasets.base import FloodDataset


class Group(TyperGroup):
    """Commands that turn a refused input into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with --debug the error keeps its traceback."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _WarningLines()
                return super().invoke(ctx)
        except FloraError as error:
            if ctx.params["debug"]:
                raise
            console = Console(stderr=True, soft_wrap=True)
            console.print(f"Error: {in_options(str(error))}", style="red", markup=False)
            raise typer.Exit(1) from error


class _WarningLines:
    """Shows a warning as one line, without the source that Python would show, and only once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        """Stand in for `warnings.showwarning`."""
        line = f"Warning: {in_options(str(message))}"
        if line not in self._said:
            self._said.add(line)
            console = Console(stderr=True, soft_wrap=True)
            console.print(line, style="yellow", markup=False)


app = typer.Typer(
    cls=Group,
    help="Flood water and an optical image from Sentinel-1 SAR.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(download_app, name="download")
app.command()(check)
app.command(cls=BoxCommand)(search)
app.command("map", cls=BoxCommand)(map_)
app.command()(experiment)


class DatasetName(StrEnum):
    """Datasets that the command line opens."""

    simulated = "simulated"
    sen1floods11 = "sen1floods11"
    sen1floods11_weak = "sen1floods11-weak"
    sen12ms = "sen12ms"
    deepflood = "deepflood"
    ombria = "ombria"
    sih1733 = "sih1733"


class Size(StrEnum):
    """Named model sizes."""

    tiny = "tiny"
    small = "small"
    paper = "paper"


class ModelName(StrEnum):
    """Models that can be trained."""

    flora = "flora"
    unet = "unet"


class ModeName(StrEnum):
    """Where the optical guidance comes from."""

    sar = "sar"
    before = "before"
    oracle = "oracle"


Dataset = Annotated[DatasetName, typer.Option(help="Dataset, in its publisher's layout.")]
Root = Annotated[Path | None, typer.Option(help="Folder of the dataset; `simulated` needs none.")]
Scenes = Annotated[
    int | None, typer.Option(min=1, help="Number of scenes; of the dataset `simulated` only.")
]
Option = Annotated[
    list[str],
    typer.Option(
        help="Further option of the dataset, NAME=VALUE, e.g. sar_dates=before,after or "
        "require_all=false; may be given several times."
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from flora import __version__

        typer.echo(f"flora {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Flood water and an optical image from Sentinel-1 SAR."""


@app.command()
def train(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted one continues.")],
    root: Root = None,
    scenes: Scenes = None,
    option: Option = [],  # noqa: B006 - typer reads the default and never changes it
    model: Annotated[ModelName, typer.Option(help="FLoRA, or the U-Net it is compared with.")] = (
        ModelName.flora
    ),
    size: Annotated[Size, typer.Option(help="Named size of FLoRA.")] = Size.small,
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    valid_split: Annotated[
        str, typer.Option(help="Split that chooses the best weights; empty keeps the last.")
    ] = "valid",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of the student.")] = 1500,
    teacher_steps: Annotated[
        int, typer.Option(min=0, help="Optimiser steps of the teacher before that.")
    ] = 300,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    crop: Annotated[int, typer.Option(min=16, help="Side of a crop, px.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and crops.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read crops.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, no or bf16.")] = "auto",
    cache: Annotated[
        bool, typer.Option(help="Keep chips in memory after their first reading.")
    ] = True,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Train FLoRA (teacher, then student) or a U-Net; writes OUT/weights.safetensors."""
    from flora.datasets.wrapped import InMemory
    from flora.files import write_whole
    from flora.training.fit import TrainingConfig
    from flora.training.recipes import config_for, train_flora, train_unet

    chips = _open(dataset, root, split, scenes, option)
    valid = None
    if valid_split:
        valid = _open(dataset, root, valid_split, scenes and max(8, scenes // 16), option)
    if cache:
        chips = InMemory(chips)
        valid = InMemory(valid) if valid is not None else None
    config = TrainingConfig(
        steps=steps,
        batch=batch,
        crop=crop,
        learning_rate=learning_rate,
        seed=seed,
        workers=workers,
        mixed_precision=precision,
    )
    other = {ModelName.flora: "unet", ModelName.unet: "student"}[model]
    if (out / other).exists():
        raise FloraError(f"--out {out} holds a run of the other model: choose another folder")
    if model is ModelName.unet:
        result = train_unet(chips, valid, config, out, quiet=quiet)
    else:
        teaching = replace(config, steps=teacher_steps) if teacher_steps else None
        shape = config_for(size, chips)
        result = train_flora(shape, chips, valid, teaching, config, out, quiet=quiet)
    weights = out / "weights.safetensors"
    write_whole(weights, lambda partial: partial.write_bytes(result.best.read_bytes()))
    chosen = "" if result.score is None else f" (validation mIoU {result.score:.3f})"
    Console().print(f"Weights: {weights}{chosen}", soft_wrap=True, highlight=False)


@app.command()
def evaluate(
    dataset: Dataset,
    root: Root = None,
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    scenes: Scenes = None,
    option: Option = [],  # noqa: B006 - typer reads the default and never changes it
    weights: Annotated[
        Path | None, typer.Option(help="Weights; default: those that come with the package.")
    ] = None,
    mode: Annotated[ModeName, typer.Option(help="Where the optical guidance comes from.")] = (
        ModeName.sar
    ),
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability that counts as water.")
    ] = 0.5,
    lpips: Annotated[
        Path | None, typer.Option(help="AlexNet weights (.npz) for LPIPS; without, no LPIPS.")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write all scores, per place too, to this file.")
    ] = None,
    device: Device = None,
) -> None:
    """Score weights on a split: one table for the split, one row a place."""
    import torch

    from flora.experiments.provenance import write_record
    from flora.models.checkpoints import shipped_weights
    from flora.models.predict import predictor
    from flora.models.weights import check_sensor, load_any
    from flora.training.evaluation import choose_device, evaluate
    from flora.training.metrics import load_lpips

    path = weights or shipped_weights()
    chips = _open(dataset, root, split, scenes, option)
    metadata = check_sensor(path, chips)
    network = load_any(path)
    place = choose_device(device)
    scores = evaluate(
        predictor(network, place),
        chips,
        mode.value,
        place,
        load_lpips(lpips).to(place) if lpips else None,
        threshold,
        torch.tensor(metadata["optical_mean"]),
    )
    title = f"{dataset.value} {split}, {metadata['model']}, mode {mode.value}"
    _print_scores(scores, title)
    if json_path:
        record = {
            "dataset": dataset.value,
            "split": split,
            "chips": len(chips),
            "citation": chips.citation,
            "data_sha256": chips.manifest_hash(),
            "mode": mode.value,
            "threshold": threshold,
            "weights": metadata,
            "scores": scores,
        }
        write_record(json_path, record)


def _open(
    dataset: DatasetName, root: Path | None, split: str, scenes: int | None, options: list[str]
) -> FloodDataset:
    from flora.datasets import open_dataset

    given = dict(_option(text) for text in options)
    if scenes is not None:
        given["count"] = scenes
    return open_dataset(dataset.value, root, split, **given)


def _option(text: str) -> tuple[str, Any]:
    """Name and value of NAME=VALUE: a truth value, a number, a list with commas, or text."""
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise FloraError(f"--option {text!r}: expected NAME=VALUE, e.g. require_all=false")
    if name in ("root", "split"):
        raise FloraError(f"--option {text}: use --{name}")
    if value in ("true", "false"):
        return name, value == "true"
    values = [int(part) if part.isdecimal() else part for part in value.split(",")]
    return name, tuple(values) if "," in value else values[0]


PLACE_SCORES = ("chips", "water_iou", "water_f1", "miou", "psnr", "ssim", "lpips")


def _print_scores(scores: dict[str, Any], title: str) -> None:
    """One score a line for the split, then one line a place with the main ones."""
    console = Console(highlight=False)
    whole = Table("score", "value", title=title, title_justify="left")
    for name, value in scores["all"].items():
        whole.add_row(name, _score_text(value))
    console.print(whole)
    names = [name for name in PLACE_SCORES if name in scores["all"]]
    places = Table("place", *names)
    for place, row in scores["places"].items():
        places.add_row(place, *(_score_text(row.get(name, "-")) for name in names))
    console.print(places)


def _score_text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Entry point of the `flora` command."""
    app()


if __name__ == "__main__":
    main()
