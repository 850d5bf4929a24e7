"""HTTP and FTP servers as streams of bytes, with errors that say whether to try again."""

from __future__ import annotations

import ftplib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from flora import __version__
from flora.errors import FloraError

CHUNK = 1 << 18


class Interrupted(Exception):
    """An attempt failed in a way that another may mend.

    Args:
        reason: What happened.
        wait: Seconds the server asks to wait.
        restart: If what has arrived is of no use.
    """

    def __init__(self, reason: str, wait: float = 0.0, restart: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.restart = restart


class BadFile(FloraError):
    """One file is missing on the server or is not what the listing says; others may be well."""


@dataclass(frozen=True)
class Body:
    """What a server sends: from byte `start` of `total` (None: it does not say)."""

    start: int
    total: int | None
    chunks: Iterator[bytes]


class Servers:
    """Asks servers once; may be used by several threads at the same time.

    Proxies and certificates are taken from the usual environment variables (HTTP_PROXY,
    HTTPS_PROXY, ALL_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE). FTP goes through no HTTP proxy.

    Args:
        timeout: Seconds to wait for an answer, and for each next byte.
        connections: Connections to one HTTP server that are kept open.
    """

    def __init__(self, timeout: float, connections: int = 8) -> None:
        self.timeout = timeout
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"flora/{__version__}"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))

    def json(self, url: str, kind: type[Any], parameters: Mapping[str, str]) -> Any:
        """The answer of an interface that speaks JSON: a dict or a list, as `kind` says.

        Raises:
            FloraError: If the server refuses, or answers something else.
            Interrupted: If it did not answer.
        """
        try:
            with self._get(url, parameters=parameters) as response:
                answer = response.json()
        except requests.exceptions.JSONDecodeError:
            answer = None
        if not isinstance(answer, kind):
            raise FloraError(
                f"{url} answers with something that is not a listing, perhaps the login page of a "
                "network: open it in a browser, then run again"
            )
        return answer

    def size(self, url: str) -> int | None:
        """Bytes of a file on an FTP server; None if it does not say.

        Raises:
            FloraError: If there is no such file, or the server refuses.
            Interrupted: If it did not answer.
        """
        with self._ftp(url) as (server, path):
            return _ftp_size(server, path)

    @contextmanager
    def open(self, url: str, offset: int = 0) -> Iterator[Body]:
        """A file from byte `offset` on, or from an earlier byte where the server cannot do that.

        Raises:
            FloraError: If there is no such file, or the server refuses.
            Interrupted: If it did not answer, here or while the chunks are read.
        """
        if urlsplit(url).scheme == "ftp":
            with self._ftp(url) as (server, path):
                total = _ftp_size(server, path)
                connection, start = _retrieve(server, path, offset)
                with connection:
                    yield Body(start, total, _received(connection))
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._get(url, headers=headers, stream=True) as response:
            start, total = _extent(response, offset)
            yield Body(start, total, _read(response.raw))

    def _get(
        self,
        url: str,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        try:
            response = self._session.get(
                url,
                params=parameters,
                headers={"Accept-Encoding": "identity", **(headers or {})},
                stream=stream,
                timeout=self.timeout,
            )
        except requests.exceptions.SSLError as error:
            raise FloraError(
                f"{url}: no trusted connection ({error}). Behind a proxy that reads along, let "
                "REQUESTS_CA_BUNDLE name the file with its certificate; check the computer's clock"
            ) from error
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            reason = getattr(error.args[0], "reason", error) if error.args else error
            raise Interrupted(f"no answer ({reason})") from error
        except requests.exceptions.RequestException as error:
            raise FloraError(f"{url}: {error}; check the address and the proxy") from error
        if response.status_code in (200, 206):
            return response
        response.close()
        _refuse(response)

    @contextmanager
    def _ftp(self, url: str) -> Iterator[tuple[ftplib.FTP, str]]:
        """A connection in binary mode, logged in, and the path of `url` on it."""
        parts = urlsplit(url)
        server = ftplib.FTP(timeout=self.timeout)
        try:
            with _ftp_errors(url):
                server.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
                server.login(unquote(parts.username or ""), unquote(parts.password or ""))
                server.voidcmd("TYPE I")
            yield server, unquote(parts.path).lstrip("/")
        finally:
            server.close()


# --- HTTP ---------------------------------------------------------------------------------------


def _read(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """The body as it arrives: `read1` does not wait for a full chunk, so a trickle is seen."""
    try:
        while chunk := raw.read1(CHUNK, decode_content=False):
            yield chunk
    except urllib3.exceptions.TimeoutError as error:
        raise Interrupted("nothing more came in time") from error
    except urllib3.exceptions.HTTPError as error:
        raise Interrupted("the connection broke") from error


def _extent(response: requests.Response, offset: int) -> tuple[int, int | None]:
    """(first byte, total bytes or None) of an answer; 200 to a range means the whole file."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    unit, _, extent = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = extent.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(offset):
        raise Interrupted(f"the server sent bytes {extent!r}, not from {offset} on", restart=True)
    return offset, int(total) if total.isdigit() else None


def _refuse(response: requests.Response) -> NoReturn:
    status, url = response.status_code, response.url
    said = f"HTTP {status} {response.reason}"
    if status == 416:
        raise Interrupted(said, restart=True)
    if status in (408, 429) or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise Interrupted(said, wait=float(wait) if wait.isdigit() else 0.0)
    if status in (404, 410):
        raise BadFile(
            f"{url}: {said}: the publisher no longer has it there. Look at the dataset's page for "
            "its new place, and report it to this library"
        )
    if response.headers.get("X-RateLimit-Remaining") == "0":
        raise FloraError(f"{url}: {said}: too many requests from this network; wait an hour")
    raise FloraError(
        f"{url}: {said}: the server, or a proxy on the way, refuses it. Open the address in a "
        "browser to see why; if it opens there, check HTTPS_PROXY and NO_PROXY"
    )


# --- FTP ----------------------------------------------------------------------------------------


def public(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextmanager
def _ftp_errors(url: str) -> Iterator[None]:
    try:
        yield
    except ftplib.error_perm as error:
        if str(error).startswith("550"):
            raise BadFile(
                f"{public(url)}: {error}: look at the dataset's page for its new place"
            ) from error
        raise FloraError(
            f"{public(url)}: {error}: look at the dataset's page for what the server asks now"
        ) from error
    except (ftplib.Error, OSError, EOFError) as error:
        raise Interrupted(f"no answer ({error or type(error).__name__})") from error


def _ftp_size(server: ftplib.FTP, path: str) -> int | None:
    with _ftp_errors(f"ftp://{server.host}/{path}"):
        try:
            return server.size(path)
        except ftplib.error_perm as error:
            if str(error).startswith("50"):  # the server does not know the command
                return None
            raise


def _retrieve(server: ftplib.FTP, path: str, offset: int) -> tuple[socket.socket, int]:
    """(data connection, first byte it sends); from the start where a server cannot resume."""
    with _ftp_errors(f"ftp://{server.host}/{path}"):
        try:
            return server.ntransfercmd(f"RETR {path}", offset or None)[0], offset
        except ftplib.error_perm as error:
            if offset and str(error).startswith("50"):
                return server.ntransfercmd(f"RETR {path}")[0], 0
            raise


def _received(connection: socket.socket) -> Iterator[bytes]:
    try:
        while chunk := connection.recv(CHUNK):
            yield chunk
    except OSError as error:
        raise Interrupted(f"the connection broke ({error})") from error
