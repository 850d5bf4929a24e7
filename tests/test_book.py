"""The book builds without a warning, and every page works in a browser, wide and narrow.

The book is built from the notebooks' committed outputs into a temporary folder, or taken from the
folder that FLORA_BOOK names. The browser is Chromium or Chrome, found on PATH or named by
FLORA_BROWSER; without one, the walk is skipped and the static checks remain.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, Page

from tools.build_book import toc_pages

ROOT = Path(__file__).resolve().parent.parent
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
        if "_static" not in path.relative_to(site).parts
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


def test_chapters_open_on_colab_at_the_address_of_pyproject(
    site: Path, pages: dict[str, Links]
) -> None:
    from tools.build_book import repository_url

    path = urlsplit(repository_url()).path
    for page in content(pages):
        if page.startswith("notebooks/"):
            notebook = page.replace(".html", ".ipynb")
            expected = f"https://colab.research.google.com/github{path}/blob/main/{notebook}"
            assert expected in pages[page].targets


# --- the walk -----------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    """A file server that does not write a line for every request."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """The book's address on a server of this machine only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def visit(page: Page, address: str, path: str) -> list[str]:
    """Load one page of the book and tell what is wrong with it."""
    problems: list[str] = []

    def own(url: str) -> bool:
        return url.startswith(address)

    def on_console(message) -> None:
        # What a blocked foreign host causes is reported at that host's address.
        if message.type == "error" and own(message.location.get("url", "") or address):
            problems.append(f"console: {message.text}")

    def on_response(response) -> None:
        if own(response.url) and response.status >= 400:
            problems.append(f"status {response.status}: {response.url}")

    def on_failed(request) -> None:
        # The browser itself drops what is under way, a favicon say, when the walk goes on.
        if own(request.url) and request.failure != "net::ERR_ABORTED":
            problems.append(f"failed: {request.url} {request.failure}")

    listeners = {
        "console": on_console,
        "pageerror": lambda error: problems.append(f"error: {error}"),
        "response": on_response,
        "requestfailed": on_failed,
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(address + path, wait_until="load")
    # Pictures below the fold may load lazily.
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    page.wait_for_function("[...document.images].every(image => image.complete)", timeout=10_000)
    problems += [
        f"image does not load: {source}"
        for source in page.evaluate(
            "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
        )
    ]
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    if overflow > 0:
        problems.append(f"{overflow} px wider than the window")
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return [f"{path}: {problem}" for problem in problems]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_walk(
    browser: Browser, address: str, pages: dict[str, Links], width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, service_workers="block"
    )
    context.route(lambda url: not url.startswith(address), lambda route: route.abort())
    page = context.new_page()
    problems = [problem for path in content(pages) for problem in visit(page, address, path)]
    theme = page.evaluate("document.documentElement.dataset.theme")
    context.close()
    assert problems == []
    assert theme == scheme


def test_walk_notices_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        '<img src="none.png"><div style="width: 2000px">wide</div>'
        "<script>console.error('complaint'); undefinedName();</script>"
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context(viewport={"width": 390, "height": 900})
    found = "\n".join(
        visit(context.new_page(), f"http://127.0.0.1:{server.server_port}/", "bad.html")
    )
    context.close()
    server.shutdown()
    server.server_close()
    for problem in ("complaint", "undefinedName", "status 404", "does not load", "px wider"):
        assert problem in found
