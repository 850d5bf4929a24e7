r"""What a radar date from before the flood adds, with the weights that ship for one date and two.

    python benchmarks/two_dates.py --record results/two_dates.json

Simulated test scenes in mode `sar`: the water of the flood's date, permanent water included. The
file for one date was trained on 640 scenes of the same simulator for 3,600 steps (its teacher for
900), the one for two dates on 480 scenes for 2,400 (600): the second date has the shorter training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.simulated_chips import chip_scores, described, paired, read_chips
from flora import load_model, open_dataset, predictor
from flora.datasets.base import collate
from flora.experiments.provenance import write_record
from flora.training.evaluation import answer


def main() -> None:
    """Score both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chips = read_chips(asked.scenes, asked.size, asked.seed)
    options = {"count": asked.scenes, "size": asked.size, "seed": asked.seed}
    both = open_dataset("simulated", None, "test", sar_dates=("before", "after"), **options)
    scores = {
        dates: [
            chip_scores(answer(predictor(load_model(dates=dates)), collate([chip])), chip)
            for chip in seen
        ]
        for dates, seen in ((1, chips), (2, (both[index] for index in range(len(both)))))
    }
    rows = {
        "one date": paired(scores[1], scores[1]),
        "two dates": paired(scores[2], scores[1]),
    }
    for name, row in rows.items():
        print(f"{name:10s}", row)
    if asked.record:
        record = {
            "question": "What does a radar date from before the flood add?",
            "chips": described(chips, asked.seed),
            "differences": "to one date, with 95 % intervals over chips",
            "rows": rows,
        }
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
