"""The work folder of a run: bands of finished rows on disk, which an interrupted run goes on from.

A band is a GeoTIFF a layer, and a record that is written last. It names the files' sizes and
checksums, so that a band is taken for finished only if every byte of it is there.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flora.files import alone, publish, write_beside, writing
from flora.grid import GDAL_ERRORS
from flora.scenes.inputs import SarScene
from flora.scenes.outputs import LAYERS, count_seen, encode_rows, finish_map, mosaic

PREFIX = ".flora-"
PLAN = "publish.json"  # which file of a work folder gets which name, while they are renamed


@dataclass(frozen=True)
class StoredLayer:
    """One layer's file of a band: its bytes, and how many of its pixels are not nodata."""

    name: str
    size: int
    crc32: int
    seen: int


@dataclass(frozen=True)
class Band:
    """Finished rows of a scene.

    Attributes:
        row: First row.
        height: Number of rows.
        files: The file of each layer that these rows have.
        totals: Sums over these rows that the caller wants back, such as pixels of water.
    """

    row: int
    height: int
    files: dict[str, StoredLayer]
    totals: dict[str, float]


class Work:
    """The finished bands of a run, from the top of the scene without a gap.

    Args:
        path: The work folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bands: list[Band] = []
        row = 0
        while (band := self._read(row)) is not None:
            self.bands.append(band)
            row += band.height

    def add(
        self,
        row: int,
        height: int,
        layers: Iterable[tuple[str, NDArray[Any]]],
        totals: Mapping[str, float],
    ) -> None:
        """Write rows of layers (bands, height, columns) that begin where the last band ended.

        Raises:
            FloraError: If the disk refuses.
        """
        files = {}
        with writing("output_folder", self.path.parent, GDAL_ERRORS):
            for layer, values in layers:
                data = encode_rows(layer, values)
                name = _file_name(row, layer)
                write_durably(self.path / name, data)
                files[layer] = StoredLayer(
                    name, len(data), zlib.crc32(data), count_seen(layer, values)
                )
            band = Band(row, height, files, dict(totals))
            write_durably(self._record(row), json.dumps(asdict(band)).encode())
        self.bands.append(band)

    def total(self, name: str) -> float:
        """Sum of a total over all bands."""
        return sum(band.totals[name] for band in self.bands)

    def finish(self, scene: SarScene, tags: Mapping[str, str]) -> dict[str, Path]:
        """Write each layer that the bands have as one Cloud Optimized GeoTIFF.

        Args:
            scene: Whose grid and CRS they have.
            tags: Metadata written into each.

        Raises:
            FloraError: If the disk refuses.
        """
        finished = {}
        for name in LAYERS:
            bands = [band for band in self.bands if name in band.files]
            if bands:
                parts = [(band.row, band.height, band.files[name].name) for band in bands]
                rows, finished[name] = self.path / f"{name}.vrt", self.path / f"{name}.tif"
                with writing("output_folder", self.path.parent, GDAL_ERRORS):
                    rows.write_text(mosaic(name, scene, tags, parts), encoding="utf-8")
                seen = sum(band.files[name].seen for band in bands)
                finish_map(name, rows, finished[name], seen)
        return finished

    def publish(self, finished: Mapping[str, Path], targets: Mapping[str, Path]) -> None:
        """Give finished files of this folder their names; see `flora.files.publish`.

        If the process is killed meanwhile, `settle` goes on with it.

        Raises:
            FloraError: If the disk refuses.
        """
        plan = {name: [str(target), None] for name, target in targets.items()}
        plan |= {name: [str(targets[name]), path.name] for name, path in finished.items()}
        with writing("output_folder", self.path.parent):
            write_durably(self.path / PLAN, json.dumps(plan).encode())
        try:
            publish(finished, targets, self.path / "replaced")
        finally:
            (self.path / PLAN).unlink(missing_ok=True)

    def _read(self, row: int) -> Band | None:
        """The band that begins at `row`, or None if it is not there as it was written."""
        try:
            record = json.loads(self._record(row).read_bytes())
            files = {layer: StoredLayer(**file) for layer, file in record["files"].items()}
            for layer, file in files.items():
                data = (self.path / _file_name(row, layer)).read_bytes()
                if (len(data), zlib.crc32(data)) != (file.size, file.crc32):
                    return None
            band = Band(record["row"], record["height"], files, record["totals"])
            whole = band.row == row and band.height > 0
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return band if whole else None

    def _record(self, row: int) -> Path:
        return self.path / f"{row:08d}.json"


@contextmanager
def open_work(folder: Path, stem: str, job: Mapping[str, Any] | None) -> Iterator[Work]:
    """Open the work folder of a run, `folder`/.flora-STEM-..., on the disk of its results.

    It is gone afterwards, and with it those of other interrupted runs of this scene. After an
    error it is gone too, and so are `folder` and its parents as far as they were made here. After
    an interruption (Ctrl-C, a kill, a power cut) it stays, and the next run with the same `job`
    finds its bands.

    Args:
        folder: Folder of the results.
        stem: Name of the scene.
        job: Everything that the results depend on, as JSON values; None if that is not known, and
            no run goes on from this one.

    Raises:
        FloraError: If the disk refuses, or another process is at the same scene.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with ExitStack() as stack:
        with writing("output_folder", folder, GDAL_ERRORS):
            folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(settled(folder, stem))
        key = secrets.token_hex(8) if job is None else fingerprint(job)
        path = folder / f"{PREFIX}{stem}-{key}"
        try:
            with writing("output_folder", folder, GDAL_ERRORS):
                path.mkdir(exist_ok=True)
            yield Work(path)
        except BaseException as error:
            if job is None or isinstance(error, Exception):
                shutil.rmtree(path, ignore_errors=True)
                stack.close()
                for parent in made:
                    with contextlib.suppress(OSError):
                        parent.rmdir()
            raise
        for abandoned in _work_folders(folder, stem):
            shutil.rmtree(abandoned, ignore_errors=True)


def settle(folder: Path, stem: str) -> None:
    """Complete what a killed run of a scene left half renamed; see `settled`."""
    if any((path / PLAN).is_file() for path in _work_folders(folder, stem)):
        with settled(folder, stem):
            pass


@contextmanager
def settled(folder: Path, stem: str) -> Iterator[None]:
    """Keep other processes from the maps of a scene, and from what is made of them.

    Where a run was killed while it gave its finished maps their names, that is completed first.

    Args:
        folder: Folder of the results, which is there.
        stem: Name of the scene.

    Raises:
        FloraError: If another process is at this scene, or the disk refuses.
    """
    with alone(folder / f"{PREFIX}{stem}.lock", "output_folder", f"mapping {stem}"):
        for path in _work_folders(folder, stem):
            if (path / PLAN).is_file():
                with writing("output_folder", folder):
                    _complete(path)
        yield


def _complete(path: Path) -> None:
    """Give the files of a work folder the names that its plan says, as far as they lack them."""
    try:
        plan = json.loads((path / PLAN).read_bytes())
        steps = [(path.parent / Path(target).name, name) for target, name in plan.values()]
    except (ValueError, TypeError, AttributeError):
        steps = []  # damaged: what is there stays
    for target, name in steps:
        if name is None:
            target.unlink(missing_ok=True)
        elif (path / name).exists():
            (path / name).replace(target)
    (path / PLAN).unlink()
    shutil.rmtree(path, ignore_errors=True)


def _work_folders(folder: Path, stem: str) -> list[Path]:
    return sorted(folder.glob(glob.escape(f"{PREFIX}{stem}-") + "?" * 16))


def _file_name(row: int, layer: str) -> str:
    return f"{row:08d}_{layer}.tif"


def fingerprint(job: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that differ where a job does."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that under its name it is whole or not there, even after a power cut."""
    write_beside(path, lambda partial: partial.write_bytes(data), durable=True)
