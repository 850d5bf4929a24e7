"""Two scenes of SAR and true colour, registered to each other, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from flora.datasets.base import FloodDataset, Meta, Sample, Window, crop_sample, require_folder
from flora.datasets.rasters import read_colour, read_grey
from flora.errors import FloraError
from flora.sensors import IGNORE, OpticalScaling, SarScaling, normalised_difference

SIH1733_SAR = SarScaling(
    name="sih1733 radar",
    bands=("polarisation not stated",),
    unit="8-bit count",
    mean=(70.0,),
    std=(45.0,),
    low=0.0,
    high=255.0,
)

# No near infrared, hence no NDVI: the normalised green-red difference (Tucker 1979) replaces it.
SIH1733_RGB = OpticalScaling(
    name="sih1733 true colour",
    bands=("red", "green", "blue"),
    white=255.0,
    index_name="NGRDI",
)

CHIP = 256


class Sih1733(FloodDataset):
    """Two scenes of one SAR band and true colour, 8-bit JPEG, registered to about a pixel.

    Neither place, date nor polarisation is stated, and nothing is georeferenced. There is no water
    label: every pixel of `water` is 255, so only translation is trained and scored. The index is
    NGRDI, (green - red) / (green + red), for there is no near infrared. A scene is cut into chips
    of 256 px that do not overlap; what is left at its right and lower border is not used.

    Args:
        root: The folder that holds `Pair-1` and `Pair-2`.
        split: "pair-1" or "pair-2", one scene each.

    Raises:
        FloraError: If the split is unknown, or a picture is missing, unreadable or of another
            size than its partner.
    """

    name: ClassVar[str] = "sih1733"
    splits: ClassVar[tuple[str, ...]] = ("pair-1", "pair-2")
    urls: ClassVar[tuple[str, ...]] = ("https://github.com/TharunMurugesh/sar-image-colorization",)
    citation: ClassVar[str] = (
        "SAR image colorization pairs, github.com/TharunMurugesh/sar-image-colorization."
    )
    truth: ClassVar[str] = "no water label: only the optical image can be scored"

    def __init__(self, root: Path, split: str) -> None:
        if split not in self.splits:
            raise FloraError(f"{self.name}: no split {split!r}; choose {', '.join(self.splits)}")
        self.split = split
        self.sar_scaling = SIH1733_SAR
        self.optical_scaling = SIH1733_RGB
        number = split[-1]
        folder = require_folder(
            Path(root) / f"Pair-{number}",
            self.name,
            "Pair-N/SAR-Image-N.jpg and Optical-Image-N.jpg",
        )
        self._sar = read_grey(folder / f"SAR-Image-{number}.jpg")
        self._optical = read_colour(folder / f"Optical-Image-{number}.jpg")
        if self._sar.shape != self._optical.shape[1:]:
            raise FloraError(
                f"{folder}: SAR of {self._sar.shape} px and optical of {self._optical.shape[1:]} "
                "px: the pictures of one pair must have one size; download them again"
            )
        rows, columns = (side // CHIP for side in self._sar.shape)
        self._windows = [
            Window(row * CHIP, column * CHIP, CHIP, CHIP)
            for row in range(rows)
            for column in range(columns)
        ]

    @classmethod
    def parts(cls, root: Path) -> list[tuple[str, dict[str, str]]]:
        """See `FloodDataset.parts`; the pairs that are there."""
        present = [split for split in cls.splits if (root / split.capitalize()).is_dir()]
        return [(split, {}) for split in present or cls.splits]

    def __len__(self) -> int:
        return len(self._windows)

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids are the scene, and row and column of the chip."""
        return [f"{self.split}_{w.row}_{w.column}" for w in self._windows]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        return CHIP, CHIP

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        part = self._windows[index]
        here = (
            ...,
            slice(part.row, part.row + CHIP),
            slice(part.column, part.column + CHIP),
        )
        everywhere = np.ones((CHIP, CHIP), dtype=bool)
        image = self.optical_scaling.normalise(self._optical[here], everywhere)
        sar = self.sar_scaling.normalise(self._sar[here][None].astype(np.float32), everywhere)
        sample = Sample(
            sar=torch.from_numpy(sar),
            sar_valid=torch.from_numpy(everywhere),
            optical=torch.from_numpy(image),
            optical_valid=torch.from_numpy(everywhere.copy()),
            index=torch.from_numpy(normalised_difference(image[1], image[0])[None]),
            water=torch.full((CHIP, CHIP), IGNORE, dtype=torch.int64),
            meta=Meta(
                id=self.manifest()[index],
                place=self.split,
                date=None,
                crs=None,
                transform=None,
                split=self.split,
            ),
        )
        return sample if window is None else crop_sample(sample, window)
