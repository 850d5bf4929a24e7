"""Which files a radar scene consists of, what each holds, and how it gets onto one grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import (
    LON_LAT,
    PIXEL,
    Grid,
    check_georeference,
    covering_grid,
    lon_lat_box,
    map_crs,
    open_raster,
    read_bands,
)
from flora.scenes.names import bands_by_name, check_quantity, in_order
from flora.scenes.safe.folders import is_safe, product_of
from flora.scenes.safe.product import SafeBand, find_safe_bands, mask_border
from flora.scenes.safe.swath import BLOCK, COARSE_BLOCK, GroundControl, geocoded_vrt
from flora.sensors import FloatArray, SarScaling, Units

FILL_SIDE = 512  # px: fill values are looked for in a reading at most this large
# What programs write where nothing was measured, whether they declare it or not.
FILLS = np.array([-9999, -32768, -99999, np.finfo(np.float32).min], dtype=np.float32)
# The same; as stored integers they may be measurements, as backscatter they are none.
SMALL_FILLS = np.array([-999, -99, 255, 9999, 32767, 65535, 99999], dtype=np.float32)
HUGE = 1e9  # no backscatter is this large, in either unit; 1e20 and the like are fills
PLAUSIBLE = (-50.0, 50.0)  # dB: between a radar's noise and its largest corner reflectors


class Layer(NamedTuple):
    """An open raster, and what its bands are.

    Attributes:
        dataset: The raster, on the grid asked for.
        bands: Numbers (from 1) of the polarisations in it.
        name: What messages call it.
        nodata: One for each of `bands`, or None.
        scale: (bands,), what turns stored values into backscatter,
        offset: (bands,), with this added.
    """

    dataset: Any
    bands: tuple[int, ...]
    name: str
    nodata: tuple[float | None, ...]
    scale: FloatArray
    offset: FloatArray


@dataclass(frozen=True)
class BandFile:
    """One raster file of a scene, or one polarisation of a GRD product.

    Attributes:
        path: The file, or the product.
        bands: Numbers (from 1) of the polarisations in it.
        grid: Its own pixels.
        control: Where they lie, if by ground control points.
        fill: Value that is to be left out of resampling.
        scale: Of each of `bands`: stored value times scale plus offset is backscatter.
        offset: See `scale`.
        safe: The polarisation of a GRD product.
    """

    path: Path
    bands: tuple[int, ...]
    grid: Grid
    control: GroundControl | None
    fill: float
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    safe: SafeBand | None = None

    @contextmanager
    def opened(
        self, target: Grid | None, resampling: Resampling = Resampling.bilinear
    ) -> Iterator[Layer]:
        """The file on its own grid, or resampled to `target`."""
        with ExitStack() as stack:
            connection = None
            if self.safe is not None:
                connection = stack.enter_context(self.safe.opened(self.grid.shape))
            bands, nodata = self.bands, (self.fill,) * len(self.bands)
            if target is None:
                dataset = stack.enter_context(open_raster(self.path, "sar_path", connection))
                nodata = tuple(dataset.nodatavals[band - 1] for band in bands)
            elif self.control is not None:
                # Opened once as a file, so that one that vanished is named.
                stack.enter_context(open_raster(self.path, "sar_path", connection))
                block = COARSE_BLOCK if resampling == Resampling.nearest else BLOCK
                warped = geocoded_vrt(
                    connection or str(self.path),
                    bands, self.control, target, self.fill, resampling,
                    Given("sar_path", self.path), block,
                )  # fmt: skip
                dataset = stack.enter_context(open_raster(self.path, "sar_path", warped))
                bands = tuple(range(1, len(bands) + 1))
            else:
                source = stack.enter_context(open_raster(self.path, "sar_path", connection))
                view = WarpedVRT(
                    source,
                    crs=target.crs,
                    transform=target.transform,
                    height=target.shape[0],
                    width=target.shape[1],
                    resampling=resampling,
                    src_nodata=self.fill,
                    nodata=self.fill,
                    dtype="float32",
                )
                dataset = stack.enter_context(view)
            scale, offset = (np.array(v, dtype=np.float32) for v in (self.scale, self.offset))
            yield Layer(dataset, bands, str(self.path), nodata, scale, offset)


@dataclass(frozen=True)
class SceneFiles:
    """A scene's files, checked, and the grid they are to be read on.

    Attributes:
        paths: As given.
        name: What messages call the scene.
        scaling: Sensor.
        units: Of the values, once calibrated.
        files: In the order of the sensor's bands.
        target: The map grid they are resampled to; None keeps their own.
        remove_noise: Whether the thermal noise of a GRD product is subtracted.
    """

    paths: tuple[Path, ...]
    name: str
    scaling: SarScaling
    units: Units
    files: tuple[BandFile, ...]
    target: Grid | None
    remove_noise: bool

    @property
    def grid(self) -> Grid:
        """The grid of the whole scene."""
        return self.files[0].grid if self.target is None else self.target

    @contextmanager
    def opened(self, coarse: Grid | None = None) -> Iterator[list[Layer]]:
        """All files, open on the grid, or the nearest pixels of them on a coarser one."""
        target, resampling = self.target, Resampling.bilinear
        if coarse is not None:
            target, resampling = coarse, Resampling.nearest
        with ExitStack() as stack:
            yield [stack.enter_context(file.opened(target, resampling)) for file in self.files]


def find_files(
    paths: str | Path | Sequence[str | Path],
    scaling: SarScaling,
    units: Units,
    grid: str | Grid | None,
    remove_noise: bool = True,
) -> SceneFiles:
    """Find and check the files of a scene; see `flora.scenes.inputs.open_scene`.

    `grid` may be the very grid that they are put on, too.

    Raises:
        FloraError: If a file is missing, damaged, complex or of another kind, its polarisations
            are not clear, or files differ in grid.
    """
    given = (paths,) if isinstance(paths, str | Path) else tuple(paths)
    listed = tuple(product_of(Path(path)) for path in given)
    if units not in ("db", "linear"):
        raise FloraError('expected "db" or "linear"', argument="units", value=repr(units))
    if len(listed) not in {1, len(scaling.bands)}:
        raise FloraError(
            f"{len(listed)} files, expected one with {', '.join(scaling.bands)}, or one for each",
            argument="sar_path",
            remedy="map other scenes in runs of their own",
        )
    inspect = partial(_inspect, units=units, resampled=grid is not None)
    pixel = PIXEL
    if is_safe(listed[0]) and len(listed) == 1:
        files = _product_files(listed[0], scaling.bands, remove_noise, inspect)
        if grid is None and files[0].safe is not None:
            pixel = files[0].safe.spacing
        units, grid = "linear", grid or "utm"
    elif len(listed) == 1:
        files = (inspect(listed[0], bands=bands_by_name(listed[0], scaling.bands)),)
    else:
        files = tuple(inspect(path) for path in in_order(listed, scaling.bands))
    name = str(listed[0])
    if units == "linear" and scaling.unit != "dB":
        raise FloraError(
            f"with values in {scaling.unit} ({scaling.name}): only sigma0 is converted",
            argument="units",
            value=units,
            remedy="use {units}",
            units="db",
        )
    if files[0].safe is None:
        check_quantity(listed)
    if isinstance(grid, Grid):
        same = all(file.control is None and file.grid.same_as(grid) for file in files)
        return SceneFiles(listed, name, scaling, units, files, None if same else grid, remove_noise)
    target = None if grid is None else _target(files, grid, pixel)
    if target is None:
        _check_own_grid(files)
    elif pixel != PIXEL:
        check_georeference(target, Given("sar_path", listed[0]))
    return SceneFiles(listed, name, scaling, units, files, target, remove_noise)


def _product_files(
    path: Path, bands: tuple[str, ...], remove_noise: bool, inspect: Callable[..., BandFile]
) -> tuple[BandFile, ...]:
    """The polarisations of a GRD product, without their border noise."""
    safe = find_safe_bands(path, bands, "sar_path", remove_noise)
    files = tuple(inspect(path, safe=band) for band in safe)
    size = files[0].grid.shape
    for other, band in zip(files[1:], safe[1:], strict=True):
        if other.grid.shape != size:
            raise FloraError(
                f"{band.band} is of {_size(other.grid)} px, {safe[0].band} of "
                f"{_size(files[0].grid)}: expected one size",
                argument="sar_path",
                value=path,
                remedy="unpack the product again",
            )
    inside = mask_border(safe, size)
    return tuple(replace(file, safe=band) for file, band in zip(files, inside, strict=True))


def _inspect(
    path: Path,
    units: Units,
    resampled: bool,
    safe: SafeBand | None = None,
    bands: tuple[int, ...] = (1,),
) -> BandFile:
    """Open a file once: what it holds, and that its pixels are there to the last row."""
    connection = None if safe is None else safe.measurement
    with open_raster(path, "sar_path", connection) as dataset:
        if any(np.dtype(kind).kind == "c" for kind in dataset.dtypes):
            raise FloraError(
                "complex values, expected detected backscatter",
                argument="sar_path",
                value=path,
                remedy="calibrate to sigma0 first, or download the GRD product",
            )
        points, crs = dataset.gcps
        # The pixel data of a truncated file ends early, and its last row is missing first.
        last = Window(0, dataset.height - 1, dataset.width, 1)
        read_bands(dataset, indexes=bands, window=last, source=Given("sar_path", path))
        plain = safe is None
        return BandFile(
            path,
            bands,
            Grid.of(dataset),
            GroundControl(points, crs) if points and crs and dataset.crs is None else None,
            _fill(dataset, bands, units) if plain and resampled else 0.0,
            tuple(dataset.scales[band - 1] for band in bands) if plain else (1.0,),
            tuple(dataset.offsets[band - 1] for band in bands) if plain else (0.0,),
            safe,
        )


def _fill(dataset: Any, bands: tuple[int, ...], units: Units) -> float:
    """The declared nodata value, or what the file seems to hold where nothing was measured."""
    declared = dataset.nodatavals[bands[0] - 1]
    if declared is not None:
        return float(declared)
    step = max(1, math.ceil(max(dataset.shape) / FILL_SIDE))
    shape = (1, *(math.ceil(side / step) for side in dataset.shape))
    values = read_bands(dataset, indexes=bands[:1], out_shape=shape, out_dtype="float32")
    kind = np.dtype(dataset.dtypes[bands[0] - 1]).kind
    fills = [*map(float, FILLS)] + [0.0] * (units == "linear")
    if kind == "f":
        fills += map(float, SMALL_FILLS)
        low, high = PLAUSIBLE if units == "db" else (-HUGE, HUGE)
        impossible, count = np.unique(values[(values < low) | (values > high)], return_counts=True)
        fills += impossible[np.argsort(-count)[:1]].tolist()
    held = [fill for fill in fills if (values == np.float32(fill)).any()]
    return held[0] if held else {"f": math.nan, "i": fills[0], "u": 0.0}[kind]


def _check_own_grid(files: tuple[BandFile, ...]) -> None:
    """Refuse files on different grids, warn of one that lies nowhere."""
    first = files[0]
    for other in files[1:]:
        if not other.grid.same_as(first.grid):
            raise FloraError(
                f"{other.grid}, but {first.path.name} is of {first.grid}: expected one grid",
                argument="sar_path",
                value=other.path,
                remedy="pass {grid} to resample both",
                grid="utm",
            )
    source = Given("sar_path", first.path)
    if first.grid.crs is None:
        points = first.control is not None
        located = "only ground control points" if points else "no georeference"
        remedy = "pass {grid} to put it on a map" if points else "georeference it"
        warnings.warn(
            FloraWarning(
                f"no CRS ({located}): the maps will have none, and areas are counted in pixels",
                argument=source,
                remedy=f"{remedy} to get km2",
                grid="utm",
            ),
            stacklevel=4,
        )
    else:
        check_georeference(first.grid, source)


def _size(grid: Grid) -> str:
    return f"{grid.shape[1]} x {grid.shape[0]}"


def _target(files: tuple[BandFile, ...], grid: str, pixel: float) -> Grid:
    """The map grid that covers the first file, in pixels of `pixel` metres."""
    first = files[0]
    source = Given("sar_path", first.path)
    if first.control is not None:
        warnings.warn(
            FloraWarning(
                "put on the map by its ground control points, on the ellipsoid, without terrain "
                "correction: slopes are displaced and keep their brightness. Where there is "
                "relief, use a terrain-corrected product",
                argument=source,
            ),
            stacklevel=5,
        )
        longitude, latitude = first.control.coordinates(LON_LAT, source)
        crs = map_crs(grid, lon_lat_box(longitude, latitude))
        x, y = first.control.coordinates(crs, source)
        return covering_grid(crs, x, y, source, pixel)
    if first.grid.crs is None:
        raise FloraError(
            "no CRS and no ground control points, so {grid} cannot be made",
            argument=source,
            remedy="georeference the scene first",
            grid=grid,
        )
    check_georeference(first.grid, source, resampled=True)
    crs = map_crs(grid, first.grid.lon_lat_box())
    return covering_grid(crs, *first.grid.outline(crs), source, pixel)


def file_identities(paths: Sequence[Path]) -> list[list[str | int]]:
    """Path, size and time of change of each file; of every file below a folder."""
    files = [
        file
        for path in paths
        for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    ]
    return [[str(f.resolve()), (s := f.stat()).st_size, s.st_mtime_ns] for f in files]
