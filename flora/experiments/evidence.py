"""What differences between two models show: a mean, its interval, and the effect it excludes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flora.errors import FloraError

Word = Literal["helps", "hurts", "no difference", "open"]


@dataclass(frozen=True)
class Judgement:
    """What paired differences to FLoRA show.

    Attributes:
        mean: Mean difference, the other less FLoRA.
        low: Lower end of its 95 % interval; None where there are too few differences for one.
        high: Upper end.
        count: Number of differences.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int

    @property
    def word(self) -> Word:
        """Which side of 0 the interval lies on.

        "helps" if FLoRA (or the part that the other lacks) is ahead in all of it, "hurts" if it
        is behind in all of it, "no difference" if 0 lies inside, "open" without an interval.
        """
        if self.low is None or self.high is None:
            return "open"
        if self.high < 0:
            return "helps"
        return "hurts" if self.low > 0 else "no difference"

    @property
    def excludes(self) -> float | None:
        """Effects larger than this, in either direction, do not agree with the differences."""
        if self.low is None or self.high is None:
            return None
        return max(abs(self.low), abs(self.high))

    def text(self, digits: int = 3) -> str:
        """Mean and interval in words of a table, for instance "-0.012 [-0.020, -0.004]".

        There are up to two digits more where the interval, or the end of it that decides the word,
        would be written as 0.
        """
        if self.mean is None:
            return "not run"
        if self.low is None or self.high is None:
            return f"{signed(self.mean, digits)} (n = {self.count})"
        nearest = min(abs(self.low), abs(self.high))
        spread = nearest if self.low * self.high > 0 else (self.high - self.low) / 2
        digits = digits_that_show(spread, digits)
        mean, low, high = (signed(end, digits) for end in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


def digits_that_show(spread: float, digits: int) -> int:
    """The digits after the point, `digits` or up to two more, that a spread needs to be seen.

    Example:
        >>> from flora.experiments.evidence import digits_that_show
        >>> digits_that_show(0.26, 1), digits_that_show(0.026, 1), digits_that_show(0.0, 1)
        (1, 2, 1)
    """
    enough = (more for more in range(digits, digits + 3) if round(spread, more) != 0)
    return next(enough, digits)


def signed(value: float, digits: int) -> str:
    """A difference with its sign; what rounds to 0 has none.

    Example:
        >>> from flora.experiments.evidence import signed
        >>> signed(-0.0123, 3), signed(-0.0003, 3)
        ('-0.012', '0.000')
    """
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def judge(values: Sequence[float], fewest: int = 3) -> Judgement:
    """The mean of paired differences and its 95 % interval by Student's t.

    The differences are of one kind each: over seeds they tell whether training again would show
    the same on these chips; over sites, whether another site would. Neither stands for the other.

    Args:
        values: Score of the other less that of FLoRA, one a seed or one a site; see
            `flora.experiments.records.differences` and `by_place`.
        fewest: Differences that are needed for an interval.

    Raises:
        FloraError: If a difference is not finite.

    Example:
        Differences in IoU to FLoRA, one a seed:

        >>> from flora.experiments.evidence import judge
        >>> judge([-0.05, -0.05, -0.04]).word
        'helps'
        >>> found = judge([-0.05, 0.02, -0.05])
        >>> found.word, found.text()
        ('no difference', '-0.027 [-0.127, +0.074]')
        >>> round(found.excludes, 3)
        0.127
        >>> judge([-0.05]).word
        'open'
    """
    if not all(math.isfinite(value) for value in values):
        raise FloraError(f"values {list(values)}: expected finite differences")
    if not values:
        return Judgement(None, None, None, 0)
    mean, count = statistics.mean(values), len(values)
    if count < max(2, fewest):
        return Judgement(mean, None, None, count)
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return Judgement(mean, mean - half, mean + half, count)
