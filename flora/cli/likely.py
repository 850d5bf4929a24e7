"""The likelihood and the interval of the area that `flora map` gives with its maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flora.maps.likelihood import AreaIntervals
    from flora.models.beside import Held
    from flora.models.calibration import AreaInterval, Calibration
    from flora.predictors import Mode


@dataclass(frozen=True)
class Likely:
    """What is known of how often the model is right.

    Attributes:
        calibration: Of its weights in the mode that is used; None if there is none.
        why_not: What to say without one.
        reuse: Take a likelihood that is there, if it was made by this calibration.
        fitted_on: What the calibration was fitted on, as JSON values.
        held: How often its interval of all water held on real chips; None where that is not known.
    """

    calibration: Calibration | None
    why_not: str
    reuse: bool
    fitted_on: Mapping[str, Any]
    held: Held | None = None

    @classmethod
    def of(cls, weights: Path | None, guided: bool, reuse: bool) -> Likely:
        """What is known of some weights.

        Args:
            weights: Their file; None for Otsu's method.
            guided: Whether an image from before the flood is looked at.
            reuse: See `Likely`.

        Raises:
            FloraError: If the calibration beside the weights is damaged, or of other weights.
        """
        from flora.models.beside import (
            calibrated_on,
            calibration_file,
            held_on_real,
            load_calibration,
        )

        if weights is None:
            return cls(None, "Otsu's method has none", reuse, {})
        mode: Mode = "before" if guided else "sar"
        found, held = load_calibration(weights, mode), held_on_real(weights, mode)
        missing = f"these weights have none (no {calibration_file(weights).name} beside them"
        missing += ", or not with an image from before)" if guided else ")"
        return cls(found, missing, reuse, calibrated_on(weights), held)

    def target(self, folder: Path, stem: str) -> Path | None:
        """The file of a scene; None if none is written."""
        return None if self.calibration is None else folder / f"{stem}_likelihood.tif"

    def write(self, probability: Path, target: Path, overwrite: bool) -> Iterator[str]:
        """Write the likelihood of a map, unless it is there; yields the line to be printed.

        Raises:
            FloraError: See `flora.maps.likelihood.write_likelihood`.
        """
        from flora.maps.likelihood import write_likelihood

        if self.calibration is None:
            return
        if not (self.reuse and not overwrite and self._taken(target)):
            write_likelihood(probability, target, self.calibration, overwrite=overwrite)
        yield f"  {target}"

    def promise(self) -> str:
        """Of which scenes the interval holds, and how often, as it follows upon "an interval"."""
        if self.calibration is None:
            return ""
        share = f"made to hold for {100 * self.calibration.coverage:.0f} % of"
        return f"{share} {self._kind}, whatever the threshold; {self._on_real}"

    @property
    def _kind(self) -> str:
        first = str(self.fitted_on.get("interval", {}).get("first", ""))
        return (
            "simulated scenes"
            if first.startswith("simulated")
            else "scenes like those it was fitted on"
        )

    @property
    def _on_real(self) -> str:
        if self.held is None:
            return "on real chips it was not tested"
        return f"on {self.held.chips} real chips, that of all water held for {self.held.covered}"

    def said(self, intervals: AreaIntervals | None, mapped: Mapping[str, float]) -> str:
        """What the terminal says of the true areas, and where those of the map lie beyond them.

        Args:
            intervals: Of the true areas; None without a calibration.
            mapped: Areas of the map by the names "water" and, where it is known, "flood", in the
                unit of the intervals.
        """
        if intervals is None or self.calibration is None:
            return f"No likelihood, and no interval of the area: {self.why_not}"
        named = {"flood": intervals.flood, "water": intervals.water}
        areas = "; ".join(
            f"{name} {_ends(one, intervals.unit)}{_beyond(one, mapped[name], intervals.unit)}"
            for name, one in named.items()
            if one is not None
        )
        return (
            f"True area, {self.calibration.coverage:.0%} interval for {self._kind} "
            f"({self._on_real}): {areas}"
        )

    def facts(self, intervals: AreaIntervals | None) -> dict[str, Any]:
        """What an item says of the true areas; {} where nothing is known of them."""
        if intervals is None:
            return {}
        named = {"water": intervals.water, "flood": intervals.flood}
        ends = {
            name: {"low": one.low, "expected": one.expected, "high": one.high}
            for name, one in named.items()
            if one is not None
        }
        how = {"coverage": intervals.water.coverage, "unit": intervals.unit}
        known = {"calibrated_on": dict(self.fitted_on)}
        if self.held is not None:
            known["real_chips"] = {"of": "water"} | self.held._asdict()
        return {"flora:area_interval": how | ends | known}

    def _taken(self, target: Path) -> bool:
        """Whether a likelihood is there that this calibration made."""
        from flora.grid import open_raster
        from flora.maps.likelihood import TAG, said_of

        if self.calibration is None or not target.is_file():
            return False
        with open_raster(target, "output_folder") as file:
            return bool(file.tags().get(TAG) == said_of(self.calibration))


def _ends(interval: AreaInterval, unit: str) -> str:
    return f"{interval.low:.4g} to {interval.high:.4g} {unit}"


def _beyond(interval: AreaInterval, mapped: float, unit: str) -> str:
    """What is said of a map whose area lies outside the interval; nothing of another."""
    if interval.low <= mapped <= interval.high:
        return ""
    return f" (the map shows {'more' if mapped > interval.high else 'less'}, {mapped:.4g} {unit})"
