"""Maps of a scene: rows written as they come, finished as GeoTIFFs that appear all at once."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window

from flora import plots
from flora.errors import FloraError
from flora.scene_inputs import GDAL_ERRORS, SarScene

# WGS 84. Other datums' ellipsoids change areas by less than 0.02 %.
SEMI_MAJOR_AXIS = 6378137.0
ECCENTRICITY_SQUARED = 0.00669437999014


@dataclass(frozen=True)
class Layer:
    """How one map is stored; `resampling` makes its overviews."""

    dtype: str
    bands: tuple[str, ...]
    nodata: float | None
    resampling: str


# Black is a colour of the image, so its nodata is said by alpha: 255 seen, 0 not. A mode keeps
# the mask's three codes; an average would invent others.
LAYERS = {
    "water_probability": Layer("float32", ("water probability",), math.nan, "AVERAGE"),
    "water_mask": Layer("uint8", ("0 dry, 1 water, 255 nodata",), 255, "MODE"),
    "rgb": Layer("uint8", ("red", "green", "blue", "alpha"), None, "AVERAGE"),
}


@dataclass(frozen=True)
class SceneOutputs:
    """What `map_scene` wrote, and the areas it found.

    Attributes:
        water_probability: GeoTIFF, float32 in [0, 1], NaN in nodata.
        water_mask: GeoTIFF, uint8: 0 dry, 1 water, 255 nodata.
        rgb: GeoTIFF, uint8: red, green, blue, alpha (0 in nodata); None if the model makes none.
        quicklook: PNG, all of it at a glance.
        water_pixels: Pixels mapped as water.
        valid_pixels: Pixels that were mapped at all.
        water_km2: Area of the water; None without a CRS.
        valid_km2: Area that was mapped; None without a CRS.
    """

    water_probability: Path
    water_mask: Path
    rgb: Path | None
    quicklook: Path
    water_pixels: int
    valid_pixels: int
    water_km2: float | None
    valid_km2: float | None


def metres_per_unit(crs: Any, transform: Any, shape: tuple[int, int]) -> NDArray[Any] | None:
    """Metres that a unit of x and of y spans on the ground, at the middle of each row.

    In a geographic CRS a radian of longitude spans N cos(phi) and one of latitude M, the radii of
    curvature N = a / sqrt(1 - e^2 sin^2 phi) and M = a (1 - e^2) / (1 - e^2 sin^2 phi)^(3/2) of
    the WGS 84 ellipsoid (Snyder 1987, eq. 4-19 and 4-20). In Web Mercator (EPSG:3857) both are
    scaled by cos(phi) / a on top. Any other projection is taken at its word: UTM is true to 0.1 %.

    Returns:
        (2, rows), or None without a CRS or in one that is neither geographic nor projected.
    """
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None
    factor = crs.units_factor[1]
    mercator = crs.to_epsg() == 3857
    if not (crs.is_geographic or mercator):
        return np.full((2, shape[0]), factor)
    rows = np.arange(shape[0]) + 0.5
    y = transform.d * shape[1] / 2 + transform.e * rows + transform.f
    phi = np.arctan(np.sinh(y / SEMI_MAJOR_AXIS)) if mercator else y * factor
    flattened = 1 - ECCENTRICITY_SQUARED * np.sin(phi) ** 2
    east = SEMI_MAJOR_AXIS * np.cos(phi) / np.sqrt(flattened)
    north = SEMI_MAJOR_AXIS * (1 - ECCENTRICITY_SQUARED) / flattened**1.5
    if mercator:
        return np.stack([east / SEMI_MAJOR_AXIS, north * np.cos(phi) / SEMI_MAJOR_AXIS])
    return np.stack([factor * east, factor * north])


def cell_areas_km2(crs: Any, transform: Any, shape: tuple[int, int]) -> NDArray[Any] | None:
    """Area of one pixel in each row, in km2: |det(transform)| times `metres_per_unit` of x and y.

    Returns:
        (rows,), or None where `metres_per_unit` is None.
    """
    scale = metres_per_unit(crs, transform, shape)
    if scale is None:
        return None
    areas: NDArray[Any] = abs(transform.determinant) * scale[0] * scale[1] / 1e6
    return areas


def pixel_metres(crs: Any, transform: Any, shape: tuple[int, int]) -> tuple[float, float] | None:
    """Width and height of the middle pixel in metres, or None without a CRS."""
    scale = metres_per_unit(crs, transform, shape)
    if scale is None:
        return None
    x, y = scale[:, shape[0] // 2]
    width = math.hypot(transform.a * x, transform.d * y)
    return width, math.hypot(transform.b * x, transform.e * y)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into one line that names the path.

    Raises:
        FloraError: If the system or GDAL cannot write.
    """
    try:
        yield
    except GDAL_ERRORS as error:
        cause = error.__cause__ or error
        raise FloraError(
            f"output_folder {path}: cannot be written ({cause}); choose a folder that is writable "
            "and has free space"
        ) from error


def check_targets(folder: Path, stem: str, overwrite: bool) -> dict[str, Path]:
    """Where each result goes.

    Raises:
        FloraError: If a result exists and must not be overwritten.
    """
    names = {name: f"{stem}_{name}.tif" for name in LAYERS} | {"quicklook": f"{stem}_quicklook.png"}
    targets = {name: folder / file for name, file in names.items()}
    with writing(folder):
        present = [path.name for path in targets.values() if path.exists()]
    if present and not overwrite:
        raise FloraError(
            f"output_folder {folder} already holds {', '.join(present)}: choose another folder, "
            "or pass overwrite=True (--overwrite)"
        )
    return targets


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder inside `folder`, on its disk, that is gone afterwards, whatever happens.

    After a failure, `folder` and its parents are gone too, as far as they were made here.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with ExitStack() as stack:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.mkdtemp(prefix=".flora-", dir=folder)
        try:
            yield Path(temporary)
        except BaseException:
            for path in made:
                stack.callback(_remove_empty, path)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class SceneWriter:
    """Writes rows of maps from top to bottom, then finishes them as Cloud Optimized GeoTIFFs.

    The rows go to striped files first: whatever number of rows comes at a time, no block is
    compressed twice, and nothing but these rows is in memory.

    Args:
        folder: Temporary folder.
        scene: Whose grid and CRS the maps have.
        tags: Metadata written into every map.
    """

    def __init__(self, folder: Path, scene: SarScene, tags: Mapping[str, str]) -> None:
        self._folder = folder
        self._scene = scene
        self._tags = tags
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._seen: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A full disk makes closing fail too; the first failure is the one to report.
        with contextlib.suppress(*GDAL_ERRORS):
            self._stack.close()

    def write(self, name: str, row: int, values: NDArray[Any]) -> None:
        """Write rows (bands, height, columns) of a layer from `row` on."""
        with writing(self._folder.parent):
            if name not in self._files:
                self._files[name] = self._stack.enter_context(self._create(name))
                self._seen[name] = 0
            self._files[name].write(values, window=Window(0, row, *values.shape[:0:-1]))
            self._seen[name] += _count_seen(name, values)

    def finish(self) -> dict[str, Path]:
        """Close the rows and write each layer tiled, compressed, with overviews."""
        finished = {}
        with writing(self._folder.parent):
            self._stack.close()
            for name in self._files:
                finished[name] = self._folder / f"{name}.tif"
                rasterio.shutil.copy(
                    self._rows(name),
                    finished[name],
                    driver="COG",
                    BLOCKSIZE=256,
                    COMPRESS="DEFLATE",
                    LEVEL=3,  # twice as fast as the default 6, files 1 % larger
                    PREDICTOR="YES",
                    RESAMPLING=LAYERS[name].resampling,
                    BIGTIFF="IF_SAFER",
                    NUM_THREADS="ALL_CPUS",
                )
                self._rows(name).unlink()
                self._check_whole(name, finished[name])
        return finished

    def _check_whole(self, name: str, path: Path) -> None:
        """Read a finished file back: GDAL says nothing when the disk was full on closing it."""
        with rasterio.open(path, NUM_THREADS="ALL_CPUS") as file:
            seen = sum(_count_seen(name, strip) for strip in _strips(file))
            levels = range(len(file.overviews(1)))
        for level in levels:
            with rasterio.open(path, overview_level=level, NUM_THREADS="ALL_CPUS") as file:
                for _ in _strips(file):
                    pass
        if seen != self._seen[name]:
            raise OSError(f"{path.name} is incomplete")

    def _rows(self, name: str) -> Path:
        return self._folder / f"{name}_rows.tif"

    def _create(self, name: str) -> Any:
        layer, scene = LAYERS[name], self._scene
        file = rasterio.open(
            self._rows(name),
            "w",
            driver="GTiff",
            height=scene.shape[0],
            width=scene.shape[1],
            count=len(layer.bands),
            dtype=layer.dtype,
            nodata=layer.nodata,
            crs=scene.crs,
            transform=scene.transform,
            blockysize=1,
            compress="deflate",
            zlevel=1,
            bigtiff="if_safer",
            **({"photometric": "RGB", "alpha": "YES"} if name == "rgb" else {}),
        )
        file.update_tags(**self._tags)
        for number, description in enumerate(layer.bands, 1):
            file.set_band_description(number, description)
        return file


def draw_quicklook(maps: Mapping[str, Path], scene: SarScene, target: Path, title: str) -> None:
    """Write a PNG of the finished maps and the SAR scene, reduced to about a thousand pixels."""
    rows, columns = scene.sample.shape[1:]

    def reduced(name: str) -> NDArray[Any]:
        with rasterio.open(maps[name]) as file:
            return np.asarray(file.read(out_shape=(file.count, rows, columns)))

    metres = pixel_metres(scene.crs, scene.transform, scene.shape)
    step = scene.sample_step
    drawn = plots.quicklook(
        scene.sample[0],
        reduced("water_mask")[0],
        reduced("rgb")[:3] / 255 if "rgb" in maps else None,
        band=scene.scaling.bands[0],
        unit=scene.scaling.unit,
        pixel_metres=metres and (metres[0] * step, metres[1] * step),
        title=title,
    )
    with writing(target.parent.parent):
        drawn.savefig(target, bbox_inches="tight")


def publish(finished: Mapping[str, Path], targets: Mapping[str, Path]) -> None:
    """Rename finished files to their names, and remove results of an earlier run beside them.

    If one cannot be renamed, none of them stays.
    """
    moved: list[Path] = []
    try:
        for name, target in targets.items():
            with writing(target.parent):
                if name in finished:
                    finished[name].replace(target)
                    moved.append(target)
                else:
                    target.unlink(missing_ok=True)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def _strips(file: Any) -> Iterator[NDArray[Any]]:
    for row in range(0, file.height, 256):
        yield file.read(window=Window(0, row, file.width, min(256, file.height - row)))


def _count_seen(name: str, values: NDArray[Any]) -> int:
    """Pixels of (bands, h, w) that are not nodata."""
    nodata = LAYERS[name].nodata
    if nodata is None:  # alpha, the last band
        return int(np.count_nonzero(values[-1]))
    return int(np.count_nonzero(~np.isnan(values) if math.isnan(nodata) else values != nodata))


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
