"""The shape of a FLoRA model, and its named sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from flora.errors import FloraError
from flora.models.layers import JOININGS, Joining
from flora.models.norms import NORMS, Norm


@dataclass(frozen=True)
class FloraConfig:
    """The shape of a FLoRA model; an ablation is `dataclasses.replace` of one.

    Attributes:
        sar_channels: SAR bands (VV, VH), times the number of dates.
        optical_channels: Bands of the optical image that is reconstructed.
        index_channels: Spectral indices the teacher sees beside the image.
        widths: Channels of each level, the finest first.
        stem_stride: Stride of the finest level in pixels, 1 or 2; each next level doubles it.
        attention_levels: Levels (0 is the finest) whose fusion attends; the others project.
        window_sizes: Sides of the attention windows, in pixels of the level.
        heads: Attention heads of a level, shared out among the window sizes.
        attention_depth: Attention blocks of a level; every other one, from the second, is shifted.
        encoder_depth: Convolutions of a level of the SAR encoder.
        decoder_depth: Convolutions of a level of each decoder.
        film: Whether FiLM modulates what attention brings.
        gated: Whether a gate decides how much of it is added.
        detach_water: Whether the water decoder's loss stops at the fused features, as in the
            paper's released code; water then shapes no feature.
        joining: How a level of the fusion joins SAR and guidance, see
            `flora.models.layers.FusionBlock`.
        detail: Channels of a level at full resolution before the first, which neither normalises
            nor attends; 0 for none. Through it edges and brightness of the guide reach the image.
        marked: Whether the fusion is told where guidance is the teacher's, and whether the teacher
            looked at the flood or at the ground before it: a vector for each is learned and added.
        norm: What keeps the scale of features, see `flora.models.norms.Norm`; with any but
            "group" an answer depends on the pixels within `reach` alone.

    Example:
        >>> from dataclasses import replace
        >>> from flora import FloraConfig
        >>> FloraConfig().stride
        16
        >>> without_film = replace(FloraConfig(), film=False)
        >>> FloraConfig(stem_stride=3)
        Traceback (most recent call last):
            ...
        flora.errors.FloraError: stem_stride 3: expected 1 or 2
    """

    sar_channels: int = 2
    optical_channels: int = 3
    index_channels: int = 1
    widths: tuple[int, ...] = (32, 64, 96, 160)
    stem_stride: int = 2
    attention_levels: tuple[int, ...] = (1, 2)
    window_sizes: tuple[int, ...] = (4, 8)
    heads: int = 4
    attention_depth: int = 2
    encoder_depth: int = 2
    decoder_depth: int = 1
    film: bool = True
    gated: bool = True
    detach_water: bool = False
    norm: Norm = "layer"
    joining: Joining = "added"
    detail: int = 0
    marked: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < 8 or width % 8 for width in self.widths):
            raise FloraError(f"widths {self.widths}: expected two or more multiples of 8")
        if self.stem_stride not in (1, 2):
            raise FloraError(f"stem_stride {self.stem_stride}: expected 1 or 2")
        if not set(self.attention_levels) <= set(range(len(self.widths))):
            raise FloraError(
                f"attention_levels {self.attention_levels}: expected levels 0 (the finest) to "
                f"{len(self.widths) - 1}"
            )
        for name, known in (("norm", NORMS), ("joining", JOININGS)):
            if getattr(self, name) not in known:
                raise FloraError(
                    f"expected one of {', '.join(known)}",
                    argument=name,
                    value=repr(getattr(self, name)),
                )
        if self.detail < 0:
            raise FloraError("expected channels, or 0", argument="detail", value=self.detail)
        channels = (self.sar_channels, self.optical_channels, self.index_channels)
        depths = (self.attention_depth, self.encoder_depth, self.decoder_depth, self.heads)
        if min(*channels, *depths, *self.window_sizes, 1) < 1:
            raise FloraError(f"{self}: expected numbers of 1 or more")

    @property
    def stride(self) -> int:
        """Stride of the coarsest level; images are padded to a multiple of it."""
        return self.stem_stride << (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """How many pixels an answer looks to either side; no pixel beyond changes it.

        The sum of what convolutions, attention windows and upsampling add on the longest way
        through the network, an upper bound.
        """
        strides = [self.stem_stride << level for level in range(len(self.widths))]
        finer = [1, *strides[:-1]]
        encoder, student = 0, []
        for fine, stride in zip(finer, strides, strict=True):
            encoder += fine + (self.encoder_depth - 1) * stride
            student.append(encoder)
        prior = fused = 0
        for level in reversed(range(len(strides))):
            stride, last = strides[level], level == len(strides) - 1
            spread = 0 if last else stride  # a coarse pixel is repeated over two
            prior = max(student[level], prior + spread) + stride
            window = max(self.window_sizes, default=1) - 1
            attends = level in self.attention_levels
            guided = max(student[level], prior) + attends * self.attention_depth * window * stride
            fused = max(guided, fused + spread) + (0 if last else self.decoder_depth * stride)
        fused += strides[0] + (self.detail > 0)  # the head
        return fused + self.stride  # the edges of the coarsest pixels

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are written into a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Invert `to_dict` after a passage through JSON, where tuples become lists."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        # Files of version 0.1 name no norm, and none before the others what they do not have.
        unnamed = {"norm": "group", "joining": "added", "detail": 0, "marked": False}
        return cls(**{**unnamed, **fields})


SIZES: dict[str, FloraConfig] = {
    "tiny": FloraConfig(widths=(16, 24, 40, 64), attention_levels=(1, 2), attention_depth=1),
    "small": FloraConfig(),
    "paper": FloraConfig(
        widths=(64, 128, 256, 512),
        stem_stride=1,
        attention_levels=(0, 1, 2, 3),
        decoder_depth=2,
    ),
}


def named_config(size: str) -> FloraConfig:
    """The configuration of a named size.

    Args:
        size: "tiny", a notebook on a laptop; "small", the default; or "paper", the channels of
            the paper's released code.

    Raises:
        FloraError: If the name is unknown.

    Example:
        Millions of parameters, the teacher's among them:

        >>> from flora import Flora, named_config
        >>> from flora.models.network import parameter_count
        >>> models = {size: Flora(named_config(size)) for size in ("tiny", "small", "paper")}
        >>> {size: round(parameter_count(model) / 1e6, 2) for size, model in models.items()}
        {'tiny': 0.35, 'small': 2.12, 'paper': 19.44}
    """
    if size not in SIZES:
        raise FloraError(f"size {size!r}: expected one of {', '.join(SIZES)}")
    return SIZES[size]
