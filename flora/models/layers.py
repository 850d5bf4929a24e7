"""The blocks that FLoRA is made of: convolution, FiLM, the gate, and a level of the fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flora.errors import FloraError
from flora.models.attention import WindowCrossAttention, zero_
from flora.models.norms import Norm, normalised_convolution

Joining = Literal["added", "blended", "guided"]
"""How a level of the fusion joins SAR and guidance, see `FusionBlock`."""
JOININGS: tuple[Joining, ...] = get_args(Joining)

# A fresh attention gives its own pixel e^4 = 55 times the share of any other: about half of a
# window of 8 x 8.
ALIGNED = 4.0


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

    "guided" begins with the guidance itself, which attention completes and an open gate passes on::

        m = FiLM(g + a, g)
        f = s + gate(s, g) * (m - s)

    Attention and FiLM start at zero, so at initialisation f equals s in the first two. In "guided"
    it is a mean of s and g, about half of each, from which decoders that have learned on the
    teacher's features can still draw. Where attention would cost more than it gives (fine
    strides), a is 0, in "added" a 1 x 1 projection of s. Without FiLM m is its input, without a
    gate the gate is 1: the ablations.

    Args:
        channels: Channels of the SAR features s and of the fused features f.
        guide_channels: Channels of the guidance g.
        heads: Heads of the attention.
        window_sizes: Window sides of the attention; empty for a level without attention.
        depth: Number of attention blocks; every other one is shifted.
        film: Whether the update is modulated.
        gated: Whether the update passes a gate.
        joining: See above.

    Raises:
        FloraError: If joining is "guided" and s has other channels than g.

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
        if joining == "guided" and channels != guide_channels:
            raise FloraError(
                f"expected {channels}, as many as channels, where guidance takes the place of s",
                argument="guide_channels",
                value=guide_channels,
            )
        self.joining = joining
        self.attention = nn.ModuleList(
            WindowCrossAttention(
                channels,
                guide_channels,
                heads,
                window_sizes,
                shifted=bool(i % 2),
                aligned=0.0 if joining == "added" else ALIGNED,
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
        m = self.attend(s, guide)
        if self.joining != "added":
            m = m + (s if self.joining == "blended" else guide)
        if self.film is not None:
            m = self.film(m, guide)
        update = m if self.joining == "added" else m - s
        if self.residual is None:
            return s + update
        fused: Tensor = self.residual(s, guide, update)
        return fused
