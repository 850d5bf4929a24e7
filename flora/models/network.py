"""FLoRA: SAR features guided by an optical teacher, or by an estimate of it, and two decoders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.datasets.base import Batch, optical_stack
from flora.errors import FloraError
from flora.models.config import FloraConfig
from flora.models.layers import ChannelNorm, ConvBlock, FusionBlock, Norm
from flora.predictors import Mode


class Guide(NamedTuple):
    """What the teacher saw in an optical image, and where there was something to see.

    Attributes:
        features: Teacher pyramid, each (B, C_l, H_l, W_l).
        valid: Per level (B, 1, H_l, W_l) bool: the teacher's feature is used there, elsewhere the
            estimate from SAR.
    """

    features: list[Tensor]
    valid: list[Tensor]

    def only(self, samples: Tensor) -> Guide:
        """The guide for the samples marked in (B,) bool; the others are guided by SAR alone."""
        keep = samples.view(-1, 1, 1, 1)
        return Guide(self.features, [valid & keep for valid in self.valid])

    def otherwise(self, other: Guide, samples: Tensor) -> Guide:
        """This guide for the samples marked in (B,) bool, `other` for the rest."""
        keep = samples.view(-1, 1, 1, 1)
        return Guide(
            [torch.where(keep, a, b) for a, b in zip(self.features, other.features, strict=True)],
            [torch.where(keep, a, b) for a, b in zip(self.valid, other.valid, strict=True)],
        )


class FloraOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
        rgb: Reconstructed optical image (B, C_o, H, W) in (0, 1).
        water_logits: (B, 1, H, W); the sigmoid is the probability of water.
        fused: Fusion latent pyramid f_l, each (B, C_l, H_l, W_l).
        prior: The guidance estimated from SAR alone p_l, same shapes.

    Example:
        >>> import torch
        >>> from flora import Flora, named_config
        >>> output = Flora(named_config("tiny"))(torch.zeros(1, 2, 64, 64))
        >>> [tuple(level.shape) for level in output.fused]
        [(1, 16, 32, 32), (1, 24, 16, 16), (1, 40, 8, 8), (1, 64, 4, 4)]
    """

    rgb: Tensor
    water_logits: Tensor
    fused: list[Tensor]
    prior: list[Tensor]


class OpticalTeacher(nn.Module):
    """A light pyramid of the optical image and its index: one convolution a level.

    Args:
        in_channels: Optical bands plus indices.
        widths: Channels of each level.
        stem_stride: Stride of the finest level.
        norm: See `flora.models.layers.Norm`.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], stem_stride: int, norm: Norm
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            pyramid_levels(in_channels, widths, stem_stride, depth=1, norm=norm)
        )
        self.norms = nn.ModuleList(ChannelNorm(w, elementwise_affine=False) for w in widths)

    def forward(self, optical: Tensor, index: Tensor, valid: Tensor) -> list[Tensor]:
        """Features of (B, C_o, H, W) in [0, 1] and index (B, 1, H, W), unseen where not valid."""
        x = torch.cat([optical, index], dim=1) * valid.unsqueeze(1)
        return [norm(t) for norm, t in zip(self.norms, run_pyramid(self.levels, x), strict=True)]


class SarEncoder(nn.Module):
    """The student pyramid s_l of the SAR image.

    Args:
        in_channels: SAR bands.
        widths: Channels of each level.
        stem_stride: Stride of the finest level.
        depth: Convolutions a level.
        norm: See `flora.models.layers.Norm`.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], stem_stride: int, depth: int, norm: Norm
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(pyramid_levels(in_channels, widths, stem_stride, depth, norm))

    def forward(self, sar: Tensor) -> list[Tensor]:
        """Features of the normalised SAR image (B, C_s, H, W)."""
        return run_pyramid(self.levels, sar)


class PriorEstimator(nn.Module):
    """The student's guess p_l of the teacher's features, from the SAR features alone.

    It works from coarse to fine: what a place is (a field, a river) is easier to tell from its
    surroundings than from its speckle.

    Args:
        widths: Channels of each level, of both s_l and p_l.
        norm: See `flora.models.layers.Norm`.
    """

    def __init__(self, widths: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.levels = nn.ModuleList(ConvBlock(w, w, depth=1, norm=norm) for w in widths)
        self.heads = nn.ModuleList(nn.Conv2d(w, w, 1) for w in widths)
        self.norms = nn.ModuleList(ChannelNorm(w, elementwise_affine=False) for w in widths)

    def forward(self, student: list[Tensor]) -> list[Tensor]:
        """Estimate the teacher's pyramid from the student's, each (B, C_l, H_l, W_l)."""
        x = self.levels[-1](student[-1])
        prior = [self.norms[-1](self.heads[-1](x))]
        for level in reversed(range(len(self.lateral))):
            x = student[level] + upsample(self.lateral[level](x))
            x = self.levels[level](x)
            prior.append(self.norms[level](self.heads[level](x)))
        return prior[::-1]


class PyramidDecoder(nn.Module):
    """From a pyramid to an image: upsample, join the finer level, convolve.

    Args:
        widths: Channels of each level.
        out_channels: Channels of the image.
        stem_stride: Stride of the finest level, undone by a pixel shuffle.
        depth: Convolutions a level.
        norm: See `flora.models.layers.Norm`.
    """

    def __init__(
        self, widths: Sequence[int], out_channels: int, stem_stride: int, depth: int, norm: Norm
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.levels = nn.ModuleList(
            ConvBlock(2 * w, w, depth=depth, norm=norm) for w in widths[:-1]
        )
        self.head = nn.Sequential(
            nn.Conv2d(widths[0], out_channels * stem_stride**2, 3, padding=1),
            nn.PixelShuffle(stem_stride),
        )

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Decode a pyramid to (B, out_channels, H, W)."""
        x = pyramid[-1]
        for level in reversed(range(len(self.levels))):
            x = torch.cat([upsample(self.lateral[level](x)), pyramid[level]], dim=1)
            x = self.levels[level](x)
        return self.head(x)  # type: ignore[no-any-return]


class Flora(nn.Module):
    """The paper's network.

    Where the optical image comes from at test time is the guide's matter: no guide (mode `sar`),
    one from before the flood (mode `before`), or the very image to reconstruct (mode `oracle`).

    Args:
        config: The model's shape.

    Example:
        >>> import torch
        >>> from flora import Flora, named_config
        >>> model = Flora(named_config("tiny")).eval()
        >>> sar = torch.zeros(1, 2, 64, 64)
        >>> output = model(sar)  # mode sar
        >>> output.rgb.shape, output.water_logits.shape
        (torch.Size([1, 3, 64, 64]), torch.Size([1, 1, 64, 64]))
        >>> before, ndvi = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
        >>> guide = model.guide(before, ndvi, torch.ones(1, 64, 64, dtype=torch.bool))
        >>> output = model(sar, guide)  # mode before
    """

    def __init__(self, config: FloraConfig) -> None:
        super().__init__()
        self.config = config
        widths, stem, norm = config.widths, config.stem_stride, config.norm
        seen = config.optical_channels + config.index_channels
        self.teacher = OpticalTeacher(seen, widths, stem, norm)
        self.sar_encoder = SarEncoder(config.sar_channels, widths, stem, config.encoder_depth, norm)
        self.prior = PriorEstimator(widths, norm)
        self.fusion = nn.ModuleList(
            FusionBlock(
                width,
                width,
                config.heads,
                config.window_sizes if level in config.attention_levels else (),
                config.attention_depth,
                config.film,
                config.gated,
            )
            for level, width in enumerate(widths)
        )
        self.optical_decoder = PyramidDecoder(
            widths, config.optical_channels, stem, config.decoder_depth, norm
        )
        self.water_decoder = PyramidDecoder(widths, 1, stem, config.decoder_depth, norm)

    def guide(self, optical: Tensor, index: Tensor, valid: Tensor) -> Guide:
        """Look at an optical image with the teacher.

        Args:
            optical: (B, C_o, H, W) in [0, 1].
            index: (B, 1, H, W) in [-1, 1].
            valid: (B, H, W) bool, false in cloud and nodata.

        Raises:
            FloraError: If the bands are not those of the model.
        """
        expected = (self.config.optical_channels, self.config.index_channels)
        if (optical.shape[1], index.shape[1]) != expected:
            raise FloraError(
                f"optical of shape {tuple(optical.shape)} and index of shape {tuple(index.shape)}: "
                f"this model's teacher sees {expected[0]} optical bands and {expected[1]} index"
            )
        optical, index = self._pad(optical), self._pad(index)
        unseen = 1 - self._pad(valid.unsqueeze(1).to(optical.dtype))
        features = self.teacher(optical, index, unseen.squeeze(1) == 0)
        return Guide(
            features,
            [F.adaptive_max_pool2d(unseen, t.shape[-2:]) == 0 for t in features],
        )

    def forward(self, sar: Tensor, guide: Guide | None = None) -> FloraOutput:
        """Reconstruct the optical image and segment water.

        Args:
            sar: Normalised SAR (B, C_s, H, W); any size, padded inside to the coarsest stride.
            guide: Optical guidance from `guide`, or None for SAR alone.

        Raises:
            FloraError: If the SAR image has another number of bands than the model, or the guide
                is of another size.
        """
        check_bands(sar, self.config.sar_channels)
        height, width = sar.shape[-2:]
        self._check_guide(sar, guide)
        student = self.sar_encoder(self._pad(sar))
        prior = self.prior(student)
        guidance = prior
        if guide is not None:
            guidance = [
                torch.where(valid, t, p)
                for valid, t, p in zip(guide.valid, guide.features, prior, strict=True)
            ]
        fused = [block(s, g) for block, s, g in zip(self.fusion, student, guidance, strict=True)]
        rgb, water_logits = self.decode(fused, height, width)
        return FloraOutput(rgb, water_logits, fused, prior)

    def guide_from(self, batch: Batch, mode: Mode) -> Guide | None:
        """The guide of a mode: none for `sar`, else the teacher on one of the batch's images.

        Raises:
            FloraError: If the mode is unknown, or is `before` and the dataset has no such image.
        """
        seen = optical_stack(batch, mode)
        return None if seen is None else self.guide(seen.image, seen.index, seen.valid)

    def decode(self, pyramid: list[Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
        """Optical image (B, C_o, height, width) in (0, 1) and water logits of a pyramid."""
        # In float32 under autocast too: the losses and scores that follow are.
        rgb = torch.sigmoid(self.optical_decoder(pyramid).float())
        if self.config.detach_water:
            pyramid = [level.detach() for level in pyramid]
        water_logits = self.water_decoder(pyramid).float()
        return rgb[..., :height, :width], water_logits[..., :height, :width]

    def _check_guide(self, sar: Tensor, guide: Guide | None) -> None:
        if guide is None:
            return
        sides = [-(-side // self.config.stride) for side in sar.shape[-2:]]
        seen = guide.features[-1]
        if [seen.shape[0], *seen.shape[-2:]] != [sar.shape[0], *sides]:
            raise FloraError(
                f"guide of another image than sar of shape {tuple(sar.shape)}: make it from an "
                "optical image on the same pixels"
            )

    def _pad(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        stride = self.config.stride
        return F.pad(image, (0, -width % stride, 0, -height % stride), mode="replicate")


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


def check_bands(sar: Tensor, expected: int) -> None:
    """Refuse a SAR image with another number of bands than the model was made for.

    Raises:
        FloraError: If it is not (B, expected, H, W).
    """
    if sar.ndim != 4 or sar.shape[1] != expected:
        raise FloraError(
            f"sar of shape {tuple(sar.shape)}: expected (batch, {expected}, rows, columns); "
            "stack the polarisations the model was trained with, in their order"
        )


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, trained or frozen."""
    return sum(parameter.numel() for parameter in module.parameters())
