"""Where a map of water is not to be trusted: what terrain, edges and the radar's noise say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from scipy import ndimage

from flora.cog import strips, write_cog
from flora.errors import NAME_ALONE, FloraError, Given
from flora.files import folder_beside, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, open_raster, read_bands
from flora.maps.floods import FLOOD, open_classes
from flora.maps.terrain import ElevationModel, read_terrain
from flora.scenes.inputs import SarScene
from flora.scenes.viewing import OrbitDirection, Viewing
from flora.sensors import IGNORE, BoolArray

STEEP, HIGH, HIDDEN, EDGE, DARK, UNKNOWN = 1, 2, 4, 8, 16, 32
REASONS = {
    STEEP: "steep",
    HIGH: "high above drainage",
    HIDDEN: "shadow or layover",
    EDGE: "edge of the map",
    DARK: "dark as noise",
    UNKNOWN: "elevation unknown",
}
# Calm water is as dark as noise, too: this asks for a second look, and is no doubt by itself.
DOUBTS = STEEP | HIGH | HIDDEN | EDGE | UNKNOWN
CODES = ", ".join(f"{bit} {reason}" for bit, reason in REASONS.items()) + ", 255 nodata"

EDGE_PIXELS = 16  # from nodata or the end of the map: there the model sees less around a pixel
NOISE = -22.0  # dB: noise-equivalent sigma0 that Sentinel-1 is specified to stay below


@dataclass(frozen=True)
class TrustLimits:
    """From which slope and height on a flood is unlikely, and where the radar cannot see.

    Attributes:
        slope: Angle of the ground in degrees: water stands level, and slopes cast shadow.
        hand: Height above the nearest drainage in m; 15 is the limit of HydroSAR.
        orbit: Direction of flight, from which shadow and layover follow where the scene itself does
            not tell how it was looked at; None leaves them out there.

    Raises:
        FloraError: If a limit is out of range.
    """

    slope: float = 10.0
    hand: float = 15.0
    orbit: OrbitDirection | None = None

    def __post_init__(self) -> None:
        if not 0 < self.slope <= 90:
            raise FloraError(
                "expected degrees above 0, up to 90", argument="slope_limit", value=self.slope
            )
        if not self.hand > 0:
            raise FloraError("expected metres above 0", argument="hand_limit", value=self.hand)

    def view(self, viewing: Viewing | None) -> Viewing | OrbitDirection | None:
        """How the radar looked: as the scene's annotation says it, else as is known otherwise.

        Args:
            viewing: Of the scene; None where no annotation tells.

        Raises:
            FloraError: If the annotation says another direction of flight than `orbit`.
        """
        if viewing is not None and self.orbit not in (None, viewing.flight):
            raise FloraError(
                f"the product's annotation says {viewing.flight}",
                argument="orbit",
                value=self.orbit,
                remedy="leave {orbit} out",
                orbit=NAME_ALONE,
            )
        return viewing or self.orbit


@dataclass(frozen=True)
class TrustAreas:
    """What `write_trust` wrote, and how much of the water is in doubt.

    Attributes:
        trust: GeoTIFF, uint8: a sum of the bits of `REASONS`, 0 for no doubt, 255 nodata.
        doubtful_pixels: Pixels of flood with any bit but 16, dark as noise, which calm water has.
        pixels: The same for each reason alone, by its name.
        doubtful_km2: Area of `doubtful_pixels`; None without a CRS.
        km2: Area of each of `pixels`; empty without a CRS.
        looked: How the radar looked, as far as shadow and layover were found by it; else empty.
    """

    trust: Path
    doubtful_pixels: int
    pixels: dict[str, int]
    doubtful_km2: float | None
    km2: dict[str, float]
    looked: str


def write_trust(
    classes: str | Path,
    scene: SarScene,
    dem: Sequence[str | Path],
    output: str | Path,
    *,
    limits: TrustLimits = TrustLimits(),
    overwrite: bool = False,
) -> TrustAreas:
    """Write where a map is not to be trusted, on the map's own grid, and count it on the water.

    A pixel holds the sum of the bits that apply: 1 steep, 2 high above the nearest drainage,
    4 shadow or layover (of products, or with the direction of flight), 8 within 16 px of
    nodata or the edge of the map, 16 darker in every polarisation than -22 dB, as calm water is,
    but also dry sand, roads and shadow, 32 elevation unknown; 0 where there is no doubt,
    255 nodata.

    Args:
        classes: GeoTIFF of `map_scene` (0, 1, 255) or of `split_flood` (2 permanent water, too).
        scene: The scene it was made from, open.
        dem: Elevation in m; see `flora.maps.terrain.read_terrain`.
        output: Cloud-optimised GeoTIFF to write.
        limits: From where ground counts as steep or high.
        overwrite: Replace an existing output.

    Raises:
        FloraError: If an input is refused, `output` exists already, the disk refuses, or the extra
            `terrain` is missing.

    Example:
        >>> from flora import open_scene
        >>> from flora.maps.trust import write_trust
        >>> with open_scene("S1.tif") as scene:  # doctest: +SKIP
        ...     areas = write_trust("S1_water_mask.tif", scene, ["dem.tif"], "S1_trust.tif")
    """
    inputs = [Given("classes", classes), *(Given("dem", path) for path in dem)]
    target = new_file(output, "output", overwrite, inputs)
    view = limits.view(scene.viewing)
    terrain = read_terrain(dem, scene.grid)
    with ExitStack() as stack:
        mask = stack.enter_context(open_raster(Path(classes), "water_mask"))
        ground = stack.enter_context(
            _on_grid(terrain, _ground(terrain, limits, view), Grid.of(mask))
        )
        temporary = stack.enter_context(folder_beside(target, GDAL_ERRORS))
        rows, finished = temporary / "rows.tif", temporary / "trust.tif"
        counts = _Counts(mask)
        with open_classes(rows, mask) as file:
            file.set_band_description(1, CODES)
            file.update_tags(**_tags(limits, view))
            for row, codes, bits in _strips(mask, scene, ground):
                file.write(bits, 1, window=Window(0, row, mask.width, len(bits)))
                counts.add(row, codes, bits)
        write_cog(rows, finished, "NEAREST", np.count_nonzero, counts.marked)
        publish({"trust": finished}, {"trust": target}, temporary / "earlier")
    return counts.areas(target, "" if view is None else str(view))


def _ground(
    terrain: ElevationModel, limits: TrustLimits, view: Viewing | OrbitDirection | None
) -> NDArray[np.uint8]:
    """Bits of what terrain alone says (rows, columns)."""
    bits = np.where(terrain.known, 0, UNKNOWN).astype(np.uint8)
    bits[terrain.slope > limits.slope] |= STEEP
    bits[terrain.hand > limits.hand] |= HIGH
    if view is not None:
        bits[terrain.hidden(view)] |= HIDDEN
    return bits


@contextmanager
def _on_grid(terrain: ElevationModel, bits: NDArray[np.uint8], grid: Grid) -> Iterator[Any]:
    """These bits as a raster on another grid, each pixel the nearest."""
    rows, columns = bits.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": rows, "width": columns}
    place = {"crs": terrain.grid.crs, "transform": terrain.grid.transform}
    with MemoryFile() as memory:
        with memory.open(**profile, **place) as file:
            file.write(bits, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                crs=grid.crs,
                transform=grid.transform,
                height=grid.shape[0],
                width=grid.shape[1],
                resampling=Resampling.nearest,
                nodata=IGNORE,
            ) as view,
        ):
            yield view


def _strips(
    mask: Any, scene: SarScene, ground: Any
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """First row, codes of the map and bits (height, columns), strip by strip."""
    date = slice(scene.shown, scene.shown + len(set(scene.scaling.bands)))
    for strip in strips(mask.shape):
        row, height = strip.row_off, strip.height
        codes, near = _codes_and_edge(mask, row, height)
        bits = read_bands(ground, indexes=1, window=strip).astype(np.uint8)
        bits[bits == IGNORE] = UNKNOWN
        bits[near] |= EDGE
        values, valid = scene.read(row, height)
        bits[valid & (values[date] < NOISE).all(axis=0)] |= DARK
        bits[codes == IGNORE] = IGNORE
        yield row, codes, bits


def _codes_and_edge(mask: Any, row: int, height: int) -> tuple[NDArray[np.uint8], BoolArray]:
    """Rows of the map (height, columns), and where nodata or the end of it is near.

    Single pixels of nodata are no edge.
    """
    reach = EDGE_PIXELS + 1
    first, last = max(0, row - reach), min(mask.height, row + height + reach)
    codes = read_bands(mask, indexes=1, window=Window(0, first, mask.width, last - first))
    missing = [reach - (row - first), reach - (last - row - height)]
    empty = np.pad(codes == IGNORE, [missing, [reach, reach]], constant_values=True)
    empty = ndimage.binary_opening(empty, np.ones((3, 3)), border_value=1)
    near = ndimage.maximum_filter(empty.view(np.uint8), 2 * EDGE_PIXELS + 1) > 0
    inner = slice(reach, reach + height), slice(reach, -reach)
    return codes[row - first : row - first + height].astype(np.uint8), np.asarray(near[inner])


def _tags(limits: TrustLimits, view: Viewing | OrbitDirection | None) -> dict[str, str]:
    return {
        "FLORA_SLOPE_LIMIT_DEGREES": f"{limits.slope:g}",
        "FLORA_HAND_LIMIT_M": f"{limits.hand:g}",
        "FLORA_SHADOW_LAYOVER": "not looked for" if view is None else str(view),
    }


class _Counts:
    """Flood pixels and their area for each reason, and for any doubt at all."""

    def __init__(self, mask: Any) -> None:
        self._cells = Grid.of(mask).cell_areas()
        self._pixels = dict.fromkeys((*REASONS, DOUBTS), 0)
        self.marked = 0  # pixels that hold a bit, or nodata
        self._km2 = dict.fromkeys((*REASONS, DOUBTS), 0.0)

    def add(self, row: int, codes: NDArray[np.uint8], bits: NDArray[np.uint8]) -> None:
        flood = codes == FLOOD
        self.marked += int(np.count_nonzero(bits))
        for wanted in self._pixels:
            chosen = flood & (bits & wanted > 0)
            self._pixels[wanted] += int(np.count_nonzero(chosen))
            if self._cells is not None:
                self._km2[wanted] += self._cells.sum(row, chosen)

    def areas(self, target: Path, looked: str) -> TrustAreas:
        known = self._cells is not None
        return TrustAreas(
            trust=target,
            doubtful_pixels=self._pixels[DOUBTS],
            pixels={reason: self._pixels[bit] for bit, reason in REASONS.items()},
            doubtful_km2=self._km2[DOUBTS] if known else None,
            km2={reason: self._km2[bit] for bit, reason in REASONS.items()} if known else {},
            looked=looked,
        )
