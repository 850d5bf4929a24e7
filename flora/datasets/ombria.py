"""OMBRIA: Sentinel-1 and Sentinel-2 chips from before and after floods, as 8-bit pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from flora.datasets.base import (
    Date,
    FloodDataset,
    Meta,
    Sample,
    Window,
    crop_sample,
    require_folder,
)
from flora.datasets.fetch.publishers import GitCommit, Publisher
from flora.datasets.pairing import files_in, several
from flora.datasets.rasters import picture_shape, read_colour, read_grey
from flora.errors import FloraError
from flora.sensors import (
    DRY,
    IGNORE,
    OMBRIA_S1,
    OMBRIA_S2,
    WATER,
    BoolArray,
    ByteArray,
    FloatArray,
    OpticalStack,
    normalised_difference,
)

IndexName = Literal["NDWI", "MNDWI"]

_DATES: tuple[Date, ...] = ("before", "after")
_LAYOUT = "Ombria{S1,S2}/{train,test}/{BEFORE,AFTER,MASK}"
_LAYOUT_2021 = "2021/PLACE/Sentinel{1,2}/{BEFORE,AFTER,MASK}"


class Ombria(FloodDataset):
    """OMBRIA: 256 x 256 px pictures of real floods, without georeference.

    The radar image is VV as 8-bit counts, stretched chip by chip by its publisher, so absolute
    backscatter is lost. The optical image is shortwave infrared, near infrared and green (B11, B8,
    B3) as 8-bit counts, hence no true colour and no NDVI, and its index is of counts, not of
    reflectance. The mask, from Copernicus EMS, is new flood only: permanent rivers are dry.

    What is not evidence: where the optical picture is black at both dates the chip's footprint
    ends, and the radar picture holds a fill value (white or grey) instead of a measurement. Such
    pixels are invalid in every layer and 255 in `water`: 0.66 % of the training pixels and 0.52 %
    of the official test's, 140 of whose 1.53 million water pixels are among them. Black at one
    date only is dark water or a gap of that optical image, so only that image is invalid there.
    Cloud (`cloud_mask`: 5.5 % of the official test's after-images) makes the optical image invalid
    and leaves radar and label alone.

    Splits: official "test" (70 chips) and official train (624), here "train+valid", of which
    "valid" (79) holds out three sites whole and "train" (545) is the rest; `held_out` names other
    sites. The official test chips
    were drawn from the same sites as the training chips and often touch them, and sites 106-132
    and 258-312 show the same ground, so the official test does not measure new places; "valid"
    does. "2021" is the publisher's later addition, with its own layout.

    Args:
        root: The folder that holds `OmbriaS1` and `OmbriaS2`; for split "2021" the folder that
            holds `2021`, or `2021` itself, or one place in it.
        split: See above.
        sar_dates: Which radar images are stacked as channels, the earliest first.
        index: "NDWI" (B3, B8) or "MNDWI" (B3, B11).
        held_out: Sites that "valid" holds and "train" lacks, by the names in `meta.place`.

    Raises:
        FloraError: If an argument is unknown, or files are missing or unpaired.
    """

    name: ClassVar[str] = "ombria"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "train+valid", "2021")
    urls: ClassVar[tuple[str, ...]] = ("https://github.com/geodrak/OMBRIA",)
    citation: ClassVar[str] = (
        "Drakonakis, G. I., Tsagkatakis, G., Fotiadou, K., Tsakalides, P. (2022). OmbriaNet: "
        "supervised flood mapping via convolutional neural networks using multitemporal "
        "Sentinel-1 and Sentinel-2 data fusion. IEEE JSTARS 15. Contains modified Copernicus "
        "Sentinel data."
    )
    publisher: ClassVar[Publisher] = GitCommit(
        name=name,
        page=urls[0],
        licence="none stated: for your own use, not to be passed on",
        by_hand=(
            f"download {urls[0]}/archive/38a4903.zip with a browser and unpack it so that ROOT "
            "holds OmbriaS1, OmbriaS2 and 2021"
        ),
        connections=1,
        repository="geodrak/OMBRIA",
        commit="38a4903",
        folders=("OmbriaS1", "OmbriaS2", "2021"),
        suffix=".png",
    )
    label_codes: ClassVar[dict[int, int]] = {0: DRY, 255: WATER}
    # The publisher numbers chips scene by scene but names no scene. These ranges were read off the
    # before-images laid out in numerical order; the fifth is one ground imaged twice.
    sites: ClassVar[tuple[tuple[range, ...], ...]] = (
        (range(1, 18),),
        (range(18, 32),),
        (range(32, 74),),
        (range(74, 106),),
        (range(106, 133), range(258, 313)),
        (range(135, 258),),
        (range(313, 342),),
        (range(342, 392),),
        (range(392, 399),),
        (range(399, 436),),
        (range(436, 719),),
        (range(721, 737),),
        (range(737, 759),),
        (range(759, 788),),
    )
    valid_sites: ClassVar[tuple[str, ...]] = ("chips 32-73", "chips 399-435", "chips 721-736")

    def __init__(
        self,
        root: Path,
        split: str,
        sar_dates: Sequence[Date] = ("after",),
        index: IndexName = "NDWI",
        held_out: Sequence[str] = valid_sites,
    ) -> None:
        if split not in self.splits:
            raise FloraError(f"{self.name}: no split {split!r}; choose {', '.join(self.splits)}")
        self.sar_dates = several(sar_dates)
        if self.sar_dates not in (("before",), ("after",), _DATES):
            raise FloraError(
                f"{self.name}: sar_dates {self.sar_dates}: expected ('after',), ('before',) or "
                "('before', 'after'), the earliest first"
            )
        if index not in ("NDWI", "MNDWI"):
            raise FloraError(f"{self.name}: no index {index!r}; choose NDWI or MNDWI")
        held_out = several(held_out)
        unknown = sorted(set(held_out) - {_name(ranges) for ranges in self.sites})
        if unknown:
            raise FloraError(
                f"{self.name}: held_out {', '.join(unknown)}: no such site; they are "
                f"{'; '.join(_name(ranges) for ranges in self.sites)}"
            )
        self.split = split
        self.sar_scaling = OMBRIA_S1.repeat(len(self.sar_dates))
        self.optical_scaling = replace(OMBRIA_S2, index_name=index)
        root = require_folder(Path(root), self.name, f"{_LAYOUT} or {_LAYOUT_2021}")
        chips = _chips_2021(root) if split == "2021" else _official_chips(root, split, held_out)
        if not chips:
            raise FloraError(f"{self.name}: no chip of split {split!r} in {root}: check the path")
        self._chips = chips

    @classmethod
    def parts(cls, root: Path) -> list[tuple[str, dict[str, str]]]:
        """See `FloodDataset.parts`."""
        later = (root / "2021").is_dir()
        official = (root / "OmbriaS1").is_dir() or not later
        splits = ("train", "valid", "test") if official else ()
        return [(split, {}) for split in (*splits, *(("2021",) if later else ()))]

    def __len__(self) -> int:
        return len(self._chips)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are the official numbers, or PLACE_NUMBER in 2021."""
        return [chip.id for chip in self._chips]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        return picture_shape(self._chips[index].sar["after"])

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; pictures are decoded whole, so a window saves no time.

        Raises:
            FloraError: If a picture is unreadable, of another size or kind than expected, or if
                the chip has no pixel with data.
        """
        chip = self._chips[index]
        sar = {date: read_grey(chip.sar[date]) for date in self.sar_dates}
        optical = {date: read_colour(chip.optical[date]) for date in _DATES}
        mask = _read_mask(chip.mask)
        _require_same_size(
            {chip.mask: mask}
            | {chip.sar[date]: picture for date, picture in sar.items()}
            | {chip.optical[date]: picture for date, picture in optical.items()}
        )
        footprint: BoolArray = np.any([optical[date].any(axis=0) for date in _DATES], axis=0)
        if not footprint.any():
            raise FloraError(
                f"{chip.optical['after']} is black at both dates: no data in this chip"
            )

        stack = np.stack([sar[date] for date in self.sar_dates]).astype(np.float32)
        image, valid, water_index = self._optical(optical["after"])
        before, before_valid, before_index = self._optical(optical["before"])
        sample = Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(stack, footprint)),
            sar_valid=torch.from_numpy(footprint),
            optical=torch.from_numpy(image),
            optical_valid=torch.from_numpy(valid),
            index=torch.from_numpy(water_index),
            water=torch.from_numpy(np.where(footprint, mask, IGNORE).astype(np.int64)),
            before=OpticalStack(
                image=torch.from_numpy(before),
                index=torch.from_numpy(before_index),
                valid=torch.from_numpy(before_valid),
            ),
            meta=Meta(
                id=chip.id, place=chip.place, date=None, crs=None, transform=None, split=self.split
            ),
        )
        return sample if window is None else crop_sample(sample, window)

    def _optical(self, counts: ByteArray) -> tuple[FloatArray, BoolArray, FloatArray]:
        """Image in [0, 1], its validity, and its index (1, H, W)."""
        valid = (counts > 0).any(axis=0) & ~cloud_mask(counts)
        image = self.optical_scaling.normalise(counts, valid)
        shortwave, near_infrared, green = image
        other = near_infrared if self.optical_scaling.index_name == "NDWI" else shortwave
        return image, valid, normalised_difference(green, other)[None]


def cloud_mask(counts: ByteArray) -> BoolArray:
    """Mark thick cloud in an 8-bit picture of B11, B8, B3.

    Cloud is bright in green and near infrared, and about as bright in green as in shortwave
    infrared, which sets it off from bright desert and bare soil. The thresholds were chosen by
    looking at the images they flag most; there is none published for these stretched counts. Thin
    haze and shadow pass, and so do parts of the brightest cores, whose counts have wrapped around
    in the publisher's conversion; some salt flats and large roofs are taken for cloud.

    Args:
        counts: uint8 (3, H, W).

    Returns:
        (H, W), true in cloud; specks are removed and holes filled, so it needs the whole picture.
    """
    shortwave, near_infrared, green = counts.astype(np.float32)
    bright = (green > 90) & (near_infrared > 90) & (shortwave > 40)
    white = (green > 0.8 * shortwave) & (green > 0.7 * near_infrared)
    opened = ndimage.binary_opening(bright & white)
    cloudy: BoolArray = ndimage.binary_fill_holes(opened)
    return cloudy


@dataclass(frozen=True)
class _Chip:
    """The files of one chip."""

    id: str
    place: str
    sar: dict[Date, Path]
    optical: dict[Date, Path]
    mask: Path


def _official_chips(root: Path, split: str, held_out: Sequence[str]) -> list[_Chip]:
    part = "test" if split == "test" else "train"
    sar, optical = (
        require_folder(root / f"Ombria{sensor}" / part, "ombria", _LAYOUT)
        for sensor in ("S1", "S2")
    )
    chips = []
    for number, (sar_files, optical_files, mask) in _paired(sar, optical).items():
        place = _site(number)
        if split in ("test", "train+valid") or (place in held_out) == (split == "valid"):
            chips.append(_Chip(f"{number:04d}", place, sar_files, optical_files, mask))
    return chips


def _site(number: int) -> str:
    for ranges in Ombria.sites:
        if any(number in numbers for numbers in ranges):
            return _name(ranges)
    return "unlisted"


def _name(ranges: tuple[range, ...]) -> str:
    return "chips " + ", ".join(f"{numbers[0]}-{numbers[-1]}" for numbers in ranges)


def _chips_2021(root: Path) -> list[_Chip]:
    root = root / "2021" if (root / "2021").is_dir() else root
    places = (
        [root]
        if (root / "Sentinel1").is_dir()
        else sorted(place.parent for place in root.glob("*/Sentinel1"))
    )
    if not places:
        raise FloraError(
            f"ombria: no place with a folder Sentinel1 in {root}: expected {_LAYOUT_2021}"
        )
    chips = []
    for place in places:
        name = place.resolve().name
        sar = require_folder(place / "Sentinel1", "ombria", _LAYOUT_2021)
        optical = require_folder(place / "Sentinel2", "ombria", _LAYOUT_2021)
        for number, (sar_files, optical_files, mask) in _paired(sar, optical).items():
            chips.append(_Chip(f"{name}_{number}", name, sar_files, optical_files, mask))
    return chips


Paired = tuple[dict[Date, Path], dict[Date, Path], Path]


def _paired(sar: Path, optical: Path) -> dict[int, Paired]:
    """Files by chip number; each number must be in every folder.

    Both sensors carry the same masks; where the radar's folder lacks one, the other's is used.
    """
    pictures = {
        (folder, date): _numbered(folder / date.upper())
        for folder in (sar, optical)
        for date in _DATES
    }
    masks = _numbered(optical / "MASK") | _numbered(sar / "MASK")
    folders = {folder / date.upper(): found for (folder, date), found in pictures.items()}
    folders[sar / "MASK"] = masks
    numbers = sorted(set().union(*folders.values()))
    lost = [(n, folder) for n in numbers for folder, found in folders.items() if n not in found]
    if lost:
        number, folder = lost[0]
        raise FloraError(
            f"ombria: chip {number} has no picture in {folder}, one of {len(lost)} missing of "
            f"{len(numbers)} chips: complete the download, or remove the chip's other pictures"
        )
    return {
        number: (
            {date: pictures[sar, date][number] for date in _DATES},
            {date: pictures[optical, date][number] for date in _DATES},
            masks[number],
        )
        for number in numbers
    }


def _numbered(folder: Path) -> dict[int, Path]:
    """Pictures by the number that ends their name."""
    found: dict[int, Path] = {}
    for path in files_in(folder, "*.png"):
        match = re.fullmatch(r".*_(\d+)", path.stem)
        if match is None:
            raise FloraError(
                f"ombria: {path} has no chip number: expected a name like imafter_7.png"
            )
        number = int(match[1])
        if number in found:
            raise FloraError(f"ombria: {found[number]} and {path} have one number: remove one")
        found[number] = path
    return found


def _read_mask(path: Path) -> NDArray[np.int64]:
    counts = read_grey(path)
    unknown = set(np.unique(counts).tolist()) - set(Ombria.label_codes)
    if unknown:
        raise FloraError(f"ombria: {path} holds {min(unknown)}: expected 0 (dry) and 255 (water)")
    return np.where(counts == 255, WATER, DRY)


def _require_same_size(pictures: Mapping[Path, NDArray[Any]]) -> None:
    sizes = {path: picture.shape[-2:] for path, picture in pictures.items()}
    first = next(iter(sizes))
    for path, size in sizes.items():
        if size != sizes[first]:
            raise FloraError(
                f"ombria: {path} has {size} px and {first} has {sizes[first]}: the pictures of one "
                "chip must have one size; download them again"
            )
