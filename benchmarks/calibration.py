r"""Whether a probability of water means what it says, on simulated scenes and on real chips.

    FLORA_DATA=my-data python benchmarks/calibration.py --record results/calibration.json

The weights that ship, once as they answer and once averaged over the eight flips and quarter turns
of the input. Per set of pixels: the Brier score (Brier, 1950), the expected calibration error in
ten bins (Naeini et al., 2015), the bins themselves, the water IoU of the share of pixels that the
model is surest of (Geifman and El-Yaniv, 2017), and the area: true, mapped and expected.
Nothing was chosen on the seven real chips.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.simulated_chips import described, read_chips, rounded
from benchmarks.test_chips import LOOKED_AT
from benchmarks.test_chips import chips as real_chips
from flora.experiments.evidence import judge
from flora.experiments.provenance import write_record
from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.predictors import Predictor
from flora.sensors import DRY, SENTINEL1, WATER

BINS = 10
KEPT = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)  # shares of the pixels, the surest first
SURE, POSSIBLE = 0.95, 0.05  # probabilities between whose areas the true one should lie

Values = NDArray[np.float64]
Pixels = tuple[Values, NDArray[np.bool_]]  # probability and truth, one a pixel


def plain(predict: Predictor, sar: Tensor, valid: Tensor) -> Tensor:
    """Probability of water (H, W) of normalised radar (C, H, W)."""
    return predict(sar[None], valid[None], None).water[0, 0]


def turned(predict: Predictor, sar: Tensor, valid: Tensor) -> Tensor:
    """The mean over the eight flips and quarter turns, each turned back."""
    total = torch.zeros(valid.shape)
    for quarter in range(4):
        for flip in (False, True):
            layers = [torch.rot90(layer, quarter, (-2, -1)) for layer in (sar, valid)]
            if flip:
                layers = [layer.flip(-1) for layer in layers]
            water = plain(predict, *layers)
            total += torch.rot90(water.flip(-1) if flip else water, -quarter, (-2, -1))
    return total / 8


METHODS = {"plain": plain, "flips and turns": turned}


def brier(pixels: Pixels) -> float:
    """Mean squared distance of probability and truth."""
    probability, water = pixels
    return float(np.square(probability - water).mean())


def reliability(pixels: Pixels) -> list[dict[str, float]]:
    """Pixels, mean probability and share of water of each bin that holds any."""
    probability, water = pixels
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        here = bins == number
        if here.any():
            said, seen = float(probability[here].mean()), float(water[here].mean())
            rows.append({"bin": number, "pixels": int(here.sum()), "said": said, "water": seen})
    return rows


def calibration_error(pixels: Pixels) -> float:
    """Expected calibration error: what bins say less what they hold, by their pixels."""
    rows = reliability(pixels)
    away = sum(row["pixels"] * abs(row["said"] - row["water"]) for row in rows)
    return away / len(pixels[0])


def iou(pixels: Pixels) -> float | None:
    """Water IoU at 0.5; None where there is no water, found or true."""
    found, water = pixels[0] >= 0.5, pixels[1]
    union = int((found | water).sum())
    return int((found & water).sum()) / union if union else None


def selective(pixels: Pixels) -> dict[str, float | None]:
    """Water IoU of the surest pixels, by their share."""
    order = np.argsort(-np.abs(pixels[0] - 0.5), kind="stable")
    kept = {share: order[: round(share * len(order))] for share in KEPT}
    return {
        f"{share:g}": rounded(iou((pixels[0][some], pixels[1][some])))
        for share, some in kept.items()
    }


def area(pixels: Pixels) -> dict[str, float]:
    """Shares of the pixels: true water, mapped, expected, surely and possibly water."""
    probability, water = pixels
    return {
        "true": float(water.mean()),
        "mapped": float((probability >= 0.5).mean()),
        "expected": float(probability.mean()),
        "sure": float((probability >= SURE).mean()),
        "possible": float((probability >= POSSIBLE).mean()),
    }


def row(pixels: Pixels) -> dict[str, Any]:
    """Everything of a set of pixels."""
    shown = [
        {key: value if key in ("bin", "pixels") else rounded(value) for key, value in one.items()}
        for one in reliability(pixels)
    ]
    return {
        "pixels": len(pixels[0]),
        "brier": rounded(brier(pixels)),
        "ece": rounded(calibration_error(pixels)),
        "water_iou": rounded(iou(pixels)),
        "area": {key: rounded(value) for key, value in area(pixels).items()},
        "selective_iou": selective(pixels),
        "reliability": shown,
    }


def covered(parts: list[Pixels]) -> dict[str, Any]:
    """How often the true area lies between the sure and the possible one, chip by chip."""
    areas = [area(part) for part in parts]
    inside = [one["sure"] <= one["true"] <= one["possible"] for one in areas]
    return {"chips": len(inside), "covered": rounded(float(np.mean(inside)))}


def pooled(parts: list[Pixels]) -> Pixels:
    """The pixels of several chips."""
    probability, water = zip(*parts, strict=True)
    return np.concatenate(probability), np.concatenate(water)


def simulated_chips(asked: argparse.Namespace) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Name, radar, where it was measured, and label of each simulated chip."""
    for chip in read_chips(asked.scenes, asked.size, asked.seed, asked.keep):
        yield chip["meta"]["id"], chip["sar"], chip["sar_valid"], chip["water"]


def few_chips(data: Path) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """The same of the seven real ones."""
    for name, sigma0, valid, label in real_chips(data):
        if name != LOOKED_AT:
            sar = torch.from_numpy(SENTINEL1.normalise(sigma0, valid))
            yield name, sar, torch.from_numpy(valid), torch.from_numpy(label)


def measure(
    predict: Predictor, chips: Iterator[tuple[str, Tensor, Tensor, Tensor]], each: bool
) -> dict[str, Any]:
    """Both methods on these chips: pooled, paired, and where asked for chip by chip."""
    parts: dict[str, list[Pixels]] = {method: [] for method in METHODS}
    rows: dict[str, Any] = {}
    for name, sar, valid, label in chips:
        scored = (valid & ((label == DRY) | (label == WATER))).numpy()
        if not scored.any():
            rows[name] = "no pixel that is measured and labelled"
            continue
        rows[name] = {}
        for method, answer in METHODS.items():
            probability = answer(predict, sar, valid).double().numpy()[scored]
            parts[method].append((probability, (label == WATER).numpy()[scored]))
            rows[name][method] = row(parts[method][-1])
        print(name, {method: found["ece"] for method, found in rows[name].items()}, flush=True)
    gains = {}
    for metric, of in (("brier", brier), ("ece", calibration_error)):
        pairs = zip(*(parts[method] for method in METHODS), strict=True)
        found = judge([of(averaged) - of(alone) for alone, averaged in pairs])
        gains[metric] = {
            "difference": rounded(found.mean),
            "low": rounded(found.low),
            "high": rounded(found.high),
            "chips": found.count,
        }
    whole = {
        m: {**row(pooled(part)), **{"area_covered": covered(part)}} for m, part in parts.items()
    }
    return {"pooled": whole, "averaged_less_plain": gains} | ({"chips": rows} if each else {})


def main() -> None:
    """Measure both sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file to keep the simulated scenes in")
    asked = parser.parse_args()
    predict = predictor(load_model())
    chips = read_chips(asked.scenes, asked.size, asked.seed, asked.keep)
    record = {
        "question": "Does a probability of water mean what it says?",
        "methods": "plain: the weights that ship, SAR alone; flips and turns: mean of eight",
        "area_covered": f"share of chips whose true area lies between those of p >= {SURE} and "
        f"p >= {POSSIBLE}",
        "chips": described(chips, asked.seed),
        "simulated": measure(predict, simulated_chips(asked), each=False),
        "real": measure(predict, few_chips(Path(os.environ["FLORA_DATA"])), each=True),
        "cite": "Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel "
        "data 2016-2019.",
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
