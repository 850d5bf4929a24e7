import math

import numpy as np
import pytest

from flora.errors import FloraError
from flora.experiments.evidence import judge


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([-0.03, -0.02, -0.04], "helps"),
        ([0.03, 0.02, 0.04], "hurts"),
        ([-0.03, -0.02, 0.001], "no difference"),  # ahead on average; the interval holds 0
        ([-0.3, -0.2], "open"),  # too few
        ([], "open"),
    ],
)
def test_the_word_follows_the_interval(values, word) -> None:
    assert judge(values).word == word


def test_the_interval_is_students() -> None:
    # Mean 2, standard deviation 1, n = 3: t(0.975, 2) = 4.3027, half width 4.3027 / sqrt(3).
    found = judge([1.0, 2.0, 3.0])
    half = 4.302652729 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert found.excludes == pytest.approx(2 + half)
    assert found.text(1) == "+2.0 [-0.5, +4.5]"
    assert judge([0.25]).text() == "+0.250 (n = 1)"
    assert judge([]).text() == "not run"


def test_no_end_that_decides_is_written_as_nothing() -> None:
    # Mean -.002, half width 2.484 * .0008 = .00199: the interval ends just below 0.
    assert judge([-0.002, -0.0028, -0.0012]).text() == "-0.00200 [-0.00399, -0.00001]"
    assert judge([0.0001, -0.0001, 0.0]).text() == "0.0000 [-0.0002, +0.0002]"
    assert judge([0.2, -0.3, 0.1]).text() == "0.000 [-0.657, +0.657]"
    assert judge([-0.0003]).text() == "0.000 (n = 1)"


def test_of_equal_models_one_in_twenty_is_called_different() -> None:
    random = np.random.default_rng(0).normal(size=(4000, 3))
    wrong = sum(judge(row.tolist()).word != "no difference" for row in random) / 4000
    assert 0.04 < wrong < 0.06


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(FloraError, match="expected finite differences"):
        judge([0.1, math.nan, 0.1])
