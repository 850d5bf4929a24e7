"""The wiring of the paper's released code, written anew from its description.

Nothing of that code is used. What it computes is rebuilt here with this library's parts, so that
its defects can be measured one at a time against a model that differs in nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.models.config import FloraConfig
from flora.models.network import Flora
from flora.training.objective import LossWeights
from flora.training.tasks import GuidanceMix, StudentTask

# The terms that run there: its edge, spectrum and hydrology losses are imported from names that do
# not exist, and its distillation weights are never read.
RELEASED_LOSS = LossWeights(
    charbonnier=0.8,
    ssim=0.15,
    edge=0.0,
    spectrum=0.0,
    dice=1.0,
    bce=0.2,
    hydrology=0.0,
    distill_fused=0.0,
    distill_prior=0.0,
)


def released_config(config: FloraConfig) -> FloraConfig:
    """A configuration with the release's detached water branch and group normalisation."""
    return replace(config, detach_water=True, norm="group")


class ReleasedTask(StudentTask):
    """Train as the release does: every sample is guided by the teacher, which sees NDVI alone.

    The teacher learns along with the rest. The estimate from SAR that replaces it at test time is
    no part of any loss, so in mode `sar` the model runs through random weights. The water decoder
    stands still at first: three of a thousand epochs there, the same share of the steps here.

    Args:
        model: The model; give it `released_config`.
        perceptual: A module from `load_lpips`, for the release's LPIPS term of weight 0.2; None
            leaves the term out, as the release itself does where the package is missing.
        frozen: Steps before the water decoder learns.
    """

    frozen: Tensor

    def __init__(self, model: Flora, perceptual: nn.Module | None = None, frozen: int = 0) -> None:
        loss = RELEASED_LOSS if perceptual is None else replace(RELEASED_LOSS, perceptual=0.2)
        mix = GuidanceMix(sar=0.0, before=0.0, oracle=1.0)
        super().__init__(model, loss, mix, perceptual=perceptual)
        model.teacher.requires_grad_(True)
        model.prior.requires_grad_(False)
        # Saved with the run, so that one that is continued counts on.
        self.register_buffer("frozen", torch.tensor(frozen))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss under the teacher's guidance, see `flora.training.task.Task`."""
        unseen = torch.zeros_like(batch["optical"])
        guide = self.model.guide(unseen, batch["index"], batch["optical_valid"])
        still = self.training and bool(self.frozen > 0)
        self.model.water_decoder.requires_grad_(not still)
        if still:
            self.frozen -= 1
        total, terms = self.loss(self.model(batch["sar"], guide), batch, teacher=None)
        return total, terms

    def describe(self) -> dict[str, Any]:
        """See `flora.training.task.Task`."""
        return {**super().describe(), "wiring": "released"}
