"""Datasets, one module each; `base` holds what they share."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from flora.datasets.base import FloodDataset
from flora.errors import FloraError

DATASETS = (
    "deepflood",
    "ombria",
    "sen12ms",
    "sen1floods11",
    "sen1floods11-weak",
    "sih1733",
    "simulated",
)


def open_dataset(name: str, root: Path | None, split: str, **options: Any) -> FloodDataset:
    """Open a dataset by its name.

    Args:
        name: "simulated", "sen1floods11", "sen1floods11-weak", "sen12ms", "ombria", "deepflood" or
            "sih1733".
        root: The folder it was downloaded to; None for "simulated", which needs no files.
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
    if name == "simulated":
        if root is not None:
            raise FloraError(f"simulated scenes are made, not read: leave out root {root}")
        positional: tuple[Any, ...] = (split,)
    else:
        if root is None:
            raise FloraError(f"{name} is read from files: pass the folder that holds it as root")
        positional = (Path(root), split)
    signature = inspect.signature(dataset)
    unknown = sorted(set(options) - set(signature.parameters))
    if unknown:
        raise FloraError(
            f"{name} has no option {', '.join(unknown)}; it takes "
            f"{', '.join(list(signature.parameters)[len(positional) :]) or 'none'}"
        )
    opened: FloodDataset = dataset(*positional, **options)
    return opened


def dataset_class(name: str) -> Any:
    """The class of a name, imported when asked for: one dataset needs not another's packages.

    Raises:
        FloraError: If the name is unknown.
    """
    if name == "deepflood":
        from flora.datasets.deepflood import DeepFlood

        return DeepFlood
    if name == "ombria":
        from flora.datasets.ombria import Ombria

        return Ombria
    if name == "sen12ms":
        from flora.datasets.sen12ms import Sen12MS

        return Sen12MS
    if name == "sen1floods11-weak":
        from flora.datasets.sen1floods11_weak import Sen1Floods11Weak

        return Sen1Floods11Weak
    if name == "sen1floods11":
        from flora.datasets.sen1floods11 import Sen1Floods11

        return Sen1Floods11
    if name == "sih1733":
        from flora.datasets.sih1733 import Sih1733

        return Sih1733
    if name == "simulated":
        from flora.datasets.simulated import Simulated

        return Simulated
    raise FloraError(f"no dataset {name!r}; known: {', '.join(DATASETS)}")
