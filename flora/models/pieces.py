"""FLoRA's answer for a part of an image, its finest level computed in pieces.

What a network looks at far away it looks at in its coarser levels. The finest one costs the most
and looks a few pixels far, so around a part of an image it is left out; and in pieces that fit into
a processor's caches it takes a third less time, and hardly any memory. The answer is that of
`Flora.forward`, to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from flora.models.config import FloraConfig
from flora.models.network import Flora, Guide, check_bands

PIECE = 256  # px of the finest level: its 16 channels then take 4 MB


class Piece(NamedTuple):
    """A piece of a feature map, in its pixels.

    Attributes:
        own: Rows and columns that it answers for.
        seen: Those that it is computed from.
    """

    own: tuple[slice, slice]
    seen: tuple[slice, slice]

    def inside(self, scale: int = 1) -> tuple[slice, slice]:
        """Where `own` lies in `seen`, in pixels `scale` times finer."""
        rows, columns = (
            slice(scale * (own.start - seen.start), scale * (own.stop - seen.start))
            for own, seen in zip(self.own, self.seen, strict=True)
        )
        return rows, columns


def answer_part(
    model: Flora, sar: Tensor, guide: Guide | None, rows: slice, columns: slice
) -> tuple[Tensor, Tensor]:
    """What `Flora.forward` answers in a part of an image.

    Args:
        model: The network, in evaluation mode.
        sar: Normalised SAR (B, C_s, H, W).
        guide: As for `Flora.forward`.
        rows: Rows [start, stop) of the part.
        columns: Its columns.

    Returns:
        The image (B, C_o, h, w) in (0, 1) and the logits of water (B, 1, h, w).

    Raises:
        FloraError: As `Flora.forward`.
    """
    if not has_local_finest_level(model.config):
        whole = model(sar, guide)
        return whole.rgb[..., rows, columns], whole.water_logits[..., rows, columns]
    check_bands(sar, model.config.sar_channels)
    model.check_guide(sar, guide)
    student = _encode(model, model.pad(sar))
    coarse = _Coarse.of(model, student, guide)
    stem = model.config.stem_stride
    # The level below is half as fine.
    tall, wide = (
        slice(side.start // stem // 2 * 2, -(-side.stop // stem // 2) * 2)
        for side in (rows, columns)
    )
    size = (stem * (tall.stop - tall.start), stem * (wide.stop - wide.start))
    image, water = (  # in float32 whatever the network computes in
        sar.new_empty(len(sar), channels, *size, dtype=torch.float32)
        for channels in (model.config.optical_channels, 1)
    )
    halo = model.config.decoder_depth + 2  # of the prior, the decoder and its head
    for piece in cut(tall, wide, halo, student[0].shape[-2:]):
        answers = _finest(model, student[0], coarse, guide, piece)
        y, x = (
            slice(stem * (own.start - part.start), stem * (own.stop - part.start))
            for own, part in zip(piece.own, (tall, wide), strict=True)
        )
        for target, answer in zip((image, water), answers, strict=True):
            target[..., y, x] = answer[..., *piece.inside(stem)]
    y, x = (
        slice(side.start - stem * part.start, side.stop - stem * part.start)
        for side, part in zip((rows, columns), (tall, wide), strict=True)
    )
    return image[..., y, x].sigmoid_(), water[..., y, x]


def has_local_finest_level(config: FloraConfig) -> bool:
    """Whether the finest level convolves only: no attention, and no statistics of the image."""
    return config.norm != "group" and not config.detail and 0 not in config.attention_levels


def cut(rows: slice, columns: slice, halo: int, size: tuple[int, ...]) -> Iterator[Piece]:
    """Pieces of a part of a feature map of this size, from top to bottom and left to right.

    All begin and end at even pixels if the part and the map do.
    """
    halo += halo % 2
    for row in range(rows.start, rows.stop, PIECE):
        for column in range(columns.start, columns.stop, PIECE):
            starts = row, column
            ends = min(row + PIECE, rows.stop), min(column + PIECE, columns.stop)
            own = tuple(map(slice, starts, ends))
            seen = tuple(
                slice(max(start - halo, 0), min(end + halo, side))
                for start, end, side in zip(starts, ends, size, strict=True)
            )
            yield Piece((own[0], own[1]), (seen[0], seen[1]))


class _Coarse(NamedTuple):
    """What the levels below the finest one pass on to it: the prior and both decoders."""

    prior: Tensor
    image: Tensor
    water: Tensor

    @classmethod
    def of(cls, model: Flora, student: list[Tensor], guide: Guide | None) -> _Coarse:
        """Compute all levels but the finest."""
        prior: Tensor | None = None
        image: Tensor | None = None
        water: Tensor | None = None
        for level in reversed(range(1, len(student))):
            prior = model.prior.step(level, student[level], prior)
            guidance = model.guidance(level, model.prior.estimate(level, prior), guide)
            fused = model.fusion[level](student[level], guidance)
            image = model.optical_decoder.step(level, fused, image)
            water = model.water_decoder.step(level, fused, water)
        return cls(prior, image, water)  # type: ignore[arg-type]  # there are two levels or more

    def crop(self, piece: Piece) -> _Coarse:
        rows, columns = (slice(side.start // 2, side.stop // 2) for side in piece.seen)
        return _Coarse(*(x[..., rows, columns] for x in self))


def _encode(model: Flora, sar: Tensor) -> list[Tensor]:
    """The student's pyramid of a padded image."""
    levels, stem = model.sar_encoder.levels, model.config.stem_stride
    height, width = (side // stem for side in sar.shape[-2:])
    finest = torch.empty(  # channels last, as the normalisations leave all that it is joined to
        (len(sar), model.config.widths[0], height, width),
        dtype=sar.dtype,
        device=sar.device,
        memory_format=torch.channels_last,
    )
    halo = model.config.encoder_depth
    for piece in cut(slice(0, height), slice(0, width), halo, (height, width)):
        rows, columns = (slice(stem * side.start, stem * side.stop) for side in piece.seen)
        finest[..., *piece.own] = levels[0](sar[..., rows, columns])[..., *piece.inside()]
    pyramid = [finest]
    for level in levels[1:]:
        pyramid.append(level(pyramid[-1]))
    return pyramid


def _finest(
    model: Flora, student: Tensor, coarse: _Coarse, guide: Guide | None, piece: Piece
) -> tuple[Tensor, Tensor]:
    """The finest level of a piece: logits of the image and of water where it sees."""
    below, s = coarse.crop(piece), student[..., *piece.seen]
    prior = model.prior.estimate(0, model.prior.step(0, s, below.prior))
    fused = model.fusion[0](s, model.guidance(0, prior, guide, piece.seen))
    image = model.optical_decoder.head(model.optical_decoder.step(0, fused, below.image))
    water = model.water_decoder.head(model.water_decoder.step(0, fused, below.water))
    return image, water
