"""From a weights file back to the model that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flora.datasets.base import FloodDataset
from flora.errors import FloraError
from flora.models.beside import load_thresholds
from flora.models.checkpoints import load_weights, read_metadata, shipped_weights, training_data
from flora.models.config import FloraConfig
from flora.models.network import Flora
from flora.models.unet import LateFusion, UNet
from flora.sensors import OpticalScaling, SarScaling


def load_model(path: Path | None = None, dates: int = 1) -> Flora:
    """Rebuild FLoRA from a weights file, in evaluation mode.

    Args:
        path: The file; None takes the weights that come with the package.
        dates: Radar dates of a scene, 1 or 2 (before the flood, and in it), where `path` is None.

    Raises:
        FloraError: If it is no such file, belongs to another kind of model, or none comes for so
            many dates; or if what lies beside it is refused, see
            `flora.models.beside.load_calibration`.

    Example:
        >>> import torch
        >>> from flora import load_model, open_dataset
        >>> model = load_model()
        >>> sample = open_dataset("simulated", None, "test", count=1, size=64)[0]
        >>> with torch.inference_mode():
        ...     output = model(sample["sar"][None])
        >>> torch.sigmoid(output.water_logits).shape  # probability of water
        torch.Size([1, 1, 64, 64])
    """
    file = path or shipped_weights(dates)
    model = load_any(file)
    if not isinstance(model, Flora):
        raise FloraError(
            f"weights {path}: of a {type(model).__name__}, expected those of FLoRA; choose a file "
            "that `flora train` wrote without --model"
        )
    model.thresholds = {mode: own.value for mode, own in load_thresholds(file).items()}
    model.trained_on = training_data(path)
    return model


def load_any(path: Path) -> Flora | UNet | LateFusion:
    """Rebuild whichever model a weights file holds, in evaluation mode.

    Raises:
        FloraError: If the file cannot be read or names an unknown model.
    """
    metadata = read_metadata(path)
    if metadata.get("task") == "teacher":
        raise FloraError(
            f"weights {path}: of a pre-trained teacher, whose SAR branch is untrained; take the "
            "run's weights.safetensors, or student/best.safetensors"
        )
    with _described(path):
        model = _built(path, metadata["model"], metadata["config"])
    load_weights(model, path)
    return model.eval()


def _built(path: Path, name: str, config: dict[str, Any]) -> Flora | UNet | LateFusion:
    if name == "flora":
        return Flora(FloraConfig.from_dict(config))
    if name == "unet":
        return UNet(**config)
    if name == "late fusion":
        return LateFusion(**config)
    raise FloraError(
        f"weights {path}: model {name!r} is unknown to this version of flora; install the version "
        "that wrote the file"
    )


@contextmanager
def _described(path: Path) -> Iterator[None]:
    """Refuse metadata that this version cannot make anything of."""
    try:
        yield
    except FloraError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FloraError(
            f"weights {path}: its metadata does not describe a model of this version of flora "
            f"({type(error).__name__}: {error}); install the version that wrote the file, or copy "
            "it again"
        ) from error


def sensor_of(path: Path | None = None) -> tuple[SarScaling, OpticalScaling]:
    """The scalings that a weights file was trained with; None is the file of the package."""
    file = path or shipped_weights()
    metadata = read_metadata(file)
    with _described(file):
        return (
            SarScaling(**_tuples(metadata["sar_scaling"])),
            OpticalScaling(**_tuples(metadata["optical_scaling"])),
        )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Undo JSON, which knows lists only."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def check_sensor(path: Path, dataset: FloodDataset) -> dict[str, Any]:
    """Refuse weights that were trained on other products than a dataset's.

    Returns:
        The metadata of the weights.

    Raises:
        FloraError: If bands or scaling differ.
    """
    sar, optical = sensor_of(path)
    for then, now in ((sar, dataset.sar_scaling), (optical, dataset.optical_scaling)):
        if then != now:
            raise FloraError(
                f"weights {path} were trained on {then.name} {'/'.join(then.bands)}, "
                f"{dataset.name} has {now.name} {'/'.join(now.bands)}, or scales it otherwise: "
                "train on this dataset, or choose weights of its sensor"
            )
    return read_metadata(path)
