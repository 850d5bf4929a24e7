"""Teach a head where a finished network is wrong, on chips that the network has not learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flora.datasets.base import Batch
from flora.models.doubt import ErrorHead, error_loss
from flora.models.network import Flora
from flora.sensors import DRY, WATER
from flora.training.task import Task


class DoubtTask(Task):
    """Radar in, the probability of an error out, against the errors of a frozen network.

    Take other chips than those that the network was trained on: on those it errs less.

    Args:
        base: The network; nothing of it changes.
        head: What learns.

    Example:
        >>> from flora import collate, load_model, open_dataset
        >>> from flora.models.doubt import ErrorHead
        >>> from flora.training.doubting import DoubtTask
        >>> task = DoubtTask(load_model(), ErrorHead(16))
        >>> batch = collate([open_dataset("simulated", None, "valid", count=1, size=64)[0]])
        >>> total, terms = task(batch)
        >>> sorted(terms), total.requires_grad
        (['error'], True)
    """

    model: ErrorHead

    def __init__(self, base: Flora, head: ErrorHead) -> None:
        super().__init__(head)
        self.base = base.requires_grad_(False)

    def train(self, mode: bool = True) -> DoubtTask:
        """The head alone is ever in training mode."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Task`."""
        with torch.no_grad():
            output = self.base(batch["sar"])
        water = batch["water"]
        scored = batch["sar_valid"] & ((water == DRY) | (water == WATER))
        loss = error_loss(self.model(output), output.water_logits, water, scored)
        return loss, {"error": loss.detach()}

    def describe(self) -> dict[str, Any]:
        """See `Task`."""
        return {"model": "error head", "config": self.model.config}
