"""Networks behind the one protocol of `flora.predictors`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flora.errors import FloraError
from flora.models.network import Flora
from flora.models.pieces import answer_part
from flora.models.unet import LateFusion, UNet, stack_inputs
from flora.predictors import Mode, Prediction, Predictor
from flora.sensors import OpticalStack

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def predictor(
    model: Flora | UNet | LateFusion,
    device: torch.device | None = None,
    precision: Precision = "float32",
) -> Predictor:
    """A predictor that runs a network, put into evaluation mode, on a device of its own.

    FLoRA looks at the guide where there is one. A baseline needs what it was trained to see: a
    guide, unless that was SAR alone.

    Args:
        model: The network; it is moved to the device.
        device: Where it computes; None leaves it where it is.
        precision: "bfloat16" computes in half the digits, channels last, which moves
            probabilities by less than a hundredth on average. It is worth a try on a processor
            with AMX; on one with AVX-512 BF16 alone it gains nothing (record `scenes`). The model
            itself stays as it is.

    Raises:
        FloraError: If the precision is unknown. When asked, if a baseline gets no guide and needs
            one, or the reverse.

    Example:
        >>> import torch
        >>> from flora import load_model, predictor
        >>> predict = predictor(load_model())
        >>> valid = torch.ones(1, 64, 64, dtype=torch.bool)
        >>> water, rgb = predict(torch.zeros(1, 2, 64, 64), valid, None)  # SAR alone
        >>> water.shape, rgb.shape
        (torch.Size([1, 1, 64, 64]), torch.Size([1, 3, 64, 64]))
    """
    if precision not in PRECISIONS:
        raise FloraError(
            f"expected one of {', '.join(PRECISIONS)}", argument="precision", value=repr(precision)
        )
    kind = getattr(torch, precision)
    model = (model if device is None else model.to(device)).eval()
    if precision != "float32":
        model = copy.deepcopy(model).to(dtype=kind).to(memory_format=torch.channels_last)
    return FloraPredictor(model) if isinstance(model, Flora) else BaselinePredictor(model)


class FloraPredictor:
    """FLoRA's answer to a batch, or to a part of it; see `predictor`."""

    def __init__(self, model: Flora) -> None:
        self._model = model

    @property
    def thresholds(self) -> Mapping[Mode, float]:
        """See `Flora`; what was chosen in one precision serves the other."""
        return self._model.thresholds

    @property
    def trained_on(self) -> str:
        """See `Flora`."""
        return self._model.trained_on

    def __call__(self, sar: Tensor, valid: Tensor, guide: OpticalStack | None, /) -> Prediction:
        """See `flora.predictors.Predictor`."""
        rows, columns = (slice(0, side) for side in sar.shape[-2:])
        return self.part(sar, valid, guide, rows, columns)

    @torch.inference_mode()
    def part(
        self,
        sar: Tensor,
        valid: Tensor,
        guide: OpticalStack | None,
        rows: slice,
        columns: slice,
        /,
    ) -> Prediction:
        """See `flora.predictors.PartPredictor`."""
        asked = sar.device
        sar, guide = _as_model(self._model, sar, guide)
        seen = None if guide is None else self._model.look(guide)
        rgb, water = answer_part(self._model, sar, seen, rows, columns)
        return Prediction(torch.sigmoid(water).to(asked), rgb.to(asked))


class BaselinePredictor:
    """A baseline's answer to a batch; see `predictor`."""

    def __init__(self, model: UNet | LateFusion) -> None:
        self._model = model

    @torch.inference_mode()
    def __call__(self, sar: Tensor, valid: Tensor, guide: OpticalStack | None, /) -> Prediction:
        """See `flora.predictors.Predictor`."""
        if (guide is None) != (self._model.sees == "sar"):
            raise FloraError(
                f'this {type(self._model).__name__} was trained for mode "{self._model.sees}"',
                argument="mode",
                remedy="use that mode",
            )
        asked = sar.device
        output = self._model(stack_inputs(*_as_model(self._model, sar, guide)))
        rgb = None if output.rgb is None else output.rgb.to(asked)
        return Prediction(torch.sigmoid(output.water_logits).to(asked), rgb)


def _as_model(
    model: nn.Module, sar: Tensor, guide: OpticalStack | None
) -> tuple[Tensor, OpticalStack | None]:
    """Inputs on the device of a model, in its number of digits."""
    weights = next(model.parameters())

    def converted(layer: Tensor) -> Tensor:
        return layer if layer.dtype == torch.bool else layer.to(weights.dtype)

    stack = None if guide is None else guide.to(weights.device).map(converted)
    return sar.to(weights.device, weights.dtype), stack
