r"""Hold the area's interval against whole simulated scenes, not the small ones it was fitted on.

    python benchmarks/area_interval.py --record results/area_interval.json

Scenes of 5 km a side of the test split, of a seed that trained, fitted and tested nothing: ten
times the area of the scenes that the interval was fitted on; --sizes names others, larger ones.
Both files of weights that ship are asked, alone and with an image from before the flood. With
--keep, what is finished waits in a folder, and the same command goes on from it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.likelihood import COVERAGE, DATES, MODES, Areas, areas_of, coverage_of, scored
from benchmarks.simulated_chips import rounded
from flora.datasets.simulated import Simulated
from flora.experiments.provenance import write_record
from flora.models.beside import load_calibration
from flora.models.calibration import Calibration
from flora.models.checkpoints import shipped_weights
from flora.models.predict import predictor
from flora.models.weights import load_model, sensor_of
from flora.predictors import Mode

SEED = 2
CONFIDENCE = 0.95

Found = dict[str, dict[str, Areas]]  # by weights and mode, then water and flood


def calibrations() -> dict[str, tuple[Path, Mode, Calibration]]:
    """Of the weights that ship, by their dates and mode."""
    found = {}
    for dates in (1, 2):
        weights = shipped_weights(dates)
        for mode in MODES:
            calibration = load_calibration(weights, mode)
            if calibration is not None:
                found[f"{dates} {mode}"] = weights, mode, calibration
    return found


def answers(count: int, size: int, skip: int) -> Iterator[Found]:
    """Areas of each scene from number `skip` on, by each of the calibrations."""
    asked = calibrations()
    predictors = {weights: predictor(load_model(weights)) for weights, _, _ in asked.values()}
    sources = {
        weights: Simulated("test", count, size, SEED, DATES[-sensor_of(weights)[0].dates :])
        for weights in predictors
    }
    for number in range(skip, count):
        scene = next(iter(sources.values())).scene(number)  # all dates, whichever are stacked
        samples = {weights: source.sample(scene) for weights, source in sources.items()}
        yield {
            name: areas_of(scored(predictors[weights], mode, samples[weights], scene), calibration)
            for name, (weights, mode, calibration) in asked.items()
        }


def continued(keep: Path | None, count: int, size: int) -> Iterator[Found]:
    """The same from the first scene on, those that a file keeps without asking again."""
    kept = [] if keep is None or not keep.is_file() else keep.read_text().splitlines()
    for line in kept[:count]:
        yield {
            name: {part: Areas(*areas) for part, areas in parts.items()}
            for name, parts in json.loads(line).items()
        }
    for found in answers(count, size, len(kept)):
        if keep is not None:
            with keep.open("a") as file:
                file.write(json.dumps(found) + "\n")
        yield found


def judged(areas: Sequence[Areas], calibration: Calibration) -> dict[str, Any]:
    """How many intervals hold, with the exact binomial interval of that share.

    `asked` is what the middle nine of ten of these scenes would have asked for, in the doubt D of
    `Calibration`, to be held against `less` and `more`.
    """
    said = coverage_of(areas, calibration)
    inside = said["scenes"] - said["too_low"] - said["too_high"]
    share = binomtest(inside, said["scenes"]).proportion_ci(CONFIDENCE, "exact")
    away = [(one.true - one.expected) / one.doubtful for one in areas]
    low, high = np.quantile(away, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return said | {
        "interval": [rounded(share.low), rounded(share.high)],
        "asked": {"less": rounded(-float(low)), "more": rounded(float(high))},
        "fitted": {"less": rounded(calibration.less), "more": rounded(calibration.more)},
    }


def main() -> None:
    """Ask, judge, and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of what is finished, to go on from")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512], help="sides, px")
    parser.add_argument("--scenes", type=int, nargs="+", default=[40], help="of each size")
    asked = parser.parse_args()
    sizes = {}
    for size, count in zip(asked.sizes, asked.scenes, strict=True):
        keep = None if asked.keep is None else asked.keep / f"{size}.jsonl"
        found = list(continued(keep, count, size))
        modes = {
            name: {part: judged([one[name][part] for one in found], fit) for part in found[0][name]}
            for name, (_, _, fit) in calibrations().items()
        }
        for name, parts in modes.items():
            for part, said in parts.items():
                print(f"{size:5d} px {name:9s} {part:6s} {said['covered']:.3f} {said['interval']}")
        chips = Simulated("test", count, size, SEED).manifest()
        sizes[str(size)] = {"first": chips[0], "last": chips[-1], "modes": modes}
    if asked.record:
        record = {
            "question": "Does the area's interval, fitted on small scenes, hold on whole ones?",
            "coverage_promised": COVERAGE,
            "interval": f"{CONFIDENCE:.0%}, exact binomial",
            "sizes": sizes,
        }
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
