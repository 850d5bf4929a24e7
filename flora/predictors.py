"""The one protocol of a model's answer, for chips, tiles and scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from flora.sensors import OpticalStack


Mode = Literal["sar", "before", "oracle"]
"""What may be looked at: SAR alone, an optical image from before the flood too, or the very image
that is to be drawn."""
MODES: tuple[Mode, ...] = get_args(Mode)
EVEN = 0.5
"""Probability from which a pixel is water where nothing better is known of a model."""
SHIPPED_ON = "simulated scenes only"
"""What maps say that the weights of the package were trained on."""


class Prediction(NamedTuple):
    """What a model answers.

    Attributes:
        water: Probability of water (B, 1, H, W) in [0, 1].
        rgb: Reconstructed optical image (B, C_o, H, W) in [0, 1], or None.
    """

    water: Tensor
    rgb: Tensor | None = None


class Predictor(Protocol):
    """A model, a threshold, or anything else that maps water."""

    def __call__(self, sar: Tensor, valid: Tensor, guide: OpticalStack | None, /) -> Prediction:
        """Predict a batch, on the device that it came on.

        Args:
            sar: (B, C_s, H, W) float32, normalised, 0 in nodata.
            valid: (B, H, W) bool, where the radar measured.
            guide: The optical image that may be looked at: that from before the flood, or in mode
                `oracle` the very image that is to be drawn; None for SAR alone.
        """
        ...


@runtime_checkable
class PartPredictor(Predictor, Protocol):
    """A model that answers for a part of what it sees at less than the price of the whole."""

    def part(
        self,
        sar: Tensor,
        valid: Tensor,
        guide: OpticalStack | None,
        rows: slice,
        columns: slice,
        /,
    ) -> Prediction:
        """Predict rows [start, stop) and columns of a batch, otherwise as a `Predictor`."""
        ...


def threshold_of(model: Predictor, mode: Mode) -> float:
    """Probability from which a pixel is water on the maps of a model.

    A model of which a better one is known than 0.5 has `thresholds`, by mode, as `flora.predictor`
    gives those of its weights.

    Example:
        >>> from flora import load_model, predictor
        >>> from flora.predictors import threshold_of
        >>> predict = predictor(load_model())
        >>> threshold_of(predict, "sar"), threshold_of(predict, "before")
        (0.1, 0.5)
    """
    own: Mapping[Mode, float] = getattr(model, "thresholds", {})
    return own.get(mode, EVEN)


def trained_on(model: Predictor) -> str:
    """What a model was trained on, in words, for its maps to say; "" where nothing is known.

    A model of which it is known has it as `trained_on`, as `flora.predictor` gives that of its
    weights.

    Example:
        >>> from flora import load_model, predictor
        >>> from flora.predictors import trained_on
        >>> trained_on(predictor(load_model()))
        'simulated scenes only'
    """
    return str(getattr(model, "trained_on", ""))
