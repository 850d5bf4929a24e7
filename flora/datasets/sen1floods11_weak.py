"""Sen1Floods11's weakly labelled chips: radar images with labels that a rule drew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from flora.datasets.base import FloodDataset, Meta, Sample, Stored, Window, require_folder
from flora.datasets.pairing import complete_chips, files_in, held_out, several
from flora.datasets.rasters import read_grid, read_raster, require_same_grid
from flora.datasets.sen1floods11 import LABEL_MEANING, Sen1Floods11
from flora.datasets.sentinel import decode_labels, read_sentinel1
from flora.errors import FloraError
from flora.grid import Grid
from flora.sensors import DECIBEL, IGNORE, SENTINEL1, SENTINEL2_RGB, BoolArray

LabelLayer = Literal["S2IndexLabelWeak", "S1OtsuLabelWeak"]

_LAYOUT = "v1.1/data/flood_events/WeaklyLabeled/{S1Weak,S2IndexLabelWeak,S1OtsuLabelWeak}"


class Sen1Floods11Weak(FloodDataset):
    """The weakly labelled part of Sen1Floods11 v1.1: 4,385 chips, labelled by rule, not by hand.

    Two labels come with each radar image (sigma0 in dB, VV and VH). "S2IndexLabelWeak" is from
    spectral indices of a Sentinel-2 image, the better teacher; "S1OtsuLabelWeak" is an Otsu
    threshold on VH, so a model that learns it learns that threshold. Both hold all water, are
    wrong in places, and are for training, never for a score.

    There is no optical image in this part: `optical` and `index` are zeros and `optical_valid` is
    false everywhere, so that losses and scores of the optical output count nothing. It can train
    water (`UNet`, or FLoRA's student with a teacher trained elsewhere), but not a teacher.

    Splits: "train" is every place but Bolivia, which the hand-labelled part holds out;
    "train-without-Spain" leaves out Spain as well, for use with the hand-labelled "only-Spain";
    "only-Spain" is what it leaves out.

    Args:
        root: The folder that holds `v1.1`, or `v1.1` itself.
        split: "train", "train-without-PLACE" or "only-PLACE".
        label: The label layer; only this one has to be on disk.
        exclude: Chip ids to leave out, e.g. "Ghana_1078550".

    Raises:
        FloraError: If an argument is unknown, or files are missing or unpaired.
    """

    name: ClassVar[str] = "sen1floods11-weak"
    splits: ClassVar[tuple[str, ...]] = ("train",)
    urls: ClassVar[tuple[str, ...]] = Sen1Floods11.urls
    citation: ClassVar[str] = Sen1Floods11.citation
    label_codes: ClassVar[dict[int, int]] = Sen1Floods11.label_codes
    label_layers: ClassVar[tuple[LabelLayer, ...]] = ("S2IndexLabelWeak", "S1OtsuLabelWeak")
    stored: ClassVar[Stored] = {"S1Weak": (SENTINEL1.bands, DECIBEL)}
    held_out_place: ClassVar[str] = "Bolivia"

    def __init__(
        self,
        root: Path,
        split: str,
        label: LabelLayer = "S2IndexLabelWeak",
        exclude: Sequence[str] = (),
    ) -> None:
        if label not in self.label_layers:
            raise FloraError(
                f"{self.name}: no label {label!r}; choose {' or '.join(self.label_layers)}"
            )
        places = list(Sen1Floods11.dates)
        part = held_out(split)
        if split != "train" and (part is None or part[0] == "valid" or part[1] not in places):
            raise FloraError(
                f"{self.name}: no split {split!r}; choose train, train-without-PLACE or "
                f"only-PLACE, where PLACE is one of {', '.join(places)}"
            )
        self.sar_scaling = SENTINEL1
        self.optical_scaling = SENTINEL2_RGB
        self.split = split
        self.label = label
        root = require_folder(Path(root), self.name, _LAYOUT)
        root = root / "v1.1" if (root / "v1.1").is_dir() else root
        weak = root / "data" / "flood_events" / "WeaklyLabeled"
        self._folders = {
            layer: require_folder(weak / layer, self.name, _LAYOUT) for layer in ("S1Weak", label)
        }
        found = {layer: _chips(folder, layer) for layer, folder in self._folders.items()}
        wanted = set(places) - {self.held_out_place}
        if part is not None:
            wanted = {part[1]} if part[0] == "only" else wanted - {part[1]}
        chips = sorted(set().union(*found.values()) - set(several(exclude)))
        listed = [chip for chip in chips if chip.split("_")[0] in wanted]
        missing = {
            chip: [self._file(chip, layer) for layer in found if chip not in found[layer]]
            for chip in listed
        }
        self._chips = complete_chips(missing, len(found), f"{self.name}, split {split!r}")
        self._grids: dict[int, Grid] = {}

    @classmethod
    def parts(cls, root: Path) -> list[tuple[str, dict[str, str]]]:
        """See `FloodDataset.parts`; every label layer that is there."""
        base = root / "v1.1" if (root / "v1.1").is_dir() else root
        weak = base / "data" / "flood_events" / "WeaklyLabeled"
        found = [layer for layer in cls.label_layers if (weak / layer).is_dir()]
        return [
            (split, {"label": layer})
            for layer in found or cls.label_layers[:1]
            for split in ("train", f"only-{cls.held_out_place}")
        ]

    def __len__(self) -> int:
        return len(self._chips)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are EVENT_CHIPID with the label layer."""
        return [f"{chip}_{self.label}" for chip in self._chips]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        if index not in self._grids:
            self._grids[index] = read_grid(self.path(index, "S1Weak"))
        return self._grids[index].shape

    def path(self, index: int, layer: str) -> Path:
        """The file of chip `index` for layer "S1Weak" or the label layer."""
        return self._file(self._chips[index], layer)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`.

        Raises:
            FloraError: If a file is unreadable, has other bands or another grid than the other,
                or if the radar image is empty, infinite or not in dB.
        """
        chip = self._chips[index]
        sar_path, label_path = self.path(index, "S1Weak"), self.path(index, self.label)
        sar, grid = read_sentinel1(sar_path, window)
        label = read_raster(label_path, ("label",), window)
        require_same_grid(grid, sar_path, label.grid, label_path)
        sar_valid: BoolArray = np.asarray(np.isfinite(sar).all(axis=0))
        labelled = decode_labels(label.values[0], self.label_codes, label_path, LABEL_MEANING)
        size = sar_valid.shape
        place = chip.split("_")[0]
        return Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sar, sar_valid)),
            sar_valid=torch.from_numpy(sar_valid),
            optical=torch.zeros(len(self.optical_scaling.bands), *size),
            optical_valid=torch.zeros(size, dtype=torch.bool),
            index=torch.zeros(1, *size),
            water=torch.from_numpy(np.where(sar_valid, labelled, IGNORE)),
            meta=Meta(
                id=chip,
                place=place,
                date=Sen1Floods11.dates.get(place),
                crs=grid.crs_name,
                transform=grid.numbers,
                split=self.split,
            ),
        )

    def _file(self, chip: str, layer: str) -> Path:
        return self._folders[layer] / f"{chip}_{layer}.tif"


def _chips(folder: Path, layer: str) -> set[str]:
    """Ids (EVENT_CHIPID) of the files of a layer."""
    chips = set()
    for path in files_in(folder, "*.tif"):
        match = re.fullmatch(rf"([A-Za-z-]+_\d+)_{layer}", path.stem)
        if match is None:
            raise FloraError(f"{path}: expected a name EVENT_CHIPID_{layer}.tif; remove the file")
        chips.add(match[1])
    return chips
