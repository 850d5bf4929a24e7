"""Competitors that learn nothing: thresholds that every chip gives for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from flora.models.otsu import otsu, otsu_change
from flora.models.zscore import z_score
from flora.predictors import Predictor


class Rule(Protocol):
    """Something that learns nothing."""

    kind: ClassVar[str]

    def predictor(self) -> Predictor: ...  # noqa: D102


@dataclass(frozen=True)
class Otsu:
    """Otsu's threshold on one band after a median filter of some pixels."""

    kind: ClassVar[str] = "otsu"
    band: int = 0
    median: int = 1

    def predictor(self) -> Predictor:
        """The threshold."""
        return otsu(self.band, self.median)


@dataclass(frozen=True)
class OtsuChange:
    """Otsu's thresholds on two dates: dark, and darker than before."""

    kind: ClassVar[str] = "otsu change"
    median: int = 1

    def predictor(self) -> Predictor:
        """The thresholds."""
        return otsu_change(self.median)


@dataclass(frozen=True)
class ZScore:
    """Thresholds on the z-score over dates, and on their mean."""

    kind: ClassVar[str] = "z-score"

    def predictor(self) -> Predictor:
        """The thresholds."""
        return z_score()
