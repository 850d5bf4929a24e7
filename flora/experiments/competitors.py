"""What is compared in an experiment: how each competitor sees, learns and is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from flora.datasets.base import FloodDataset
from flora.datasets.changes import CHANGES, Misaligned
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.models.layers import Norm
from flora.models.network import Flora
from flora.models.otsu import otsu, otsu_change
from flora.models.unet import LateFusion, UNet
from flora.predictors import Mode, Predictor
from flora.training.fit import TrainingConfig, fit
from flora.training.jitter import RadiometricJitter
from flora.training.losses import LossWeights
from flora.training.pix2pix import Pix2PixTask
from flora.training.recipes import config_for, train_flora
from flora.training.released import ReleasedTask, released_config
from flora.training.tasks import GuidanceMix, UNetTask

Kind = Literal[
    "flora",
    "released",
    "unet",
    "unet water",
    "pix2pix",
    "early",
    "late",
    "otsu",
    "otsu change",
]


class Setting(Protocol):
    """What a training needs to know of its experiment."""

    @property
    def size(self) -> str: ...  # noqa: D102

    @property
    def teacher_steps(self) -> int: ...  # noqa: D102

    @property
    def norm(self) -> Norm: ...  # noqa: D102


@dataclass(frozen=True)
class Competitor:
    """One line of a comparison.

    Attributes:
        says: What it is, for tables.
        kind: What is trained.
        group: Heading under which it stands: "FLoRA", "baseline", "ablation", "release".
        modes: Guidance modes it is scored in; a baseline has the one it sees.
        config: Changes to FLoRA's configuration.
        loss: Changes to the weights of the loss terms.
        mix: Shares of the guidance modes in training.
        teacher: Whether the teacher is pre-trained.
        options: Further options of the datasets, e.g. `sar_dates`.
        change: Name of a change to the chips, see `flora.datasets.changes.CHANGES`.
        jitter: Whether SAR is changed by `RadiometricJitter` in training.
        norm: Normalisation of a U-Net, alone or in early fusion; see `flora.models.layers.Norm`.
        band: SAR channel of a threshold, and `median` the side of the filter before it, px.
        median: See `band`.

    Raises:
        FloraError: If `norm` is given to a kind that has no choice of it.

    Example:
        >>> from dataclasses import replace
        >>> from flora.experiments import named_experiment
        >>> from flora.experiments.competitors import Competitor
        >>> no_gate = Competitor("no gate", group="ablation", config={"gated": False})
        >>> compared = {"flora": Competitor("FLoRA"), "no_gate": no_gate}
        >>> asked = replace(named_experiment("simulated"), competitors=compared)
        >>> list(asked.competitors)
        ['flora', 'no_gate']
    """

    says: str
    kind: Kind = "flora"
    group: str = "FLoRA"
    modes: tuple[Mode, ...] = ("sar",)
    config: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, float] = field(default_factory=dict)
    mix: GuidanceMix | None = None
    teacher: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    change: str | None = None
    jitter: bool = False
    norm: Norm = "batch"
    band: int = 0
    median: int = 1

    def __post_init__(self) -> None:
        if self.norm != "batch" and self.kind not in ("unet", "unet water", "early"):
            raise FloraError(
                f"norm {self.norm!r} for a competitor of kind {self.kind!r}: only unet, unet water "
                "and early have a choice; leave it out"
            )

    @property
    def learns(self) -> bool:
        """Whether there is something to train."""
        return self.kind not in ("otsu", "otsu change")

    def predictor(self) -> Predictor:
        """The predictor of a competitor that learns nothing."""
        if self.kind == "otsu change":
            return otsu_change(self.median)
        return otsu(self.band, self.median)


def prepared(chips: FloodDataset, competitor: Competitor, test: bool) -> FloodDataset:
    """Chips with a competitor's change; the alignment of test chips is never changed."""
    if competitor.change is None:
        return chips
    change = CHANGES[competitor.change]
    if change is Misaligned:  # acts on windows, so nothing may be kept after it
        return chips if test else change(chips)
    return InMemory(change(chips))


def train_competitor(
    competitor: Competitor,
    chips: FloodDataset,
    training: TrainingConfig,
    setting: Setting,
    folder: Path,
    quiet: bool = False,
) -> Path:
    """Train a competitor, or continue where it was, and return the weights of its last step.

    Args:
        competitor: What is trained.
        chips: What it is trained on.
        training: Length and schedule.
        setting: Size of FLoRA and steps of its teacher.
        folder: Where the run goes.
        quiet: Hide the progress bars.
    """
    loss = replace(LossWeights(), **competitor.loss)
    if competitor.kind == "flora":
        shape = replace(config_for(setting.size, chips), norm=setting.norm)
        config = replace(shape, **competitor.config)
        teaching = replace(training, steps=setting.teacher_steps) if competitor.teacher else None
        return train_flora(
            config,
            chips,
            None,
            teaching,
            training,
            folder,
            loss,
            competitor.mix,
            quiet,
            competitor.jitter,
        ).last
    torch.manual_seed(training.seed)
    task: nn.Module = _BUILDERS[competitor.kind](competitor, chips, loss, setting)
    if competitor.jitter:
        task = RadiometricJitter(task)
    return fit(task, chips, training, folder / "baseline", quiet=quiet).last


def _unet(
    competitor: Competitor, chips: FloodDataset, loss: LossWeights, setting: Setting
) -> nn.Module:
    optical = 0 if competitor.kind == "unet water" else _optical(chips)
    return UNetTask(UNet(_sar(chips), optical_channels=optical, norm=competitor.norm), loss)


def _pix2pix(
    competitor: Competitor, chips: FloodDataset, loss: LossWeights, setting: Setting
) -> nn.Module:
    optical = _optical(chips)
    return Pix2PixTask(UNet(_sar(chips), optical_channels=optical), optical, loss)


def _early(
    competitor: Competitor, chips: FloodDataset, loss: LossWeights, setting: Setting
) -> nn.Module:
    optical = _optical(chips)
    model = UNet(
        _sar(chips),
        optical_channels=optical,
        sees=competitor.modes[0],
        guide_channels=optical + 2,
        norm=competitor.norm,
    )
    return UNetTask(model, loss)


def _late(
    competitor: Competitor, chips: FloodDataset, loss: LossWeights, setting: Setting
) -> nn.Module:
    optical = _optical(chips)
    return UNetTask(LateFusion(_sar(chips), optical + 2, optical, competitor.modes[0]), loss)


def _released(
    competitor: Competitor, chips: FloodDataset, loss: LossWeights, setting: Setting
) -> nn.Module:
    return ReleasedTask(Flora(released_config(config_for(setting.size, chips))))


def _sar(chips: FloodDataset) -> int:
    return len(chips.sar_scaling.bands)


def _optical(chips: FloodDataset) -> int:
    return len(chips.optical_scaling.bands)


_BUILDERS: dict[str, Callable[[Competitor, FloodDataset, LossWeights, Setting], nn.Module]] = {
    "unet": _unet,
    "unet water": _unet,
    "pix2pix": _pix2pix,
    "early": _early,
    "late": _late,
    "released": _released,
}
