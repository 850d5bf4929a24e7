"""FLoRA: optical reconstruction and flood mapping from Sentinel-1 SAR.

The executable companion of arXiv 2605.02137. Importing the package has no side effect, and loads
torch only when a name that needs it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flora.datasets import open_dataset
    from flora.errors import FloraError, FloraWarning
    from flora.evaluation import evaluate
    from flora.losses import FloraLoss, LossWeights
    from flora.model import Flora, FloraConfig
    from flora.scenes import map_scene
    from flora.training import TrainingConfig, fit
    from flora.zoo import load_model

__version__ = "0.1.0"

_HOMES = {
    "Flora": "flora.model",
    "FloraConfig": "flora.model",
    "FloraError": "flora.errors",
    "FloraLoss": "flora.losses",
    "FloraWarning": "flora.errors",
    "LossWeights": "flora.losses",
    "TrainingConfig": "flora.training",
    "evaluate": "flora.evaluation",
    "fit": "flora.training",
    "load_model": "flora.zoo",
    "map_scene": "flora.scenes",
    "open_dataset": "flora.datasets",
}

__all__ = [
    "Flora",
    "FloraConfig",
    "FloraError",
    "FloraLoss",
    "FloraWarning",
    "LossWeights",
    "TrainingConfig",
    "evaluate",
    "fit",
    "load_model",
    "map_scene",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flora' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
