r"""What an answer owes to what else is in view, by normalisation.

    FLORA_DATA=my-data python benchmarks/locality.py --runs runs --record results/locality.json \
        --figure book/images/locality.png

The weights are those of the experiment `normalisations` (`flora experiment normalisations`).
Three questions to each: how much of a lake at -17/-24 dB (VV/VH) is found alone and beside a calm
sea at -22/-28 dB; the water IoU on the chip "Spain" of Sen1Floods11, and that of the rest of the
chip when its first 60 columns hold -100 dB; and by how much the probability at the middle of the
chip moves when all pixels beyond the network's reach change.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from flora import load_model, predictor
from flora.experiments.provenance import write_record
from flora.figures.plots import figure, scale_bar, show_backscatter, show_probability
from flora.models.norms import NORMS
from flora.sensors import SENTINEL1, WATER, BoolArray, FloatArray
from flora.simulate.radar import speckle

HAND = "sen1floods11/v1.1/data/flood_events/HandLabeled"
SIDE, RADIUS, COLUMNS = 512, 40, 60
LAND, LAKE, SEA = (-10.0, -16.0), (-17.0, -24.0), (-22.0, -28.0)


def surface(level: tuple[float, float], seed: int) -> FloatArray:
    """A homogeneous surface (2, H, W) in dB, with the speckle of a ground range product."""
    rng = np.random.default_rng(seed)
    grain = [10 * np.log10(speckle(rng, (SIDE, SIDE), 4.4, 1.2)) for _ in level]
    return np.stack([np.float32(mean) + noise for mean, noise in zip(level, grain, strict=True)])


def probability(predict: Any, sigma0: FloatArray, valid: BoolArray) -> np.ndarray:
    """Probability of water (H, W)."""
    sar = torch.from_numpy(SENTINEL1.normalise(sigma0, valid))[None]
    return predict(sar, torch.from_numpy(valid)[None], None).water[0, 0].numpy()


def iou(found: np.ndarray, label: np.ndarray, scored: BoolArray) -> float:
    """Water IoU over the scored pixels."""
    truth, water = label[scored] == WATER, found[scored] >= 0.5
    return round(float((truth & water).sum() / (truth | water).sum()), 4)


def row(weights: Path, chip: tuple[FloatArray, np.ndarray]) -> dict[str, float]:
    """The three answers of one network."""
    model = load_model(weights)
    predict = predictor(model)
    everywhere = np.ones((SIDE, SIDE), dtype=np.bool_)
    distance = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE // 2))
    alone = np.where(distance < RADIUS, surface(LAKE, 1), surface(LAND, 2))
    beside = alone.copy()
    shore = SIDE // 2 + RADIUS + 40
    beside[:, :, shore:] = surface(SEA, 3)[:, :, shore:]
    inside = distance < RADIUS - 4
    share = [(probability(predict, x, everywhere)[inside] >= 0.5).mean() for x in (alone, beside)]

    sigma0, label = chip
    valid = np.isfinite(sigma0).all(axis=0)
    scored = valid & (label >= 0)
    scored[:, :COLUMNS] = False
    dark = sigma0.copy()
    dark[:, :, :COLUMNS] = -100.0
    plain, spoiled = probability(predict, sigma0, valid), probability(predict, dark, valid)
    far = sigma0.copy()
    beyond = np.ones(label.shape, dtype=np.bool_)
    low, high = SIDE // 2 - model.config.reach, SIDE // 2 + model.config.reach + 1
    beyond[low:high, low:high] = False
    far[:, beyond] = -28.0
    moved = probability(predict, far, valid | beyond)
    middle = SIDE // 2, SIDE // 2
    return {
        "lake_found": round(float(share[0]), 4),
        "lake_found_beside_sea": round(float(share[1]), 4),
        "spain_water_iou": iou(plain, label, scored),
        "spain_water_iou_dark_columns": iou(spoiled, label, scored),
        "moved_from_beyond_reach": float(abs(moved[middle] - plain[middle])),
    }


def draw(runs: Path, target: Path) -> None:
    """The lake beside the sea, and what two of the networks make of it."""
    distance = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE // 2))
    image = np.where(distance < RADIUS, surface(LAKE, 1), surface(LAND, 2))
    shore = SIDE // 2 + RADIUS + 40
    image[:, :, shore:] = surface(SEA, 3)[:, :, shore:]
    everywhere = np.ones((SIDE, SIDE), dtype=np.bool_)
    made, axes = figure(2, 2, panel=(2.6, 2.9))
    show_backscatter(axes[0, 0], image[1], band="VH", limits=(-32.0, -8.0))
    axes[0, 0].set_title("a lake, and calm sea (VH)")
    axes[0, 1].set_axis_off()
    for ax, norm in zip(axes[1], ("group", "layer"), strict=True):
        predict = predictor(load_model(weights_of(runs, norm)))
        show_probability(ax, probability(predict, image, everywhere), title=f"{norm} normalisation")
    scale_bar(axes[0, 0], 10)
    made.savefig(target, dpi=150, bbox_inches="tight")


def weights_of(runs: Path, norm: str) -> Path:
    """The weights of one network of the experiment."""
    return runs / "normalisations" / f"flora_{norm}-0" / "student" / "last.safetensors"


def main() -> None:
    """Ask all networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    data = Path(os.environ["FLORA_DATA"]) / HAND
    with rasterio.open(data / "S1Hand" / "Spain_7370579_S1Hand.tif") as file:
        sigma0 = file.read()
    with rasterio.open(data / "LabelHand" / "Spain_7370579_LabelHand.tif") as file:
        label = file.read(1)
    rows = {}
    for norm in NORMS:
        rows[norm] = row(weights_of(asked.runs, norm), (sigma0, label))
        print(norm, rows[norm])
    if asked.figure:
        draw(asked.runs, asked.figure)
    if asked.record:
        record = {
            "question": "What does an answer owe to what else is in view?",
            "weights": "experiment `normalisations`, seed 0",
            "rows": rows,
            "cite": "Sen1Floods11, Bonafilia et al. 2020. Contains modified Copernicus Sentinel "
            "data 2019.",
        }
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
