r"""What four labelled real chips add to weights that know simulated scenes only.

    FLORA_DATA=my-data python benchmarks/few_real_labels.py --record results/few_real_labels.json

The weights that ship are trained further on four labelled chips of Sen1Floods11 (three that were
labelled anew, and "Spain_7370579" with its optical image); half of every batch are simulated
scenes, so that what the weights know is not forgotten. Once with FLoRA's teacher, which sees the
optical images of the simulated scenes and of that one real chip, and once without.

First each of the four chips is left out in turn, which says whether to train further; then the
weights trained on all four meet the seven test chips, which choose nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.test_chips import HAND, LOOKED_AT, Counts, counted, probability, score
from benchmarks.test_chips import chips as test_chips
from flora import InMemory, TrainingConfig, load_model, open_dataset, predictor
from flora.datasets.base import FloodDataset
from flora.datasets.unlabelled import Chosen, Mixed
from flora.experiments.evidence import judge
from flora.experiments.provenance import write_record
from flora.predictors import Predictor
from flora.sensors import SENTINEL1
from flora.training.recipes import UNDISTILLED, Lesson, fine_tune

RELABELLED = "sen1floods11_few/relabelled"
LESSONS = {"without the teacher": Lesson(UNDISTILLED), "with the teacher": Lesson()}
EVEN = 0.5  # where these maps call water


def labelled_chips(data: Path, folder: Path) -> FloodDataset:
    """The four real chips as one dataset, by links in a folder."""
    files = [*(data / RELABELLED).iterdir(), *(data / HAND).glob(f"*/{LOOKED_AT}_*")]
    for file in files:
        (folder / file.name).symlink_to(file.resolve())
    return InMemory(open_dataset("folder", folder, "all"))


def on_labelled(predict: Predictor, chips: FloodDataset) -> Iterator[tuple[str, Counts]]:
    """Counts of each chip of a dataset."""
    for chip in (chips[index] for index in range(len(chips))):
        label = chip["water"].numpy()
        found = probability(predict, chip["sar"], chip["sar_valid"]) >= EVEN
        yield chip["meta"]["id"], counted(found, chip["sar_valid"], label)


def on_test(predict: Predictor, data: Path) -> Iterator[tuple[str, Counts]]:
    """Counts of each of the seven test chips that was measured."""
    for name, sigma0, valid, label in test_chips(data):
        if name != LOOKED_AT and valid.any():
            sar = torch.from_numpy(SENTINEL1.normalise(sigma0, valid))
            yield name, counted(probability(predict, sar, valid) >= EVEN, valid, label)


def tuned(
    real: FloodDataset, simulated: FloodDataset, lesson: Lesson, training: TrainingConfig
) -> Predictor:
    """The weights that ship, trained further."""
    model = load_model()
    with tempfile.TemporaryDirectory() as folder:
        chips = Mixed(real, simulated)
        fine_tune(model, chips, Path(folder), training=training, lesson=lesson, quiet=True)
    return predictor(model)


def rows(counts: dict[str, Counts]) -> dict[str, Any]:
    """Scores of each chip and of all pixels together."""
    return {name: score(c) for name, c in counts.items()} | {
        "pooled": score(np.sum(list(counts.values()), axis=0))
    }


def left_out(
    real: FloodDataset, simulated: FloodDataset, training: TrainingConfig
) -> dict[str, Any]:
    """Each chip by weights that were trained further on the others."""
    before = dict(on_labelled(predictor(load_model()), real))
    found: dict[str, Any] = {"weights that ship": rows(before)}
    for name, lesson in LESSONS.items():
        counts: dict[str, Counts] = {}
        for number in range(len(real)):
            others = Chosen(real, [index for index in range(len(real)) if index != number])
            predict = tuned(others, simulated, lesson, training)
            counts |= dict(on_labelled(predict, Chosen(real, [number])))
        found[name] = rows(counts)
        gains = [
            found[name][chip]["water_iou"] - found["weights that ship"][chip]["water_iou"]
            for chip in counts
        ]
        found[name]["less those that ship"] = judge(gains).text()
        print(f"left out, {name}:", {c: r for c, r in found[name].items()}, flush=True)
    return found


def tested(
    real: FloodDataset,
    simulated: FloodDataset,
    data: Path,
    training: TrainingConfig,
    seeds: int,
) -> dict[str, Any]:
    """The test chips by weights trained further on all four, one training a seed."""
    found: dict[str, Any] = {
        "weights that ship": rows(dict(on_test(predictor(load_model()), data)))
    }
    for name, lesson in LESSONS.items():
        found[name] = []
        for seed in range(seeds):
            settings = TrainingConfig(**{**vars(training), "seed": seed})
            predict = tuned(real, simulated, lesson, settings)
            found[name].append(rows(dict(on_test(predict, data))))
            print(f"test, {name}, seed {seed}:", found[name][-1]["pooled"], flush=True)
    return found


def main() -> None:
    """Leave each chip out, then test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--scenes", type=int, default=240, help="simulated scenes to rehearse")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    data = Path(os.environ["FLORA_DATA"])
    training = TrainingConfig(steps=asked.steps, crop=96, learning_rate=5e-4)
    scenes = open_dataset("simulated", None, "train", count=asked.scenes)
    with tempfile.TemporaryDirectory() as folder:
        real, simulated = labelled_chips(data, Path(folder)), InMemory(scenes)
        record = {
            "question": "What do four labelled real chips add to weights from simulated scenes?",
            "training": vars(training),
            "simulated_scenes": asked.scenes,
            "left_out": left_out(real, simulated, training),
            "test": tested(real, simulated, data, training, asked.seeds),
            "holds_out": "left_out: the chip, of another flood than the others. test: seven chips "
            "of the official test split, on which nothing was chosen; those of India, Paraguay and "
            "Spain are of floods of which another chip is among the four.",
            "cite": "Sen1Floods11, Bonafilia et al. 2020; labels of three chips by Cloud to Street "
            "and Microsoft. Contains modified Copernicus Sentinel data 2016-2019.",
        }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
