"""What a publisher says of its files: names, sizes, checksums, archives."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from flora.errors import FloraError

BLOCK = 1 << 18
LONGEST_NAME = 240  # bytes: file systems take 255, and a part's name is longer than its file's
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class BadFile(FloraError):
    """One file is missing on the server or is not what the listing says; others may be well."""


class Stopped(Exception):
    """The user, or the failure of another file, ended the work; what arrived is kept."""


@dataclass(frozen=True)
class Checksum:
    """A file's digest: `algorithm` is hashlib's name, or "git" for the SHA-1 of a git blob."""

    algorithm: str
    digest: str

    def matches(self, path: Path) -> bool:
        """Whether the file's content has this digest."""
        if self.algorithm == "git":
            found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        else:
            found = hashlib.new(self.algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
        return found.hexdigest() == self.digest.lower()


@dataclass(frozen=True)
class Known:
    """What is known of a file.

    Attributes:
        path: Where it belongs, below the dataset's folder.
        size: Bytes; None where the publisher does not say.
        checksum: None where the publisher gives none.
    """

    path: PurePosixPath
    size: int | None = None
    checksum: Checksum | None = None

    def found_in(self, root: Path, verify: bool) -> bool:
        """Whether `root` holds it, by size; by checksum too, if `verify` or if there is no size."""
        path = root / self.path
        if not path.is_file() or self.size not in (None, path.stat().st_size):
            return False
        if self.checksum is None or not (verify or self.size is None):
            return True
        return self.checksum.matches(path)


@dataclass(frozen=True)
class Unpacking:
    """How an archive becomes files.

    Attributes:
        estimate: Bytes of its files; an estimate where the publisher does not say.
        strip: Leading folders of its names to leave out.
        members: The files wanted, below the dataset's folder; None takes all there are.
        layout: Pattern of a path, one of which must come out of it; "" asks for none.
    """

    estimate: int
    strip: int = 0
    members: tuple[Known, ...] | None = field(default=None, repr=False)
    layout: str = ""


@dataclass(frozen=True, kw_only=True)
class Remote(Known):
    """A file on a server.

    Attributes:
        url: http, https or ftp (user and password in the address).
        unpacking: What to do with an archive; None leaves the file as it is.
    """

    url: str
    unpacking: Unpacking | None = None

    @property
    def verified(self) -> bool:
        """Whether the publisher gives checksums by which its content can be verified."""
        members = self.unpacking.members if self.unpacking else None
        return self.checksum is not None or members is not None


def relative_path(name: str, origin: str) -> PurePosixPath:
    """A name that a server or an archive gives, as a path that cannot leave its folder.

    Raises:
        FloraError: If the name is empty, absolute, climbs with "..", would be another path on
            another operating system, or is one that not every disk can hold.
    """
    path = PurePosixPath(name)
    odd = any(sign in name for sign in ("\\", ":", "\0"))
    if odd or path.is_absolute() or not path.parts or ".." in path.parts:
        says = "would leave the dataset's folder"
    elif not name.isprintable() or any(len(os.fsencode(p)) > LONGEST_NAME for p in path.parts):
        says = "not every disk can hold (it is too long, or not plain text)"
    else:
        return path
    short = name if len(name) <= 80 else f"{name[:40]}..."
    raise FloraError(
        f"{origin} names the file {short!a}, which {says}: it is not what its publisher made; "
        "nothing of it was kept, tell the publisher"
    )
