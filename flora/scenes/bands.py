"""Which files a radar scene consists of, what each holds, and the grid they get onto."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
from flora.scenes.layers import BandFile, SceneFiles
from flora.scenes.names import bands_by_name, in_order, sigma0_share
from flora.scenes.safe.correction import Correction, ProductGeometry
from flora.scenes.safe.folders import is_safe, product_of
from flora.scenes.safe.product import Pass, SafeBand, find_safe_bands, mask_border
from flora.scenes.safe.range_doppler import range_doppler_of
from flora.scenes.safe.swath import GroundControl
from flora.sensors import BoolArray, FloatArray, SarScaling, Units, require_units

LAST_PIXELS = 65_536  # of the last row, that are read to see whether a file is whole
FILL_SIDE = 512  # px: fill values are looked for in a reading at most this large
# What programs write where nothing was measured, whether they declare it or not.
FILLS = np.array([-9999, -32768, -99999, np.finfo(np.float32).min], dtype=np.float32)
# The same; as stored integers they may be measurements, as backscatter they are none.
SMALL_FILLS = np.array([-999, -99, 255, 9999, 32767, 65535, 99999], dtype=np.float32)
LEAST_FILL = 99  # no fill is nearer to 0
HUGE = 1e9  # no backscatter is this large, in either unit; 1e20 and the like are fills
# dB: above a radar's noise (-50 itself is a fill), up to its largest corner reflectors.
PLAUSIBLE = (-50.0, 50.0)


def is_stored_fill(stored: NDArray[Any]) -> BoolArray:
    """Where a stored value, of any kind of number, is a fill or none at all."""
    return _where_far(stored, lambda far: ~np.isfinite(far) | np.isin(far, FILLS))


def is_fill(values: FloatArray) -> BoolArray:
    """Where backscatter, in either unit, is a fill."""
    return _where_far(values, lambda far: np.isin(far, SMALL_FILLS) | (np.abs(far) >= HUGE))


def _where_far(values: NDArray[Any], test: Callable[[NDArray[Any]], BoolArray]) -> BoolArray:
    """The test's answer where it may be true: scenes are large, and nearly all of it is near 0."""
    far = np.asarray(~(np.abs(values) < LEAST_FILL))
    if far.any():
        far[far] = test(values[far])
    return far


def find_files(
    paths: str | Path | Sequence[str | Path],
    scaling: SarScaling,
    units: Units,
    grid: str | Grid | None,
    remove_noise: bool = True,
    correction: Correction | None = None,
    incidence: float | None = None,
) -> SceneFiles:
    """Find and check the files of a scene; see `flora.scenes.inputs.open_scene`.

    `grid` may be the very grid that they are put on, too.

    Raises:
        FloraError: If a file is missing, damaged, complex or of another kind, its polarisations
            are not clear, or files differ in grid.
    """
    listed = _listed(paths, scaling)
    require_units(units)
    products = all(is_safe(path) for path in listed)
    inspect = partial(_inspect, units=units, resampled=grid is not None)
    pixel = PIXEL
    if products:
        slices = [_product_files(path, scaling.bands, remove_noise, inspect) for path in listed]
        if correction is not None:
            slices = [_on_ground(files, correction) for files in slices]
        files = _one_pass(slices)
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
    said: dict[str, str] = {}
    if files[0].safe is None and scaling.unit == "dB":
        share, said = sigma0_share(listed, incidence)
        files = tuple(file.times(share, units) for file in files)
    if isinstance(grid, Grid):
        same = all(file.control is None and file.grid.same_as(grid) for file in files)
        there = None if same else grid
        found = SceneFiles(listed, name, scaling, units, files, there, remove_noise, correction)
        return replace(found, quantity=said, incidence=incidence)
    target = None if grid is None else _target(files, grid, pixel)
    corrected = correction if target is not None and files[0].ground is not None else None
    if corrected is not None and target is not None:
        corrected.check(target)
    if target is None:
        _check_own_grid(files)
    elif pixel != PIXEL:
        check_georeference(target, Given("sar_path", listed[0]))
    found = SceneFiles(listed, name, scaling, units, files, target, remove_noise, corrected)
    return replace(found, quantity=said, incidence=incidence)


def _listed(paths: str | Path | Sequence[str | Path], scaling: SarScaling) -> tuple[Path, ...]:
    """The files or products of a scene.

    Raises:
        FloraError: If they are more or fewer files than polarisations.
    """
    given = (paths,) if isinstance(paths, str | Path) else tuple(paths)
    listed = tuple(product_of(Path(path)) for path in given)
    if not all(is_safe(path) for path in listed) and len(listed) not in {1, len(scaling.bands)}:
        raise FloraError(
            f"{len(listed)} files, expected one with {', '.join(scaling.bands)}, or one for each",
            argument="sar_path",
            remedy="map other scenes in runs of their own",
        )
    return listed


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


def _on_ground(files: tuple[BandFile, ...], correction: Correction) -> tuple[BandFile, ...]:
    """The polarisations of a product, with what puts them on the ground.

    Raises:
        FloraError: If its annotation does not tell orbit and ranges.
    """
    first = files[0].safe
    if first is None:
        return files
    ground = ProductGeometry(range_doppler_of(first.annotation, first.source), correction)
    return tuple(replace(file, ground=ground) for file in files)


def _one_pass(slices: Sequence[tuple[BandFile, ...]]) -> tuple[BandFile, ...]:
    """The polarisations of a pass, each with those of the further slices.

    Raises:
        FloraError: If products are of different passes, or do not say of which.
    """
    if len(slices) > 1:
        passes = [files[0].safe.taken if files[0].safe else None for files in slices]
        for files, taken in zip(slices, passes, strict=True):
            if taken is None or taken != passes[0]:
                raise FloraError(
                    f"of {_said(taken)}, but {slices[0][0].path.name} is of {_said(passes[0])}: "
                    "expected slices of one pass",
                    argument="sar_path",
                    value=files[0].path,
                    remedy="map it as a scene of its own",
                )
    bands = zip(*slices, strict=True)
    return tuple(replace(first, others=tuple(others)) for first, *others in bands)


def _said(taken: Pass | None) -> str:
    if taken is None:
        return "a pass that its annotation does not name"
    return f"{taken.mission}'s {taken.mode} orbit {taken.orbit}, data take {taken.data_take}"


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
        if any("complex" in kind for kind in dataset.dtypes):  # CInt16 is no type of numpy
            raise FloraError(
                "complex values, expected detected backscatter",
                argument="sar_path",
                value=path,
                remedy="calibrate to sigma0 first, or download the GRD product",
            )
        points, crs = dataset.gcps
        # The pixel data of a truncated file ends early, and its last row is missing first.
        width = min(dataset.width, LAST_PIXELS)
        last = Window(dataset.width - width, dataset.height - 1, width, 1)
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
        impossible, count = np.unique(values[(values <= low) | (values > high)], return_counts=True)
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
    """The map grid that covers the first file and its slices, in pixels of `pixel` metres."""
    first = files[0]
    source = Given("sar_path", first.path)
    if first.control is not None:
        if first.ground is None:
            _warn_of_slopes(source)
        parts = [file.control for file in (first, *first.others) if file.control is not None]
        all_of_it = GroundControl([p for part in parts for p in part.points], parts[0].crs)
        longitude, latitude = all_of_it.coordinates(LON_LAT, source)
        crs = map_crs(grid, lon_lat_box(longitude, latitude))
        x, y = all_of_it.coordinates(crs, source)
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


def _warn_of_slopes(source: Given) -> None:
    warnings.warn(
        FloraWarning(
            "put on the map by its ground control points, on the ellipsoid, without terrain "
            "correction: slopes are displaced and keep their brightness",
            argument=source,
            remedy="where there is relief, pass {dem}, or use a terrain-corrected product",
            dem="FILE",
        ),
        stacklevel=6,
    )


def file_identities(paths: Sequence[Path]) -> list[list[str | int]]:
    """Path, size and time of change of each file; of every file below a folder."""
    files = [
        file
        for path in paths
        for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    ]
    return [[str(f.resolve()), (s := f.stat()).st_size, s.st_mtime_ns] for f in files]
