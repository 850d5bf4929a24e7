"""Outlines of water: polygons with area and mean probability, as GeoPackage and GeoJSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.errors
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import Affine
from rasterio.windows import Window

from flora.areas import CellAreas
from flora.cog import strips
from flora.errors import NAME_ALONE, FloraError, Given
from flora.files import folder_beside, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, open_raster, read_bands
from flora.sensors import DRY, IGNORE

MOST_POLYGONS = 1_000_000  # about 1 GB of shapes; nobody looks at more
LAYER = "water"


@dataclass(frozen=True)
class WaterPolygons:
    """What `write_polygons` wrote.

    Attributes:
        geopackage: GeoPackage in the scene's CRS, layer "water".
        geojson: GeoJSON in longitude and latitude (RFC 7946).
        count: Polygons in each.
        km2: Area of each class by its name.
    """

    geopackage: Path
    geojson: Path
    count: int
    km2: dict[str, float]


def write_polygons(
    classes: str | Path,
    output: str | Path,
    *,
    probability: str | Path | None = None,
    minimum_area: float = 0.0,
    overwrite: bool = False,
) -> WaterPolygons:
    """Outline the water of a scene: one polygon for each connected patch of a class.

    Pixels that touch at corners only belong to different patches. Each polygon has the attributes
    `class` ("flood", "permanent water", or "water" where the two were not told apart), `area_km2`
    (true area on the ellipsoid) and `mean_probability`.

    With `minimum_area`, a smaller patch takes the class of its largest neighbour before anything
    is outlined (GDAL's sieve filter): specks become dry, holes become water, a narrow rim of flood
    along a river becomes river. Nodata stays nodata. What still is smaller is left out. The area
    is converted to pixels where these are largest, so that no patch of this area is lost.

    The scene's codes are held in memory, twice, at one byte a pixel: 0.85 GB for 25,000 x 17,000
    px. Probabilities are read strip by strip.

    Args:
        classes: GeoTIFF of `split_flood`, or a water mask of `map_scene`.
        output: File to write; both endings, .gpkg and .geojson, are put to its name.
        probability: Water probability of `map_scene` on the same grid; without it,
            `mean_probability` is null.
        minimum_area: Smallest patch and smallest hole that is kept, in m².
        overwrite: Replace existing files.

    Raises:
        FloraError: If an input is refused, has no CRS, gives more than a million polygons, an
            output exists, or the disk refuses.

    Example:
        A lake of 3 x 2 pixels of 10 m, and a speck of one:

        >>> import numpy as np
        >>> import rasterio
        >>> from flora import write_polygons
        >>> grid = {"crs": "EPSG:32630", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 4.4e6)}
        >>> shape = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8"}
        >>> mask = np.zeros((1, 8, 8), dtype=np.uint8)
        >>> mask[0, 1:4, 1:3] = mask[0, 6, 6] = 1
        >>> with rasterio.open("mask.tif", "w", **grid, **shape) as file:
        ...     file.write(mask)
        ...     file.set_band_description(1, "0 dry, 1 water, 255 nodata")
        >>> lake = write_polygons("mask.tif", "lake.gpkg", minimum_area=200)
        >>> lake.count, round(lake.km2["water"], 6), lake.geojson.name
        (1, 0.0006, 'lake.geojson')
    """
    stem = Path(output)
    stem = stem.with_suffix("") if stem.suffix in (".gpkg", ".geojson") else stem
    read = [Given("classes", classes), Given("probability", probability)]
    targets = {
        ending: new_file(stem.with_name(f"{stem.name}.{ending}"), "output", overwrite, read)
        for ending in ("gpkg", "geojson")
    }
    with ExitStack() as stack:
        file = stack.enter_context(open_raster(Path(classes), "classes"))
        cells = check_outlines(Grid.of(file), minimum_area, Given("classes", classes))
        chances = None
        if probability is not None:
            chances = stack.enter_context(open_raster(Path(probability), "probability"))
            if not Grid.of(chances).same_as(Grid.of(file)):
                raise FloraError(
                    f"its grid differs from that of {classes}",
                    argument="probability",
                    value=probability,
                    remedy="pass the probability that map_scene wrote together with the mask",
                )
        shapes, table = _measured_outlines(file, cells, chances, minimum_area)
        temporary = stack.enter_context(folder_beside(stem, GDAL_ERRORS))
        finished = {ending: temporary / f"water.{ending}" for ending in targets}
        for path in finished.values():
            _write(path, shapes, table, file.crs)
        publish(finished, targets, temporary / "earlier")
        names = class_names(file)
    return WaterPolygons(
        geopackage=targets["gpkg"],
        geojson=targets["geojson"],
        count=len(shapes),
        km2={
            name: float(table["area_km2"][table["class"] == name].sum()) for name in names.values()
        },
    )


def check_outlines(scene: Grid, minimum_area: float, source: Given) -> CellAreas:
    """Refuse what `write_polygons` would refuse of a scene, before it is mapped.

    Args:
        scene: The scene's pixels.
        minimum_area: See `write_polygons`.
        source: The argument that named the scene.

    Returns:
        Areas of its cells.

    Raises:
        FloraError: If the scene has no place, or the area is no number of 0 or more.
    """
    if not (math.isfinite(minimum_area) and minimum_area >= 0):
        raise FloraError("expected 0 or more, in m2", argument="minimum_area", value=minimum_area)
    cells = scene.cell_areas()
    if cells is None:
        raise FloraError(
            "has no CRS that says where it is or how large its pixels are",
            argument=source,
            remedy="georeference the scene first",
        )
    return cells


def _measured_outlines(
    file: Any, cells: CellAreas, chances: Any | None, minimum_area: float
) -> tuple[NDArray[np.object_], dict[str, NDArray[Any]]]:
    """Polygons in the CRS of a class file, and a column of attributes by name."""
    codes = _sieved(file, minimum_area / (1e6 * cells.largest))
    kinds, shapes = _outline(codes, class_names(file))
    km2, means = _measure(shapes, codes.shape, cells, chances)
    keep = km2 >= minimum_area / 1e6 * (1 - 1e-9)
    table = {"class": kinds[keep], "area_km2": km2[keep], "mean_probability": means[keep]}
    return _on_ground(shapes[keep], file.transform), table


def class_names(file: Any) -> dict[int, str]:
    """Codes of water and their names, from the description of a class file's band.

    Raises:
        FloraError: If the file is not of `split_flood` or `map_scene`.
    """
    found = re.findall(r"(\d+) ([a-z ]+)", file.descriptions[0] or "")
    names = {int(code): name for code, name in found if int(code) not in (DRY, IGNORE)}
    if not names or file.dtypes[0] != "uint8":
        raise FloraError(
            f"a band of type {file.dtypes[0]} described as {file.descriptions[0]!r}, expected a "
            "file of split_flood, or the water mask of map_scene",
            argument="classes",
            value=file.name,
        )
    return names


def _sieved(file: Any, pixels: float) -> NDArray[np.uint8]:
    """The class codes (rows, columns), patches of fewer pixels merged into their neighbours."""
    codes: NDArray[np.uint8] = read_bands(file, indexes=1)
    size = math.ceil(min(pixels, codes.size - 1))  # GDAL takes no more than the image has
    if size <= 1:
        return codes
    sieved: NDArray[np.uint8] = features.sieve(codes, size, mask=codes != IGNORE)
    return sieved


def _outline(
    codes: NDArray[np.uint8], names: dict[int, str]
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Class name and polygon of every patch, in pixels from the top left corner."""
    kinds: list[str] = []
    shapes: list[Any] = []
    for outline, code in features.shapes(codes, mask=np.isin(codes, list(names))):
        if len(shapes) == MOST_POLYGONS:
            raise FloraError(
                f"more than {MOST_POLYGONS:,} polygons",
                remedy="pass a larger {minimum_area}, e.g. 5000 (m2)",
                minimum_area=NAME_ALONE,
            )
        kinds.append(names[int(code)])
        rings = [np.asarray(ring) for ring in outline["coordinates"]]
        shapes.append(shapely.Polygon(rings[0], rings[1:]))
    return np.array(kinds, dtype=object), np.array(shapes, dtype=object)


def _measure(
    shapes: NDArray[np.object_],
    size: tuple[int, int],
    cells: CellAreas,
    chances: Any | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True area in km2 and mean probability (NaN where none was read) of polygons in pixels."""
    count = len(shapes)
    km2, sums, pixels = np.zeros(count), np.zeros(count), np.zeros(count)
    for row, number in _numbered_strips(shapes, size):
        inside = number >= 0
        numbers = number[inside]
        weights = cells.rows(row, len(number))[inside]
        km2 += np.bincount(numbers, weights, minlength=count)
        if chances is not None:
            window = Window(0, row, size[1], len(number))
            values = read_bands(chances, indexes=1, window=window)[inside]
            seen = np.isfinite(values)
            sums += np.bincount(numbers[seen], values[seen], minlength=count)
            pixels += np.bincount(numbers[seen], minlength=count)
    return km2, np.divide(sums, pixels, out=np.full(count, np.nan), where=pixels > 0)


def _numbered_strips(
    shapes: NDArray[np.object_], size: tuple[int, int]
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """First row of each strip and which polygon each of its pixels lies in, -1 for none."""
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    for strip in strips(size):
        row, height = strip.row_off, strip.height
        here = np.flatnonzero((bounds[:, 1] < row + height) & (bounds[:, 3] > row))
        number = np.full((height, size[1]), -1, dtype=np.int32)
        if len(here):
            features.rasterize(
                ((shapes[n], int(n)) for n in here),
                out=number,
                transform=Affine.translation(0, row),
            )
            yield row, number


def _on_ground(shapes: NDArray[np.object_], transform: Affine) -> NDArray[np.object_]:
    """Polygons in pixels as polygons in the CRS, with outer rings counter-clockwise."""
    linear = np.array([[transform.a, transform.b], [transform.d, transform.e]])
    offset = np.array([transform.c, transform.f])
    moved = shapely.transform(shapes, lambda points: points @ linear.T + offset)
    oriented: NDArray[np.object_] = shapely.orient_polygons(moved)
    return oriented


def _write(
    path: Path, shapes: NDArray[np.object_], table: dict[str, NDArray[Any]], crs: Any
) -> None:
    options: dict[str, Any] = {"layer": LAYER, "driver": "GPKG"}
    if path.suffix == ".geojson":
        # The driver then reprojects, orders rings and splits at the antimeridian by the RFC.
        options = {"driver": "GeoJSON", "RFC7946": "YES", "WRITE_NAME": "NO"}
    try:
        pyogrio.raw.write(
            path,
            shapely.to_wkb(shapes),
            list(table.values()),
            list(table),
            geometry_type="Polygon",
            crs=crs.to_wkt(),
            **options,
        )
    except pyogrio.errors.DataSourceError as error:
        raise OSError(str(error)) from error
