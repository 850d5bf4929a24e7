"""What a map of one scene shows: its layers at screen size on one grid, and its exact areas."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from flora.errors import FloraError
from flora.figures.plots import BACKSCATTER_LIMITS
from flora.grid import Grid, open_raster, read_bands
from flora.maps.floods import STRIP, PermanentWater, open_permanent_water
from flora.scenes.outputs import SEMI_MAJOR_AXIS, cell_areas_km2
from flora.sensors import SENTINEL2_RGB, BoolArray

# A map may be moved to any of these; stored probabilities say only which of them are reached.
# As in `map_scene`, a threshold is compared in the precision of the stored probabilities.
THRESHOLDS = (np.arange(101) / 100).astype(np.float32)
UNSEEN = 127
PERMANENT_BIT = 128

MERCATOR = CRS.from_epsg(3857)
MOST_OUTLINES = 2000  # of the largest patches; more would make the page slow
OUTLINE_STEPS = 4  # steps a pixel in which outlines are stored

SAR = "SAR VV"
RGB = "optical, from SAR"
RAMP = "cividis"  # of the probability

ByteArray = NDArray[np.uint8]


@dataclass(frozen=True)
class Outline:
    """A polygon of `write_polygons`: rings (n, 2) in quarters of a pixel of the map's grid."""

    kind: str
    km2: float
    probability: float | None
    rings: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True)
class SceneMap:
    """The layers of one scene, reduced to screen size.

    Attributes:
        title: What stands above the map.
        grid: Where the layers lie: square pixels of Web Mercator (EPSG:3857), or without a CRS
            the reduced pixels of the scene.
        levels: uint8 (H, W): how many of `THRESHOLDS[1:]` the probability reaches (bits 0 to 6,
            127 nodata), and 128 on top where water is permanent.
        images: uint8 (H, W, 4), red, green, blue, alpha, by name.
        areas: (101, 2): area of flood and of permanent water from each threshold on, from all
            pixels of the scene, in `unit`. Without a permanent-water layer all water is in the
            first column.
        valid_area: Area that was mapped, in `unit`.
        unit: "km²", or "px" without a CRS.
        threshold: Where the map starts: a hundredth.
        split: Whether permanent water is known.
        outlines: Polygons, the largest first.
        outlines_left_out: How many smaller ones are not drawn.
        attribution: What the sources ask to have said.
    """

    title: str
    grid: Grid
    levels: ByteArray
    images: Mapping[str, ByteArray]
    areas: NDArray[np.float64]
    valid_area: float
    unit: str
    threshold: float
    split: bool
    outlines: tuple[Outline, ...]
    outlines_left_out: int
    attribution: str

    def area(self, threshold: float) -> tuple[float, float]:
        """Area of flood and of permanent water where the probability reaches `threshold`.

        Raises:
            FloraError: If it is not a hundredth from 0 to 1.
        """
        step = round(100 * threshold)
        if not (0 <= step <= 100 and abs(100 * threshold - step) < 1e-6):
            raise FloraError(f"threshold {threshold}: expected hundredths from 0 to 1, e.g. 0.45")
        return float(self.areas[step, 0]), float(self.areas[step, 1])

    def classes(self, threshold: float) -> ByteArray:
        """Codes (H, W) at screen size: 0 dry, 1 flood, 2 permanent water, 255 nodata."""
        level = self.levels & (PERMANENT_BIT - 1)
        wet = level >= round(100 * threshold)
        codes = np.where(wet, 1 + (self.levels >= PERMANENT_BIT), 0)
        return np.where(level == UNSEEN, 255, codes).astype(np.uint8)


def read_map(
    probability: str | Path,
    *,
    sar: str | Path | None = None,
    rgb: str | Path | None = None,
    before: str | Path | None = None,
    permanent_water: str | Path | None = None,
    permanent_threshold: float | None = None,
    polygons: str | Path | None = None,
    title: str | None = None,
    threshold: float | None = None,
    units: Literal["db", "linear"] = "db",
    attribution: str = "Contains modified Copernicus Sentinel data",
    size: int = 1024,
) -> SceneMap:
    """Read the layers of a map from the files of one scene, each on any grid.

    Layers are averaged to at most `size` pixels a side; areas are summed from every pixel of the
    scene, so that the map's read-out equals the GeoTIFF's at every threshold.

    Args:
        probability: Water probability of `map_scene`.
        sar: The scene it was made from; the first band is shown.
        rgb: Reconstructed image of `map_scene`.
        before: What to compare with: a scene in the units of `sar`, Sentinel-2 reflectance x 10000
            (13 bands, or B4, B3, B2 first), or an 8-bit image of red, green, blue.
        permanent_water: See `flora.maps.floods.split_flood`.
        permanent_threshold: See there.
        polygons: GeoJSON of `write_polygons`.
        title: What stands above the map; by default the scene's name.
        threshold: Where the map starts, rounded to hundredths; by default that of the scene's
            water mask.
        units: "db", or "linear" for backscatter stored as power.
        attribution: What stands on the map for its sources; the licence of Sentinel data asks for
            the year, too: "Contains modified Copernicus Sentinel data 2019".
        size: Longest side of the layers in pixels.

    Raises:
        FloraError: If a file is refused, or an option is out of range.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from flora import load_model, map_scene, read_map, scene_predictor
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = scene_predictor(load_model(), torch.device("cpu"))
        >>> outputs = map_scene(sar, "flood", predict)
        >>> scene = read_map(outputs.water_probability, sar=sar, rgb=outputs.rgb)
        >>> list(scene.images), scene.unit
        (['SAR VV', 'optical, from SAR'], 'km²')
        >>> scene.area(0.9) <= scene.area(0.1)  # flood and permanent water, in km²
        True
    """
    if not 16 <= size <= 4096:
        raise FloraError(f"size {size}: expected 16 to 4096 px")
    with ExitStack() as stack:
        chance = stack.enter_context(open_raster(Path(probability), "probability"))
        tags = chance.tags()
        if threshold is None:
            threshold = float(tags.get("FLORA_WATER_THRESHOLD", 0.5))
        if not 0.01 <= threshold <= 0.99:
            raise FloraError(f"threshold {threshold}: expected a probability from 0.01 to 0.99")
        permanent = None
        if permanent_water is not None:
            permanent = stack.enter_context(
                open_permanent_water(permanent_water, chance, permanent_threshold)
            )
        grid = screen_grid(chance, size)
        areas, valid_area, wet = _sum_areas(chance, permanent, grid)
        level = _levels(_read(chance, (1,), grid)[0])
        images = {}
        for argument, path in (("sar", sar), ("rgb", rgb), ("before", before)):
            if path is not None:
                file = stack.enter_context(open_raster(Path(path), argument))
                sort = "SAR VV" if file.count < 3 else "optical"
                name = {"sar": SAR, "rgb": RGB}.get(argument, f"{sort}, before")
                images[name] = _image(file, grid, units)
        outlines: list[Outline] = []
        if polygons is not None:
            outlines = _read_outlines(Path(polygons), grid)
    return SceneMap(
        title=title or tags.get("FLORA_SCENE") or Path(probability).stem,
        grid=grid,
        levels=np.where(wet & (level != UNSEEN), level | PERMANENT_BIT, level).astype(np.uint8),
        images=images,
        areas=areas,
        valid_area=valid_area,
        unit="px" if cell_areas_km2(chance.crs, chance.transform, chance.shape) is None else "km²",
        threshold=round(100 * threshold) / 100,
        split=permanent is not None,
        outlines=tuple(outlines[:MOST_OUTLINES]),
        outlines_left_out=max(0, len(outlines) - MOST_OUTLINES),
        attribution=attribution,
    )


def area_text(value: float, unit: str) -> str:
    """An area with as many digits as anyone can use."""
    digits = 0 if unit == "px" or value >= 1000 else 2 if value >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def ramp_colours() -> ByteArray:
    """Colours (101, 4) of the probability from 0 to 1."""
    colours: ByteArray = mpl.colormaps[RAMP](THRESHOLDS, bytes=True)
    return colours


def screen_grid(file: Any, size: int) -> Grid:
    """The grid of a map of an open raster, never finer than the raster itself.

    Raises:
        FloraError: If the raster reaches where Web Mercator ends, near the poles.
    """
    own = Grid.of(file)
    rows, columns = own.shape
    if own.crs is None:
        step = max(1.0, max(rows, columns) / size)
        shape = (math.ceil(rows / step), math.ceil(columns / step))
        return Grid(None, Affine.scale(columns / shape[1], rows / shape[0]), shape)
    x, y = own.outline(MERCATOR)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.abs(y).max() < 2.5e7):
        raise FloraError(f"{file.name}: reaches too near a pole for a map in Web Mercator")
    # The outline goes along the top and then down the right side.
    side = len(x) // 4
    top, right = (
        np.hypot(np.diff(x[part]), np.diff(y[part])).sum()
        for part in (slice(side), slice(side, 2 * side))
    )
    native = math.sqrt(top / columns * right / rows)
    width, height = float(np.ptp(x)), float(np.ptp(y))
    pixel = max(native, max(width, height) / size)
    # Float noise must not add a row or a column.
    shape = (math.ceil(height / pixel - 0.01), math.ceil(width / pixel - 0.01))
    transform = Affine(pixel, 0.0, float(x.min()), 0.0, -pixel, float(y.max()))
    return Grid(MERCATOR, transform, shape)


def apply(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Coordinates of positions in pixels, or, with the inverse, the other way round."""
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def _read(
    file: Any, bands: tuple[int, ...], grid: Grid, nodata: float | None = None
) -> NDArray[Any]:
    """Bands (C, H, W) of an open raster on the grid; NaN or `nodata` where there is nothing."""
    reduced = file.width * file.height > 2 * grid.shape[0] * grid.shape[1]
    how = Resampling.average if reduced else Resampling.nearest
    if nodata is None:
        nodata = math.nan
    if grid.crs is None or file.crs is None:
        if grid.crs is not None:
            raise FloraError(f"{file.name}: has no CRS, so it cannot be laid on the map")
        return read_bands(file, indexes=bands, out_shape=(len(bands), *grid.shape), resampling=how)
    with WarpedVRT(
        file,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.shape[0],
        width=grid.shape[1],
        resampling=how,
        src_nodata=nodata if file.nodata is None else file.nodata,
        nodata=nodata,
        dtype="float32",
    ) as warped:
        return read_bands(warped, source=file.name, indexes=bands)


def _image(file: Any, grid: Grid, units: str) -> ByteArray:
    """Red, green, blue, alpha (H, W, 4) of a SAR scene or an optical image."""
    if file.count < 3:
        values = _read(file, (1,), grid)[0]
        if units == "linear":
            positive = np.where(values > 0, values, np.nan)
            values = 10 * np.log10(positive)
        low, high = BACKSCATTER_LIMITS["VV"]
        colours = np.repeat((values - low)[None] / (high - low), 3, axis=0)
        return _rgba(colours, np.isfinite(values))
    bands, white = (1, 2, 3), 255.0
    if file.dtypes[0] != "uint8":
        bands, white = (4, 3, 2) if file.count == 13 else (1, 2, 3), SENTINEL2_RGB.white
    alpha = (4,) if file.dtypes[0] == "uint8" and file.count == 4 else ()
    values = _read(file, bands + alpha, grid, None if white == 255.0 and alpha else 0.0)
    seen = values[3] > 127 if alpha else (values[:3] != 0).any(axis=0)
    return _rgba(values[:3] / white, seen & np.isfinite(values[:3]).all(axis=0))


def _rgba(colours: NDArray[Any], seen: BoolArray) -> ByteArray:
    stored = np.where(seen, 255 * np.clip(np.nan_to_num(colours), 0, 1), 0)
    return np.moveaxis(np.rint([*stored, 255 * seen]), 0, -1).astype(np.uint8)


def _levels(probability: NDArray[np.float32]) -> ByteArray:
    """How many of `THRESHOLDS[1:]` are reached; `UNSEEN` where the probability is NaN."""
    level = np.searchsorted(THRESHOLDS, probability, side="right") - 1
    return np.where(np.isfinite(probability), level, UNSEEN).astype(np.uint8)


def _sum_areas(
    chance: Any, permanent: PermanentWater | None, grid: Grid
) -> tuple[NDArray[np.float64], float, BoolArray]:
    """Areas from each threshold on, (101, 2); area of all; permanent water on the grid (H, W)."""
    cells = cell_areas_km2(chance.crs, chance.transform, chance.shape)
    cells = np.ones(chance.height) if cells is None else cells
    sums = np.zeros((2, UNSEEN + 1))
    screen = np.zeros(grid.shape, dtype=bool)
    rows, columns = _pixels_of(grid, chance)
    for row in range(0, chance.height, STRIP):
        height = min(STRIP, chance.height - row)
        level = _levels(read_bands(chance, indexes=1, window=Window(0, row, chance.width, height)))
        wet = np.zeros(level.shape, dtype=bool)
        if permanent is not None:
            wet, _ = permanent.read(row, height)
            here = (rows >= row) & (rows < row + height)
            screen[here] = wet[rows[here] - row, columns[here]]
        weights = np.broadcast_to(cells[row : row + height, None], level.shape)
        for part, chosen in enumerate((~wet, wet)):
            sums[part] += np.bincount(level[chosen], weights[chosen], minlength=UNSEEN + 1)
    from_threshold = sums[:, :101][:, ::-1].cumsum(axis=1)[:, ::-1]
    return from_threshold.T.copy(), float(sums[:, :101].sum()), screen


def _pixels_of(grid: Grid, file: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column (H, W) of the raster's pixel under each pixel of the grid; -1 outside."""
    row, column = np.mgrid[: grid.shape[0], : grid.shape[1]].reshape(2, -1) + 0.5
    x, y = apply(grid.transform, column, row)
    if grid.crs is not None:
        x, y = np.array(transform_points(grid.crs, file.crs, x, y))
    column, row = apply(~file.transform, x, y)
    inside = (row >= 0) & (row < file.height) & (column >= 0) & (column < file.width)
    rows, columns = (np.where(inside, np.floor(v), -1).astype(np.int64) for v in (row, column))
    return rows.reshape(grid.shape), columns.reshape(grid.shape)


def _read_outlines(path: Path, grid: Grid) -> list[Outline]:
    """Polygons of a GeoJSON, the largest first, simplified to half a pixel of the grid."""
    if grid.crs is None:
        raise FloraError(f"polygons {path}: the scene has no CRS, so they cannot be laid on it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["features"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FloraError(
            f"polygons {path}: not a GeoJSON of write_polygons ({error}); pass its .geojson file"
        ) from error
    outlines = []
    found.sort(key=lambda feature: -feature["properties"]["area_km2"])
    for feature in found:
        shape = shapely.transform(
            shapely.geometry.shape(feature["geometry"]), lambda points: _on_grid(points, grid)
        )
        simple = shapely.simplify(shape, OUTLINE_STEPS / 2)
        parts = [part for part in shapely.get_parts(simple) if not part.is_empty]
        rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
        properties = feature["properties"]
        outlines.append(
            Outline(
                properties["class"],
                properties["area_km2"],
                properties["mean_probability"],
                tuple(np.rint(ring.coords).astype(np.int64) for ring in rings),
            )
        )
    return outlines


def _on_grid(points: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Longitude and latitude (n, 2) in degrees as steps of the grid's pixels."""
    longitude, latitude = np.radians(points).T
    x, y = SEMI_MAJOR_AXIS * longitude, SEMI_MAJOR_AXIS * np.arcsinh(np.tan(latitude))
    return OUTLINE_STEPS * np.stack(apply(~grid.transform, x, y), axis=1)
