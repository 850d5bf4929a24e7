"""Print the built book into one PDF, every page in reading order, with an outline: `make pdf`.

Formulas must be typeset before they are printed, so the book is best one that needs no network.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import yaml
from playwright.sync_api import Browser, Page
from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    Destination,
    DictionaryObject,
    Fit,
    FloatObject,
    NameObject,
    NullObject,
)

from tools.browser import launched
from tools.build_book import ROOT, toc_pages
from tools.serve import served

# Paper has no switch to open and no second colour scheme; a figure is not cut in two, and a line
# of code that is too long goes on in the next.
STYLE = """
details > summary, #jb-print-toc, .headerlink, .copybtn, .prev-next-footer, #pst-secondary-sidebar,
.bd-header-article, .bd-sidebar-primary, .header-article-items,
.tag_colab, .toggle-button { display: none !important }
#jb-print-docs-body h1 { line-height: 1.3 !important; margin-bottom: 1rem !important }
pre { white-space: pre-wrap !important }
img, canvas, figure, tr, .cell_input, .sd-card { break-inside: avoid }
*, ::before, ::after { animation: none !important; transition: none !important }
"""
# Chromium notes where an anchor lies only if a link on the page leads there, seen or unseen.
PREPARE = """async () => {
  document.querySelectorAll("details").forEach(box => box.open = true);
  document.querySelectorAll("img").forEach(image => image.loading = "eager");
  if (window.MathJax && window.MathJax.startup) await window.MathJax.startup.promise;
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
  const unseen = document.createElement("nav");
  unseen.style.display = "none";
  document.querySelectorAll("article [id]").forEach(element =>
    unseen.append(Object.assign(document.createElement("a"), {href: "#" + element.id})));
  document.body.append(unseen);
  return [...document.querySelectorAll(".math")].every(f => f.querySelector("mjx-container"));
}"""
# Their order is that of Chromium's outline, whose own titles lose a space at every line's end.
HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
  .filter(heading => heading.getClientRects().length)
  .map(heading => [Number(heading.tagName[1]), heading.innerText.trim().replace(/\\s+/g, " ")])"""
A4_HEIGHT = 842.0  # points
FOOTER = """<div style="width: 100%; padding: 0 15mm; font: 8px sans-serif; color: #555;
display: flex; justify-content: space-between"><span class="title"></span>
<span class="pageNumber"></span></div>"""


def main(arguments: list[str] | None = None) -> int:
    """Print the book that lies in a folder, and return the exit status."""
    parser = argparse.ArgumentParser(description="Print the built book into one PDF.")
    parser.add_argument("--html", type=Path, default=ROOT / "_build/html", help="the built pages")
    parser.add_argument("--out", type=Path, default=ROOT / "_build/flora.pdf")
    options = parser.parse_args(arguments)
    if not (options.html / "index.html").is_file():
        print(f"{options.html} holds no book: make book OFFLINE=1 builds one", file=sys.stderr)
        return 1
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [f"{page}.html" for page in toc_pages(toc)]
    with launched() as browser:
        printed = print_pages(browser, options.html, pages)
    partial = options.out.with_suffix(".partial")
    partial.write_bytes(printed)
    partial.replace(options.out)
    print(f"The book is printed, {len(printed) / 1e6:.1f} MB:\n{options.out}")
    return 0


def print_pages(browser: Browser, html: Path, pages: list[str]) -> bytes:
    """One PDF of several pages of a book.

    Args:
        browser: A running one.
        html: Folder of the built book.
        pages: Their paths in it, in reading order.

    Raises:
        SystemExit: If a page's formulas cannot be typeset.
    """
    book = PdfWriter()
    # Where a page's anchors came to lie: (number of the sheet, height on it); "" is the top.
    places: dict[str, dict[str, tuple[int, float]]] = {}
    with served(html) as address:
        # As wide as the paper's text, so that figures and tables are laid out for it.
        page = browser.new_page(viewport={"width": 800, "height": 1100}, color_scheme="light")
        for path in pages:
            headings, document = print_page(page, address + path)
            reader = PdfReader(io.BytesIO(document))
            start = len(book.pages)
            book.append(reader, import_outline=False)
            add_outline(book, reader, start, headings)
            places[path] = {"": (start, A4_HEIGHT)} | {
                name.removeprefix("/"): (start + number, float(place.top or A4_HEIGHT))
                for name, place in reader.named_destinations.items()
                if (number := reader.get_destination_page_number(place)) is not None
            }
    for path, next_path in zip(pages, [*pages[1:], None], strict=True):
        last = places[next_path][""][0] if next_path else len(book.pages)
        for sheet in book.pages[places[path][""][0] : last]:
            for note in sheet.get("/Annots", []):
                lead_within(book, note.get_object(), path, address, places)
    book.page_mode = "/UseOutlines"
    book.compress_identical_objects()
    written = io.BytesIO()
    book.write(written)
    return written.getvalue()


def add_outline(
    book: PdfWriter, reader: PdfReader, start: int, headings: list[tuple[int, str]]
) -> None:
    """Enter a page's title and sections of the second level, where the page starts at a sheet."""
    chapter = None
    for (level, title), place in zip(headings, flat(reader.outline), strict=True):
        number = reader.get_destination_page_number(place)
        if level <= 2 and number is not None:
            fit = Fit.xyz(top=float(place.top or A4_HEIGHT))
            entry = book.add_outline_item(
                title=title, page_number=start + number, parent=chapter, fit=fit, is_open=False
            )
            chapter = chapter or entry


def flat(outline: Iterable[Any]) -> Iterator[Destination]:
    """The entries of an outline in order, whatever their depth."""
    for entry in outline:
        if isinstance(entry, list):
            yield from flat(entry)
        else:
            yield entry


def lead_within(
    book: PdfWriter,
    note: DictionaryObject,
    path: str,
    address: str,
    places: dict[str, dict[str, tuple[int, float]]],
) -> None:
    """Point a link of a printed page to its target's sheet instead of the server or a bare name."""
    action = note.get("/A")
    url = str(action.get_object().get("/URI", "")) if action else ""
    if "/Dest" in note:
        anchor = str(note["/Dest"]).removeprefix("/")
    elif url.startswith(address):
        page, anchor = urldefrag(url.removeprefix(address))
        path, anchor = unquote(page) or path, unquote(anchor)
    else:
        return
    note.pop("/A", None)
    note.pop("/Dest", None)
    if path in places:  # else a file beside the pages, which is not in print
        number, top = places[path].get(anchor, places[path][""])
        target = [book.pages[number].indirect_reference, NameObject("/XYZ")]
        place = [NullObject(), FloatObject(top), NullObject()]  # left edge and zoom stay
        note[NameObject("/Dest")] = ArrayObject([*target, *place])


def print_page(page: Page, url: str) -> tuple[list[tuple[int, str]], bytes]:
    """The headings of one page, each with its level, and the page as a PDF of its own."""
    page.goto(url, wait_until="load")
    page.emulate_media(media="print", color_scheme="light")
    page.add_style_tag(content=STYLE)
    if not page.evaluate(PREPARE):
        raise SystemExit(f"{url}: formulas are not typeset; build the book with OFFLINE=1")
    headings = [(level, title) for level, title in page.evaluate(HEADINGS)]
    document = page.pdf(
        format="A4",
        scale=0.8,  # 100 columns of code fit a line
        margin={"top": "15mm", "bottom": "18mm", "left": "15mm", "right": "15mm"},
        print_background=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        outline=True,
        tagged=True,
    )
    return headings, document


if __name__ == "__main__":
    sys.exit(main())
