"""Chips with few labels, or with none: drawn, hidden, taught, and mixed for training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flora.datasets.base import FloodDataset, Sample, Window, crop_sample
from flora.datasets.wrapped import Wrapped
from flora.errors import FloraError
from flora.sensors import IGNORE, OpticalStack


class Chosen(Wrapped):
    """Some chips of a dataset.

    Args:
        dataset: Where they come from.
        indices: Which, in this order.

    Raises:
        FloraError: If there is no chip of such an index.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.unlabelled import Chosen
        >>> chips = open_dataset("simulated", None, "train", count=5, size=64)
        >>> Chosen(chips, [4, 0]).manifest() == [chips.manifest()[4], chips.manifest()[0]]
        True
    """

    def __init__(self, dataset: FloodDataset, indices: Sequence[int]) -> None:
        super().__init__(dataset)
        wrong = [index for index in indices if not 0 <= index < len(dataset)]
        if wrong:
            raise FloraError(
                f"indices {wrong[:5]}: {dataset.name} has chips 0 to {len(dataset) - 1}"
            )
        self.indices = list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        return self.dataset.shape(self.indices[index])

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`."""
        names = self.dataset.manifest()
        return [names[index] for index in self.indices]

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        return self.dataset.read(self.indices[index], window)


def drawn(dataset: FloodDataset, count: int, seed: int) -> Chosen:
    """Draw chips at random; of one seed, a smaller draw is part of a larger one.

    Args:
        dataset: Where they come from.
        count: How many.
        seed: Seed of the draw.

    Raises:
        FloraError: If there are fewer chips.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.unlabelled import drawn
        >>> chips = open_dataset("simulated", None, "train", count=20, size=64)
        >>> five = drawn(chips, 5, seed=0).manifest()
        >>> five == drawn(chips, 10, seed=0).manifest()[:5]
        True
    """
    if not 1 <= count <= len(dataset):
        raise FloraError(f"count {count}: {dataset.name} has {len(dataset)} chips to draw from")
    order = np.random.default_rng([seed, len(dataset)]).permutation(len(dataset))
    return Chosen(dataset, order[:count].tolist())


def of_place(dataset: FloodDataset, place: str) -> Chosen:
    """The chips of one place.

    Args:
        dataset: Where they come from.
        place: Its name in `meta.place`.

    Raises:
        FloraError: If there is no chip of it.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.unlabelled import of_place
        >>> chips = open_dataset("simulated", None, "train", count=3, size=64)
        >>> len(of_place(chips, "simulated"))
        3
    """
    places = [dataset[index]["meta"]["place"] for index in range(len(dataset))]
    if place not in places:
        raise FloraError(f'place "{place}": {dataset.name} has {", ".join(sorted(set(places)))}')
    return Chosen(dataset, [index for index, name in enumerate(places) if name == place])


class Unlabelled(Wrapped):
    """The chips of a dataset without their labels, with or without a teacher's maps of them.

    Args:
        dataset: Where they come from.
        taught: Probability of water (H, W) of every chip, NaN where the teacher is silent; see
            `flora.training.teaching.teach`. None where nobody teaches.

    Raises:
        FloraError: If there is not one map a chip.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.unlabelled import Unlabelled
        >>> chips = Unlabelled(open_dataset("simulated", None, "train", count=1, size=64))
        >>> chips[0]["water"].unique().tolist(), bool(chips[0]["taught"].isnan().all())
        ([255], True)
    """

    def __init__(self, dataset: FloodDataset, taught: Sequence[Tensor] | None = None) -> None:
        super().__init__(dataset)
        if taught is not None and len(taught) != len(dataset):
            raise FloraError(f"taught has {len(taught)} maps for {len(dataset)} chips")
        self.taught = taught

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; marked, with a digest of what is taught of each chip.

        So a training is not continued, nor taken for finished, with another teacher's maps.
        """
        names = [f"unlabelled {name}" for name in super().manifest()]
        if self.taught is None:
            return names
        digests = (hashlib.sha256(t.numpy().tobytes()).hexdigest()[:12] for t in self.taught)
        return [f"{name} taught {digest}" for name, digest in zip(names, digests, strict=True)]

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        sample = self.dataset.read(index)
        hidden = torch.full_like(sample["water"], IGNORE)
        taught = _silent(sample) if self.taught is None else self.taught[index].float()
        hiding = Sample(**{**sample, "water": hidden, "taught": taught})
        return hiding if window is None else crop_sample(hiding, window)


class Mixed(FloodDataset):
    """Labelled and unlabelled chips for one training, a fixed share of each.

    The smaller group is repeated, so that random crops come from unlabelled chips with
    probability `share`. Labelled chips carry an empty `taught`; where one group has images from
    before the flood and the other has none, that of the other is invalid everywhere.

    Args:
        labelled: Chips whose labels count.
        unlabelled: Chips whose `taught` counts, see `Unlabelled`, or other labelled ones; of the
            same sensors.
        share: Share of unlabelled chips, above 0 and below 1.

    Raises:
        FloraError: If the share is out of range, or bands or scalings differ.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.unlabelled import Mixed, Unlabelled, drawn
        >>> chips = open_dataset("simulated", None, "train", count=6, size=64)
        >>> mixed = Mixed(drawn(chips, 2, seed=0), Unlabelled(chips), share=0.5)
        >>> len(mixed), [bool((chip["water"] == 255).all()) for chip in mixed].count(True)
        (12, 6)
    """

    def __init__(
        self, labelled: FloodDataset, unlabelled: FloodDataset, share: float = 0.5
    ) -> None:
        if not 0 < share < 1:
            raise FloraError(f"share {share}: expected a share above 0 and below 1")
        for name in ("sar_scaling", "optical_scaling"):
            ours, theirs = getattr(labelled, name), getattr(unlabelled, name)
            if ours != theirs:
                raise FloraError(
                    f"unlabelled chips of {unlabelled.name} have another {name} than the labelled "
                    f"ones of {labelled.name}: open both with the same bands and dates"
                )
        self.labelled, self.unlabelled = labelled, unlabelled
        self.sar_scaling, self.optical_scaling = labelled.sar_scaling, labelled.optical_scaling
        self._before = any("before" in chips[0] for chips in (labelled, unlabelled))
        total = max(len(labelled) / (1 - share), len(unlabelled) / share)
        self._counts = round(total * (1 - share)), round(total * share)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The names of both, which weights are filed under."""
        return " and ".join(dict.fromkeys((self.labelled.name, self.unlabelled.name)))

    def __len__(self) -> int:
        return sum(self._counts)

    def _at(self, index: int) -> tuple[FloodDataset, int]:
        labelled = self._counts[0]
        chips, number = (
            (self.labelled, index) if index < labelled else (self.unlabelled, index - labelled)
        )
        return chips, number % len(chips)

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        chips, number = self._at(index)
        return chips.shape(number)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`."""
        names = {id(chips): chips.manifest() for chips in (self.labelled, self.unlabelled)}
        places = (self._at(index) for index in range(len(self)))
        return [names[id(chips)][number] for chips, number in places]

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        chips, number = self._at(index)
        sample = Sample(**chips.read(number, window))
        if "taught" not in sample:
            sample["taught"] = _silent(sample)
        if self._before and "before" not in sample:
            unseen = torch.zeros_like(sample["optical_valid"])
            sample["before"] = OpticalStack(
                torch.zeros_like(sample["optical"]), torch.zeros_like(sample["index"]), unseen
            )
        return sample

    def preload(self, workers: int = 0) -> None:
        """See `FloodDataset.preload`."""
        self.labelled.preload(workers)
        self.unlabelled.preload(workers)


def _silent(sample: Sample) -> Tensor:
    return torch.full(sample["water"].shape, torch.nan)
