"""The drawing of the model: one source for pages and for the file, of which the book is told."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from flora import FloraError
from flora.figures.model_diagram import PARTS, ModelDiagram

FILE = Path(__file__).resolve().parents[2] / "book/_static/model.svg"


def page(browser, diagram):
    tab = browser.new_context(viewport={"width": 390, "height": 900}).new_page()
    tab.set_content(f"<!doctype html><title>x</title>{diagram._repr_html_()}")
    return tab


def test_committed_file_is_the_drawing():
    assert FILE.read_text(encoding="utf-8") == ModelDiagram().svg()
    ElementTree.parse(FILE)


def test_each_mode_shows_its_own_words_and_roads(browser):
    tab = page(browser, ModelDiagram())
    seen = {}
    for mode in ("sar", "before", "oracle"):
        tab.get_by_text(mode, exact=True).click()
        words = tab.locator("p[data-mode]:visible").all_inner_texts()
        optical = tab.locator(".optical .small:visible").all_text_contents()
        teacher = tab.locator(".road.teacher").first.evaluate("e => getComputedStyle(e).opacity")
        seen[mode] = (len(words), optical, float(teacher) > 0.5)
    tab.context.close()
    assert seen == {
        "sar": (1, ["none"], False),
        "before": (1, ["before the flood"], True),
        "oracle": (1, ["the one to draw"], True),
    }


def test_words_stay_in_their_boxes_and_can_be_read_on_a_telephone(browser):
    tab = page(browser, ModelDiagram(mode="before"))
    boxes = tab.evaluate("""() => [...document.querySelectorAll(".part")].flatMap(part => {
        const box = part.querySelector("rect:not(.behind)").getBoundingClientRect();
        return [...part.querySelectorAll("text")].filter(text => text.getClientRects().length)
            .map(text => text.getBoundingClientRect()).filter(text => text.width)
            .map(text => [text.left - box.left, box.right - text.right, text.height]);
    })""")
    tab.context.close()
    assert len(boxes) > 15
    assert min(min(left, right) for left, right, _ in boxes) >= 0
    assert min(height for *_, height in boxes) > 10


@pytest.mark.parametrize("part", PARTS)
def test_one_part_is_lit(browser, part):
    tab = page(browser, ModelDiagram(lit=part))
    widths = tab.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".part")].map(part =>
        [part.classList[1], getComputedStyle(part.querySelector("rect:last-of-type,"
        + "rect:not(.behind)")).strokeWidth]))"""
    )
    tab.context.close()
    assert [name for name, width in widths.items() if width == "5px"] == [part]


def test_two_on_a_page_are_switched_apart(browser):
    first, second = ModelDiagram("teacher", "before"), ModelDiagram("fusion")
    tab = browser.new_context().new_page()
    tab.set_content(first._repr_html_() + second._repr_html_())
    tab.locator("label", has_text="oracle").last.click()
    checked = tab.locator("input:checked").evaluate_all("all => all.map(one => one.value)")
    tab.context.close()
    assert checked == ["before", "oracle"]


def test_a_road_is_closed_and_its_scores_stand_beside(browser):
    scores = {
        road: {mode: f"{road} in {mode}" for mode in ("sar", "before")}
        for road in ("none", "attention", "both")
    }
    tab = page(browser, ModelDiagram(scores=scores))
    shown = tab.locator(".scores p:visible")
    dashed = "all => all.filter(e => getComputedStyle(e).strokeDasharray !== 'none').length"
    seen = []
    for words in ("cross-attention", "before", "both", "oracle"):
        tab.locator("label", has_text=words).click()
        closed = tab.locator("rect.inner").evaluate_all(dashed)
        seen.append((shown.all_inner_texts(), closed))
    assert tab.locator("label", has_text="shift").count() == 0
    tab.locator("input[value=both]").focus()
    tab.keyboard.press("ArrowRight")
    tab.locator("label", has_text="sar").click()
    assert shown.all_inner_texts() == ["none in sar"]
    tab.context.close()
    assert seen == [
        (["attention in sar"], 1),
        (["attention in before"], 1),
        (["both in before"], 2),
        ([], 2),
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"lit": "decoder"}, {"mode": "blind"}, {"scores": {"door": {}}}, {"scores": {"both": {}}}],
)
def test_unknown_part_mode_or_road_is_refused(wrong):
    with pytest.raises(FloraError, match=r"expected (one of|those)"):
        ModelDiagram(**wrong)
