"""What FLoRA is measured against."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from torch import Tensor, nn

from flora.datasets.base import Batch
from flora.errors import FloraError
from flora.models.layers import Norm, normalised_convolution
from flora.models.network import Mode, check_bands
from flora.models.otsu import check_dates, flood_thresholds, otsu_threshold
from flora.training.evaluation import Predict
from flora.training.losses import FloraLoss, LossWeights


class BaselineOutput(NamedTuple):
    """The output of a baseline, which has no pyramids; see `flora.training.losses.Output`."""

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
        norm: See `flora.models.layers.Norm`; "batch" as in most U-Nets, "layer" as in FLoRA.

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


def stack_inputs(batch: Batch, sees: Mode) -> Tensor:
    """What a baseline sees: SAR alone, or SAR and an optical stack (image, index, validity).

    Args:
        batch: The batch.
        sees: "sar"; "before", the image from before the flood; or "oracle", the very image that
            is to be reconstructed.

    Raises:
        FloraError: If the dataset has no image from before the flood and one is asked for.
    """
    if sees == "sar":
        return batch["sar"]
    if sees == "oracle":
        parts = (batch["optical"], batch["index"], batch["optical_valid"])
    elif "before" in batch:
        parts = (batch["before"], batch["before_index"], batch["before_valid"])
    else:
        raise FloraError(
            'sees "before": this dataset has no optical image from before the flood; choose "sar", '
            "or a dataset that has one (ombria, simulated)"
        )
    optical, index, valid = parts
    shown = torch.cat([optical, index], dim=1) * valid.unsqueeze(1)
    return torch.cat([batch["sar"], shown, valid.unsqueeze(1).to(shown.dtype)], dim=1)


def double_convolution(in_channels: int, out_channels: int, norm: Norm) -> nn.Sequential:
    """Two 3 x 3 convolutions with normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [*normalised_convolution(channels, out_channels, norm), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def unet_predictor(model: UNet | LateFusion) -> Predict:
    """A predictor that runs a baseline on what it sees, see `stack_inputs`."""

    def predict(batch: Batch) -> tuple[Tensor | None, Tensor]:
        output: BaselineOutput = model(stack_inputs(batch, model.sees))
        return output.rgb, torch.sigmoid(output.water_logits)

    return predict


def otsu_predictor(band: int, median: int = 1) -> Predict:
    """A predictor that calls water what is darker than the chip's own Otsu threshold.

    Args:
        band: Channel of the SAR image.
        median: Side of a median filter that is run before, in pixels; 1 for none.

    Example:
        >>> from flora import evaluate, open_dataset
        >>> from flora.models.unet import otsu_predictor
        >>> chips = open_dataset("simulated", None, "test", count=1, size=64)
        >>> scores = evaluate(otsu_predictor(band=1, median=9), chips)["all"]
        >>> "water_iou" in scores, "psnr" in scores
        (True, False)
    """

    def predict(batch: Batch) -> tuple[None, Tensor]:
        water = torch.zeros_like(batch["sar"][:, :1])
        for chip, image in enumerate(batch["sar"][:, band].cpu().numpy()):
            smooth = median_filter(image, median)
            threshold = otsu_threshold(smooth[batch["sar_valid"][chip].cpu().numpy()])
            water[chip, 0] = torch.from_numpy(smooth < threshold)
        return None, water

    return predict


def otsu_change_predictor(median: int = 1) -> Predict:
    """A predictor that calls flood what is dark, and darker than before: see `flood_thresholds`.

    The SAR image holds one band before the flood and the same after it.

    Args:
        median: Side of a median filter that is run on both before, in pixels; 1 for none.

    Raises:
        FloraError: When asked, if the SAR image has not two bands.

    Example:
        >>> import torch
        >>> from flora.models.unet import otsu_change_predictor
        >>> dates = torch.tensor([[-8.0, -8.0, -20.0, -9.0], [-19.0, -8.0, -20.0, -8.0]])
        >>> batch = {"sar": dates[None, :, None], "sar_valid": torch.full((1, 1, 4), True)}
        >>> otsu_change_predictor()(batch)[1].flatten().tolist()
        [1.0, 0.0, 0.0, 0.0]
    """

    def predict(batch: Batch) -> tuple[None, Tensor]:
        check_dates(batch["sar"].shape[1])
        water = torch.zeros_like(batch["sar"][:, :1])
        for chip, dates in enumerate(batch["sar"].cpu().numpy()):
            before, after = (median_filter(image, median) for image in dates)
            seen = batch["sar_valid"][chip].cpu().numpy()
            dark, darker = flood_thresholds(before, after, seen)
            water[chip, 0] = torch.from_numpy((after < dark) & (after - before < darker))
        return None, water

    return predict


class UNetTask(nn.Module):
    """Train a U-Net with those of FLoRA's losses that need no teacher.

    Args:
        model: The U-Net.
        loss: Weights of the loss terms; without an optical head, only those of water count.
    """

    def __init__(self, model: UNet | LateFusion, loss: LossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.loss = FloraLoss(loss)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `flora.training.fit.Task`."""
        output = self.model(stack_inputs(batch, self.model.sees))
        total, terms = self.loss(output, batch, teacher=None)
        return total, terms

    @property
    def weights(self) -> nn.Module:
        """See `flora.training.fit.Task`."""
        return self.model

    def predictor(self) -> Predict:
        """See `flora.training.fit.Task`."""
        return unet_predictor(self.model)

    def describe(self) -> dict[str, Any]:
        """See `flora.training.fit.Task`."""
        return {
            "model": "unet" if isinstance(self.model, UNet) else "late fusion",
            "config": self.model.config,
            "loss": asdict(self.loss.weights),
        }
