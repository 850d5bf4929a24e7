"""Cloud Optimized GeoTIFFs: valid, with the values they were made from, else refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rio_cogeo import cog_validate

from flora.cog import write_cog


@pytest.fixture
def rows(tmp_path):
    codes = np.zeros((1, 600, 300), dtype=np.uint8)
    codes[0, :200, :90] = 1
    path = tmp_path / "rows.tif"
    profile = {"driver": "GTiff", "width": 300, "height": 600, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:32630", "transform": from_origin(5e5, 4e6, 10, 10)}
    with rasterio.open(path, "w", **profile, **place, nodata=255) as file:
        file.write(codes)
    return path


def test_cog_is_valid_and_keeps_values_and_codes(rows, tmp_path):
    target = tmp_path / "cog.tif"
    write_cog(rows, target, "MODE", np.count_nonzero, 200 * 90)
    assert cog_validate(target, strict=True)[:2] == (True, [])
    with rasterio.open(rows) as before, rasterio.open(target) as after:
        assert np.array_equal(before.read(), after.read())
        assert (after.crs, after.transform, after.nodata) == (before.crs, before.transform, 255)
    with rasterio.open(target, overview_level=0) as overview:
        assert set(np.unique(overview.read())) == {0, 1}  # a mode invents no code


def test_cog_of_which_something_is_missing_is_refused(rows, tmp_path):
    with pytest.raises(OSError, match=r"cog\.tif is incomplete"):
        write_cog(rows, tmp_path / "cog.tif", "MODE", np.count_nonzero, 200 * 90 + 1)
