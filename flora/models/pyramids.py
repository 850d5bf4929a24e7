"""The parts of FLoRA that make pyramids of features, and an image of a pyramid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.models.layers import ConvBlock
from flora.models.norms import ChannelNorm, Norm


class FullResolution(nn.Sequential):
    """A convolution at the image's own resolution, without a normalisation.

    What the pyramid's first stride and its normalisations make hard to pass on goes through here:
    edges of one pixel, and how bright the image is.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the level.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, channels, 3, padding=1), nn.SiLU())


class OpticalTeacher(nn.Module):
    """A light pyramid of the optical image and its index: one convolution a level.

    Args:
        in_channels: Optical bands plus indices.
        widths: Channels of each level.
        stem_stride: Stride of the finest level.
        norm: See `flora.models.norms.Norm`.
        detail: Channels of a level at full resolution before it, see `FullResolution`.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        stem_stride: int,
        norm: Norm,
        detail: int = 0,
    ) -> None:
        super().__init__()
        self.detail = FullResolution(in_channels, detail) if detail else None
        self.levels = nn.ModuleList(
            pyramid_levels(in_channels, widths, stem_stride, depth=1, norm=norm)
        )
        self.norms = nn.ModuleList(ChannelNorm(w, elementwise_affine=False) for w in widths)

    def forward(self, optical: Tensor, index: Tensor, valid: Tensor) -> list[Tensor]:
        """Features of (B, C_o, H, W) in [0, 1] and index (B, 1, H, W), unseen where not valid."""
        x = torch.cat([optical, index], dim=1) * valid.unsqueeze(1)
        finest = [] if self.detail is None else [self.detail(x)]
        pyramid = zip(self.norms, run_pyramid(self.levels, x), strict=True)
        return finest + [norm(t) for norm, t in pyramid]


class SarEncoder(nn.Module):
    """The student pyramid s_l of the SAR image.

    Args:
        in_channels: SAR bands.
        widths: Channels of each level.
        stem_stride: Stride of the finest level.
        depth: Convolutions a level.
        norm: See `flora.models.norms.Norm`.
        detail: Channels of a level at full resolution before it, see `FullResolution`.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        stem_stride: int,
        depth: int,
        norm: Norm,
        detail: int = 0,
    ) -> None:
        super().__init__()
        self.detail = FullResolution(in_channels, detail) if detail else None
        self.levels = nn.ModuleList(pyramid_levels(in_channels, widths, stem_stride, depth, norm))

    def forward(self, sar: Tensor) -> list[Tensor]:
        """Features of the normalised SAR image (B, C_s, H, W)."""
        finest = [] if self.detail is None else [self.detail(sar)]
        return finest + run_pyramid(self.levels, sar)


class PriorEstimator(nn.Module):
    """The student's guess p_l of the teacher's features, from the SAR features alone.

    It works from coarse to fine: what a place is (a field, a river) is easier to tell from its
    surroundings than from its speckle.

    Args:
        widths: Channels of each level, of both s_l and p_l.
        norm: See `flora.models.norms.Norm`.
        stem_stride: Stride of the finest level.
        detail: Channels of a level at full resolution before it, see `FullResolution`.
    """

    def __init__(
        self, widths: Sequence[int], norm: Norm, stem_stride: int = 2, detail: int = 0
    ) -> None:
        super().__init__()
        self.detail: nn.Module | None = None
        if detail:
            self.finer = Finer(widths[0], detail, stem_stride)
            self.detail = FullResolution(2 * detail, detail)
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.levels = nn.ModuleList(ConvBlock(w, w, depth=1, norm=norm) for w in widths)
        self.heads = nn.ModuleList(nn.Conv2d(w, w, 1) for w in widths)
        self.norms = nn.ModuleList(ChannelNorm(w, elementwise_affine=False) for w in widths)

    def forward(self, student: list[Tensor]) -> list[Tensor]:
        """Estimate the teacher's pyramid from the student's, each (B, C_l, H_l, W_l)."""
        finest = [] if self.detail is None else student[:1]
        student = student[len(finest) :]
        x, prior = None, []
        for level in reversed(range(len(self.levels))):
            x = self.step(level, student[level], x)
            prior.append(self.estimate(level, x))
        if self.detail is not None:
            prior.append(self.detail(torch.cat([*finest, self.finer(x)], dim=1)))
        return prior[::-1]

    def step(self, level: int, student: Tensor, below: Tensor | None) -> Tensor:
        """From the features of the level below, None at the coarsest, to those of a level."""
        if below is not None:
            student = student + upsample(self.lateral[level](below))
        features: Tensor = self.levels[level](student)
        return features

    def estimate(self, level: int, features: Tensor) -> Tensor:
        """The estimate p_l (B, C_l, H_l, W_l) that a level's features give."""
        estimate: Tensor = self.norms[level](self.heads[level](features))
        return estimate


class Finer(nn.Sequential):
    """A convolution and a pixel shuffle: from features of a stride to full resolution.

    Args:
        in_channels: Channels of the features.
        channels: Channels at full resolution.
        stride: Stride of the features.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels * stride**2, 3, padding=1), nn.PixelShuffle(stride)
        )


class PyramidDecoder(nn.Module):
    """From a pyramid to an image: upsample, join the finer level, convolve.

    Args:
        widths: Channels of each level.
        out_channels: Channels of the image.
        stem_stride: Stride of the finest level, undone by a pixel shuffle.
        depth: Convolutions a level.
        norm: See `flora.models.norms.Norm`.
        detail: Channels of a level at full resolution before it, see `FullResolution`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        out_channels: int,
        stem_stride: int,
        depth: int,
        norm: Norm,
        detail: int = 0,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.levels = nn.ModuleList(
            ConvBlock(2 * w, w, depth=depth, norm=norm) for w in widths[:-1]
        )
        self.head = Finer(widths[0], detail or out_channels, stem_stride)
        self.detail: nn.Module | None = None
        if detail:
            self.detail = nn.Sequential(
                FullResolution(2 * detail, detail), nn.Conv2d(detail, out_channels, 1)
            )

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Decode a pyramid to (B, out_channels, H, W)."""
        finest = [] if self.detail is None else pyramid[:1]
        pyramid = pyramid[len(finest) :]
        x = None
        for level in reversed(range(len(pyramid))):
            x = self.step(level, pyramid[level], x)
        image: Tensor = self.head(x)
        if self.detail is not None:
            image = self.detail(torch.cat([*finest, image], dim=1))
        return image

    def step(self, level: int, fused: Tensor, below: Tensor | None) -> Tensor:
        """Join a level of the pyramid to the features of the level below, if there is one."""
        if below is None:
            return fused
        joined = torch.cat([upsample(self.lateral[level](below)), fused], dim=1)
        features: Tensor = self.levels[level](joined)
        return features


def pyramid_levels(
    in_channels: int, widths: Sequence[int], stem_stride: int, depth: int, norm: Norm
) -> list[ConvBlock]:
    """One block a level; the first strides by `stem_stride`, each next one by 2."""
    strides = [stem_stride] + [2] * (len(widths) - 1)
    channels = [in_channels, *widths[:-1]]
    return [
        ConvBlock(c, w, stride, depth, norm)
        for c, w, stride in zip(channels, widths, strides, strict=True)
    ]


def run_pyramid(levels: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """The outputs of all levels, the finest first."""
    pyramid = []
    for level in levels:
        x = level(x)
        pyramid.append(x)
    return pyramid


def upsample(x: Tensor) -> Tensor:
    """Double the sides of (B, C, H, W) by repeating pixels."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
