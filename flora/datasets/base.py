"""What every dataset serves: the sample, and what keeps its layers together."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NotRequired, TypedDict, TypeVar, cast, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from flora.datasets.fetch.publishers import Publisher
from flora.errors import FloraError
from flora.predictors import MODES, Mode
from flora.sensors import Limits, OpticalScaling, OpticalStack, SarScaling

Date = Literal["before", "after"]
"""Of the images of a flood."""


class Meta(TypedDict):
    """Where and when a sample was taken.

    `crs` and `transform` (six numbers, of the whole chip) are None without georeference.
    """

    id: str
    place: str
    date: str | None
    crs: str | None
    transform: tuple[float, ...] | None
    split: str


class ChipLayers(TypedDict):
    """The layers of `Sample` and `Batch`."""

    sar: Tensor
    sar_valid: Tensor
    optical: Tensor
    optical_valid: Tensor
    index: Tensor
    water: Tensor
    before: NotRequired[OpticalStack]
    taught: NotRequired[Tensor]


class Sample(ChipLayers):
    """One chip, the same for every dataset.

    Attributes:
        sar: float32 (C_s, H, W), normalised by the dataset's `sar_scaling`, 0 in nodata.
        sar_valid: bool (H, W), false where the radar measured nothing.
        optical: float32 (C_o, H, W) in [0, 1]; red, green, blue first where they exist.
        optical_valid: bool (H, W), false in nodata and cloud.
        index: float32 (1, H, W) in [-1, 1], the index that `optical_scaling` names.
        water: int64 (H, W), 0 dry, 1 water, 255 ignore.
        before: image, index and validity from before the flood, where the dataset has them.
        taught: float32 (H, W), probability of water in [0, 1] that a teacher gives where there is
            no label, NaN where it is silent; only in what `flora.datasets.unlabelled.Unlabelled`
            serves.
        meta: where and when it was taken: `id`, `place`, `date`, `crs`, `transform` (six numbers,
            of the whole chip) and `split`; None what is not known.

    Example:
        >>> from flora import open_dataset
        >>> sample = open_dataset("simulated", None, "test", count=1, size=64)[0]
        >>> sample["optical"].shape, sample["index"].shape, sample["water"].dtype
        (torch.Size([3, 64, 64]), torch.Size([1, 64, 64]), torch.int64)
        >>> sample["meta"]["place"], sample["meta"]["crs"]
        ('simulated', 'EPSG:4326')
    """

    meta: Meta


class Batch(ChipLayers):
    """Samples stacked along a first axis B; the fields of `Sample`, `meta` as a list."""

    meta: list[Meta]


# Layers that are files of physical values: their bands, and what these can be.
Stored = Mapping[str, tuple[tuple[str, ...], Limits]]

Layered = TypeVar("Layered", Sample, Batch)


@dataclass(frozen=True)
class Window:
    """A rectangle of a chip, in pixels from its top left corner."""

    row: int
    column: int
    height: int
    width: int


class FloodDataset(Dataset[Sample], ABC):
    """A dataset of paired SAR, optical and water layers.

    A subclass declares itself in class-level data and reads one chip, whole or a window of it.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.base import Window
        >>> chips = open_dataset("simulated", None, "valid", count=3, size=64)
        >>> chips.sar_scaling.bands, chips.shape(0)
        (('VV', 'VH'), (64, 64))
        >>> chips.read(0, Window(row=16, column=0, height=32, width=48))["water"].shape
        torch.Size([32, 48])
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    citation: ClassVar[str]
    urls: ClassVar[tuple[str, ...]] = ()
    publisher: ClassVar[Publisher | None] = None
    truth: ClassVar[str] = ""  # what should be known of the labels, if anything
    classes: ClassVar[Mapping[int, str] | None] = None  # where there are more than water and dry
    stored: ClassVar[Stored] = {}
    sar_scaling: SarScaling
    optical_scaling: OpticalScaling

    @abstractmethod
    def __len__(self) -> int:
        """Number of chips in the split."""

    @abstractmethod
    def read(self, index: int, window: Window | None = None) -> Sample:
        """Read chip `index`, or only a window of it."""

    @abstractmethod
    def shape(self, index: int) -> tuple[int, int]:
        """(rows, columns) of chip `index`, without reading its pixels."""

    @abstractmethod
    def manifest(self) -> list[str]:
        """One identifier a chip, in reading order; recorded with every result."""

    @classmethod
    def parts(cls, root: Path) -> list[tuple[str, dict[str, str]]]:
        """Splits that together hold every chip in `root` once, each with options to open it."""
        return [(split, {}) for split in cls.splits]

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"chip {index} of {len(self)} in {self.name}")
        return self.read(index % len(self))

    def preload(self, workers: int = 0) -> None:
        """Read what is kept in memory, for those that keep something, see `InMemory`."""

    def manifest_hash(self) -> str:
        """SHA-256 of the manifest: two runs with the same hash saw the same chips."""
        return hashlib.sha256("\n".join(self.manifest()).encode()).hexdigest()


def map_layers(sample: Layered, change: Callable[[Tensor], Tensor]) -> Layered:
    """The same change of every layer of a sample or a batch, `meta` left as it is."""
    changed = {
        key: change(value)
        if isinstance(value, Tensor)
        else value.map(change)
        if isinstance(value, OpticalStack)
        else value
        for key, value in sample.items()
    }
    return cast(Layered, changed)


def layers(sample: Sample | Batch) -> Iterator[Tensor]:
    """Every layer of a sample or a batch."""
    for value in sample.values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, OpticalStack):
            yield from (value.image, value.index, value.valid)


def crop_sample(sample: Sample, window: Window) -> Sample:
    """Cut the same window out of every layer of a sample.

    Raises:
        FloraError: If the window leaves the chip.
    """
    rows, columns = sample["water"].shape[-2:]
    bottom, right = window.row + window.height, window.column + window.width
    if min(window.row, window.column) < 0 or bottom > rows or right > columns:
        raise FloraError(f"{window} leaves the chip of {rows} x {columns} px: crop inside it")
    return map_layers(sample, lambda x: x[..., window.row : bottom, window.column : right])


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size into a batch; `meta` becomes a list.

    Example:
        >>> from flora import collate, open_dataset
        >>> chips = open_dataset("simulated", None, "train", count=2, size=64)
        >>> batch = collate([chips[0], chips[1]])
        >>> batch["sar"].shape, batch["water"].shape, len(batch["meta"])
        (torch.Size([2, 2, 64, 64]), torch.Size([2, 64, 64]), 2)
    """
    batch: dict[str, Any] = {
        key: torch.stack([cast(Tensor, sample[key]) for sample in samples])  # type: ignore[literal-required]
        for key, value in samples[0].items()
        if isinstance(value, Tensor)
    }
    if "before" in samples[0]:
        earlier = [sample["before"] for sample in samples]
        batch["before"] = OpticalStack(
            image=torch.stack([stack.image for stack in earlier]),
            index=torch.stack([stack.index for stack in earlier]),
            valid=torch.stack([stack.valid for stack in earlier]),
        )
    batch["meta"] = [sample["meta"] for sample in samples]
    return cast(Batch, batch)


@overload
def optical_stack(batch: Sample | Batch, mode: Literal["before", "oracle"]) -> OpticalStack: ...


@overload
def optical_stack(batch: Sample | Batch, mode: Mode) -> OpticalStack | None: ...


def optical_stack(batch: Sample | Batch, mode: Mode) -> OpticalStack | None:
    """The optical image that may be looked at in a mode: none in mode "sar".

    Raises:
        FloraError: If the mode is unknown, or is "before" and the dataset has no such image.

    Example:
        >>> from flora import open_dataset
        >>> from flora.datasets.base import optical_stack
        >>> sample = open_dataset("simulated", None, "test", count=1, size=64)[0]
        >>> optical_stack(sample, "before").image.shape
        torch.Size([3, 64, 64])
    """
    if mode == "sar":
        return None
    if mode == "oracle":
        seen = (batch["optical"], batch["index"], batch["optical_valid"])
        return OpticalStack(*seen, of_flood=True)
    if mode != "before":
        raise FloraError(f"mode {mode!r}: expected one of {', '.join(MODES)}")
    if "before" not in batch:
        raise FloraError(
            'mode "before": this dataset has no optical image from before the flood; use mode '
            '"sar", or a dataset that has one (ombria, simulated)'
        )
    return batch["before"]


def require_folder(path: Path, dataset: str, expected: str) -> Path:
    """Return `path` if it is a folder, else say what the dataset's layout asks for.

    Raises:
        FloraError: If the folder does not exist.
    """
    if not path.is_dir():
        raise FloraError(f"{dataset}: no folder {path}: expected {expected}; check the path")
    return path
