"""The live map in JupyterLab, driven in a real browser as a reader would, without a network."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import numpy as np
import pytest
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from flora.maps.layers import read_map
from flora.maps.polygons import write_polygons
from tests.maps.test_floods import write_mask
from tests.support.fake_data import write_raster

pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: it comes with flora[book]")
pytest.importorskip("leafmap", reason="leafmap is not installed: it comes with flora[book]")

CRS = "EPSG:32630"
GRID = Affine(10.0, 0.0, 690_000.0, 0.0, -10.0, 4_220_000.0)
SIDE = 96
CELL = """\
from flora import flood_map, read_map

scene = read_map(
    "probability.tif", sar="sar.tif", before="before.tif", permanent_water="permanent.tif",
    polygons="water.geojson",
)
flood_map(scene.labelled(attribution="Modified Copernicus Sentinel data 2019"))
"""


def smooth(seed, low, high):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 6)
    return (low + (high - low) * (field - field.min()) / np.ptp(field)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A notebook of one cell, and the files that it shows."""
    folder = tmp_path_factory.mktemp("live")
    probability = smooth(0, 0, 1)
    permanent = (np.arange(SIDE) >= SIDE // 2).repeat(SIDE).reshape(SIDE, SIDE).T
    sar = np.stack([smooth(1, -25, 0), smooth(2, -32, -7)])
    before = np.stack([smooth(seed, 300, 3000) for seed in (3, 4, 5, 6)]).astype(np.int16)
    write_raster(folder / "probability.tif", probability[None], np.nan, GRID, CRS)
    write_raster(folder / "permanent.tif", permanent[None].astype(np.uint8), None, GRID, CRS)
    write_raster(folder / "sar.tif", sar, np.nan, GRID, CRS)
    write_raster(folder / "before.tif", before, 0, GRID, CRS)
    write_mask(folder / "mask.tif", probability >= 0.5, GRID, CRS)
    write_polygons(folder / "mask.tif", folder / "water")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    nbformat.write(notebook, folder / "live.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """JupyterLab on a free port of this computer, with settings of its own; ends with the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = tmp_path_factory.mktemp("jupyter")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    names += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    options = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "root_dir": folder}
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            "--IdentityProvider.token=",
            *(f"--ServerApp.{name}={value}" for name, value in options.items()),
        ],
        env={**os.environ, **{name: str(own / name) for name in names}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(300):
            try:
                direct.open(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "JupyterLab ended"
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(20)


IMAGES = """() => [...document.querySelectorAll(".leaflet-image-layer")].map(image => ({
    left: image.parentElement.className.includes("flora-left"),
    url: image.src, opacity: image.style.opacity, clip: image.parentElement.style.clip}))"""

LEVELS = (
    """names => names.map(name => Number(getComputedStyle(document.querySelector(name)).zIndex))"""
)


def test_live_map_in_jupyterlab(lab, folder, browser):
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())
    page.goto(f"{lab}/lab/tree/live.ipynb?reset", timeout=60_000)
    page.get_by_text("| Idle").wait_for(timeout=60_000)  # in the status bar: a kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_selector(".leaflet-image-layer", state="attached", timeout=60_000)
    shown = page.locator(".leaflet-container")
    shown.evaluate("map => map.scrollIntoView({block: 'center'})")
    panel = shown.locator(".leaflet-control")

    def until(condition, what):
        for _ in range(60):
            if condition():
                return
            page.wait_for_timeout(100)
        raise AssertionError(f"{what}; {errors}")

    def images(left):
        return [image for image in page.evaluate(IMAGES) if image["left"] == left]

    def outlines():
        return page.locator(".leaflet-container path").count()

    def switch(name):
        panel.locator(".widget-checkbox", has_text=name).locator("input").click()

    # Layers: each is there, and a switch hides and shows it again.
    expected = len(json.loads((folder / "water.geojson").read_text())["features"])
    until(lambda: outlines() == expected > 0, "outlines are not drawn")
    switch("polygons")
    until(lambda: outlines() == 0, "outlines stay")
    switch("polygons")
    until(lambda: outlines() == expected, "outlines do not come back")
    order = page.evaluate(LEVELS, [".leaflet-flora-right-pane", ".leaflet-overlay-pane"])
    assert order[0] < order[1], "the images hide the outlines"
    assert {image["opacity"] for image in images(left=False)} >= {"0", "0.8"}
    switch("water probability")
    until(lambda: all(i["opacity"] != "0" for i in images(left=False)), "a layer stays hidden")
    switch("flood and permanent water")
    until(lambda: all(i["opacity"] != "0.8" for i in images(left=False)), "water stays")
    switch("flood and permanent water")

    # The threshold goes to the kernel and comes back as a mask and areas.
    made = read_map(folder / "probability.tif", permanent_water=folder / "permanent.tif")
    before = {image["url"] for image in images(left=False)}
    handle = panel.locator(".widget-slider", has_text="threshold").locator(".noUi-handle")
    handle.focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    flood, permanent = made.area(0.40)
    assert flood > made.area(0.50)[0]
    reading = panel.filter(has_text="mapped")
    for area in (flood, permanent):
        until(lambda area=area: f"{area:.3f} km²" in reading.inner_text(), "areas stay")
    until(lambda: {i["url"] for i in images(left=False)} - before, "the mask stays")

    # Opacity moves in the browser alone.
    row = panel.locator(".widget-hbox", has_text="flood and permanent water").last
    row.locator(".noUi-handle").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    until(lambda: any(i["opacity"] == "0.6" for i in images(left=False)), "opacity stays")

    # The line between before and after can be dragged.
    clips = [images(left)[0]["clip"] for left in (True, False)]
    around = shown.bounding_box()
    x, y = around["x"] + around["width"] / 2, around["y"] + around["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 150, y, steps=10)
    page.mouse.up()
    after = [images(left)[0]["clip"] for left in (True, False)]
    edges = [[float(n) for n in re.findall(r"[\d.]+", clip)] for clip in (*clips, *after)]
    # rect(top, right, bottom, left): where the left side ends, and the right one begins
    assert edges[0][1] - edges[2][1] == pytest.approx(150, abs=15)
    assert edges[1][3] - edges[3][3] == pytest.approx(150, abs=15)

    assert "Modified Copernicus Sentinel data 2019" in shown.inner_text()
    assert not errors
    page.close()
