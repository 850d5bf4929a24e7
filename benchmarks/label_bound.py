"""What bounds a map of OMBRIA: the radar, the network, or labels that the images contradict?

    FLORA_DATA=my-data python benchmarks/label_bound.py --runs runs \
        --figure book/images/label_bound.png --record results/label_bound.json

Each of the 14 sites is looked at by two networks that have seen nothing of it, and never the same
sensor: FLoRA without its teacher, from VV before and after, and an optical network, from the images
before and after; their weights are those that `flora experiment ombria_sites_N --only adapted`
leaves in `runs`. Where both say the same and the label says otherwise, either the label is wrong,
or of another day, or both have learned the same mistake from the labels of the other sites: an
upper bound of what wrong labels can explain. Where the optical network is right and radar wrong,
the flood was to be seen, by another sensor.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray

from flora.datasets.base import collate
from flora.datasets.ombria import Ombria
from flora.experiments.ombria import OMBRIA_SITES
from flora.experiments.provenance import write_record
from flora.figures.plots import figure
from flora.models.checkpoints import load_weights
from flora.models.predict import predictor
from flora.models.weights import load_any
from flora.predictors import EVEN
from flora.sensors import IGNORE, WATER
from flora.training.teaching import OpticalWater

DRAWN = ("chips 436-718", "chips 135-257", "chips 74-105", "chips 32-73")
CLASSES = {  # of (label, radar, optical), in the order of their codes
    "all say dry": ("#e6e6e6", (0, 0, 0)),
    "all say flood": ("#56b4e9", (1, 1, 1)),
    "radar alone is wrong": ("#f0c000", (0, 1, 0), (1, 0, 1)),
    "optical alone is wrong": ("#009e73", (0, 0, 1), (1, 1, 0)),
    "label dry, both say flood": ("#d55e00", (0, 1, 1)),
    "label flood, both say dry": ("#6a3d9a", (1, 0, 0)),
}
UNKNOWN = len(CLASSES)


class Look(NamedTuple):
    """One chip as both networks see it.

    Attributes:
        site: Its site.
        chip: Its id.
        codes: (H, W), places in `CLASSES`; `UNKNOWN` where there is no label, or cloud.
        counts: (2, 2, 2) pixels by label, radar, optical.
    """

    site: str
    chip: str
    codes: NDArray[np.uint8]
    counts: NDArray[np.int64]


def looks(root: Path, runs: Path, seed: int) -> Iterator[Look]:
    """All chips of all sites, each seen by networks that were trained on the other sites."""
    for name, experiment in OMBRIA_SITES.items():
        chips = Ombria(root, "valid", ("before", "after"), **experiment.pairs.options)  # type: ignore[union-attr]
        radar = load_any(runs / name / f"base-{seed}" / "student" / "last.safetensors").eval()
        predict = predictor(radar)
        optical = OpticalWater(len(chips.optical_scaling.bands), "both")
        load_weights(optical, runs / name / f"optical-all-both-{seed}" / "last.safetensors")
        for chip in chips:
            batch = collate([chip])
            with torch.inference_mode():
                water = predict(batch["sar"], batch["sar_valid"], None).water[0, 0].numpy()
            shown = optical.teach(batch)[0, 0].numpy()
            label, valid = chip["water"].numpy(), chip["sar_valid"].numpy()
            known = (label != IGNORE) & valid & np.isfinite(shown)
            said = np.stack([label == WATER, water > EVEN, shown > EVEN]).astype(np.uint8)
            counts = np.zeros((2, 2, 2), dtype=np.int64)
            np.add.at(counts, tuple(said[:, known]), 1)
            codes = np.full(label.shape, UNKNOWN, dtype=np.uint8)
            for code, (_, *cases) in enumerate(CLASSES.values()):
                for case in cases:
                    codes[known & (said == np.reshape(case, (3, 1, 1))).all(axis=0)] = code
            yield Look(chip["meta"]["place"], chip["meta"]["id"], codes, counts)


def miou(counts: NDArray[np.int64]) -> float:
    """Two-class mIoU of (truth, answer) counts (2, 2)."""
    wrong = counts[0, 1] + counts[1, 0]
    return float(np.mean([counts[k, k] / max(1, counts[k, k] + wrong) for k in (0, 1)]))


def row(counts: NDArray[np.int64]) -> dict[str, float]:
    """What the pixels (label, radar, optical) of a site say."""
    total = counts.sum()
    radar, optical = counts.sum(axis=2), counts.sum(axis=1)
    believed = radar.copy()  # as if the label said what both networks say
    believed[1, 1] += counts[0, 1, 1]
    believed[0, 1] -= counts[0, 1, 1]
    believed[0, 0] += counts[1, 0, 0]
    believed[1, 0] -= counts[1, 0, 0]
    return {
        "flood": float(radar[1].sum() / total),
        "radar_miou": miou(radar),
        "optical_miou": miou(optical),
        "errors_of_radar": float((radar[0, 1] + radar[1, 0]) / total),
        "errors_of_optical": float((optical[0, 1] + optical[1, 0]) / total),
        "both_say_flood": float(counts[0, 1, 1] / total),
        "both_say_dry": float(counts[1, 0, 0] / total),
        "shared": float((counts[0, 1, 1] + counts[1, 0, 0]) / (radar[0, 1] + radar[1, 0])),
        "radar_miou_if_both_are_right": miou(believed),
    }


def draw(seen: list[Look], target: Path) -> list[str]:
    """Of four sites the chip with the most pixels on which both contradict the label; their ids."""
    made, axes = figure(2, 2, panel=(2.7, 2.9))
    colours = ListedColormap([colour for colour, *_ in CLASSES.values()] + ["#ffffff"])
    chips = []
    for panel, site in zip(axes.flat, DRAWN, strict=True):
        worst = max(
            (look for look in seen if look.site == site),
            key=lambda look: int(look.counts[0, 1, 1] + look.counts[1, 0, 0]),
        )
        panel.imshow(worst.codes, cmap=colours, vmin=0, vmax=UNKNOWN, interpolation="nearest")
        panel.set(title=f"{site},\nhere {worst.chip}", xticks=[], yticks=[])
        chips.append(worst.chip)
    handles = [Patch(color=colour, label=says) for says, (colour, *_) in CLASSES.items()]
    handles.append(Patch(facecolor="white", edgecolor="#777777", label="cloud, or no label"))
    made.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    made.picture()[0].save(target, optimize=True)
    return chips


def main() -> None:
    """Look, draw, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    seen = list(looks(Path(os.environ["FLORA_DATA"]) / "ombria", asked.runs, asked.seed))
    sites = {look.site: np.zeros((2, 2, 2), dtype=np.int64) for look in seen}
    for look in seen:
        sites[look.site] += look.counts
    rows: dict[str, Any] = {site: row(counts) for site, counts in sites.items()}
    for site, found in rows.items():
        print(site, {key: round(value, 3) for key, value in found.items()})
    mean = {key: float(np.mean([found[key] for found in rows.values()])) for key in found}
    print("mean", {key: round(value, 3) for key, value in mean.items()})
    drawn = draw(seen, asked.figure) if asked.figure else None
    if asked.record:
        record = {
            "benchmark": "label_bound",
            "seed": asked.seed,
            "chips": len(seen),
            "sites": rows,
            "mean_over_sites": mean,
            "drawn": drawn,
            "attribution": Ombria.citation,
        }
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
