"""What FLoRA is measured against."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.models.network import check_bands
from flora.models.norms import Norm, normalised_convolution
from flora.predictors import Mode
from flora.sensors import OpticalStack


class BaselineOutput(NamedTuple):
    """The output of a baseline, which has no pyramids; see `flora.training.objective.Output`."""

    water_logits: Tensor
    rgb: Tensor | None
    fused: None = None
    prior: None = None


class UNet(nn.Module):
    """A plain U-Net from SAR to water, with max-pooling.

    Ronneberger et al., U-Net, MICCAI 2015; padded convolutions, bilinear upsampling. The default
    widths give 0.49 M parameters. With optical channels it is a multitask U-Net, whose second head
    reconstructs the optical image.

    Args:
        sar_channels: SAR bands.
        widths: Channels of each level, the finest (stride 1) first.
        optical_channels: Bands of the reconstructed image; 0 for water alone.
        sees: What stands beside SAR in the input, see `stack_inputs`: early fusion, unless "sar".
            "before" and "oracle" need an optical image at test time too.
        guide_channels: Bands of the optical stack that it sees: image, index and validity.
        norm: See `flora.models.norms.Norm`; "batch" as in most U-Nets, "layer" as in FLoRA.

    Example:
        >>> import torch
        >>> from flora.models.unet import UNet
        >>> output = UNet(sar_channels=2, optical_channels=3)(torch.zeros(2, 2, 64, 64))
        >>> output.water_logits.shape, output.rgb.shape
        (torch.Size([2, 1, 64, 64]), torch.Size([2, 3, 64, 64]))
    """

    def __init__(
        self,
        sar_channels: int,
        widths: Sequence[int] = (16, 32, 64, 128),
        optical_channels: int = 0,
        sees: Mode = "sar",
        guide_channels: int = 0,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.config = {
            "sar_channels": sar_channels,
            "widths": tuple(widths),
            "optical_channels": optical_channels,
            "sees": sees,
            "guide_channels": guide_channels,
            "norm": norm,
        }
        self.sees = sees
        self.in_channels = sar_channels + guide_channels
        self.down = nn.ModuleList(
            double_convolution(a, b, norm)
            for a, b in itertools.pairwise([self.in_channels, *widths])
        )
        self.up = nn.ModuleList(
            double_convolution(coarse + fine, fine, norm)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.head = nn.Conv2d(widths[0], 1 + optical_channels, 1)

    def forward(self, image: Tensor) -> BaselineOutput:
        """Water logits (B, 1, H, W) and the optical image, if any, of what `stack_inputs` gives.

        Raises:
            FloraError: If the input has another number of bands than the model.
        """
        check_bands(image, self.in_channels)
        return split_heads(self.head(self.features(image)))

    def features(self, image: Tensor) -> Tensor:
        """What the heads read, (B, widths[0], H, W)."""
        height, width = image.shape[-2:]
        stride = 2 ** (len(self.down) - 1)
        x = F.pad(image, (0, -width % stride, 0, -height % stride), mode="replicate")
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = block(torch.cat([x, skip], dim=1))
        return x[..., :height, :width]


class LateFusion(nn.Module):
    """Two U-Nets, of SAR and of an optical image, whose features meet at the heads.

    Args:
        sar_channels: SAR bands.
        guide_channels: Bands of the optical stack: image, index and validity.
        optical_channels: Bands of the reconstructed image.
        sees: "before" or "oracle": it needs the optical image at test time.
        widths: Channels of each level of both.
    """

    def __init__(
        self,
        sar_channels: int,
        guide_channels: int,
        optical_channels: int,
        sees: Mode,
        widths: Sequence[int] = (16, 32, 64, 128),
    ) -> None:
        super().__init__()
        self.config = {
            "sar_channels": sar_channels,
            "guide_channels": guide_channels,
            "optical_channels": optical_channels,
            "sees": sees,
            "widths": tuple(widths),
        }
        self.sees = sees
        self.sar_channels = sar_channels
        self.sar_net = UNet(sar_channels, widths)
        self.guide_net = UNet(guide_channels, widths)
        del self.sar_net.head, self.guide_net.head
        self.head = nn.Conv2d(2 * widths[0], 1 + optical_channels, 1)

    def forward(self, image: Tensor) -> BaselineOutput:
        """Water and optical image of SAR and optical stack, (B, C_s + C_g, H, W)."""
        sar, guide = image[:, : self.sar_channels], image[:, self.sar_channels :]
        features = [self.sar_net.features(sar), self.guide_net.features(guide)]
        return split_heads(self.head(torch.cat(features, dim=1)))


def split_heads(output: Tensor) -> BaselineOutput:
    """Water logits and the optical image (None without channels) of (B, 1 + C_o, H, W)."""
    # In float32 under autocast too: the losses and scores that follow are.
    water, rgb = output[:, :1].float(), output[:, 1:].float()
    return BaselineOutput(water, torch.sigmoid(rgb) if rgb.shape[1] else None)


def stack_inputs(sar: Tensor, guide: OpticalStack | None) -> Tensor:
    """What a baseline sees: SAR alone, or SAR and an optical stack (image, index, validity)."""
    if guide is None:
        return sar
    valid = guide.valid.unsqueeze(1)
    shown = torch.cat([guide.image, guide.index], dim=1) * valid
    return torch.cat([sar, shown, valid.to(shown.dtype)], dim=1)


def double_convolution(in_channels: int, out_channels: int, norm: Norm) -> nn.Sequential:
    """Two 3 x 3 convolutions with normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [*normalised_convolution(channels, out_channels, norm), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
