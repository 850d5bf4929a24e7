"""Scenes as they are on disk: opened, checked before anything is computed, read row by row."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from torch import Tensor

from flora.errors import FloraError, FloraWarning
from flora.sensors import (
    SENTINEL2_BANDS,
    BoolArray,
    FloatArray,
    OpticalScaling,
    SarScaling,
    normalised_difference,
)

Units = Literal["db", "linear"]

# rasterio lets some of GDAL's own errors through, and has no public name for them.
GDAL_ERRORS = (OSError, RasterioError, CPLE_BaseError)

BEFORE_BANDS = ("B4", "B3", "B2", "B8")  # red, green, blue, near infrared
SAMPLE_SIDE = 1024  # px: statistics and the quicklook come from a reading at most this large
GRID_TOLERANCE = 0.05  # of a pixel: publishers' float noise is far below, a real shift above


@dataclass(frozen=True)
class OpticalInput:
    """An optical image from before the flood, on the pixels of the SAR tile it comes with.

    Attributes:
        optical: (B, 3, h, w) in [0, 1]: red, green, blue; 0 where not valid.
        index: (B, 1, h, w) in [-1, 1]: NDVI; 0 where not valid.
        valid: (B, h, w) bool: false in nodata and where the image does not reach.
    """

    optical: Tensor
    index: Tensor
    valid: Tensor


@contextmanager
def open_raster(path: Path, argument: str) -> Iterator[Any]:
    """Open a raster for reading.

    Raises:
        FloraError: If there is no such file or GDAL cannot read its header.
    """
    if not path.is_file():
        raise FloraError(f"{argument} {path}: no such file; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except GDAL_ERRORS as error:
        raise FloraError(
            f"{argument} {path}: not a raster, or truncated ({error}); expected a GeoTIFF"
        ) from error
    with dataset:
        yield dataset


def read_bands(dataset: Any, masks: bool = False, **options: Any) -> NDArray[Any]:
    """Read pixels (or GDAL's masks of them), all of them or none.

    Raises:
        FloraError: If the file is damaged or vanished.
    """
    try:
        return np.asarray(dataset.read_masks(**options) if masks else dataset.read(**options))
    except GDAL_ERRORS as error:
        raise FloraError(
            f"{dataset.name}: the file is truncated or damaged ({error}); copy it again"
        ) from error


class SarScene:
    """A Sentinel-1 scene in dB, whatever unit it is stored in.

    A pixel is valid where every band was measured: finite, not the nodata value, not masked and,
    in linear power, above 0 (the border of a ground range product is 0).

    Args:
        dataset: The open raster.
        scaling: Its sensor: number and order of bands, unit.
        units: What is stored: "db", or "linear" for power, read as 10 log10.

    Attributes:
        shape: (rows, columns).
        sample: (C, h, w) in `scaling.unit`, every `sample_step`-th pixel, NaN where not valid.

    Raises:
        FloraError: If bands, type or units are not what was expected, or nothing was measured.
    """

    def __init__(self, dataset: Any, scaling: SarScaling, units: Units) -> None:
        self.dataset = dataset
        self.units = units
        self.scaling = scaling
        self.crs = dataset.crs
        self.transform = dataset.transform
        self.shape: tuple[int, int] = (dataset.height, dataset.width)
        self._check_layout()
        # The pixel data of a truncated file ends early, and its last row is missing first.
        self.read(dataset.height - 1, 1)
        self.sample_step = max(1, math.ceil(max(self.shape) / SAMPLE_SIDE))
        reduced = tuple(math.ceil(side / self.sample_step) for side in self.shape)
        values, measured = self._load(out_shape=(dataset.count, *reduced))
        self._check_values(values, measured)
        values, valid = self._convert(values, measured)
        self.sample = np.where(valid, values, np.nan).astype(np.float32)

    def read(self, row: int, height: int) -> tuple[FloatArray, BoolArray]:
        """Read whole rows: backscatter (C, height, columns), and where it is valid."""
        return self._convert(*self._load(window=Window(0, row, self.shape[1], height)))

    def _load(self, **options: Any) -> tuple[FloatArray, BoolArray]:
        values = read_bands(self.dataset, out_dtype="float32", **options)
        measured = np.isfinite(values).all(axis=0)
        if any(MaskFlags.all_valid not in flags for flags in self.dataset.mask_flag_enums):
            measured &= (read_bands(self.dataset, masks=True, **options) != 0).all(axis=0)
        return values, measured

    def _convert(self, values: FloatArray, measured: BoolArray) -> tuple[FloatArray, BoolArray]:
        if self.units == "db":
            return values, measured
        valid = measured & (values > 0).all(axis=0)
        return 10 * np.log10(np.where(valid, values, np.float32(1))), valid

    def _check_layout(self) -> None:
        name, bands = self.dataset.name, self.scaling.bands
        if self.dataset.count != len(bands):
            raise FloraError(
                f"sar_path {name}: {self.dataset.count} bands, expected {len(bands)} in the order "
                f"{', '.join(bands)}; stack them into one file (gdalbuildvrt -separate)"
            )
        if any(np.dtype(kind).kind == "c" for kind in self.dataset.dtypes):
            raise FloraError(
                f"sar_path {name}: complex values, expected detected backscatter; "
                "calibrate to sigma0 first"
            )
        if self.units == "linear" and self.scaling.unit != "dB":
            raise FloraError(
                f'units="linear" with values in {self.scaling.unit} ({self.scaling.name}): '
                'only sigma0 is converted; use units="db"'
            )
        if self.crs is None:
            located = "only ground control points" if self.dataset.gcps[0] else "no georeference"
            warnings.warn(
                f"sar_path {name}: no CRS ({located}): the maps will have none, and areas are "
                "counted in pixels; terrain-correct the scene to get km2",
                FloraWarning,
                stacklevel=4,
            )

    def _check_values(self, values: FloatArray, measured: BoolArray) -> None:
        """Check the sample or, where it caught nothing, the first rows that hold something."""
        strips = range(0, self.shape[0], 256)
        rows = (Window(0, r, self.shape[1], min(256, self.shape[0] - r)) for r in strips)
        for window in (None, *rows):
            if window is not None:
                values, measured = self._load(window=window)
            # 0 is what an untagged border holds: it says nothing about units.
            seen = values[:, measured & (values != 0).any(axis=0)]
            if seen.size == 0:
                continue
            if self.scaling.unit == "dB":
                check_units(seen, self.units, self.dataset.name)
            backscatter, valid = self._convert(values, measured)
            if valid.any():
                self._check_polarisations(backscatter[:, valid])
                return
        raise FloraError(
            f"sar_path {self.dataset.name}: no pixel was measured (all nodata, NaN or 0); "
            "choose a scene that covers the area"
        )

    def _check_polarisations(self, seen: FloatArray) -> None:
        vv, vh = seen[:2].mean(axis=1) if len(seen) > 1 else (0.0, 0.0)
        if self.scaling.bands[:2] == ("VV", "VH") and vv < vh:
            warnings.warn(
                f"sar_path {self.dataset.name}: mean VV {vv:.1f} dB is below mean VH {vh:.1f} dB: "
                "the polarisations are probably swapped; expected VV, then VH",
                FloraWarning,
                stacklevel=5,
            )


def check_units(seen: FloatArray, units: Units, name: str) -> None:
    """Refuse measured values, not 0, that cannot be sigma0 in the unit they are said to have.

    Land and water lie between about -35 and 0 dB, which is 0.0003 to 1 in power; dB is negative
    nearly everywhere, power nowhere but for noise correction.

    Raises:
        FloraError: If they are in the other unit, digital numbers or scaled integers.
    """
    negative, median = float(np.mean(seen < 0)), float(np.median(seen))
    prefix = f"sar_path {name}: "
    if median > 10:
        raise FloraError(
            f"{prefix}median value {median:.4g}: uncalibrated digital numbers, expected sigma0; "
            "calibrate the scene first"
        )
    if units == "db" and negative < 0.01:
        raise FloraError(
            f"{prefix}values are 0 or more (median {median:.4g}): linear power, expected dB; "
            'convert with 10 log10, or pass units="linear" (--units linear)'
        )
    if units == "linear" and negative > 0.5:
        raise FloraError(
            f"{prefix}values are negative (median {median:.4g}): dB, expected linear power; "
            'pass units="db" (--units db)'
        )
    if median < -60:
        raise FloraError(
            f"{prefix}median value {median:.4g}: too low for dB; integers scaled by 100 or more "
            "must be divided first"
        )


class BeforeScene:
    """A Sentinel-2 image on the grid of a SAR scene.

    Args:
        dataset: The open raster, or its warped view.
        bands: Its band numbers (from 1) of red, green, blue and near infrared.
        scaling: What turns stored values into [0, 1].
    """

    def __init__(self, dataset: Any, bands: tuple[int, ...], scaling: OpticalScaling) -> None:
        self.dataset = dataset
        self.bands = bands
        self.scaling = scaling

    def read(self, row: int, height: int) -> NDArray[Any]:
        """Read whole rows of stored values: (4, height, columns) as B4, B3, B2, B8."""
        window = Window(0, row, self.dataset.width, height)
        return read_bands(self.dataset, indexes=self.bands, window=window)

    def valid(self, stored: NDArray[Any]) -> BoolArray:
        """Where an image was taken: finite, not the nodata value, and not 0 in every band."""
        valid: BoolArray = np.isfinite(stored).all(axis=0) & (stored != 0).any(axis=0)
        nodata = self.dataset.nodata
        if nodata is not None and nodata != 0:
            valid &= (stored != nodata).all(axis=0)
        return valid

    def scale(self, stored: NDArray[Any]) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Image (3, h, w), NDVI (1, h, w) and validity (h, w) of stored values (4, h, w)."""
        valid = self.valid(stored)
        index = normalised_difference(stored[3:], stored[:1])
        return self.scaling.normalise(stored[:3], valid), np.where(valid, index, 0), valid


@contextmanager
def open_before(path: Path, scene: SarScene, scaling: OpticalScaling) -> Iterator[BeforeScene]:
    """Open a pre-event Sentinel-2 image on the grid of `scene`, reprojected if it has another.

    Bands are found by their names where the file has them; else 13 bands are Level-1C in the
    order of `SENTINEL2_BANDS`, and 4 bands are B4, B3, B2, B8. Values are reflectance x 10000,
    without the offset of 1000 that ESA adds since baseline 04.00. Another grid is resampled
    bilinearly.

    Raises:
        FloraError: If bands, values or grid do not fit, or the image does not cover the scene.
    """
    if scaling.bands != BEFORE_BANDS[:3] or scaling.index_name != "NDVI":
        raise FloraError(
            f"optical_scaling {scaling.name}: bands {', '.join(scaling.bands)} with "
            f"{scaling.index_name}; before_path is supported for B4, B3, B2 with NDVI only"
        )
    with open_raster(path, "before_path") as dataset:
        bands = _before_bands(dataset)
        if same_grid(dataset, scene.dataset):
            before = BeforeScene(dataset, bands, scaling)
            _check_before(before, scene)
            yield before
            return
        _check_overlap(dataset, scene)
        nodata = 0 if dataset.nodata is None else dataset.nodata
        with WarpedVRT(
            dataset,
            crs=scene.crs,
            transform=scene.transform,
            height=scene.shape[0],
            width=scene.shape[1],
            resampling=Resampling.bilinear,
            src_nodata=nodata,
            nodata=nodata,
            UNIFIED_SRC_NODATA="YES",  # a dark band alone is not nodata
        ) as warped:
            before = BeforeScene(warped, bands, scaling)
            _check_before(before, scene)
            yield before


def same_grid(first: Any, second: Any) -> bool:
    """Whether two rasters have one shape, one CRS and corners that agree to 1/20 pixel."""
    if first.shape != second.shape or first.crs != second.crs:
        return False
    a, b = (np.reshape(raster.transform[:6], (2, 3)) for raster in (first, second))
    pixel = np.hypot(*b[:, :2]).min()
    rows, columns = first.shape
    corners = np.array([[0, columns, 0, columns], [0, 0, rows, rows], [1, 1, 1, 1]])
    return bool((np.hypot(*((a - b) @ corners)) <= GRID_TOLERANCE * pixel).all())


def _before_bands(dataset: Any) -> tuple[int, ...]:
    names = [(name or "").upper().replace("B0", "B") for name in dataset.descriptions]
    if set(BEFORE_BANDS) <= set(names):
        return tuple(names.index(band) + 1 for band in BEFORE_BANDS)
    if dataset.count == len(SENTINEL2_BANDS):
        return tuple(SENTINEL2_BANDS.index(band) + 1 for band in BEFORE_BANDS)
    if dataset.count == len(BEFORE_BANDS):
        return tuple(range(1, 5))
    raise FloraError(
        f"before_path {dataset.name}: {dataset.count} bands without names, expected 13 (Level-1C: "
        f"{', '.join(SENTINEL2_BANDS)}) or 4 ({', '.join(BEFORE_BANDS)})"
    )


def _check_overlap(dataset: Any, scene: SarScene) -> None:
    prefix = f"before_path {dataset.name}: its grid of {dataset.width} x {dataset.height} px "
    prefix += f"differs from the scene's of {scene.shape[1]} x {scene.shape[0]} px and "
    if dataset.crs is None or scene.crs is None:
        raise FloraError(
            f"{prefix}cannot be reprojected, because one of them has no CRS; "
            "georeference both, or resample the image to the scene's grid"
        )
    try:
        left, bottom, right, top = transform_bounds(dataset.crs, scene.crs, *dataset.bounds)
    except GDAL_ERRORS as error:
        raise FloraError(f"{prefix}cannot be reprojected: {error}") from error
    there = scene.dataset.bounds
    if left >= there.right or right <= there.left or bottom >= there.top or top <= there.bottom:
        raise FloraError(f"{prefix}does not overlap it; choose an image of the same place")


def _check_before(before: BeforeScene, scene: SarScene) -> None:
    reduced = (len(before.bands), *scene.sample.shape[1:])
    stored = read_bands(before.dataset, indexes=before.bands, out_shape=reduced)
    valid = before.valid(stored)
    name = before.dataset.name
    if not valid.any():
        raise FloraError(
            f"before_path {name}: no valid pixel within the scene; choose an image that covers it"
        )
    bright = float(np.percentile(stored[:, valid], 99))
    if bright <= 2 or before.dataset.dtypes[0] == "uint8":
        raise FloraError(
            f"before_path {name}: values of type {before.dataset.dtypes[0]} up to about "
            f"{bright:.4g}, expected reflectance x 10000; rescale the image"
        )
    seen = np.isfinite(scene.sample).all(axis=0)
    covered = float(valid[seen].mean()) if seen.any() else 1.0
    if covered < 0.5:
        warnings.warn(
            f"before_path {name}: valid on {covered:.0%} of the scene; elsewhere SAR alone decides",
            FloraWarning,
            stacklevel=6,
        )
