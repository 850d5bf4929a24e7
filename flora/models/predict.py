"""Networks behind the one protocol of `flora.predictors`."""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor

from flora.errors import FloraError
from flora.models.network import Flora
from flora.models.unet import LateFusion, UNet, stack_inputs
from flora.predictors import Prediction, Predictor
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
            probabilities by less than a hundredth. It is worth a try on a processor with AMX; on
            one with AVX-512 BF16 alone it gains nothing (record `scenes`). The model itself stays
            as it is.

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
    here = next(model.parameters()).device

    def as_kind(layer: Tensor) -> Tensor:
        return layer if layer.dtype == torch.bool else layer.to(kind)

    @torch.inference_mode()
    def predict(sar: Tensor, valid: Tensor, guide: OpticalStack | None, /) -> Prediction:
        asked, sar = sar.device, sar.to(here, kind)
        stack = None if guide is None else guide.to(here).map(as_kind)
        if isinstance(model, Flora):
            seen = None if stack is None else model.look(stack)
            output = model(sar, seen)
        else:
            if (guide is None) != (model.sees == "sar"):
                raise FloraError(
                    f'this {type(model).__name__} was trained for mode "{model.sees}"',
                    argument="mode",
                    remedy="use that mode",
                )
            output = model(stack_inputs(sar, stack))
        rgb = None if output.rgb is None else output.rgb.to(asked)
        return Prediction(torch.sigmoid(output.water_logits).to(asked), rgb)

    return predict
