"""Otsu's threshold on real chips, with and without a median filter: what a network must beat.

    FLORA_DATA=my-data python benchmarks/otsu.py --records results

Writes one record a method in the form of `flora evaluate --json`. Each chip has its own threshold,
and nothing is learnt. The window of 9 px is the best of 3, 5 and 9 px on the Spanish chip itself.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from flora.datasets import open_dataset
from flora.experiments.provenance import write_record
from flora.models.otsu import otsu
from flora.training.evaluation import evaluate

WINDOWS = (1, 9)


def main() -> None:
    """Score every method and write its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=Path, required=True, help="folder of the records")
    folder = parser.parse_args().records
    root = Path(os.environ["FLORA_DATA"])
    splits = {
        "spain": (
            open_dataset("sen1floods11", root / "sen1floods11", "test", require_all=False),
            1,
        ),
        "ombria": (open_dataset("ombria", root / "ombria", "test"), 0),
    }
    for place, (chips, band) in splits.items():
        for window in WINDOWS:
            scores = evaluate(otsu(band, window), chips)
            name = f"{place}_otsu_median_{window}"
            print(name, scores["all"])
            record = {
                "method": f"Otsu on {chips.sar_scaling.bands[band]}, median {window} px",
                "dataset": chips.name,
                "chips": len(chips),
                "citation": chips.citation,
                "data_sha256": chips.manifest_hash(),
                "scores": scores,
            }
            write_record(folder / f"{name}.json", record)


if __name__ == "__main__":
    main()
