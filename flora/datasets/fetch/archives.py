"""Archives unpacked into a folder and never out of it, each file whole or not there."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from flora.datasets.fetch.transfer import Checksum, Stopped, relative_path
from flora.errors import FloraError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # a password
)


@dataclass(frozen=True)
class Member:
    """What a file of an archive must be."""

    size: int
    checksum: Checksum | None = None


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
    members: Mapping[PurePosixPath, Member] | None = field(default=None, repr=False)
    layout: str = ""


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


def is_archive(name: str) -> bool:
    """Whether a file of this name can be unpacked here."""
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, root: Path, how: Unpacking, stop: threading.Event) -> None:
    """Unpack `archive` under `root` and record what came out, for `unpacked_before`.

    Raises:
        FloraError: If it is damaged, a member would leave `root`, is a link or a device, or is
            not what `how` says. Nothing of it is kept then.
        Stopped: If `stop` was set meanwhile.
    """
    written: dict[PurePosixPath, int] = {}
    try:
        for entry in _entries(archive):
            if stop.is_set():
                raise Stopped
            path = _destination(entry, archive, how)
            if path is not None:
                written[path] = entry.size
                _write(entry, root / path, how.members[path] if how.members else None)
        _require_complete(archive, written, how)
        _record(archive.name, root, written)
    except FloraError:
        _remove(root, written)
        raise
    except _DAMAGE as error:
        _remove(root, written)
        raise FloraError(
            f"{archive} cannot be unpacked ({error}). With the disk full, make room and run again; "
            "else delete the archive and run again to fetch it anew"
        ) from error


def unpacked_before(name: str, root: Path, how: Unpacking, verify: bool = False) -> bool:
    """Whether every file of an archive is under `root`: by size, with `verify` by checksum too."""
    members = how.members if how.members is not None else _recorded(name, root)
    if members is None:
        return False
    for path, member in members.items():
        file = root / path
        if not file.is_file() or file.stat().st_size != member.size:
            return False
        if verify and member.checksum is not None and not member.checksum.matches(file):
            return False
    return True


def record_path(name: str, root: Path) -> Path:
    """The list of the files that came out of the archive `name`."""
    return root / ".unpacked" / f"{name}.txt"


def _destination(entry: _Entry, archive: Path, how: Unpacking) -> PurePosixPath | None:
    """Where a member goes; None for folders and for what is not wanted."""
    if entry.is_folder and _is_top(entry.name):
        return None
    whole = relative_path(entry.name, str(archive))
    if entry.is_folder:
        return None
    if not entry.is_file:
        raise FloraError(
            f"{archive} holds {entry.name!r}, a link or a device, which a dataset needs not: it is "
            "not what its publisher made; nothing of it was kept, tell the publisher"
        )
    parts = whole.parts[how.strip :]
    path = PurePosixPath(*parts) if parts else None
    return path if how.members is None or path in how.members else None


def _is_top(name: str) -> bool:
    """Whether a member is the folder itself: "./", as in archives made from within it."""
    return not PurePosixPath(name).parts


def _write(entry: _Entry, target: Path, member: Member | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        with entry.open() as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        size = part.stat().st_size
        good = size == entry.size and (member is None or size == member.size)
        if good and member is not None and member.checksum is not None:
            good = member.checksum.matches(part)
        if not good:
            raise FloraError(
                f"{entry.name} comes out of its archive with {size} bytes that are not those of "
                "the publisher's listing: delete the archive and run again"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _require_complete(archive: Path, written: Mapping[PurePosixPath, int], how: Unpacking) -> None:
    missing = sorted(set(how.members or ()) - set(written))
    if missing:
        raise FloraError(
            f"{archive} lacks {missing[0]}, one of {len(missing)} files of the publisher's "
            "listing: delete the archive and run again"
        )
    if how.layout and not any(path.match(how.layout) for path in written):
        found = min(written, default=PurePosixPath("nothing"))
        raise FloraError(
            f"{archive} holds {found}, but no {how.layout}: its publisher has changed the layout. "
            "Unpack it by hand into that layout, and report it to this library"
        )


def _record(name: str, root: Path, written: Mapping[PurePosixPath, int]) -> None:
    record = record_path(name, root)
    record.parent.mkdir(parents=True, exist_ok=True)
    part = record.with_name(f"{record.name}.part")
    rows = (f"{size}\t{path}\n" for path, size in written.items())
    part.write_text("".join(rows), encoding="utf-8")
    part.replace(record)


def _recorded(name: str, root: Path) -> dict[PurePosixPath, Member] | None:
    record = record_path(name, root)
    if not record.is_file():
        return None
    rows = (line.split("\t", 1) for line in record.read_text(encoding="utf-8").splitlines())
    return {PurePosixPath(path): Member(int(size)) for size, path in rows}


def _remove(root: Path, written: Mapping[PurePosixPath, int]) -> None:
    for path in written:
        (root / path).unlink(missing_ok=True)


def _entries(archive: Path) -> Iterator[_Entry]:
    if zipfile.is_zipfile(archive):
        yield from _zip_entries(archive)
    else:
        yield from _tar_entries(archive)


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as opened:
        # Its table of contents comes first, so a bad name is refused before anything is written.
        for info in opened.infolist():
            if not _is_top(info.filename):
                relative_path(info.filename, str(archive))
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            regular = kind in (0, stat.S_IFREG)  # 0: made on a system without such modes
            yield _Entry(
                info.filename,
                info.file_size,
                info.is_dir(),
                regular,
                lambda info=info: opened.open(info),  # type: ignore[misc]
            )


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    # As a stream: archives of tens of gigabytes are read once.
    with tarfile.open(archive, "r|*") as opened:
        for member in opened:

            def read(member: tarfile.TarInfo = member) -> IO[bytes]:
                stream = opened.extractfile(member)
                if stream is None:
                    raise FloraError(f"{archive}: {member.name} is no regular file")
                return stream

            yield _Entry(member.name, member.size, member.isdir(), member.isreg(), read)
