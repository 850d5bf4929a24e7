"""Normalisations: what keeps the scale of features, and the convolutions before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flora.errors import FloraError

GROUPS = 8

Norm = Literal["layer", "batch", "weight", "group"]
"""What keeps the scale of features. All but "group" are local at inference, where a pixel's value
does not depend on what else is in view.

- "layer": each pixel over its channels (Ba et al., Layer Normalization, 2016; per pixel as in Liu
  et al., ConvNeXt, CVPR 2022).
- "batch": each channel over the training batches, a constant at inference (Ioffe and Szegedy,
  2015).
- "weight": the convolution's weights in place of the features (Qiao et al., Weight Standardization,
  2019), then a gain and an offset a channel.
- "group": groups of channels over the whole image (Wu and He, ECCV 2018): not local.
"""
NORMS: tuple[Norm, ...] = get_args(Norm)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel: sets the scale of a feature map."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over C."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelScale(nn.Module):
    """A gain and an offset for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale (B, C, H, W)."""
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])


class StandardisedConv(nn.Conv2d):
    """A convolution whose weights have mean 0 and, summed over their inputs, variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        length = centred.square().sum(dim=(1, 2, 3), keepdim=True)
        weight = centred * torch.rsqrt(length + 1e-8)
        return self._conv_forward(x, weight, self.bias)  # type: ignore[no-any-return]


def normalised_convolution(
    in_channels: int, out_channels: int, norm: Norm, stride: int = 1
) -> list[nn.Module]:
    """A 3 x 3 convolution and its normalisation, as layers of a sequence.

    Raises:
        FloraError: If the normalisation is unknown.
    """
    if norm not in NORMS:
        raise FloraError(f"expected one of {', '.join(NORMS)}", argument="norm", value=repr(norm))
    kind = StandardisedConv if norm == "weight" else nn.Conv2d
    convolution = kind(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    layers: dict[Norm, Callable[[], nn.Module]] = {
        "layer": lambda: ChannelNorm(out_channels),
        "batch": lambda: nn.BatchNorm2d(out_channels),
        "weight": lambda: ChannelScale(out_channels),
        "group": lambda: nn.GroupNorm(GROUPS, out_channels),
    }
    return [convolution, layers[norm]()]
