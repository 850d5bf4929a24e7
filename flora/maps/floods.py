"""Flood, not just water: new water and permanent water are separated, on the scene's own grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from flora.cog import strips, write_cog
from flora.colours import FLOOD_COLOUR, PERMANENT_COLOUR, rgb_bytes
from flora.errors import FloraError, FloraWarning, Given
from flora.files import folder_beside, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, open_raster, raster_files, read_bands
from flora.maps.permanent import PermanentWater, open_permanent_water
from flora.sensors import DRY, IGNORE, WATER

FLOOD = 1
PERMANENT = 2

CODES = (DRY, FLOOD, PERMANENT, IGNORE)
CLASSES = "0 dry, 1 flood, 2 permanent water, 255 nodata"


@dataclass(frozen=True)
class FloodAreas:
    """What `split_flood` wrote, and how much of the scene each class covers.

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


def split_flood(
    water_mask: str | Path,
    output: str | Path,
    permanent_water: str | Path,
    *,
    permanent_threshold: float | None = None,
    permanent_class: int | Sequence[int] | None = None,
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
            (Pekel et al., 2016, doi 10.1038/nature20584), or, with a class, land cover. Or
            polygons: a GeoPackage, GeoJSON or shapefile.
        permanent_threshold: Stored value from which water is permanent, above 0.
        permanent_class: Stored value, or several, that are permanent water: 80 in ESA WorldCover.
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
    read = [Given("water_mask", water_mask)]
    read += [Given("permanent_water", path) for path in raster_files(Path(permanent_water))]
    target = new_file(output, "output", overwrite, read)
    with ExitStack() as stack:
        mask = stack.enter_context(open_raster(Path(water_mask), "water_mask"))
        permanent = stack.enter_context(
            open_permanent_water(permanent_water, mask, permanent_threshold, permanent_class)
        )
        temporary = stack.enter_context(folder_beside(target, GDAL_ERRORS))
        rows, finished = temporary / "rows.tif", temporary / "classes.tif"
        with _class_file(rows, mask, Path(permanent_water)) as written:
            counts = _write_classes(mask, permanent, written)
        if not counts.reached:
            raise FloraError(
                "nothing is known within the scene (all nodata)",
                argument="permanent_water",
                value=permanent_water,
                remedy="choose a raster of the same place",
            )
        write_cog(rows, finished, "MODE", _histogram, counts.pixels)
        publish({"classes": finished}, {"classes": target}, temporary / "earlier")
    pixels, km2 = counts.pixels, counts.km2
    if counts.unknown:
        share = counts.unknown / max(int(pixels[FLOOD] + pixels[PERMANENT]), 1)
        part = f"{share:.0%}" if share >= 0.01 else f"{counts.unknown:,} px"
        warnings.warn(
            FloraWarning(
                f"says nothing about {part} of the water, which is counted as flood",
                argument="permanent_water",
                value=permanent_water,
            ),
            stacklevel=2,
        )
    return FloodAreas(
        classes=target,
        flood_pixels=int(pixels[FLOOD]),
        permanent_pixels=int(pixels[PERMANENT]),
        unknown_pixels=counts.unknown,
        valid_pixels=int(pixels[:3].sum()),
        flood_km2=None if km2 is None else float(km2[FLOOD]),
        permanent_km2=None if km2 is None else float(km2[PERMANENT]),
        valid_km2=None if km2 is None else float(km2[:3].sum()),
    )


@dataclass(frozen=True)
class _Counts:
    """What `_write_classes` found.

    Attributes:
        pixels: (4,) of dry, flood, permanent water and nodata.
        km2: Their areas, or None without a CRS.
        unknown: Pixels of water of which nothing is known.
        reached: Whether anything is known of the scene.
    """

    pixels: NDArray[np.int64]
    km2: NDArray[np.float64] | None
    unknown: int
    reached: bool


def _histogram(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels of each of `CODES`."""
    return np.bincount(codes.ravel(), minlength=256)[list(CODES)]


def _write_classes(mask: Any, permanent: PermanentWater, written: Any) -> _Counts:
    areas = Grid.of(mask).cell_areas()
    pixels, km2 = np.zeros(len(CODES), dtype=np.int64), np.zeros(len(CODES))
    unknown, reached = 0, False
    for row, codes in water_strips(mask):
        wet, known = permanent.read(row, len(codes))
        reached |= bool(known.any())
        unknown += int(((codes == WATER) & ~known).sum())
        classes = np.where((codes == WATER) & wet, np.uint8(PERMANENT), codes)
        written.write(classes, 1, window=Window(0, row, mask.width, len(codes)))
        for number, code in enumerate(CODES):
            chosen = classes == code
            pixels[number] += np.count_nonzero(chosen)
            km2[number] += 0.0 if areas is None else areas.sum(row, chosen)
    return _Counts(pixels, None if areas is None else km2, unknown, reached)


def water_strips(mask: Any) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """First row and codes (height, columns) of a water mask, strip by strip.

    Raises:
        FloraError: If it holds anything but 0, 1 and 255.
    """
    for strip in strips(mask.shape):
        codes = read_bands(mask, indexes=1, window=strip)
        other = ~np.isin(codes, (DRY, WATER, IGNORE))
        if other.any():
            raise FloraError(
                f"holds {codes[other][0]:g}, expected 0 dry, 1 water, 255 nodata",
                argument="water_mask",
                value=mask.name,
                remedy="pass the mask that map_scene wrote",
            )
        yield strip.row_off, codes.astype(np.uint8)


def open_classes(path: Path, mask: Any) -> Any:
    """A new raster of 8-bit codes on the grid of a map, with its tags, to be written by rows."""
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
    file.update_tags(**{k: value for k, value in mask.tags().items() if k.startswith("FLORA_")})
    return file


def _class_file(path: Path, mask: Any, permanent_water: Path) -> Any:
    file = open_classes(path, mask)
    file.update_tags(FLORA_PERMANENT_WATER=permanent_water.name)
    file.set_band_description(1, CLASSES)
    colours = {FLOOD: FLOOD_COLOUR, PERMANENT: PERMANENT_COLOUR}
    table = {code: (*rgb_bytes(colour), 255) for code, colour in colours.items()}
    # Dry is transparent: the classes are looked at over an image.
    file.write_colormap(1, {DRY: (255, 255, 255, 0), IGNORE: (150, 150, 150, 255)} | table)
    return file
