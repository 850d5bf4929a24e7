"""Random crops of a dataset, all layers of a sample together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flora.datasets.base import FloodDataset, Sample, Window, map_layers
from flora.errors import FloraError


class RandomCrops(Dataset[Sample]):
    """An endless-looking stream of random, randomly oriented crops, addressed by number.

    Crop `i` depends on `seed` and `i` alone: not on the worker that reads it, nor on what was
    read before, so a resumed training sees exactly the crops it would have seen. Chips come in
    a new random order every epoch.

    Args:
        dataset: Where chips come from.
        crop: Side of the square crop, in pixels.
        count: Number of crops served.
        seed: Seed of order, position and orientation.

    Raises:
        FloraError: If the dataset is empty or a chip is smaller than the crop.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.crops import RandomCrops
        >>> chips = open_dataset("simulated", None, "train", count=2, size=64)
        >>> crops = RandomCrops(chips, crop=32, count=1000, seed=0)
        >>> len(crops), crops[999]["sar"].shape
        (1000, torch.Size([2, 32, 32]))
    """

    def __init__(self, dataset: FloodDataset, crop: int, count: int, seed: int) -> None:
        if len(dataset) == 0:
            raise FloraError(
                f"{dataset.name}: the split is empty, so there is nothing to train on; check root "
                "and split"
            )
        for index in range(len(dataset)):
            if min(dataset.shape(index)) < crop:
                raise FloraError(
                    f"crop {crop} is larger than chip {dataset.manifest()[index]} of shape "
                    f"{dataset.shape(index)}: choose a crop of at most {min(dataset.shape(index))}"
                )
        self.dataset = dataset
        self.crop = crop
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        epoch, position = divmod(number, len(self.dataset))
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset))
        index = int(order[position])
        random = np.random.default_rng([self.seed, 1, number])
        rows, columns = self.dataset.shape(index)
        window = Window(
            int(random.integers(rows - self.crop + 1)),
            int(random.integers(columns - self.crop + 1)),
            self.crop,
            self.crop,
        )
        return orient_sample(self.dataset.read(index, window), int(random.integers(8)))


def orient_sample(sample: Sample, orientation: int) -> Sample:
    """Apply one of the eight symmetries of the square to every layer of a sample.

    Args:
        sample: The chip.
        orientation: 0 to 7: quarter turns in the low two bits, then a flip of the columns.
    """

    def turn(layer: Tensor) -> Tensor:
        turned = torch.rot90(layer, orientation % 4, dims=(-2, -1))
        return turned.flip(-1) if orientation >= 4 else turned

    return map_layers(sample, turn)
