"""The words of the table beyond the paper follow the intervals of the records."""

from __future__ import annotations

import json

import pytest

from flora.experiments import Judgement, beyond_the_paper, results_folder
from flora.experiments.beyond import _gain


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "says"),
    [
        (0.01, 0.03, False, "**helps**, +0.020 [+0.010, +0.030]"),
        (0.01, 0.03, True, "**hurts**, +0.020 [+0.010, +0.030]"),
        (-0.03, -0.01, True, "**helps**, -0.020 [-0.030, -0.010]"),
        (-0.02, 0.06, False, "**no difference**, +0.020 [-0.020, +0.060]"),
        (None, None, False, "**open**, +0.020 (n = 1)"),
    ],
)
def test_a_gain_has_the_word_of_its_interval(low, high, lower_is_better, says):
    mean = -0.02 if high == -0.01 else 0.02
    assert _gain(Judgement(mean, low, high, 1), lower_is_better) == says


def test_answers_hold_the_numbers_of_their_records():
    rows = {row[0].split("`")[1]: row[1] for row in beyond_the_paper().rows}

    def read(name):
        return json.loads((results_folder() / f"{name}.json").read_text(encoding="utf-8"))

    shipped = read("two_dates")["rows"]["two dates"]["water_iou"]
    ends = ", ".join(f"{shipped[end]:+.3f}" for end in ("low", "high"))
    assert f"{shipped['difference']:+.3f} [{ends}]" in rows["two_dates"]
    test = read("few_real_labels")["test"]
    before = test["weights that ship"]["pooled"]["water_iou"]
    after = [seed["pooled"]["water_iou"] for seed in test["with the teacher"]]
    lost = sum(after) / len(after) - before
    assert f"{lost:+.3f} [" in rows["few_real_labels"]
    assert f"from {before:.3f} pooled" in rows["few_real_labels"]
    threshold = read("real_threshold")
    assert f"{threshold['left_out']['less_0.5']}; on the test" in rows["real_threshold"]
    pooled = threshold["test"]["pooled"]["FLoRA, weights that ship, 0.1"]["water_iou"]
    assert f"{pooled:.3f} in place of" in rows["real_threshold"]
    tried = sum(read("offsets_real")[pairs]["shifted"]["tried"] for pairs in ("ombria", "sih1733"))
    assert f"of {tried}**" in rows["offsets_real"]
