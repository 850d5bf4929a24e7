import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from flora.errors import FloraError
from flora.figures.picture_slider import PictureSlider
from flora.figures.plots import figure, show_rgb


def plain(red):
    """A 4 x 6 px picture of one colour."""
    picture = np.zeros((4, 6, 3))
    picture[..., 0] = red
    return picture


def pictures():
    return {"none": plain(0.0), "half": plain(0.5), "all": plain(1.0)}


def shown(page):
    """The arrays that a page holds, in order."""
    found = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    images = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in found]
    return [np.asarray(image) for image in images]


def test_the_page_holds_every_picture_in_order():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)  # more colours than a palette
    slider = PictureSlider({"flat": np.full_like(noise, 7), "noise": noise}, label="x", alt="y")
    flat, grain = shown(slider._repr_html_())
    assert (flat == 7).all()
    assert (grain == noise).all()
    halves = shown(PictureSlider(pictures(), label="x", alt="y")._repr_html_())
    assert [int(image[0, 0, 0]) for image in halves] == [0, 128, 255]


def test_one_picture_is_seen_before_any_script_runs():
    page = PictureSlider(pictures(), label="cloud", alt="A field.", start="half")._repr_html_()
    tags = re.findall(r"<img [^>]+>", page)
    assert [tag.endswith(" hidden>") for tag in tags] == [True, False, True]
    assert 'value="1"' in page
    assert 'alt="A field. cloud: half."' in tags[1]


def test_the_page_is_whole_and_labelled():
    page = PictureSlider(pictures(), label="cloud", alt="A field.")._repr_html_()
    assert re.findall(r"https?://|@import|\$", page) == []
    assert re.search(r'<label for="(.+?)">cloud', page)[1] in re.findall(r'id="(.+?)"', page)
    assert page == PictureSlider(pictures(), label="cloud", alt="A field.")._repr_html_()
    assert page != PictureSlider(pictures(), label="haze", alt="A field.")._repr_html_()


def test_words_are_escaped():
    frames = {'<b>"5 < 6"</b>': plain(0.0), "$x": plain(1.0)}
    page = PictureSlider(frames, label="a & b", alt='say "hi"')._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;&quot;5 &lt; 6&quot;&lt;/b&gt;" in page
    assert "$x" in page
    assert "a &amp; b" in page


def test_figures_are_pictures_and_get_one_size():
    frames = {}
    for title in ("short", "a title\nof two lines"):
        made, axes = figure(panel=(1.5, 1.5))
        show_rgb(axes[0, 0], np.zeros((3, 8, 8)), title=title)
        frames[title] = made
    slider = PictureSlider(frames, label="x", alt="y")
    first, second = shown(slider._repr_html_())
    assert first.shape == second.shape == (slider.size[1], slider.size[0], 3)
    assert (first != second).any()


@pytest.mark.parametrize(
    ("frames", "start", "message"),
    [
        ({"one": plain(0.0)}, None, "two or more"),
        ({"a": plain(0.0), "b": np.zeros((4, 6))}, None, "frame 'b' of shape"),
        ({"a": plain(0.0), "b": np.zeros((8, 6, 3))}, None, "one size"),
        ({("a", "b"): plain(0.0), ("c", "d"): plain(1.0)}, None, "expected 1 words"),
        (pictures(), "quarter", "expected one of none, half, all"),
    ],
)
def test_wrong_input_is_refused(frames, start, message):
    with pytest.raises(FloraError, match=message):
        PictureSlider(frames, label="x", alt="y", start=start)


def test_the_keyboard_moves_it(browser):
    slider = PictureSlider(pictures(), label="cloud", alt="A field.")
    page = browser.new_page(viewport={"width": 390, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    # Twice the same figure on a page: both work.
    page.set_content(slider._repr_html_() * 2)
    visible = "[...document.querySelectorAll('img')].map(e => e.offsetHeight > 0)"
    assert page.evaluate(visible) == [True, False, False] * 2
    page.locator("input").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(visible) == [False, True, False, True, False, False]
    assert page.locator("output").first.inner_text() == "half"
    assert page.locator("input").first.get_attribute("aria-valuetext") == "half"
    page.keyboard.press("End")
    assert page.locator("output").first.inner_text() == "all"
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.close()
    assert errors == []
    assert overflow <= 0


def crossed():
    """Pictures under two settings: red for the first, green for the second."""
    frames = {}
    for wind in ("calm", "windy"):
        for soil in ("dark", "mixed", "bright"):
            picture = np.zeros((4, 6, 3))
            picture[..., 0] = wind == "windy"
            picture[..., 1] = {"dark": 0.0, "mixed": 0.5, "bright": 1.0}[soil]
            frames[wind, soil] = picture
    return frames


def test_a_combination_without_a_picture_is_refused():
    frames = crossed()
    del frames["windy", "mixed"]
    with pytest.raises(FloraError, match="no picture for windy, mixed"):
        PictureSlider(frames, label=("wind", "soil"), alt="A field.")


def test_figures_give_way_in_sharpness_and_not_in_size():
    def drawn(pixels):
        made, axes = figure(panel=(4.0, 4.0))
        show_rgb(axes[0, 0], np.random.default_rng(0).random((3, pixels, pixels)))
        return made

    few = PictureSlider({"a": drawn(8), "b": drawn(8)}, label="x", alt="y")
    assert abs(shown(few._repr_html_())[0].shape[1] - 2 * few.width) <= 1
    many = PictureSlider({str(n): drawn(400) for n in range(6)}, label="x", alt="y")
    assert abs(shown(many._repr_html_())[0].shape[1] - many.width) <= 1
    assert abs(many.width - few.width) < 20


def test_two_settings_choose_one_picture(browser):
    slider = PictureSlider(
        crossed(), label=("wind", "soil"), alt="A field.", start=("windy", "dark")
    )
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_content(slider._repr_html_() * 2)
    visible = (
        "[...document.querySelectorAll('img')].filter(e => e.offsetHeight > 0).map(e => e.alt)"
    )
    first = "A field. wind: {}, soil: {}."
    assert page.evaluate(visible) == [first.format("windy", "dark")] * 2
    page.locator("[type=range]").first.focus()
    page.keyboard.press("End")
    page.locator("[type=radio]").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(visible) == [
        first.format("calm", "bright"),
        first.format("windy", "dark"),
    ]
    page.get_by_text("windy").first.click()
    assert page.evaluate(visible)[0] == first.format("windy", "bright")
    page.close()
