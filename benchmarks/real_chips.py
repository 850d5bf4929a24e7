r"""What the weights that ship make of five real chips, in pictures; four have no flood label.

    FLORA_DATA=my-data python benchmarks/real_chips.py --figure book/images/real_chips.webp \
        --record results/real_chips.json

Rows: the chip "Spain" of Sen1Floods11, three chips of TerraMesh (a coast, farmland, a snowy plain;
their radar is gamma0, terrain-corrected), one patch of SEN12MS. Columns: VH; the real Sentinel-2
image; the image drawn from radar alone; the water found in it, from the weights' own threshold on.
Beside each row the record holds the share of water, there and at 0.5, and how far the drawn image
is from the real one, next to a constant image.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch

from flora.experiments.provenance import write_record
from flora.figures.plots import figure, scale_bar, show_backscatter, show_rgb, show_water_over
from flora.models.network import Flora
from flora.models.weights import load_model
from flora.predictors import EVEN
from flora.sensors import IGNORE, SENTINEL1, SENTINEL2_BANDS, BoolArray, FloatArray

RGB = [SENTINEL2_BANDS.index(name) for name in ("B4", "B3", "B2")]
WHITE = 3000.0  # stored value that is drawn as 1, as in the simulated training chips
PIXEL = 10.0  # m
ATTRIBUTION = (
    "Contains modified Copernicus Sentinel data. Sen1Floods11 (Bonafilia et al., 2020); TerraMesh "
    "(Blumenstiel et al., 2025, CC BY-SA 4.0); SEN12MS (Schmitt et al., 2019)."
)


class Chip(NamedTuple):
    """Files of one chip, and what is to be subtracted from its optical values."""

    says: str
    sar: str
    optical: str
    offset: float = 0.0


HAND = "sen1floods11/v1.1/data/flood_events/HandLabeled"
CHIPS = (
    Chip(
        "flood, Spain",
        f"{HAND}/S1Hand/Spain_7370579_S1Hand.tif",
        f"{HAND}/S2Hand/Spain_7370579_S2Hand.tif",
    ),
    *(
        Chip(says, f"terramesh/S1RTC/{name}.tif", f"terramesh/S2L1C/{name}.tif", 1000.0)
        for says, name in (
            ("coast", "282D_485L_3_3"),
            ("farmland", "433D_629L_3_1"),
            ("snow", "609U_541L_3_0"),
        )
    ),
    Chip(
        "autumn, SEN12MS",
        "sen12ms/ROIs1970_fall/s1_139/ROIs1970_fall_s1_139_p839.tif",
        "sen12ms/ROIs1970_fall/s2_139/ROIs1970_fall_s2_139_p839.tif",
    ),
)


class Seen(NamedTuple):
    """A chip and what the model makes of it."""

    vh: FloatArray
    real: FloatArray
    drawn: FloatArray
    water: FloatArray  # its probability
    valid: BoolArray


def look(chip: Chip, data: Path, model: Flora) -> Seen:
    """Read a chip and run the model on its radar image alone."""
    with rasterio.open(data / chip.sar) as file:
        backscatter = file.read().astype(np.float32)
    with rasterio.open(data / chip.optical) as file:
        real = (file.read()[RGB].astype(np.float32) - chip.offset) / WHITE
    valid = np.isfinite(backscatter).all(axis=0)
    with torch.inference_mode():
        output = model(torch.from_numpy(SENTINEL1.normalise(backscatter, valid))[None])
    water = torch.sigmoid(output.water_logits[0, 0]).numpy()
    drawn = output.rgb[0].numpy()
    return Seen(np.where(valid, backscatter[1], np.nan), real.clip(0, 1), drawn, water, valid)


def psnr(image: FloatArray, real: FloatArray, valid: BoolArray) -> float:
    """Peak signal-to-noise ratio in dB on the valid pixels, of images in [0, 1]."""
    return float(-10 * np.log10(np.square(image - real)[:, valid].mean()))


def main() -> None:
    """Draw, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, required=True, help="picture to write")
    parser.add_argument("--record", type=Path, help="write the figures as JSON to this file")
    arguments = parser.parse_args()
    data = Path(os.environ["FLORA_DATA"])
    model = load_model().eval()
    threshold = model.thresholds.get("sar", EVEN)
    made, axes = figure(len(CHIPS), 4, panel=(1.05, 1.1))
    rows: list[dict[str, Any]] = []
    for panels, chip in zip(axes, CHIPS, strict=True):
        seen = look(chip, data, model)
        show_backscatter(panels[0], seen.vh, band="VH", colour_bar=False)
        show_rgb(panels[1], seen.real, title="optical")
        show_rgb(panels[2], seen.drawn, seen.valid, title="drawn")
        show_backscatter(panels[3], seen.vh, band="VH", colour_bar=False)
        codes = np.where(seen.valid, seen.water >= threshold, IGNORE)
        show_water_over(panels[3], codes, legend=False)
        panels[3].set_title("water")
        panels[0].set_ylabel(chip.says.partition(",")[0])
        scale_bar(panels[0], PIXEL)
        if chip is not CHIPS[0]:
            for ax in panels:
                ax.set_title("")
        constant = np.broadcast_to(
            seen.real[:, seen.valid].mean(axis=1)[:, None, None], seen.real.shape
        )
        rows.append(
            {
                "chip": Path(chip.sar).stem,
                "says": chip.says,
                "water_share": float((seen.water[seen.valid] >= EVEN).mean()),
                "water_share_at_own": float((seen.water[seen.valid] >= threshold).mean()),
                "psnr": psnr(seen.drawn, seen.real, seen.valid),
                "psnr_of_own_mean_colour": psnr(constant, seen.real, seen.valid),
                "optical_scaling": f"B4/B3/B2, stored value / {WHITE:.0f}",
            }
        )
        print(rows[-1])
    made.picture()[0].save(arguments.figure, quality=82)
    if arguments.record:
        write_record(
            arguments.record,
            {
                "benchmark": "real_chips",
                "own_threshold": threshold,
                "rows": rows,
                "attribution": ATTRIBUTION,
            },
        )


if __name__ == "__main__":
    main()
