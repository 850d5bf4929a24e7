"""How a STAC API is spoken to: opened, asked again where it fails, its errors in one line each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from urllib3 import Retry

from flora.errors import FloraError

TIMEOUT = 30.0  # s without an answer before a server counts as silent
RETRIES = 3  # after the first attempt; also for a server that is busy (429, 5xx)
BUSY = (429, 500, 502, 503, 504)


@contextmanager
def needs_stac() -> Iterator[None]:
    """Around the import of what the extra `stac` brings.

    Raises:
        FloraError: If it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise FloraError(
            f'STAC needs {error.name}, which is not installed: pip install "flora[stac]"'
        ) from error


def open_client(url: str, timeout: float) -> Any:
    """Open a STAC API by its landing page, as a `pystac_client.Client`.

    Raises:
        FloraError: See `asking`.
    """
    with needs_stac():
        from pystac_client import Client
    with asking(f"endpoint {url}"):
        return Client.open(url, stac_io=_io(timeout), timeout=timeout)


def read_json(href: str, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Read a JSON object from an address or a file; call it inside `asking`."""
    if href.startswith(("http://", "https://")):
        text = _io(timeout).read_text(href)
    else:
        text = Path(href).read_text(encoding="utf-8")
    record = json.loads(text)
    if not isinstance(record, dict):
        raise json.JSONDecodeError("not an object", text[:20], 0)
    return record


@contextmanager
def asking(subject: str) -> Iterator[None]:
    """Turn what can go wrong with a server into one line that begins with `subject`.

    Raises:
        FloraError: If it cannot be reached, refuses, or speaks another language.
    """
    with needs_stac():
        from pystac import STACError
        from pystac_client.errors import ClientTypeError
        from pystac_client.exceptions import APIError
        from pystac_client.warnings import DoesNotConformTo, NoConformsTo
    try:
        with warnings.catch_warnings():
            # An API that says nothing of what it can do is refused in words that help.
            warnings.simplefilter("ignore", NoConformsTo)
            yield
    except APIError as error:
        status = getattr(error, "status_code", None)
        if status is None:
            raise FloraError(
                f"{subject}: cannot be reached ({_short(error)}); check the address, the network "
                "and the proxy, or choose another endpoint"
            ) from error
        raise FloraError(
            f"{subject}: HTTP {status} ({_short(error)}); {_remedy(status)}"
        ) from error
    except OSError as error:
        raise FloraError(f"{subject}: cannot be read ({error}); check the path") from error
    except (
        json.JSONDecodeError,
        STACError,
        ClientTypeError,
        DoesNotConformTo,
        AttributeError,  # these three come from pystac where a document is not what it expects
        KeyError,
        TypeError,
    ) as error:
        raise FloraError(
            f"{subject}: not a STAC API that can be searched ({type(error).__name__}: "
            f"{_short(error)}); give the address of its landing page"
        ) from error


def _remedy(status: int) -> str:
    if status in BUSY or status > 500:
        return "the server is busy or broken: try again later"
    if status in (401, 403):
        return "it wants an account: sign in at its provider, or choose another endpoint"
    return "check the address" if status == 404 else "check what was asked for"


def _io(timeout: float) -> Any:
    with needs_stac():
        from pystac_client.stac_api_io import StacApiIO
    retry = Retry(
        total=RETRIES,
        backoff_factor=0.3,
        status_forcelist=BUSY,
        raise_on_status=False,  # the last answer says more than "too many retries"
    )
    return StacApiIO(timeout=timeout, max_retries=retry)


def _short(error: Exception) -> str:
    """The first line of a message; servers answer with pages of it."""
    lines = str(error).strip().splitlines() or ["no message"]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}..."
