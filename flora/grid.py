"""Where the pixels of a scene lie: its grid, a part of it, and another grid to put it on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window

from flora.areas import CellAreas, measurable, pixel_metres
from flora.errors import FloraError, FloraWarning, Given
from flora.files import readable

# rasterio lets some of GDAL's own errors through, and has no public name for them.
GDAL_ERRORS = (OSError, RasterioError, CPLE_BaseError)


def _lon_lat() -> CRS:
    """WGS 84 in longitude and latitude: what needs the database of coordinate systems first."""
    try:
        with rasterio.Env():  # GDAL's own words go to Python's log
            return CRS.from_epsg(4326)
    except CRSError as error:
        raise FloraError(
            f"the database of coordinate systems cannot be read ({error})",
            remedy="unset PROJ_LIB and PROJ_DATA, which another program has set",
        ) from error


LON_LAT = _lon_lat()
PIXEL = 10.0  # m: Sentinel-1 ground range products in high resolution, and all training data
DEGREE = 111_319.49  # m: one of longitude on the equator, WGS 84
GRID_TOLERANCE = 0.05  # of a pixel: publishers' float noise is far below, a real shift above

PixelWindow = tuple[int, int, int, int]
LonLatBox = tuple[float, float, float, float]


class Part(NamedTuple):
    """A rectangle of a grid, in pixels from its top left corner."""

    row: int
    column: int
    height: int
    width: int

    def rows(self, row: int, height: int) -> Window:
        """Whole rows of this part, counted from its own first row, as a window of the grid."""
        return Window(self.column, self.row + row, self.width, height)


@dataclass(frozen=True)
class Grid:
    """The pixels of a raster.

    Attributes:
        crs: Coordinate reference system, None without georeference.
        transform: From (column, row) to coordinates of the CRS; rotation is allowed.
        shape: (rows, columns).
    """

    crs: CRS | None
    transform: Affine
    shape: tuple[int, int]

    @classmethod
    def of(cls, dataset: Any) -> Self:
        """The grid of an open raster."""
        return cls(dataset.crs, dataset.transform, dataset.shape)

    def part(self, part: Part) -> Grid:
        """The grid of a part of it."""
        a, b, _, d, e, _ = self.transform[:6]
        x, y = apply(self.transform, part.column, part.row)
        return Grid(self.crs, Affine(a, b, x, d, e, y), (part.height, part.width))

    def coarse(self, step: int) -> Grid:
        """The same area in pixels of `step` times the side."""
        rows, columns = (math.ceil(side / step) for side in self.shape)
        a, b, c, d, e, f = self.transform[:6]
        larger = Affine(a * step, b * step, c, d * step, e * step, f)
        return Grid(self.crs, larger, (rows, columns))

    def outline(self, crs: CRS, points: int = 21) -> tuple[NDArray[Any], NDArray[Any]]:
        """Coordinates x, y in `crs` of points along its four edges; infinite where undefined.

        Raises:
            FloraError: If there is no way from its CRS to the other.
        """
        rows, columns = self.shape
        along = np.linspace(0, 1, points)
        zero, one = np.zeros(points), np.ones(points)
        u = columns * np.concatenate([along, one, along, zero])
        v = rows * np.concatenate([zero, along, one, along])
        try:
            x, y = transform(self.crs, crs, *apply(self.transform, u, v))
        except GDAL_ERRORS as error:
            raise FloraError(
                f"coordinates in {self.crs} cannot be converted to {crs} ({error}): expected the "
                "CRS that the file's coordinates are in; correct it with gdal_edit -a_srs"
            ) from error
        return np.asarray(x), np.asarray(y)

    def lon_lat_box(self) -> LonLatBox:
        """(west, south, east, north) in degrees; east exceeds 180 across the antimeridian.

        Longitudes of a geographic grid stay as they are, so that a raster of the whole earth keeps
        its 360 degrees, and one in 0 to 360 its numbers.
        """
        if self.crs is None or not self.crs.is_geographic:
            return lon_lat_box(*self.outline(LON_LAT))
        degree = math.degrees(self.crs.units_factor[1])
        west, south, east, north = (degree * side for side in self.bounds)
        return west, south, east, north

    @property
    def crs_name(self) -> str | None:
        """The CRS in words, e.g. "EPSG:4326"."""
        return None if self.crs is None else str(self.crs.to_string())

    @property
    def numbers(self) -> tuple[float, ...]:
        """The six of the transform: x = a column + b row + c, y = d column + e row + f."""
        return tuple(self.transform)[:6]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) in units of the CRS."""
        rows, columns = self.shape
        corners = apply(
            self.transform, np.array([0, columns, 0, columns]), np.array([0, 0, rows, rows])
        )
        (west, east), (south, north) = ((float(v.min()), float(v.max())) for v in corners)
        return west, south, east, north

    def __str__(self) -> str:
        numbers = ", ".join(f"{number:.6g}" for number in self.numbers)
        return f"{self.shape[1]} x {self.shape[0]} px in {self.crs} with transform ({numbers})"

    def cell_areas(self) -> CellAreas | None:
        """Areas of its cells on the ellipsoid, or None where its CRS does not say how large."""
        if not measurable(self.crs):
            return None
        return CellAreas(self.crs, self.transform, self.shape)

    def pixel_metres(self) -> tuple[float, float] | None:
        """Width and height of the middle pixel on the ground, in metres, or None likewise."""
        return pixel_metres(self.crs, self.transform, self.shape)

    def same_as(self, other: Grid) -> bool:
        """Whether both have one shape, one CRS and corners that agree to 1/20 pixel."""
        if self.shape != other.shape or self.crs != other.crs:
            return False
        a, b = (np.reshape(grid.transform[:6], (2, 3)) for grid in (self, other))
        pixel = np.hypot(*b[:, :2]).min()
        rows, columns = self.shape
        corners = np.array([[0, columns, 0, columns], [0, 0, rows, rows], [1, 1, 1, 1]])
        return bool((np.hypot(*((a - b) @ corners)) <= GRID_TOLERANCE * pixel).all())


def apply(affine: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Where an affine map puts points, numbers or arrays."""
    a, b, c, d, e, f = affine[:6]
    return a * x + b * y + c, d * x + e * y + f


@contextmanager
def open_raster(path: Path, argument: str, connection: str | None = None) -> Iterator[Any]:
    """Open a raster for reading.

    Args:
        path: The file, or what messages call it.
        argument: The argument that named it.
        connection: What GDAL opens, where this is not a file (a virtual dataset, a member of an
            archive).

    Raises:
        FloraError: If there is no such file or GDAL cannot read its header.
    """
    try:
        folder, there = path.is_dir(), path.is_file()
    except OSError as error:  # a name longer than the disk allows
        raise FloraError(
            f"no such file ({error.strerror})",
            argument=argument,
            value=path,
            remedy="check the path",
        ) from error
    if connection is None and folder:
        raise FloraError(
            "a folder, expected a raster file",
            argument=argument,
            value=path,
            remedy="name the file",
        )
    if connection is None and not there:
        raise FloraError("no such file", argument=argument, value=path, remedy="check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(connection or path)
    except UnicodeEncodeError as error:
        raise FloraError(
            "its name is not UTF-8, which GDAL asks for",
            argument=argument,
            value=readable(path),
            remedy="rename it",
        ) from error
    except GDAL_ERRORS as error:
        reason = str(error) if connection is None else "GDAL cannot open it"
        raise FloraError(
            f"not a raster, or truncated ({reason})",
            argument=argument,
            value=path,
            remedy="expected a GeoTIFF",
        ) from error
    with dataset:
        yield dataset


def raster_files(path: Path | None) -> list[Path]:
    """A raster and the files that it refers to, as the sources of a virtual raster (VRT)."""
    if path is None:
        return []
    try:
        with open_raster(path, "") as dataset:
            return [path, *map(Path, dataset.files)]
    except FloraError:
        return [path]  # a folder, an archive, or what is refused where it is used


def read_bands(
    dataset: Any, masks: bool = False, source: Given | None = None, **options: Any
) -> NDArray[Any]:
    """Read pixels (or GDAL's masks of them), all of them or none.

    Args:
        dataset: The open raster.
        masks: Read masks in place of values.
        source: The argument that named it; by default messages say the file's own name.
        options: Passed to rasterio.

    Raises:
        FloraError: If the file is damaged or vanished.
    """
    bands = options.get("indexes", dataset.indexes)
    mixed = not isinstance(bands, int) and len({dataset.dtypes[band - 1] for band in bands}) > 1
    if mixed and not masks:
        return _read_mixed(dataset, tuple(bands), source, options)
    try:
        return np.asarray(dataset.read_masks(**options) if masks else dataset.read(**options))
    except GDAL_ERRORS as error:
        raise FloraError(
            f"the file is truncated or damaged ({error}), or has vanished",
            argument=source or Given("", dataset.name),
            remedy="copy it again",
        ) from error


def _read_mixed(
    dataset: Any, bands: tuple[int, ...], source: Given | None, options: dict[str, Any]
) -> NDArray[Any]:
    """Bands of different types, as virtual rasters have them, in a type that holds them all."""
    shape = options.get("out_shape")
    one = options if shape is None else options | {"out_shape": tuple(shape)[-2:]}
    return np.stack([read_bands(dataset, source=source, **one | {"indexes": b}) for b in bands])


def lon_lat_box(longitude: NDArray[Any], latitude: NDArray[Any]) -> LonLatBox:
    """(west, south, east, north) of points; east exceeds 180 across the antimeridian."""
    longitude = unwrapped(longitude)
    box = longitude.min(), latitude.min(), longitude.max(), latitude.max()
    west, south, east, north = map(float, box)
    return west, south, east, north


def unwrapped(longitude: NDArray[Any]) -> NDArray[Any]:
    """Longitudes of points that lie together, beyond 180 where they lie across the antimeridian."""
    if np.ptp(longitude) <= 180:
        return longitude
    return np.where(longitude < 0, longitude + 360, longitude)


def check_georeference(grid: Grid, source: Given, resampled: bool = False) -> None:
    """Refuse coordinates that cannot be in the CRS a file declares; warn of unusual pixels.

    Args:
        grid: The file's pixels.
        source: The argument that named it.
        resampled: Whether its pixels are resampled to a size that a model knows.

    Raises:
        FloraError: If the transform is singular, or the coordinates are impossible in the CRS.
    """
    if grid.transform.is_degenerate:
        raise FloraError(
            f"the transform {tuple(grid.transform)[:6]} maps all pixels to one line, expected "
            "pixels with an area",
            argument=source,
            remedy="georeference the file again",
        )
    if grid.crs is None:
        return
    sides = grid.pixel_metres()
    if sides is None:
        raise FloraError(
            f"its CRS, {grid.crs}, is neither geographic nor projected",
            argument=source,
            remedy="reproject it to one that is (gdalwarp -t_srs), or set the one its coordinates "
            "are in (gdal_edit -a_srs)",
        )
    side, metres = math.sqrt(abs(grid.transform.determinant)), math.sqrt(math.prod(sides))
    rows, columns = grid.shape
    x, y = apply(grid.transform, columns / 2, rows / 2)
    if grid.crs.is_geographic:
        possible = abs(x) <= 360 and abs(y) <= 90
    else:
        possible = bool(np.isfinite(grid.outline(LON_LAT)).all())
    if not (possible and metres > 0.1):
        raise FloraError(
            f"its centre ({x:.6g}, {y:.6g}) and pixels of {side:.3g} are impossible in its CRS, "
            f"{grid.crs}: wrong CRS",
            argument=source,
            remedy="set the one its coordinates are in (gdal_edit -a_srs)",
        )
    if not resampled and not PIXEL / 2 <= metres <= PIXEL * 1.5:
        warnings.warn(
            FloraWarning(
                f"pixels of about {metres:.3g} m, expected about {PIXEL:g} m, which models are "
                "trained on",
                argument=source,
                remedy="pass {grid} to resample",
                grid="utm",
            ),
            stacklevel=2,
        )


def map_crs(name: str, around: LonLatBox) -> CRS:
    """The CRS of a target grid: "utm" is the zone of the box's centre, else e.g. "EPSG:4326".

    Raises:
        FloraError: If it is no CRS.
    """
    west, south, east, north = around
    if name == "utm":
        if max(abs(south), abs(north)) > 84:
            raise FloraError(
                f"the scene reaches {max(south, north, key=abs):.1f} degrees of latitude, UTM "
                "ends at 84",
                argument="grid",
                value="utm",
                remedy="pass a polar CRS, e.g. {grid}",
                grid="EPSG:3413",
            )
        zone = int((((west + east) / 2 + 180) % 360) // 6) + 1
        return CRS.from_epsg((32600 if south + north >= 0 else 32700) + zone)
    expected = 'expected "utm" or a geographic or projected one, e.g. "EPSG:32630"'
    try:
        with rasterio.Env():  # GDAL's own words go to Python's log
            crs = CRS.from_user_input(name)
    except CRSError as error:
        raise FloraError(
            f"no CRS ({error}), {expected}", argument="grid", value=repr(name)
        ) from error
    if not measurable(crs):
        raise FloraError(f"says no place on the map, {expected}", argument="grid", value=name)
    return crs


def covering_grid(
    crs: CRS, x: NDArray[Any], y: NDArray[Any], source: Given, side: float = PIXEL
) -> Grid:
    """A north-up grid of `side` metres in `crs` around points, its edges at multiples of a pixel.

    In a geographic CRS a pixel has its side on the equator, as in Sen1Floods11.

    Raises:
        FloraError: If a point has no coordinates there.
    """
    if not np.isfinite([x, y]).all():
        raise FloraError(
            f"part of it has no coordinates in {crs}",
            argument=source,
            remedy="choose a CRS made for the area, or {grid}",
            grid="utm",
        )
    unit = DEGREE if crs.is_geographic else float(crs.linear_units_factor[1])
    pixel = side / unit
    left, right = math.floor(x.min() / pixel), math.ceil(x.max() / pixel)
    bottom, top = math.floor(y.min() / pixel), math.ceil(y.max() / pixel)
    corner = Affine(pixel, 0, left * pixel, 0, -pixel, top * pixel)
    return Grid(crs, corner, (top - bottom, right - left))
