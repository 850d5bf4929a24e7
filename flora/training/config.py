"""How long and how a network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flora.datasets.base import Batch
from flora.errors import FloraError

BatchChange = Callable[[Batch], Batch]
"""A random change of a training batch, such as `flora.training.jitter.RadiometricJitter`; its
`repr` is kept in the settings of the run."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how a task is trained.

    Attributes:
        steps: Optimiser steps.
        batch: Crops a step and process.
        crop: Side of a crop in pixels.
        learning_rate: Peak of the schedule: linear warm-up, then a cosine down to zero.
        weight_decay: AdamW's decoupled weight decay.
        warmup: Share of the steps that the learning rate takes to rise.
        gradient_clip: Largest norm of the gradient.
        seed: Seed of initial random draws and of the crops.
        checkpoint_every: Steps between two saved states.
        validate_every: Steps between two validations; the last step is always validated.
        workers: Processes that read crops; 0 reads in the training process.
        mixed_precision: "bf16", "no", or "auto": bf16 on a GPU that computes in it, else "no".

    Raises:
        FloraError: If a number is out of range.

    Example:
        >>> from flora import TrainingConfig
        >>> config = TrainingConfig(steps=100, warmup=0.1, learning_rate=1e-3)
        >>> [round(config.learning_rate_at(step), 6) for step in (0, 9, 10, 55)]
        [0.0001, 0.001, 0.001, 0.0005]
    """

    steps: int = 1500
    batch: int = 8
    crop: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    gradient_clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 100
    validate_every: int = 250
    workers: int = 0
    mixed_precision: str = "auto"

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "crop", "checkpoint_every", "validate_every")
        least = dict.fromkeys(counts, 1) | {"seed": 0, "workers": 0, "weight_decay": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise FloraError(f"{name} {getattr(self, name)}: expected {smallest} or more")
        if self.seed >= 2**32:  # NumPy's generators take no larger one
            raise FloraError(f"seed {self.seed}: expected a number below 2^32")
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise FloraError(f"{name} {value}: expected a finite number above 0")
        if not 0 <= self.warmup <= 1:
            raise FloraError(f"warmup {self.warmup}: expected a share of the steps, 0 to 1")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step counted from 0."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        progress = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
