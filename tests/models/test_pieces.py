"""The finest level in pieces, and parts of an image, answer as the whole network does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flora.models import pieces
from flora.models.config import FloraConfig
from flora.models.network import Flora
from flora.models.pieces import answer_part, cut, has_local_finest_level

SMALL = FloraConfig(widths=(8, 16, 16), attention_levels=(1,), window_sizes=(2, 4), heads=2)


def stirred(config: FloraConfig) -> Flora:
    """A network whose branches all count, those that start at zero too."""
    torch.manual_seed(0)
    model = Flora(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.2 * torch.randn_like(weights))
    return model


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, stem_stride=1, decoder_depth=2, encoder_depth=3, joining="blended"),
        replace(SMALL, joining="guided", marked=True, norm="batch"),
        replace(SMALL, detail=4),  # these three cannot be cut: the whole is computed
        replace(SMALL, norm="group"),
        replace(SMALL, attention_levels=(0, 1)),
    ],
)
@pytest.mark.parametrize("guided", [False, True])
@torch.inference_mode()
def test_a_part_is_answered_as_in_the_whole(monkeypatch, config, guided):
    monkeypatch.setattr(pieces, "PIECE", 16)
    model = stirred(config)
    sar, optical = torch.randn(2, 2, 70, 93), torch.rand(2, 3, 70, 93)
    guide = None
    if guided:
        seen = torch.rand(2, 70, 93) > 0.001  # a cloudy pixel hides some of each level
        guide = model.guide(optical, torch.randn(2, 1, 70, 93), seen)
    whole = model(sar, guide)
    for rows, columns in (
        (slice(0, 70), slice(0, 93)),
        (slice(13, 52), slice(31, 93)),
        (slice(69, 70), slice(0, 1)),
    ):
        rgb, water = answer_part(model, sar, guide, rows, columns)
        torch.testing.assert_close(rgb, whole.rgb[..., rows, columns], atol=1e-5, rtol=1e-5)
        expected = whole.water_logits[..., rows, columns]
        torch.testing.assert_close(water, expected, atol=1e-4, rtol=1e-5)


def test_pieces_without_their_halo_would_answer_otherwise(monkeypatch):
    """The property above can fail."""
    monkeypatch.setattr(pieces, "PIECE", 16)
    model, sar = stirred(SMALL), torch.randn(1, 2, 64, 64)
    whole = slice(0, 64)
    with torch.inference_mode():
        expected = model(sar).water_logits
        monkeypatch.setattr(pieces, "cut", lambda a, b, halo, size: cut(a, b, 0, size))
        assert (answer_part(model, sar, None, whole, whole)[1] - expected).abs().max() > 0.01


def test_pieces_cover_a_part_once_and_see_what_lies_around_them(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 8)
    covered = torch.zeros(40, 30)
    for piece in cut(slice(4, 26), slice(0, 30), 3, (40, 30)):
        covered[piece.own] += 1
        rows, columns = piece.seen
        assert rows.start == piece.own[0].start - 4  # a halo is even
        assert columns.stop == min(piece.own[1].stop + 4, 30)
        y, x = piece.inside()
        seen = torch.arange(40 * 30).view(40, 30)
        assert torch.equal(seen[rows, columns][y, x], seen[piece.own])
    assert (covered[4:26] == 1).all() and covered.sum() == 22 * 30


def test_what_cannot_be_cut_is_known():
    assert has_local_finest_level(SMALL)
    for other in ({"detail": 4}, {"norm": "group"}, {"attention_levels": (0,)}):
        assert not has_local_finest_level(replace(SMALL, **other))
