"""A Sentinel-2 product in ESA's layout: one value a band, in JPEG 2000 without loss."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from tests.support.fake_scenes import GRID, UTM

LEVEL_1C = "S2A_MSIL1C_20190907T105621_N0208_R094_T30SXH_20190907T131245.SAFE"
LEVEL_2A = "S2B_MSIL2A_20230906T102601_N0509_R108_T30SXH_20230906T142124.SAFE"
VALUES = {"B02": 1900, "B03": 2100, "B04": 2300, "B08": 4100}
SIDE = 64


def fake_sentinel2(
    root: Path, name: str = LEVEL_1C, baseline: str = "02.08", granules: int = 1
) -> Path:
    """Write `VALUES` as a product, the left eight columns 0; returns its folder."""
    safe, level = root / name, name[7:10]
    for granule in range(granules):
        folder = safe / "GRANULE" / f"{level}_T30SXH_A0{granule}" / "IMG_DATA"
        for resolution, step in (("10m", 1), ("20m", 2)) if level == "L2A" else (("", 1),):
            for band, value in VALUES.items():
                end = f"_{resolution}" if resolution else ""
                values = np.full((1, SIDE // step, SIDE // step), value, np.uint16)
                values[:, :, : 8 // step] = 0
                part = folder / f"R{resolution}" if resolution else folder
                _write(part / f"T30SXH_20190907T105621_{band}{end}.jp2", values, step)
        _write(folder / "T30SXH_20190907T105621_TCI.jp2", np.ones((3, 8, 8), np.uint16), 8)
    (safe / f"MTD_MSI{level}.xml").write_text(
        f"<n1:Level><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></n1:Level>"
    )
    return safe


def _write(path: Path, values: np.ndarray, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True, "dtype": "uint16"}
    profile |= {"count": len(values), "height": values.shape[1], "width": values.shape[2]}
    profile |= {"crs": UTM, "transform": GRID @ GRID.scale(step)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)
