"""SEN12MS: Sentinel-1, Sentinel-2 and land cover from all over the world, without a flood."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from flora.datasets.base import FloodDataset, Meta, Sample, Stored, Window, require_folder
from flora.datasets.fetch.publishers import FtpArchives, Publisher
from flora.datasets.pairing import (
    EmptySplitError,
    complete_chips,
    files_in,
    read_lines,
    several,
)
from flora.datasets.rasters import read_grid, read_raster, require_same_grid, require_size
from flora.datasets.sentinel import decode_labels, read_sentinel1, read_sentinel2
from flora.errors import FloraError, FloraWarning
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

LandCoverScheme = Literal["IGBP", "LCCS1", "LCCS2", "LCCS3"]

LAND_COVER_BANDS: tuple[LandCoverScheme, ...] = ("IGBP", "LCCS1", "LCCS2", "LCCS3")

SEASONS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")
_LAYOUT = "ROIs1158_spring/{s1,s2,lc}_N/ROIs1158_spring_s2_N_pM.tif and the other three seasons"
_TEST_LIST = "test_list.txt"

# One scene in ten of those that are not held out chooses the weights.
_VALID_SHARE = 10


def _codes(dry: Collection[int], water: int, unclear: Collection[int] = ()) -> dict[int, int]:
    unclassified = {0: IGNORE, 255: IGNORE}
    return {
        **dict.fromkeys(dry, DRY),
        water: WATER,
        **dict.fromkeys(unclear, IGNORE),
        **unclassified,
    }


class Patch(NamedTuple):
    """A patch of a scene of a season; with it the files of all layers are paired."""

    season: str
    scene: int
    number: int

    @property
    def place(self) -> str:
        """The scene, e.g. "ROIs1970_fall_139"."""
        return f"{self.season}_{self.scene}"

    def __str__(self) -> str:
        return f"{self.place}_p{self.number}"


class Sen12MS(FloodDataset):
    """SEN12MS: 180,662 triplets of 256 x 256 px at 10 m, in 252 scenes and four seasons.

    The radar image is Sentinel-1 sigma0 in dB (VV, VH), the optical image Sentinel-2 Level-1C,
    chosen cloudless. SEN12MS-CR, which has the same names, clips its radar image at 0 dB.

    There is no flood in it and no flood truth. What `water` holds is *permanent* water of the
    MODIS land cover MCD12Q1, at about 500 m, resampled to 10 m by the publisher: rivers narrower
    than that, and every flood, are dry in it. A score on it is no flood score. Wetlands are 255,
    and so is everything where a patch has no land cover file.

    Splits hold out whole scenes: "test" is the publisher's 26 hold-out scenes, "valid" the scenes
    among the rest whose SHA-256 (of "ROIs1970_fall_139", first eight bytes, big-endian) is
    divisible by ten, "train" the others. The publisher's own test list names single patches of the
    hold-out scenes; given as `test_list`, or lying as `test_list.txt` in `root` or in
    `root`/splits, it restricts "test" to them. Every scene that it names is kept out of the rest.
    Whether scenes of two seasons share some ground was not checked.

    Args:
        root: The folder that holds `ROIs1158_spring` and the like; seasons may be lacking.
        split: "train", "valid" or "test".
        land_cover: The land cover layer that `water` is taken from, see `land_cover_codes`, or
            None for 255 everywhere.
        test_list: The publisher's list, one file name of any layer a line.
        exclude: Patch ids to leave out, e.g. "ROIs1970_fall_139_p839".
        include_damaged: Keep the patches that are known to be damaged; the class lists them as
            `damaged`.

    Raises:
        FloraError: If an argument is unknown, or files are missing, unpaired or misnamed.

    Warns:
        FloraWarning: If `land_cover` is asked for and patches have none.
    """

    name: ClassVar[str] = "sen12ms"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    urls: ClassVar[tuple[str, ...]] = (
        "https://mediatum.ub.tum.de/1474000",
        "https://github.com/schmitt-muc/SEN12MS",
    )
    citation: ClassVar[str] = (
        "Schmitt, M., Hughes, L. H., Qiu, C., Zhu, X. X. (2019). SEN12MS: a curated dataset of "
        "georeferenced multi-spectral Sentinel-1/2 imagery for deep learning and data fusion. "
        "ISPRS Annals IV-2/W7. Contains modified Copernicus Sentinel data."
    )
    # The MD5 sums are those that torchgeo (MIT licence) records for these files and for the split
    # lists, at a fixed commit of the authors' repository.
    publisher: ClassVar[Publisher] = FtpArchives(
        name=name,
        page=urls[0],
        licence="believed to be CC BY 4.0; its page has the last word",
        by_hand=(
            "where FTP does not pass, open https://dataserv.ub.tum.de/s/m1474000 in a browser, put "
            "the archives ROIs..._s1.tar.gz, _s2 and _lc of the season into ROOT as they are, and "
            "run this command again: it verifies and unpacks them"
        ),
        note="A season is 100 GB or more when unpacked. There is no flood in it.",
        connections=2,
        groups={season.partition("_")[2]: season for season in SEASONS},
        # Measured with gzip on one patch of Sentinel-1 and -2, and rounded up; land cover is a
        # few large blocks, and its figure a guess.
        growth={"s1": 1.3, "s2": 1.6, "lc": 50.0},
        ftp="ftp://m1474000:m1474000@dataserv.ub.tum.de",
        lists=(
            "https://raw.githubusercontent.com/schmitt-muc/SEN12MS/"
            "3a41236a28d08d253ebe2fa1a081e5e32aa7eab4/splits"
        ),
        checksums={
            "ROIs1158_spring_lc.tar.gz": "6e2e8fa8b8cba77ddab49fd20ff5c37b",
            "ROIs1158_spring_s1.tar.gz": "fba019bb27a08c1db96b31f718c34d79",
            "ROIs1158_spring_s2.tar.gz": "d58af2c15a16f376eb3308dc9b685af2",
            "ROIs1868_summer_lc.tar.gz": "2c5bd80244440b6f9d54957c6b1f23d4",
            "ROIs1868_summer_s1.tar.gz": "01044b7f58d33570c6b57fec28a3d449",
            "ROIs1868_summer_s2.tar.gz": "4dbaf72ecb704a4794036fe691427ff3",
            "ROIs1970_fall_lc.tar.gz": "9b126a68b0e3af260071b3139cb57cee",
            "ROIs1970_fall_s1.tar.gz": "19132e0aab9d4d6862fd42e8e6760847",
            "ROIs1970_fall_s2.tar.gz": "b8f117818878da86b5f5e06400eb1866",
            "ROIs2017_winter_lc.tar.gz": "0fa0420ef7bcfe4387c7e6fe226dc728",
            "ROIs2017_winter_s1.tar.gz": "bb8cbfc16b95a4f054a3d5380e0130ed",
            "ROIs2017_winter_s2.tar.gz": "3807545661288dcca312c9c538537b63",
            "train_list.txt": "0a68d4e1eb24f128fccdb930000b2546",
            "test_list.txt": "c7faad064001e646445c4c634169484d",
        },
    )
    # The classes of MCD12Q1 collection 6 (its user guide). In all layers but IGBP, 3 is water;
    # a wetland is neither water nor dry.
    land_cover_codes: ClassVar[dict[LandCoverScheme, dict[int, int]]] = {
        "IGBP": _codes([*range(1, 11), *range(12, 17)], water=17, unclear=[11]),
        "LCCS1": _codes([1, 2, *range(11, 17), 21, 22, 31, 32, 41, 42, 43], water=3),
        "LCCS2": _codes([1, 2, 9, 10, 20, 25, 30, 35, 36, 40], water=3),
        "LCCS3": _codes([1, 2, 10, 20, 30, 40, 51], water=3, unclear=[27, 50]),
    }
    label_codes: ClassVar[dict[int, int]] = land_cover_codes["IGBP"]
    truth: ClassVar[str] = (
        "no flood truth: water is permanent water of a land cover map at about 500 m, 255 where a "
        "patch has no land cover"
    )
    stored: ClassVar[Stored] = {
        "s1": (SENTINEL1.bands, DECIBEL),
        "s2": (SENTINEL2_BANDS, REFLECTANCE),
    }
    damaged: ClassVar[dict[str, str]] = {
        "ROIs1868_summer_146_p202": "the publisher calls its radar patch damaged"
    }
    held_out_scenes: ClassVar[dict[str, tuple[int, ...]]] = {  # SEN12MS_holdOutScenes.txt
        "ROIs1158_spring": (15, 17, 63, 97, 124, 146),
        "ROIs1868_summer": (15, 19, 43, 72, 79, 104, 131),
        "ROIs1970_fall": (30, 35, 39, 47, 61, 120, 141, 144),
        "ROIs2017_winter": (32, 64, 107, 135, 146),
    }

    def __init__(
        self,
        root: Path,
        split: str,
        land_cover: LandCoverScheme | None = "IGBP",
        test_list: Path | None = None,
        exclude: Sequence[str] = (),
        include_damaged: bool = False,
    ) -> None:
        if split not in self.splits:
            raise FloraError(f"{self.name}: no split {split!r}; choose {', '.join(self.splits)}")
        if land_cover is not None and land_cover not in LAND_COVER_BANDS:
            raise FloraError(
                f"{self.name}: no land cover {land_cover!r}; choose {', '.join(LAND_COVER_BANDS)} "
                "or None"
            )
        self.sar_scaling = SENTINEL1
        self.optical_scaling = SENTINEL2_RGB
        self.split = split
        self.land_cover = land_cover
        root = require_folder(Path(root), self.name, _LAYOUT)
        found = {layer: _Layer(root, layer) for layer in ("s1", "s2", "lc")}
        if not found["s1"].patches and not found["s2"].patches:
            raise FloraError(f"{self.name}: no patch in {root}: expected {_LAYOUT}; check the path")
        left_out = set(several(exclude)) | set(() if include_damaged else self.damaged)
        tested = _listed(root, test_list)
        scenes = {patch.place for patch in tested or ()}
        patches = []
        for patch in sorted(found["s1"].patches | found["s2"].patches):
            part = "test" if patch.place in scenes else _split_of_scene(patch)
            listed = part != "test" or tested is None or patch in tested
            if part == split and listed and str(patch) not in left_out:
                patches.append(patch)
        if not patches:
            raise EmptySplitError(
                f"{self.name}: no patch of split {split!r} in {root}: download another scene, or "
                "choose another split"
            )
        missing = {
            str(patch): [
                found[layer].path(patch)
                for layer in ("s1", "s2")
                if patch not in found[layer].patches
            ]
            for patch in patches
        }
        complete_chips(missing, 2, f"{self.name}, split {split!r}")
        self._patches = patches
        self._layers = found
        unlabelled = sum(patch not in found["lc"].patches for patch in patches)
        if land_cover is not None and unlabelled:
            warnings.warn(
                f"{self.name}, split {split!r}: {unlabelled} of {len(patches)} patches have no "
                "land cover, so their water is 255; pass land_cover=None if that is meant",
                FloraWarning,
                stacklevel=2,
            )
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._patches)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are like "ROIs1970_fall_139_p839"."""
        return [str(patch) for patch in self._patches]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`; that of the first, for all: `read` refuses another."""
        if self._size is None:
            grid = read_grid(self._layers["s1"].path(self._patches[0]))
            self._size = grid.shape
        return self._size

    def path(self, index: int, layer: str) -> Path | None:
        """The file of patch `index` for layer "s1", "s2" or "lc"; None if it has no land cover."""
        patch, found = self._patches[index], self._layers[layer]
        return found.path(patch) if patch in found.patches else None

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`.

        Raises:
            FloraError: If a file is unreadable, has other bands or another grid than the rest, or
                if the radar image is empty, infinite or not in dB.
        """
        patch = self._patches[index]
        sar_path, optical_path = (self._layers[layer].path(patch) for layer in ("s1", "s2"))
        sar, grid = read_sentinel1(sar_path, window)
        require_size(grid, sar_path, self.shape(index))
        optical = read_sentinel2(optical_path, self.optical_scaling, window)
        require_same_grid(grid, sar_path, optical.grid, optical_path)
        sar_valid: BoolArray = np.asarray(np.isfinite(sar).all(axis=0))
        water = self._water(patch, sar_path, grid, window)
        if water is None:
            water = np.full(sar_valid.shape, IGNORE, np.int64)
        return Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sar, sar_valid)),
            sar_valid=torch.from_numpy(sar_valid),
            optical=torch.from_numpy(optical.image),
            optical_valid=torch.from_numpy(optical.valid),
            index=torch.from_numpy(optical.index),
            water=torch.from_numpy(np.where(sar_valid, water, IGNORE)),
            meta=Meta(
                id=str(patch),
                place=patch.place,
                date=None,
                crs=grid.crs_name,
                transform=grid.numbers,
                split=self.split,
            ),
        )

    def _water(
        self, patch: Patch, sar_path: Path, grid: Grid, window: Window | None
    ) -> NDArray[np.int64] | None:
        """Permanent water of the land cover layer, or None where the patch has none."""
        if self.land_cover is None or patch not in self._layers["lc"].patches:
            return None
        path = self._layers["lc"].path(patch)
        layers: tuple[str, ...] = LAND_COVER_BANDS
        raster = read_raster(path, layers, window, only=(self.land_cover,))
        require_same_grid(grid, sar_path, raster.grid, path)
        codes = self.land_cover_codes[self.land_cover]
        return decode_labels(raster.values[0], codes, path, f"the classes {sorted(codes)}")


def _split_of_scene(patch: Patch) -> str:
    """The split of a patch's scene, without a test list."""
    if patch.scene in Sen12MS.held_out_scenes[patch.season]:
        return "test"
    number = int.from_bytes(hashlib.sha256(patch.place.encode()).digest()[:8], "big")
    return "valid" if number % _VALID_SHARE == 0 else "train"


class _Layer:
    """Every patch of a layer that is on disk, and where: a path apiece would fill the memory.

    The publisher's archives unpack to a season's folder or to one of a season and a layer.
    """

    def __init__(self, root: Path, layer: str) -> None:
        self.root = root
        self.layer = layer
        self.patches: set[Patch] = set()
        self._folders: dict[str, Path] = {}
        for season in SEASONS:
            for parent in (root / season, root / f"{season}_{layer}"):
                for folder in parent.glob(f"{layer}_*"):
                    scene = folder.name.removeprefix(f"{layer}_")
                    if scene.isdecimal():  # not s2_cloudy_N of SEN12MS-CR
                        self._scan(folder, season, int(scene))

    def path(self, patch: Patch) -> Path:
        """The file of a patch, or where it should be."""
        default = self.root / patch.season / f"{self.layer}_{patch.scene}"
        stem = f"{patch.season}_{self.layer}_{patch.scene}_p{patch.number}"
        return self._folders.get(patch.place, default) / f"{stem}.tif"

    def _scan(self, folder: Path, season: str, scene: int) -> None:
        stem = f"{season}_{self.layer}_{scene}_p"
        for path in files_in(folder, "*.tif"):
            number = path.stem.removeprefix(stem)
            if not number.isdecimal():
                raise FloraError(
                    f"sen12ms: {path} is misplaced: expected {stem}M.tif there; download the "
                    "scene again"
                )
            patch = Patch(season, scene, int(number))
            if self._folders.setdefault(patch.place, folder) != folder:
                raise FloraError(
                    f"sen12ms: {folder} and {self._folders[patch.place]} hold one scene: remove one"
                )
            self.patches.add(patch)


def _listed(root: Path, given: Path | None) -> frozenset[Patch] | None:
    """Patches of the publisher's test list, or None where there is no list."""
    places = (root / _TEST_LIST, root / "splits" / _TEST_LIST)
    path = Path(given) if given else next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    patches = set()
    for name in read_lines(path):
        match = re.fullmatch(r"(ROIs\d+_[a-z]+)_(?:s1|s2|lc)_(\d+)_p(\d+)(?:\.tif)?", name)
        if match is None or match[1] not in SEASONS:
            raise FloraError(
                f"sen12ms: {path}: {name!r} is no file name like ROIs1158_spring_s2_124_p100.tif"
            )
        patches.add(Patch(match[1], int(match[2]), int(match[3])))
    return frozenset(patches)
