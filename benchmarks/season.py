r"""What each further radar date from before a flood is worth, on simulated scenes.

    python benchmarks/season.py --record results/season.json

For no, one, two, four and eight dates before the flood, the same small network is trained on the
statistics of that many (`flora.season`): it sees a pixel and the means of the 5 and 9 px around it,
so it learns in seconds, and what one number of dates has over another is what the dates say.
`any` is one network for all numbers, trained on scenes of one to eight dates. Beside them stand
thresholds. Intervals are of 1,000 bootstrap samples of the test scenes (Efron and Tibshirani,
1993), the same for all, so that differences are paired.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from benchmarks.simulated_chips import rounded
from flora.datasets.simulated import Simulated
from flora.experiments.provenance import write_record
from flora.files import write_whole
from flora.models.otsu import otsu
from flora.models.zscore import z_score
from flora.predictors import Predictor
from flora.season import SENTINEL1_SEASON, season_statistics
from flora.sensors import SENTINEL1, BoolArray, FloatArray

NUMBERS = (0, 1, 2, 4, 8)  # dates before the flood
SEEDS = (0, 1, 2)
AROUND = (1, 5, 9)  # sides of the means that a network sees, in pixels
STEPS, PIXELS = 400, 1024  # of a training, and a step
SAMPLES = 1000
SIZE = 128

Counts = NDArray[np.int64]  # (seeds, scenes, 2): water in map and truth, and in either


@dataclass(frozen=True)
class Season:
    """What a radar saw of one scene.

    Attributes:
        before: (8, 2, H, W) dB.
        after: (2, H, W) dB.
        water: (H, W) truth.
        seen: (H, W) measured.
    """

    before: FloatArray
    after: FloatArray
    water: BoolArray
    seen: BoolArray

    def image(self, dates: int) -> FloatArray:
        """What is known with so many dates, on a model's scale: (2 or 10, H, W)."""
        if dates == 0:
            return SENTINEL1.normalise(self.after, self.seen)
        values = season_statistics(self.before[:dates], self.after)
        return SENTINEL1_SEASON.normalise(values, self.seen)

    def features(self, dates: int) -> Tensor:
        """The same with its means around each pixel, (pixels, 3 C)."""
        image = self.image(dates)
        layers = [uniform_filter(image, (1, side, side)) for side in AROUND]
        return torch.from_numpy(np.concatenate(layers).reshape(len(layers) * len(image), -1).T)

    def counts(self, found: BoolArray) -> list[int]:
        """Pixels that are water in map and truth, and in either."""
        found = found & self.seen
        truth = self.water & self.seen
        return [int((found & truth).sum()), int((found | truth).sum())]


def read_seasons(split: str, count: int, keep: Path | None) -> list[Season]:
    """Scenes of a split; simulating them is what takes longest, so a folder can keep them."""
    file = None if keep is None else keep / f"{split}-{count}.npz"
    if file is not None and file.is_file():
        with np.load(file) as kept:
            layers = [kept[name] for name in ("before", "after", "water", "seen")]
        return [Season(*one) for one in zip(*layers, strict=True)]
    source = Simulated(split, count, SIZE, sar_dates=(f"before:{NUMBERS[-1]}", "after"))
    seasons = []
    for index in range(count):
        scene = source.scene(index)
        before = np.concatenate([scene.sar_before[None], scene.sar_earlier])
        seen = np.isfinite(scene.sar_after).all(axis=0) & np.isfinite(before).all(axis=(0, 1))
        seasons.append(Season(before, scene.sar_after, scene.water_after, seen))
    if file is not None:
        names = ("before", "after", "water", "seen")
        stacked = {name: np.stack([getattr(one, name) for one in seasons]) for name in names}

        def write(partial: Path) -> None:
            with partial.open("wb") as target:
                np.savez(target, **stacked)  # type: ignore[arg-type]

        write_whole(file, write)
    return seasons


def train(features: Tensor, water: Tensor, seed: int) -> tuple[nn.Module, list[float]]:
    """A network of a pixel's features (pixels, F) on its label; and its loss by hundred steps."""
    torch.manual_seed(seed)
    layers = [nn.Linear(features.shape[1], 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU()]
    network = nn.Sequential(*layers, nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    losses = []
    for _ in range(STEPS):
        drawn = torch.randint(len(features), (PIXELS,))
        logits = network(features[drawn])[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, water[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return network, [float(part.mean()) for part in np.split(np.asarray(losses), STEPS // 100)]


def learned(seasons: list[Season], dates: list[int], losses: list[list[float]]) -> list[nn.Module]:
    """Networks of all seeds, trained on scenes each with its number of dates."""
    seen = [season.seen.ravel() for season in seasons]
    features = [s.features(n)[m] for s, n, m in zip(seasons, dates, seen, strict=True)]
    water = np.concatenate([s.water.ravel()[m] for s, m in zip(seasons, seen, strict=True)])
    networks = []
    for seed in SEEDS:
        label = torch.from_numpy(water).float()
        network, loss = train(torch.cat(features), label, seed)
        networks.append(network)
        losses.append(loss)
    return networks


@torch.inference_mode()
def network_counts(sides: list[list[nn.Module]], seasons: list[Season], dates: int) -> list[Counts]:
    """What networks find, for each side (seeds, scenes, 2)."""
    rows: list[list[list[list[int]]]] = [[[] for _ in networks] for networks in sides]
    for season in seasons:
        features = season.features(dates)
        for side, networks in enumerate(sides):
            for seed, network in enumerate(networks):
                found = (network(features) > 0).numpy().reshape(season.water.shape)
                rows[side][seed].append(season.counts(found))
    return [np.array(one) for one in rows]


def rule_counts(rule: Predictor, seasons: list[Season], dates: int) -> Counts:
    """What thresholds find, (1, scenes, 2)."""
    rows = []
    for season in seasons:
        image, seen = torch.from_numpy(season.image(dates)), torch.from_numpy(season.seen)
        rows.append(season.counts(rule(image[None], seen[None], None).water[0, 0].numpy() > 0.5))
    return np.array([rows])


def water_iou(counts: Counts, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU pooled over the scenes drawn (samples, scenes), the mean over seeds.

    Args:
        counts: (seeds, scenes, 2).
        drawn: Scenes of each sample.
    """
    sums = counts[:, drawn].sum(axis=2)  # (seeds, samples, 2)
    mean: NDArray[np.float64] = (sums[..., 0] / np.maximum(sums[..., 1], 1)).mean(axis=0)
    return mean


def interval(values: NDArray[np.float64]) -> dict[str, float | None]:
    """The first value is of the scenes as they are, the others of the bootstrap."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"mean": rounded(values[0]), "low": rounded(low), "high": rounded(high)}


def samples(scenes: int) -> NDArray[np.int64]:
    """The scenes as they are, then `SAMPLES` bootstrap samples of them: (1 + SAMPLES, scenes)."""
    drawn = np.random.default_rng(0).integers(0, scenes, (SAMPLES, scenes))
    return np.concatenate([np.arange(scenes)[None], drawn])


def compare(counts: dict[str, dict[int, Counts]]) -> dict[str, Any]:
    """Scores of each side and number of dates, and what each step up is worth.

    Args:
        counts: Of each side, by number of dates (seeds, scenes, 2).
    """
    scenes = next(iter(next(iter(counts.values())).values())).shape[1]
    drawn = samples(scenes)
    scores = {
        side: {n: water_iou(found, drawn) for n, found in numbers.items()}
        for side, numbers in counts.items()
    }
    own = np.arange(scenes)[None]
    rows = {
        side: {
            str(n): interval(values)
            | {"seeds": [rounded(water_iou(one[None], own)[0]) for one in counts[side][n]]}
            for n, values in numbers.items()
        }
        for side, numbers in scores.items()
    }
    steps = {
        side: {
            f"{fewer} to {more}": interval(numbers[more] - numbers[fewer])
            for fewer, more in zip(sorted(numbers), sorted(numbers)[1:], strict=False)
        }
        for side, numbers in scores.items()
    }
    shared = set(scores["own network"]) & set(scores["any number"])
    against = {
        str(n): interval(scores["any number"][n] - scores["own network"][n]) for n in sorted(shared)
    }
    return {"scores": rows, "steps": steps, "any_less_own": against}


def main() -> None:
    """Train, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--train", type=int, default=40, help="scenes to train on")
    parser.add_argument("--test", type=int, default=32, help="scenes to score")
    parser.add_argument("--keep", type=Path, help="folder to keep the simulated scenes in")
    asked = parser.parse_args()
    chips = read_seasons("train", asked.train, asked.keep)
    tests = read_seasons("test", asked.test, asked.keep)
    mixed = np.random.default_rng(0).integers(1, NUMBERS[-1] + 1, len(chips)).tolist()
    losses: dict[str, list[list[float]]] = {"any": []}
    counts: dict[str, dict[int, Counts]] = {"own network": {}, "any number": {}}
    shared = learned(chips, mixed, losses["any"])
    for number in NUMBERS:
        own = learned(chips, [number] * len(chips), losses.setdefault(str(number), []))
        sides = [own, shared] if number else [own]
        found = network_counts(sides, tests, number)
        counts["own network"][number] = found[0]
        if number:
            counts["any number"][number] = found[1]
        print(number, losses[str(number)], flush=True)
    counts["z-score"] = {n: rule_counts(z_score(), tests, n) for n in NUMBERS[1:]}
    counts["Otsu on VH"] = {0: rule_counts(otsu(band=1, median=9), tests, 0)}
    record = {
        "question": "What is each further radar date from before a flood worth?",
        "scenes": {"trained_on": len(chips), "tested_on": len(tests), "size": SIZE},
        "own network": "a network for each number of dates",
        "any number": "one network, trained on scenes of one to eight dates",
        "training": {"steps": STEPS, "pixels": PIXELS, "loss_by_100_steps": losses},
        "intervals": "95 %, of the test scenes by bootstrap, the mean over seeds",
        **compare(counts),
    }
    if asked.record:
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
