"""DeepFlood: aerial images of two hurricanes' floods, with Sentinel-1 and four classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from flora.datasets.base import FloodDataset, Meta, Sample, Stored, Window, require_folder
from flora.datasets.fetch.publishers import Figshare, Publisher
from flora.datasets.pairing import (
    EmptySplitError,
    complete_chips,
    files_in,
    held_out,
    require_split,
    several,
)
from flora.datasets.rasters import read_grid, read_raster, require_same_grid, require_size
from flora.datasets.sentinel import decode_labels, read_sentinel1
from flora.errors import FloraError
from flora.sensors import (
    DECIBEL,
    DRY,
    IGNORE,
    SENTINEL1,
    WATER,
    BoolArray,
    OpticalScaling,
    Units,
    normalised_difference,
    require_units,
)

# No near infrared, hence no NDVI: the normalised green-red difference (Tucker 1979) replaces it.
DEEPFLOOD_RGB = OpticalScaling(
    name="deepflood aerial true colour",
    bands=("red", "green", "blue"),
    white=255.0,
    index_name="NGRDI",
)

# Each layer's folder in TILES, and as the authors' own programs call it.
_FOLDERS = {
    "SAR VV": ("SAR VV", "SAR_VV"),
    "SAR VH": ("SAR VH", "SAR_VH"),
    "Optical": ("Optical", "OPTICAL"),
    "Mask": ("Mask", "MASK"),
}
_LAYOUT = "TILES/{Optical,Mask,SAR VV,SAR VH}/SITE_STORM_DD_MM_YY_IMAGE_tile_N.tif"
# One site is called by two names in the authors' programs.
_OTHER_NAMES = {"Elizabethtown": "Elizabeth"}
_NAME = re.compile(r"(?P<site>[A-Za-z]+)_[A-Za-z]+_(\d\d)_(\d\d)_(\d\d)_\d+_tile_\d+")


class Tile(NamedTuple):
    """A tile's name, the same in every folder, with the site and date that it contains."""

    name: str
    site: str
    date: str


class DeepFlood(FloodDataset):
    """DeepFlood's TILES: 256 x 256 px of aerial true colour, Sentinel-1 and a mask of four classes.

    Written without a single real file: none could be obtained. The folders are those of notes on
    the publication, the tiles' names those in an index that its authors published with another
    program (there, SAR_VV, SAR_VH and MASK hold files of one name). Units, number types and grids
    are assumed: sigma0 in dB, or linear power by `units`; three bands of 8-bit counts; one grid for
    the four files of a tile. A file that is otherwise is refused, not guessed at. Look at what
    `flora check deepflood` says before training, above all whether open water is the darkest
    class in radar: one of the authors' programs reads the mask's codes differently (1 flood, 2
    ignore), and only the data can tell.

    Tile numbers pass 10,000 in one image, so that tiles must lie at the aerial image's resolution
    (25 cm or finer: 64 m a side) and the radar image, 10 m at its source, must be stretched
    some forty times: a tile holds a few true radar pixels a side. A model of 10 m chips is not
    made for them.

    There is no near infrared, so `index` is NGRDI, (green - red) / (green + red) of 8-bit counts,
    and not NDVI. Pixels black in all three bands are no data.

    Splits hold out whole sites, hence whole images: "valid" is Grifton, "test" is Kinston (both
    Matthew 2016), "train" every other site, mostly Elizabethtown (Florence 2018), called
    "Elizabeth". To leave out each site in turn: "only-SITE" is the site, "valid-without-SITE" is
    Grifton (Kinston, if SITE is Grifton), "train-without-SITE" the rest.

    Args:
        root: The folder that holds `TILES`, or `TILES` itself.
        split: See above.
        water_classes: Codes of the mask that count as water; the default is the publication's
            flooded, inundated vegetation and open water. Radar seldom sees water under leaves:
            (2,) asks for open water alone.
        units: Units of the radar files.
        exclude: Tile names to leave out.

    Raises:
        FloraError: If an argument is unknown, or files are missing, unpaired or misnamed.
    """

    name: ClassVar[str] = "deepflood"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    urls: ClassVar[tuple[str, ...]] = ("https://doi.org/10.6084/m9.figshare.26791243",)
    citation: ClassVar[str] = (
        "Fawakherji, M., Blay, J., Anokye, M., Hashemi-Beni, L., Dorton, J. (2025). DeepFlood for "
        "inundated vegetation high-resolution dataset for accurate flood mapping and "
        "segmentation. Scientific Data 12. Contains modified Copernicus Sentinel data."
    )
    publisher: ClassVar[Publisher] = Figshare(
        name=name,
        page=urls[0],
        licence="see its page",
        by_hand=(
            f"open {urls[0]} in a browser, download its files into ROOT as they are and run this "
            "command again: it verifies and unpacks them. Without any connection, unpack them "
            "yourself"
        ),
        note="Nobody of this library could see a file of it yet: its layout is as published.",
        article=26791243,
    )
    classes: ClassVar[dict[int, str]] = {
        0: "inundated vegetation",
        1: "dry vegetation",
        2: "open water",
        3: "other",
    }
    stored: ClassVar[Stored] = {"SAR VV": (("VV",), DECIBEL), "SAR VH": (("VH",), DECIBEL)}
    label_codes: ClassVar[dict[int, int]] = {0: WATER, 1: DRY, 2: WATER, 3: DRY}
    truth: ClassVar[str] = "never opened on real files: its layout is from notes; check the classes"
    sites: ClassVar[tuple[str, ...]] = (
        "Elizabeth", "Grifton", "Kinston", "Lumberton", "Princeville", "Washington",
    )  # fmt: skip
    valid_site: ClassVar[str] = "Grifton"
    test_site: ClassVar[str] = "Kinston"

    def __init__(
        self,
        root: Path,
        split: str,
        water_classes: int | Sequence[int] = (0, 2),
        units: Units = "db",
        exclude: Sequence[str] = (),
    ) -> None:
        require_split(self.name, split, self.splits, self.sites)
        wet = (water_classes,) if isinstance(water_classes, int) else tuple(water_classes)
        if not wet or not set(wet) <= set(self.classes):
            raise FloraError(
                f"{self.name}: water_classes {wet}: expected some of "
                f"{', '.join(f'{code} ({name})' for code, name in self.classes.items())}"
            )
        require_units(units)
        self.sar_scaling = SENTINEL1
        self.optical_scaling = DEEPFLOOD_RGB
        self.split = split
        self.units: Units = units
        self.codes = {code: WATER if code in wet else DRY for code in self.classes}
        root = require_folder(Path(root), self.name, _LAYOUT)
        root = root / "TILES" if (root / "TILES").is_dir() else root
        self._folders = {layer: _layer_folder(root, layer) for layer in _FOLDERS}
        found = {
            layer: {path.stem for path in files_in(folder, "*.tif")}
            for layer, folder in self._folders.items()
        }
        tiles = [
            _tile(name) for name in sorted(set().union(*found.values()) - set(several(exclude)))
        ]
        sites = _split_sites(split)
        self._tiles = [tile for tile in tiles if tile.site in sites]
        if not self._tiles:
            raise EmptySplitError(f"{self.name}: no tile of split {split!r} in {root}")
        missing = {
            tile.name: [self._file(tile, layer) for layer in found if tile.name not in found[layer]]
            for tile in self._tiles
        }
        complete_chips(missing, len(_FOLDERS), f"{self.name}, split {split!r}")
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._tiles)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are the tiles' names."""
        return [tile.name for tile in self._tiles]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`; that of the first, for all: `read` refuses another."""
        if self._size is None:
            grid = read_grid(self.path(0, "Mask"))
            self._size = grid.shape
        return self._size

    def path(self, index: int, layer: str) -> Path:
        """The file of tile `index` for layer "SAR VV", "SAR VH", "Optical" or "Mask"."""
        return self._file(self._tiles[index], layer)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`.

        Raises:
            FloraError: If a file is unreadable, has other bands, number types or another grid
                than expected, or if the radar image is empty, infinite or not in `units`.
        """
        tile = self._tiles[index]
        mask_path, optical_path = self._file(tile, "Mask"), self._file(tile, "Optical")
        mask = read_raster(mask_path, ("class",), window)
        require_size(mask.grid, mask_path, self.shape(index))
        sar_paths = self._file(tile, "SAR VV"), self._file(tile, "SAR VH")
        sar, grid = read_sentinel1(sar_paths, window, self.units)
        require_same_grid(mask.grid, mask_path, grid, sar_paths[0])
        optical = read_raster(optical_path, self.optical_scaling.bands, window)
        require_same_grid(mask.grid, mask_path, optical.grid, optical_path)
        if optical.values.dtype != np.uint8:
            raise FloraError(
                f"{optical_path} holds {optical.values.dtype}: expected 8-bit counts (uint8)"
            )
        sar_valid: BoolArray = np.asarray(np.isfinite(sar).all(axis=0))
        optical_valid: BoolArray = np.asarray((optical.values > 0).any(axis=0))
        image = self.optical_scaling.normalise(optical.values, optical_valid)
        meaning = ", ".join(f"{code} ({name})" for code, name in self.classes.items())
        water = decode_labels(mask.values[0], self.codes, mask_path, meaning)
        return Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sar, sar_valid)),
            sar_valid=torch.from_numpy(sar_valid),
            optical=torch.from_numpy(image),
            optical_valid=torch.from_numpy(optical_valid),
            index=torch.from_numpy(normalised_difference(image[1], image[0])[None]),
            water=torch.from_numpy(np.where(sar_valid, water, IGNORE)),
            meta=Meta(
                id=tile.name,
                place=tile.site,
                date=tile.date,
                crs=mask.grid.crs_name,
                transform=mask.grid.numbers,
                split=self.split,
            ),
        )

    def _file(self, tile: Tile, layer: str) -> Path:
        return self._folders[layer] / f"{tile.name}.tif"


def _split_sites(split: str) -> set[str]:
    part = held_out(split)
    kind, place = part or (split, DeepFlood.test_site)
    valid = DeepFlood.test_site if place == DeepFlood.valid_site else DeepFlood.valid_site
    if kind in ("only", "test"):
        return {place}
    return {valid} if kind == "valid" else set(DeepFlood.sites) - {place, valid}


def _layer_folder(root: Path, layer: str) -> Path:
    """The folder of a layer; the publisher's, where none is there."""
    candidates = [root / name for name in _FOLDERS[layer]]
    found = next((folder for folder in candidates if folder.is_dir()), None)
    return found or require_folder(candidates[0], "deepflood", _LAYOUT)


def _tile(name: str) -> Tile:
    match = _NAME.fullmatch(name)
    site = "" if match is None else _OTHER_NAMES.get(match["site"], match["site"])
    if match is None or site not in DeepFlood.sites:
        raise FloraError(
            f"deepflood: tile {name}: expected a name like Kinston_Mattew_15_10_16_01_tile_7, "
            f"beginning with a site ({', '.join(DeepFlood.sites)}): without it nothing keeps the "
            "tiles of one image on one side of a split"
        )
    day, month, year = match.groups()[1:]
    return Tile(name, site, f"20{year}-{month}-{day}")
