"""Where the files of a Sentinel-1 product lie: in a SAFE folder, in one below or above, in a zip.

Layout after the Sentinel-1 Product Specification (S1-RS-MDA-52-7441).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flora.errors import FloraError, Given

SafePath = Path | zipfile.Path

MANIFEST = "manifest.safe"
LONGEST = 64 << 20  # bytes: annotations have a few MiB


def is_safe(path: Path) -> bool:
    """Whether a path is to be read as a SAFE product: any folder, or a .zip file."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def product_of(path: Path, argument: str = "sar_path") -> Path:
    """The product that somebody means who names it, a folder in or around it, or its manifest.

    Other files and folders are what they are.

    Args:
        path: What was named.
        argument: The argument that named it.

    Raises:
        FloraError: If a folder holds several products, or an image of a product was named.

    Example:
        >>> from pathlib import Path
        >>> from flora.scenes.safe.folders import product_of
        >>> Path("S1A_X.SAFE/measurement").mkdir(parents=True)
        >>> _ = Path("S1A_X.SAFE/manifest.safe").write_text("")
        >>> [product_of(Path(name)).name for name in ("S1A_X.SAFE/measurement", ".", "S1.tif")]
        ['S1A_X.SAFE', 'S1A_X.SAFE', 'S1.tif']
    """
    if path.is_file():
        if path.name == MANIFEST:
            return path.parent
        product = path.parent.parent
        if path.parent.name == "measurement" and (product / MANIFEST).is_file():
            raise FloraError(
                "one image of a product, in digital numbers; expected the product",
                argument=argument,
                value=path,
                remedy=f"name its folder, {product}",
            )
        return path
    if not path.is_dir() or (path / MANIFEST).is_file():
        return path
    for above in path.absolute().parents[:2]:  # of measurement/ and annotation/calibration/
        if (above / MANIFEST).is_file():
            return above
    below = sorted(folder for folder in path.iterdir() if (folder / MANIFEST).is_file())
    if len(below) > 1:
        raise FloraError(
            f"a folder of {len(below)} products, {below[0].name}, {below[1].name}"
            f"{', ...' if len(below) > 2 else ''}; expected one",
            argument=argument,
            value=path,
            remedy="name them one by one",
        )
    return below[0] if below else path


def product_root(path: Path, source: Given) -> tuple[SafePath, str]:
    """The folder that holds manifest.safe, and the same as GDAL names it."""
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return path, str(path)
        raise _no_product(path, source)
    if not path.exists():
        raise FloraError("no such file", argument=source, remedy="check the path")
    with _reading(source):
        archive = zipfile.Path(path)
        for folder in (archive, *archive.iterdir()):
            if folder.is_dir() and (folder / MANIFEST).is_file():
                return folder, f"/vsizip/{path}/{folder.at}".rstrip("/")
    raise FloraError(
        "no manifest.safe in it, expected a zipped Sentinel-1 product",
        argument=source,
        remedy="unpack other archives first",
    )


def _no_product(folder: Path, source: Given) -> FloraError:
    """Why a folder is not taken for a product, and what to give in its place."""
    within = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    halved = next((path for path in within if (path / "measurement").is_dir()), None)
    if halved is not None:
        named = "it" if halved == folder else halved.name
        return FloraError(
            f"a Sentinel-1 product without its manifest.safe: there is measurement/ in {named}, "
            "but the file beside it, which tells of the processor, is missing",
            argument=source,
            remedy="unpack or download the product again, as a whole",
        )
    rasters = sorted(path.name for path in folder.glob("*.tif*"))
    more = ", ..." if len(rasters) > 2 else ""
    holds = f"it holds {', '.join(rasters[:2])}{more}" if rasters else "it holds no GeoTIFF"
    remedy = "name the files in it" if rasters else "name a file, or the folder NAME.SAFE"
    return FloraError(
        f"a folder, without the manifest.safe of a Sentinel-1 product ({holds}): expected "
        "NAME.SAFE or its .zip, a GeoTIFF, or two",
        argument=source,
        remedy=remedy,
    )


def files_in(folder: SafePath) -> Iterable[SafePath]:
    """The files right in a folder; none, if there is no such folder."""
    return [file for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []


def text_of(folder: SafePath, name: str, source: Given) -> bytes | None:
    """The text of a file in a folder; None, if there is no such file.

    Raises:
        FloraError: If it is damaged, encrypted or larger than any annotation.
    """
    with _reading(source):
        file = next((file for file in files_in(folder) if file.name == name), None)
        if file is None:
            return None
        with file.open("rb") as opened:
            text = bytes(opened.read(LONGEST + 1))
    if len(text) > LONGEST:
        raise FloraError(
            f"{name} in it has more than {LONGEST >> 20} MiB, which no annotation has",
            argument=source,
            remedy="download it again",
        )
    return text


def check_archived(image: SafePath, source: Given) -> None:
    """Read an image in a zip once and compare it with its checksum, which GDAL does not.

    Raises:
        FloraError: If they differ, or it is encrypted.
    """
    if isinstance(image, zipfile.Path):
        with _reading(source), image.open("rb") as opened:
            while opened.read(1 << 20):
                pass


@contextmanager
def _reading(source: Given) -> Iterator[None]:
    """Say in one line what the reader of zip files says in many ways."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError) as error:
        raise FloraError(
            f"cannot be read, or is damaged ({error})", argument=source, remedy="download it again"
        ) from error
    except (RuntimeError, NotImplementedError) as error:
        raise FloraError(
            f"cannot be unpacked ({error})",
            argument=source,
            remedy="unpack it yourself, and name the folder",
        ) from error
