"""FLoRA: optical reconstruction and flood mapping from Sentinel-1 SAR.

The executable companion of arXiv 2605.02137. Importing the package has no side effect, and loads
torch only when a name that needs it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flora.datasets import open_dataset
    from flora.datasets.base import FloodDataset, Sample, collate
    from flora.datasets.wrapped import InMemory
    from flora.errors import FloraError, FloraWarning
    from flora.experiments.catalogue import named_experiment
    from flora.experiments.records import load_record
    from flora.figures.printed import print_figure
    from flora.figures.sheets import sample_figure
    from flora.maps.floods import split_flood
    from flora.maps.layers import read_map
    from flora.maps.live import flood_map
    from flora.maps.page import StaticMap, write_html
    from flora.maps.polygons import write_polygons
    from flora.models.network import Flora, FloraConfig, FloraOutput, named_config
    from flora.models.predict import predictor
    from flora.models.weights import load_model
    from flora.scenes.before import open_before
    from flora.scenes.inputs import open_scene
    from flora.scenes.many import map_scenes
    from flora.scenes.mapping import map_scene
    from flora.training.evaluation import answer, evaluate
    from flora.training.fit import TrainingConfig, fit
    from flora.training.losses import FloraLoss, LossWeights
    from flora.training.metrics import SplitScores
    from flora.training.recipes import train
    from flora.training.tasks import GuidanceMix

__version__ = "0.2.0"

_HOMES = {
    "FloodDataset": "flora.datasets.base",
    "Flora": "flora.models.network",
    "FloraConfig": "flora.models.network",
    "FloraError": "flora.errors",
    "FloraLoss": "flora.training.losses",
    "FloraOutput": "flora.models.network",
    "FloraWarning": "flora.errors",
    "GuidanceMix": "flora.training.tasks",
    "InMemory": "flora.datasets.wrapped",
    "LossWeights": "flora.training.losses",
    "Sample": "flora.datasets.base",
    "SplitScores": "flora.training.metrics",
    "StaticMap": "flora.maps.page",
    "TrainingConfig": "flora.training.fit",
    "collate": "flora.datasets.base",
    "evaluate": "flora.training.evaluation",
    "fit": "flora.training.fit",
    "flood_map": "flora.maps.live",
    "answer": "flora.training.evaluation",
    "predictor": "flora.models.predict",
    "load_model": "flora.models.weights",
    "load_record": "flora.experiments.records",
    "map_scene": "flora.scenes.mapping",
    "map_scenes": "flora.scenes.many",
    "named_config": "flora.models.network",
    "named_experiment": "flora.experiments.catalogue",
    "open_before": "flora.scenes.before",
    "open_dataset": "flora.datasets",
    "open_scene": "flora.scenes.inputs",
    "print_figure": "flora.figures.printed",
    "read_map": "flora.maps.layers",
    "sample_figure": "flora.figures.sheets",
    "split_flood": "flora.maps.floods",
    "train": "flora.training.recipes",
    "write_html": "flora.maps.page",
    "write_polygons": "flora.maps.polygons",
}

__all__ = [
    "FloodDataset",
    "Flora",
    "FloraConfig",
    "FloraError",
    "FloraLoss",
    "FloraOutput",
    "FloraWarning",
    "GuidanceMix",
    "InMemory",
    "LossWeights",
    "Sample",
    "SplitScores",
    "StaticMap",
    "TrainingConfig",
    "answer",
    "collate",
    "evaluate",
    "fit",
    "flood_map",
    "load_model",
    "load_record",
    "map_scene",
    "map_scenes",
    "named_config",
    "named_experiment",
    "open_before",
    "open_dataset",
    "open_scene",
    "predictor",
    "print_figure",
    "read_map",
    "sample_figure",
    "split_flood",
    "train",
    "write_html",
    "write_polygons",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flora' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
