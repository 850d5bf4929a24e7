from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def flora_data() -> Path:
    """The folder of real samples, each in its publisher's layout."""
    if "FLORA_DATA" not in os.environ:
        pytest.skip("FLORA_DATA is not set: it names the folder of real samples")
    return Path(os.environ["FLORA_DATA"])
