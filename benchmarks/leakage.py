r"""How near the test chips of Sen1Floods11 lie to the chips that are trained on.

    FLORA_DATA=my-data python benchmarks/leakage.py --record results/leakage.json

Where the 446 hand-labelled chips lie, from their public catalogue: which of the official test chips
share an edge or a corner with a training chip, and how many do under the blocked split of
`flora.open_dataset("sen1floods11", ..., scheme="blocked")`.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any

from flora.datasets.blocks import ChipBounds, touching, whole_blocks
from flora.experiments.provenance import write_record

INDEX = "sen1floods11_few/hand_chips_index.csv"
PIXEL = 0.0001  # degrees, a little more than one
SIDES = ("lonmin", "latmin", "lonmax", "latmax")


def touches(first: ChipBounds, second: ChipBounds, corners: bool) -> bool:
    """Whether two chips share an edge, or at least a corner."""
    across = min(first[2], second[2]) - max(first[0], second[0])
    along = min(first[3], second[3]) - max(first[1], second[1])
    near = min(across, along) >= -PIXEL
    return near and (corners or max(across, along) > PIXEL)


def leaks(bounds: dict[str, ChipBounds], splits: dict[str, str], corners: bool) -> list[str]:
    """Test chips that touch a training chip."""
    trained = [chip for chip, split in splits.items() if split == "train"]
    tested = [chip for chip, split in splits.items() if split == "test"]
    return [
        chip
        for chip in tested
        if any(touches(bounds[chip], bounds[other], corners) for other in trained)
    ]


def main() -> None:
    """Count, and keep where the chips lie."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    with (Path(os.environ["FLORA_DATA"]) / INDEX).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    bounds: dict[str, ChipBounds] = {}
    for row in rows:
        west, south, east, north = (float(row[side]) for side in SIDES)
        bounds[row["chip"]] = (west, south, east, north)
    official = {row["chip"]: row["split"] for row in rows}
    blocked = whole_blocks(official, touching(bounds, gap=PIXEL))
    counts: dict[str, Any] = {}
    for name, splits in (("official", official), ("blocked", blocked)):
        counts[name] = {
            "chips": dict(Counter(splits.values())),
            "test chips that share an edge with a training chip": len(leaks(bounds, splits, False)),
            "an edge or a corner": len(leaks(bounds, splits, True)),
        }
        print(name, counts[name])
    touching_now = set(leaks(bounds, official, corners=False))
    record = {
        "question": "How near do the test chips of Sen1Floods11 lie to the training chips?",
        "counts": counts,
        "chips": [
            {
                "chip": chip,
                "split": official[chip],
                "blocked": blocked[chip],
                "touches_training": chip in touching_now,
                "bounds": [round(side, 6) for side in bounds[chip]],
            }
            for chip in sorted(bounds)
        ],
        "cite": "Sen1Floods11, Bonafilia et al. 2020; places of the chips from its public STAC "
        "catalogue.",
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
