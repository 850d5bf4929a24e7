"""Where a trained attention block looks: its weights, and over how many pixels they spread."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from flora.models.attention import (
    WindowCrossAttention,
    window_merge,
    window_padding,
    window_partition,
)


@torch.no_grad()
def attention_weights(block: WindowCrossAttention, query: Tensor, guide: Tensor) -> list[Tensor]:
    """How much of each guidance pixel every query pixel takes.

    softmax(q k^T / sqrt(D) + position bias), which `WindowCrossAttention` computes within a fused
    kernel and never shows (Vaswani et al., Attention Is All You Need, NeurIPS 2017, equation 1).

    Args:
        block: The attention.
        query: SAR features (B, C, H, W).
        guide: Guidance features (B, C_g, H, W).

    Returns:
        For each window size w of the block (B, heads, H, W, w, w): for each pixel of the query,
        the shares of the pixels of its window, which sum to 1. The window of pixel (y, x) starts
        at `window_start(y, w, shifted)`, `window_start(x, w, shifted)`; where it sticks out of
        the image, the share is 0.
    """
    height, width = query.shape[-2:]
    q = block.to_query(block.query_norm(query))
    k, _ = block.to_key_value(block.guide_norm(guide)).chunk(2, dim=1)
    parts = len(block.window_sizes)
    shares = []
    for q_part, k_part, w, bias in zip(
        q.chunk(parts, dim=1),
        k.chunk(parts, dim=1),
        block.window_sizes,
        block.position_bias,
        strict=True,
    ):
        pad = window_padding(height, width, w, w // 2 if block.shifted else 0)
        heads = block.heads_per_window
        q_tokens, k_tokens = (
            window_partition(F.pad(x, pad), w, heads) for x in (q_part, k_part)
        )  # (B, windows, heads, w * w, D)
        scores = q_tokens @ k_tokens.mT / math.sqrt(q_tokens.shape[-1])
        scores = scores + bias[:, block.get_buffer(f"offsets_{w}")]
        inside = window_partition(F.pad(q.new_ones(1, 1, height, width), pad), w, 1)
        scores = scores.masked_fill(inside.mT == 0, float("-inf"))
        padded = (height + pad[2] + pad[3], width + pad[0] + pad[1])
        merged = window_merge(scores.softmax(dim=-1), w, *padded)  # (B, heads * w * w, ...)
        merged = merged[..., pad[2] : pad[2] + height, pad[0] : pad[0] + width]
        merged = merged.reshape(-1, heads, w, w, height, width)
        shares.append(merged.permute(0, 1, 4, 5, 2, 3))
    return shares


def window_start(position: int, window: int, shifted: bool) -> int:
    """First row (or column) of the window of a pixel's row (or column); negative outside."""
    shift = window // 2 if shifted else 0
    return (position + shift) // window * window - shift


def effective_pixels(shares: NDArray[np.float64]) -> float:
    """Over how many pixels attention spreads: exp of the entropy, from 1 to the window's area.

    Args:
        shares: Any shape, sum 1.
    """
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))
