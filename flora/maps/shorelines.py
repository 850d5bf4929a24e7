"""Permanent water from files of polygons: GeoPackage, GeoJSON, shapefile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyogrio
import pyogrio.errors
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from rasterio import features
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from flora.antimeridian import seamless
from flora.errors import FloraError
from flora.grid import Grid, apply
from flora.sensors import BoolArray

VECTORS = {".gpkg", ".geojson", ".json", ".shp", ".fgb", ".kml", ".gml"}
VECTOR_ERRORS = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError)
POLYGONS = (3, 6)  # shapely's numbers of Polygon and MultiPolygon
EDGE = 0.01  # degrees: longer edges get more points before they are projected


def is_vector(path: Path) -> bool:
    """Whether a file holds outlines, as its name says."""
    return path.suffix.lower() in VECTORS


def shorelines_grid(path: Path) -> Grid:
    """The extent of a file of polygons, as a grid of one pixel.

    Raises:
        FloraError: If it is no vector file, or has no layer of polygons, several, or no CRS.
    """
    layer, crs = _polygon_layer(path)
    with _damage(path):
        info = pyogrio.read_info(path, layer=layer, force_total_bounds=True)
    west, south, east, north = info["total_bounds"] or (0.0,) * 4  # None, where nothing has any
    if not (west < east and south < north):
        _refuse(path, "holds no polygon", "choose a file with the outlines of permanent water")
    if not np.isfinite((west, south, east, north)).all():
        _refuse(path, "has coordinates that are not finite", "write it again without them")
    return Grid(crs, Affine(east - west, 0, west, 0, south - north, north), (1, 1))


def _polygon_layer(path: Path) -> tuple[str, CRS]:
    """Name and CRS of the one layer of polygons in a file."""
    if not path.is_file():
        _refuse(path, "no such file", "check the path")
    with _damage(path):
        kinds = dict(pyogrio.list_layers(path).tolist())
        layers = [name for name, kind in kinds.items() if re.search("Polygon|Unknown", str(kind))]
        if len(layers) == 1:
            named = pyogrio.read_info(path, layer=layers[0])["crs"]
            crs = CRS.from_user_input(named) if named else None
    if len(layers) != 1:
        said = f"layers {', '.join(layers)}" if layers else "no layer"
        _refuse(path, f"has {said} of polygons, expected one", "write that one to a file (ogr2ogr)")
    if crs is None:
        _refuse(path, "has no CRS", "set the one that its coordinates are in (ogr2ogr -a_srs)")
    return layers[0], crs


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Say in one line what the readers of vector files and outlines say in many ways."""
    try:
        yield
    except (*VECTOR_ERRORS, shapely.errors.ShapelyError, CRSError) as error:
        raise FloraError(
            f"not a vector file, or damaged ({error})",
            argument="permanent_water",
            value=path,
            remedy="expected polygons as GeoPackage or GeoJSON",
        ) from error


class Shorelines:
    """Permanent water of polygons: what lies in none of them was dry.

    Args:
        path: A file of polygons.
        grid: Pixels of the scene.

    Raises:
        FloraError: See `shorelines_grid`.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        self._shapes, self._columns = _read_polygons(path, grid), grid.shape[1]
        self._bounds = shapely.bounds(self._shapes).reshape(-1, 4)

    def read(self, row: int, height: int) -> tuple[BoolArray, BoolArray]:
        """Read whole rows: (height, columns) where water is permanent, and that all is known.

        A pixel belongs to the polygon that holds its centre.
        """
        wet = np.zeros((height, self._columns), dtype=np.uint8)
        here = (self._bounds[:, 1] < row + height) & (self._bounds[:, 3] > row)
        if here.any():
            down = Affine.translation(0, row)
            features.rasterize(self._shapes[here], out=wet, transform=down, default_value=1)
        return wet.astype(bool), np.ones(wet.shape, dtype=bool)


def _read_polygons(path: Path, grid: Grid) -> NDArray[np.object_]:
    """Polygons within a scene, in its pixels."""
    layer, crs = _polygon_layer(path)
    if crs.is_geographic:
        west, south, east, north = grid.lon_lat_box()
        # A scene across 180 degrees meets polygons on both sides of the map.
        boxes = [(west + turn, south, east + turn, north) for turn in (-360, 0, 360)]
    else:
        x, y = grid.outline(crs)
        boxes = [(x.min(), y.min(), x.max(), y.max())]
    parts = []
    for box in boxes:
        with _damage(path):
            found = shapely.from_wkb(pyogrio.raw.read(path, layer=layer, columns=[], bbox=box)[2])
            found = shapely.make_valid(found[np.isin(shapely.get_type_id(found), POLYGONS)])
        # What lies far outside may have no place in the scene's CRS.
        margin = max(box[2] - box[0], box[3] - box[1])
        around = np.add(box, np.multiply(margin, (-1, -1, 1, 1)))
        parts.append(shapely.clip_by_rect(found, *around))
    shapes = np.concatenate(parts)
    shapes = shapes[~shapely.is_empty(shapes)]
    if crs.is_geographic:
        shapes = shapely.segmentize(shapes, EDGE)
    target = seamless(grid)

    def onto(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transform_points(crs, target.crs, *points.T)
        return np.stack(apply(~target.transform, np.array(x), np.array(y)), axis=1)

    moved: NDArray[np.object_] = shapely.transform(shapes, onto) if len(shapes) else shapes
    return moved


def _refuse(path: Path, expected: str, remedy: str) -> NoReturn:
    raise FloraError(expected, argument="permanent_water", value=path, remedy=remedy)
