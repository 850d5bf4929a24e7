r"""How many bands of Sen1Floods11 the released code takes for linear power.

    FLORA_DATA=my-data python benchmarks/released_bands.py --record results/released_bands.json

The release reads a band as dB only if its median is below 0 and no pixel is above 5 dB
(`data/dataset_sen1floods11.py`, lines 52 to 73, commit bb5617b). Any other band is taken for linear
power: what is below 0 becomes 0, and the rest is stretched. Counted here are the chips on disk, as
published, after the release's own first step, which makes missing pixels 0.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray

from flora.experiments.provenance import write_record

CHIPS = "sen1floods11*/**/*_S1Hand.tif"
HIGHEST_DB = 5.0


class Band(NamedTuple):
    """What becomes of one band.

    Attributes:
        wiped_out: Whether its dB are taken for linear power.
        above: Pixels above 5 dB.
        at_zero: Share of the measured pixels that become 0, if it is wiped out.
    """

    wiped_out: bool
    above: int
    at_zero: float


def look(sigma0: NDArray[np.float32]) -> Band | None:
    """What the release makes of a band; None where nothing was measured.

    Args:
        sigma0: (H, W) backscatter in dB, NaN where it is missing.
    """
    measured = sigma0[np.isfinite(sigma0)]
    if not measured.size:
        return None
    filled = np.nan_to_num(sigma0, nan=0.0, posinf=0.0, neginf=0.0)
    wiped_out = not (np.median(filled) < 0 and filled.max() <= HIGHEST_DB)
    return Band(
        wiped_out,
        above=int((measured > HIGHEST_DB).sum()),
        at_zero=float((measured < 0).mean()),
    )


def main() -> None:
    """Look at each chip on disk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    root = Path(os.environ["FLORA_DATA"])
    bands, empty = {}, []
    for path in sorted(root.glob(CHIPS), key=lambda path: path.name):
        chip = path.name.removesuffix("_S1Hand.tif")
        with rasterio.open(path) as file:
            for name, sigma0 in zip(("VV", "VH"), file.read(), strict=True):
                band = look(sigma0)
                if band is None:
                    empty.append(f"{chip} {name}")
                else:
                    bands[f"{chip} {name}"] = band
    wiped_out = {name: band for name, band in bands.items() if band.wiped_out}
    print(f"{len(wiped_out)} of {len(bands)} bands, {len(empty)} without a pixel: {wiped_out}")
    if asked.record:
        record = {
            "question": "How many bands of Sen1Floods11 does the release take for linear power?",
            "bands": len(bands),
            "wiped_out": len(wiped_out),
            "without_a_pixel": empty,
            "of_each": {name: band._asdict() for name, band in bands.items()},
            "cite": "Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel "
            "data.",
        }
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
