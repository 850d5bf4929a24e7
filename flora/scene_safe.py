"""Sentinel-1 ground range products as ESA delivers them: SAFE folders, calibrated to sigma0.

Layout, names and annotation after the Sentinel-1 Product Specification (S1-RS-MDA-52-7441).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from scipy.interpolate import RegularGridInterpolator

from flora.errors import FloraError
from flora.scene_swath import power_vrt
from flora.sensors import FloatArray

GAIN_STEP = 40  # px: the spacing of the calibration vectors' own values in range

MEASUREMENT = re.compile(r"s1.-\w+-(?P<product>\w+)-(?P<band>vv|vh|hh|hv)-.*\.tiff?", re.IGNORECASE)

SafePath = Path | zipfile.Path


@dataclass(frozen=True)
class SafeBand:
    """One polarisation of a ground range product.

    Attributes:
        band: "VV" or "VH".
        measurement: What GDAL opens as its digital numbers.
        calibration: The text of its calibration annotation.
        source: What messages call it.
    """

    band: str
    measurement: str
    calibration: bytes
    source: str

    @contextmanager
    def opened(self, size: tuple[int, int]) -> Iterator[str]:
        """What GDAL opens as sigma0 in linear power, in swath geometry, 0 in nodata.

        sigma0 = DN^2 / A^2, where A is the annotation's `sigmaNought`, interpolated bilinearly
        (Sentinel-1 Product Specification, calibration annotation). Thermal noise stays in.

        Args:
            size: (rows, columns) of the measurement.

        Raises:
            FloraError: If the annotation is damaged.
        """
        gain = calibration_gain(self.calibration, size, self.source)
        rows, columns = gain.shape
        profile = dict(driver="GTiff", count=1, height=rows, width=columns, dtype="float32")
        with MemoryFile() as memory:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with memory.open(**profile) as dataset:
                    dataset.write(gain[None])
            yield power_vrt(size, self.measurement, memory.name, gain.shape, GAIN_STEP)


def is_safe(path: Path) -> bool:
    """Whether a path is to be read as a SAFE product: any folder, or a .zip file."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def find_safe_bands(path: Path, bands: tuple[str, ...], argument: str) -> tuple[SafeBand, ...]:
    """The polarisations `bands` of a SAFE folder, or of one in a .zip, in this order.

    Raises:
        FloraError: If it is no SAFE of a ground range product, or lacks a file or polarisation.
    """
    root, prefix = _product_root(path, argument)
    found: dict[str, SafePath] = {}
    products = set()
    for file in _files(root / "measurement"):
        match = MEASUREMENT.fullmatch(file.name)
        if match:
            products.add(match["product"].lower())
            found[match["band"].upper()] = file
    if products - {"grd"}:
        raise FloraError(
            f"{argument} {path}: its product type is {', '.join(sorted(products)).upper()}, "
            "expected GRD (detected, ground range); SLC is complex, download the GRD product"
        )
    missing = [band for band in bands if band not in found]
    if missing:
        raise FloraError(
            f"{argument} {path}: measurement/ holds {', '.join(sorted(found)) or 'no image'}, "
            f"expected {' and '.join(bands)}; choose a scene in dual polarisation VV+VH (its name "
            "says 1SDV), or copy it again if a file is lost"
        )
    annotations = list(_files(root / "annotation" / "calibration"))
    selected = []
    for band in bands:
        stem = found[band].name.rsplit(".", 1)[0]
        matching = [file for file in annotations if file.name == f"calibration-{stem}.xml"]
        if not matching:
            raise FloraError(
                f"{argument} {path}: no annotation/calibration/calibration-{stem}.xml, without "
                "which digital numbers cannot become sigma0; unpack the product again"
            )
        measurement = f"{prefix}/measurement/{found[band].name}"
        source = f"{argument} {path}: {matching[0].name}"
        selected.append(SafeBand(band, measurement, matching[0].read_bytes(), source))
    return tuple(selected)


def calibration_gain(annotation: bytes, size: tuple[int, int], source: str) -> FloatArray:
    """1 / sigmaNought^2 for each cell of `GAIN_STEP` pixels, at the cell's centre.

    Args:
        annotation: Text of a calibration annotation: vectors, each with its line, pixels and
            values, interpolated bilinearly and held constant beyond the first and the last.
        size: (rows, columns) of the measurement.
        source: What messages call the annotation.

    Raises:
        FloraError: If it is no XML, holds no vector, or its values are not above 0.
    """
    try:
        vectors = ElementTree.fromstring(annotation).findall(".//calibrationVector")
        if not vectors:
            raise ValueError("no calibrationVector")
        lines = np.array([float(vector.findtext("line", "")) for vector in vectors])
        pixels = [_numbers(vector, "pixel") for vector in vectors]
        values = [_numbers(vector, "sigmaNought") for vector in vectors]
        # Vectors may have pixels of their own: all are brought to those of the first.
        table = np.array([np.interp(pixels[0], p, v) for p, v in zip(pixels, values, strict=True)])
    except (ElementTree.ParseError, ValueError) as error:
        raise FloraError(
            f"{source}: damaged calibration annotation ({error}); unpack the product again"
        ) from error
    lines, first = np.unique(lines, return_index=True)
    table = table[first]
    if not (np.isfinite(table).all() and (table > 0).all() and (np.diff(pixels[0]) > 0).all()):
        raise FloraError(
            f"{source}: sigmaNought is not above 0 everywhere, or pixels do not increase; "
            "unpack the product again"
        )
    rows, columns = (
        (np.arange(-(-side // GAIN_STEP)) + 0.5) * GAIN_STEP - 0.5  # the centre of pixel 0 is 0
        for side in size
    )
    if len(lines) == 1:
        lines, table = np.array([lines[0], lines[0] + 1]), np.repeat(table, 2, axis=0)
    between = RegularGridInterpolator((lines, pixels[0]), table)
    clipped = np.meshgrid(
        rows.clip(lines[0], lines[-1]), columns.clip(pixels[0][0], pixels[0][-1]), indexing="ij"
    )
    gain: FloatArray = (1 / between(tuple(clipped)) ** 2).astype(np.float32)
    return gain


def _numbers(vector: ElementTree.Element, name: str) -> list[float]:
    numbers = [float(text) for text in vector.findtext(name, "").split()]
    if not numbers:
        raise ValueError(f"a vector without {name}")
    return numbers


def _product_root(path: Path, argument: str) -> tuple[SafePath, str]:
    """The folder that holds manifest.safe, and the same as GDAL names it."""
    if path.is_dir():
        if (path / "manifest.safe").is_file():
            return path, str(path)
        raise FloraError(
            f"{argument} {path}: a folder without manifest.safe, expected a Sentinel-1 product "
            "(NAME.SAFE), a GeoTIFF, or two; name the folder that holds measurement/"
        )
    try:
        archive = zipfile.Path(path)
        for folder in (archive, *archive.iterdir()):
            if folder.is_dir() and (folder / "manifest.safe").is_file():
                return folder, f"/vsizip/{path}/{folder.at}".rstrip("/")
    except (zipfile.BadZipFile, OSError) as error:
        raise FloraError(
            f"{argument} {path}: cannot be read as a zip file ({error}); download it again"
        ) from error
    raise FloraError(
        f"{argument} {path}: no manifest.safe in it, expected a zipped Sentinel-1 product; "
        "unpack other archives first"
    )


def _files(folder: SafePath) -> Iterable[SafePath]:
    return [file for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
