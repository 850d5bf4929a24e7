from __future__ import annotations

import numpy as np
import pytest

from flora.datasets.blocks import touching, whole_blocks


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_whole_and_sizes_stay_near(seed):
    random = np.random.default_rng(seed)
    cells = [tuple(cell) for cell in np.unique(random.integers(0, 30, (150, 2)), axis=0)]
    chips = {f"chip_{number:03d}": cell for number, cell in enumerate(cells)}
    bounds = {name: (x, y, x + 1, y + 1) for name, (x, y) in chips.items()}
    drawn = random.choice(["train", "valid", "test"], len(chips), p=(0.6, 0.2, 0.2)).tolist()
    splits = dict(zip(chips, drawn, strict=True))
    blocks = touching(bounds, gap=0.01)
    chosen = whole_blocks(splits, blocks)
    assert chosen.keys() == splits.keys()
    for one, (x, y) in chips.items():
        for other, (u, v) in chips.items():
            near = max(abs(x - u), abs(y - v)) <= 1
            if near:
                assert chosen[one] == chosen[other]
            if not any(max(abs(x - u), abs(y - v)) <= 1 for n, (u, v) in chips.items() if n != one):
                assert chosen[one] == splits[one]
    assert whole_blocks(splits, dict(reversed(blocks.items()))) == chosen
    for split in ("train", "valid", "test"):
        given = list(splits.values()).count(split)
        assert abs(list(chosen.values()).count(split) - given) < 0.6 * given


def test_nothing_touches_nothing():
    assert touching({}, gap=1.0) == {} and whole_blocks({}, {}) == {}


def test_real_chips_keep_the_official_sizes(flora_data):
    lines = (flora_data / "sen1floods11_few" / "hand_chips_index.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    rows.sort(key=lambda row: ("train", "valid", "test", "bolivia").index(row[1]))
    splits = {row[0]: row[1] for row in rows}
    bounds = {row[0]: tuple(float(x) for x in row[3:7]) for row in rows}
    chosen = whole_blocks(splits, touching(bounds, gap=9e-5))
    sizes = {split: list(chosen.values()).count(split) for split in set(splits.values())}
    assert sizes == {"train": 252, "valid": 89, "test": 90, "bolivia": 15}
    assert sum(chosen[chip] != splits[chip] for chip in splits) == 86
    assert {chosen[chip] for chip in splits if chip.startswith("Spain")} == {"test"}
