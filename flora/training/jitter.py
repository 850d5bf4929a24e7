"""Random changes of the radar image in training, against floods unlike those trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flora.datasets.base import Batch
from flora.errors import FloraError


@dataclass(frozen=True)
class RadiometricJitter:
    """Change gain and offset of SAR in a training batch, anew for each sample and band.

    Another flood has another incidence angle, another soil moisture, and in OMBRIA another stretch
    by the publisher: the jitter keeps a model from relying on an absolute level.

    Attributes:
        gain: Standard deviation of the relative gain.
        offset: Standard deviation of the offset, in units of the normalised image; 1 is about
            5 dB in sigma0.

    Raises:
        FloraError: If a standard deviation is negative.

    Example:
        >>> from flora import collate, open_dataset
        >>> from flora.training.jitter import RadiometricJitter
        >>> batch = collate([open_dataset("simulated", None, "train", count=1, size=64)[0]])
        >>> changed = RadiometricJitter()(batch)
        >>> bool((changed["sar"] != batch["sar"]).any()), changed["water"] is batch["water"]
        (True, True)
    """

    gain: float = 0.2
    offset: float = 0.3

    def __post_init__(self) -> None:
        if min(self.gain, self.offset) < 0:
            raise FloraError(f"gain {self.gain}, offset {self.offset}: expected 0 or more of both")

    def __call__(self, batch: Batch) -> Batch:
        """The batch with changed SAR; nodata stays as it is."""
        changed = self.change(batch["sar"], batch["sar_valid"])
        return Batch(**{**batch, "sar": changed})

    def change(self, sar: Tensor, valid: Tensor) -> Tensor:
        """Apply a random gain and offset to (B, C_s, H, W) where valid (B, H, W)."""
        # Drawn on the CPU, whose random state is saved with the run.
        gain, offset = torch.randn(2, *sar.shape[:2], 1, 1).to(sar.device)
        changed = sar * (1 + self.gain * gain) + self.offset * offset
        return torch.where(valid.unsqueeze(1), changed, sar)
