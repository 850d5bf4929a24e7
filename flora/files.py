"""A file appears whole or not at all: written beside its name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flora.errors import NAME_ALONE, FloraError, Given


def readable(name: object) -> str:
    r"""A name that can be printed: bytes that are not UTF-8 as escapes.

    Example:
        >>> from flora.files import readable
        >>> readable("flood" + chr(0xDCFF) + ".tif")
        'flood\\udcff.tif'
    """
    return str(name).encode("utf-8", "backslashreplace").decode()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        FloraError: If the disk refuses, or a file is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FloraError(
            f"cannot make the folder {folder}: {error}; choose one that is writable"
        ) from error


@contextmanager
def folder_for(folder: Path) -> Iterator[None]:
    """Make a folder; what was made for it is gone again after a failure that left it empty.

    Raises:
        FloraError: If the disk refuses, or a file is in the way.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the first that holds something ends it
            for path in new:
                path.rmdir()
        raise


def write_beside(path: Path, write: Callable[[Path], object], durable: bool = False) -> None:
    """Write a file beside its final name, then rename it: it is whole or not there.

    Args:
        path: Final name, in a folder that is there.
        write: Writes the file it is given.
        durable: Wait until the disk holds it, so that a power cut leaves it whole too.

    Raises:
        OSError: If the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # the disk may refuse this too; the error says why
            partial.unlink(missing_ok=True)


def write_whole(path: Path, write: Callable[[Path], object], durable: bool = False) -> None:
    """The same, with its folder made, and one line for what a disk refuses.

    Raises:
        FloraError: If the disk refuses (full, read-only, no such folder).
    """
    make_folder(path.parent)
    try:
        write_beside(path, write, durable)
    except (OSError, RuntimeError) as error:
        raise FloraError(
            f"cannot write {path}: {error}; choose a folder that is writable and has free space"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, as UTF-8, whole or not at all.

    Raises:
        FloraError: If the disk refuses.
    """
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def new_file(
    path: str | Path, argument: str, overwrite: bool, inputs: Iterable[Given] = ()
) -> Path:
    """The path of a file to be written.

    Args:
        path: The file.
        argument: The argument that named it.
        overwrite: Whether one that exists may be replaced.
        inputs: Files that are read; None as value is left out.

    Raises:
        FloraError: If it is a folder or an input, or exists and must not be overwritten.
    """
    path = Path(path)
    check_outputs([Given(argument, path)], inputs)
    if path.exists() and not overwrite:
        raise FloraError(
            "exists already",
            argument=argument,
            value=path,
            remedy="choose another name, or pass {overwrite}",
            overwrite=True,
        )
    return path


def check_outputs(outputs: Iterable[Given], inputs: Iterable[Given]) -> None:
    """Refuse to write where a folder, an input or another output is, even if it may be replaced.

    Args:
        outputs: Files that are to be written, with the arguments that lead to their names.
        inputs: Files and folders that are read; None as value is left out.

    Raises:
        FloraError: If an output is one of them, or lies inside one.

    Example:
        >>> from flora.errors import FloraError, Given
        >>> from flora.files import check_outputs
        >>> try:
        ...     check_outputs([Given("html", "S1.tif")], [Given("sar_path", "S1.tif")])
        ... except FloraError as error:
        ...     print(error)
        html S1.tif: would replace what sar_path names; choose another name
    """
    outputs = list(outputs)
    taken = {_place(given.value): given.argument for given in inputs if given.value is not None}
    paths = [Path(str(output.value)) for output in outputs]
    folders = {_place(folder) for path in paths for folder in path.absolute().parents}
    for output, path in zip(outputs, paths, strict=True):
        if path.is_dir() or _place(path) in folders:
            raise FloraError(
                "is a folder, expected the name of a file",
                argument=output,
                remedy="choose another name",
            )
        for place in (path, *path.absolute().parents):
            if _place(place) in taken:
                other = taken[_place(place)]
                within = place is not path
                raise FloraError(
                    f"{'lies inside' if within else 'would replace'} what {{{other}}} names",
                    argument=output,
                    remedy=f"choose {'a folder outside of it' if within else 'another name'}",
                    **{other: NAME_ALONE},
                )
        taken[_place(path)] = output.argument


def check_writable(outputs: Iterable[Given]) -> None:
    """Refuse files that the disk would refuse, before anything is computed for them.

    Raises:
        FloraError: If their folder is a file, or may not be written to.
    """
    for output in outputs:
        above = Path(str(output.value)).absolute().parents
        there = next(place for place in above if place.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise FloraError(
                f"{there} is no folder that can be written to",
                argument=output,
                remedy="choose another name",
            )


def _place(path: object) -> object:
    """The same for two paths of one file or folder, whichever links lead there."""
    resolved = Path(str(path)).resolve()
    if not resolved.exists():
        return resolved
    status = resolved.stat()
    return status.st_dev, status.st_ino


@contextmanager
def alone(lock: Path, argument: str, doing: str) -> Iterator[None]:
    """Hold a lock file, which is gone afterwards; that of a killed process is taken over.

    Args:
        lock: The file; its folder is there.
        argument: The argument that named the folder.
        doing: What another process is doing if it holds the lock, e.g. "training".

    Raises:
        FloraError: If another process holds it, or the disk refuses.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    with writing(argument, lock.parent, (OSError, NotImplementedError)):
        try:
            held.acquire(timeout=0)
            while not lock.exists():  # its last holder removed it just now
                held.release()
                held.acquire(timeout=0)
        except Timeout as error:
            raise FloraError(
                f"another process is {doing} there",
                argument=argument,
                value=lock.parent,
                remedy="wait for it, or choose another folder",
            ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)
        held.release()


@contextmanager
def writing(
    argument: str, path: Path, refusals: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[None]:
    """Turn what a disk refuses into one line that names the path.

    Args:
        argument: The argument that named the path.
        path: What is written, or its folder.
        refusals: What a refusing disk raises; `flora.grid.GDAL_ERRORS` where GDAL writes.

    Raises:
        FloraError: If it cannot be written.
    """
    try:
        yield
    except refusals as error:
        raise FloraError(
            f"cannot be written ({error.__cause__ or error})",
            argument=argument,
            value=path,
            remedy="choose a folder that is writable and has free space",
        ) from error


@contextmanager
def folder_beside(
    target: Path, refusals: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[Path]:
    """A temporary folder on the disk of a file to be written, gone afterwards, whatever happens.

    What a process that was killed while it wrote the same file left behind is removed, too.

    Raises:
        FloraError: If the disk refuses, or another process is writing that file.
    """
    # Of a name as long as a disk allows, nothing longer can be made.
    mark = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]
    held = alone(target.with_name(f".flora-{mark}.lock"), "output", f"writing {target.name}")
    with folder_for(target.parent), held, writing("output", target, refusals):
        for left in target.parent.glob(f".flora-{mark}-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".flora-{mark}-", dir=target.parent) as folder:
            yield Path(folder)


def publish(finished: Mapping[str, Path], targets: Mapping[str, Path], aside: Path) -> None:
    """Rename finished files to their names, in place of the results of an earlier run.

    If one cannot be renamed, none of them stays, and the earlier results are back.

    Args:
        finished: The files.
        targets: Where each result goes; those that were not made are removed.
        aside: Folder on the same disk for the earlier results meanwhile.

    Raises:
        FloraError: If the disk refuses.
    """
    with ExitStack() as undo:
        for name, target in targets.items():
            with writing("output_folder", target.parent):
                aside.mkdir(exist_ok=True)
                if target.exists():
                    target.replace(aside / target.name)
                    undo.callback(_move_back, aside / target.name, target)
                if name in finished:
                    finished[name].replace(target)
                    undo.callback(_move_back, target, finished[name])
        undo.pop_all()


def _move_back(path: Path, to: Path) -> None:
    """Undo a renaming as far as the disk lets us; the error that led here is the one to report."""
    with contextlib.suppress(OSError):
        path.replace(to)
