"""Windowed cross-attention: queries of one image, keys and values of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.errors import FloraError
from flora.models.norms import ChannelNorm


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
        >>> from flora.models.attention import WindowCrossAttention
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
