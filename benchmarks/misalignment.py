r"""What a shifted optical image costs, and what finding the shift brings back.

    python benchmarks/misalignment.py --record results/misalignment.json

Simulated test scenes; the shipped weights in the modes that look at an optical image. That image
is moved by a known number of pixels, in one of the four directions by turns, and the scores of the
scene's middle are compared with those of the image in its place. Then `find_offset` looks for the
shift of the image from before the flood, without knowing it, and the image is moved back by what
was found; where nothing was, it stays. Thresholds were chosen on scenes of the validation split.

With `--fusions`, FLoRA, early and late fusion stand beside each other under the same shifts (late
fusion in mode `before` alone; `--sides` names some of them). The weights that ship were trained
longer than anything there is of the others, so all of these are networks of one short training
(`benchmarks/short_trainings.py`); none has seen a shifted image.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.short_trainings import described_training, trained
from benchmarks.simulated_chips import chip_scores, described, paired, read_chips, rounded
from flora.datasets.base import Sample, Window, collate, crop_sample, optical_stack
from flora.datasets.changes import DIRECTIONS, moved
from flora.datasets.registry import open_dataset
from flora.experiments.provenance import write_record
from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.predictors import Predictor
from flora.scenes.align import find_offset
from flora.sensors import OpticalStack
from flora.training.metrics import Scores

SHIFTS = (0, 1, 2, 4, 8)  # px
Guided = Literal["before", "oracle"]
ByShift = dict[int, list[Scores]]
PART = 256  # px, of the parts that the two scenes of sih1733 are cut into
FUSIONS: dict[Guided, dict[str, str]] = {
    "before": {"FLoRA": "added", "early": "early_before", "late": "late_narrow_before"},
    "oracle": {"FLoRA": "added", "early": "early_oracle"},
}
MARGIN = 16  # px around what is scored, so that none is scored that a shift has brought in


def seen(layers: torch.Tensor, valid: torch.Tensor) -> np.ndarray:
    """Layers (C, H, W) with NaN where not valid."""
    return torch.where(valid, layers, torch.nan).numpy()


def score(predict: Predictor, chip: Sample, guide: OpticalStack) -> Scores:
    """Scores of the chip's middle with this guide."""
    side = chip["sar"].shape[-1] - 2 * MARGIN
    window = Window(MARGIN, MARGIN, side, side)
    batch = collate([chip])
    whole = predict(batch["sar"], batch["sar_valid"], guide.map(lambda layer: layer[None]))
    middle = slice(MARGIN, -MARGIN)
    return chip_scores(
        type(whole)(*(layer[..., middle, middle] for layer in whole if layer is not None)),
        crop_sample(chip, window),
    )


def shifts_of(index: int) -> Iterator[tuple[int, int, int]]:
    """Pixels, and the rows and columns that they are, of each shift of a chip."""
    down, right = DIRECTIONS[index % len(DIRECTIONS)]
    for pixels in SHIFTS:
        yield pixels, down * pixels, right * pixels


def shifted(predict: Predictor, chips: list[Sample], mode: Guided) -> ByShift:
    """Scores of every chip by shift, the image left where it is."""
    left: ByShift = {pixels: [] for pixels in SHIFTS}
    for index, chip in enumerate(chips):
        for pixels, rows, columns in shifts_of(index):
            guide = moved(optical_stack(chip, mode), rows, columns)
            left[pixels].append(score(predict, chip, guide))
    return left


def registered(
    predict: Predictor, chips: list[Sample], left: ByShift
) -> tuple[ByShift, list[dict[str, Any]]]:
    """The same in mode "before", the image moved back by what was found; and what was found."""
    back: ByShift = {pixels: [] for pixels in SHIFTS}
    found: list[dict[str, Any]] = []
    for index, chip in enumerate(chips):
        sar = seen(chip["sar"], chip["sar_valid"])
        for pixels, rows, columns in shifts_of(index):
            guide = moved(optical_stack(chip, "before"), rows, columns)
            offset = find_offset(sar, seen(torch.cat([guide.image, guide.index]), guide.valid))
            scores, error = left[pixels][index], None
            if offset is not None:
                error = float(np.hypot(offset.rows - rows, offset.columns - columns))
                if (offset.rows, offset.columns) != (0, 0):
                    restored = moved(guide, -offset.rows, -offset.columns)
                    scores = score(predict, chip, restored)
            back[pixels].append(scores)
            found.append({"shift": pixels, "error": error})
    return back, found


def errors(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How often an offset was found, and how far it was from the true one, in pixels."""
    known = [row["error"] for row in found if row["error"] is not None]
    if not known:
        return {"tried": len(found), "found": 0}
    return {
        "tried": len(found),
        "found": len(known),
        "error_median_px": rounded(float(np.median(known))),
        "error_90_px": rounded(float(np.quantile(known, 0.9))),
        "error_largest_px": rounded(max(known)),
        "within_1_px": rounded(float(np.mean([error <= 1.0 for error in known]))),
    }


def real_parts(data: Path, parts: int) -> Iterator[tuple[str, np.ndarray, OpticalStack]]:
    """Dataset, radar with NaN where not seen, and optical image of real pairs.

    Args:
        data: Folder that holds `ombria` and `sih1733`.
        parts: OMBRIA's official test chips, before the flood, and parts of each scene of sih1733
            to take, evenly spread.
    """
    ombria = open_dataset("ombria", data / "ombria", "test", sar_dates=("before",))
    for index in np.linspace(0, len(ombria) - 1, parts).astype(int):
        chip = ombria[int(index)]
        yield "ombria", seen(chip["sar"], chip["sar_valid"]), chip["before"]
    for split in ("pair-1", "pair-2"):
        scene = open_dataset("sih1733", data / "sih1733", split)
        rows, columns = (side // PART for side in scene.shape(0))
        for number in np.linspace(0, rows * columns - 1, parts).astype(int):
            row, column = divmod(int(number), columns)
            chip = scene.read(0, Window(row * PART, column * PART, PART, PART))
            stack = optical_stack(chip, "oracle")
            yield "sih1733", seen(chip["sar"], chip["sar_valid"]), stack


def real_offsets(data: Path, parts: int) -> dict[str, Any]:
    """Whether shifts made by hand are found, by dataset."""
    found: dict[str, list[dict[str, Any]]] = {}
    places: dict[str, list[tuple[int, int]]] = {}
    for number, (name, sar, stack) in enumerate(real_parts(data, parts)):
        place = None
        for pixels, rows, columns in shifts_of(number):
            guide = moved(stack, rows, columns)
            offset = find_offset(sar, seen(torch.cat([guide.image, guide.index]), guide.valid))
            if pixels == 0:
                place = offset
                places.setdefault(name, []).extend([] if place is None else [place[:2]])
            error = None
            if offset is not None and place is not None:
                there = place.rows + rows, place.columns + columns
                error = float(np.hypot(offset.rows - there[0], offset.columns - there[1]))
            if pixels:
                found.setdefault(name, []).append({"shift": pixels, "error": error})
    return {
        name: {
            "parts": len(rows) // (len(SHIFTS) - 1),
            "placed": len(places[name]),
            "placed_within_1_px": sum(max(map(abs, place)) <= 1 for place in places[name]),
            "shifted": errors(rows),
        }
        for name, rows in found.items()
    }


def fusions(chips: list[Sample], runs: Path, sides: Sequence[str]) -> dict[str, Any]:
    """FLoRA, early and late fusion by mode and shift.

    Args:
        chips: Test chips.
        runs: Where the trainings are, or go.
        sides: Those that are asked for beside FLoRA.

    Returns:
        `shifted`, each against itself without a shift, and `less_flora`, each against FLoRA under
        the same shift.
    """
    record: dict[str, Any] = {"shifted": {}, "less_flora": {}}
    for mode, names in FUSIONS.items():
        scores = {
            side: shifted(predictor(trained(name, runs)), chips, mode)
            for side, name in names.items()
            if side == "FLoRA" or side in sides
        }
        record["shifted"][mode] = {
            side: {str(pixels): paired(left[pixels], left[0]) for pixels in SHIFTS}
            for side, left in scores.items()
        }
        record["less_flora"][mode] = {
            side: {str(pixels): paired(left[pixels], scores["FLoRA"][pixels]) for pixels in SHIFTS}
            for side, left in scores.items()
            if side != "FLoRA"
        }
    return record


def main() -> None:
    """Score all shifts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file to keep the simulated scenes in")
    parser.add_argument("--real", type=Path, help="record of real pairs instead")
    parser.add_argument("--parts", type=int, default=12, help="of each real dataset")
    parser.add_argument(
        "--fusions", type=Path, help="record of FLoRA, early and late fusion instead"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/fusion"), help="their trainings")
    parser.add_argument("--sides", nargs="+", choices=("early", "late"), default=["early", "late"])
    asked = parser.parse_args()
    if asked.real:
        data = Path(os.environ["FLORA_DATA"])
        question = "Are shifts made by hand found in real pairs of radar and optical images?"
        write_record(asked.real, {"question": question, **real_offsets(data, asked.parts)})
        return
    chips = read_chips(asked.scenes, 128 + 2 * MARGIN, asked.seed, asked.keep)
    if asked.fusions:
        record = {
            "question": "Does a displaced image cost early and late fusion what it costs FLoRA?",
            "chips": described(chips, asked.seed),
            "scored": f"the middle, {MARGIN} px from each side",
            "trained_on": {**described_training(), "seed": 0},
            "differences": "of `shifted` to shift 0, of `less_flora` to FLoRA under the same "
            "shift, on the same chips, with 95 % intervals over chips",
            **fusions(chips, asked.runs, asked.sides),
        }
        write_record(asked.fusions, record)
        return
    predict = predictor(load_model())
    before, oracle = (shifted(predict, chips, mode) for mode in ("before", "oracle"))
    back, found = registered(predict, chips, before)
    record = {
        "question": "What does an optical image cost that lies some pixels beside the radar's?",
        "chips": described(chips, asked.seed),
        "scored": f"the middle, {MARGIN} px from each side",
        "differences": "to shift 0 of the same chips (regained: to the same shift, not moved "
        "back), with 95 % intervals over chips",
        "shifted": {
            mode: {str(pixels): paired(left[pixels], left[0]) for pixels in SHIFTS}
            for mode, left in (("before", before), ("oracle", oracle))
        },
        "registered": {str(pixels): paired(back[pixels], before[0]) for pixels in SHIFTS},
        "regained": {str(pixels): paired(back[pixels], before[pixels]) for pixels in SHIFTS},
        "offset": errors(found),
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
