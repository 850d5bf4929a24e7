"""One file from a server to its place: resumed, retried, verified, and whole or not there."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from flora.datasets.fetch.servers import CHUNK, BadFile, Interrupted, Servers, public
from flora.errors import FloraError

PROGRESS = 1 << 20  # bytes an attempt must add before a cut connection counts as a new first one
LONGEST_WAIT = 120.0
TWICE = 1 << 28  # bytes; a larger file that came in one go and is wrong is not fetched again

Result = TypeVar("Result")


class Unreachable(FloraError):
    """The server cannot be reached, or not to the end, however often it is tried."""


class Stopped(Exception):
    """The user, or the failure of another file, ended the transfer; what arrived is kept."""


@dataclass(frozen=True)
class Checksum:
    """A file's digest: `algorithm` is hashlib's name, or "git" for the SHA-1 of a git blob."""

    algorithm: str
    digest: str

    def matches(self, path: Path) -> bool:
        """Whether the file's content has this digest."""
        with path.open("rb") as file:
            if self.algorithm == "git":
                header = b"blob %d\0" % path.stat().st_size
                found = hashlib.sha1(header, usedforsecurity=False)
                while block := file.read(CHUNK):
                    found.update(block)
            else:
                found = hashlib.file_digest(file, self.algorithm)
        return found.hexdigest() == self.digest.lower()


@dataclass(frozen=True)
class Remote:
    """One file on a server.

    Attributes:
        url: http, https or ftp (user and password in the address).
        path: Where it belongs, below the dataset's folder.
        size: Bytes; None where the server does not say before it sends.
        checksum: None where the publisher gives none.
    """

    url: str
    path: PurePosixPath
    size: int | None = None
    checksum: Checksum | None = None

    def found_at(self, path: Path, verify: bool) -> bool:
        """Whether a file is this one, by size; by checksum too, if `verify` or if it must."""
        if not path.is_file() or self.size not in (None, path.stat().st_size):
            return False
        if self.checksum is None or not (verify or self.size is None):
            return True
        return self.checksum.matches(path)


def relative_path(name: str, origin: str) -> PurePosixPath:
    """A name that a server or an archive gives, as a path that cannot leave its folder.

    Raises:
        FloraError: If the name is empty, absolute, climbs with "..", or would be another path on
            another operating system.
    """
    path = PurePosixPath(name)
    odd = any(sign in name for sign in ("\\", ":", "\0"))
    if odd or path.is_absolute() or not path.parts or ".." in path.parts:
        raise FloraError(
            f"{origin} names the file {name!r}, which would leave the dataset's folder: it is not "
            "what its publisher made; nothing of it was kept, tell the publisher"
        )
    return path


class Transfer:
    """Fetches files, as often as it takes; may be used by several threads at the same time.

    Args:
        timeout: Seconds without a byte, or at less than `slowest`, before an attempt is given up.
        attempts: Attempts at one file that bring nothing new, before it is given up.
        backoff: Seconds before the second attempt; doubled each time.
        slowest: Bytes per second, averaged over `timeout`, below which a server counts as stuck.
    """

    def __init__(
        self,
        timeout: float = 30.0,
        attempts: int = 6,
        backoff: float = 1.0,
        slowest: float = 512.0,
    ) -> None:
        self.timeout = timeout
        self.attempts = attempts
        self.backoff = backoff
        self.slowest = slowest
        self.stop = threading.Event()
        self._servers = Servers(timeout)

    def json(
        self, url: str, kind: type[Any] = dict, parameters: Mapping[str, str] | None = None
    ) -> Any:
        """The answer of an interface that speaks JSON: a dict or a list, as `kind` says.

        Raises:
            FloraError: If it does not answer, refuses, or answers something else.
        """
        return self._persist(lambda: self._servers.json(url, kind, parameters or {}), url)

    def size(self, url: str) -> int | None:
        """Bytes of a file on an FTP server; None if it does not say.

        Raises:
            FloraError: If the server does not answer or has no such file.
        """
        return self._persist(lambda: self._servers.size(url), public(url))

    def fetch(self, remote: Remote, target: Path, report: Callable[[int], None]) -> None:
        """Fetch one file; `target` appears when the file is complete and verified.

        What has arrived waits in `target`.part, from where a later call goes on.

        Args:
            remote: What to fetch.
            target: Where to; its folder is made.
            report: Told the number of bytes of the file that have arrived.

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
            self._complete(remote, part, report)
            problem = _mismatch(remote, part)
            if not problem:
                with _disk(target):
                    part.replace(target)
                return
            # A part of an older version, or damage on the way: once more, from the beginning.
            size = part.stat().st_size
            part.unlink()
            report(0)
            if last or (size > TWICE and not old):
                raise BadFile(
                    f"{public(remote.url)}: {problem}; nothing was kept. Run again later; if it "
                    "stays so, the publisher has changed the file"
                )

    def _complete(self, remote: Remote, part: Path, report: Callable[[int], None]) -> None:
        """Fetch what `part` lacks, going on after each interruption."""
        best = 0
        failures = 0
        while True:
            offset = part.stat().st_size if part.is_file() else 0
            sure = remote.size is not None or remote.checksum is not None
            if not sure or (remote.size is not None and offset > remote.size):
                offset = 0
            if offset == remote.size and part.is_file():
                report(offset)
                return
            try:
                self._append(remote, part, offset, report)
                return
            except Interrupted as cut:
                reached = part.stat().st_size if part.is_file() else 0
                if cut.restart:
                    part.unlink(missing_ok=True)
                failures = 1 if reached >= best + PROGRESS else failures + 1
                best = max(best, reached)
                of = "" if remote.size is None else f" of {remote.size}"
                self._pause(cut, failures, f"{public(remote.url)}, at {reached}{of} bytes")

    def _append(
        self, remote: Remote, part: Path, offset: int, report: Callable[[int], None]
    ) -> None:
        with self._servers.open(remote.url, offset) as body:
            known = {size for size in (remote.size, body.total) if size is not None}
            if len(known) > 1:
                raise BadFile(
                    f"{public(remote.url)}: the server sends {body.total} bytes where its listing "
                    f"says {remote.size}; none of them was taken. If this is the login page of a "
                    "network, log in; else run again later"
                )
            limit = known.pop() if known else None
            done = body.start
            with _disk(part), part.open("r+b" if body.start else "wb") as file:
                file.seek(body.start)
                file.truncate()
                for chunk in self._paced(body.chunks):
                    file.write(chunk)
                    file.flush()  # what has arrived outlives this process, however it ends
                    done += len(chunk)
                    if limit is not None and done > limit:
                        break
                    report(done)
        if limit is not None and done > limit:
            part.unlink()
            raise BadFile(
                f"{public(remote.url)}: the server sends more than the {limit} bytes of its "
                "listing; nothing was kept. Run again later"
            )
        if limit is not None and done < limit:
            raise Interrupted("the connection ended too early")

    def _paced(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, as long as they come fast enough and nobody wants to stop."""
        since, arrived = time.monotonic(), 0
        for chunk in chunks:
            if self.stop.is_set():
                raise Stopped
            yield chunk
            arrived += len(chunk)
            elapsed = time.monotonic() - since
            if elapsed >= self.timeout:
                if arrived < self.slowest * elapsed:
                    raise Interrupted(f"only {arrived} bytes came in {elapsed:.0f} s")
                since, arrived = time.monotonic(), 0

    def _persist(self, ask: Callable[[], Result], what: str) -> Result:
        failures = 0
        while True:
            try:
                return ask()
            except Interrupted as cut:
                failures += 1
                self._pause(cut, failures, what)

    def _pause(self, cut: Interrupted, failures: int, what: str) -> None:
        if failures >= self.attempts:
            raise Unreachable(
                f"{what}: {cut}; given up after {failures} attempts. Check the connection and the "
                "proxy (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), then run again: what has arrived is "
                "kept"
            ) from cut
        wait = max(cut.wait, self.backoff * 2 ** (failures - 1))
        if self.stop.wait(min(wait, LONGEST_WAIT)):
            raise Stopped


def _mismatch(remote: Remote, part: Path) -> str:
    size = part.stat().st_size
    if remote.size not in (None, size):
        return f"{size} bytes came where the listing says {remote.size}"
    if remote.checksum is not None and not remote.checksum.matches(part):
        return f"its {remote.checksum.algorithm} checksum is not {remote.checksum.digest}"
    return ""


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
