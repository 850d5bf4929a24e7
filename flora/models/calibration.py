"""What a probability of water came to be worth: a likelihood, and an interval of the water's area.

Both are fitted on scenes that the weights were not trained on, and lie beside the weights
(`flora.models.beside`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flora.errors import FloraError
from flora.sensors import BoolArray

LEAST = 1e-6  # probabilities nearer to 0 or 1 are taken for this

Values = NDArray[np.float64]


class AreaInterval(NamedTuple):
    """Between which areas the true one should lie.

    Attributes:
        low: Area in any unit.
        expected: Sum of the likelihoods, in the same unit.
        high: In the same unit.
        coverage: Share of scenes, of the kind that it was fitted on, for which it holds.
    """

    low: float
    expected: float
    high: float
    coverage: float


@dataclass(frozen=True)
class Calibration:
    """From a model's probability of water to how often there was water where it said so.

    The likelihood q of a probability p is that of beta calibration (Kull, Silva Filho and Flach,
    2017, AISTATS): ln(q / (1 - q)) = wet ln p - dry ln(1 - p) + shift. It never falls as p rises.

    The area's interval is split conformal prediction with scores divided by a scene's own doubt
    (Papadopoulos et al., 2002; Lei et al., 2018), a quantile for each side (Romano et al., 2019):
    from E - less D to E + more D, where E is the sum of q over the scene, and D that of
    min(q, 1 - q), the area that q itself gives up as wrong.

    Attributes:
        wet: At least 0.
        dry: At least 0.
        shift: Any number.
        less: How many D the true area may lie below E.
        more: How many above.
        coverage: Share of scenes for which the interval holds.

    Raises:
        FloraError: If one is out of range.

    Example:
        A model that is right as often as it says:

        >>> import numpy as np
        >>> from flora.models.calibration import Calibration
        >>> honest = Calibration(wet=1, dry=1, shift=0, less=2, more=3, coverage=0.9)
        >>> honest.likelihood(np.array([0.25, 0.9])).round(6).tolist()
        [0.25, 0.9]
        >>> honest.interval(expected=10.0, doubtful=1.0, mapped=12.0)
        AreaInterval(low=8.0, expected=10.0, high=12.0, coverage=0.9)
    """

    wet: float
    dry: float
    shift: float
    less: float
    more: float
    coverage: float

    def __post_init__(self) -> None:
        finite = all(math.isfinite(value) for value in vars(self).values())
        rises = min(self.wet, self.dry) >= 0
        if not (finite and rises and self.less + self.more >= 0 and 0 < self.coverage < 1):
            raise FloraError(
                "expected finite numbers, wet and dry at least 0, less + more at least 0, a "
                "coverage between 0 and 1",
                argument="calibration",
                value=vars(self),
                remedy="fit it anew with benchmarks/likelihood.py",
            )

    def likelihood(self, probability: NDArray[np.floating[Any]]) -> Values:
        """Likelihood in (0, 1) of each probability in [0, 1]; NaN stays NaN."""
        evidence = self.wet * _logs(probability) - self.dry * _logs(1 - probability) + self.shift
        return 1 / (1 + np.exp(-evidence))

    def interval(self, expected: float, doubtful: float, mapped: float) -> AreaInterval:
        """The interval of an area, all in one unit.

        Args:
            expected: Sum of the likelihoods, E.
            doubtful: Sum of the smaller of q and 1 - q, D.
            mapped: Area of all pixels that were mapped: there is no more water than this.
        """
        low = min(max(expected - self.less * doubtful, 0.0), mapped)
        high = min(max(expected + self.more * doubtful, 0.0), mapped)
        return AreaInterval(low, expected, high, self.coverage)


def fit_likelihood(probability: Values, water: BoolArray) -> tuple[float, float, float]:
    """The wet, dry and shift under which the truth is likeliest.

    Args:
        probability: (n,) in [0, 1].
        water: (n,), the truth.

    Raises:
        FloraError: If all of it is water, or none.
    """
    from scipy.optimize import minimize

    if water.all() or not water.any():
        raise FloraError("water and land are needed to fit a likelihood", argument="water")
    columns = np.stack([_logs(probability), -_logs(1 - probability), np.ones(len(probability))])
    sign = np.where(water, 1.0, -1.0)

    def loss(parameters: Values) -> tuple[float, Values]:
        evidence = sign * (parameters @ columns)
        slope = -sign / (1 + np.exp(np.clip(evidence, -700, 700)))
        return float(np.logaddexp(0, -evidence).mean()), columns @ slope / len(sign)

    bounds = [(0, None), (0, None), (None, None)]
    found = minimize(loss, np.array([1.0, 1.0, 0.0]), jac=True, bounds=bounds, method="L-BFGS-B")
    wet, dry, shift = found.x.tolist()
    return wet, dry, shift


def conformal_quantile(scores: Sequence[float], share: float) -> float:
    """What the score of one more scene exceeds with a probability of at most 1 - `share`.

    Of n scores the ceil((n + 1) share)-th smallest (Vovk et al., 2005), if the next scene is drawn
    as these were.

    Raises:
        FloraError: If there are too few scores.

    Example:
        >>> from flora.models.calibration import conformal_quantile
        >>> conformal_quantile([3.0, 1.0, 2.0, 4.0], 0.8)  # the ceil(5 x 0.8)-th
        4.0
        >>> conformal_quantile([3.0, 1.0, 2.0, 4.0], 0.5)  # the ceil(2.5)-th
        3.0
    """
    # 20 x 0.95 is 19, but not in binary.
    rank = math.ceil((len(scores) + 1) * share - 1e-9)
    if rank > len(scores):
        raise FloraError(
            f"{len(scores)} scenes, expected {math.ceil(share / (1 - share) - 1e-9)} or more for "
            f"a share of {share:g}",
            argument="scores",
            remedy="take more scenes",
        )
    return sorted(scores)[max(rank, 1) - 1]


def _logs(values: NDArray[np.floating[Any]]) -> Values:
    logs: Values = np.log(np.clip(values, LEAST, 1.0 - LEAST, dtype=np.float64))
    return logs
