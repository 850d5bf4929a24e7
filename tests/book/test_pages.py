"""The book builds without a warning, and every page works in a browser, wide and narrow.

The book is built from the notebooks' committed outputs into a temporary folder, or taken from the
folder that FLORA_BOOK names. It is built to need no network where npm can give its scripts; else
what those draw, formulas above all, is not checked, and the tests of it are skipped. The browser
is Chromium or Chrome, found on PATH or named by FLORA_BROWSER; without one, the walk is skipped
and the static checks remain.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, Frame, Page

from tests.support.book_walk import OPEN, describe, is_vendored, moves, pans, typeset, visit
from tools.build_book import book_config, repository_url, toc_pages
from tools.npm import PACKAGES, NpmError, unpacked
from tools.serve import served

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000
# Written by Sphinx, without content of ours to walk through.
GENERATED = {"genindex.html", "search.html", "index.html", "py-modindex.html"}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built book."""
    if "FLORA_BOOK" in os.environ:
        folder = Path(os.environ["FLORA_BOOK"])
        assert (folder / "index.html").is_file(), f"FLORA_BOOK={folder} holds no index.html"
        return folder
    output = tmp_path_factory.mktemp("book")
    command = [sys.executable, ROOT / "tools/build_book.py", "--committed", "--output", output]
    try:
        unpacked(PACKAGES["mathjax"])
        command.append("--offline")
    except NpmError as error:
        print(f"the book is built with its scripts elsewhere: {error}")
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return output / "_build" / "html"


class Links(HTMLParser):
    """What one page points to, and what can be pointed to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.sources: list[str] = []
        self.anchors: set[str] = set()
        self.undescribed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.targets.append(values["href"])
        if tag in ("img", "script", "source", "video", "iframe") and "src" in values:
            self.sources.append(values["src"])
        if tag == "link" and "href" in values:
            self.sources.append(values["href"])
        if tag == "img" and not values.get("alt", "").strip():
            self.undescribed.append(values.get("src", "?"))


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Links]:
    """Every page of the site by its path, parsed."""
    return {
        path.relative_to(site).as_posix(): Links(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if not {"_static", "vendor"} & set(path.relative_to(site).parts)
    }


def content(pages: dict[str, Links]) -> list[str]:
    return [page for page in pages if page not in GENERATED]


def test_every_page_of_the_table_of_contents_is_built(pages: dict[str, Links]) -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert sorted(content(pages)) == sorted(f"{page}.html" for page in toc_pages(toc))


def test_links_and_anchors_of_our_own_resolve(site: Path, pages: dict[str, Links]) -> None:
    broken = []
    for page, links in pages.items():
        for target in links.targets + links.sources:
            if urlsplit(target).scheme or target.startswith("//"):
                continue
            address, anchor = urldefrag(urljoin(page, target))
            path = unquote(urlsplit(address).path) or page
            found = path in pages or (site / path).is_file()
            # "#" alone is the top of a page, and has no anchor.
            if not found or (
                anchor and path in pages and unquote(anchor) not in anchors(pages[path])
            ):
                broken.append(f"{page} -> {target}")
    assert broken == []


def anchors(links: Links) -> set[str]:
    return links.anchors | {"top"}


def test_every_image_has_a_description(pages: dict[str, Links]) -> None:
    assert {page: links.undescribed for page, links in pages.items() if links.undescribed} == {}


def test_chapters_open_on_colab_and_binder_at_the_address_of_pyproject(
    pages: dict[str, Links],
) -> None:
    path = urlsplit(repository_url()).path
    branch = book_config()["repository"]["branch"]
    for page in content(pages):
        if page.startswith("notebooks/"):
            notebook = page.replace(".html", ".ipynb")
            assert {
                f"https://colab.research.google.com/github{path}/blob/{branch}/{notebook}",
                f"https://mybinder.org/v2/gh{path}/{branch}?urlpath=lab/tree/{notebook}",
            } <= set(pages[page].targets)


def test_site_is_small(site: Path) -> None:
    sizes = [path.stat().st_size for path in site.rglob("*") if path.is_file()]
    assert sum(sizes) < 40 * MEGABYTE


def test_every_page_is_small(site: Path, pages: dict[str, Links]) -> None:
    # Of its own: what all pages share is loaded once, and weighed by benchmarks/book.py.
    for page in content(pages):
        sources = [source for source in pages[page].sources if not source.startswith("data:")]
        own = {(site / page).parent / unquote(source) for source in sources}
        own = {path.resolve() for path in own if path.is_file() and "_images" in path.parts}
        weight = (site / page).stat().st_size + sum(path.stat().st_size for path in own)
        assert weight < 3 * MEGABYTE, (page, weight)


def test_recorded_times_keep_their_limits() -> None:
    # Measured by benchmarks/book.py, because a test has no quiet computer to measure on.
    record = json.loads((ROOT / "results/book.json").read_text(encoding="utf-8"))
    assert max(page["readable_s"] for page in record["pages"].values()) < 2.5
    assert sum(record["notebooks_s"].values()) < 600.0


# --- the walk -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    with served(site) as url:
        yield url


def new_page(browser: Browser, address: str, width: int = 1440, scheme: str = "light") -> Page:
    """A tab that reaches the book and no other host."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, service_workers="block"
    )
    context.route(lambda url: not url.startswith(address), lambda route: route.abort())
    return context.new_page()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_walk(
    browser: Browser, address: str, site: Path, pages: dict[str, Links], width: int, scheme: str
) -> None:
    page = new_page(browser, address, width, scheme)
    offline = is_vendored(site)
    visits = [visit(page, address, path, offline=offline) for path in content(pages)]
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.context.close()
    assert [problem for problems in visits for problem in problems] == []
    assert theme == scheme


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_a_chapter_opens_with_a_picture(
    browser: Browser, address: str, pages: dict[str, Links], width: int, height: int
) -> None:
    page = new_page(browser, address, width)
    below = set()
    for path in content(pages):
        if path.startswith("notebooks/"):
            page.goto(address + path, wait_until="load")
            first = page.locator("article figure:visible").first.bounding_box()
            # Of a tall picture, a sixth of the screen is enough to see that there is one.
            if height - first["y"] < min(first["height"], height / 6):
                below.add(Path(path).stem)
    page.context.close()
    assert below == set()


def test_no_code_is_cut_on_a_wide_screen(
    browser: Browser, address: str, pages: dict[str, Links]
) -> None:
    page = new_page(browser, address)
    cut = []
    for path in content(pages):
        page.goto(address + path, wait_until="load")
        page.evaluate(OPEN)
        cut += page.evaluate(
            """path => [...document.querySelectorAll("article div.highlight pre")]
            .filter(code => !code.closest(".cell_output"))
            .filter(code => code.scrollWidth > code.clientWidth + 1)
            .map(code => `${path}: ${code.innerText.slice(0, 80)}`)""",
            path,
        )
    page.context.close()
    assert cut == []


def test_formulas_are_typeset_without_a_network(
    browser: Browser, address: str, site: Path, pages: dict[str, Links]
) -> None:
    if not is_vendored(site):
        pytest.skip("no npm or no registry: the book was built with its scripts elsewhere")
    page = new_page(browser, address)
    typeset_pages = []
    for path in content(pages):
        if 'class="math' in (site / path).read_text(encoding="utf-8"):
            page.goto(address + path, wait_until="load")
            typeset(page)
            drawn = page.locator(".math mjx-container").first
            assert drawn.bounding_box()["height"] > 5
            # The letters' outlines are there, too, and not the browser's own serif.
            page.wait_for_function(
                "[...document.fonts].some(f => f.family.startsWith('MJX') && f.status == 'loaded')"
            )
            typeset_pages.append(path)
    page.context.close()
    assert typeset_pages


def test_sliders_change_the_picture_and_maps_pan(
    browser: Browser, address: str, pages: dict[str, Links]
) -> None:
    page = new_page(browser, address)
    moved, dead = 0, []
    for path in content(pages):
        page.goto(address + path, wait_until="load")
        page.evaluate(OPEN)
        for frame in page.frames:
            for slider in frame.locator("input[type=range]:enabled").all():
                moved += 1
                if not moves(page, slider):
                    dead.append(f"{path}: {describe(slider)}")
        for drawn in page.locator(".flora-map, .leaflet-container").all():
            if not pans(page, drawn):
                dead.append(f"{path}: {describe(drawn)}")
    page.context.close()
    assert dead == []
    assert moved > 0


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which looks for barriers in a page."""
    try:
        folder = unpacked(PACKAGES["axe-core"])
    except NpmError as error:
        pytest.skip(f"axe-core is not at hand: {error}")
    return (folder / "axe.min.js").read_text(encoding="utf-8")


# Two buttons of the theme: the visible "Search" goes on with its shortcut, and the name "Color
# mode" is another than the hidden titles of its icons. Both names say what the button does.
NOT_OURS = {"label-content-name-mismatch": ("search-button-field", "theme-switch-button")}


def barriers(page: Frame, axe: str, rules: dict[str, object] | None = None) -> list[str]:
    """What hinders a reader of a frame who does not see, or sees little, or has no mouse."""
    page.evaluate(axe)
    options = {"resultTypes": ["violations"], "iframes": False, **(rules or {})}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{violation['impact']}, {violation['id']}: {node['html'][:160]} {node['any'][:1]}"
        for violation in found["violations"]
        for node in violation["nodes"]
        if violation["impact"] in ("serious", "critical")
        and not any(name in node["html"] for name in NOT_OURS.get(violation["id"], ()))
    ]


def test_no_barrier_for_a_reader(
    browser: Browser, address: str, pages: dict[str, Links], axe: str
) -> None:
    page = new_page(browser, address)
    found = []
    for path in content(pages):
        page.emulate_media(color_scheme="light")
        page.goto(address + path, wait_until="load")
        page.evaluate(OPEN)
        typeset(page)
        found += [f"{path}: {bar}" for frame in page.frames for bar in barriers(frame, axe)]
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme == 'dark'")
        contrast = {"runOnly": ["color-contrast"]}
        found += [
            f"{path}, dark: {bar}"
            for frame in page.frames
            for bar in barriers(frame, axe, contrast)
        ]
    page.context.close()
    assert found == []


# --- the walk can fail --------------------------------------------------------------------------

BAD = """<!doctype html><html lang="en"><title>Bad</title><body>
<img src="none.png"><div style="width: 2000px">wide</div>
<script>console.error('complaint'); undefinedName();</script>
<p>left as \\(x^2\\)</p><canvas width="90" height="90"></canvas><iframe></iframe>
<script src="http://127.0.0.2:9/foreign.js"></script>
<div class="flora-dead">a picture<input type="range"></div>
<div class="flora-live"><input type="range" oninput="this.nextSibling.textContent = this.value"
><output></output></div>
<div class="flora-map" style="height: 90px">a map</div></body></html>"""


def test_walk_notices_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD)
    with served(tmp_path) as address:
        page = new_page(browser, address, 390)
        found = "\n".join(visit(page, address, "bad.html", offline=True))
        sliders = page.locator("input").all()
        assert [moves(page, slider) for slider in sliders] == [False, True]
        assert not pans(page, page.locator(".flora-map"))
        page.context.close()
    for problem in (
        *("complaint", "undefinedName", "status 404", "image does not load", "px wider"),
        *("not typeset: left as", "of one colour", "empty: <iframe", "foreign: http://127.0.0.2"),
    ):
        assert problem in found, found


def test_barriers_are_noticed(browser: Browser, tmp_path: Path, axe: str) -> None:
    (tmp_path / "bad.html").write_text('<input type="range"><p style="color: #ddd">pale</p>')
    with served(tmp_path) as address:
        page = new_page(browser, address)
        page.goto(address + "bad.html")
        found = "\n".join(barriers(page.main_frame, axe))
        page.context.close()
    assert "label" in found
    assert "color-contrast" in found
