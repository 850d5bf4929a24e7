"""Draw the picture that opens the book and the README: a real flood, what was drawn of it, errors.

    FLORA_DATA=my-data python tools/hero.py

Reads the chip Spain_7370579 of Sen1Floods11 and writes book/images/hero.webp, all four panels with
titles for the README, and hero_sar, hero_seen, hero_drawn and hero_map.webp for the start page.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flora import load_model, open_dataset
from flora.datasets.base import Sample, collate
from flora.figures.plots import (
    BookFigure,
    figure,
    scale_bar,
    show_backscatter,
    show_errors,
    show_rgb,
)
from flora.sensors import IGNORE, SENTINEL1, WATER
from tools.build_book import ROOT

CHIP = "Spain_7370579"
FOLDER = ROOT / "book/images"
TITLES = ("radar, VH", "optical satellite", "drawn from radar", "map against label")


def main() -> int:
    """Write the pictures, print the scores, and return the exit status."""
    data = Path(os.environ["FLORA_DATA"]) / "sen1floods11"
    chips = open_dataset("sen1floods11", data, "test", require_all=False)
    sample = next(s for s in (chips[n] for n in range(len(chips))) if s["meta"]["id"] == CHIP)
    with torch.inference_mode():
        output = load_model()(collate([sample])["sar"])
    found = (output.water_logits[0, 0] >= 0).numpy().astype(np.uint8)
    found[~sample["sar_valid"].numpy()] = IGNORE
    drawn = output.rgb[0].numpy()
    write(draw(sample, drawn, found, range(4), legend=True), "hero")
    for panel, name in enumerate(("sar", "seen", "drawn", "map")):
        write(draw(sample, drawn, found, [panel], legend=False), f"hero_{name}")
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
    print(f"found {hit}, missed {missed}, false alarms {false} px; ", end="")
    print(f"IoU {hit / (hit + missed + false):.3f}")
    return 0


def draw(
    sample: Sample, drawn: np.ndarray, found: np.ndarray, panels: object, *, legend: bool
) -> BookFigure:
    """The chosen panels side by side; a single one is the bare picture, without a title."""
    chosen = list(panels)  # type: ignore[call-overload]
    made, axes = figure(1, len(chosen), panel=(3.0, 3.0 + 0.25 * legend))
    for ax, panel in zip(axes.flat, chosen, strict=True):
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
            key = ax.get_legend()
            key.remove()
            if legend:
                handles = key.legend_handles
                made.legend(
                    handles=handles,
                    loc="upper center",
                    bbox_to_anchor=(0.5, 0.02),
                    ncols=5,
                    fontsize=13,
                    frameon=False,
                )
        ax.set_title(TITLES[panel] if legend else "", fontsize=14)
    return made


def write(made: BookFigure, name: str) -> None:
    """Write a figure as WebP at twice the resolution of the page."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=160, bbox_inches="tight", pad_inches=0.02)
    path = FOLDER / f"{name}.webp"
    Image.open(buffer).convert("RGB").save(path, quality=82, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
