"""Datasets that wrap another dataset."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, get_worker_info

from flora.datasets.base import FloodDataset, Sample, Window, crop_sample, layers, map_layers


class Wrapped(FloodDataset):
    """A dataset that reads from another one; what it does not define is that dataset's.

    Args:
        dataset: What to read from.
    """

    def __init__(self, dataset: FloodDataset) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        return self.dataset.shape(index)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`."""
        return self.dataset.manifest()

    def preload(self, workers: int = 0) -> None:
        """See `FloodDataset.preload`."""
        self.dataset.preload(workers)


class InMemory(Wrapped):
    """A dataset that keeps each chip after its first reading, while there is room.

    Do not change a sample in place: the next reader gets the same tensors.

    A `DataLoader` with workers copies the dataset to each of them. They share the memory of what
    was read before, so call `preload` first; a worker reads what is missing and keeps nothing, or
    there would be a cache in every worker.

    Args:
        dataset: What to read from.
        budget: Bytes to keep at most; chips beyond it are read anew each time.

    Example:
        >>> from flora import InMemory, open_dataset
        >>> chips = InMemory(open_dataset("simulated", None, "train", count=2, size=64))
        >>> chips[0]["sar"] is chips[0]["sar"]  # read once
        True
    """

    def __init__(self, dataset: FloodDataset, budget: int = 6_000_000_000) -> None:
        super().__init__(dataset)
        self._room = budget
        self._kept: dict[int, Sample] = {}

    def preload(self, workers: int = 0) -> None:
        """Read every chip that is not kept yet, while there is room.

        Args:
            workers: Processes that read; 0 reads in this one.
        """
        wanted = [index for index in range(len(self)) if index not in self._kept]
        if self._room <= 0 or not wanted:
            return
        # One sample at a time, as it is: no batches, no conversion.
        reader = DataLoader(
            Subset(self.dataset, wanted),
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # else it draws from the global random state
        )
        for index, sample in zip(wanted, reader, strict=True):
            self._keep(index, map_layers(sample, lambda layer: layer.clone()))
            if self._room <= 0:
                break

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        if index not in self._kept:
            if self._room <= 0 or get_worker_info() is not None:
                return self.dataset.read(index, window)
            self._keep(index, self.dataset.read(index))
        sample = self._kept[index]
        return sample if window is None else crop_sample(sample, window)

    def _keep(self, index: int, sample: Sample) -> None:
        self._kept[index] = sample
        self._room -= sum(layer.nbytes for layer in layers(sample))


def _unchanged(sample: Any) -> Any:
    return sample
