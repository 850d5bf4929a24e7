"""What lies beside a weights file: what its probabilities of water came to be worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flora.errors import FloraError
from flora.files import write_text
from flora.models.calibration import Calibration
from flora.predictors import MODES, Mode

ENDING = ".calibration.json"


class Held(NamedTuple):
    """How often the interval held on real chips, which nothing was fitted on.

    Attributes:
        chips: Number of them.
        covered: Those whose true area lay in their interval.
    """

    chips: int
    covered: int


@dataclass(frozen=True)
class ChosenThreshold:
    """The probability from which a pixel is water on maps by some weights in some mode.

    Attributes:
        value: From 0.01 to 0.99.
        chosen_on: Names of the chips that chose it.

    Raises:
        FloraError: If the value is out of range, or nothing chose it.
    """

    value: float
    chosen_on: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.value, float) and 0.01 <= self.value <= 0.99 and self.chosen_on):
            raise FloraError(
                "expected a probability from 0.01 to 0.99, and what chose it",
                argument="threshold",
                value=vars(self),
                remedy="choose it anew with benchmarks/real_threshold.py",
            )


def calibration_file(weights: Path) -> Path:
    """Where the calibrations of a weights file lie."""
    return weights.with_name(f"{weights.stem}{ENDING}")


def save_calibrations(
    weights: Path,
    calibrations: Mapping[Mode, Calibration],
    said: Mapping[str, Any],
    real: Mapping[Mode, Held] | None = None,
) -> Path:
    """Write calibrations beside their weights; thresholds that lie there stay.

    Args:
        weights: The weights file.
        calibrations: One for each mode in which the model was asked.
        said: What they were fitted on, as JSON values.
        real: How often the interval held on real chips, where that is known.

    Raises:
        FloraError: If the disk refuses, or what lies there is damaged.
    """
    fitted = {
        "fitted_on": dict(said),
        "modes": {mode: asdict(calibration) for mode, calibration in calibrations.items()},
        "real": {mode: held._asdict() for mode, held in (real or {}).items()},
    }
    return _write(weights, fitted)


def save_thresholds(weights: Path, thresholds: Mapping[Mode, ChosenThreshold]) -> Path:
    """Write the thresholds of maps beside their weights; calibrations that lie there stay.

    Args:
        weights: The weights file.
        thresholds: One for each mode for which one was chosen.

    Raises:
        FloraError: If the disk refuses, or what lies there is damaged.
    """
    return _write(weights, {"thresholds": {mode: asdict(own) for mode, own in thresholds.items()}})


def load_calibration(weights: Path, mode: Mode = "sar") -> Calibration | None:
    """The calibration that lies beside a weights file; None where there is none for this mode.

    Args:
        weights: The weights file.
        mode: What the model looks at.

    Raises:
        FloraError: If it belongs to other weights, or is damaged.

    Example:
        >>> from flora.models import shipped_weights
        >>> from flora.models.beside import load_calibration
        >>> load_calibration(shipped_weights()).coverage
        0.9
    """
    return _read(weights).calibrations.get(mode)


def load_thresholds(weights: Path) -> Mapping[Mode, ChosenThreshold]:
    """The thresholds of maps that lie beside a weights file, by mode; {} without any.

    Raises:
        FloraError: See `load_calibration`.

    Example:
        >>> from flora.models import shipped_weights
        >>> from flora.models.beside import load_thresholds
        >>> {mode: own.value for mode, own in load_thresholds(shipped_weights()).items()}
        {'sar': 0.1}
    """
    return _read(weights).thresholds


def held_on_real(weights: Path, mode: Mode) -> Held | None:
    """How often the interval of some weights held on real chips; None where that is not known.

    Raises:
        FloraError: See `load_calibration`.
    """
    return _read(weights).real.get(mode)


def calibrated_on(weights: Path) -> Mapping[str, Any]:
    """What the calibrations of a weights file were fitted on, as JSON values; {} without any.

    Raises:
        FloraError: See `load_calibration`.

    Example:
        >>> from flora.models import shipped_weights
        >>> from flora.models.beside import calibrated_on
        >>> calibrated_on(shipped_weights())["interval"]["scenes"]
        99
    """
    return _read(weights).fitted_on


@dataclass(frozen=True)
class _Beside:
    """What lies beside a weights file."""

    calibrations: Mapping[Mode, Calibration] = field(default_factory=dict)
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    real: Mapping[Mode, Held] = field(default_factory=dict)
    thresholds: Mapping[Mode, ChosenThreshold] = field(default_factory=dict)


def _read(weights: Path) -> _Beside:
    """What lies beside a weights file; nothing of anything where there is no such file."""
    path = calibration_file(weights)
    if not path.is_file():
        return _Beside()
    remedy = "move it away, and fit it anew with benchmarks/likelihood.py"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        belongs, thresholds = record["weights_sha256"], _by_mode(record.get("thresholds", {}))
        found = _Beside(
            {mode: Calibration(**own) for mode, own in _by_mode(record.get("modes", {})).items()},
            dict(record.get("fitted_on", {})),
            {mode: Held(**own) for mode, own in _by_mode(record.get("real", {})).items()},
            {
                mode: ChosenThreshold(own["value"], tuple(own["chosen_on"]))
                for mode, own in thresholds.items()
            },
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise FloraError(
            f"its calibration {path.name} is damaged ({type(error).__name__}: {error})",
            argument="weights",
            value=weights,
            remedy=remedy,
        ) from error
    if belongs != _checksum(weights):
        raise FloraError(
            f"{path.name} beside it is of other weights",
            argument="weights",
            value=weights,
            remedy=remedy,
        )
    return found


def _write(weights: Path, new: Mapping[str, Any]) -> Path:
    """Put parts beside a weights file, and keep the others that lie there."""
    path, belongs = calibration_file(weights), _checksum(weights)
    _read(weights)  # what is damaged, or of other weights, is not added to
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps({"weights_sha256": belongs, **record, **new}, indent=1) + "\n")
    return path


def _by_mode(values: Mapping[str, Any]) -> dict[Mode, Any]:
    """The same, its keys known to be modes."""
    named: dict[str, Mode] = {mode: mode for mode in MODES}
    return {named[name]: value for name, value in values.items()}


def _checksum(weights: Path) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()
