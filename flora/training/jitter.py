"""Random changes of the radar image in training, against floods unlike those trained on."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.errors import FloraError
from flora.predictors import Mode, Predictor
from flora.training.fit import Task


class RadiometricJitter(nn.Module):
    """Train another task on SAR whose gain and offset are drawn anew for each sample and band.

    Another flood has another incidence angle, another soil moisture, and in OMBRIA another stretch
    by the publisher: the jitter keeps a model from relying on an absolute level. Validation and
    the weights are those of the task, unchanged.

    Args:
        task: What is trained, see `flora.training.fit.Task`.
        gain: Standard deviation of the relative gain.
        offset: Standard deviation of the offset, in units of the normalised image; 1 is about
            5 dB in sigma0.

    Raises:
        FloraError: If a standard deviation is negative.
    """

    def __init__(self, task: nn.Module, gain: float = 0.2, offset: float = 0.3) -> None:
        super().__init__()
        if min(gain, offset) < 0:
            raise FloraError(f"gain {gain}, offset {offset}: expected 0 or more of both")
        self.task = task
        self.gain = gain
        self.offset = offset

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The task's loss on the changed batch."""
        if self.training:
            batch = Batch(**{**batch, "sar": self.change(batch["sar"], batch["sar_valid"])})
        total: tuple[Tensor, dict[str, Tensor]] = self.task(batch)
        return total

    def change(self, sar: Tensor, valid: Tensor) -> Tensor:
        """Apply a random gain and offset to (B, C_s, H, W) where valid (B, H, W)."""
        # Drawn on the CPU, whose random state is saved with the run.
        gain, offset = torch.randn(2, *sar.shape[:2], 1, 1).to(sar.device)
        changed = sar * (1 + self.gain * gain) + self.offset * offset
        return torch.where(valid.unsqueeze(1), changed, sar)

    @property
    def weights(self) -> nn.Module:
        """See `flora.training.fit.Task`."""
        return self._inner.weights

    @property
    def mode(self) -> Mode:
        """See `flora.training.fit.Task`."""
        return self._inner.mode

    def predictor(self) -> Predictor:
        """See `flora.training.fit.Task`."""
        return self._inner.predictor()

    def describe(self) -> dict[str, Any]:
        """See `flora.training.fit.Task`."""
        jitter = {"gain": self.gain, "offset": self.offset}
        return {**self._inner.describe(), "radiometric_jitter": jitter}

    @property
    def _inner(self) -> Task:
        return cast(Task, self.task)
