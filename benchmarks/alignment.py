r"""Whether a guide that lies beside is better moved inside the fusion than registered before it.

    python benchmarks/alignment.py --record results/alignment.json

Simulated test scenes; the image from before the flood is displaced by a known field: a shift, a
rotation about the middle, or a shift that grows with the height of the ground, as layover does that
an elevation model misses. Four guides are compared on the same scenes: as it lies; the image
moved back as a whole by `find_offset` (by `flora map`'s rule); the teacher's features moved by an
offset field that is found from the features themselves, without labels or training; and both, one
after the other. The field is where the student's guess of the teacher's features agrees best with
them, by local normalised correlation at the finest level. `LEAST_WEIGHT` was chosen on eight scenes
of the validation split so that an image in its place stays there; nothing else was tuned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.misalignment import DIRECTIONS, MARGIN, seen
from benchmarks.simulated_chips import chip_scores, described, paired, rounded
from flora.datasets.base import Sample, Window, crop_sample, optical_stack
from flora.datasets.simulated import Simulated
from flora.experiments.provenance import write_record
from flora.models.network import Flora, Guide
from flora.models.weights import load_model
from flora.predictors import Prediction
from flora.scenes.align import find_offset
from flora.sensors import OpticalStack
from flora.simulate.scene import Scene
from flora.training.metrics import Scores

SHIFTS, DEGREES, RELIEFS = (0, 2, 4, 8), (1, 2), (4, 8)  # px, degrees, px
REACH = 5  # positions of the finest level: 10 px
COARSE, WINDOW = 4, 16  # positions from one offset to the next, and that each is told from, twice
DETAIL = 9  # positions: what is larger is no detail
SMOOTH = 7  # offsets, over which they are averaged
LEAST_WEIGHT = 0.5  # standard deviations above 3, on that average: below, nothing is moved
LEAST = 1.5  # px: less is left alone, as `flora map` does
Guided = Literal["before", "oracle"]


class WithHeight(Simulated):
    """The simulated scenes, and the ground's height (H, W) of the one read last."""

    height: Tensor

    def scene(self, index: int) -> Scene:
        """See `Simulated.scene`."""
        made = super().scene(index)
        self.height = torch.from_numpy(made.elevation).float()
        return made


# --- displacing ---------------------------------------------------------------------------------


def displacements(index: int, height: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Fields (2, H, W) of rows and columns in px by which chip `index` is displaced, by name.

    Relief of n px displaces no pixel of the lowest twentieth, and the highest by n px.
    """
    down, right = DIRECTIONS[index % len(DIRECTIONS)]
    rows, columns = height.shape
    way = torch.tensor([down, right]).float()[:, None, None]
    for pixels in SHIFTS:
        yield f"shift {pixels} px", (pixels * way).expand(2, rows, columns)
    place = _places(rows, columns) - torch.tensor([rows - 1, columns - 1])[:, None, None] / 2
    for degrees in DEGREES:
        angle = torch.deg2rad(torch.tensor(float(degrees)))
        turned = torch.stack(
            [
                torch.cos(angle) * place[0] - torch.sin(angle) * place[1],
                torch.sin(angle) * place[0] + torch.cos(angle) * place[1],
            ]
        )
        yield f"rotation {degrees} degrees", place - turned
    low, high = torch.quantile(height, torch.tensor([0.05, 0.95]))
    share = ((height - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    for pixels in RELIEFS:
        yield f"relief up to {pixels} px", pixels * way * share


def _places(rows: int, columns: int) -> Tensor:
    """Row and column of every pixel, (2, rows, columns)."""
    return torch.stack(
        torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    ).float()


def sampled(layer: Tensor, offsets: Tensor) -> Tensor:
    """The layer (C, H, W) as seen `offsets` (2, H, W) px further down and right; 0 beyond it."""
    rows, columns = layer.shape[-2:]
    place = _places(rows, columns) + offsets
    scale = torch.tensor([max(rows - 1, 1), max(columns - 1, 1)])[:, None, None] / 2
    grid = (place / scale - 1).flip(0).permute(1, 2, 0)
    taken = F.grid_sample(layer[None], grid[None], padding_mode="zeros", align_corners=True)
    return taken[0]


def moved_by(stack: OpticalStack, offsets: Tensor) -> OpticalStack:
    """The image of one chip, read `offsets` px further down and right; beyond it is not valid."""
    valid = sampled(stack.valid[None].float(), offsets)[0] > 0.999
    image, index = (sampled(layer, offsets) * valid for layer in (stack.image, stack.index))
    return OpticalStack(image, index, valid)


def true_offsets(field: Tensor) -> Tensor:
    """By how much further the displaced image shows a pixel's ground.

    The displaced image at y shows the ground of y - field(y); asked for is y - x of the y that
    shows x, which repeated insertion finds where the field is smooth.
    """
    offsets = field
    for _ in range(8):
        offsets = sampled(field, offsets)
    return offsets


# --- finding the field --------------------------------------------------------------------------


def offset_field(prior: Tensor, teacher: Tensor, valid: Tensor, stride: int) -> Tensor:
    """Where the teacher's features lie, seen from the student's guess of them.

    Normalised correlation of their details in windows, for every offset up to `REACH` positions;
    the best one, refined by a parabola. It is told every `COARSE` positions and weighed by how far
    it stands out of the others.

    Args:
        prior: The student's guess (C, h, w).
        teacher: The teacher's features (C, h, w).
        valid: (1, h, w) bool: where the teacher saw something.
        stride: Pixels to a position.

    Returns:
        Rows and columns (2, h, w) in positions.
    """
    seen_there = valid.float()
    guess = _details(prior, torch.ones_like(seen_there))
    details = _details(teacher, seen_there)
    energy = torch.stack([guess.square().sum(0), details.square().sum(0), seen_there[0]])
    rows, columns = guess.shape[-2:]
    padded, there = (F.pad(x, (REACH,) * 4) for x in (details, energy))
    sums = []
    for down in range(2 * REACH + 1):
        for right in range(2 * REACH + 1):
            part = (..., slice(down, down + rows), slice(right, right + columns))
            both = (guess * padded[part]).sum(0)
            sums.append(torch.stack([both, energy[0] * there[2][part], there[1][part]]))
    agreed, mine, theirs = _windows(torch.stack(sums)).unbind(1)  # (offsets, h / 4, w / 4) each
    score = agreed / (mine * theirs).clamp_min(1e-12).sqrt()
    found, weight = _best(score)
    layers = torch.cat([found * weight, weight])[None]
    mean = F.avg_pool2d(layers, SMOOTH, 1, SMOOTH // 2, count_include_pad=False)[0]
    field = mean[:2] / mean[2:].clamp_min(1e-6)
    told = (field.norm(dim=0, keepdim=True) * stride >= LEAST) & (mean[2:] >= LEAST_WEIGHT)
    field = field * told
    return F.interpolate(field[None], (rows, columns), mode="bilinear")[0]


def _details(features: Tensor, there: Tensor) -> Tensor:
    """Features (C, h, w) less their mean around, over what is there (1, h, w)."""
    layers = torch.cat([features * there, there])[None]
    mean = F.avg_pool2d(layers, DETAIL, 1, DETAIL // 2)[0]
    return (features - mean[:-1] / mean[-1:].clamp_min(1e-6)) * there


def _windows(sums: Tensor) -> Tensor:
    """Means (n, k, h / 4, w / 4) of (n, k, h, w) in windows that weigh their middle most."""
    blocks = F.avg_pool2d(sums, COARSE)
    side = WINDOW // COARSE
    for _ in range(2):
        ahead = (side // 2, side - 1 - side // 2) * 2
        blocks = F.avg_pool2d(F.pad(blocks, ahead), side, 1)
    return blocks


def _best(score: Tensor) -> tuple[Tensor, Tensor]:
    """The best offset (2, h, w) in positions of scores (offsets, h, w), and its weight (1, h, w).

    The weight is how many standard deviations above 3 it stands out of all offsets.
    """
    side, (rows, columns) = 2 * REACH + 1, score.shape[-2:]
    weight = ((score.amax(0) - score.mean(0)) / score.std(0).clamp_min(1e-6) - 3).clamp_min(0)
    best = score.argmax(0)
    square = F.pad(score.view(side, side, rows, columns).permute(2, 3, 0, 1), (1,) * 4, value=-1)
    at = torch.stack([best // side, best % side])
    places = _places(rows, columns).long()

    def near(down: int, right: int) -> Tensor:
        return square[places[0], places[1], at[0] + 1 + down, at[1] + 1 + right]

    refined = []
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        before, middle, after = near(-down, -right), near(0, 0), near(down, right)
        bend = (2 * middle - before - after).clamp_min(1e-6)
        part = ((after - before) / (2 * bend)).clamp(-0.5, 0.5)
        refined.append(at[axis] - REACH + part)
    return torch.stack(refined), weight[None]


# --- comparing ----------------------------------------------------------------------------------


class Aligner:
    """The four guides of one chip.

    Args:
        model: The model.
        chip: The chip.
    """

    def __init__(self, model: Flora, chip: Sample) -> None:
        self.model, self.chip = model, chip
        self.prior = model.prior(model.sar_encoder(chip["sar"][None]))

    def look(self, stack: OpticalStack) -> Guide:
        """What the teacher sees."""
        return self.model.guide(stack.image[None], stack.index[None], stack.valid[None])

    def whole(self, stack: OpticalStack) -> Tensor:
        """The one offset (2, H, W) in px that `flora map` would move the image back by."""
        sar = seen(self.chip["sar"], self.chip["sar_valid"])
        found = find_offset(sar, seen(torch.cat([stack.image, stack.index]), stack.valid))
        nothing = torch.zeros(2, *stack.valid.shape)
        if found is None or not found.trusted:
            return nothing
        return nothing + torch.tensor([found.rows, found.columns]).float()[:, None, None]

    def inside(self, guide: Guide) -> Tensor:
        """The offset field (2, H, W) in px that the features tell."""
        stride = self.model.config.stem_stride
        field = offset_field(self.prior[0][0], guide.features[0][0], guide.valid[0][0], stride)
        return F.interpolate(field[None] * stride, self.chip["water"].shape, mode="bilinear")[0]

    def features_moved(self, guide: Guide, offsets: Tensor) -> Guide:
        """The guide, its features read as much further as the image would be."""
        features, valid = [], []
        for layer, there in zip(guide.features, guide.valid, strict=True):
            stride = offsets.shape[-1] / layer.shape[-1]
            part = F.interpolate(offsets[None], layer.shape[-2:], mode="area")[0] / stride
            features.append(sampled(layer[0], part)[None])
            valid.append(sampled(there[0].float(), part)[None] > 0.999)
        return Guide(features, valid)

    def score(self, guide: Guide) -> Scores:
        """Scores of the chip's middle."""
        output = self.model(self.chip["sar"][None], guide)
        middle = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        answer = Prediction(torch.sigmoid(output.water_logits)[middle], output.rgb[middle])
        side = self.chip["sar"].shape[-1] - 2 * MARGIN
        return chip_scores(answer, crop_sample(self.chip, Window(MARGIN, MARGIN, side, side)))

    def compared(self, stack: OpticalStack, field: Tensor) -> dict[str, tuple[Scores, float]]:
        """Scores of each method, and the mean error of its offsets in the middle, in px."""
        displaced = moved_by(stack, -field)
        whole = self.whole(displaced)
        registered = moved_by(displaced, whole)
        truth, nothing = true_offsets(field), torch.zeros_like(whole)
        compared = {}
        for name, image, by in (("", displaced, nothing), ("registered", registered, whole)):
            guide = self.look(image)
            field = self.inside(guide)
            both = by + field  # the second moves what the first has moved already
            inside = self.features_moved(guide, field)
            compared[name or "as it lies"] = self.score(guide), _error(by, truth)
            then = f"{name}, then inside the fusion" if name else "inside the fusion"
            compared[then] = self.score(inside), _error(both, truth)
        return compared


def _error(offsets: Tensor, truth: Tensor) -> float:
    """Mean distance in the middle, in px."""
    middle = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    return float((offsets - truth)[middle].norm(dim=0).mean())


Row = dict[str, list[tuple[Scores, float]]]


def rows_of(compared: Mapping[str, Row]) -> dict[str, Any]:
    """Scores by displacement and method, each against the same displacement left as it lies."""
    return {
        name: {
            method: {
                "error_px": rounded(float(np.mean([error for _, error in results]))),
                **paired([s for s, _ in results], [s for s, _ in methods["as it lies"]]),
            }
            for method, results in methods.items()
        }
        for name, methods in compared.items()
    }


def main() -> None:
    """Score all displacements and methods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", choices=("before", "oracle"), action="append")
    asked = parser.parse_args()
    modes: list[Guided] = asked.mode or ["before", "oracle"]
    source = WithHeight("test", count=asked.scenes, size=128 + 2 * MARGIN, seed=asked.seed)
    model, chips = load_model().eval(), []
    compared: dict[str, dict[str, Row]] = {mode: {} for mode in modes}
    for index in range(asked.scenes):
        chip = source[index]
        chips.append(chip)
        with torch.inference_mode():
            aligner = Aligner(model, chip)
            for mode in modes:
                for name, field in displacements(index, source.height):
                    row = compared[mode].setdefault(name, {})
                    for method, found in aligner.compared(optical_stack(chip, mode), field).items():
                        row.setdefault(method, []).append(found)
        print(index, {name: len(row) for name, row in compared[modes[0]].items()}, flush=True)
    record = {
        "question": "Is a guide that lies beside better moved inside the fusion?",
        "chips": described(chips, asked.seed),
        "scored": f"the middle, {MARGIN} px from each side",
        "differences": "to the guide as it lies on the same chips, with 95 % intervals over chips; "
        "error_px is the mean distance of the offsets from the true ones",
        "modes": {mode: rows_of(compared[mode]) for mode in modes},
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
