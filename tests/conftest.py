from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tools.browser import FLAGS, NAMES, find_browser

# Tests compare numbers that a CPU computed, on machines with a GPU too.
os.environ["ACCELERATE_USE_CPU"] = "true"


@pytest.fixture(scope="session")
def flora_data() -> Path:
    """The folder of real samples, each in its publisher's layout."""
    if "FLORA_DATA" not in os.environ:
        pytest.skip("FLORA_DATA is not set: it names the folder of real samples")
    return Path(os.environ["FLORA_DATA"])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium or Chrome for all tests: on PATH, or named by FLORA_BROWSER."""
    found = find_browser()
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} on PATH, no FLORA_BROWSER")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()
