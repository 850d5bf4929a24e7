from __future__ import annotations

import base64
import re

import numpy as np
import pytest
import torch

from flora.errors import FloraError
from flora.figures.attention import attention_weights, effective_pixels, window_start
from flora.figures.attention_view import AttentionView
from flora.models.attention import WindowCrossAttention


def random_block(shifted: bool = False, windows: tuple[int, ...] = (2, 4)) -> WindowCrossAttention:
    """A block of 8 channels whose every parameter, zero at first, is away from its start."""
    torch.manual_seed(0)
    block = WindowCrossAttention(8, 6, heads=4, window_sizes=windows, shifted=shifted)
    for parameter in block.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return block


def features(rows: int = 6, columns: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(1, 8, rows, columns), torch.randn(1, 6, rows, columns)


def view(block: WindowCrossAttention | None = None, **options: object) -> AttentionView:
    """6 x 8 pixels of features, each of 4 x 4 pixels of the images."""
    random = np.random.default_rng(0)
    images = random.random((24, 32)), random.random((3, 24, 32))
    return AttentionView(block or random_block(), *features(), *images, **options)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(4, 8), (5, 7)])
def test_shares_times_values_are_the_output_of_the_block(
    size: tuple[int, int], shifted: bool
) -> None:
    block = random_block(shifted)
    query, guide = features(*size)
    _, values = block.to_key_value(block.guide_norm(guide)).chunk(2, dim=1)
    attended = torch.zeros(8, *size)
    channels = 8 // 4
    for part, shares in enumerate(attention_weights(block, query, guide)):
        window = block.window_sizes[part]
        torch.testing.assert_close(shares.sum(dim=(-2, -1)), torch.ones(1, 2, *size))
        for head, row, column in np.ndindex(2, *size):
            top, left = (window_start(n, window, shifted) for n in (row, column))
            first = (2 * part + head) * channels
            for i, j in np.ndindex(window, window):
                share = shares[0, head, row, column, i, j]
                if 0 <= top + i < size[0] and 0 <= left + j < size[1]:
                    there = values[0, first : first + channels, top + i, left + j]
                    attended[first : first + channels, row, column] += share * there
                else:
                    assert share == 0
    torch.testing.assert_close(
        block.project(attended[None]), block(query, guide), atol=1e-5, rtol=1e-4
    )


def test_equal_scores_share_equally() -> None:
    block = random_block()
    torch.nn.init.zeros_(block.to_query.weight)
    torch.nn.init.zeros_(block.to_query.bias)
    for bias in block.position_bias:
        torch.nn.init.zeros_(bias)
    for window, shares in zip((2, 4), attention_weights(block, *features(4, 8)), strict=True):
        torch.testing.assert_close(shares, torch.full_like(shares, 1 / window**2))


def test_window_start_by_hand() -> None:
    assert [window_start(n, 4, False) for n in (0, 3, 4, 9)] == [0, 0, 4, 8]
    assert [window_start(n, 4, True) for n in (0, 1, 2, 5, 6)] == [-2, -2, 2, 2, 6]


def test_effective_pixels_by_hand() -> None:
    assert effective_pixels(np.array([1.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_pixels(np.full((4, 4), 1 / 16)) == pytest.approx(16.0)
    # Two pixels of a quarter, one of a half: 2 * (1/4) ln 4 + (1/2) ln 2 = 1.5 ln 2.
    assert effective_pixels(np.array([0.25, 0.25, 0.5])) == pytest.approx(2**1.5)


@pytest.mark.parametrize("shifted", [False, True])
def test_eight_bits_keep_the_shares(shifted: bool) -> None:
    block = random_block(shifted)
    shown = view(block)
    exact = [head for part in attention_weights(block, *features()) for head in part[0]]
    assert len(exact) == len(shown.heads) == 4
    for head, shares in enumerate(exact):
        for row, column in np.ndindex(6, 8):
            kept, share = shown.shares(head, row, column), shares[row, column].numpy()
            # Each is off by half a step of 1/255 of the largest, and so is their sum.
            assert abs(kept - share).max() <= share.max() * (1 + share.size * share.max()) / 510


def test_the_page_is_whole_and_says_what_it_is() -> None:
    shown = view(names=("SAR VV", "optical before"))
    page = shown._repr_html_()
    assert re.findall(r"(?:src|href)\s*=|https?://|@import|\$", page) == []
    assert 'aria-label="SAR VV.' in page
    packed = base64.b64decode(re.search(r'weights = bytes\("(.*?)"\)', page)[1])
    assert packed == b"".join(head.tobytes() for head in shown.heads)
    assert page == view(names=("SAR VV", "optical before"))._repr_html_()
    assert page != view(names=("SAR VV", "optical before"), start=(0, 0))._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": torch.zeros(2, 8, 6, 8)}, "expected one image"),
        ({"guide": torch.zeros(1, 6, 6, 9)}, "the same rows and columns"),
        ({"query_image": np.zeros((24, 24))}, "query_image of shape"),
        ({"guide_image": np.zeros((4, 24, 32))}, "guide_image of shape"),
        ({"guide_image": np.zeros((12, 16))}, "expected the same"),
        ({"start": (6, 0)}, "within 6 x 8"),
    ],
)
def test_wrong_input_is_refused(arguments: dict[str, object], message: str) -> None:
    query, guide = features()
    images = {"query_image": np.zeros((24, 32)), "guide_image": np.zeros((3, 24, 32))}
    given = {"block": random_block(), "query": query, "guide": guide} | images | arguments
    with pytest.raises(FloraError, match=message):
        AttentionView(**given)


def test_a_figure_too_heavy_for_a_page_is_refused() -> None:
    query, guide = torch.zeros(1, 8, 128, 128), torch.zeros(1, 6, 128, 128)
    with pytest.raises(FloraError, match="crop query and guide"):
        AttentionView(random_block(), query, guide, np.zeros((128, 128)), np.zeros((128, 128)))


def said(shown: AttentionView, head: int, row: int, column: int) -> str:
    """What the page has to say of a query, worked out here."""
    shares = shown.shares(head, row, column)
    area = shares.size
    return (
        f"looks at about {effective_pixels(shares):.1f} of {area} pixels; most, {shares.max():.0%}"
    )


@pytest.mark.parametrize("shifted", [False, True])
def test_mouse_and_keyboard_ask_and_the_browser_answers_the_same(browser, shifted: bool) -> None:
    shown = view(random_block(shifted), start=(1, 2))
    page = browser.new_page(viewport={"width": 390, "height": 1400})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    # Twice the same figure on a page: both work, each by itself.
    page.set_content(shown._repr_html_() * 2)
    first, second = page.locator("output").all()

    def answer(head: int, row: int, column: int) -> str:
        expected = said(shown, head, row, column).replace("%", " %")
        start = f"Row {row}, column {column}, head {head + 1}: "
        assert first.inner_text().startswith(start + expected), (first.inner_text(), expected)
        return first.inner_text()

    at_start = answer(0, 1, 2)
    drawn = page.evaluate("document.querySelectorAll('.pair canvas')[1].toDataURL()")
    asking = page.locator(".pair canvas").first
    asking.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    answer(0, 3, 3)
    page.keyboard.press("Shift+ArrowRight")  # stops at the edge
    answer(0, 3, 7)
    page.locator("input[type=radio]").nth(2).check(force=True)
    answer(2, 3, 7)
    place = asking.bounding_box()
    asking.click(position={"x": place["width"] * 0.45, "y": place["height"] * 0.9})
    text = answer(2, 5, 3)
    shares = shown.shares(2, 5, 3)
    i, j = np.unravel_index(shares.argmax(), shares.shape)
    down, right = window_start(5, 4, shifted) + i - 5, window_start(3, 4, shifted) + j - 3
    words = [
        f"{abs(by)} {positive if by > 0 else negative}"
        for by, positive, negative in ((down, "down", "up"), (right, "right", "left"))
        if by
    ]
    assert text.endswith(f"at {', '.join(words) or 'its own place'}.")
    assert page.evaluate("document.querySelectorAll('.pair canvas')[1].toDataURL()") != drawn
    assert second.inner_text() == at_start
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.close()
    assert errors == []
    assert overflow <= 0
