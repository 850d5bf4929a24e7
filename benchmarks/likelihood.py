r"""Fit the likelihood and the area's interval of some weights, and measure what both are worth.

    FLORA_DATA=my-data python benchmarks/likelihood.py --record results/likelihood.json

Simulated scenes of the validation split of another seed, which neither trained nor tested
anything: on the first of them the likelihood is fitted, on the others the interval. Both are then
held against scenes of the test split, and against the real test chips; these choose nothing.
Without --weights it is the file that comes with the package; --write keeps what was fitted beside
the weights, where `flora map` finds it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.calibration import Pixels, brier, calibration_error, few_chips, pooled, reliability
from benchmarks.simulated_chips import rounded
from flora.datasets.base import Date, Sample
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.experiments.provenance import write_record
from flora.files import write_whole
from flora.models.beside import Held, save_calibrations
from flora.models.calibration import Calibration, conformal_quantile, fit_likelihood
from flora.models.checkpoints import shipped_weights
from flora.models.predict import predictor
from flora.models.weights import load_model, sensor_of
from flora.predictors import Mode, Predictor
from flora.sensors import DRY, WATER, BoolArray
from flora.simulate.scene import Scene

FIT_SEED, TEST_SEED = 1, 0
COVERAGE = 0.9
EVERY = 5  # of the pixels, one in so many fits the likelihood: neighbours say nearly the same
DATES: tuple[Date, ...] = ("before", "after")
MODES: tuple[Mode, ...] = ("sar", "before")

Values = NDArray[np.float64]


class Scored(NamedTuple):
    """The pixels of one scene that are measured and whose truth is known.

    Attributes:
        probability: (n,), as the model says.
        water: (n,), the truth.
        earlier: (n,), what was water before the flood; None where that is not known.
    """

    probability: Values
    water: BoolArray
    earlier: BoolArray | None


class Areas(NamedTuple):
    """Of one scene, as shares of its pixels.

    Attributes:
        true: Water.
        expected: Sum of the likelihoods.
        doubtful: Sum of what the likelihood gives up as wrong.
        mapped: All pixels that count: 1, or less where water of before is left out.
    """

    true: float
    expected: float
    doubtful: float
    mapped: float


def simulated(
    predict: Predictor, modes: Sequence[Mode], chips: Simulated
) -> Iterator[dict[Mode, Scored]]:
    """Each scene in each mode."""
    for number in range(len(chips)):
        scene = chips.scene(number)
        sample = chips.sample(scene)
        yield {mode: scored(predict, mode, sample, scene) for mode in modes}


def scored(predict: Predictor, mode: Mode, sample: Sample, scene: Scene) -> Scored:
    """What the model says of one scene, beside the truth."""
    kept = ((sample["water"] == DRY) | (sample["water"] == WATER)).numpy()
    guide = None if mode == "sar" else sample["before"].map(lambda layer: layer[None])
    answer = predict(sample["sar"][None], sample["sar_valid"][None], guide)
    probability = answer.water[0, 0].double().numpy()[kept]
    return Scored(probability, (sample["water"] == WATER).numpy()[kept], scene.water_before[kept])


def real(predict: Predictor, data: Path) -> Iterator[tuple[str, Scored]]:
    """The real test chips, by name."""
    for name, sar, valid, label in few_chips(data):
        kept = (valid & ((label == DRY) | (label == WATER))).numpy()
        if kept.any():
            answer = predict(sar[None], valid[None], None).water[0, 0].double().numpy()[kept]
            yield name, Scored(answer, (label == WATER).numpy()[kept], None)


def areas_of(scene: Scored, calibration: Calibration) -> dict[str, Areas]:
    """Of all water, and of what was dry before, where that is known."""
    likely = calibration.likelihood(scene.probability)
    parts = {"water": np.ones(likely.shape, dtype=np.bool_)}
    if scene.earlier is not None:
        parts["flood"] = ~scene.earlier
    doubtful = np.minimum(likely, 1 - likely)
    sums = (scene.water.astype(float), likely, doubtful, np.ones(likely.shape))
    return {
        name: Areas(*(float(layer[part].sum()) / len(likely) for layer in sums))
        for name, part in parts.items()
    }


def fitted(pixels: Scored, scenes: Iterable[Scored], coverage: float) -> Calibration:
    """The likelihood of some pixels, and the interval of scenes that did not fit it.

    One interval serves all water and the flood: of each scene the worse of the two counts.
    """
    wet, dry, shift = fit_likelihood(pixels.probability[::EVERY], pixels.water[::EVERY])
    bare = Calibration(wet, dry, shift, 0.0, 0.0, coverage)
    less, more = [], []
    for scene in scenes:
        away = [(a.true - a.expected) / a.doubtful for a in areas_of(scene, bare).values()]
        less.append(-min(away))
        more.append(max(away))
    share = (1 + coverage) / 2  # each side may miss half of what both may
    sides = conformal_quantile(less, share), conformal_quantile(more, share)
    return Calibration(wet, dry, shift, *sides, coverage)


def coverage_of(found: Sequence[Areas], calibration: Calibration) -> dict[str, Any]:
    """How many true areas lie in their intervals, and how wide these are."""
    intervals = [calibration.interval(a.expected, a.doubtful, a.mapped) for a in found]
    inside = [i.low <= a.true <= i.high for i, a in zip(intervals, found, strict=True)]
    wide = [(i.high - i.low) / i.expected for i in intervals]
    return {
        "scenes": len(found),
        "covered": rounded(float(np.mean(inside))),
        "too_low": sum(a.true < i.low for i, a in zip(intervals, found, strict=True)),
        "too_high": sum(a.true > i.high for i, a in zip(intervals, found, strict=True)),
        "median_width_to_expected": rounded(float(np.median(wide))),
    }


def judged(scenes: Sequence[Scored], calibration: Calibration) -> dict[str, Any]:
    """Likelihood beside probability on all pixels, and the interval scene by scene."""
    before: Pixels = pooled([(s.probability, s.water) for s in scenes])
    after: Pixels = calibration.likelihood(before[0]), before[1]
    areas = [areas_of(scene, calibration) for scene in scenes]
    intervals = {name: coverage_of([one[name] for one in areas], calibration) for name in areas[0]}
    return {
        "pixels": len(before[0]),
        "probability": _worth(before),
        "likelihood": _worth(after) | {"reliability": _shown(after)},
        "intervals": intervals,
    }


def _worth(pixels: Pixels) -> dict[str, Any]:
    return {"brier": rounded(brier(pixels)), "ece": rounded(calibration_error(pixels))}


def _shown(pixels: Pixels) -> list[dict[str, Any]]:
    return [
        {key: value if key in ("bin", "pixels") else rounded(value) for key, value in one.items()}
        for one in reliability(pixels)
    ]


def each(chips: Sequence[tuple[str, Scored]], calibration: Calibration) -> dict[str, Any]:
    """Shares of water of each chip: true, expected, and the interval."""
    rows = {}
    for name, scene in chips:
        (found,) = areas_of(scene, calibration).values()
        interval = calibration.interval(found.expected, found.doubtful, found.mapped)
        ends = {"low": interval.low, "high": interval.high}
        rows[name] = {
            key: rounded(value)
            for key, value in ({"true": found.true, "expected": found.expected} | ends).items()
        }
    return rows


def joined(scenes: Sequence[Scored]) -> Scored:
    """The pixels of several scenes."""
    return Scored(*pooled([(scene.probability, scene.water) for scene in scenes]), None)


def kept(
    file: Path | None, predict: Predictor, sources: Sequence[Simulated]
) -> list[list[dict[Mode, Scored]]]:
    """The scored scenes of each source, from a file if it is there and holds these.

    Raises:
        FloraError: If it holds others.
    """
    names = [chips.manifest() for chips in sources]
    if file is not None and file.is_file():
        stored = torch.load(file, weights_only=False)
        if stored["names"] != names:
            raise FloraError(
                "holds other scenes than those asked for",
                argument="keep",
                value=file,
                remedy="name another file, or delete it",
            )
        earlier: list[list[dict[Mode, Scored]]] = stored["scored"]
        return earlier
    found = [list(simulated(predict, MODES, chips)) for chips in sources]
    if file is not None:
        stored = {"names": names, "scored": found}
        write_whole(file, lambda partial: torch.save(stored, partial))
    return found


def main() -> None:
    """Fit, judge, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--weights", type=Path, help="other weights than those that ship")
    parser.add_argument("--write", action="store_true", help="keep the fit beside the weights")
    parser.add_argument("--keep", type=Path, help="file to keep the answers to simulated scenes in")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--fit", type=int, default=40, help="scenes that fit the likelihood")
    parser.add_argument("--conform", type=int, default=99, help="scenes that fit the interval")
    parser.add_argument("--test", type=int, default=100, help="scenes that judge both")
    asked = parser.parse_args()
    weights = asked.weights or shipped_weights()
    predict = predictor(load_model(weights))
    dates = DATES[-sensor_of(weights)[0].dates :]
    count = asked.fit + asked.conform
    source = Simulated("valid", count, asked.size, FIT_SEED, dates)
    held_out = Simulated("test", asked.test, asked.size, TEST_SEED, dates)
    known, tests = kept(asked.keep, predict, (source, held_out))
    calibrations, modes = {}, {}
    held: dict[Mode, Held] = {}
    for mode in MODES:
        scenes = [scene[mode] for scene in known]
        fit = fitted(joined(scenes[: asked.fit]), scenes[asked.fit :], COVERAGE)
        calibrations[mode] = fit
        modes[mode] = {"fitted": vars(fit), "simulated": judged([t[mode] for t in tests], fit)}
        print(mode, fit, modes[mode]["simulated"]["intervals"], flush=True)
    if "FLORA_DATA" in os.environ and len(dates) == 1:  # the chips are of one date
        chips = list(real(predict, Path(os.environ["FLORA_DATA"])))
        on_chips = judged([scene for _, scene in chips], calibrations["sar"])
        modes["sar"]["real"] = on_chips | {"chips": each(chips, calibrations["sar"])}
        covered = on_chips["intervals"]["water"]
        held["sar"] = Held(len(chips), round(covered["covered"] * len(chips)))
        print(modes["sar"]["real"]["intervals"], flush=True)
    said = {
        "likelihood": _named(source, 0, asked.fit),
        "interval": _named(source, asked.fit, count),
    }
    if asked.write:
        print(save_calibrations(weights, calibrations, said, held))
    if asked.record:
        record = {
            "question": "How often is there water where the map says so, and how large is its "
            "area?",
            "coverage_promised": COVERAGE,
            "fitted_on": said,
            "judged_on": _named(held_out, 0, asked.test),
            "modes": modes,
            "cite": "Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel "
            "data 2016-2019.",
        }
        write_record(asked.record, record)


def _named(chips: Simulated, first: int, end: int) -> dict[str, Any]:
    names = chips.manifest()
    return {"scenes": end - first, "first": names[first], "last": names[end - 1]}


if __name__ == "__main__":
    main()
