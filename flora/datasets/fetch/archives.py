"""Archives unpacked into a folder and never out of it: all files of one, or none."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from flora.datasets.fetch.remote import BLOCK, Known, Stopped, Unpacking, relative_path
from flora.errors import FloraError
from flora.files import write_text

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,  # numbers and names of a damaged table of contents
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # a password
)
_DECOMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}


class _Entry(NamedTuple):
    name: str
    is_folder: bool
    is_file: bool
    open: Callable[[], Any]  # of the content, for a file


def unpack(archive: Path, root: Path, how: Unpacking, stop: threading.Event) -> None:
    """Unpack `archive` under `root` and record what came out, for `unpacked_before`.

    Raises:
        FloraError: If it is damaged, a member would leave `root`, is a link or a device, or is
            not what `how` says. Nothing of it is kept then.
        Stopped: If `stop` was set meanwhile.
    """
    folder = root / f".unpacking-{archive.name}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        folder.mkdir(parents=True)
        _extract(archive, folder, how, stop)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        paths = [PurePosixPath(path.relative_to(folder).as_posix()) for path in files]
        _require_complete(archive, folder, paths, how)
        record = "".join(f"{(folder / path).stat().st_size}\t{path}\n" for path in paths)
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).replace(root / path)
        write_text(_record(archive.name, root), record)
    except FloraError:
        raise
    except _DAMAGE as error:
        raise FloraError(
            f"{archive} cannot be unpacked ({error}). With the disk full, make room and run again; "
            "else delete the archive and run again to fetch it anew"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unpacked_before(name: str, root: Path, how: Unpacking, verify: bool = False) -> bool:
    """Whether every file of an archive is under `root`: by size, with `verify` by checksum too."""
    if how.members is not None:
        return all(member.found_in(root, verify) for member in how.members)
    if not _record(name, root).is_file():
        return False
    rows = _record(name, root).read_text(encoding="utf-8").splitlines()
    sizes = (row.split("\t", 1) for row in rows)
    return all(Known(PurePosixPath(path), int(size)).found_in(root, False) for size, path in sizes)


def _record(name: str, root: Path) -> Path:
    """The list of the files that came out of the archive `name`."""
    return root / ".unpacked" / f"{name}.txt"


def _extract(archive: Path, folder: Path, how: Unpacking, stop: threading.Event) -> None:
    wanted = None if how.members is None else {member.path for member in how.members}
    for entry in _entries(archive):
        if stop.is_set():
            raise Stopped
        if entry.is_folder and not PurePosixPath(entry.name).parts:
            continue  # "./", of an archive made from within its folder
        path = relative_path(entry.name, str(archive))
        if entry.is_folder:
            continue
        if not entry.is_file:
            raise FloraError(
                f"{archive} holds {entry.name!r}, a link or a device, which no dataset needs: "
                "it is not what its publisher made; nothing of it was kept, tell the publisher"
            )
        path = PurePosixPath(*path.parts[how.strip :])
        if not path.parts or (wanted is not None and path not in wanted):
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, (folder / path).open("wb") as file:
            shutil.copyfileobj(source, file, BLOCK)


def _require_complete(
    archive: Path, folder: Path, paths: list[PurePosixPath], how: Unpacking
) -> None:
    for member in how.members or ():
        if not member.found_in(folder, verify=True):
            says = "is not that of" if member.path in paths else "is missing, unlike in"
            raise FloraError(
                f"{archive}: {member.path} {says} the publisher's listing: delete the archive and "
                "run again"
            )
    if how.layout and not any(path.match(how.layout) for path in paths):
        found = min(paths, default=PurePosixPath("nothing"))
        raise FloraError(
            f"{archive} holds {found}, but no {how.layout}: its publisher has changed the layout. "
            "Unpack it by hand into that layout, and report it to this library"
        )


def _entries(archive: Path) -> Iterator[_Entry]:
    with archive.open("rb") as file:
        begins = file.read(2)
    if begins == b"PK":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0: made where there are no modes
                is_file = kind in (0, stat.S_IFREG)
                content = partial(opened.open, info)
                yield _Entry(info.filename, info.is_dir(), is_file, content)
        return
    # As a stream: archives of tens of gigabytes are read once. To the end, where the checksum of
    # the compressed bytes is.
    with _DECOMPRESSED.get(begins, Path.open)(archive, "rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                yield _Entry(
                    member.name, member.isdir(), member.isreg(), partial(tar.extractfile, member)
                )
        while stream.read(BLOCK):
            pass
