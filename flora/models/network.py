"""FLoRA: SAR features guided by an optical teacher, or by an estimate of it, and two decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.datasets.base import Batch, optical_stack
from flora.errors import FloraError
from flora.models.config import FloraConfig
from flora.models.layers import FusionBlock
from flora.models.pyramids import OpticalTeacher, PriorEstimator, PyramidDecoder, SarEncoder
from flora.predictors import Mode
from flora.sensors import OpticalStack


class Guide(NamedTuple):
    """What the teacher saw in an optical image, and where there was something to see.

    Attributes:
        features: Teacher pyramid, each (B, C_l, H_l, W_l).
        valid: Per level (B, 1, H_l, W_l) bool: the teacher's feature is used there, elsewhere the
            estimate from SAR.
        of_flood: (B,) bool: whether the image shows the flood, or the ground before it.
    """

    features: list[Tensor]
    valid: list[Tensor]
    of_flood: Tensor

    def only(self, samples: Tensor) -> Guide:
        """The guide for the samples marked in (B,) bool; the others are guided by SAR alone."""
        keep = samples.view(-1, 1, 1, 1)
        return self._replace(valid=[valid & keep for valid in self.valid])

    def otherwise(self, other: Guide, samples: Tensor) -> Guide:
        """This guide for the samples marked in (B,) bool, `other` for the rest."""
        keep = samples.view(-1, 1, 1, 1)
        return Guide(
            [torch.where(keep, a, b) for a, b in zip(self.features, other.features, strict=True)],
            [torch.where(keep, a, b) for a, b in zip(self.valid, other.valid, strict=True)],
            torch.where(samples, self.of_flood, other.of_flood),
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


class Flora(nn.Module):
    """The paper's network.

    Where the optical image comes from at test time is the guide's matter: no guide (mode `sar`),
    one from before the flood (mode `before`), or the very image to reconstruct (mode `oracle`).

    Args:
        config: The model's shape.

    Attributes:
        config: The same.
        thresholds: Probability from which a pixel is water, by mode, where its weights bring one;
            training empties it.
        trained_on: What its weights were trained on, in words; "" if unknown, and after training.

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
        self.thresholds: dict[Mode, float] = {}
        self.trained_on = ""
        widths, stem, norm = config.widths, config.stem_stride, config.norm
        detail = config.detail
        seen = config.optical_channels + config.index_channels
        self.teacher = OpticalTeacher(seen, widths, stem, norm, detail)
        self.sar_encoder = SarEncoder(
            config.sar_channels, widths, stem, config.encoder_depth, norm, detail
        )
        self.prior = PriorEstimator(widths, norm, stem, detail)
        attended: list[Sequence[int]] = [
            config.window_sizes if level in config.attention_levels else ()
            for level in range(len(widths))
        ]
        finest: list[tuple[int, Sequence[int]]] = [(detail, ())] if detail else []
        self.fusion = nn.ModuleList(
            FusionBlock(
                width,
                width,
                config.heads,
                windows,
                config.attention_depth,
                config.film,
                config.gated,
                config.joining,
            )
            for width, windows in [*finest, *zip(widths, attended, strict=True)]
        )
        self.marks: nn.ParameterList | None = None
        if config.marked:
            channels = [detail, *widths] if detail else widths
            self.marks = nn.ParameterList(nn.Parameter(torch.zeros(2, c)) for c in channels)
        self.optical_decoder = PyramidDecoder(
            widths, config.optical_channels, stem, config.decoder_depth, norm, detail
        )
        self.water_decoder = PyramidDecoder(widths, 1, stem, config.decoder_depth, norm, detail)

    def guide(self, optical: Tensor, index: Tensor, valid: Tensor, of_flood: bool = False) -> Guide:
        """Look at an optical image with the teacher.

        Args:
            optical: (B, C_o, H, W) in [0, 1].
            index: (B, 1, H, W) in [-1, 1].
            valid: (B, H, W) bool, false in cloud and nodata.
            of_flood: Whether the image shows the flood, or the ground before it.

        Raises:
            FloraError: If the bands are not those of the model.
        """
        expected = (self.config.optical_channels, self.config.index_channels)
        if (optical.shape[1], index.shape[1]) != expected:
            raise FloraError(
                f"optical of shape {tuple(optical.shape)} and index of shape {tuple(index.shape)}: "
                f"this model's teacher sees {expected[0]} optical bands and {expected[1]} index"
            )
        optical, index = self.pad(optical), self.pad(index)
        unseen = 1 - self.pad(valid.unsqueeze(1).to(optical.dtype))
        features = self.teacher(optical, index, unseen.squeeze(1) == 0)
        return Guide(
            features,
            [F.adaptive_max_pool2d(unseen, t.shape[-2:]) == 0 for t in features],
            torch.full(optical.shape[:1], of_flood, device=optical.device),
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
        self.check_guide(sar, guide)
        student = self.sar_encoder(self.pad(sar))
        prior = self.prior(student)
        guidance = [self.guidance(level, p, guide) for level, p in enumerate(prior)]
        fused = [block(s, g) for block, s, g in zip(self.fusion, student, guidance, strict=True)]
        rgb, water_logits = self.decode(fused, height, width)
        return FloraOutput(rgb, water_logits, fused, prior)

    def guide_from(self, batch: Batch, mode: Mode) -> Guide | None:
        """The guide of a mode: none for `sar`, else the teacher on one of the batch's images.

        Raises:
            FloraError: If the mode is unknown, or is `before` and the dataset has no such image.
        """
        seen = optical_stack(batch, mode)
        return None if seen is None else self.look(seen)

    def look(self, seen: OpticalStack) -> Guide:
        """The guide that an optical image gives, see `guide`."""
        return self.guide(seen.image, seen.index, seen.valid, seen.of_flood)

    def decode(self, pyramid: list[Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
        """Optical image (B, C_o, height, width) in (0, 1) and water logits of a pyramid."""
        # In float32 under autocast too: the losses and scores that follow are.
        rgb = torch.sigmoid(self.optical_decoder(pyramid).float())
        if self.config.detach_water:
            pyramid = [level.detach() for level in pyramid]
        water_logits = self.water_decoder(pyramid).float()
        return rgb[..., :height, :width], water_logits[..., :height, :width]

    def guidance(
        self,
        level: int,
        prior: Tensor,
        guide: Guide | None,
        window: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> Tensor:
        """g_l: the teacher's feature where it saw something, elsewhere the prior p_l.

        Args:
            level: Which level.
            prior: p_l (B, C_l, h, w), of the whole level or of a window of it.
            guide: The guide, or None for SAR alone.
            window: Rows and columns of that window.
        """
        if guide is None:
            return prior
        t, valid = (of[level][..., *window] for of in (guide.features, guide.valid))
        if self.marks is not None:
            t = t + self.marks[level][guide.of_flood.long(), :, None, None]
        return torch.where(valid, t, prior)

    def check_guide(self, sar: Tensor, guide: Guide | None) -> None:
        """Refuse the guide of another image.

        Raises:
            FloraError: If it has not as many pixels as sar (B, C_s, H, W).
        """
        if guide is None:
            return
        sides = [-(-side // self.config.stride) for side in sar.shape[-2:]]
        seen = guide.features[-1]
        if [seen.shape[0], *seen.shape[-2:]] != [sar.shape[0], *sides]:
            raise FloraError(
                f"guide of another image than sar of shape {tuple(sar.shape)}: make it from an "
                "optical image on the same pixels"
            )

    def pad(self, image: Tensor) -> Tensor:
        """Repeat the edge of (B, C, H, W) until both sides are multiples of the stride."""
        height, width = image.shape[-2:]
        stride = self.config.stride
        return F.pad(image, (0, -width % stride, 0, -height % stride), mode="replicate")


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
