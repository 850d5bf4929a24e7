"""Elevation around a scene, fetched from the Copernicus DEM of a STAC API.

Needs the extra `stac`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rasterio

from flora.cog import write_cog
from flora.errors import FloraError, Given
from flora.files import folder_beside, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, LonLatBox
from flora.scenes.elevation import heights_on, terrain_grid
from flora.sensors import FloatArray
from flora.stac.assets import find_asset, gdal_options, sign
from flora.stac.search import TIMEOUT, Asked, address_of

if TYPE_CHECKING:
    from pystac import Item

COLLECTION = "cop-dem-glo-30"  # so called at Planetary Computer and at Earth Search
TILES = 500  # at most: those of a square degree under the longest product are some dozens
ASSET = ("data", "elevation", "dem")  # what catalogues call the raster
# What the licence of the Copernicus DEM asks to have said.
ATTRIBUTION = (
    "Produced using Copernicus WorldDEM-30 (c) DLR e.V. 2010-2014 and (c) Airbus Defence and Space "
    "GmbH 2014-2018 provided under COPERNICUS by the European Union and ESA; all rights reserved"
)


class FetchedElevation(NamedTuple):
    """Elevation around a scene as a local file; its tags hold the tiles it was made of.

    Attributes:
        path: GeoTIFF, float32, m above the geoid, NaN where no tile is: Copernicus DEM has none of
            the open sea.
        tiles: Names of the tiles.
        endpoint: Where they came from.
    """

    path: Path
    tiles: tuple[str, ...]
    endpoint: str

    def __str__(self) -> str:
        return f"{len(self.tiles)} tiles of {COLLECTION} from {self.endpoint}"


def fetch_elevation(
    around: Grid,
    target: str | Path,
    *,
    endpoint: str = "planetary-computer",
    overwrite: bool = False,
    timeout: float = TIMEOUT,
) -> FetchedElevation:
    """Fetch the Copernicus DEM around a scene into one GeoTIFF on `terrain_grid`.

    Args:
        around: The scene's pixels.
        target: The GeoTIFF, cloud-optimised.
        endpoint: "planetary-computer", "earth-search", or the address of a STAC API that has the
            collection `cop-dem-glo-30`.
        overwrite: Replace an existing file.
        timeout: Seconds without an answer before the server is given up.

    Raises:
        FloraError: If the scene has no CRS, nothing is found, a tile cannot be read, `target`
            exists already, or the disk refuses.

    Example:
        >>> from flora import open_scene
        >>> from flora.stac.elevation import fetch_elevation
        >>> with open_scene("S1.tif") as scene:  # doctest: +SKIP
        ...     fetched = fetch_elevation(scene.grid, "S1_dem.tif")
    """
    path, url = new_file(target, "output", overwrite), address_of(endpoint)
    grid = terrain_grid(around)
    tiles = _tiles(grid, url, timeout)
    with rasterio.Env(**gdal_options(timeout)):
        heights = _mosaic(tiles, grid, timeout)
    names = tuple(tile.id for tile in tiles)
    rows, columns = grid.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": np.nan}
    profile |= {"height": rows, "width": columns, "crs": grid.crs, "transform": grid.transform}
    with folder_beside(path, GDAL_ERRORS) as temporary:
        whole, finished = temporary / "rows.tif", temporary / "dem.tif"
        with rasterio.open(whole, "w", **profile) as file:
            file.write(heights, 1)
            file.set_band_description(1, "elevation above the geoid, m")
            said = {"FLORA_ITEMS": " ".join(names), "FLORA_ENDPOINT": url}
            file.update_tags(**said, FLORA_ATTRIBUTION=ATTRIBUTION)
        known = int(np.isfinite(heights).sum())
        write_cog(whole, finished, "AVERAGE", lambda part: int(np.isfinite(part).sum()), known)
        publish({"dem": finished}, {"dem": path}, temporary / "earlier")
    return FetchedElevation(path, names, url)


def _tiles(grid: Grid, url: str, timeout: float) -> list[Item]:
    """The tiles under a grid, in the order of their names.

    Raises:
        FloraError: If there is none.
    """
    found: dict[str, Item] = {}
    for box in _boxes(grid.lon_lat_box()):
        found |= {
            tile.id: tile for tile in Asked(url, COLLECTION, box, None, TILES, timeout).answers()[1]
        }
    if not found:
        west, south, east, north = grid.lon_lat_box()
        raise FloraError(
            f"{url} has no tile of {COLLECTION} within {west:.6g},{south:.6g},{east:.6g},"
            f"{north:.6g}: open sea, or a place that is not published",
            argument="dem",
            remedy="name a file",
        )
    return [found[name] for name in sorted(found)]


def _boxes(box: LonLatBox) -> list[LonLatBox]:
    """A box as a catalogue takes it: in two parts across the antimeridian."""
    west, south, east, north = box
    if east <= 180:
        return [box]
    return [(west, south, 180.0, north), (-180.0, south, east - 360, north)]


def _mosaic(tiles: Sequence[Item], grid: Grid, timeout: float) -> FloatArray:
    """Elevation of tiles on a grid (rows, columns), NaN where there is none."""
    heights = np.full(grid.shape, np.nan, dtype=np.float32)
    for tile in tiles:
        asset = find_asset(tile, "of elevation", ASSET)
        source = Given("dem", f"tile {tile.id}")
        try:
            with rasterio.open(sign(str(asset.get_absolute_href()), timeout)) as file:
                values = heights_on(file, grid, source)
        except GDAL_ERRORS as error:
            said = str(error).partition("?")[0]
            raise FloraError(
                f"cannot be read ({said})",
                argument=source,
                remedy="try again later, or name a file",
            ) from error
        heights = np.where(np.isfinite(heights), heights, values)
    if not np.isfinite(heights).any():
        raise FloraError(
            "its tiles hold no elevation within the scene", argument="dem", remedy="name a file"
        )
    return heights
