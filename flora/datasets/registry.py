"""The list of datasets, and how one is opened by its name."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flora.errors import FloraError

# Where the class of each name is: imported when asked for, so that one dataset does not need the
# packages of another.
DATASETS = {
    "deepflood": ("flora.datasets.deepflood", "DeepFlood"),
    "folder": ("flora.datasets.folder", "Folder"),
    "ombria": ("flora.datasets.ombria", "Ombria"),
    "sample": ("flora.datasets.sample", "RealPair"),
    "sen12ms": ("flora.datasets.sen12ms", "Sen12MS"),
    "sen1floods11": ("flora.datasets.sen1floods11", "Sen1Floods11"),
    "sen1floods11-weak": ("flora.datasets.sen1floods11_weak", "Sen1Floods11Weak"),
    "sih1733": ("flora.datasets.sih1733", "Sih1733"),
    "simulated": ("flora.datasets.simulated", "Simulated"),
}

if TYPE_CHECKING:
    from flora.datasets.base import FloodDataset

    DatasetName = str
else:
    DatasetName = Literal[tuple(DATASETS)]  # the choices of the command line


def open_dataset(
    name: str, root: Path | None = None, split: str = "test", **options: Any
) -> FloodDataset:
    """Open a dataset by its name.

    Args:
        name: "simulated", "sample", "sen1floods11", "sen1floods11-weak", "sen12ms", "ombria",
            "deepflood", "sih1733" or "folder".
        root: The folder that holds it; None for "simulated" and "sample", which need none: scenes
            are made, and the sample comes with the package.
        split: One of the splits that its class lists, e.g. "train", "valid" or "test".
        options: Further arguments of its constructor, e.g. `sar_dates` of `Ombria`.

    Raises:
        FloraError: If the name, an option or the split is unknown, or the root is missing.

    Example:
        >>> from flora import open_dataset
        >>> chips = open_dataset("simulated", None, "test", count=2, size=64)
        >>> len(chips), chips[0]["sar"].shape
        (2, torch.Size([2, 64, 64]))
    """
    dataset = dataset_class(name)
    taken = list(inspect.signature(dataset).parameters)
    positional: tuple[Any, ...] = (split,)
    if "root" in taken:
        if root is None:
            raise FloraError(f"{name} is read from files: pass the folder that holds it as root")
        positional = (Path(root), split)
    elif root is not None:
        raise FloraError(f"{name} needs no files of yours: leave out root {root}")
    unknown = sorted(set(options) - set(taken))
    if unknown:
        raise FloraError(
            f"{name} has no option {', '.join(unknown)}; it takes "
            f"{', '.join(taken[len(positional) :]) or 'none'}"
        )
    opened: FloodDataset = dataset(*positional, **options)
    return opened


def dataset_class(name: str) -> Any:
    """The class of a name.

    Raises:
        FloraError: If the name is unknown.
    """
    if name not in DATASETS:
        raise FloraError(f"no dataset {name!r}; known: {', '.join(DATASETS)}")
    module, kind = DATASETS[name]
    return getattr(import_module(module), kind)
