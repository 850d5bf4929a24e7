"""FLoRA: optical reconstruction and flood mapping from Sentinel-1 SAR.

The executable companion of arXiv 2605.02137. Importing the package has no side effect, and loads
torch only when a name that needs it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flora.catalogue import named_experiment
    from flora.datasets import open_dataset
    from flora.datasets.base import FloodDataset, Sample, collate
    from flora.errors import FloraError, FloraWarning
    from flora.evaluation import evaluate, flora_predictor
    from flora.floods import split_flood
    from flora.losses import FloraLoss, LossWeights
    from flora.many_scenes import map_scenes
    from flora.map_layers import read_map
    from flora.maps import flood_map, print_figure
    from flora.metrics import SplitScores
    from flora.model import Flora, FloraConfig, FloraOutput, named_config
    from flora.plots import sample_figure
    from flora.polygons import write_polygons
    from flora.recipes import train_flora
    from flora.records import load_record
    from flora.scene_norm import SceneNormalised
    from flora.scenes import map_scene
    from flora.static_map import StaticMap, write_html
    from flora.tasks import GuidanceMix
    from flora.training import TrainingConfig, fit
    from flora.zoo import load_model, scene_predictor

__version__ = "0.1.0"

_HOMES = {
    "FloodDataset": "flora.datasets.base",
    "Flora": "flora.model",
    "FloraConfig": "flora.model",
    "FloraError": "flora.errors",
    "FloraLoss": "flora.losses",
    "FloraOutput": "flora.model",
    "FloraWarning": "flora.errors",
    "GuidanceMix": "flora.tasks",
    "LossWeights": "flora.losses",
    "Sample": "flora.datasets.base",
    "SceneNormalised": "flora.scene_norm",
    "SplitScores": "flora.metrics",
    "StaticMap": "flora.static_map",
    "TrainingConfig": "flora.training",
    "collate": "flora.datasets.base",
    "evaluate": "flora.evaluation",
    "fit": "flora.training",
    "flood_map": "flora.maps",
    "flora_predictor": "flora.evaluation",
    "load_model": "flora.zoo",
    "load_record": "flora.records",
    "map_scene": "flora.scenes",
    "map_scenes": "flora.many_scenes",
    "named_config": "flora.model",
    "named_experiment": "flora.catalogue",
    "open_dataset": "flora.datasets",
    "print_figure": "flora.maps",
    "read_map": "flora.map_layers",
    "sample_figure": "flora.plots",
    "scene_predictor": "flora.zoo",
    "split_flood": "flora.floods",
    "train_flora": "flora.recipes",
    "write_html": "flora.static_map",
    "write_polygons": "flora.polygons",
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
    "LossWeights",
    "Sample",
    "SceneNormalised",
    "SplitScores",
    "StaticMap",
    "TrainingConfig",
    "collate",
    "evaluate",
    "fit",
    "flood_map",
    "flora_predictor",
    "load_model",
    "load_record",
    "map_scene",
    "map_scenes",
    "named_config",
    "named_experiment",
    "open_dataset",
    "print_figure",
    "read_map",
    "sample_figure",
    "scene_predictor",
    "split_flood",
    "train_flora",
    "write_html",
    "write_polygons",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flora' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
