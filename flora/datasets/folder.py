"""Chips of your own: radar, and as much of optical images and labels as there is, in one folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from flora.datasets.base import FloodDataset, Meta, Sample, Window, require_folder
from flora.datasets.pairing import files_in, several
from flora.datasets.rasters import read_grid, read_raster, require_same_grid
from flora.datasets.sentinel import decode_labels, read_optical, read_sentinel1
from flora.errors import FloraError, FloraWarning
from flora.grid import Grid
from flora.sensors import (
    DRY,
    IGNORE,
    SENTINEL1,
    SENTINEL2_RGB,
    WATER,
    BoolArray,
    OpticalStack,
    Units,
    require_units,
)

# What a file holds, by the end of its name in small letters. A file without such an end is the
# label of the chip that has its name.
_ENDS = {
    "sar": "sar",
    "s1": "sar",
    "s1hand": "sar",
    "vv": "vv",
    "vh": "vh",
    "optical": "optical",
    "s2": "optical",
    "s2hand": "optical",
    "before": "before",
    "label": "label",
    "labelhand": "label",
}
_LAYOUT = "NAME_sar.tif (or NAME_vv.tif and NAME_vh.tif), NAME_optical.tif, NAME_label.tif"
_MEANING = "0 (dry), 1 (water), and 255 or -1 (no label)"


@dataclass(frozen=True)
class _Chip:
    """The files of one chip; None what it lacks.

    Attributes:
        name: What their names share.
        sar: The radar file of both bands, or one of each.
        optical: The optical image of nearly the same day.
        before: That from before the flood.
        label: The label.
    """

    name: str
    sar: Path | tuple[Path, Path]
    optical: Path | None
    before: Path | None
    label: Path | None

    @property
    def first(self) -> Path:
        """The file that gives the grid."""
        return self.sar if isinstance(self.sar, Path) else self.sar[0]


class Folder(FloodDataset):
    """Chips of your own, in a folder and the folders in it; only radar is needed.

    The files of a chip share its name and one grid, and end in what they hold:

    - `NAME_sar.tif`: VV and VH, or `NAME_vv.tif` and `NAME_vh.tif`; NaN or the file's nodata value
      where nothing was measured. Or `NAME_S1Hand.tif`, as Sen1Floods11 calls it.
    - `NAME_optical.tif` (`NAME_S2Hand.tif`): the image of nearly the same day: the 13 bands of
      Sentinel-2 Level-1C, whose clouds are masked here, or Level-2A, or B4, B3, B2 and B8, whose
      clouds have to be 0; in another order if described (`B4`, `red`); reflectance x 10000, 0 in
      nodata.
    - `NAME_before.tif`: such an image from before the flood, as `flora search` writes it.
    - `NAME_label.tif` (`NAME_LabelHand.tif`, or `NAME.tif`): 0 dry, 1 water, 255 or -1 no label.

    A chip without an optical image has one that is invalid everywhere; without a label its water
    is 255 everywhere, so it trains what needs no label. Where one chip has an image from before the
    flood, the others have one that is invalid. The part of a name before its last `_` is its place:
    "Ghana" of `Ghana_53713_sar.tif`.

    Args:
        root: The folder.
        split: "all" for every chip in it; "train", "valid" or "test" for those in the folder of
            that name in it.
        units: Units of the radar files: "db" or "linear".
        exclude: Names of chips to leave out.

    Raises:
        FloraError: If an argument is unknown, the folder holds no chip, or a chip has no radar or
            two files for one layer.

    Warns:
        FloraWarning: If there are files of no chip.

    Example:
        >>> from flora import open_dataset
        >>> chips = open_dataset("folder", "my-chips", "all")  # doctest: +SKIP
    """

    name: ClassVar[str] = "folder"
    splits: ClassVar[tuple[str, ...]] = ("all", "train", "valid", "test")
    citation: ClassVar[str] = "Chips of your own."
    label_codes: ClassVar[dict[int, int]] = {-1: IGNORE, 0: DRY, 1: WATER, 255: IGNORE}

    def __init__(
        self,
        root: Path,
        split: str,
        units: Units = "db",
        exclude: Sequence[str] = (),
    ) -> None:
        if split not in self.splits:
            raise FloraError(f"{self.name}: no split {split!r}; choose {', '.join(self.splits)}")
        require_units(units)
        root = require_folder(Path(root), self.name, _LAYOUT)
        if split != "all":
            here = f"chips in a folder {split!r}, or split 'all'"
            root = require_folder(root / split, self.name, here)
        self.sar_scaling = SENTINEL1
        self.optical_scaling = SENTINEL2_RGB
        self.split = split
        self.units: Units = units
        left_out = set(several(exclude))
        self._chips = [chip for chip in _chips(root) if chip.name not in left_out]
        if not self._chips:
            raise FloraError(f"{self.name}: no chip in {root}: expected {_LAYOUT}")
        self._earlier = any(chip.before for chip in self._chips)
        self._grids: dict[int, Grid] = {}

    @classmethod
    def parts(cls, root: Path) -> list[tuple[str, dict[str, str]]]:
        """See `FloodDataset.parts`."""
        return [(split, {}) for split in cls.splits if (root / split).is_dir()] or [("all", {})]

    def __len__(self) -> int:
        return len(self._chips)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are the chips' names."""
        return [chip.name for chip in self._chips]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        if index not in self._grids:
            self._grids[index] = read_grid(self._chips[index].first)
        return self._grids[index].shape

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`.

        Raises:
            FloraError: If a file is unreadable, has other bands, codes or another grid than
                expected, or if the radar image is empty, infinite or not in `units`.
        """
        chip = self._chips[index]
        sar, grid = read_sentinel1(chip.sar, window, self.units)
        sar_valid: BoolArray = np.asarray(np.isfinite(sar).all(axis=0))

        def optical_of(path: Path | None) -> OpticalStack:
            if path is None:
                return _nothing_seen(len(self.optical_scaling.bands), sar_valid.shape)
            found = read_optical(path, self.optical_scaling, window)
            require_same_grid(grid, chip.first, found.grid, path)
            return OpticalStack(
                *(torch.from_numpy(layer) for layer in (found.image, found.index, found.valid))
            )

        water = torch.full(sar_valid.shape, IGNORE, dtype=torch.int64)
        if chip.label is not None:
            label = read_raster(chip.label, ("label",), window)
            require_same_grid(grid, chip.first, label.grid, chip.label)
            codes = decode_labels(label.values[0], self.label_codes, chip.label, _MEANING)
            water = torch.from_numpy(np.where(sar_valid, codes, IGNORE))
        optical = optical_of(chip.optical)
        sample = Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sar, sar_valid)),
            sar_valid=torch.from_numpy(sar_valid),
            optical=optical.image,
            optical_valid=optical.valid,
            index=optical.index,
            water=water,
            meta=Meta(
                id=chip.name,
                place=chip.name.rpartition("_")[0] or chip.name,
                date=None,
                crs=grid.crs_name,
                transform=grid.numbers,
                split=self.split,
            ),
        )
        if self._earlier:
            sample["before"] = optical_of(chip.before)
        return sample


def _nothing_seen(bands: int, size: tuple[int, ...]) -> OpticalStack:
    return OpticalStack(
        image=torch.zeros(bands, *size),
        index=torch.zeros(1, *size),
        valid=torch.zeros(size, dtype=torch.bool),
    )


def _chips(root: Path) -> list[_Chip]:
    """The chips of a folder and those in it, by name."""
    found: dict[str, dict[str, Path]] = {}
    bare = []
    for path in files_in(root, "**/*.tif", "**/*.tiff"):
        name, _, end = path.stem.rpartition("_")
        if name and end.lower() in _ENDS:
            _add(found.setdefault(name, {}), name, _ENDS[end.lower()], path)
        else:
            bare.append(path)
    strangers = [path for path in bare if path.stem not in found]
    for path in bare:
        if path.stem in found:
            _add(found[path.stem], path.stem, "label", path)
    if strangers and found:
        warnings.warn(
            f"folder: {len(strangers)} files in {root} belong to no chip, the first is "
            f"{strangers[0].name}: expected {_LAYOUT}",
            FloraWarning,
            stacklevel=3,
        )
    return [_chip(name, files) for name, files in sorted(found.items())]


def _add(files: dict[str, Path], name: str, layer: str, path: Path) -> None:
    if layer in files:
        raise FloraError(
            f"folder: {files[layer]} and {path} are both the {layer} of chip {name}: remove one"
        )
    files[layer] = path


def _chip(name: str, files: dict[str, Path]) -> _Chip:
    sar = files.get("sar") or (files.get("vv"), files.get("vh"))
    if isinstance(sar, tuple) and None in sar:
        raise FloraError(
            f"folder: chip {name} has {', '.join(path.name for path in files.values())} and no "
            f"radar image: expected {name}_sar.tif, or {name}_vv.tif and {name}_vh.tif; add it, or "
            "move the chip's other files away"
        )
    layers = (files.get(layer) for layer in ("optical", "before", "label"))
    return _Chip(name, sar, *layers)  # type: ignore[arg-type]  # no None is left in it
