import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flora.errors import FloraError
from flora.models.attention import (
    WindowCrossAttention,
    relative_positions,
    window_merge,
    window_padding,
    window_partition,
)
from flora.models.layers import FiLM, FusionBlock, GatedResidual, Joining


def randomise(module: nn.Module) -> nn.Module:
    """Move every parameter away from its start, zero-initialised ones included."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


def naive_attention(
    block: WindowCrossAttention, query: torch.Tensor, guide: torch.Tensor
) -> torch.Tensor:
    """The same attention, pixel by pixel, for one image."""
    q = block.to_query(block.query_norm(query))[0]
    k, v = block.to_key_value(block.guide_norm(guide))[0].chunk(2)
    channels, height, width = q.shape
    heads = block.heads_per_window * len(block.window_sizes)
    size = channels // heads
    out = torch.zeros_like(q)
    for head in range(heads):
        window = block.window_sizes[head // block.heads_per_window]
        bias = block.position_bias[head // block.heads_per_window][head % block.heads_per_window]
        part = slice(head * size, (head + 1) * size)
        shift = window // 2 if block.shifted else 0
        for row in range(height):
            for column in range(width):
                top, left = (row + shift) // window, (column + shift) // window
                inside = [
                    (y, x)
                    for y in range(height)
                    for x in range(width)
                    if (y + shift) // window == top and (x + shift) // window == left
                ]
                scores = torch.stack(
                    [
                        (q[part, row, column] * k[part, y, x]).sum() / math.sqrt(size)
                        + bias[(row - y + window - 1) * (2 * window - 1) + column - x + window - 1]
                        for y, x in inside
                    ]
                ).softmax(0)
                out[part, row, column] = sum(
                    s * v[part, y, x] for s, (y, x) in zip(scores, inside, strict=True)
                )
    return block.project(out[None])


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(4, 8), (5, 7), (1, 1)])
def test_attention_equals_its_definition(size: tuple[int, int], shifted: bool) -> None:
    torch.manual_seed(0)
    block = randomise(WindowCrossAttention(8, 6, heads=4, window_sizes=(2, 4), shifted=shifted))
    query, guide = torch.randn(1, 8, *size), torch.randn(1, 6, *size)
    torch.testing.assert_close(
        block(query, guide), naive_attention(block, query, guide), atol=1e-5, rtol=1e-4
    )


def test_a_pixel_sees_the_guide_in_its_window_and_no_further() -> None:
    torch.manual_seed(0)
    block = randomise(WindowCrossAttention(8, 8, heads=2, window_sizes=(4,), shifted=False))
    query, guide = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 8, 8)
    changed = guide.clone()
    changed[:, 0, 1, 2] += 5
    difference = (block(query, changed) - block(query, guide)).abs().amax(dim=1)[0]
    assert (difference[:4, :4] > 0).all()
    assert (difference[4:] == 0).all() and (difference[:, 4:] == 0).all()


def test_shifted_windows_straddle_the_borders_of_plain_ones() -> None:
    torch.manual_seed(0)
    block = randomise(WindowCrossAttention(8, 8, heads=2, window_sizes=(4,), shifted=True))
    query, guide = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 8, 8)
    changed = guide.clone()
    changed[:, 0, 3, 3] += 5
    difference = (block(query, changed) - block(query, guide)).abs().amax(dim=1)[0]
    assert (difference[2:6, 2:6] > 0).all()
    assert difference[:2].max() == 0 and difference[6:].max() == 0


def test_windows_are_cut_and_joined_without_loss() -> None:
    image = torch.arange(2 * 6 * 8 * 4.0).view(2, 6, 8, 4)
    tokens = window_partition(image, 4, heads=3)
    assert tokens.shape == (2, 2, 3, 16, 2)
    torch.testing.assert_close(tokens[0, 1, 0, 0], image[0, :2, 4, 0])
    torch.testing.assert_close(window_merge(tokens, 4, 8, 4), image)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("side", range(1, 14))
def test_no_window_is_all_padding(side: int, shift: int) -> None:
    pad = window_padding(side, side, 4, shift)
    inside = window_partition(F.pad(torch.ones(1, 1, side, side), pad), 4, 1)
    assert (inside.sum(dim=-2) > 0).all()


def test_relative_positions_by_hand() -> None:
    index = relative_positions(2)
    # Pixels (0,0) (0,1) (1,0) (1,1); offsets of -1..1 in each direction give nine entries.
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_film_is_the_identity_at_first_and_modulates_later() -> None:
    torch.manual_seed(0)
    film = FiLM(4, 3)
    x, guide = torch.randn(2, 4, 5, 5), torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(film(x, guide), x)
    film.to_scale_shift.bias.data[:4] = 1.0
    film.to_scale_shift.bias.data[4:] = -3.0
    torch.testing.assert_close(film(x, guide), 2 * x - 3)


def test_gate_of_a_half_adds_half_the_update() -> None:
    block = GatedResidual(4, 3)
    nn.init.zeros_(block.to_gate.weight)
    nn.init.zeros_(block.to_gate.bias)
    s, guide, update = torch.randn(1, 4, 2, 2), torch.randn(1, 3, 2, 2), torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(block(s, guide, update), s + 0.5 * update)


@pytest.mark.parametrize("joining", ["added", "blended"])
@pytest.mark.parametrize("windows", [(), (2, 4)])
def test_fusion_is_the_identity_at_first_and_depends_on_the_guide_later(
    windows: tuple[int, ...], joining: Joining
) -> None:
    torch.manual_seed(0)
    block = FusionBlock(8, 8, heads=4, window_sizes=windows, joining=joining)
    s, guide = torch.randn(2, 8, 6, 9), torch.randn(2, 8, 6, 9)
    assert torch.equal(block(s, guide), s)
    randomise(block)
    assert not torch.allclose(block(s, guide), block(s, guide + 1))


@torch.no_grad()
@pytest.mark.parametrize("windows", [(), (2, 4)])
def test_what_is_guided_begins_as_a_mean_of_radar_and_guidance(
    windows: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    block = FusionBlock(8, 8, heads=4, window_sizes=windows, joining="guided")
    assert block.residual is not None
    s, guide = torch.randn(2, 8, 6, 9), torch.randn(2, 8, 6, 9)
    gate = block.residual.gate(s, guide)
    assert 0.4 < gate.mean() < 0.6
    torch.testing.assert_close(block(s, guide), (1 - gate) * s + gate * guide)
    block.residual = None
    torch.testing.assert_close(block(s, guide), guide)
    randomise(block)
    assert not torch.allclose(block(s, guide), guide)


def test_guidance_of_other_channels_cannot_take_the_place_of_s() -> None:
    with pytest.raises(FloraError, match="guide_channels"):
        FusionBlock(8, 16, heads=4, window_sizes=(), joining="guided")


@torch.no_grad()
def test_what_is_blended_takes_the_place_of_s_as_far_as_the_gate_is_open() -> None:
    torch.manual_seed(0)
    block = FusionBlock(8, 8, heads=4, window_sizes=(), joining="blended")
    assert block.film is not None and block.residual is not None
    s, guide = torch.randn(1, 8, 6, 9), torch.randn(1, 8, 6, 9)
    nn.init.constant_(block.film.to_scale_shift.bias[:8], -1.0)  # m is the shift, 3
    nn.init.constant_(block.film.to_scale_shift.bias[8:], 3.0)
    nn.init.zeros_(block.residual.to_gate.weight)
    for bias, expected in ((-50.0, s), (0.0, (s + 3) / 2), (50.0, torch.full_like(s, 3.0))):
        nn.init.constant_(block.residual.to_gate.bias, bias)
        torch.testing.assert_close(block(s, guide), expected)


@torch.no_grad()
def test_a_fresh_attention_looks_at_its_own_pixel_first_where_that_is_asked_for() -> None:
    torch.manual_seed(0)
    taken = []
    for aligned in (0.0, 4.0):
        block = WindowCrossAttention(1, 1, 1, (4,), shifted=False, aligned=aligned)
        block.guide_norm = nn.Identity()  # of one channel it would leave nothing
        for layer, gains in ((block.to_query, [0.0]), (block.to_key_value, [0.0, 1.0])):
            layer.weight.copy_(torch.tensor(gains).view(-1, 1, 1, 1))
            nn.init.zeros_(layer.bias)
        nn.init.ones_(block.project.weight)
        guide = torch.zeros(1, 1, 4, 4)
        guide[..., 1, 2] = 1.0
        taken.append(block(torch.randn(1, 1, 4, 4), guide)[0, 0])
    torch.testing.assert_close(taken[0], torch.full((4, 4), 1 / 16))
    own = math.exp(4) / (math.exp(4) + 15)  # the share of one's own pixel among sixteen
    expected = torch.full((4, 4), 1 / (math.exp(4) + 15))
    expected[1, 2] = own
    torch.testing.assert_close(taken[1], expected)


def test_heads_must_divide() -> None:
    with pytest.raises(FloraError, match="heads=3"):
        WindowCrossAttention(8, 8, heads=3, window_sizes=(4, 8), shifted=False)
