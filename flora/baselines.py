"""What FLoRA is measured against."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.evaluation import Predict
from flora.losses import FloraLoss, LossWeights
from flora.model import check_bands
from flora.sensors import FloatArray


class WaterOutput(NamedTuple):
    """The output of a model that maps water only; see `flora.losses.Output`."""

    water_logits: Tensor
    rgb: None = None
    fused: None = None
    prior: None = None


class UNet(nn.Module):
    """A plain U-Net from SAR to water, with batch normalisation and max-pooling.

    Ronneberger et al., U-Net, MICCAI 2015; padded convolutions, bilinear upsampling. The default
    widths give 0.49 M parameters.

    Args:
        sar_channels: SAR bands.
        widths: Channels of each level, the finest (stride 1) first.
    """

    def __init__(self, sar_channels: int, widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.sar_channels = sar_channels
        self.widths = tuple(widths)
        self.down = nn.ModuleList(
            double_convolution(a, b) for a, b in itertools.pairwise([sar_channels, *widths])
        )
        self.up = nn.ModuleList(
            double_convolution(coarse + fine, fine) for fine, coarse in itertools.pairwise(widths)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, sar: Tensor) -> Tensor:
        """Water logits (B, 1, H, W) of normalised SAR (B, C_s, H, W).

        Raises:
            FloraError: If the SAR image has another number of bands than the model.
        """
        check_bands(sar, self.sar_channels)
        height, width = sar.shape[-2:]
        stride = 2 ** (len(self.down) - 1)
        x = F.pad(sar, (0, -width % stride, 0, -height % stride), mode="replicate")
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = block(torch.cat([x, skip], dim=1))
        return self.head(x)[..., :height, :width]  # type: ignore[no-any-return]


def double_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def unet_predictor(model: UNet) -> Predict:
    """A predictor that runs a U-Net; it reconstructs no optical image."""
    return lambda batch: (None, torch.sigmoid(model(batch["sar"])))


def otsu_threshold(values: FloatArray, bins: int = 256) -> float:
    """The threshold that maximises the variance between the values below and above it.

    Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9(1), 1979.

    Args:
        values: Any number of finite values.
        bins: Bins of the histogram between the smallest and the largest value.
    """
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    gap = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return float(edges[1:][np.argmax(below * above * gap**2)])


def otsu_predictor(band: int, median: int = 1) -> Predict:
    """A predictor that calls water what is darker than the chip's own Otsu threshold.

    Args:
        band: Channel of the SAR image.
        median: Side of a median filter that is run before, in pixels; 1 for none.
    """

    def predict(batch: Batch) -> tuple[None, Tensor]:
        water = torch.zeros_like(batch["sar"][:, :1])
        for chip, image in enumerate(batch["sar"][:, band].cpu().numpy()):
            smooth = median_filter(image, median)
            threshold = otsu_threshold(smooth[batch["sar_valid"][chip].cpu().numpy()])
            water[chip, 0] = torch.from_numpy(smooth < threshold)
        return None, water

    return predict


class UNetTask(nn.Module):
    """Train a U-Net on the water mask alone, with FLoRA's water losses.

    Args:
        model: The U-Net.
        loss: Weights of the loss terms; only those of water play a part.
    """

    def __init__(self, model: UNet, loss: LossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.loss = FloraLoss(loss)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `flora.training.Task`."""
        output = WaterOutput(self.model(batch["sar"]))
        total, terms = self.loss(output, batch, teacher=None)
        return total, terms

    @property
    def weights(self) -> nn.Module:
        """See `flora.training.Task`."""
        return self.model

    def predictor(self) -> Predict:
        """See `flora.training.Task`."""
        return unet_predictor(self.model)

    def describe(self) -> dict[str, Any]:
        """See `flora.training.Task`."""
        return {
            "model": "unet",
            "config": {"sar_channels": self.model.sar_channels, "widths": self.model.widths},
            "loss": asdict(self.loss.weights),
        }
