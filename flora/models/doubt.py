"""A head that says where a finished network is likely to be wrong."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.errors import FloraError
from flora.models.attention import zero_
from flora.models.checkpoints import load_weights, read_metadata
from flora.models.network import Flora, FloraOutput
from flora.predictors import Prediction, Predictor
from flora.sensors import OpticalStack

# Below this logit a network is undecided: its own probability of an error is one half.
UNDECIDED = 1e-3


class ErrorHead(nn.Module):
    """The probability that a water map is wrong at a pixel, in (0, 1/2).

    It reads the finest fused features and the water logit of a finished network that it cannot
    change, as Corbiere et al., Addressing failure prediction by learning model confidence, 2019. At
    the start it repeats what the network's own probability says; a map never changes, only how
    sure it is.

    Args:
        channels: Channels of the finest fused features.
        hidden: Channels between its two convolutions.

    Example:
        >>> import torch
        >>> from flora import Flora, named_config
        >>> from flora.models.doubt import ErrorHead
        >>> model = Flora(named_config("tiny")).eval()
        >>> output = model(torch.zeros(1, 2, 64, 64))
        >>> wrong = ErrorHead(16)(output).sigmoid() / 2
        >>> own = torch.sigmoid(-output.water_logits.abs())  # the same, before training
        >>> bool(torch.allclose(wrong, own, atol=1e-3))
        True
    """

    def __init__(self, channels: int, hidden: int = 16) -> None:
        super().__init__()
        self.config = {"channels": channels, "hidden": hidden}
        last = nn.Conv2d(hidden, 1, 1)
        zero_(last)
        self.layers = nn.Sequential(nn.Conv2d(channels + 2, hidden, 3, padding=1), nn.SiLU(), last)

    def forward(self, output: FloraOutput) -> Tensor:
        """Logit of twice the probability of an error, (B, 1, H, W)."""
        logits = output.water_logits
        height, width = logits.shape[-2:]
        fused = output.fused[0]
        stride = math.ceil(height / fused.shape[-2])
        fine = fused.repeat_interleave(stride, -2).repeat_interleave(stride, -1)
        seen = torch.cat([fine[..., :height, :width], logits, logits.abs()], dim=1)
        # sigmoid(-|l|) is half the sigmoid of this.
        sure = logits.abs().clamp_min(UNDECIDED)
        own = math.log(2.0) - sure - torch.log(-torch.expm1(-sure))
        corrected: Tensor = own + self.layers(seen)
        return corrected


def doubting(model: Flora, head: ErrorHead) -> Predictor:
    """A predictor whose probabilities are as sure as the head says; the map at 0.5 is the same.

    Args:
        model: The network.
        head: Trained on it by `flora.training.doubting.DoubtTask`.

    Example:
        >>> import torch
        >>> from flora import load_model
        >>> from flora.models.doubt import ErrorHead, doubting
        >>> predict = doubting(load_model(), ErrorHead(16))
        >>> sar, valid = torch.zeros(1, 2, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool)
        >>> predict(sar, valid, None).water.shape
        torch.Size([1, 1, 64, 64])
    """
    model, head = model.eval(), head.eval()

    @torch.inference_mode()
    def predict(sar: Tensor, _: Tensor, guide: OpticalStack | None, /) -> Prediction:
        seen = None if guide is None else model.guide(guide.image, guide.index, guide.valid)
        output = model(sar, seen)
        wrong = torch.sigmoid(head(output)) / 2
        return Prediction(torch.where(output.water_logits >= 0, 1 - wrong, wrong), output.rgb)

    return predict


def error_loss(doubt: Tensor, logits: Tensor, water: Tensor, scored: Tensor) -> Tensor:
    """Cross-entropy of the probability of an error against whether there is one.

    Args:
        doubt: (B, 1, H, W) from `ErrorHead`.
        logits: (B, 1, H, W) of the map.
        water: (B, H, W), 1 for water.
        scored: (B, H, W) bool, where there is a label.

    Raises:
        FloraError: If nothing is scored.
    """
    if not bool(scored.any()):
        raise FloraError("expected a label somewhere", argument="scored", value="nothing")
    error = ((logits[:, 0] >= 0) != (water == 1)).float()
    # log(s / 2) and log(1 - s / 2) of s = sigmoid(doubt), without leaving float32's range.
    wrong = F.logsigmoid(doubt[:, 0]) - math.log(2.0)
    right = torch.log1p(-torch.exp(wrong))
    return -(error * wrong + (1 - error) * right)[scored].mean()


def load_error_head(path: Path) -> ErrorHead:
    """Rebuild a head from its weights file.

    Raises:
        FloraError: If it is no file of such a head.
    """
    metadata = read_metadata(path)
    if metadata.get("model") != "error head":
        raise FloraError(
            f"of a {metadata.get('model')}, expected those of an error head",
            argument="path",
            value=path,
        )
    head = ErrorHead(**metadata["config"])
    load_weights(head, path)
    return head.eval()
