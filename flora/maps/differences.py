"""Where two maps of a scene differ."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from flora.cog import write_cog
from flora.colours import rgb_bytes
from flora.errors import FloraError, Given
from flora.files import folder_beside, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, open_raster, read_bands
from flora.maps.floods import open_classes
from flora.predictors import Predictor, threshold_of
from flora.scenes.inputs import SarScene
from flora.scenes.rows import predict_rows
from flora.scenes.tiles import Tiling
from flora.sensors import DRY, IGNORE, WATER

BOTH, MAP_ALONE, RIVAL_ALONE = 1, 2, 3
CODES = (DRY, BOTH, MAP_ALONE, RIVAL_ALONE, IGNORE)
CLASSES = "0 dry in both, 1 water in both, 2 in the map alone, 3 in the rival's alone, 255 nodata"
# Of Okabe and Ito: told from each other and from blue by everyone.
COLOURS = {BOTH: "#0072b2", MAP_ALONE: "#e69f00", RIVAL_ALONE: "#cc79a7"}


@dataclass(frozen=True)
class MapDifferences:
    """What `write_differences` wrote, and how much of the scene is what.

    Attributes:
        differences: GeoTIFF, uint8: 0 dry in both, 1 water in both, 2 in the map alone, 3 in the
            rival's alone, 255 nodata.
        pixels: Pixels of each of these.
        km2: Areas of each; empty without a CRS.
    """

    differences: Path
    pixels: dict[int, int]
    km2: dict[int, float]

    @property
    def agreement(self) -> float | None:
        """Intersection over union of the two waters; None where neither has any."""
        union = sum(self.pixels[code] for code in COLOURS)
        return self.pixels[BOTH] / union if union else None


def write_differences(
    water_mask: str | Path,
    scene: SarScene,
    rival: Predictor,
    output: str | Path,
    *,
    tiling: Tiling = Tiling(),
    threshold: float | None = None,
    overwrite: bool = False,
) -> MapDifferences:
    """Map a scene by another model, and write where that differs from its map.

    Memory is that of one row of tiles, as in `map_scene`.

    Args:
        water_mask: Of `map_scene`.
        scene: The scene that it was made from, open.
        rival: The other model, such as `SceneOtsu().of(scene)`; its `tags`, where it has any,
            are kept in the file.
        output: Cloud-optimised GeoTIFF to write, on the same grid.
        tiling: How the scene is cut.
        threshold: Probability of the rival from which a pixel is water; None takes its own, or 0.5.
        overwrite: Replace an existing output.

    Raises:
        FloraError: If the mask is of another part or grid, `output` exists already, or the disk
            refuses.

    Example:
        >>> from pathlib import Path
        >>> from flora import map_scene, open_scene
        >>> from flora.maps.differences import MAP_ALONE, write_differences
        >>> from flora.scenes.thresholds import SceneOtsu
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [5]}, Path("chips"), size=96)
        >>> with open_scene(next(Path("chips").rglob("*_S1Hand.tif"))) as scene:
        ...     otsu = SceneOtsu(median=9).of(scene)
        ...     mask = map_scene(scene, "flood", otsu).water_mask
        ...     found = write_differences(mask, scene, otsu, "differences.tif")
        >>> found.agreement, found.pixels[MAP_ALONE]
        (1.0, 0)
    """
    target = new_file(output, "output", overwrite, [Given("water_mask", water_mask)])
    least = threshold_of(rival, "sar") if threshold is None else threshold
    pixels, km2 = np.zeros(len(CODES), dtype=np.int64), np.zeros(len(CODES))
    with ExitStack() as stack:
        mask = stack.enter_context(open_raster(Path(water_mask), "water_mask"))
        if not Grid.of(mask).same_as(scene.grid):
            raise FloraError(
                "of another part, or on another grid than the scene",
                argument="water_mask",
                value=water_mask,
                remedy="pass the mask that map_scene wrote of it",
            )
        temporary = stack.enter_context(folder_beside(target, GDAL_ERRORS))
        rows, finished = temporary / "rows.tif", temporary / "differences.tif"
        cells = scene.grid.cell_areas()
        with open_classes(rows, mask) as file:
            file.update_tags(**getattr(rival, "tags", {}))
            file.set_band_description(1, CLASSES)
            file.write_colormap(1, _colour_table())
            predicted = stack.enter_context(closing(predict_rows(scene, rival, tiling)))
            for part in predicted:
                window = Window(0, part.row, mask.width, len(part.valid))
                codes = read_bands(mask, indexes=1, window=window)
                found = _compared(codes, part.probability >= least, part.valid)
                file.write(found, 1, window=window)
                pixels += _histogram(found)
                if cells is not None:
                    km2 += [cells.sum(part.row, found == code) for code in CODES]
        write_cog(rows, finished, "MODE", _histogram, pixels)
        publish({"differences": finished}, {"differences": target}, temporary / "earlier")
    areas = {} if cells is None else dict(zip(CODES, km2.tolist(), strict=True))
    return MapDifferences(target, dict(zip(CODES, pixels.tolist(), strict=True)), areas)


def _compared(
    codes: NDArray[np.uint8], rival: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Codes (h, w) of `CLASSES`, of a water mask and the rival's water."""
    ours = codes == WATER
    found = np.select([ours & rival, ours, rival], [BOTH, MAP_ALONE, RIVAL_ALONE], DRY)
    found[(codes == IGNORE) | ~valid] = IGNORE
    return found.astype(np.uint8)


def _histogram(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels of each of `CODES`."""
    return np.bincount(codes.ravel(), minlength=256)[list(CODES)]


def _colour_table() -> dict[int, tuple[int, int, int, int]]:
    table = {code: (*rgb_bytes(colour), 255) for code, colour in COLOURS.items()}
    return {DRY: (255, 255, 255, 0), IGNORE: (150, 150, 150, 255)} | table
