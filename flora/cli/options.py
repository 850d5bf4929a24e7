"""Options that several commands share, and options that travel together as one object."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption

from flora.datasets import DatasetName
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.datasets.base import FloodDataset
    from flora.training.config import TrainingConfig

Confidence = Annotated[
    float, typer.Option(min=0.5, max=1.0, help="Probability from which the teacher is heard.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: a GPU if there is one.")
]
LearningRate = Annotated[float, typer.Option(help="Peak learning rate.")]
Lpips = Annotated[
    Path | None, typer.Option(help="AlexNet weights (.npz) for LPIPS; without, no LPIPS.")
]
Quiet = Annotated[bool, typer.Option(help="No progress bar.")]
Threshold = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Probability that counts as water.")
]
Weights = Annotated[
    Path | None, typer.Option(help="Weights; default: those that come with the package.")
]


class OnceCommand(TyperCommand):
    """A command that refuses a value given twice for one option: all but the last would be lost."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Look for options given twice, then parse as ever."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        options = [one for one in given if isinstance(one, TyperOption)]
        for number, option in enumerate(options):
            again = option in options[:number] and not (option.multiple or option.is_flag)
            if again and not ctx.resilient_parsing:  # as when a shell completes the line
                raise FloraError(f"{option.opts[-1]}: given twice, expected once; leave one out")
        return super().parse_args(ctx, args)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer, made of one that takes some of its options as dataclasses.

    Each field of such a dataclass is an option of its own, declared by its annotation and default.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {k: v for k, v in hints.items() if dataclasses.is_dataclass(v)}

    def options() -> Iterator[inspect.Parameter]:
        for name, parameter in inspect.signature(command).parameters.items():
            if name not in groups:
                kind = inspect.Parameter.KEYWORD_ONLY
                yield parameter.replace(kind=kind, annotation=hints[name])
                continue
            annotations = get_type_hints(groups[name], include_extras=True)
            for field in dataclasses.fields(groups[name]):
                needed = field.default is dataclasses.MISSING
                yield inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if needed else field.default,
                    annotation=annotations[field.name],
                )

    def called(**given: Any) -> None:
        for name, kind in groups.items():
            values = {field.name: given.pop(field.name) for field in dataclasses.fields(kind)}
            given[name] = kind(**values)
        command(**given)

    called.__doc__, called.__name__ = command.__doc__, command.__name__
    called.__signature__ = inspect.Signature(list(options()))  # type: ignore[attr-defined]
    called.__annotations__ = {}  # typer takes those of the signature
    return called


@dataclass(frozen=True)
class ChipOptions:
    """A dataset that a command reads."""

    dataset: Annotated[DatasetName, typer.Option(help="Dataset, in its publisher's layout.")]
    root: Annotated[
        Path | None, typer.Option(help="Folder of the dataset; `simulated` needs none.")
    ] = None
    scenes: Annotated[
        int | None, typer.Option(min=1, help="Number of scenes; of the dataset `simulated` only.")
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Further option of the dataset, NAME=VALUE, e.g. sar_dates=before,after or "
            "require_all=false; may be given several times."
        ),
    ] = None

    def open(self, split: str, share: int = 1) -> FloodDataset:
        """Open a split.

        Args:
            split: Its name.
            share: `scenes` is divided by it, to no fewer than eight.

        Raises:
            FloraError: If an option or the dataset is refused.
        """
        from flora.datasets import open_dataset

        given = dict(_name_and_value(text) for text in self.option or ())
        if self.scenes is not None:
            given["count"] = self.scenes if share == 1 else max(8, self.scenes // share)
        return open_dataset(self.dataset, self.root, split, **given)


def _name_and_value(text: str) -> tuple[str, Any]:
    """Of NAME=VALUE: a truth value, a number, a list with commas, or text."""
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise FloraError(f"--option {text!r}: expected NAME=VALUE, e.g. require_all=false")
    if name in ("root", "split"):
        raise FloraError(f"--option {text}: use --{name}")
    if value in ("true", "false"):
        return name, value == "true"
    values = [int(part) if part.isdecimal() else part for part in value.split(",")]
    return name, tuple(values) if "," in value else values[0]


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how something is trained."""

    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1500
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8
    crop: Annotated[int, typer.Option(min=16, help="Side of a crop, px.")] = 128
    learning_rate: LearningRate = 2e-3
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights and of crops.")] = 0

    def config(self) -> TrainingConfig:
        """The same, for the library."""
        from flora.training.config import TrainingConfig

        return TrainingConfig(
            steps=self.steps,
            batch=self.batch,
            crop=self.crop,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
