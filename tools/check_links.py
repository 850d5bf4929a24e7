"""Check that the built book's links to other sites still lead somewhere: `make links`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag

import requests

from tools.build_book import ROOT, repository_url

# Some sites answer only what looks like a reader's browser.
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; link check of a book)"}


class State(StrEnum):
    """What became of a link."""

    WORKS = "works"
    UNKNOWN = "unknown"  # the site refuses programs, or has trouble of its own
    BROKEN = "broken"


def main(arguments: list[str] | None = None) -> int:
    """Check every link of a built book, and return 1 if one is broken."""
    parser = argparse.ArgumentParser(description="Check the book's links to other sites.")
    parser.add_argument("--html", type=Path, default=ROOT / "_build/html", help="the built pages")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for one answer")
    options = parser.parse_args(arguments)
    if not (options.html / "index.html").is_file():
        print(f"{options.html} holds no book: make pages builds one", file=sys.stderr)
        return 1
    holders = links(options.html)
    states = check(holders, options.timeout)
    for url, (state, why) in states.items():
        if state is not State.WORKS:
            print(f"{state}: {url} ({why}), on {', '.join(sorted(holders[url]))}")
    counts = [sum(state is kind for state, _ in states.values()) for kind in State]
    print("Links:", *(f"{count} {kind}" for kind, count in zip(State, counts, strict=True)))
    return int(counts[-1] > 0)


def links(html: Path) -> dict[str, set[str]]:
    """Every address on another site that a page links to, and the pages that do.

    Left out are the buttons that act on a page's own source: they ask for a login.
    """
    own = tuple(f"{repository_url()}/{action}" for action in ("edit/", "issues/new"))
    holders: dict[str, set[str]] = {}
    for page in sorted(html.rglob("*.html")):
        if {"_static", "vendor"} & set(page.relative_to(html).parts):
            continue
        for target in _Anchors(page.read_text(encoding="utf-8")).targets:
            if target.startswith(("http://", "https://")) and not target.startswith(own):
                name = page.relative_to(html).as_posix()
                holders.setdefault(urldefrag(target).url, set()).add(name)
    return holders


def check(urls: Iterable[str], timeout: float) -> dict[str, tuple[State, str]]:
    """Ask for every address, several at a time; (state, reason) by address."""
    ordered = sorted(urls)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(ordered, pool.map(lambda url: ask(url, timeout), ordered), strict=True))


def ask(url: str, timeout: float) -> tuple[State, str]:
    """What one address answers; twice asked before it counts as broken."""
    state, why = State.BROKEN, ""
    for _ in range(2):
        try:
            # Not HEAD, which many sites answer wrongly; the body is not fetched.
            with requests.get(url, headers=HEADERS, timeout=timeout, stream=True) as answer:
                state, why = judge(answer.status_code), f"status {answer.status_code}"
        except requests.Timeout:
            state, why = State.UNKNOWN, f"no answer in {timeout:g} s"
        except requests.RequestException as error:
            state, why = State.BROKEN, type(error).__name__
        if state is State.WORKS:
            break
    return state, why


def judge(status: int) -> State:
    """What a status says about the page: only "not found" and "gone" say that it is lost."""
    if status < 400:
        return State.WORKS
    return State.BROKEN if status in (404, 410) else State.UNKNOWN


class _Anchors(HTMLParser):
    """Where the links of a page lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


if __name__ == "__main__":
    sys.exit(main())
