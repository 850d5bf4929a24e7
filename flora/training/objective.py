"""FLoRA's training objective: the weighted sum of its terms."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.errors import FloraError
from flora.sensors import IGNORE
from flora.training.losses import (
    bce,
    charbonnier,
    dice,
    distillation,
    edge_l1,
    filled,
    hydrology_edge,
    output_distillation,
    spectrum_l1,
    structural_dissimilarity,
)


class Output(Protocol):
    """What the losses read of a model's output; a plain U-Net has neither image nor pyramids.

    `rgb` is (B, C_o, H, W) in [0, 1] or None, `water_logits` (B, 1, H, W); `fused` and `prior`
    hold one (B, C_l, H_l, W_l) a level, as the teacher's pyramid does, or are empty or None.
    """

    @property
    def rgb(self) -> Tensor | None: ...  # noqa: D102

    @property
    def water_logits(self) -> Tensor: ...  # noqa: D102

    @property
    def fused(self) -> Sequence[Tensor] | None: ...  # noqa: D102

    @property
    def prior(self) -> Sequence[Tensor] | None: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weight of every term; a term of weight 0 is not computed.

    The scale is that of the paper's released code, which gives .8, .15, .2, .1, 1, .2 and .05 to
    the first seven. `bce` is larger here: Dice is nearly flat on a dry chip, and only the
    cross-entropy makes the probability mean what it says. The release never applies its
    distillation weights (.02, .05); these are chosen so that the terms, which start near 1, weigh
    about as much as the other regularisers. `distill_output` counts on chips without a label,
    where a teacher says what is water: as much there as the label on the others.

    Raises:
        FloraError: If a weight is negative or not finite, or all are 0.

    Example:
        >>> from dataclasses import replace
        >>> from flora.training import FloraLoss, LossWeights
        >>> no_edge = FloraLoss(replace(LossWeights(), edge=0.0))
        >>> no_edge.weights.edge
        0.0
    """

    charbonnier: float = 0.8
    ssim: float = 0.15
    edge: float = 0.2
    spectrum: float = 0.1
    dice: float = 1.0
    bce: float = 1.0
    hydrology: float = 0.05
    distill_fused: float = 0.1
    distill_prior: float = 0.1
    distill_output: float = 1.0
    perceptual: float = 0.0

    def __post_init__(self) -> None:
        weights = dataclasses.asdict(self)
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise FloraError(
                    f"loss weight {name} is {weight}: expected a finite number, 0 to leave the "
                    "term out"
                )
        if not any(weights.values()):
            raise FloraError("all loss weights are 0: give at least one term a weight above 0")


class FloraLoss(nn.Module):
    """The weighted sum of all terms.

    The image terms count where both the optical image and SAR are valid, the water terms where
    there is a label and SAR: what the radar did not see, a model should not be taught to invent.

    Args:
        weights: Weight of every term; the defaults if None.
        dates: Acquisitions stacked as SAR channels, the earliest first. The hydrology term looks at
            the last one, which shows the shoreline of the label.
        perceptual: A distance of two (B, 3, H, W) images in [-1, 1], such as the one that
            `flora.training.metrics.load_lpips` returns; needed if its weight is not 0.

    Raises:
        FloraError: If the perceptual term has a weight and no module.

    Example:
        >>> from flora import Flora, collate, named_config, open_dataset
        >>> from flora.training import FloraLoss
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> batch = collate([chips[0]])
        >>> output = Flora(named_config("tiny"))(batch["sar"])
        >>> total, terms = FloraLoss()(output, batch, teacher=None)
        >>> sorted(terms)
        ['bce', 'charbonnier', 'dice', 'edge', 'hydrology', 'spectrum', 'ssim']
        >>> total.backward()
    """

    def __init__(
        self,
        weights: LossWeights | None = None,
        dates: int = 1,
        perceptual: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights or LossWeights()
        self.dates = dates
        self.perceptual = perceptual
        if self.weights.perceptual > 0 and perceptual is None:
            raise FloraError(
                f"perceptual is None but its weight is {self.weights.perceptual}: pass "
                "perceptual=flora.training.metrics.load_lpips(), or set the weight to 0"
            )

    def forward(
        self, output: Output, batch: Batch, teacher: Sequence[Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Evaluate the objective.

        Args:
            output: The model's output, see `Output`.
            batch: What was observed.
            teacher: The frozen teacher's pyramid of the same optical image, or None to leave the
                distillation terms out.

        Returns:
            The total, and the value of each computed term before weighting, detached.

        Raises:
            FloraError: If shapes do not fit, or there is a teacher but no pyramid to teach.
        """
        total = batch["sar"].new_zeros((), dtype=torch.float32)
        terms: dict[str, Tensor] = {}
        for name, compute in self._terms(output, batch, teacher).items():
            weight: float = getattr(self.weights, name)
            if weight > 0:
                term = compute()
                total = total + weight * term
                terms[name] = term.detach()
        return total, terms

    def _terms(
        self, output: Output, batch: Batch, teacher: Sequence[Tensor] | None
    ) -> dict[str, Callable[[], Tensor]]:
        sar, sar_valid = batch["sar"], batch["sar_valid"]
        seen = batch["optical_valid"] & sar_valid
        logits, water = output.water_logits, batch["water"].masked_fill(~sar_valid, IGNORE)
        terms: dict[str, Callable[[], Tensor]] = {
            "dice": lambda: dice(logits, water),
            "bce": lambda: bce(logits, water),
            "hydrology": lambda: hydrology_edge(
                logits, water, sar.chunk(self.dates, dim=1)[-1], sar_valid
            ),
        }
        if "taught" in batch:
            taught = batch["taught"]
            terms["distill_output"] = lambda: output_distillation(logits, taught, sar_valid)
        if output.rgb is not None:
            images = (output.rgb, batch["optical"], seen)
            terms["charbonnier"] = lambda: charbonnier(*images)
            terms["ssim"] = lambda: structural_dissimilarity(*images)
            terms["edge"] = lambda: edge_l1(*images)
            terms["spectrum"] = lambda: spectrum_l1(*images)
            if self.perceptual is not None:
                terms["perceptual"] = functools.partial(_perceptual, self.perceptual, *images)
        if teacher is not None:
            terms["distill_fused"] = lambda: distillation(output.fused or (), teacher, seen)
            terms["distill_prior"] = lambda: distillation(output.prior or (), teacher, seen)
        return terms


def _perceptual(distance: nn.Module, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean distance of images that agree where not valid, so that nothing there counts."""
    prediction, target = filled(prediction, target, valid)
    with torch.autocast(prediction.device.type, enabled=False):
        distances: Tensor = distance(2 * prediction - 1, 2 * target - 1)
    return distances.mean()
