"""Sen1Floods11: Sentinel-1 and Sentinel-2 chips of eleven floods, labelled by hand."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from flora.datasets.base import FloodDataset, Meta, Sample, Window, require_folder
from flora.datasets.rasters import (
    Grid,
    looks_linear,
    read_grid,
    read_raster,
    require_decibel,
    require_same_grid,
)
from flora.errors import FloraError
from flora.sensors import (
    DRY,
    IGNORE,
    SENTINEL1,
    SENTINEL2_BANDS,
    SENTINEL2_RGB,
    WATER,
    BoolArray,
    FloatArray,
    normalised_difference,
)

CLOUD_SCORE = 0.2

# Each layer's folder in the publisher's layout and in the mirror that TerraMind uses.
_FOLDERS = {
    "S1Hand": ("S1Hand", "S1GRDHand"),
    "S2Hand": ("S2Hand", "S2L1CHand"),
    "LabelHand": ("LabelHand",),
}
_LAYOUT = (
    "v1.1/data/flood_events/HandLabeled/{S1Hand,S2Hand,LabelHand} and v1.1/splits/flood_handlabeled"
)


class Sen1Floods11(FloodDataset):
    """The hand-labelled part of Sen1Floods11 v1.1: 446 chips of 512 x 512 px at about 10 m.

    The radar image is Sentinel-1 sigma0 in dB (VV, VH), the optical image Sentinel-2 Level-1C a
    few days apart at most. The label is all water, rivers and lakes included, not only flood.
    Train, valid and test share their countries; only `bolivia` is a place never trained on.

    Water is 255 where the label says "no data" and where the radar measured nothing: nothing can
    be asked of a radar method there.

    Args:
        root: The folder that holds `v1.1`, or `v1.1` itself.
        split: "train" (252 chips), "valid" (89), "test" (90) or "bolivia" (15).
        require_all: If false, chips of which no file is on disk are left out of the split.
        exclude: Chip ids to leave out, e.g. "Spain_7370579".

    Raises:
        FloraError: If the split is unknown or empty, or files are missing.
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
    label_codes: ClassVar[dict[int, int]] = {-1: IGNORE, 0: DRY, 1: WATER}
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
    ) -> None:
        if split not in self.splits:
            raise FloraError(f"{self.name}: no split {split!r}; choose {', '.join(self.splits)}")
        self.sar_scaling = SENTINEL1
        self.optical_scaling = SENTINEL2_RGB
        self.split = split
        root = require_folder(Path(root), self.name, _LAYOUT)
        root = root / "v1.1" if (root / "v1.1").is_dir() else root
        listed = [chip for chip in _split_chips(root, split) if chip not in set(exclude)]
        self._folders = {layer: _layer_folder(root, layer) for layer in _FOLDERS}
        self._chips = self._present(listed, require_all)
        self._grids: dict[int, Grid] = {}

    def __len__(self) -> int:
        return len(self._chips)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are EVENT_CHIPID."""
        return list(self._chips)

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        if index not in self._grids:
            self._grids[index] = read_grid(self.path(index, "S1Hand"))
        return self._grids[index].rows, self._grids[index].columns

    def path(self, index: int, layer: str) -> Path:
        """The file of chip `index` for layer "S1Hand", "S2Hand" or "LabelHand"."""
        return self._file(self._chips[index], layer)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`.

        Raises:
            FloraError: If a file is unreadable, has other bands or another grid than the rest, or
                if the radar image is empty, infinite or not in dB.
        """
        chip = self._chips[index]
        sar_path, optical_path, label_path = (
            self.path(index, layer) for layer in ("S1Hand", "S2Hand", "LabelHand")
        )
        sar, grid = _read_decibel(sar_path, window)
        optical = read_raster(optical_path, SENTINEL2_BANDS, window)
        require_same_grid(grid, sar_path, optical.grid, optical_path)
        label = read_raster(label_path, ("label",), window)
        require_same_grid(grid, sar_path, label.grid, label_path)

        sar_valid: BoolArray = np.asarray(np.isfinite(sar).all(axis=0))
        counts = _unsigned(optical.values)
        used = counts[[SENTINEL2_BANDS.index(name) for name in ("B4", "B3", "B2", "B8")]]
        reflectance = counts.astype(np.float32) / np.float32(10_000.0)
        optical_valid = (used > 0).all(axis=0) & ~cloud_mask(reflectance)
        ndvi = np.where(optical_valid, normalised_difference(used[3], used[0]), 0.0)
        water = np.where(sar_valid, _decode_label(label.values[0], label_path), IGNORE)
        place = chip.split("_")[0]
        return Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sar, sar_valid)),
            sar_valid=torch.from_numpy(sar_valid),
            optical=torch.from_numpy(self.optical_scaling.normalise(used[:3], optical_valid)),
            optical_valid=torch.from_numpy(optical_valid),
            index=torch.from_numpy(ndvi[None].astype(np.float32)),
            water=torch.from_numpy(water.astype(np.int64)),
            meta=Meta(
                id=chip,
                place=place,
                date=self.dates.get(place),
                crs=grid.crs,
                transform=grid.transform,
                split=self.split,
            ),
        )

    def _file(self, chip: str, layer: str) -> Path:
        return self._folders[layer] / f"{chip}_{layer}.tif"

    def _present(self, listed: list[str], require_all: bool) -> list[str]:
        """The chips that are complete on disk; anything half there is an error."""
        files = {chip: [self._file(chip, layer) for layer in _FOLDERS] for chip in listed}
        missing = {
            chip: [path for path in paths if not path.is_file()] for chip, paths in files.items()
        }
        absent = {chip for chip in listed if len(missing[chip]) == len(_FOLDERS)}
        ignorable = set() if require_all else absent
        lost = [path for chip in listed if chip not in ignorable for path in missing[chip]]
        if lost:
            where = (
                f"{self.name}, split {self.split!r} of {len(listed)} chips: {lost[0]} is missing"
            )
            whole = absent.intersection(listed) and require_all
            remedy = ", or pass require_all=False to use only the chips there" if whole else ""
            raise FloraError(f"{where}, one of {len(lost)} files; complete the download{remedy}")
        present = [chip for chip in listed if chip not in ignorable]
        if not present:
            raise FloraError(
                f"{self.name}: none of the {len(listed)} chips of split {self.split!r} is in "
                f"{self._folders['S1Hand']}: download them or choose another split"
            )
        return present


def cloud_mask(bands: FloatArray, threshold: float = CLOUD_SCORE) -> BoolArray:
    """Mark cloudy pixels of a Sentinel-2 Level-1C image by brightness, moisture and snow index.

    The score is the lowest of six ramps: cloud is bright in blue, in coastal aerosol (also with
    cirrus added) and in the sum of the visible bands, is moist (B8, B11) and is not snow
    (B3, B11). Source: the cloud score of Schmitt et al. (2019), "Aggregating cloud-free Sentinel-2
    images with Google Earth Engine", ISPRS Annals IV-2/W7, after Housman et al. (2018), Remote
    Sensing 10(8):1184, here pixel by pixel, without their smoothing and their shadow test. Thin
    cloud and shadow pass; bright roofs, sand and salt may be taken for cloud, as are
    2.9 % of the pixels of the cloudless chip Spain_7370579.

    Args:
        bands: (13, H, W) top-of-atmosphere reflectance in [0, 1], in the order SENTINEL2_BANDS.
        threshold: Score above which a pixel is cloud; the sources use 0.1 to 0.3.

    Returns:
        (H, W), true in cloud.
    """
    if bands.ndim != 3 or bands.shape[0] != len(SENTINEL2_BANDS):
        raise FloraError(
            f"bands of shape {bands.shape}: expected (13, rows, columns), {SENTINEL2_BANDS}"
        )
    aerosol, blue, green, red, near_infrared, cirrus, shortwave = (
        bands[SENTINEL2_BANDS.index(name)] for name in ("B1", "B2", "B3", "B4", "B8", "B10", "B11")
    )

    def ramp(values: FloatArray, low: float, high: float) -> FloatArray:
        return (values - low) / (high - low)

    score = np.minimum.reduce(
        [
            ramp(blue, 0.1, 0.5),
            ramp(aerosol, 0.1, 0.3),
            ramp(aerosol + cirrus, 0.15, 0.2),
            ramp(red + green + blue, 0.2, 0.8),
            ramp(normalised_difference(near_infrared, shortwave), -0.1, 0.1),
            ramp(normalised_difference(green, shortwave), 0.8, 0.6),
        ]
    )
    cloudy: BoolArray = score > threshold
    return cloudy


def _read_decibel(path: Path, window: Window | None) -> tuple[FloatArray, Grid]:
    """Backscatter in dB, NaN where either band has no data, and the grid of the whole file."""
    raster = read_raster(path, SENTINEL1.bands, window)
    values = raster.values.astype(np.float32)
    if raster.nodata is not None and not np.isnan(raster.nodata):
        values[:, (raster.values == raster.nodata).any(axis=0)] = np.nan
    odd = not np.isfinite(values).any() or looks_linear(values)
    if window is not None and odd and not np.isinf(values).any():
        # A window of a good chip may be all nodata or all bright: the whole chip decides.
        _read_decibel(path, None)
    else:
        require_decibel(values, str(path))
    return values, raster.grid


def _unsigned(stored: NDArray[Any]) -> NDArray[Any]:
    """Reflectance x 10000 as the uint16 it is, although files type it int16."""
    return stored.view(np.uint16) if stored.dtype == np.int16 else stored


def _decode_label(stored: NDArray[Any], path: Path) -> NDArray[np.int64]:
    codes = Sen1Floods11.label_codes
    unknown = set(np.unique(stored).tolist()) - set(codes)
    if unknown:
        raise FloraError(
            f"{path} holds label {min(unknown)}: expected -1 (no data), 0 (not water), 1 (water)"
        )
    water = np.full(stored.shape, IGNORE, np.int64)
    for code, meaning in codes.items():
        water[stored == code] = meaning
    return water


def _layer_folder(root: Path, layer: str) -> Path:
    """The folder of a layer; the publisher's, where none is there."""
    parents = (root / "data" / "flood_events" / "HandLabeled", root / "data")
    candidates = [parent / name for parent in parents for name in _FOLDERS[layer]]
    found = next((folder for folder in candidates if folder.is_dir()), None)
    return found or require_folder(candidates[0], "sen1floods11", _LAYOUT)


def _split_chips(root: Path, split: str) -> list[str]:
    """Chip ids (EVENT_CHIPID) of the official split list: rows of radar file, label file."""
    path = root / "splits" / "flood_handlabeled" / f"flood_{split}_data.csv"
    if not path.is_file():
        raise FloraError(f"sen1floods11: no split list {path}: expected {_LAYOUT} under --root")
    with path.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines) if row]
    chips = []
    for row in rows:
        ids = {"_".join(name.strip().split("_")[:2]) for name in row}
        if len(ids) != 1 or not re.fullmatch(r"[A-Za-z-]+_\d+", next(iter(ids))):
            raise FloraError(
                f"{path}: row {','.join(row)!r} is not a pair EVENT_CHIPID_S1Hand.tif, "
                "EVENT_CHIPID_LabelHand.tif of one chip: download the list again"
            )
        chips.append(ids.pop())
    if len(set(chips)) != len(chips):
        raise FloraError(f"{path} lists a chip twice: download the list again")
    return chips
