"""Sen1Floods11: Sentinel-1 and Sentinel-2 chips of eleven floods, labelled by hand."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from flora.datasets.base import FloodDataset, Meta, Sample, Stored, Window, require_folder
from flora.datasets.blocks import touching, whole_blocks
from flora.datasets.fetch.publishers import Bucket, Publisher
from flora.datasets.pairing import (
    complete_chips,
    held_out,
    read_lines,
    require_split,
    several,
)
from flora.datasets.rasters import read_grid, read_raster, require_same_grid
from flora.datasets.sentinel import decode_labels, read_sentinel1, read_sentinel2
from flora.errors import FloraError
from flora.grid import Grid
from flora.sensors import (
    DECIBEL,
    DRY,
    IGNORE,
    REFLECTANCE,
    SENTINEL1,
    SENTINEL2_BANDS,
    SENTINEL2_RGB,
    WATER,
    BoolArray,
)

Scheme = Literal["official", "blocked"]

# Each layer's folder in the publisher's layout and in the mirror that TerraMind uses.
_FOLDERS = {
    "S1Hand": ("S1Hand", "S1GRDHand"),
    "S2Hand": ("S2Hand", "S2L1CHand"),
    "LabelHand": ("LabelHand",),
}
LABEL_MEANING = "-1 (no data), 0 (not water), 1 (water)"
_LAYOUT = (
    "v1.1/data/flood_events/HandLabeled/{S1Hand,S2Hand,LabelHand} and v1.1/splits/flood_handlabeled"
)


class Sen1Floods11(FloodDataset):
    """The hand-labelled part of Sen1Floods11 v1.1: 446 chips of 512 x 512 px at about 10 m.

    The radar image is Sentinel-1 sigma0 in dB (VV, VH), the optical image Sentinel-2 Level-1C a
    few days apart at most. The label is all water, rivers and lakes included, not only flood.

    Splits: the official train, valid and test share their countries; of the official ones only
    "bolivia" is a place never trained on. The recommended ones leave one country out:
    "train-without-Spain" and "valid-without-Spain" are the official train and valid chips of every
    other country, "only-Spain" is every chip of Spain, whichever list it is in. None of the
    training splits holds a chip of Bolivia. Places are called as in the files' names: Cambodia is
    "Mekong".

    Many chips lie side by side: 30 of the 90 official test chips share an edge with a training
    chip, 35 an edge or a corner. The scheme "blocked" keeps chips that touch in one split and moves
    no other chip. 86 change their split, the sizes stay (252, 89 and 90), and Spain, where all
    chips touch, is in the test. It is worked out from where the chips on disk lie, so complete the
    download first; the manifest names the block of each chip, by its first chip.

    Water is 255 where the label says "no data" and where the radar measured nothing: nothing can
    be asked of a radar method there.

    Args:
        root: The folder that holds `v1.1`, or `v1.1` itself.
        split: "train" (252 chips), "valid" (89), "test" (90), "bolivia" (15), or one that leaves
            a country out, see above.
        require_all: If false, chips of which no file is on disk are left out of the split.
        exclude: Chip ids to leave out, e.g. "Spain_7370579".
        scheme: "official", or "blocked", see above.
        include_damaged: Keep the chips that are known to be damaged; the class lists them as
            `damaged`.

    Raises:
        FloraError: If the split or the scheme is unknown, the split is empty, or files are missing.
    """

    name: ClassVar[str] = "sen1floods11"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "bolivia")
    urls: ClassVar[tuple[str, ...]] = (
        "https://github.com/cloudtostreet/Sen1Floods11",
        "https://storage.googleapis.com/sen1floods11/v1.1/",
    )
    citation: ClassVar[str] = (
        "Bonafilia, D., Tellman, B., Anderson, T., Issenberg, E. (2020). Sen1Floods11: a "
        "georeferenced dataset to train and test deep learning flood algorithms for Sentinel-1. "
        "CVPR Workshops. Contains modified Copernicus Sentinel data."
    )
    publisher: ClassVar[Publisher] = Bucket(
        name=name,
        page=urls[0],
        licence="none stated by its authors",
        by_hand="copy gs://sen1floods11/v1.1 with Google's gcloud or gsutil into ROOT/v1.1",
        note=(
            "The official splits hold chips of all places. Where only some places are fetched, "
            "open each as split only-PLACE; flora check will name the rest as missing."
        ),
        bucket="sen1floods11",
        folders={  # about 14 GB all three, 1.8 GB of them labelled by hand
            "hand": "v1.1/data/flood_events/HandLabeled/",
            "weak": "v1.1/data/flood_events/WeaklyLabeled/",
            "perm": "v1.1/data/perm_water/",
        },
        shared=("v1.1/splits/", "v1.1/Sen1Floods11_Metadata.geojson"),
        loaders={"hand": "sen1floods11", "weak": "sen1floods11-weak"},
        renamed={"cambodia": "mekong"},
        parts=("hand",),
    )
    label_codes: ClassVar[dict[int, int]] = {-1: IGNORE, 0: DRY, 1: WATER}
    stored: ClassVar[Stored] = {
        "S1Hand": (SENTINEL1.bands, DECIBEL),
        "S2Hand": (SENTINEL2_BANDS, REFLECTANCE),
    }
    damaged: ClassVar[dict[str, str]] = {
        "Paraguay_34417": "its radar image holds no data, though its label holds water"
    }
    dates: ClassVar[dict[str, str]] = {  # of the radar image, from the dataset's metadata
        "Bolivia": "2018-02-15",
        "Ghana": "2018-09-18",
        "India": "2016-08-12",
        "Mekong": "2018-08-05",  # "Cambodia" in the metadata
        "Nigeria": "2018-09-21",
        "Pakistan": "2017-06-28",
        "Paraguay": "2018-10-31",
        "Somalia": "2018-05-07",
        "Spain": "2019-09-17",
        "Sri-Lanka": "2017-05-30",
        "USA": "2019-05-22",
    }

    def __init__(
        self,
        root: Path,
        split: str,
        require_all: bool = True,
        exclude: Sequence[str] = (),
        scheme: Scheme = "official",
        include_damaged: bool = False,
    ) -> None:
        if scheme not in ("official", "blocked"):
            raise FloraError(f"{self.name}: no scheme {scheme!r}; choose official or blocked")
        require_split(self.name, split, self.splits, list(self.dates))
        self.sar_scaling = SENTINEL1
        self.optical_scaling = SENTINEL2_RGB
        self.split = split
        root = require_folder(Path(root), self.name, _LAYOUT)
        root = root / "v1.1" if (root / "v1.1").is_dir() else root
        left_out = set(several(exclude)) | set(() if include_damaged else self.damaged)
        listed = _split_chips(partial(_listed_chips, root), split)
        self._folders = {layer: _layer_folder(root, layer) for layer in _FOLDERS}
        self._blocks: dict[str, str] = {}
        if scheme == "blocked":
            lists = {name: _listed_chips(root, name) for name in self.splits}
            lists = self._blocked(lists, left_out, require_all)
            listed = _split_chips(lists.__getitem__, split)
        listed = [chip for chip in listed if chip not in left_out]
        missing = {
            chip: [path for path in self._files(chip) if not path.is_file()] for chip in listed
        }
        where = f"{self.name}, split {split!r}"
        self._chips = complete_chips(missing, len(_FOLDERS), where, require_all)
        self._grids: dict[int, Grid] = {}

    def __len__(self) -> int:
        return len(self._chips)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are EVENT_CHIPID, with the block of a blocked split."""
        if not self._blocks:
            return list(self._chips)
        return [f"{chip} in block {self._blocks[chip]}" for chip in self._chips]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        if index not in self._grids:
            self._grids[index] = read_grid(self.path(index, "S1Hand"))
        return self._grids[index].shape

    def path(self, index: int, layer: str) -> Path:
        """The file of chip `index` for layer "S1Hand", "S2Hand" or "LabelHand"."""
        return self._folders[layer] / f"{self._chips[index]}_{layer}.tif"

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`.

        Raises:
            FloraError: If a file is unreadable, has other bands or another grid than the rest, or
                if the radar image is empty, infinite or not in dB.
        """
        chip = self._chips[index]
        sar_path, optical_path, label_path = self._files(chip)
        sar, grid = read_sentinel1(sar_path, window)
        optical = read_sentinel2(optical_path, self.optical_scaling, window)
        require_same_grid(grid, sar_path, optical.grid, optical_path)
        label = read_raster(label_path, ("label",), window)
        require_same_grid(grid, sar_path, label.grid, label_path)

        sar_valid: BoolArray = np.asarray(np.isfinite(sar).all(axis=0))
        labelled = decode_labels(label.values[0], self.label_codes, label_path, LABEL_MEANING)
        place = chip.split("_")[0]
        return Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sar, sar_valid)),
            sar_valid=torch.from_numpy(sar_valid),
            optical=torch.from_numpy(optical.image),
            optical_valid=torch.from_numpy(optical.valid),
            index=torch.from_numpy(optical.index),
            water=torch.from_numpy(np.where(sar_valid, labelled, IGNORE)),
            meta=Meta(
                id=chip,
                place=place,
                date=self.dates.get(place),
                crs=grid.crs_name,
                transform=grid.numbers,
                split=self.split,
            ),
        )

    def _blocked(
        self, lists: dict[str, list[str]], left_out: set[str], require_all: bool
    ) -> dict[str, list[str]]:
        """The lists of the splits, changed so that no two hold chips that touch.

        Chips that are left out count where they are on disk, so that no other moves for them.
        """
        official = {chip: name for name, chips in lists.items() for chip in chips}
        missing = {
            chip: [path for path in self._files(chip)[:1] if not path.is_file()]
            for chip in official
        }
        missing = {c: paths for c, paths in missing.items() if not paths or c not in left_out}
        present = complete_chips(missing, 1, f"{self.name}, all splits", require_all)
        grids = {chip: read_grid(self._files(chip)[0]) for chip in present}
        pixel = max(abs(grid.transform[0]) for grid in grids.values())
        self._blocks = touching({chip: grid.bounds for chip, grid in grids.items()}, gap=pixel)
        chosen = whole_blocks({chip: official[chip] for chip in present}, self._blocks)
        return {name: [chip for chip in chosen if chosen[chip] == name] for name in lists}

    def _files(self, chip: str) -> list[Path]:
        return [folder / f"{chip}_{layer}.tif" for layer, folder in self._folders.items()]


def _layer_folder(root: Path, layer: str) -> Path:
    """The folder of a layer; the publisher's, where none is there."""
    parents = (root / "data" / "flood_events" / "HandLabeled", root / "data")
    candidates = [parent / name for parent in parents for name in _FOLDERS[layer]]
    found = next((folder for folder in candidates if folder.is_dir()), None)
    return found or require_folder(candidates[0], "sen1floods11", _LAYOUT)


def _split_chips(listed: Callable[[str], list[str]], split: str) -> list[str]:
    """Chip ids (EVENT_CHIPID) of a listed split, or of one that holds out a place."""
    part = held_out(split)
    if part is None:
        return listed(split)
    kind, place = part
    lists = Sen1Floods11.splits if kind == "only" else (kind,)
    chips = [chip for name in lists for chip in listed(name)]
    return [chip for chip in chips if (chip.split("_")[0] == place) == (kind == "only")]


def _listed_chips(root: Path, split: str) -> list[str]:
    """Chip ids of the official split list: rows of radar file, label file."""
    path = root / "splits" / "flood_handlabeled" / f"flood_{split}_data.csv"
    if not path.is_file():
        raise FloraError(f"sen1floods11: no split list {path}: expected {_LAYOUT} under --root")
    chips = []
    for line in read_lines(path):
        # Each line by itself: over an open quote, a reader of CSV would swallow the lines after it.
        (row,) = csv.reader([line])
        names = [re.fullmatch(r"([A-Za-z-]+_\d+)_[A-Za-z0-9]+\.tif", name.strip()) for name in row]
        ids = {match and match[1] for match in names}
        if len(ids) != 1 or None in ids:
            raise FloraError(
                f"{path}: row {line!r} is not a pair EVENT_CHIPID_S1Hand.tif, "
                "EVENT_CHIPID_LabelHand.tif of one chip: download the list again"
            )
        chips.append(str(ids.pop()))
    if len(set(chips)) != len(chips):
        raise FloraError(f"{path} lists a chip twice: download the list again")
    return chips
