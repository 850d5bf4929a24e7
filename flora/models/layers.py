"""The blocks that FLoRA is made of: convolution, windowed cross-attention, FiLM and the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.errors import FloraError

GROUPS = 8

Norm = Literal["layer", "batch", "weight", "group"]
"""What keeps the scale of features. All but "group" are local at inference: a pixel's value does
not depend on what else is in view.

- "layer": each pixel over its channels (Ba et al., Layer Normalization, 2016; per pixel as in Liu
  et al., ConvNeXt, CVPR 2022).
- "batch": each channel over the training batches, a constant at inference (Ioffe and Szegedy,
  2015).
- "weight": the convolution's weights in place of the features (Qiao et al., Weight Standardization,
  2019), then a gain and an offset a channel.
- "group": groups of channels over the whole image (Wu and He, ECCV 2018): not local.
"""
NORMS: tuple[Norm, ...] = get_args(Norm)

Joining = Literal["added", "blended"]
"""How a level of the fusion joins SAR and guidance, see `FusionBlock`."""
JOININGS: tuple[Joining, ...] = get_args(Joining)

# A fresh attention gives its own pixel e^4 = 55 times the share of any other: about half of a
# window of 8 x 8.
ALIGNED = 4.0


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


class ConvBlock(nn.Sequential):
    """3 x 3 convolutions, each followed by a normalisation and SiLU; the first may stride.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of 8.
        stride: Stride of the first convolution.
        depth: Number of convolutions.
        norm: See `Norm`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        depth: int = 2,
        norm: Norm = "layer",
    ) -> None:
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += normalised_convolution(
                in_channels if i == 0 else out_channels, out_channels, norm, 1 if i else stride
            )
            layers.append(nn.SiLU())
        super().__init__(*layers)


class WindowCrossAttention(nn.Module):
    """Cross-attention inside windows of several sizes at once.

    Queries come from the SAR features, keys and values from the guidance; every pixel looks at
    the guidance in the window around it. The heads are shared out among the window sizes, which
    is what makes the attention multi-scale at the price of a single one. A shifted block moves
    its windows by half their size, so that what a block cuts apart the next one sees together
    (Liu et al., Swin Transformer, ICCV 2021). Windows that stick out of the image are padded,
    and the padding is masked out of the softmax. The output projection starts at zero, hence a
    fresh block adds nothing.

    Args:
        channels: Channels C of the queries and of the output.
        guide_channels: Channels of the guidance.
        heads: Number of heads, a multiple of the number of window sizes and a divisor of C.
        window_sizes: Sides of the windows, in pixels of the feature map.
        shifted: Whether the windows are moved by half their size.
        aligned: Logarithm of how much more a fresh block looks at the guidance of its own pixel
            than at that of any other in the window.

    Raises:
        FloraError: If heads, windows and channels do not divide.

    Example:
        >>> import torch
        >>> from flora.models.layers import WindowCrossAttention
        >>> attend = WindowCrossAttention(16, 8, heads=4, window_sizes=(4, 8), shifted=True)
        >>> taken = attend(torch.rand(1, 16, 12, 20), torch.rand(1, 8, 12, 20))
        >>> taken.shape, bool(taken.any())
        (torch.Size([1, 16, 12, 20]), False)
    """

    def __init__(
        self,
        channels: int,
        guide_channels: int,
        heads: int,
        window_sizes: Sequence[int],
        shifted: bool,
        aligned: float = 0.0,
    ) -> None:
        super().__init__()
        if heads % len(window_sizes) or channels % heads:
            raise FloraError(
                f"heads={heads} with {channels} channels and windows {tuple(window_sizes)}: heads "
                "must be a multiple of the number of windows and must divide the channels"
            )
        self.heads_per_window = heads // len(window_sizes)
        self.window_sizes = tuple(window_sizes)
        self.shifted = shifted
        self.query_norm = ChannelNorm(channels)
        self.guide_norm = ChannelNorm(guide_channels)
        self.to_query = nn.Conv2d(channels, channels, 1)
        self.to_key_value = nn.Conv2d(guide_channels, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        zero_(self.project)
        for w in self.window_sizes:
            self.register_buffer(f"offsets_{w}", relative_positions(w), persistent=False)
        self.position_bias = nn.ParameterList(
            nn.Parameter(torch.zeros(self.heads_per_window, (2 * w - 1) ** 2))
            for w in self.window_sizes
        )
        for bias in self.position_bias:
            nn.init.constant_(bias[:, bias.shape[1] // 2], aligned)  # the middle is offset (0, 0)

    def forward(self, query: Tensor, guide: Tensor) -> Tensor:
        """Attend from query (B, C, H, W) to guide (B, C_g, H, W); returns (B, C, H, W)."""
        q = self.to_query(self.query_norm(query))
        k, v = self.to_key_value(self.guide_norm(guide)).chunk(2, dim=1)
        parts = len(self.window_sizes)
        attended = [
            self._attend(*part)
            for part in zip(
                q.chunk(parts, dim=1),
                k.chunk(parts, dim=1),
                v.chunk(parts, dim=1),
                self.window_sizes,
                self.position_bias,
                strict=True,
            )
        ]
        return self.project(torch.cat(attended, dim=1))  # type: ignore[no-any-return]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, window: int, bias: Tensor) -> Tensor:
        height, width = q.shape[-2:]
        pad = window_padding(height, width, window, window // 2 if self.shifted else 0)
        q, k, v = (
            window_partition(F.pad(x, pad), window, self.heads_per_window) for x in (q, k, v)
        )
        mask = bias[:, self.get_buffer(f"offsets_{window}")]  # (heads, w * w, w * w)
        if any(pad):
            inside = F.pad(q.new_ones(1, 1, height, width), pad)
            outside = window_partition(inside, window, 1)[..., 0] == 0  # (1, windows, 1, w * w)
            mask = mask + torch.zeros_like(outside, dtype=mask.dtype).masked_fill(
                outside, float("-inf")
            ).unsqueeze(-2)
        batch, windows = q.shape[:2]
        # The fast kernels take four axes: images and windows become one.
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B * windows, heads, w * w, D)
        mask = mask.expand(batch, windows, *mask.shape[-3:]).flatten(0, 1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
        attended = attended.view(batch, windows, *attended.shape[1:])
        padded = (height + pad[2] + pad[3], width + pad[0] + pad[1])
        merged = window_merge(attended, window, *padded)
        return merged[..., pad[2] : pad[2] + height, pad[0] : pad[0] + width]


def zero_(module: nn.Module) -> None:
    """Set all parameters of a module to zero, so that its branch adds nothing at first."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def window_padding(height: int, width: int, window: int, shift: int) -> tuple[int, int, int, int]:
    """Padding (left, right, top, bottom) that makes whole windows, moved by `shift` pixels.

    Every window of the padded image holds at least one pixel of the image.
    """
    right = -(width + shift) % window
    bottom = -(height + shift) % window
    return (shift, right, shift, bottom)


def window_partition(x: Tensor, window: int, heads: int) -> Tensor:
    """Cut (B, heads * D, H, W) into windows: (B, windows, heads, window * window, D)."""
    b, c, h, w = x.shape
    x = x.view(b, heads, c // heads, h // window, window, w // window, window)
    x = x.permute(0, 3, 5, 1, 4, 6, 2)  # (B, rows, columns, heads, window, window, D)
    return x.reshape(b, -1, heads, window * window, c // heads)


def window_merge(tokens: Tensor, window: int, height: int, width: int) -> Tensor:
    """Invert `window_partition`: (B, windows, heads, window * window, D) to (B, C, H, W)."""
    b, _, heads, _, d = tokens.shape
    x = tokens.view(b, height // window, width // window, heads, window, window, d)
    x = x.permute(0, 3, 6, 1, 4, 2, 5)  # (B, heads, D, rows, window, columns, window)
    return x.reshape(b, heads * d, height, width)


def relative_positions(window: int) -> Tensor:
    """Index of the offset between each two pixels of a window, (window**2, window**2) int64."""
    steps = torch.arange(window)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    dy = rows.flatten()[:, None] - rows.flatten()[None, :] + window - 1
    dx = columns.flatten()[:, None] - columns.flatten()[None, :] + window - 1
    return dy * (2 * window - 1) + dx


class FiLM(nn.Module):
    """Feature-wise linear modulation: x * (1 + scale(guide)) + shift(guide).

    Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, AAAI 2018; here scale
    and shift are maps, one value a pixel. The last layer starts at zero: the identity.

    Args:
        channels: Channels of x.
        guide_channels: Channels of the guidance.

    Example:
        >>> import torch
        >>> from flora.models.layers import FiLM
        >>> x, guide = torch.rand(1, 16, 8, 8), torch.rand(1, 24, 8, 8)
        >>> torch.equal(FiLM(16, 24)(x, guide), x)  # the identity, before training
        True
    """

    def __init__(self, channels: int, guide_channels: int) -> None:
        super().__init__()
        self.condition = nn.Conv2d(guide_channels, channels, 1)
        self.to_scale_shift = nn.Conv2d(channels, 2 * channels, 1)
        zero_(self.to_scale_shift)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Modulate x (B, C, H, W) by guide (B, C_g, H, W)."""
        condition = F.silu(self.condition(guide))
        scale, shift = self.to_scale_shift(condition).chunk(2, dim=1)
        modulated: Tensor = x * (1 + scale) + shift
        return modulated


class GatedResidual(nn.Module):
    """s + gate(s, guide) * update: the gate decides, pixel by pixel, how much guidance to take.

    Args:
        channels: Channels of s and of the update.
        guide_channels: Channels of the guidance.

    Example:
        >>> import torch
        >>> from flora.models.layers import GatedResidual
        >>> s, guide = torch.rand(1, 16, 8, 8), torch.rand(1, 24, 8, 8)
        >>> gate = GatedResidual(16, 24).gate(s, guide)
        >>> bool(((0 < gate) & (gate < 1)).all())
        True
    """

    def __init__(self, channels: int, guide_channels: int) -> None:
        super().__init__()
        self.to_gate = nn.Conv2d(channels + guide_channels, channels, 1)

    def gate(self, s: Tensor, guide: Tensor) -> Tensor:
        """The gate in (0, 1), (B, C, H, W)."""
        return torch.sigmoid(self.to_gate(torch.cat([s, guide], dim=1)))

    def forward(self, s: Tensor, guide: Tensor, update: Tensor) -> Tensor:
        """Add the gated update to s; all (B, C, H, W) but guide (B, C_g, H, W)."""
        return s + self.gate(s, guide) * update


class FusionBlock(nn.Module):
    """One level of the fusion: attention, then FiLM, then the gated residual.

    With s of SAR and the guidance g, "blended"::

        a = attention(query = s, key and value = g)
        m = FiLM(s + a, g)
        f = s + gate(s, g) * (m - s)

    so that an open gate puts m, which guidance has shaped, in the place of s. "added" modulates
    what attention brings and adds it to s, which stays underneath whatever the guidance says::

        m = FiLM(a, g)
        f = s + gate(s, g) * m

    Every branch starts at zero, so at initialisation f equals s. Where attention would cost more
    than it gives (fine strides), a is 0, in "added" a 1 x 1 projection of s. Without FiLM m is its
    input, without a gate the gate is 1: the ablations.

    Args:
        channels: Channels of the SAR features s and of the fused features f.
        guide_channels: Channels of the guidance g.
        heads: Heads of the attention.
        window_sizes: Window sides of the attention; empty for a level without attention.
        depth: Number of attention blocks; every other one is shifted.
        film: Whether the update is modulated.
        gated: Whether the update passes a gate.
        joining: See above.

    Example:
        >>> import torch
        >>> from flora.models.layers import FusionBlock
        >>> block = FusionBlock(16, 24, heads=4, window_sizes=(4, 8))
        >>> s = torch.rand(1, 16, 8, 8)
        >>> torch.equal(block(s, torch.rand(1, 24, 8, 8)), s)  # f = s, before training
        True
    """

    def __init__(
        self,
        channels: int,
        guide_channels: int,
        heads: int,
        window_sizes: Sequence[int],
        depth: int = 2,
        film: bool = True,
        gated: bool = True,
        joining: Joining = "added",
    ) -> None:
        super().__init__()
        self.joining = joining
        self.attention = nn.ModuleList(
            WindowCrossAttention(
                channels,
                guide_channels,
                heads,
                window_sizes,
                shifted=bool(i % 2),
                aligned=ALIGNED if joining == "blended" else 0.0,
            )
            for i in range(depth if window_sizes else 0)
        )
        self.projection: nn.Module | None = None
        if not window_sizes and joining == "added":
            self.projection = nn.Conv2d(channels, channels, 1, bias=False)
            zero_(self.projection)
        self.film = FiLM(channels, guide_channels) if film else None
        self.residual = GatedResidual(channels, guide_channels) if gated else None

    def attend(self, s: Tensor, guide: Tensor) -> Tensor:
        """What attention (or the projection) takes from the guidance, (B, C, H, W)."""
        if self.projection is not None:
            return self.projection(s)  # type: ignore[no-any-return]
        query = s
        for block in self.attention:
            query = query + block(query, guide)
        return query - s

    def forward(self, s: Tensor, guide: Tensor) -> Tensor:
        """Fuse s (B, C, H, W) with guide (B, C_g, H, W) into f (B, C, H, W)."""
        blended = self.joining == "blended"
        m = self.attend(s, guide)
        if blended:
            m = s + m
        if self.film is not None:
            m = self.film(m, guide)
        update = m - s if blended else m
        if self.residual is None:
            return s + update
        fused: Tensor = self.residual(s, guide, update)
        return fused
