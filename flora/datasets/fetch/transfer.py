"""One file from a server to its place: resumed, retried, verified, and whole or not there."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlencode, urlsplit

import certifi
import pycurl

from flora import __version__
from flora.datasets.fetch.remote import BadFile, Remote, Stopped
from flora.errors import FloraError

PROGRESS = 1 << 20  # bytes an attempt must add before a cut connection counts as a new first one
LONGEST_WAIT = 120.0
TWICE = 1 << 28  # bytes; a larger file that came in one go and is wrong is not fetched again
LISTING = 1 << 26  # bytes of a listing at most

# What libcurl answers where the server cannot go on from a byte in the middle.
_FROM_THE_START = (
    pycurl.E_RANGE_ERROR,
    pycurl.E_BAD_DOWNLOAD_RESUME,
    pycurl.E_FTP_COULDNT_USE_REST,
)
_UNTRUSTED = (pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE)
_WRONG_ADDRESS = (
    pycurl.E_URL_MALFORMAT,
    pycurl.E_UNSUPPORTED_PROTOCOL,
    pycurl.E_TOO_MANY_REDIRECTS,
)

Result = TypeVar("Result")
Arrived = Callable[[int], None]
"""Called with the number of bytes of a file that have arrived."""


class Unreachable(FloraError):
    """The server cannot be reached, or not to the end, however often it is tried."""


class _Interrupted(Exception):
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


class Transfer:
    """Fetches files, as often as it takes; may be used by several threads at the same time.

    libcurl does the transfers. Proxies and certificates are taken from the usual environment
    variables (HTTPS_PROXY, http_proxy, ALL_PROXY, NO_PROXY; REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE,
    SSL_CERT_FILE).

    Args:
        timeout: Seconds at less than `slowest` before an attempt is given up; at least 1.
        attempts: Attempts at one file that bring nothing new, before it is given up.
        backoff: Seconds before the second attempt; doubled each time.
        slowest: Bytes per second, below which a server counts as stuck.
    """

    def __init__(
        self,
        timeout: float = 30.0,
        attempts: int = 6,
        backoff: float = 1.0,
        slowest: float = 512.0,
    ) -> None:
        self.timeout = max(1, round(timeout))
        self.attempts = attempts
        self.backoff = backoff
        self.slowest = round(slowest)
        self.stop = threading.Event()
        self._own = threading.local()  # a handle of libcurl a thread, which keeps its connections

    def json(
        self, url: str, kind: type[Any] = dict, parameters: Mapping[str, str] | None = None
    ) -> Any:
        """The answer of an interface that speaks JSON: a dict or a list, as `kind` says.

        Raises:
            FloraError: If it does not answer, refuses, or answers something else.
        """
        address = f"{url}?{urlencode(parameters)}" if parameters else url

        def ask() -> bytes:
            received = io.BytesIO()
            self._perform(address, received.write, size=LISTING)
            return received.getvalue()

        text = self._persist(ask, url)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
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
            FloraError: If the server does not answer or has no such file.
        """
        return self._persist(lambda: self._perform(url, None), public(url))

    def fetch(self, remote: Remote, target: Path, report: Arrived) -> None:
        """Fetch one file; `target` appears when the file is complete and verified.

        What has arrived waits in `target`.part, from where a later call goes on.

        Args:
            remote: What to fetch.
            target: Where to; its folder is made.
            report: See `Arrived`.

        Raises:
            Unreachable: If the server gives no more after several attempts.
            BadFile: If the file is not there or is not the one of the listing.
            FloraError: If it is refused or the disk is full.
            Stopped: If `stop` was set meanwhile.
        """
        part = target.with_name(f"{target.name}.part")
        with _disk(part):
            part.parent.mkdir(parents=True, exist_ok=True)
        old = part.is_file()
        for last in (False, True):
            self._persist(lambda: self._append(remote, part, report), public(remote.url), part)
            if remote.checksum is None or remote.checksum.matches(part):
                with _disk(target):
                    part.replace(target)
                return
            # A part of an older version, or damage on the way: once more, from the beginning.
            size = part.stat().st_size
            part.unlink()
            report(0)
            if last or (size > TWICE and not old):
                raise BadFile(
                    f"{public(remote.url)}: its {remote.checksum.algorithm} checksum is not "
                    f"{remote.checksum.digest}; nothing was kept. Run again later; if it stays so, "
                    "the publisher has changed the file"
                )

    def _append(self, remote: Remote, part: Path, report: Arrived) -> None:
        """Fetch what `part` lacks, in one attempt."""
        done = part.stat().st_size if part.is_file() else 0
        # Without either, nothing would tell a part of another version.
        sure = remote.size is not None or remote.checksum is not None
        if not sure or (remote.size is not None and done > remote.size):
            done = 0
        if done == remote.size and part.is_file():
            report(done)
            return
        before = done

        def write(data: bytes) -> None:
            nonlocal done
            while data:  # a disk that is nearly full takes less than it is given
                written = file.write(data)
                data, done = data[written:], done + written
            report(done)

        try:
            with _disk(part), part.open("r+b" if done else "wb", buffering=0) as file:
                file.seek(done)
                total = self._perform(remote.url, write, done, remote.size)
        except BaseException as error:
            useless = isinstance(error, BadFile) and done > before
            useless |= isinstance(error, _Interrupted) and error.restart
            if part.is_file() and (useless or not part.stat().st_size):
                part.unlink()
            raise
        if remote.size is not None and done != remote.size:
            if total is None and done < remote.size:  # the connection's end seemed the file's
                raise _Interrupted("the connection ended too early")
            part.unlink()
            raise BadFile(_other_size(remote.url, done, remote.size))

    def _perform(
        self,
        url: str,
        write: Callable[[bytes], object] | None,
        offset: int = 0,
        size: int | None = None,
    ) -> int | None:
        """Ask a server once.

        Args:
            url: The address.
            write: Takes the bytes as they come; None asks only how many there are.
            offset: The first byte wanted.
            size: Bytes of the whole file; it is given up when more come.

        Returns:
            Bytes of the whole file, as the server states them; None if it does not.
        """
        if not hasattr(self._own, "curl"):
            self._own.curl = pycurl.Curl()
        curl, headers, refused = self._own.curl, [], []

        def take(data: bytes) -> int:
            try:
                write(data)  # type: ignore[misc]
            except OSError as error:  # libcurl would print it
                refused.append(error)
                return 0
            return len(data)

        curl.reset()  # options, not connections
        self._set_up(curl, url)
        curl.setopt(pycurl.HEADERFUNCTION, lambda line: headers.append(line.strip().lower()))
        curl.setopt(pycurl.RESUME_FROM_LARGE, offset)
        curl.setopt(pycurl.MAXFILESIZE_LARGE, size or 0)
        curl.setopt(*((pycurl.NOBODY, 1) if write is None else (pycurl.WRITEFUNCTION, take)))
        code, said = 0, ""
        try:
            curl.perform()
        except pycurl.error as error:
            code, said = error.args
        if refused:
            raise refused[0]
        if code == pycurl.E_ABORTED_BY_CALLBACK:
            raise Stopped
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        length = curl.getinfo(pycurl.CONTENT_LENGTH_DOWNLOAD_T)
        whole = status == 200  # even where only a part was asked for
        total = None if length < 0 else length + (0 if whole else offset)
        ignored = bool(code) and whole and offset > 0
        if code == pycurl.E_FILESIZE_EXCEEDED and not ignored:
            raise BadFile(_other_size(url, total, size))
        if ignored and size is not None and total not in (None, size):
            raise BadFile(_other_size(url, total, size))
        if ignored or code in _FROM_THE_START or status == 416:
            raise _Interrupted(said or f"HTTP {status}", restart=True)
        if code:
            limited = b"x-ratelimit-remaining: 0" in headers
            _refuse(public(url), code, said, status, limited, curl.getinfo(pycurl.RETRY_AFTER))
        return total

    def _set_up(self, curl: pycurl.Curl, url: str) -> None:
        ours = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        trusted = next((os.environ[n] for n in ours if os.environ.get(n)), certifi.where())
        protocols = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS | pycurl.PROTO_FTP
        for option, value in {
            pycurl.URL: url,
            pycurl.PROTOCOLS: protocols,
            pycurl.REDIR_PROTOCOLS: protocols,
            pycurl.FOLLOWLOCATION: 1,
            pycurl.MAXREDIRS: 10,
            pycurl.FAILONERROR: 1,
            pycurl.USERAGENT: f"flora/{__version__}",
            pycurl.CAPATH if Path(trusted).is_dir() else pycurl.CAINFO: trusted,
            pycurl.CONNECTTIMEOUT: self.timeout,
            pycurl.FTP_RESPONSE_TIMEOUT: self.timeout,
            pycurl.LOW_SPEED_LIMIT: self.slowest,
            pycurl.LOW_SPEED_TIME: self.timeout,
            pycurl.FTP_FILEMETHOD: pycurl.FTPMETHOD_NOCWD,
            pycurl.FORBID_REUSE: url.startswith("ftp:"),  # such servers count connections
            pycurl.NOSIGNAL: 1,  # threads
            pycurl.NOPROGRESS: 0,
            pycurl.XFERINFOFUNCTION: lambda *_: self.stop.is_set(),  # once a second at least
        }.items():
            curl.setopt(option, value)

    def _persist(self, ask: Callable[[], Result], what: str, part: Path | None = None) -> Result:
        """Ask as often as it takes, more often while `part` grows."""
        best = failures = 0
        while True:
            try:
                return ask()
            except _Interrupted as cut:
                reached = part.stat().st_size if part is not None and part.is_file() else 0
                failures = 1 if reached >= best + PROGRESS else failures + 1
                best = max(best, reached)
                if failures >= self.attempts:
                    raise Unreachable(
                        f"{what}{f', at {reached} bytes' * bool(part)}: {cut}; given up after "
                        f"{failures} attempts. Check the connection and the proxy (HTTPS_PROXY, "
                        "NO_PROXY), then run again: what has arrived is kept"
                    ) from cut
                wait = max(cut.wait, self.backoff * 2 ** (failures - 1))
                if self.stop.wait(min(wait, LONGEST_WAIT)):
                    raise Stopped from cut


def public(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _refuse(url: str, code: int, said: str, status: int, limited: bool, wait: float) -> NoReturn:
    """Raise what an answer other than the file means.

    Args:
        url: The address, without a password.
        code: libcurl's.
        said: What libcurl says.
        status: The server's, of HTTP or FTP.
        limited: Whether the server says that it has answered too often.
        wait: Seconds that the server asks to wait.
    """
    if code == pycurl.E_HTTP_RETURNED_ERROR and (status in (408, 429) or status >= 500):
        raise _Interrupted(f"HTTP {status}", wait=wait)
    if status in (404, 410, 550):
        raise BadFile(
            f"{url}: {status}, the publisher no longer has it there. Look at the dataset's page "
            "for its new place, and report it to this library"
        )
    if limited:
        raise FloraError(f"{url}: {status}, too many requests from this network; wait an hour")
    if code in (pycurl.E_HTTP_RETURNED_ERROR, pycurl.E_LOGIN_DENIED):
        raise FloraError(
            f"{url}: {status}, the server, or a proxy on the way, refuses it. Open the address in "
            "a browser to see why; if it opens there, check HTTPS_PROXY and NO_PROXY"
        )
    if code in _UNTRUSTED:
        raise FloraError(
            f"{url}: no trusted connection ({said}). Behind a proxy that reads along, let "
            "REQUESTS_CA_BUNDLE name the file with its certificate; check the computer's clock"
        )
    if code in _WRONG_ADDRESS:
        raise FloraError(f"{url}: {said}; check the address and the proxy")
    raise _Interrupted(said)


def _other_size(url: str, sent: int | None, expected: int | None) -> str:
    return (
        f"{public(url)}: the server sends {'more' if sent is None else sent} bytes, not the "
        f"{expected} that were expected; none of them was kept. If this is the login page of a "
        "network, log in; else run again later"
    )


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error with a remedy."""
    try:
        yield
    except OSError as error:
        raise FloraError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another --root, "
            "then run again: what has arrived is kept"
        ) from error
