"""What `flora map` maps scenes with: a network, or a threshold that the scene gives for itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flora.cli.options import Device, Weights
from flora.errors import FloraError, Given

if TYPE_CHECKING:
    from flora.scenes.many import MakePredictor
    from flora.sensors import OpticalScaling, SarScaling

Method = Literal["flora", "otsu"]


@dataclass(frozen=True)
class ModelOptions:
    """What maps them."""

    method: Annotated[
        Method,
        typer.Option(
            help="flora: the network; otsu: a threshold on VH that the scene gives for itself."
        ),
    ] = "flora"
    weights: Weights = None
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability that counts as water, above 0 and below 1, with a page from 0.01 to "
            "0.99; default: what the weights bring for radar of one date alone, else 0.5.",
        ),
    ] = None
    device: Device = None
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(
            help="bfloat16 computes in half the digits: worth a try on a processor with matrix "
            "units (Intel's AMX); probabilities move by less than a hundredth on average."
        ),
    ] = "float32"

    def check(self, before: str | None) -> None:
        """Refuse a threshold that is none, and what Otsu's method has no use for.

        Raises:
            FloraError: If there is such a threshold, or weights, a threshold, a device or an
                optical image are given with Otsu's method.
        """
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise FloraError(
                "expected a probability above 0 and below 1",
                argument="threshold",
                value=self.threshold,
            )
        if self.method == "flora":
            return
        for argument, value in (
            ("weights", self.weights),
            ("threshold", self.threshold),
            ("device", self.device),
            ("precision", None if self.precision == "float32" else self.precision),
            ("before_path", before),
        ):
            if value is not None:
                raise FloraError(
                    "--method otsu looks at the radar alone and finds its own threshold",
                    argument=argument,
                    value=value,
                    remedy="leave one of the two out",
                )

    def chosen(self, dates: int) -> Path | None:
        """The file of the weights that map so many radar dates; None for another method."""
        from flora.models.checkpoints import shipped_weights

        return None if self.method == "otsu" else self.weights or shipped_weights(dates)

    def least(self, dates: int, guided: bool) -> tuple[float, str]:
        """The probability from which a pixel is water, and what the terminal says of it.

        Args:
            dates: Of radar.
            guided: Whether an image from before the flood is looked at.

        Raises:
            FloraError: If what lies beside the weights is refused.
        """
        from flora.models.beside import load_thresholds
        from flora.predictors import EVEN

        weights = self.chosen(dates)
        if weights is None or self.threshold is not None:
            return EVEN if self.threshold is None else self.threshold, ""
        own = load_thresholds(weights).get("before" if guided else "sar")
        if own is None:
            return EVEN, f"Water from a probability of {EVEN:g} on: none was chosen for these maps"
        return own.value, (
            f"Water from a probability of {own.value:g} on, which {len(own.chosen_on)} real chips "
            "chose for these weights; --threshold sets another"
        )

    def sensors(
        self, dates: int, sar_before: Sequence[str] | None
    ) -> tuple[SarScaling, OpticalScaling]:
        """The sensors of the model; a file that is refused is refused once, not by every scene.

        Args:
            dates: Of radar, that of the flood included.
            sar_before: The earlier ones, as they were named.

        Returns:
            Those of one date of radar, and of the image.

        Raises:
            FloraError: If the weights are not of Sentinel-1 in dB, are of statistics of dates, or
                of another number of dates.
        """
        from flora.models.checkpoints import SHIPPED
        from flora.models.weights import load_model, sensor_of
        from flora.season import SENTINEL1_SEASON
        from flora.sensors import SENTINEL1, SENTINEL2_RGB

        if self.method == "otsu":
            return SENTINEL1, SENTINEL2_RGB
        named = " ".join(sar_before or ())
        if self.weights is None and dates not in SHIPPED:
            raise FloraError(
                f"{_dates(dates)} of radar given, and the weights of the package map "
                f"{_dates(max(SHIPPED))} at most",
                argument="sar_before",
                value=named,
                remedy="name fewer, or pass {method}, which takes the median of all",
                method="otsu",
            )
        weights = self.chosen(dates)
        load_model(weights)
        sar, optical = sensor_of(weights)
        if sar.unit != "dB":
            raise FloraError(
                f"trained on {sar.name} ({sar.unit}), a scene is in dB",
                argument="weights",
                value=weights,
                remedy="choose weights trained on sigma0 in dB",
            )
        if sar.name == SENTINEL1_SEASON.name:
            raise FloraError(
                "trained on statistics of dates, which are not made of scenes here",
                argument="weights",
                value=weights,
                remedy="choose weights of stacked dates, or make the statistics in Python with "
                "flora.season.season_statistics",
            )
        if sar.dates != dates:
            given = Given("sar_before", named) if named else Given("weights", weights)
            raise FloraError(
                f"{_dates(dates)} of radar given, and the weights map {_dates(sar.dates)}",
                argument=given,
                remedy="leave the weights out, which takes those of the package for two dates, or "
                "pass {method}"
                if named
                else "pass {sar_before}, the scene from before the flood",
                method="otsu",
                sar_before="FILE",
            )
        return sar.of_one_date(), optical

    def makes(self, dates: int) -> MakePredictor:
        """Makes what maps a scene of so many radar dates, in each process."""
        from flora.scenes.many import WeightsPredictor
        from flora.scenes.thresholds import SceneOtsu

        if self.method == "otsu":
            return SceneOtsu
        weights = self.weights and self.weights.absolute()
        return WeightsPredictor(weights, self.device, self.precision, dates)

    def facts(self, place: str, dates: int) -> dict[str, str]:
        """What identifies this model, by name: kept as tags of the maps."""
        import torch

        from flora.models.checkpoints import training_data

        path = self.chosen(dates)
        if path is None:
            return {"method": self.method}
        return {
            "method": self.method,
            "weights": path.name,
            "trained_on": training_data(self.weights),
            "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "device": place,
            "precision": self.precision,
            "torch": torch.__version__,
        }


def _dates(number: int) -> str:
    return {1: "one date", 2: "two dates"}.get(number, f"{number} dates")
