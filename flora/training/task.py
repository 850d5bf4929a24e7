"""What `fit` trains: a module that gives a loss, and says what is learned at which rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.models.predict import predictor
from flora.predictors import Mode, Predictor


@dataclass(frozen=True)
class Learner:
    """A network with its own optimiser settings and its own gradient clipping.

    Attributes:
        module: What is learned.
        learning_rate: Peak of its schedule; None takes that of the training.
        betas: Adam's decay rates.
    """

    module: nn.Module
    learning_rate: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)

    def groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups of AdamW: those that decay, and those that do not.

        Only matrices and kernels decay. To draw a gain, a bias or an attention's position bias
        to zero would change what the network computes, not how simple it is.
        """
        learned = [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]
        decays = {n: p.ndim > 1 and "position_bias" not in n for n, p in learned}
        peak = self.learning_rate or learning_rate
        return [
            {
                "params": [p for n, p in learned if decays[n] is decayed],
                "weight_decay": weight_decay if decayed else 0.0,
                "peak": peak,
                "lr": peak,
                "betas": self.betas,
            }
            for decayed in (True, False)
        ]


class Task(nn.Module):
    """A network under training. A subclass gives the loss in `forward`.

    Args:
        model: The network whose weights are saved.
    """

    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms, all scalars."""
        raise NotImplementedError

    @property
    def mode(self) -> Mode:
        """What it may look at when it is validated: what is deployed chooses the weights."""
        return "sar"

    def learners(self) -> Iterable[Learner]:
        """The networks that are optimised, each for itself."""
        return [Learner(self)]

    def predictor(self) -> Predictor:
        """How the task is validated."""
        return predictor(self.model)  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """Plain values that rebuild the model; saved with its weights."""
        raise NotImplementedError
