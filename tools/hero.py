"""Draw the picture that opens the book and the README: a real flood, what was drawn of it, errors.

    FLORA_DATA=my-data python tools/hero.py

Reads the chip Spain_7370579 of Sen1Floods11 and writes book/images/hero.webp, all four panels with
titles for the README, and hero_sar, hero_seen, hero_drawn and hero_map.webp for the start page. The
map is drawn at the threshold of the weights; what it finds, there and at 0.5, is the record
results/hero.json.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

from flora import load_model, open_dataset
from flora.datasets.base import Sample, collate
from flora.experiments.provenance import write_record
from flora.figures.plots import (
    SCREEN_DPI,
    BookFigure,
    figure,
    scale_bar,
    show_backscatter,
    show_errors,
    show_rgb,
    style,
)
from flora.predictors import EVEN
from flora.sensors import IGNORE, SENTINEL1, WATER
from tools.build_book import ROOT

CHIP = "Spain_7370579"
FOLDER = ROOT / "book/images"
TITLES = ("radar, VH", "optical satellite", "drawn from radar", "map against label")
SMALL = 2.0  # inches across a picture of the start page: its scale is read where it is 163 px wide


def main() -> int:
    """Write the pictures, print the scores, and return the exit status."""
    data = Path(os.environ["FLORA_DATA"]) / "sen1floods11"
    chips = open_dataset("sen1floods11", data, "test", require_all=False)
    sample = next(s for s in (chips[n] for n in range(len(chips))) if s["meta"]["id"] == CHIP)
    model = load_model()
    with torch.inference_mode():
        output = model(collate([sample])["sar"])
    probability = torch.sigmoid(output.water_logits[0, 0]).numpy()
    drawn = output.rgb[0].numpy()
    own = model.thresholds.get("sar", EVEN)
    found = mapped(probability, own, sample)
    write(draw_all(sample, drawn, found), "hero", dpi=2 * SCREEN_DPI)
    for panel, name in enumerate(("sar", "seen", "drawn", "map")):
        made, axes = figure(panel=(SMALL, SMALL))
        draw(axes[0, 0], panel, sample, drawn, found)
        axes[0, 0].set_title("")
        if key := axes[0, 0].get_legend():
            key.remove()
        write(made, f"hero_{name}", dpi=480 / SMALL)
    found_from = {
        f"{threshold:g}": scores(mapped(probability, threshold, sample), sample)
        for threshold in (own, EVEN)
    }
    record = {
        "question": "What does the map find that opens the book?",
        "chip": CHIP,
        "weights": "those that ship, of one radar date",
        "from_probability": found_from,
        "cite": chips.citation,
    }
    write_record(ROOT / "results/hero.json", record)
    print(found_from)
    return 0


def mapped(probability: np.ndarray, threshold: float, sample: Sample) -> np.ndarray:
    """Label codes (H, W) of the map on which a probability of `threshold` or more is water."""
    found = (probability >= threshold).astype(np.uint8)
    found[~sample["sar_valid"].numpy()] = IGNORE
    return found


def scores(found: np.ndarray, sample: Sample) -> dict[str, float]:
    """Pixels found, missed and falsely alarmed of, the share of the water found, and the IoU."""
    truth = sample["water"].numpy()
    known = (truth != IGNORE) & (found != IGNORE)
    hit, missed, false = (
        int((known & mask).sum())
        for mask in (
            (truth == WATER) & (found == WATER),
            (truth == WATER) & (found != WATER),
            (truth != WATER) & (found == WATER),
        )
    )
    return {
        "found": hit,
        "missed": missed,
        "false_alarms": false,
        "recall": round(hit / (hit + missed), 5),
        "water_iou": round(hit / (hit + missed + false), 5),
    }


def draw_all(sample: Sample, drawn: np.ndarray, found: np.ndarray) -> BookFigure:
    """The four panels with titles, two by two, and the colours of the map below them."""
    made, axes = figure(2, 2, panel=(2.1, 2.25))
    with style():
        for panel, (ax, title) in enumerate(zip(axes.flat, TITLES, strict=True)):
            draw(ax, panel, sample, drawn, found)
            ax.set_title(title)
        key = axes[1, 1].get_legend()
        key.remove()
        made.legend(handles=key.legend_handles, loc="outside lower center", ncols=3, frameon=False)
    return made


def draw(ax: Axes, panel: int, sample: Sample, drawn: np.ndarray, found: np.ndarray) -> None:
    """One of the four panels."""
    if panel == 0:
        decibels = SENTINEL1.restore(sample["sar"].numpy())[1]
        seen = np.where(sample["sar_valid"].numpy(), decibels, np.nan)
        scale_bar(show_backscatter(ax, seen, band="VH", colour_bar=False), 10)
    elif panel == 1:
        show_rgb(ax, sample["optical"], sample["optical_valid"])
    elif panel == 2:
        show_rgb(ax, drawn)
    else:
        show_errors(ax, found, sample["water"].numpy())


def write(made: BookFigure, name: str, dpi: float) -> None:
    """Write a figure as WebP."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.02)
    path = FOLDER / f"{name}.webp"
    Image.open(buffer).convert("RGB").save(path, quality=82, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
