import base64
import re

import numpy as np
import pytest

from flora.errors import FloraError
from flora.figures.threshold_slider import ThresholdSlider


def by_hand():
    """Four pixels water at -30, -24, -20, -10 dB; dry at -26, -18 and -8; one ignored, one NaN."""
    values = np.array([[-30.0, -24.0, -20.0], [-10.0, -26.0, -18.0], [-8.0, -31.0, np.nan]])
    codes = np.array([[1, 1, 1], [1, 0, 0], [0, 255, 1]])
    return values, codes


def test_iou_by_hand():
    slider = ThresholdSlider(*by_hand())
    # Darker than -23 dB: water -30 and -24 found, -26 false, two of four missed.
    assert slider.iou(-23.0) == pytest.approx(2 / 5)
    assert slider.iou(-19.0) == pytest.approx(3 / 5)
    assert slider.iou(-32.0) == 0.0
    # All four found, -26 and -18 false: the first threshold above the fourth water pixel.
    assert slider.iou(slider.best()) == pytest.approx(4 / 6)
    assert slider.best() == -9.75


def test_a_value_on_the_threshold_is_not_darker_than_it():
    slider = ThresholdSlider([[-20.0]], [[1]])
    assert slider.iou(-20.0) == 0.0
    assert slider.iou(-19.75) == 1.0


def test_steps_of_the_image_change_no_count():
    random = np.random.default_rng(0)
    values = random.normal(-18.0, 6.0, (40, 50)).astype(np.float32)
    codes = random.choice([0, 1, 255], (40, 50))
    slider = ThresholdSlider(values, codes)
    for threshold in slider.thresholds():
        dark, water = values < threshold, codes == 1
        seen = codes != 255
        expected = (dark & water & seen).sum() / ((dark | water) & seen).sum()
        assert slider.iou(threshold) == pytest.approx(expected)


def test_the_page_is_whole_and_says_what_it_is():
    slider = ThresholdSlider(*by_hand())
    page = slider._repr_html_()
    assert re.findall(r"(?:src|href)\s*=|https?://|@import|\$", page) == []
    assert re.search(r'<label for="(.+?)">VH threshold', page)[1] in re.findall(r'id="(.+?)"', page)
    assert "aria-label" in page
    packed = base64.b64decode(re.search(r'atob\("(.*?)"\)', page)[1])
    assert packed == slider.pixels.tobytes()
    assert page == ThresholdSlider(*by_hand())._repr_html_()
    assert page != ThresholdSlider(*by_hand(), start=-22.0)._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"water": np.zeros((2, 3))}, "expected the same"),
        ({"limits": (-8.0, -30.0)}, "the lower first"),
        ({"limits": (-50.0, 0.0)}, "at most 31 dB"),
        ({"start": -40.0}, "within -32 to -8"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    values, codes = by_hand()
    given = {"backscatter": values, "water": codes} | arguments
    with pytest.raises(FloraError, match=message):
        ThresholdSlider(**given)


def test_the_keyboard_moves_it_and_the_browser_counts_the_same(browser):
    random = np.random.default_rng(0)
    codes = random.choice([0, 1, 255], (40, 50), p=[0.6, 0.3, 0.1])
    values = random.normal(-16.0, 3.0, (40, 50)) - 7.0 * (codes == 1)
    slider = ThresholdSlider(values, codes, start=-20.0)
    page = browser.new_page(viewport={"width": 390, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    # Twice the same figure on a page: both work.
    page.set_content(slider._repr_html_() * 2)
    first = page.locator("output").first
    assert f"IoU {slider.iou(-20.0):.2f}" in first.inner_text()
    before = page.evaluate("document.querySelector('canvas').toDataURL()")
    page.locator("input").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert first.inner_text().startswith("−19.25 dB")
    assert f"IoU {slider.iou(-19.25):.2f}" in first.inner_text()
    assert f"IoU {slider.iou(-20.0):.2f}" in page.locator("output").last.inner_text()
    assert "IoU" in page.locator("input").first.get_attribute("aria-valuetext")
    assert page.evaluate("document.querySelector('canvas').toDataURL()") != before
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.close()
    assert errors == []
    assert overflow <= 0
