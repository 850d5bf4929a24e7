r"""What the weights that ship lose when the radar image is another product's.

    python benchmarks/other_products.py --record results/other_products.json

Simulated test scenes in mode `sar`, each changed as another product, processor or instrument would
have it, and scored against the same scene unchanged:

- gamma0 = sigma0 / cos(incidence) in place of sigma0 (Small, 2011, doi 10.1109/TGRS.2011.2120616);
- 20 m pixels: power averaged 2 x 2, then each pixel repeated onto the grid of 10 m;
- fewer looks: more speckle, as the product of the image and independent speckle;
- a calibration that is off by a constant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.simulated_chips import chip_scores, described, paired, read_chips
from flora.datasets.base import Sample, collate
from flora.experiments.provenance import write_record
from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.sensors import SENTINEL1, BoolArray, FloatArray
from flora.simulate.radar import speckle
from flora.training.evaluation import answer

LOOKS = 4.4  # of the images that are changed, IW GRD (product specification)
CORRELATED = 1.2  # px, the width of their speckle
Change = Callable[[FloatArray, BoolArray, int], FloatArray]


def gamma0(degrees: float) -> Change:
    """Gamma0 at one incidence angle."""
    more = float(-10 * np.log10(np.cos(np.radians(degrees))))
    return lambda decibel, valid, seed: decibel + np.float32(more)


def offset(decibel_off: float) -> Change:
    """A calibration that is off."""
    return lambda decibel, valid, seed: decibel + np.float32(decibel_off)


def coarse(decibel: FloatArray, valid: BoolArray, seed: int) -> FloatArray:
    """Power averaged over the measured of 2 x 2 px, on the grid of before."""
    bands, rows, columns = decibel.shape
    blocks = (bands, rows // 2, 2, columns // 2, 2)
    power = np.where(valid, 10 ** (decibel / 10), 0.0).reshape(blocks).sum(axis=(2, 4))
    count = np.broadcast_to(valid, decibel.shape).reshape(blocks).sum(axis=(2, 4))
    mean = 10 * np.log10(np.maximum(power, 1e-9) / np.maximum(count, 1))
    return np.repeat(np.repeat(mean, 2, axis=1), 2, axis=2).astype(np.float32)


def fewer_looks(looks: float) -> Change:
    """Speckle on speckle: variances give 1 + 1/looks = (1 + 1/LOOKS) (1 + 1/more)."""
    more = 1 / ((1 + 1 / looks) / (1 + 1 / LOOKS) - 1)

    def change(decibel: FloatArray, valid: BoolArray, seed: int) -> FloatArray:
        rng = np.random.default_rng(seed)
        rows, columns = valid.shape
        extra = np.stack([speckle(rng, (rows, columns), more, CORRELATED) for _ in decibel])
        return (decibel + 10 * np.log10(extra)).astype(np.float32)

    return change


CHANGES: dict[str, Change] = {
    "gamma0 at 30 degrees": gamma0(30),
    "gamma0 at 38 degrees": gamma0(38),
    "gamma0 at 46 degrees": gamma0(46),
    "20 m pixels": coarse,
    "3 looks": fewer_looks(3.0),
    "2 looks": fewer_looks(2.0),
    "1.3 looks": fewer_looks(1.3),
    "2 dB too low": offset(-2),
    "1 dB too low": offset(-1),
    "1 dB too high": offset(1),
    "2 dB too high": offset(2),
}


def changed(chip: Sample, change: Change, seed: int) -> Sample:
    """The chip with another radar image."""
    valid = chip["sar_valid"].numpy()
    decibel = change(SENTINEL1.restore(chip["sar"].numpy()), valid, seed)
    return Sample(**{**chip, "sar": torch.from_numpy(SENTINEL1.normalise(decibel, valid))})


def main() -> None:
    """Score all changes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file to keep the simulated scenes in")
    asked = parser.parse_args()
    chips = read_chips(asked.scenes, asked.size, asked.seed, asked.keep)
    predict = predictor(load_model())
    plain = [chip_scores(answer(predict, collate([chip])), chip) for chip in chips]
    rows = {"as trained": paired(plain, plain)}
    for name, change in CHANGES.items():
        others = [changed(chip, change, number) for number, chip in enumerate(chips)]
        scores = [
            chip_scores(answer(predict, collate([other])), chip)
            for other, chip in zip(others, chips, strict=True)
        ]
        rows[name] = paired(scores, plain)
        print(f"{name:22s}", rows[name], flush=True)
    record = {
        "question": "What do the weights that ship lose on another product?",
        "chips": described(chips, asked.seed),
        "differences": "to the same scenes unchanged, with 95 % intervals over chips",
        "rows": rows,
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
