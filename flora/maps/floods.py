"""Flood, not just water: what was always wet is told from what is new, on the scene's own grid."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from flora.errors import FloraError, FloraWarning
from flora.figures.plots import OVERLAY_COLOUR
from flora.files import make_folder, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, open_raster, read_bands
from flora.scenes.outputs import cell_areas_km2
from flora.sensors import DRY, IGNORE, WATER, BoolArray

FLOOD = 1
PERMANENT = 2

# The lightness differs too, so that the classes survive colour blindness and grey print.
FLOOD_COLOUR = OVERLAY_COLOUR
PERMANENT_COLOUR = "#08519c"

CLASSES = "0 dry, 1 flood, 2 permanent water, 255 nodata"
STRIP = 256  # rows read at a time


@dataclass(frozen=True)
class FloodAreas:
    """What `split_flood` wrote, and how much of the scene is what.

    Attributes:
        classes: GeoTIFF, uint8: 0 dry, 1 flood, 2 permanent water, 255 nodata.
        flood_pixels: Pixels of new water.
        permanent_pixels: Pixels of water that was there before.
        unknown_pixels: Pixels counted as flood because nothing is known about the time before.
        valid_pixels: Pixels that were mapped at all.
        flood_km2: Area of `flood_pixels`; None without a CRS, as all areas.
        permanent_km2: Area of `permanent_pixels`.
        valid_km2: Area of `valid_pixels`.
    """

    classes: Path
    flood_pixels: int
    permanent_pixels: int
    unknown_pixels: int
    valid_pixels: int
    flood_km2: float | None
    permanent_km2: float | None
    valid_km2: float | None


class PermanentWater:
    """Where water was before the flood, on the grid of a scene.

    Args:
        dataset: The open raster, or its warped view.
        threshold: Stored value from which water is permanent; None for a mask of 0 and 1.
    """

    def __init__(self, dataset: Any, threshold: float | None) -> None:
        self._dataset = dataset
        self._threshold = threshold

    def read(self, row: int, height: int) -> tuple[BoolArray, BoolArray]:
        """Read whole rows: (height, columns) where water is permanent, and where that is known.

        Raises:
            FloraError: If a mask of 0 and 1 holds another value.
        """
        window = Window(0, row, self._dataset.width, height)
        values = read_bands(self._dataset, indexes=1, window=window)
        known = np.isfinite(values)
        if self._dataset.nodata is not None:
            known &= values != self._dataset.nodata
        threshold = self._threshold
        if threshold is None or threshold < IGNORE:  # 255 marks nodata in JRC's layers and in ours
            known &= values != IGNORE
        if threshold is None:
            other = known & (values != 0) & (values != 1)
            if other.any():
                raise FloraError(
                    f"permanent_water holds {values[other][0]:g}: expected a mask of 0 and 1 "
                    "(255 nodata); for JRC occurrence pass permanent_threshold=50 (percent), for "
                    "seasonality 12 (months), for a mask of 0 and 255 pass 255"
                )
            threshold = 1
        return known & (values >= threshold), known


@contextmanager
def open_permanent_water(
    path: str | Path, scene: Any, threshold: float | None
) -> Iterator[PermanentWater]:
    """Open what is known about water before the flood, on the grid of an open raster `scene`.

    Another grid is resampled to the nearest pixel, because codes and counts have no average.

    Raises:
        FloraError: If the file cannot be read, or has another grid and one of both has no CRS.
    """
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(Path(path), "permanent_water"))
        if not Grid.of(dataset).same_as(Grid.of(scene)):
            if dataset.crs is None or scene.crs is None:
                raise FloraError(
                    f"permanent_water {path}: its grid differs from the scene's and cannot be "
                    "reprojected, because one of them has no CRS; georeference both"
                )
            outside = IGNORE if dataset.nodata is None else dataset.nodata
            dataset = stack.enter_context(
                WarpedVRT(
                    dataset,
                    crs=scene.crs,
                    transform=scene.transform,
                    height=scene.height,
                    width=scene.width,
                    resampling=Resampling.nearest,
                    nodata=outside,
                )
            )
        yield PermanentWater(dataset, threshold)


def split_flood(
    water_mask: str | Path,
    output: str | Path,
    permanent_water: str | Path,
    *,
    permanent_threshold: float | None = None,
    overwrite: bool = False,
) -> FloodAreas:
    """Split a water mask into new flood and permanent water, in constant memory.

    Water whose past is unknown (nodata of `permanent_water`, or beyond its edge) counts as flood:
    a flood that is missed costs more than one too many. A warning says how much there is of it.

    Args:
        water_mask: GeoTIFF of `map_scene`: 0 dry, 1 water, 255 nodata.
        output: Cloud-optimised GeoTIFF to write, on the mask's grid: see `FloodAreas.classes`.
        permanent_water: Raster on any grid that has a CRS: a mask of 0 and 1, the water mask of a
            scene from before the flood, or, with a threshold, the occurrence (per cent of the
            observations) or seasonality (months a year) of the JRC Global Surface Water layers
            (Pekel et al., 2016, doi 10.1038/nature20584).
        permanent_threshold: Stored value from which water is permanent.
        overwrite: Replace an existing output.

    Raises:
        FloraError: If an input is refused, the rasters do not overlap, `output` exists already,
            or the disk refuses.

    Example:
        A river of one column, and after the flood of three, on four rows of 10 m pixels:

        >>> import numpy as np
        >>> import rasterio
        >>> from flora import split_flood
        >>> grid = {"crs": "EPSG:32630", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 4.4e6)}
        >>> shape = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
        >>> for name, columns in (("before", 1), ("after", 3)):
        ...     with rasterio.open(f"{name}.tif", "w", **grid, **shape) as file:
        ...         file.write(np.tile(np.arange(4) < columns, (1, 4, 1)))
        >>> areas = split_flood("after.tif", "classes.tif", "before.tif")
        >>> areas.flood_pixels, areas.permanent_pixels, round(areas.flood_km2, 6)
        (8, 4, 0.0008)
    """
    target = new_file(output, "output", overwrite)
    with ExitStack() as stack:
        mask = stack.enter_context(open_raster(Path(water_mask), "water_mask"))
        permanent = stack.enter_context(
            open_permanent_water(permanent_water, mask, permanent_threshold)
        )
        temporary = stack.enter_context(workplace(target))
        finished = temporary / "classes.tif"
        rows = temporary / "rows.tif"
        areas = cell_areas_km2(mask.crs, mask.transform, mask.shape)
        pixels, km2, unknown, reached = np.zeros(4, dtype=np.int64), np.zeros(3), 0, False
        written = stack.enter_context(_class_file(rows, mask, Path(permanent_water)))
        for row, codes in water_strips(mask):
            wet, known = permanent.read(row, len(codes))
            reached |= bool(known.any())
            classes = np.where((codes == WATER) & wet, np.uint8(PERMANENT), codes)
            unknown += int(((codes == WATER) & ~known).sum())
            written.write(classes, 1, window=Window(0, row, mask.width, len(codes)))
            each = [(classes == code).sum(axis=1) for code in (DRY, FLOOD, PERMANENT)]
            pixels += [*(int(count.sum()) for count in each), int((classes == IGNORE).sum())]
            if areas is not None:
                km2 += np.stack(each) @ areas[row : row + len(codes)]
        written.close()
        _finish(rows, finished, pixels)
        if not reached:
            raise FloraError(
                f"permanent_water {permanent_water}: nothing is known within the scene (no "
                "overlap, or all nodata); choose a raster of the same place"
            )
        publish({"classes": finished}, {"classes": target}, temporary / "earlier")
    if unknown:
        share = unknown / max(int(pixels[FLOOD] + pixels[PERMANENT]), 1)
        warnings.warn(
            f"permanent_water {permanent_water}: says nothing about {share:.0%} of the water, "
            "which is counted as flood",
            FloraWarning,
            stacklevel=2,
        )
    return FloodAreas(
        classes=target,
        flood_pixels=int(pixels[FLOOD]),
        permanent_pixels=int(pixels[PERMANENT]),
        unknown_pixels=unknown,
        valid_pixels=int(pixels[:3].sum()),
        flood_km2=None if areas is None else float(km2[FLOOD]),
        permanent_km2=None if areas is None else float(km2[PERMANENT]),
        valid_km2=None if areas is None else float(km2.sum()),
    )


def water_strips(mask: Any) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """First row and codes (height, columns) of a water mask, strip by strip.

    Raises:
        FloraError: If it holds anything but 0, 1 and 255.
    """
    for row in range(0, mask.height, STRIP):
        height = min(STRIP, mask.height - row)
        window = Window(0, row, mask.width, height)
        codes = read_bands(mask, indexes=1, window=window)
        other = ~np.isin(codes, (DRY, WATER, IGNORE))
        if other.any():
            raise FloraError(
                f"water_mask {mask.name} holds {codes[other][0]:g}: expected 0 dry, 1 water, "
                "255 nodata, as map_scene writes it"
            )
        yield row, codes.astype(np.uint8)


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A temporary folder on the disk of a file to be written, gone afterwards, whatever happens.

    Raises:
        FloraError: If the disk refuses.
    """
    make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".flora-", dir=target.parent) as folder:
            yield Path(folder)
    except GDAL_ERRORS as error:
        raise FloraError(
            f"cannot write {target}: {error.__cause__ or error}; choose a folder that is writable "
            "and has free space"
        ) from error


def _class_file(path: Path, mask: Any, permanent_water: Path) -> Any:
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=mask.height,
        width=mask.width,
        count=1,
        dtype="uint8",
        nodata=IGNORE,
        crs=mask.crs,
        transform=mask.transform,
        blockysize=1,
        compress="deflate",
        zlevel=1,
        bigtiff="if_safer",
    )
    kept = {key: value for key, value in mask.tags().items() if key.startswith("FLORA_")}
    file.update_tags(**kept, FLORA_PERMANENT_WATER=permanent_water.name)
    file.set_band_description(1, CLASSES)
    colours = {FLOOD: FLOOD_COLOUR, PERMANENT: PERMANENT_COLOUR}
    table = {code: (*bytes.fromhex(colour[1:]), 255) for code, colour in colours.items()}
    # Dry is transparent: the classes are looked at over an image.
    file.write_colormap(1, {DRY: (255, 255, 255, 0), IGNORE: (150, 150, 150, 255)} | table)
    return file


def _finish(rows: Path, finished: Path, pixels: NDArray[np.int64]) -> None:
    """Tile, compress and add overviews, then read back: a full disk can go unnoticed."""
    rasterio.shutil.copy(
        rows,
        finished,
        driver="COG",
        BLOCKSIZE=256,
        COMPRESS="DEFLATE",
        RESAMPLING="MODE",
        BIGTIFF="IF_SAFER",
        NUM_THREADS="ALL_CPUS",
    )
    counts = np.zeros(256, dtype=np.int64)
    with rasterio.open(finished) as file:
        for row in range(0, file.height, STRIP):
            window = Window(0, row, file.width, min(STRIP, file.height - row))
            counts += np.bincount(file.read(1, window=window).ravel(), minlength=256)
    if not np.array_equal(counts[[DRY, FLOOD, PERMANENT, IGNORE]], pixels):
        raise OSError(f"{finished.name} is incomplete")
