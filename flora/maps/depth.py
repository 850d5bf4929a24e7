"""How deep a flood is: the height of its edge on the ground, and the ground below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from scipy import ndimage

from flora.cog import write_cog
from flora.errors import Given
from flora.files import folder_beside, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, open_raster, read_bands
from flora.maps.floods import FLOOD
from flora.scenes.elevation import elevation_on, terrain_grid
from flora.sensors import IGNORE, FloatArray

DRY = 0
SIDES = ndimage.generate_binary_structure(2, 1)
SMOOTHED = 3  # cells of a side, over which the surface is averaged within the flood


@dataclass(frozen=True)
class FloodDepth:
    """What `write_depth` wrote.

    Attributes:
        depth: GeoTIFF, float32, m above the ground; 0 on dry ground, NaN where nothing is known.
        cells: Flooded cells of the elevation, whether their depth is known or not.
        median: Of the flooded cells, in m; NaN where no flood has an edge of known elevation.
        high: What 95 % of them stay below, in m; NaN likewise.
    """

    depth: Path
    cells: int
    median: float
    high: float


def flood_depth(classes: NDArray[np.uint8], elevation: FloatArray) -> FloatArray:
    """Depth of a flood (rows, columns) in m, after FwDET (Cohen et al. 2018, 2019).

    The water at a cell stands as high as the ground at the nearest cell of the flood's edge; edges
    against permanent water, nodata and the end of the map are none. The surface is averaged over
    `SMOOTHED` cells; depth is what it stands above the ground, 0 at least.

    Args:
        classes: (rows, columns): 0 dry, 1 flood, 2 permanent water, 255 nodata.
        elevation: (rows, columns) in m, NaN where it is not known.

    Returns:
        0 on dry ground; NaN in permanent water and nodata, and where nothing is known.

    Example:
        >>> import numpy as np
        >>> from flora.maps.depth import flood_depth
        >>> ground = np.float32([[4, 2, 1, 2, 4]])
        >>> flood_depth(np.uint8([[0, 1, 1, 1, 0]]), ground).tolist()
        [[0.0, 0.0, 1.0, 0.0, 0.0]]
    """
    known = np.isfinite(elevation)
    flooded = (classes == FLOOD) & known
    edge = flooded & ndimage.binary_dilation(classes == DRY, SIDES)
    depth = np.where((classes == DRY) & known, 0, np.nan).astype(np.float32)
    if not edge.any():
        return depth
    nearest = ndimage.distance_transform_edt(~edge, return_distances=False, return_indices=True)
    surface = np.where(flooded, elevation[tuple(nearest)], 0)
    total, cells = (
        ndimage.uniform_filter(values.astype(np.float64), SMOOTHED, mode="constant")
        for values in (surface, flooded)
    )
    smooth = total / np.where(flooded, cells, 1)
    return np.where(flooded, np.maximum(smooth - elevation, 0), depth).astype(np.float32)


def write_depth(
    classes: str | Path, dem: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> FloodDepth:
    """Write how deep a flood is, on the cells of `terrain_grid`, those of Copernicus DEM.

    Its accuracy is that of the elevation: some metres for Copernicus DEM, more below trees and
    between houses. It suits wide floods on open plains, and says little of narrow ones.

    Args:
        classes: GeoTIFF of `map_scene` (0, 1, 255) or of `split_flood` (2 permanent water, too).
        dem: Elevation in m; see `flora.maps.terrain.read_terrain`.
        output: Cloud-optimised GeoTIFF to write.
        overwrite: Replace an existing output.

    Raises:
        FloraError: If an input is refused, `output` exists already, or the disk refuses.

    Example:
        >>> from flora.maps.depth import write_depth
        >>> found = write_depth("flood/S1_flood.tif", ["dem.tif"], "depth.tif")  # doctest: +SKIP
        >>> print(f"half of it below {found.median:.1f} m")  # doctest: +SKIP
    """
    inputs = [Given("classes", classes), *(Given("dem", path) for path in dem)]
    target = new_file(output, "output", overwrite, inputs)
    with open_raster(Path(classes), "water_mask") as mask:
        grid = terrain_grid(Grid.of(mask))
        kept = {key: value for key, value in mask.tags().items() if key.startswith("FLORA_")}
        place = {"crs": grid.crs, "transform": grid.transform}
        size = {"height": grid.shape[0], "width": grid.shape[1]}
        with WarpedVRT(mask, **place, **size, resampling=Resampling.nearest, nodata=IGNORE) as view:
            codes = read_bands(view, indexes=1).astype(np.uint8)
    depth = flood_depth(codes, elevation_on(dem, grid, required=True))
    flood = codes == FLOOD
    flooded = depth[flood & np.isfinite(depth)]
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": np.nan, **place, **size}
    with folder_beside(target, GDAL_ERRORS) as temporary:
        rows, finished = temporary / "rows.tif", temporary / "depth.tif"
        with rasterio.open(rows, "w", **profile) as file:
            file.write(depth, 1)
            file.set_band_description(1, "depth of the flood, m")
            file.update_tags(**kept, FLORA_DEPTH_BY="FwDET (Cohen et al. 2018)")
        known = int(np.isfinite(depth).sum())
        write_cog(rows, finished, "AVERAGE", lambda part: int(np.isfinite(part).sum()), known)
        publish({"depth": finished}, {"depth": target}, temporary / "earlier")
    middle, high = np.percentile(flooded, (50, 95)) if flooded.size else (np.nan, np.nan)
    return FloodDepth(target, int(flood.sum()), float(middle), float(high))
