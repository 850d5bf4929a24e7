"""What a map of one scene shows: its layers at screen size on one grid, and its exact areas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from flora.cog import strips
from flora.colours import FLOOD_COLOUR, PERMANENT_COLOUR, probability_ramp, rgb_bytes
from flora.errors import FloraError
from flora.grid import Grid, open_raster, read_bands
from flora.maps.floods import FLOOD, PERMANENT
from flora.maps.likelihood import AreaIntervals
from flora.maps.overlays import DOUBTFUL, MAP_ALONE, RIVAL_ALONE, read_overlays
from flora.maps.permanent import PermanentWater, open_permanent_water
from flora.maps.pictures import (
    is_radar,
    optical_picture,
    radar_band,
    radar_picture,
)
from flora.maps.screen import Screen
from flora.predictors import SHIPPED_ON
from flora.scenes.optical import product_raster
from flora.sensors import BoolArray, ByteArray

# A map may be moved to any of these; stored probabilities say only which of them are reached.
# As in `map_scene`, a threshold is compared in the precision of the stored probabilities.
THRESHOLDS = (np.arange(101) / 100).astype(np.float32)
UNSEEN = 127
PERMANENT_BIT = 128

MOST_OUTLINES = 2000  # of the largest patches; more would make the page slow
OUTLINE_STEPS = 4  # steps a pixel in which outlines are stored

RGB = "optical, from SAR"
ATTRIBUTION = "Contains modified Copernicus Sentinel data"


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
        grid: Where the layers lie: square pixels of Web Mercator (EPSG:3857), or without a CRS the
            reduced pixels of the scene.
        levels: uint8 (H, W): how many of `THRESHOLDS[1:]` the probability reaches (bits 0 to 6,
            127 nodata), and 128 on top where water is permanent.
        images: uint8 (H, W, 4), red, green, blue, alpha, by name.
        areas: (101, 2): area of flood and of permanent water from each threshold on, from all
            pixels of the scene, in `unit`. Without a permanent-water layer all water is in the
            first column.
        valid_area: Area that was mapped, in `unit`.
        unit: "km²", or "px" without a CRS.
        threshold: Where the map starts: a hundredth from 0.01 to 0.99.
        split: Whether permanent water is known.
        outlines: Polygons, the largest first.
        outlines_left_out: How many smaller ones are not drawn.
        attribution: What the sources ask to have said.
        intervals: Between which areas the true one should lie, where that is known.
        promise: Of which scenes these intervals hold, and how often, in words.
        maker: What made the map, as it follows upon "made by".
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
    intervals: AreaIntervals | None = None
    promise: str = ""
    maker: str = "a model"

    def __post_init__(self) -> None:
        if not 0.01 <= self.threshold <= 0.99:
            raise FloraError(
                "expected a probability from 0.01 to 0.99",
                argument="threshold",
                value=self.threshold,
            )

    def labelled(
        self,
        *,
        title: str | None = None,
        attribution: str | None = None,
        threshold: float | None = None,
    ) -> Self:
        """The same map with another title or attribution, or started at another threshold.

        Args:
            title: What stands above the map.
            attribution: What stands on the map for its sources; the licence of Sentinel data asks
                for the year, too: "Contains modified Copernicus Sentinel data 2019".
            threshold: Where the map starts, rounded to hundredths.

        Raises:
            FloraError: If the threshold is no probability from 0.01 to 0.99.
        """
        return replace(
            self,
            title=title or self.title,
            attribution=attribution or self.attribution,
            threshold=self.threshold if threshold is None else round(100 * threshold) / 100,
        )

    def with_doubts(self, trust: str | Path) -> Self:
        """The same map with a layer of where it is not to be trusted.

        Args:
            trust: GeoTIFF of `flora.maps.trust.write_trust` for the same scene.

        Raises:
            FloraError: If it is refused, or lies elsewhere.
        """
        over = read_overlays(Path(trust), "trust", self.grid, (DOUBTFUL,))
        return replace(self, images={**self.images, **over})

    def with_differences(self, differences: str | Path) -> Self:
        """The same map with layers of the water that only it has, and that only its rival has.

        Args:
            differences: GeoTIFF of `flora.maps.differences.write_differences` for the same scene.

        Raises:
            FloraError: If it is refused, or lies elsewhere.
        """
        names = MAP_ALONE, RIVAL_ALONE
        over = read_overlays(Path(differences), "differences", self.grid, names)
        return replace(self, images={**self.images, **over})

    def with_intervals(self, intervals: AreaIntervals, promise: str) -> Self:
        """The same map, which says between which areas the true one should lie.

        Args:
            intervals: Of `flora.maps.likelihood.area_intervals`.
            promise: Of which scenes they hold, and how often, as it follows upon "an interval":
                "made to hold for 90 % of simulated scenes; on real chips it was not tested".
        """
        return replace(self, intervals=intervals, promise=promise)

    @property
    def radar(self) -> str | None:
        """Name of the radar image of the scene, if it was given."""
        return next((n for n in self.images if n.startswith("SAR") and "before" not in n), None)

    @property
    def before(self) -> str | None:
        """Name of the image from before the flood, if it was given."""
        return next((name for name in self.images if "before" in name), None)

    @property
    def water_layers(self) -> dict[str, str]:
        """Colour of each class of water by its name."""
        if not self.split:
            return {"water": FLOOD_COLOUR}
        return {"flood": FLOOD_COLOUR, "permanent water": PERMANENT_COLOUR}

    def area(self, threshold: float) -> tuple[float, float]:
        """Area of flood and of permanent water where the probability reaches `threshold`.

        Raises:
            FloraError: If it is not a hundredth from 0 to 1.
        """
        step = round(100 * threshold)
        if not (0 <= step <= 100 and abs(100 * threshold - step) < 1e-6):
            raise FloraError(
                "expected hundredths from 0 to 1, e.g. 0.45", argument="threshold", value=threshold
            )
        return float(self.areas[step, 0]), float(self.areas[step, 1])

    def classes(self, threshold: float) -> ByteArray:
        """Codes (H, W) at screen size: 0 dry, 1 flood, 2 permanent water, 255 nodata."""
        level = self.levels & (PERMANENT_BIT - 1)
        wet = level >= round(100 * threshold)
        codes = np.where(wet, 1 + (self.levels >= PERMANENT_BIT), 0)
        return np.where(level == UNSEEN, 255, codes).astype(np.uint8)

    def water_colours(self, threshold: float) -> ByteArray:
        """Flood and permanent water as colours (H, W, 4), transparent elsewhere."""
        codes = self.classes(threshold)
        colours = np.zeros((*codes.shape, 4), dtype=np.uint8)
        for code, colour in ((FLOOD, FLOOD_COLOUR), (PERMANENT, PERMANENT_COLOUR)):
            colours[codes == code] = (*rgb_bytes(colour), 255)
        return colours

    def probability_colours(self) -> ByteArray:
        """The probability as colours (H, W, 4), transparent in nodata."""
        level = self.levels & UNSEEN
        colours = np.full((*level.shape, 4), 255, dtype=np.uint8)
        colours[..., :3] = probability_ramp()[np.minimum(level, len(THRESHOLDS) - 1)]
        colours[level == UNSEEN] = 0
        return colours


def read_map(
    probability: str | Path,
    *,
    sar: str | Path | None = None,
    rgb: str | Path | None = None,
    before: str | Path | None = None,
    permanent_water: str | Path | None = None,
    permanent_threshold: float | None = None,
    permanent_class: int | Sequence[int] | None = None,
    polygons: str | Path | None = None,
    size: int = 1024,
) -> SceneMap:
    """Read the layers of a map from the files of one scene, each on any grid.

    Layers are averaged to at most `size` pixels a side; areas are summed from every pixel of the
    scene, so that the map's read-out equals the GeoTIFF's at every threshold. Title, attribution
    and the threshold at first are those of the file, and changed by `SceneMap.labelled`.

    Args:
        probability: Water probability of `map_scene`.
        sar: The scene it was made from, in dB or as power; VV is shown where the bands have names.
        rgb: Reconstructed image of `map_scene`.
        before: What to compare with: a radar scene, Sentinel-2 reflectance (0 to 1, or x 10000;
            red, green and blue found by the bands' names, else 12 or 13 bands in Sentinel-2's
            order, or B4, B3, B2 first), a Sentinel-2 product, or an 8-bit image of red, green,
            blue.
        permanent_water: See `flora.split_flood`.
        permanent_threshold: See there.
        permanent_class: See there.
        polygons: GeoJSON of `write_polygons`.
        size: Longest side of the layers in pixels.

    Raises:
        FloraError: If a file is refused, or an option is out of range.

    Example:
        >>> from pathlib import Path
        >>> from flora import load_model, map_scene, open_scene, predictor, read_map
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = predictor(load_model())
        >>> with open_scene(sar) as scene:
        ...     outputs = map_scene(scene, "flood", predict)
        >>> scene = read_map(outputs.water_probability, sar=sar, rgb=outputs.rgb)
        >>> list(scene.images), scene.unit
        (['SAR VV', 'optical, from SAR'], 'km²')
        >>> scene.area(0.9) <= scene.area(0.1)  # flood and permanent water, in km²
        True
    """
    if not 16 <= size <= 4096:
        raise FloraError("expected 16 to 4096 px", argument="size", value=size)
    with ExitStack() as stack:
        chance = stack.enter_context(open_raster(Path(probability), "probability"))
        permanent = None
        if permanent_water is not None:
            permanent = stack.enter_context(
                open_permanent_water(permanent_water, chance, permanent_threshold, permanent_class)
            )
        screen = Screen.of(chance, size)
        areas, valid_area, wet = _sum_areas(chance, permanent, screen)
        level = _levels(screen.read(chance, (1,))[0])
        outlines = [] if polygons is None else _read_outlines(Path(polygons), screen)
        tags = chance.tags()
        return SceneMap(
            title=tags.get("FLORA_SCENE") or Path(probability).stem,
            grid=screen.grid,
            levels=np.where(wet & (level != UNSEEN), level | PERMANENT_BIT, level).astype(np.uint8),
            images=_read_images(screen, sar, rgb, before),
            areas=areas,
            valid_area=valid_area,
            unit="px" if Grid.of(chance).cell_areas() is None else "km²",
            threshold=round(100 * float(tags.get("FLORA_WATER_THRESHOLD", 0.5))) / 100,
            split=permanent is not None,
            outlines=tuple(outlines[:MOST_OUTLINES]),
            outlines_left_out=max(0, len(outlines) - MOST_OUTLINES),
            attribution=ATTRIBUTION,
            maker=_maker(tags),
        )


def _maker(tags: Mapping[str, str]) -> str:
    """What made a map, in words, by its tags."""
    if tags.get("FLORA_METHOD") == "otsu":
        return "Otsu's threshold"
    trained = tags.get("FLORA_TRAINED_ON", "")
    if trained == SHIPPED_ON:
        return f"a model that was trained on {trained}"
    return f"a model, trained last on {trained}" if trained else "a model"


def area_text(value: float, unit: str) -> str:
    """An area in words, with no more digits than are of use."""
    digits = 0 if unit == "px" or value >= 1000 else 2 if value >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def _read_images(
    screen: Screen, sar: str | Path | None, rgb: str | Path | None, before: str | Path | None
) -> dict[str, ByteArray]:
    """Pictures (H, W, 4) by the names that the map gives them."""
    images = {}
    for argument, path in (("sar", sar), ("rgb", rgb), ("before", before)):
        if path is None:
            continue
        product = product_raster(Path(path)) if argument == "before" else None
        with open_raster(Path(path), argument, product) as file:
            radar = argument == "sar" or (argument == "before" and is_radar(file))
            name = f"SAR {radar_band(file)[1]}" if radar else "optical"
            name = {"sar": name, "rgb": RGB, "before": f"{name}, before"}[argument]
            images[name] = radar_picture(screen, file) if radar else optical_picture(screen, file)
    return images


def _levels(probability: NDArray[np.float32]) -> ByteArray:
    """How many of `THRESHOLDS[1:]` are reached; `UNSEEN` where the probability is NaN."""
    level = np.searchsorted(THRESHOLDS, probability, side="right") - 1
    return np.where(np.isfinite(probability), level, UNSEEN).astype(np.uint8)


def _sum_areas(
    chance: Any, permanent: PermanentWater | None, screen: Screen
) -> tuple[NDArray[np.float64], float, BoolArray]:
    """Areas from each threshold on, (101, 2); area of all; permanent water on the grid (H, W)."""
    cells = Grid.of(chance).cell_areas()
    sums = np.zeros((2, UNSEEN + 1))
    shown = np.zeros(screen.grid.shape, dtype=bool)
    rows, columns = screen.pixels_of(chance)
    for strip in strips(chance.shape):
        row, height = strip.row_off, strip.height
        level = _levels(read_bands(chance, indexes=1, window=strip))
        wet = np.zeros(level.shape, dtype=bool)
        if permanent is not None:
            wet, _ = permanent.read(row, height)
            here = (rows >= row) & (rows < row + height)
            shown[here] = wet[rows[here] - row, columns[here]]
        weights = np.ones(level.shape) if cells is None else cells.rows(row, height)
        for part, chosen in enumerate((~wet, wet)):
            sums[part] += np.bincount(level[chosen], weights[chosen], minlength=UNSEEN + 1)
    from_threshold = sums[:, :101][:, ::-1].cumsum(axis=1)[:, ::-1]
    return from_threshold.T.copy(), float(sums[:, :101].sum()), shown


def _read_outlines(path: Path, screen: Screen) -> list[Outline]:
    """Polygons of a GeoJSON, the largest first, simplified to half a pixel of the grid."""
    if screen.crs is None:
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
            shapely.geometry.shape(feature["geometry"]),
            lambda points: OUTLINE_STEPS * screen.place(points),
        )
        if shape.geom_type == "MultiPolygon":  # cut at 180 degrees, where the map is not
            shape = shapely.unary_union(shapely.set_precision(shape, 0.01))
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
