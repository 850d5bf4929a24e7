"""A small real pair of radar and optical image that comes with the package."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import ClassVar

import numpy as np
import rasterio
import torch

from flora.datasets.base import FloodDataset, Meta, Sample, Window, crop_sample
from flora.errors import FloraError
from flora.sensors import IGNORE, SENTINEL1, SENTINEL2_RGB, normalised_difference

FOLDER = Path(str(resources.files("flora") / "example"))
RADAR = FOLDER / "paranagua_20210721_rtc.tif"
OPTICAL = FOLDER / "paranagua_20210723_s2.tif"
INCIDENCE = 38.8  # degrees, middle of the swath: the chip's own angle is not told


class RealPair(FloodDataset):
    """One real place, by Sentinel-1 and, two days later, by Sentinel-2.

    A beach at the Bay of Paranaguá, Brazil, July 2021, 224 x 224 pixels of 10 m. Its water is sea
    and creeks; much of what is as dark to the radar is sand. There is no flood, and no label:
    every pixel of `water` is 255. The radar is terrain-corrected gamma0, read as
    sigma0 = gamma0 cos(incidence angle) at 38.8 degrees, as `flora map` reads it. Of TerraMesh,
    CC BY-SA 4.0; see LICENCE.md beside the files.

    Args:
        split: "test", the only one.

    Raises:
        FloraError: If it is another split.

    Example:
        >>> from flora import open_dataset
        >>> pair = open_dataset("sample")[0]
        >>> pair["sar"].shape, pair["optical"].shape, pair["meta"]["date"]
        (torch.Size([2, 224, 224]), torch.Size([3, 224, 224]), '2021-07-21')
    """

    name: ClassVar[str] = "sample"
    splits: ClassVar[tuple[str, ...]] = ("test",)
    urls: ClassVar[tuple[str, ...]] = ("https://github.com/IBM/terramind",)
    citation: ClassVar[str] = (
        "Blumenstiel, B. et al. (2025). TerraMesh: a planetary mosaic of multimodal Earth "
        "observation data. arXiv:2504.11172. Chip 282D_485L_3_3, CC BY-SA 4.0; contains modified "
        "Copernicus Sentinel data 2021."
    )
    truth: ClassVar[str] = "no water label, and no flood: only the optical image can be scored"

    def __init__(self, split: str = "test") -> None:
        if split not in self.splits:
            raise FloraError("expected test, the only one", argument="split", value=repr(split))
        self.split = split
        self.sar_scaling = SENTINEL1
        self.optical_scaling = SENTINEL2_RGB

    def __len__(self) -> int:
        return 1

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`."""
        return [RADAR.stem]

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        with rasterio.open(RADAR) as file:
            rows, columns = file.shape
        return rows, columns

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        with rasterio.open(RADAR) as file:
            gamma0 = file.read().astype(np.float32) * np.float32(file.scales[0])
            measured = np.asarray(file.dataset_mask() > 0)
            crs, transform = file.crs.to_string(), tuple(file.transform)[:6]
        with rasterio.open(OPTICAL) as file:
            reflectance = file.read().astype(np.float32) * np.float32(file.scales[0])
        sigma0 = gamma0 + np.float32(10 * math.log10(math.cos(math.radians(INCIDENCE))))
        everywhere = np.ones_like(measured)  # no cloud
        red, near = reflectance[0], reflectance[3]
        sample = Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sigma0, measured)),
            sar_valid=torch.from_numpy(measured),
            optical=torch.from_numpy(
                self.optical_scaling.normalise(10_000 * reflectance[:3], everywhere)
            ),
            optical_valid=torch.from_numpy(everywhere),
            index=torch.from_numpy(normalised_difference(near, red)[None]),
            water=torch.full(measured.shape, IGNORE, dtype=torch.int64),
            meta=Meta(
                id=RADAR.stem,
                place="Paranaguá, Brazil",
                date="2021-07-21",
                crs=crs,
                transform=transform,
                split=self.split,
            ),
        )
        return sample if window is None else crop_sample(sample, window)
