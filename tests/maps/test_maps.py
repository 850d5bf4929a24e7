import base64
import io
import json
import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points
from scipy.ndimage import gaussian_filter

from flora.errors import FloraError
from flora.figures.printed import print_figure
from flora.maps.layers import read_map
from flora.maps.likelihood import AreaIntervals
from flora.maps.live import flood_map
from flora.maps.page import StaticMap, write_html
from flora.maps.polygons import write_polygons
from flora.models.calibration import AreaInterval
from tests.maps.test_floods import write_mask
from tests.support.fake_data import write_raster

UTM = "EPSG:32630"
GRID = Affine(10.0, 0.0, 690_000.0, 0.0, -10.0, 4_220_000.0)
ROWS, COLUMNS = 120, 160
PIXEL = 1e-4  # km2, to the precision at which UTM is true here:
UTM_TRUE = 2e-4
UNSEEN = np.s_[:6, :9]


def smooth(seed, low=0.0, high=1.0):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(ROWS, COLUMNS)), 6)
    field = (field - field.min()) / np.ptp(field)
    return (low + (high - low) * field).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One scene: probability, SAR, reconstruction, an image from before, permanent water."""
    folder = tmp_path_factory.mktemp("scene")
    probability = smooth(0)
    probability[UNSEEN] = np.nan
    permanent = np.zeros((ROWS, COLUMNS), np.uint8)
    permanent[:, 100:] = 1
    colours = np.stack([smooth(seed, 0, 255) for seed in (1, 2, 3)])
    seen = np.where(np.isnan(probability), 0, 255)
    write_raster(folder / "probability.tif", probability[None], np.nan, GRID, UTM)
    write_raster(folder / "permanent.tif", permanent[None], None, GRID, UTM)
    sar = np.stack([smooth(4, -25, 0), smooth(5, -32, -7)])
    write_raster(folder / "sar.tif", sar, np.nan, GRID, UTM)
    rgb = np.concatenate([colours, seen[None]]).astype(np.uint8)
    write_raster(folder / "rgb.tif", rgb, None, GRID, UTM)
    before = np.stack([smooth(seed, 300, 3000) for seed in (6, 7, 8, 9)]).astype(np.int16)
    write_raster(folder / "before.tif", before, 0, GRID, UTM)
    codes = np.where(np.isnan(probability), 255, probability >= 0.5)
    write_mask(folder / "mask.tif", codes, GRID, UTM)
    write_polygons(folder / "mask.tif", folder / "water", minimum_area=300)
    return SimpleNamespace(
        folder=folder, probability=probability, permanent=permanent == 1, colours=rgb
    )


@pytest.fixture(scope="module")
def scene(files):
    return read_map(
        files.folder / "probability.tif",
        sar=files.folder / "sar.tif",
        rgb=files.folder / "rgb.tif",
        before=files.folder / "before.tif",
        permanent_water=files.folder / "permanent.tif",
        polygons=files.folder / "water.geojson",
    ).labelled(title="Río & <flood>", attribution="Contains modified Copernicus Sentinel data 2019")


# --- what the map knows -------------------------------------------------------------------------


def test_areas_are_those_of_every_pixel_at_every_threshold(files, scene):
    for step in range(1, 100):
        wet = files.probability >= step / 100
        expected = (wet & ~files.permanent).sum() * PIXEL, (wet & files.permanent).sum() * PIXEL
        assert scene.area(step / 100) == pytest.approx(expected, rel=UTM_TRUE), step
    assert scene.valid_area == pytest.approx((ROWS * COLUMNS - 54) * PIXEL, rel=UTM_TRUE)
    assert scene.area(0.3)[0] > scene.area(0.7)[0] > 0 < scene.area(0.7)[1]


def test_areas_do_not_depend_on_the_size_of_the_picture(files, scene):
    small = read_map(
        files.folder / "probability.tif",
        permanent_water=files.folder / "permanent.tif",
        size=32,
    )
    assert max(small.levels.shape) == 32
    np.testing.assert_allclose(small.areas, scene.areas)


def test_picture_agrees_with_the_areas(scene):
    # Web Mercator draws a little more pixels than the scene has, in the same proportion.
    for threshold in (0.3, 0.5, 0.7):
        codes = scene.classes(threshold)
        flood, permanent = scene.area(threshold)
        valid = np.isin(codes, (0, 1, 2)).sum()
        assert (codes == 1).sum() / valid == pytest.approx(flood / scene.valid_area, abs=0.01)
        assert (codes == 2).sum() / valid == pytest.approx(permanent / scene.valid_area, abs=0.01)
    assert (codes == 255).any()


def test_places_are_kept(files, scene):
    west, south, east, north = scene.grid.lon_lat_box()
    # 1.6 km by 1.2 km, where UTM says it is.
    corner = transform_points(UTM, "EPSG:4326", [690_000.0], [4_220_000.0])
    assert (west, north) == pytest.approx((corner[0][0], corner[1][0]), abs=6e-4)
    assert 111.3 * (north - south) == pytest.approx(1.2, abs=0.1)
    assert 111.3 * np.cos(np.radians(north)) * (east - west) == pytest.approx(1.6, abs=0.1)
    largest = scene.outlines[0].rings[0] / 4
    rows, columns = scene.levels.shape
    assert (largest.min(axis=0) > -2).all()
    assert (largest.max(axis=0) < (columns + 2, rows + 2)).all()


def test_without_a_crs_there_are_pixels(tmp_path, files):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write_raster(tmp_path / "p.tif", files.probability[None], np.nan, Affine.identity(), None)
        write_raster(tmp_path / "rgb.tif", files.colours, None, Affine.identity(), None)
    plain = read_map(tmp_path / "p.tif", rgb=tmp_path / "rgb.tif")
    assert plain.unit == "px"
    assert plain.area(0.5) == ((files.probability >= 0.5).sum(), 0)
    # Nothing was warped: the image is that of the file, pixel by pixel.
    image = np.moveaxis(plain.images["optical, from SAR"], -1, 0)
    assert (image[3] == files.colours[3]).all()
    assert (image[:3] == np.where(files.colours[3], files.colours[:3], 0)).all()
    made = print_figure(plain)
    assert all("km" not in text.get_text() for ax in made.axes for text in ax.texts)
    with pytest.raises(FloraError, match="no CRS"):
        flood_map(plain)
    with pytest.raises(FloraError, match="without a CRS"):
        StaticMap(plain, tiles="http://127.0.0.1/{z}/{x}/{y}", tiles_attribution="someone")


def test_refused_inputs(files):
    path = files.folder / "probability.tif"
    for options, message in [
        ({"size": 8}, "size 8"),
        ({"sar": files.folder / "none.tif"}, "sar .*no such file"),
        ({"polygons": files.folder / "sar.tif"}, "not a GeoJSON"),
    ]:
        with pytest.raises(FloraError, match=message):
            read_map(path, **options)
    with pytest.raises(FloraError, match="hundredths"):
        read_map(path).area(0.505)
    with pytest.raises(FloraError, match=r"threshold 1\.5"):
        read_map(path).labelled(threshold=1.5)


# --- the page -----------------------------------------------------------------------------------


def test_page_needs_nothing_else(scene, tmp_path):
    page = write_html(scene, tmp_path / "a" / "map.html").read_text()
    addresses = re.findall(r"""(?:src|href)=["']?([^"'> ]+)|url\(([^)]+)\)|(https?://\S+)""", page)
    assert {"".join(found).split(",")[0] for found in addresses} == {"data:"}
    assert "{{" not in page
    assert "<title>Río &amp; &lt;flood&gt;</title>" in page
    assert "Contains modified Copernicus Sentinel data 2019" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [image["name"] for image in data["images"]] == list(scene.images)
    assert base64.b64decode(data["images"][0]["source"].split(",")[1])[8:12] == b"WEBP"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["map.html"]
    with pytest.raises(FloraError, match="exists already"):
        write_html(scene, tmp_path / "a" / "map.html")


def test_a_title_that_looks_like_a_place_of_the_template_stays_a_title(scene):
    page = StaticMap(scene.labelled(title="{{data}} {{script}}")).page
    assert "<title>{{data}} {{script}}</title>" in page
    assert page.count('"levels":') == 1


def test_maps_are_made_without_matplotlib():
    code = (
        "import sys\n"
        "import flora.scenes.mapping, flora.maps.page, flora.maps.live, flora.maps.polygons\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_tiles_need_an_address_and_an_owner(scene):
    with pytest.raises(FloraError, match="expected an address"):
        StaticMap(scene, tiles="http://127.0.0.1/", tiles_attribution="someone")
    with pytest.raises(FloraError, match="name the owner"):
        StaticMap(scene, tiles="http://127.0.0.1/{z}/{x}/{y}")


class Driver:
    """A page with a map, and what a reader does to it."""

    def __init__(self, page):
        self.page = page
        self.errors, self.requests = [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path):
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=20_000)
        return self

    def pixels(self):
        """The canvas as it is drawn: (rows, columns, 4)."""
        self.page.evaluate(
            "new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))"
        )
        address = self.page.evaluate("document.querySelector('canvas').toDataURL()")
        image = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
        return np.asarray(image.convert("RGBA")).astype(int)

    def areas(self):
        return [read_km2(text) for text in self.page.locator(".areas dd").all_inner_texts()]

    def layer(self, name):
        return self.page.get_by_role("checkbox", name=name, exact=True)


@pytest.fixture(scope="module")
def map_file(scene, tmp_path_factory):
    return write_html(scene, tmp_path_factory.mktemp("page") / "map.html")


@pytest.fixture
def driver(browser, map_file):
    context = browser.new_context(viewport={"width": 1100, "height": 700}, offline=True)
    yield Driver(context.new_page()).open(map_file)
    context.close()


def read_km2(text):
    return float(re.fullmatch(r"([\d.,]+) km²", text)[1].replace(",", ""))


def shown(*areas):
    """What three decimals can say; browsers and Python differ in how they round a half."""
    return pytest.approx(areas, abs=5.1e-4)


def test_slider_shows_the_area_that_python_computed(driver, scene):
    assert driver.areas() == shown(*scene.area(0.5), scene.valid_area)
    before = driver.pixels()
    slider = driver.page.locator("#threshold")
    slider.focus()
    for _ in range(7):
        driver.page.keyboard.press("ArrowRight")
    assert driver.areas()[:2] == shown(*scene.area(0.57))
    assert driver.page.locator("label output").first.inner_text() == "0.57"
    said = slider.get_attribute("aria-valuetext")
    assert [read_km2(text) for text in re.findall(r"[\d.]+ km²", said)] == shown(*scene.area(0.57))
    slider.fill("0.2")
    assert driver.areas()[:2] == shown(*scene.area(0.2))
    assert (driver.pixels() != before).any(axis=-1).mean() > 0.05
    assert driver.errors == []
    assert [url[:8] for url in driver.requests if not url.startswith(("data:", "blob:"))] == [
        "file:///"
    ]


def test_a_map_beyond_its_interval_is_told_at_every_threshold(browser, scene, tmp_path):
    low, high = scene.area(0.8)[0], scene.area(0.3)[0]
    flood = AreaInterval(low, (low + high) / 2, high, 0.9)
    everything = AreaInterval(0, low, scene.valid_area, 0.9)
    told = scene.with_intervals(AreaIntervals(everything, flood, "km2"), "made for this test")
    context = browser.new_context(offline=True)
    page = Driver(context.new_page()).open(write_html(told, tmp_path / "map.html")).page
    for threshold, away in ((0.5, ""), (0.05, "more"), (0.95, "less"), (0.6, "")):
        page.locator("#threshold").fill(str(threshold))
        said = page.locator(".interval").inner_text()
        assert said.startswith("True area of flood") and "intervals made for this test." in said
        beyond = f"At this threshold, the map shows {away} flood."
        assert said.endswith(beyond) if away else "shows" not in said
    context.close()


def test_layers_are_switched_and_faded(driver):
    changed = {}
    for name in driver.page.locator(".layers label").all_inner_texts():
        before = driver.pixels()
        driver.layer(name).click()
        changed[name] = (driver.pixels() != before).any(axis=-1).mean()
        driver.layer(name).click()
        assert (driver.pixels() == before).all(), name
    assert set(changed) == {
        *("polygons", "flood and permanent water", "water probability"),
        *("optical, before", "optical, from SAR", "SAR VV"),
    }
    assert all(share > 0.005 for share in changed.values()), changed
    before = driver.pixels()
    driver.page.get_by_label("Opacity of flood and permanent water, percent").fill("20")
    assert (driver.pixels() != before).any(axis=-1).mean() > 0.05
    # The legend of the probability is there with its layer.
    assert not driver.page.locator(".ramp").is_visible()
    driver.layer("water probability").click()
    assert driver.page.locator(".ramp").is_visible()
    assert driver.errors == []


def test_swipe_is_dragged_and_moved_by_keys(driver):
    stage = driver.page.locator(".stage").bounding_box()
    driver.layer("SAR VV").click()
    driver.layer("flood and permanent water").click()
    driver.layer("optical, from SAR").click()
    right_only = driver.pixels()
    driver.page.locator("#swipe").check()
    middle = driver.pixels()
    half = middle.shape[1] // 2
    assert (middle[:, half + 4 :] == right_only[:, half + 4 :]).all()
    assert (middle[:, : half - 4] != right_only[:, : half - 4]).any(axis=-1).mean() > 0.3
    y = stage["y"] + stage["height"] / 2
    driver.page.mouse.move(stage["x"] + stage["width"] / 2, y)
    driver.page.mouse.down()
    driver.page.mouse.move(stage["x"] + stage["width"] / 4, y, steps=4)
    driver.page.mouse.up()
    dragged = driver.pixels()
    quarter = dragged.shape[1] // 4
    assert (dragged[:, quarter + 4 :] == right_only[:, quarter + 4 :]).all()
    assert (dragged[:, : quarter - 4] == middle[:, : quarter - 4]).all()
    divider = driver.page.get_by_role("slider", name="Line between the two sides")
    assert divider.get_attribute("aria-valuenow") == "25"
    divider.focus()
    driver.page.keyboard.press("ArrowRight")
    driver.pixels()
    assert divider.get_attribute("aria-valuenow") == "27"
    driver.page.locator("#other").select_option("water probability")
    assert (driver.pixels() != dragged).any()
    assert driver.errors == []


def test_mouse_and_keys_move_and_zoom(driver):
    start = driver.pixels()
    stage = driver.page.locator(".stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    driver.page.mouse.move(x, y)
    driver.page.mouse.down()
    driver.page.mouse.move(x - 50, y - 30, steps=3)
    driver.page.mouse.up()
    moved = driver.pixels()
    # What was in the middle is now 50 px further left and 30 px further up.
    window = np.s_[150:400, 200:500]
    shifted = np.s_[120:370, 150:450]
    assert np.abs(moved[shifted] - start[window]).mean() < 3 < np.abs(moved - start).mean()
    bar = driver.page.locator(".scale span").inner_text()
    driver.page.mouse.wheel(0, -600)
    zoomed = driver.pixels()
    assert driver.page.locator(".scale span").inner_text() != bar
    driver.page.locator(".stage").focus()
    driver.page.keyboard.press("ArrowLeft")
    assert (driver.pixels() != zoomed).any()
    for key in ("+", "-", "-", "0"):
        before = driver.pixels()
        driver.page.keyboard.press(key)
        assert (driver.pixels() != before).any(), key
    assert (driver.pixels() == start).all()
    driver.page.get_by_role("button", name="Zoom in").click()
    assert (driver.pixels() != start).any()
    driver.page.get_by_role("button", name="Whole scene").click()
    assert (driver.pixels() == start).all()
    assert driver.errors == []


def test_scale_bar_is_true(driver, scene):
    length = driver.page.locator(".scale i").bounding_box()["width"]
    text = driver.page.locator(".scale span").inner_text()
    metres = float(text.split()[0]) * (1000 if text.endswith("km") else 1)
    # The whole scene is 1.6 km wide (and a little more, for UTM is turned here) and fills 780 px.
    assert metres / length == pytest.approx(1630 / 780, rel=0.03)


def test_a_point_is_read_out(driver, scene):
    stage = driver.page.locator(".stage").bounding_box()
    driver.page.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    text = driver.page.locator(".place").inner_text()
    west, south, east, north = scene.grid.lon_lat_box()
    found = re.fullmatch(r"([\d.]+)° N, ([\d.]+)° W · probability ([\d.]+)", text)
    assert float(found[1]) == pytest.approx((south + north) / 2, abs=3e-4)
    assert float(found[2]) == pytest.approx(-(west + east) / 2, abs=3e-4)
    rows, columns = scene.levels.shape
    level = scene.levels[rows // 2, columns // 2] & 127
    assert float(found[3]) == pytest.approx(level / 100, abs=0.05)


def test_fingers_pinch(browser, map_file):
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, has_touch=True, color_scheme="dark", offline=True
    )
    driver = Driver(context.new_page()).open(map_file)
    start = driver.pixels()
    session = context.new_cdp_session(driver.page)
    for kind, gap in [("Start", 40), ("Move", 60), ("Move", 120), ("End", None)]:
        points = [{"x": 195 + side, "y": 240} for side in (-gap, gap)] if gap else []
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    pinched = driver.pixels()
    overflow = driver.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    theme = driver.page.evaluate("document.documentElement.dataset.theme")
    context.close()
    assert (pinched != start).any(axis=-1).mean() > 0.2
    assert overflow <= 0
    assert theme == "dark"
    assert driver.errors == []


def test_two_maps_in_a_book_page(browser, scene, files, tmp_path):
    other = read_map(files.folder / "probability.tif", size=64).labelled(threshold=0.3)
    page_file = tmp_path / "book.html"
    page_file.write_text(
        '<!doctype html><html data-theme="dark"><body>'
        f"{StaticMap(scene)._repr_html_()}<p>between</p>{StaticMap(other)._repr_html_()}"
    )
    context = browser.new_context(viewport={"width": 390, "height": 800}, offline=True)
    driver = Driver(context.new_page())
    driver.page.goto(page_file.as_uri())
    frames = driver.page.frames[1:]
    for frame in frames:
        frame.wait_for_selector("html[data-ready]", timeout=20_000)
    assert [frame.locator("dt").first.inner_text() for frame in frames] == ["flood", "water"]
    frames[0].locator("#threshold").fill("0.8")
    assert [read_km2(frames[0].locator("dd").first.inner_text())] == shown(scene.area(0.8)[0])
    assert [read_km2(frames[1].locator("dd").first.inner_text())] == shown(other.area(0.3)[0])
    # Frames are as high as what they hold, and follow the theme of the page around them.
    for frame in frames:
        assert frame.evaluate("document.documentElement.scrollHeight - innerHeight") <= 2
        assert frame.evaluate("document.documentElement.dataset.theme") == "dark"
    driver.page.evaluate("document.documentElement.dataset.theme = 'light'")
    frames[0].wait_for_selector("html[data-theme=light]")
    overflow = driver.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    context.close()
    assert overflow <= 0
    assert driver.errors == []


def test_base_map_comes_when_it_is_asked_for_and_only_then(browser, scene, tmp_path):
    path = write_html(
        scene,
        tmp_path / "map.html",
        tiles="http://127.0.0.1:1/{z}/{x}/{y}.png",
        tiles_attribution="Tiles of a test",
    )
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    asked = []
    answer = {"status": 404}

    def serve(route):
        asked.append(route.request.url)
        if answer["status"] == 404:
            route.abort()
        else:
            route.fulfill(**answer)

    context.route("http://127.0.0.1:1/**", serve)
    driver = Driver(context.new_page()).open(path)
    assert asked == []
    assert "Tiles of a test" in driver.page.locator("footer").inner_text()
    start = driver.pixels()
    driver.layer("base map (from the network)").check()
    driver.page.wait_for_timeout(300)
    assert asked
    # Without a network the ground stays plain, and nothing else is disturbed.
    assert (driver.pixels() == start).all()
    z, x, y = map(int, re.search(r"/(\d+)/(\d+)/(\d+)\.png", asked[0]).groups())
    west, _, _, north = scene.grid.lon_lat_box()
    assert abs((west + 180) / 360 * 2**z - x) < 3
    turned = np.arcsinh(np.tan(np.radians(north)))
    assert abs((1 - turned / np.pi) / 2 * 2**z - y) < 3
    context.close()


# --- print and live -----------------------------------------------------------------------------


def test_figure_for_print(scene, tmp_path):
    made = print_figure(scene, threshold=0.6)
    titles = [ax.get_title() for ax in made.axes]
    assert titles == [
        *("optical, before", "SAR VV", "optical, from SAR"),
        "flood, probability ≥ 0.60",
    ]
    flood, permanent = scene.area(0.6)
    legend = [text.get_text() for text in made.axes[-1].get_legend().get_texts()]
    assert legend == [f"flood {flood:.3f} km²", f"permanent water {permanent:.3f} km²"]
    written = [text.get_text() for ax in made.axes for text in ax.texts]
    assert "N" in written
    assert any(text.endswith(" m") for text in written)
    # Four panels that fit a page stand two by two, under lines that fit them.
    assert made.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 2)
    source = made.get_supxlabel()
    assert "Copernicus Sentinel data 2019" in source.replace("\n", " ")
    assert max(map(len, source.splitlines())) <= 75
    made.savefig(tmp_path / "flood.pdf")
    assert (tmp_path / "flood.pdf").read_bytes()[:5] == b"%PDF-"
    with pytest.raises(FloraError, match="expected one of"):
        print_figure(scene, before="nothing")


def test_live_map_follows_its_slider(scene):
    pytest.importorskip("leafmap")
    live = flood_map(scene)
    layers = {layer.name: layer for layer in live.layers}
    assert {"SAR VV", "optical, from SAR", "optical, before", "water probability"} <= set(layers)
    water = layers["flood and permanent water"]
    west, south, east, north = scene.grid.lon_lat_box()
    np.testing.assert_allclose(water.bounds, ((south, west), (north, east)))
    assert [layers["SAR VV"].visible, layers["optical, from SAR"].visible] == [True, False]
    panel = next(c.widget for c in live.controls if hasattr(c, "widget") and _slider(c.widget))
    slider, reading = panel.children[:2]
    assert f"{scene.area(0.5)[0]:.3f} km²" in reading.value
    before = water.url
    slider.value = 0.62
    assert f"{scene.area(0.62)[0]:.3f} km²" in reading.value
    assert water.url != before
    assert layers["polygons"].data["features"][0]["properties"]["class"] == "water"
    with pytest.raises(FloraError, match="expected one of"):
        flood_map(scene, swipe="nothing")


def _slider(widget):
    children = getattr(widget, "children", ())
    return bool(children) and getattr(children[0], "description", "") == "threshold"


def test_live_map_says_what_is_missing(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyleaflet", None)
    with pytest.raises(FloraError, match="pip install leafmap"):
        flood_map(scene)
