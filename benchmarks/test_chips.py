r"""What the weights that ship find on real test chips of Sen1Floods11, next to two thresholds.

    FLORA_DATA=my-data python benchmarks/test_chips.py --record results/test_chips.json

The chips are seven of the official test split (hand labels of all water, permanent water
included), and the chip "Spain_7370579" of the same split, which was looked at while the simulator
was tuned. Nothing was chosen on the seven; the weights have seen simulated scenes only. Rows:
one a chip, and "pooled" over all pixels of the seven that are labelled and measured.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from scipy.ndimage import median_filter

from flora import load_model, predictor
from flora.experiments.provenance import write_record
from flora.models.otsu import otsu_threshold
from flora.predictors import Predictor, threshold_of
from flora.sensors import DRY, SENTINEL1, WATER, BoolArray, FloatArray

FEW = "sen1floods11_few/test"
HAND = "sen1floods11/v1.1/data/flood_events/HandLabeled"
LOOKED_AT = "Spain_7370579"
MEDIAN = 9  # px
FIXED = -20.0  # dB
OURS = "FLoRA, weights that ship"
CITE = "Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel data 2016-2019."
Counts = np.ndarray  # hits, false alarms, misses


def chips(data: Path) -> Iterator[tuple[str, FloatArray, BoolArray, np.ndarray]]:
    """Name, sigma0 in dB (2, H, W), where it was measured, and label (H, W) of each chip."""
    paths = sorted((data / FEW / "S1Hand").glob("*.tif"))
    for path in [*paths, data / HAND / "S1Hand" / f"{LOOKED_AT}_S1Hand.tif"]:
        name = path.name.removesuffix("_S1Hand.tif")
        with rasterio.open(path) as file:
            sigma0 = file.read()
        with rasterio.open(path.parent.parent / "LabelHand" / f"{name}_LabelHand.tif") as file:
            label = file.read(1)
        yield name, sigma0, np.isfinite(sigma0).all(axis=0), label


def answers(
    sigma0: FloatArray, valid: BoolArray, predict: Predictor, thresholds: Mapping[str, float]
) -> dict[str, BoolArray]:
    """Water (H, W) by the network at each threshold, named, and by each rival."""
    chance = probability(predict, torch.from_numpy(SENTINEL1.normalise(sigma0, valid)), valid)
    smooth = median_filter(np.where(valid, sigma0[1], np.nanmedian(sigma0[1])), MEDIAN)
    return {name: chance >= threshold for name, threshold in thresholds.items()} | {
        f"Otsu on VH, {MEDIAN} px median": smooth < otsu_threshold(smooth[valid]),
        f"VH < {FIXED:g} dB, {MEDIAN} px median": smooth < FIXED,
    }


def probability(predict: Predictor, sar: torch.Tensor, valid: Any) -> FloatArray:
    """Probability of water (H, W) of one chip, from radar alone."""
    found: FloatArray = predict(sar[None], torch.as_tensor(valid)[None], None).water[0, 0].numpy()
    return found


def counted(found: BoolArray, valid: Any, label: Any) -> Counts:
    """Hits, false alarms and misses of one chip, where it is measured and labelled."""
    scored, truth = np.asarray(valid) & np.isin(label, (DRY, WATER)), np.asarray(label) == WATER
    parts = (truth & found, ~truth & found, truth & ~found)
    return np.array([(part & scored).sum() for part in parts])


def score(counts: Counts) -> dict[str, float]:
    """Scores of (hits, false alarms, misses); IoU only where there is water to find."""
    hits, false, missed = counts.tolist()
    scores = {"hits": hits, "false_alarms": false, "missed": missed}
    if hits + missed:
        scores["water_iou"] = round(hits / (hits + false + missed), 4)
    return scores


def rows_of(data: Path, predict: Predictor, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """One row a chip and one of all pixels: each method's scores by its name.

    Args:
        data: Folder of the real chips.
        predict: The network.
        thresholds: Probabilities from which it calls water, by the names of the rows' columns.
    """
    rows: dict[str, Any] = {}
    pooled: dict[str, Counts] = {}
    for name, sigma0, valid, label in chips(data):
        scored = valid & np.isin(label, (DRY, WATER))
        row: dict[str, Any] = {
            "pixels": int(scored.sum()),
            "water_share": round(float((label[scored] == WATER).mean()), 4) if scored.any() else 0,
        }
        seen = answers(sigma0, valid, predict, thresholds) if valid.any() else {}
        for method, water in seen.items():
            counts = counted(water, valid, label)
            row[method] = score(counts)
            if name != LOOKED_AT:
                pooled[method] = pooled.get(method, 0) + counts
        rows[name] = row
    return rows | {"pooled": {method: score(counts) for method, counts in pooled.items()}}


def main() -> None:
    """Score all chips."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--weights", type=Path, help="other weights than those that ship")
    asked = parser.parse_args()
    predict = predictor(load_model(asked.weights))
    threshold = threshold_of(predict, "sar")
    rows = rows_of(Path(os.environ["FLORA_DATA"]), predict, {OURS: threshold})
    for name, row in rows.items():
        said = {m: s.get("water_iou", "-") for m, s in row.items() if isinstance(s, dict)}
        print(f"{name:16s}", *(f"{m}: {s}" for m, s in said.items()), sep="  ")
    if asked.record:
        record = {
            "question": "What do the weights that ship find on real chips?",
            "threshold": threshold,
            "rows": rows,
            "holds_out": f"All of them but {LOOKED_AT}, which was looked at while the simulator "
            "was tuned and is not in the pooled row. Paraguay_34417 has no SAR.",
            "cite": CITE,
        }
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
