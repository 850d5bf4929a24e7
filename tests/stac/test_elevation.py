from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from flora.errors import FloraError
from flora.grid import Grid
from flora.scenes.elevation import MARGIN, terrain_grid
from flora.stac.elevation import ATTRIBUTION, COLLECTION, fetch_elevation
from tests.support.fake_data import write_raster
from tests.support.servers import without_proxy
from tests.support.stac_server import StacSite, serve_stac

pytest.importorskip("pystac")

SECOND = 1 / 1200  # degree: coarser tiles than the real ones, of 3 seconds
SCENE = Grid(CRS.from_epsg(32630), Affine(10, 0, 668_000, 0, -10, 4_424_000), (60, 60))


def hill(longitude, latitude):
    """Metres, at places in degrees around (-1, 39.95)."""
    return 300 + 4000 * (longitude + 1) + 2000 * (latitude - 39.95)


def add_tile(site: StacSite, folder: Path, west: int, south: int) -> None:
    """A tile of a square degree, as Copernicus DEM is cut, of `hill`; 0 in the sea's north-west."""
    corner = Affine(SECOND, 0, west, 0, -SECOND, south + 1)
    row, column = np.mgrid[:1200, :1200] + 0.5
    heights = hill(west + SECOND * column, south + 1 - SECOND * row).astype(np.float32)
    path = folder / f"{west}_{south}.tif"
    write_raster(path, heights[None], None, corner, "EPSG:4326")
    name = f"Copernicus_DSM_COG_10_N{south}_00_W{-west:03d}_00_DEM"
    site.add(name, COLLECTION, "2021-04-22T00:00:00Z", {"data": path})


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StacSite]:
    without_proxy(monkeypatch)
    monkeypatch.setattr("flora.stac.search.RETRIES", 1)
    monkeypatch.setattr("flora.stac.assets.RETRIES", 0)
    with serve_stac() as served:
        for west in (-2, -1):
            add_tile(served, tmp_path, west, 39)
        yield served


def test_tiles_become_one_file_around_the_scene(site, tmp_path):
    fetched = fetch_elevation(SCENE, tmp_path / "dem.tif", endpoint=site.base)
    assert len(fetched.tiles) == 2 and str(fetched) == f"2 tiles of {COLLECTION} from {site.base}"
    with rasterio.open(fetched.path) as file:
        grid, heights, tags = Grid.of(file), file.read(1), file.tags()
    assert grid.same_as(terrain_grid(SCENE)) and MARGIN >= 3000
    assert tags["FLORA_ITEMS"].split() == list(fetched.tiles)
    assert tags["FLORA_ATTRIBUTION"] == ATTRIBUTION
    # The scene lies across the border of both tiles: no gap, and at most half a tile's pixel off.
    row, column = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    x = grid.transform.c + 30 * column
    y = grid.transform.f - 30 * row
    there = transform(grid.crs, "EPSG:4326", x.ravel(), y.ravel())
    longitude, latitude = (np.reshape(values, grid.shape) for values in there)
    assert longitude.min() < -1 < longitude.max()
    np.testing.assert_allclose(heights, hill(longitude, latitude), atol=2.4)


def test_what_cannot_be_had_is_said(site, tmp_path):
    elsewhere = Grid(SCENE.crs, Affine(10, 0, 500_000, 0, -10, 5_000_000), (60, 60))
    with pytest.raises(FloraError, match="has no tile of cop-dem-glo-30 within"):
        fetch_elevation(elsewhere, tmp_path / "dem.tif", endpoint=site.base)
    site.files.clear()
    with pytest.raises(FloraError, match=r"tile Copernicus_\S+: cannot be read"):
        fetch_elevation(SCENE, tmp_path / "dem.tif", endpoint=site.base)
    site.items = {"S1": {**next(iter(site.items.values())), "id": "S1", "collection": "s1"}}
    with pytest.raises(FloraError, match="choose one of s1"):
        fetch_elevation(SCENE, tmp_path / "dem.tif", endpoint=site.base)
    assert not (tmp_path / "dem.tif").exists()
    (tmp_path / "dem.tif").write_bytes(b"mine")
    with pytest.raises(FloraError, match="exists already"):
        fetch_elevation(SCENE, tmp_path / "dem.tif", endpoint=site.base)
