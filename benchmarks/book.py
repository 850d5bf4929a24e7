"""Size and speed of the built book in a browser, and the time its notebooks take.

    python benchmarks/book.py [--html _build/html] [--record results/book.json]

A page is loaded with an empty cache from a server on this machine. It is readable when its text is
there and painted: the later of the first contentful paint and the end of parsing. It is loaded
when its pictures are there, too. Times are medians of several loads; weights are of everything the
browser fetched, not compressed, as a first visit does. The notebooks run with their defaults.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from playwright.sync_api import Browser, Response
from rich.console import Console
from rich.table import Table

from flora.experiments.provenance import write_record
from tools.browser import launched
from tools.build_book import ROOT, execute, stage, toc_pages
from tools.serve import served

TIMES = """() => {
  const [load] = performance.getEntriesByType("navigation");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return [Math.max(paint.startTime, load.domContentLoadedEventEnd), load.loadEventEnd];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--html", type=Path, default=ROOT / "_build/html", help="the built pages")
    parser.add_argument("--loads", type=int, default=5, help="of each page")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    options = parser.parse_args()
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    with served(options.html) as address, launched() as browser:
        pages = {
            page: measure(browser, address, f"{page}.html", options.loads)
            for page in toc_pages(toc)
        }
    sizes = [path.stat().st_size for path in options.html.rglob("*") if path.is_file()]
    with tempfile.TemporaryDirectory() as folder:
        notebooks = execute(stage(Path(folder) / "source"), {})
    record = {
        "benchmark": "book",
        "offline": (options.html / "vendor").is_dir(),
        "site_mb": sum(sizes) / 1e6,
        "loads": options.loads,
        "pages": pages,
        "notebooks_s": notebooks,
    }
    show(record)
    if options.record is not None:
        write_record(options.record, record)


def measure(browser: Browser, address: str, path: str, loads: int) -> dict[str, float]:
    """Seconds until one page is readable and loaded, and the megabytes it fetched."""
    readable, loaded = [], []
    fetched: list[list[int]] = []
    for _ in range(loads):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page = context.new_page()
        fetched.append([])
        page.on("response", partial(weigh, fetched[-1]))
        page.goto(address + path, wait_until="load")
        page.wait_for_timeout(500)  # formulas' fonts come after the load
        first, last = page.evaluate(TIMES)
        readable.append(first / 1000)
        loaded.append(last / 1000)
        context.close()
    return {
        "readable_s": median(readable),
        "loaded_s": median(loaded),
        "fetched_mb": sum(fetched[-1]) / 1e6,
    }


def weigh(weights: list[int], response: Response) -> None:
    """Note the length of one answer's body."""
    weights.append(int(response.headers.get("content-length", 0)))


def show(record: dict[str, Any]) -> None:
    """Print the record as tables."""
    table = Table("page", "readable, s", "loaded, s", "fetched, MB")
    for page, row in record["pages"].items():
        cells = (f"{row[key]:.2f}" for key in ("readable_s", "loaded_s", "fetched_mb"))
        table.add_row(page, *cells)
    console = Console()
    console.print(table, f"site: {record['site_mb']:.1f} MB")
    for name, seconds in record["notebooks_s"].items():
        console.print(f"{name}: {seconds:.0f} s")


if __name__ == "__main__":
    main()
