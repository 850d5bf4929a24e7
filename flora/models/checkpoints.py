"""Weights as safetensors with everything needed to use them; training state beside them.

Nothing is unpickled: weights are safetensors, the training state is read with torch's
`weights_only` reader.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from flora.errors import FloraError
from flora.files import write_whole
from flora.predictors import SHIPPED_ON

FORMAT = "flora-weights-1"
# By the radar dates that they take.
SHIPPED = {1: "simulated-tiny.safetensors", 2: "simulated-tiny-two-dates.safetensors"}


def save_weights(module: nn.Module, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a module's weights with their metadata (plain JSON values).

    Raises:
        FloraError: If the file cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    header = {"format": FORMAT, "flora": json.dumps(dict(metadata))}
    write_whole(path, lambda partial: partial.write_bytes(save(tensors, metadata=header)))


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a weights file.

    Raises:
        FloraError: If there is no such file, or it is no weights file of this library.

    Example:
        >>> from flora.models.checkpoints import read_metadata, shipped_weights
        >>> metadata = read_metadata(shipped_weights())
        >>> metadata["model"], metadata["dataset"]
        ('flora', 'simulated')
    """
    if not path.is_file():  # the reader would wait for a pipe
        raise FloraError(f"weights {path}: no such file; expected a file written by `flora train`")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise FloraError(
            f"weights {path}: not a readable safetensors file ({error}); expected a file written "
            "by `flora train`"
        ) from error
    if header.get("format") != FORMAT:
        raise FloraError(
            f"weights {path}: a safetensors file of another program (format "
            f"{header.get('format')!r}); expected a file written by `flora train`"
        )
    try:
        metadata: dict[str, Any] = dict(json.loads(header["flora"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FloraError(
            f"weights {path}: its metadata is damaged ({error!r}); copy the file again"
        ) from error
    return metadata


def load_weights(module: nn.Module, path: Path) -> None:
    """Load weights into a module of the same shape.

    Raises:
        FloraError: If names or shapes differ: the file belongs to a model of another size.
    """
    read_metadata(path)
    with safe_open(path, framework="pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        if stored != wanted:
            differing = sorted(
                name
                for name in stored.keys() | wanted.keys()
                if stored.get(name) != wanted.get(name)
            )
            first = differing[0]
            raise FloraError(
                f"weights {path}: {len(differing)} tensors differ from the model, first {first}: "
                f"stored {stored.get(first, 'nothing')}, model {wanted.get(first, 'nothing')}; "
                "build the model from the file's own configuration (flora.load_model) or choose "
                "the file of this size"
            )
        tensors = {name: file.get_tensor(name) for name in stored}
        _check_values(tensors, module, path)
        module.load_state_dict(tensors)


def _check_values(tensors: Mapping[str, Tensor], module: nn.Module, path: Path) -> None:
    """Refuse what no training leaves behind: whole numbers, NaN, infinity, nothing but 0."""
    state = module.state_dict().items()
    floating = {name: tensors[name] for name, tensor in state if tensor.is_floating_point()}
    for name, tensor in floating.items():
        if not (tensor.is_floating_point() and bool(torch.isfinite(tensor).all())):
            raise FloraError(
                f"weights {path}: {name} is {tensor.dtype}, or holds NaN or infinity; expected "
                "finite floating-point numbers, as `flora train` writes"
            )
    if floating and not any(bool(tensor.any()) for tensor in floating.values()):
        raise FloraError(f"weights {path}: all of them are 0; expected those of a trained model")


def shipped_weights(dates: int = 1) -> Path:
    """The weights that come with the package, trained on simulated scenes.

    Args:
        dates: Radar dates that they take: 1, or 2 for a scene from before the flood, too.

    Raises:
        FloraError: If there are none for so many.
    """
    if dates not in SHIPPED:
        raise FloraError("expected 1 or 2", argument="dates", value=dates)
    return Path(str(resources.files("flora.models") / "shipped" / SHIPPED[dates]))


def training_data(path: Path | None) -> str:
    """What the weights in a file were trained on, in words; "" where it does not say.

    Args:
        path: The file; None is that of the package. Of any other, the last training alone is
            known: what its first weights had seen, it does not say.
    """
    return SHIPPED_ON if path is None else str(read_metadata(path).get("dataset", ""))


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write the state of a training run: tensors and plain values.

    Raises:
        FloraError: If the file cannot be written.
    """
    write_whole(path, lambda partial: torch.save(dict(state), partial))


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a training run.

    Raises:
        FloraError: If the file is damaged or holds anything but tensors and plain values.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise FloraError(
            f"training state {path} is damaged, or not a training state ({type(error).__name__}); "
            "delete the run's folder to start anew"
        ) from error
    if not isinstance(state, dict):
        raise FloraError(f"training state {path} is that of another program; choose another folder")
    return dict(state)
