"""The one browser of tests, benchmark and print: a Chromium or Chrome that is installed already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_browser() -> str | None:
    """The program that FLORA_BROWSER names, else the first one on PATH, else None."""
    found = (path for name in NAMES if (path := shutil.which(name)))
    return os.environ.get("FLORA_BROWSER") or next(found, None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A running browser without a window.

    Raises:
        SystemExit: If there is none; the message says what to install.
    """
    program = find_browser()
    if program is None:
        raise SystemExit(
            f"no browser: none of {', '.join(NAMES)} on PATH. Install one, or name one by the "
            "environment variable FLORA_BROWSER"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()
