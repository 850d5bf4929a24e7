r"""Which threshold the probability of water needs on real chips, and what it is worth.

    FLORA_DATA=my-data python benchmarks/real_threshold.py --write \
        --record results/real_threshold.json

The weights that ship have seen simulated scenes only, and are too unsure of real water. Four
labelled real chips (those of `few_real_labels`) choose one number: the probability from which a
pixel is water, by their mean water IoU. First each chip is left out in turn, which says whether to
ship what all four choose: it ships if the mean gain on the chip left out is positive, else 0.5
stays. Then the threshold of all four meets the seven test chips, which choose nothing, and
simulated scenes. --write keeps it beside the weights, where maps find it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from benchmarks.few_real_labels import labelled_chips
from benchmarks.simulated_chips import rounded
from benchmarks.test_chips import CITE, MEDIAN, OURS, counted, probability, rows_of
from flora import InMemory, load_model, predictor
from flora.datasets.base import FloodDataset
from flora.datasets.simulated import Simulated
from flora.datasets.unlabelled import Chosen
from flora.experiments.evidence import judge
from flora.experiments.provenance import write_record
from flora.models.beside import ChosenThreshold, save_thresholds
from flora.models.checkpoints import shipped_weights
from flora.predictors import EVEN, Predictor
from flora.sensors import SENTINEL1, WATER

STEPS = [step / 100 for step in range(5, 100, 5)]
Values = NDArray[np.float64]


def curves(predict: Predictor, chips: FloodDataset) -> dict[str, Values]:
    """Hits, false alarms and misses (T, 3) of each chip, at each of `STEPS`."""
    found = {}
    for chip in (chips[index] for index in range(len(chips))):
        seen, label = chip["sar_valid"], chip["water"].numpy()
        chance = probability(predict, chip["sar"], seen)
        found[chip["meta"]["id"]] = np.array([counted(chance >= at, seen, label) for at in STEPS])
    return found


def brightness(predict: Predictor, chips: FloodDataset) -> dict[str, dict[str, list[float]]]:
    """Quarters of the backscatter (dB, VV and VH) of water that is found and missed at 0.5.

    Of all chips together, after a median filter against speckle.
    """
    found: dict[str, list[NDArray[np.float32]]] = {"found": [], "missed": []}
    for chip in (chips[index] for index in range(len(chips))):
        sigma0 = SENTINEL1.restore(chip["sar"].numpy())
        smooth = np.stack([median_filter(band, MEDIAN) for band in sigma0])
        wet = ((chip["water"] == WATER) & chip["sar_valid"]).numpy()
        called = probability(predict, chip["sar"], chip["sar_valid"]) >= EVEN
        for name, part in (("found", wet & called), ("missed", wet & ~called)):
            found[name].append(smooth[:, part])
    return {
        name: {
            band: np.percentile(values, (25, 50, 75)).round(1).tolist()
            for band, values in zip(SENTINEL1.bands, np.concatenate(parts, axis=1), strict=True)
        }
        for name, parts in found.items()
    }


def water_iou(counts: Values) -> Values:
    """Of hits, false alarms and misses (..., 3)."""
    iou: Values = counts[..., 0] / np.maximum(counts.sum(axis=-1), 1)
    return iou


def chosen(ious: Iterable[Values]) -> int:
    """The step at which chips, taken alike, are mapped best."""
    return int(np.mean(list(ious), axis=0).argmax())


def left_out(ious: Mapping[str, Values]) -> tuple[dict[str, Any], list[float]]:
    """Each chip at the threshold that the others choose, and what that gains."""
    rows, gains = {}, []
    for name, own in ious.items():
        step = chosen(other for other_name, other in ious.items() if other_name != name)
        even = float(own[STEPS.index(EVEN)])
        gains.append(float(own[step]) - even)
        rows[name] = {
            "threshold": STEPS[step],
            "water_iou": rounded(float(own[step])),
            f"water_iou_at_{EVEN:g}": rounded(even),
        }
    return rows, gains


def drawn(ious: Values) -> dict[str, float | None]:
    """An IoU at each of `STEPS`."""
    return {f"{at:g}": rounded(iou) for at, iou in zip(STEPS, ious.tolist(), strict=True)}


def main() -> None:
    """Leave each chip out, choose, then test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--weights", type=Path, help="other weights than those that ship")
    parser.add_argument("--write", action="store_true", help="keep it beside the weights")
    parser.add_argument("--scenes", type=int, default=48, help="simulated scenes that say the cost")
    asked = parser.parse_args()
    data, weights = Path(os.environ["FLORA_DATA"]), asked.weights or shipped_weights()
    predict = predictor(load_model(weights))
    with tempfile.TemporaryDirectory() as folder:
        real = labelled_chips(data, Path(folder))
        counts = curves(predict, real)
        each = [Chosen(real, [number]) for number in range(len(real))]
        bright = {name: brightness(predict, one) for name, one in zip(counts, each, strict=True)}
    ious = {name: water_iou(one) for name, one in counts.items()}
    rows, gains = left_out(ious)
    gain = judge(gains)
    threshold = STEPS[chosen(ious.values())]
    ships = threshold if float(np.mean(gains)) > 0 else EVEN
    print("left out:", rows, gain.text(), f"all choose {threshold:g}, ships {ships:g}", flush=True)
    if asked.write:
        own = {} if ships == EVEN else {"sar": ChosenThreshold(ships, tuple(sorted(ious)))}
        print(save_thresholds(weights, own))
    if not asked.record:
        return
    tested = rows_of(data, predict, {f"{OURS}, {at:g}": at for at in (EVEN, threshold)})
    print("test, pooled:", tested["pooled"], flush=True)
    scenes = InMemory(Simulated("test", count=asked.scenes, size=160))
    simulated = water_iou(np.sum(list(curves(predict, scenes).values()), axis=0))
    record = {
        "question": "Which threshold does the probability of water need on real chips?",
        "steps": STEPS,
        "labelled": {name: drawn(iou) for name, iou in ious.items()},
        "mean": drawn(np.mean(list(ious.values()), axis=0)),
        "left_out": rows | {f"less_{EVEN:g}": gain.text()},
        "chosen": threshold,
        "ships": ships,
        "test": tested,
        "simulated": {"scenes": asked.scenes, "water_iou": drawn(simulated)},
        "backscatter_of_water_dB": bright | {"simulated": brightness(predict, scenes)},
        "holds_out": "left_out: the chip, of another flood than the others. test: seven chips of "
        "the official test split, which choose nothing; those of India, Paraguay and Spain are of "
        "floods of which another chip is among the four that choose. Spain_7370579, which is one "
        "of these four, is not in the pooled row. simulated: scenes of the test split, pooled.",
        "cite": f"{CITE} Labels of three chips by Cloud to Street and Microsoft.",
    }
    write_record(asked.record, record)


if __name__ == "__main__":
    main()
