"""Sentinel-1 ground range products as ESA delivers them: SAFE folders, denoised and calibrated.

Layout, names and annotation after the Sentinel-1 Product Specification (S1-RS-MDA-52-7441).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from scipy.interpolate import RegularGridInterpolator

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import PIXEL, open_raster, read_bands
from flora.scenes.safe.annotation import viewing_of
from flora.scenes.safe.border import CELL, FIXED_IN, border_cells
from flora.scenes.safe.folders import (
    SafePath,
    check_archived,
    files_in,
    product_root,
    text_of,
)
from flora.scenes.safe.noise import (
    NOISE_CELL,
    centres,
    noise_factor,
    noise_power,
    numbers_of,
    only_zeros,
)
from flora.scenes.safe.swath import CoarseRaster, power_vrt
from flora.scenes.viewing import Viewing
from flora.sensors import BoolArray, FloatArray

NOISE_TAG = "FLORA_THERMAL_NOISE"  # of maps: "kept", where it was not subtracted
GAIN_STEP = 40  # px: the spacing of the calibration vectors' own values in range

# As ESA names images, and as the archive on AWS does: s1a-iw-grd-vv-2019....tiff, iw-vv.tiff
MEASUREMENT = re.compile(
    r"(?:s1.-)?(?P<mode>iw|ew|s\d|wv)\d?-(?:(?P<product>\w+)-)?(?P<band>vv|vh|hh|hv)(?:-.*)?\.tiff?",
    re.IGNORECASE,
)
TRAINED_ON = "iw"  # interferometric wide swath, in high resolution
MODES = {"ew": "extra wide swath", "wv": "wave mode"} | {
    f"s{beam}": f"stripmap, beam {beam}" for beam in range(1, 7)
}


class Pass(NamedTuple):
    """What the slices of one pass have in common, as an annotation's header says it."""

    mission: str
    mode: str
    orbit: str
    data_take: str


@dataclass(frozen=True)
class SafeBand:
    """One polarisation of a ground range product.

    Attributes:
        band: "VV" or "VH".
        measurement: What GDAL opens as its digital numbers.
        calibration: The text of its calibration annotation.
        noise: The text of its noise annotation, or None to leave thermal noise in.
        source: The product.
        version: Of the processor, such as 2.7; None where the product does not say.
        annotation: The text of its annotation; None where it has none.
        border: (rows, columns) of cells, true where they are border noise; None for none.
    """

    band: str
    measurement: str
    calibration: bytes
    noise: bytes | None
    source: Given
    version: float | None = None
    annotation: bytes | None = None
    border: BoolArray | None = None

    @property
    def spacing(self) -> float:
        """Metres between pixels."""
        return pixel_spacing(self.annotation)

    @property
    def taken(self) -> Pass | None:
        """In which pass; None where the annotation does not say."""
        return pass_of(self.annotation)

    @property
    def viewing(self) -> Viewing | None:
        """How it was looked at; None where the annotation does not say.

        Raises:
            FloraError: If the annotation is damaged.
        """
        return viewing_of(self.annotation, self.source)

    @contextmanager
    def opened(self, size: tuple[int, int]) -> Iterator[str]:
        """What GDAL opens as sigma0 in linear power, in swath geometry, 0 in nodata.

        sigma0 = (DN^2 - noise) / A^2, where A is the annotation's `sigmaNought`, interpolated
        bilinearly, and noise that of `flora.scenes.safe.noise`; at least a tenth of DN^2 / A^2.
        Border noise is nodata.

        Args:
            size: (rows, columns) of the measurement.

        Raises:
            FloraError: If an annotation is damaged.
        """
        gain = calibration_gain(self.calibration, size, self._of("calibration"))
        with ExitStack() as stack:

            def table(values: FloatArray, cell: tuple[float, float]) -> CoarseRaster:
                shape = (values.shape[0], values.shape[1])
                return CoarseRaster(stack.enter_context(_in_memory(values)), shape, cell)

            noise = inside = None
            if self.noise is not None:
                power = noise_power(self.noise, size, self._of("noise"))
                power *= noise_factor(self.version, self.measurement, self.calibration)
                noise = table(power, NOISE_CELL)
            if self.border is not None:
                rows, columns = self.border.shape
                kept = np.where(self.border, 0, 1).astype(np.float32)
                inside = table(kept, (size[0] / rows, size[1] / columns))
            gains = table(gain, (GAIN_STEP, GAIN_STEP))
            yield power_vrt(size, self.measurement, gains, noise, inside)

    def coarse(self, size: tuple[int, int]) -> FloatArray:
        """About what sigma0 is in cells of `CELL` pixels, noise included, 0 in nodata.

        Raises:
            FloraError: If a file is damaged.
        """
        gain = calibration_gain(self.calibration, size, self._of("calibration"))
        cells = (1, *(-(-side // CELL) for side in size))
        with open_raster(Path(str(self.source.value)), "sar_path", self.measurement) as dataset:
            numbers = read_bands(
                dataset,
                source=self.source,
                indexes=[1],
                out_shape=cells,
                out_dtype="float32",
                resampling=Resampling.average,
            )[0]
        sigma0: FloatArray = numbers**2 * np.median(gain)
        return sigma0

    def _of(self, kind: str) -> Given:
        return Given(self.source.argument, f"{self.source.value}: {kind} of {self.band}")


def find_safe_bands(
    path: Path, bands: tuple[str, ...], argument: str, remove_noise: bool = True
) -> tuple[SafeBand, ...]:
    """The polarisations `bands` of a SAFE folder, or of one in a .zip, in this order.

    Args:
        path: The folder, or the .zip.
        bands: "VV", "VH".
        argument: The argument that named the path.
        remove_noise: Subtract thermal noise. Where that cannot be done, for want of an
            annotation, a `FloraWarning` says so; where the processor has done it, it is not done
            again.

    Raises:
        FloraError: If it is no SAFE of a ground range product, or lacks a file or polarisation.
    """
    source = Given(argument, path)
    root, prefix = product_root(path, source)
    found = _images(root, bands, source)
    folder = root / "annotation" / "calibration"
    version = processor_version(text_of(root, "manifest.safe", source))
    selected = []
    for band in bands:
        check_archived(found[band], source)
        stem = found[band].name.rsplit(".", 1)[0]
        calibration = text_of(folder, f"calibration-{stem}.xml", source)
        if calibration is None:
            raise FloraError(
                f"no annotation/calibration/calibration-{stem}.xml, without which digital "
                "numbers cannot become sigma0",
                argument=source,
                remedy="unpack the product again",
            )
        noise, image = None, text_of(root / "annotation", f"{stem}.xml", source)
        if remove_noise and not _is_denoised(image):
            noise = text_of(folder, f"noise-{stem}.xml", source)
            if noise is None or only_zeros(noise):
                what = "no" if noise is None else "only zeros in"
                warnings.warn(
                    FloraWarning(
                        f"{what} annotation/calibration/noise-{stem}.xml, so thermal noise stays "
                        f"in {band}, and calm water looks too bright",
                        argument=source,
                    ),
                    stacklevel=5,
                )
                noise = None
        measurement = f"{prefix}/measurement/{found[band].name}"
        selected.append(SafeBand(band, measurement, calibration, noise, source, version, image))
    return tuple(selected)


def mask_border(bands: tuple[SafeBand, ...], size: tuple[int, int]) -> tuple[SafeBand, ...]:
    """The same polarisations, their border noise nodata; a `FloraWarning` says how much it is.

    Products of processors from `FIXED_IN` on have none; those that do not name theirs may have.

    Args:
        bands: Of one product.
        size: (rows, columns) of the measurements.

    Raises:
        FloraError: If a file is damaged.
    """
    version = bands[0].version
    if version is not None and version >= FIXED_IN:
        return bands
    sigma0 = [band.coarse(size) for band in bands]
    border = border_cells(sigma0)
    if not border.any():
        return bands
    share = border.sum() / np.any([band > 0 for band in sigma0], axis=0).sum()
    warnings.warn(
        FloraWarning(
            f"{share:.1%} of its pixels are border noise, which processors before IPF "
            f"{FIXED_IN:.2f} left along the edges: masked as nodata, with a calm sea that lies "
            "there (after Ali et al. 2018)",
            argument=bands[0].source,
        ),
        stacklevel=5,
    )
    return tuple(replace(band, border=border) for band in bands)


def _images(root: SafePath, bands: tuple[str, ...], source: Given) -> dict[str, SafePath]:
    """The image of each polarisation of a ground range product; other modes are warned of."""
    found: dict[str, SafePath] = {}
    products, modes = set(), set()
    for file in files_in(root / "measurement"):
        match = MEASUREMENT.fullmatch(file.name)
        if match:
            products.add((match["product"] or "grd").lower())
            modes.add(match["mode"].lower())
            found[match["band"].upper()] = file
    if products - {"grd"}:
        raise FloraError(
            f"its product type is {', '.join(sorted(products)).upper()}, expected GRD (detected, "
            "ground range)",
            argument=source,
            remedy="SLC is complex, download the GRD product",
        )
    missing = [band for band in bands if band not in found]
    if missing:
        raise FloraError(
            f"measurement/ holds {', '.join(sorted(found)) or 'no image'}, expected "
            f"{' and '.join(bands)}",
            argument=source,
            remedy="choose a scene in dual polarisation VV+VH (its name says 1SDV), or copy it "
            "again if a file is lost",
        )
    for mode in sorted(modes - {TRAINED_ON}):
        warnings.warn(
            FloraWarning(
                f"taken in {MODES.get(mode, mode)}, models are trained on interferometric wide "
                "swath: another resolution, other incidence angles, another noise; check the map "
                "against what you know of the place",
                argument=source,
            ),
            stacklevel=6,
        )
    return found


def calibration_gain(annotation: bytes, size: tuple[int, int], source: Given) -> FloatArray:
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
        pixels = [numbers_of(vector, "pixel") for vector in vectors]
        values = [numbers_of(vector, "sigmaNought") for vector in vectors]
        # Vectors may have pixels of their own: all are brought to those of the first.
        table = np.array([np.interp(pixels[0], p, v) for p, v in zip(pixels, values, strict=True)])
    except (ElementTree.ParseError, ValueError) as error:
        raise FloraError(
            f"damaged calibration annotation ({error})",
            argument=source,
            remedy="unpack the product again",
        ) from error
    lines, first = np.unique(lines, return_index=True)
    table = table[first]
    if not (np.isfinite(table).all() and (table > 0).all() and (np.diff(pixels[0]) > 0).all()):
        raise FloraError(
            "sigmaNought is not above 0 everywhere, or pixels do not increase",
            argument=source,
            remedy="unpack the product again",
        )
    rows, columns = (centres(side, GAIN_STEP) for side in size)
    if len(lines) == 1:
        lines, table = np.array([lines[0], lines[0] + 1]), np.repeat(table, 2, axis=0)
    between = RegularGridInterpolator((lines, pixels[0]), table)
    clipped = np.meshgrid(
        rows.clip(lines[0], lines[-1]), columns.clip(pixels[0][0], pixels[0][-1]), indexing="ij"
    )
    gain: FloatArray = (1 / between(tuple(clipped)) ** 2).astype(np.float32)
    return gain


@contextmanager
def _in_memory(values: FloatArray) -> Iterator[str]:
    """What GDAL opens as an array (rows, columns)."""
    rows, columns = values.shape
    profile = dict(driver="GTiff", count=1, height=rows, width=columns, dtype="float32")
    with MemoryFile() as memory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(**profile) as dataset:
                dataset.write(values[None])
        yield memory.name


def processor_version(manifest: bytes | None) -> float | None:
    """The version of the processor (IPF) that a product's manifest names, 2.7 for 002.70."""
    said = re.search(rb'name="Sentinel-1 IPF"\s+version="(\d+\.\d+)"', manifest or b"")
    return None if said is None else float(said[1])


def _is_denoised(annotation: bytes | None) -> bool:
    """Whether the product's annotation says that the processor subtracted thermal noise."""
    said = re.search(rb"<thermalNoiseCorrectionPerformed>\s*(\w+)", annotation or b"")
    return said is not None and said[1].lower() == b"true"


def pass_of(annotation: bytes | None) -> Pass | None:
    """The pass that a product was taken in; None where its annotation does not say."""
    names = (b"missionId", b"mode", b"absoluteOrbitNumber", b"missionDataTakeId")
    said = [re.search(rb"<%s>\s*(\w+)" % name, annotation or b"") for name in names]
    found = [match[1].decode() for match in said if match is not None]
    return Pass(*found) if len(found) == len(names) else None


def pixel_spacing(annotation: bytes | None) -> float:
    """Metres between pixels, alike in range and along the track; `PIXEL` where it is not said."""
    said = re.search(rb"<rangePixelSpacing>\s*([\d.e+-]+)", annotation or b"")
    return PIXEL if said is None else float(said[1])
