from __future__ import annotations

import pytest

from benchmarks.leakage import leaks, touches
from flora.errors import FloraError
from flora.figures import splits_figure

BOUNDS = {
    "A_1": (0.0, 0.0, 1.0, 1.0),
    "A_2": (1.0, 0.0, 2.0, 1.0),  # beside A_1
    "A_3": (2.0, 1.0, 3.0, 2.0),  # at a corner of A_2
    "B_1": (9.0, 0.0, 10.0, 1.0),
}
SPLITS = {"A_1": "train", "A_2": "test", "A_3": "train", "B_1": "test"}


def test_an_edge_is_more_than_a_corner():
    assert touches(BOUNDS["A_1"], BOUNDS["A_2"], corners=False)
    assert not touches(BOUNDS["A_2"], BOUNDS["A_3"], corners=False)
    assert touches(BOUNDS["A_2"], BOUNDS["A_3"], corners=True)
    assert not touches(BOUNDS["A_1"], BOUNDS["B_1"], corners=True)
    assert leaks(BOUNDS, SPLITS, corners=False) == ["A_2"]


def test_every_chip_of_the_place_is_drawn_and_every_test_chip_counted():
    rows = [
        {"chip": c, "split": SPLITS[c], "touches_training": c == "A_2", "bounds": BOUNDS[c]}
        for c in BOUNDS
    ]
    fig = splits_figure(rows, "A")
    where, counts = fig.axes
    assert len(where.patches) == 3
    widths = [bar.get_width() for bar in counts.patches]
    assert widths == [0, 1, 1, 0]  # B: none of one; A: one of one
    with pytest.raises(FloraError, match="expected one of A, B"):
        splits_figure(rows, "C")
