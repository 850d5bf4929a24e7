"""Areas on the ground: values worked out by hand, and areas of geodesic polygons."""

import math

import numpy as np
import pyproj
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine

from flora.areas import CellAreas
from flora.grid import Grid

GEOD = pyproj.Geod(ellps="WGS84")
EARTH = 510_065_622  # km2: of the WGS 84 ellipsoid


def grid(crs, x, y, pixel=10.0, shape=(600, 800)):
    return Grid(CRS.from_user_input(crs), Affine(pixel, 0, x, 0, -pixel, y), shape)


def geodesic_km2(cells, row, column, points=20):
    """Area of a cell whose edges are followed by geodesics between points along them."""
    own = pyproj.CRS.from_user_input(cells.crs.to_wkt())
    along = np.linspace(0, 1, points, endpoint=False)
    still = np.zeros(points)
    u = column + np.concatenate([along, still + 1, 1 - along, still])
    v = row + np.concatenate([still, along, still + 1, 1 - along])
    a, b, c, d, e, f = cells.transform[:6]
    onto = pyproj.Transformer.from_crs(own, own.geodetic_crs, always_xy=True)
    lon, lat = onto.transform(a * u + b * v + c, d * u + e * v + f)
    return abs(GEOD.polygon_area_perimeter(lon, lat)[0]) / 1e6


def test_geographic_cells_add_up_to_the_earth():
    areas = grid("EPSG:4326", -180, 90, 1, (180, 360)).cell_areas()
    assert areas.total == pytest.approx(EARTH, rel=2e-5)
    assert areas.sum(0, np.ones((180, 360), bool)) == pytest.approx(areas.total, rel=1e-12)


def test_a_cell_at_60_degrees_is_the_product_of_both_radii_of_curvature():
    step = 1e-4  # degrees
    areas = grid("EPSG:4326", 10, 60 + step / 2, step, (1, 1)).cell_areas()
    # a = 6378137 m, e2 = 0.00669438, sin2 60 = 0.75: W2 = 1 - 0.75 e2 = 0.994979215;
    # N = a / W = 6394209.2 m, M = a (1 - e2) / W^3 = 6383453.9 m.
    width, height = 6_394_209.2 * 0.5 * math.radians(step), 6_383_453.9 * math.radians(step)
    assert areas.total == pytest.approx(width * height / 1e6, rel=1e-6)


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "share"),
    [
        # Share of the area that the projection says, with W2 = 1 - e2 sin2 65 = 0.994501.
        ("EPSG:3395", 10, 65, 0.178606 / 0.994501),  # Mercator: cos2 65 / W2
        ("EPSG:900913", 10, 65, 0.178606 * 0.993306 / 0.989032),  # cos2 65 (1 - e2) / W4
        ("EPSG:32662", 10, 65, 0.422618 * 0.993306 / 0.989032),  # cos 65 (1 - e2) / W4
        ("EPSG:3413", 10, 60, None),  # polar stereographic
        ("EPSG:2154", 3, 35, None),  # Lambert, south of its parallels
        ("EPSG:32633", 45, 50, None),  # UTM, 30 degrees off its zone
        ("EPSG:32633", 15, 50, 1 / 0.9996**2),
        ("EPSG:3035", 10, 52, 1),  # equal area
        ("EPSG:6933", 10, 52, 1),  # equal area
        ("EPSG:2264", -79, 35.2, None),  # US survey feet
        ("EPSG:7415", 5, 52, None),  # compound, oblique stereographic
    ],
)
def test_areas_are_those_on_the_ellipsoid(crs, lon, lat, share):
    own = pyproj.CRS.from_user_input(crs)
    onto = pyproj.Transformer.from_crs(own.geodetic_crs, own, always_xy=True)
    x, y = onto.transform(lon, lat)[:2]
    cells = grid(crs, x, y, 100.0, (1500, 2000))
    areas = cells.cell_areas()
    for row, column in ((0, 0), (700, 30), (1499, 1999)):
        # By its own words EPSG:900913 is on a sphere.
        tolerance = 7e-3 if crs == "EPSG:900913" else 1e-6
        expected = geodesic_km2(cells, row, column)
        assert areas.rows(row, 1)[0, column] == pytest.approx(expected, rel=tolerance)
    assert areas.largest >= areas.rows(700, 1).max()
    by_rows = sum(areas.rows(row, 100).sum() for row in range(0, 1500, 100))
    assert areas.total == pytest.approx(by_rows, rel=1e-12)
    if share is not None:
        unit = cells.crs.units_factor[1]
        assert areas.rows(0, 1)[0, 0] == pytest.approx(share * 0.01 * unit**2, rel=1e-4)


def test_sums_are_of_the_chosen_cells():
    areas = grid("EPSG:3413", 3e6, -3e6, 500.0).cell_areas()
    chosen = np.random.default_rng(0).random((50, 800)) < 0.3
    assert areas.sum(37, chosen) == pytest.approx((areas.rows(37, 50) * chosen).sum())
    np.testing.assert_array_equal(areas.rows(37, 50)[5], areas.rows(42, 1)[0])


def test_a_rotated_grid_and_a_rotated_pole_have_areas_too():
    across, down = 10 * math.cos(0.5), 10 * math.sin(0.5)
    turned = Affine(across, down, 4.3e6, down, -across, 3.2e6)
    cells = Grid(CRS.from_epsg(3035), turned, (50, 80))
    assert cells.cell_areas().total == pytest.approx(50 * 80 * 1e-4, rel=1e-8)
    pole = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +ellps=WGS84"
    wkt = pyproj.CRS(f"{pole} +to_meter=0.0174532925199433 +type=crs").to_wkt()
    cell = Grid(CRS.from_wkt(wkt), Affine(0.01, 0, 1, 0, -0.01, 1), (10, 10)).cell_areas()
    # Near the rotated equator a degree is one of a great circle, 110.6 to 111.7 km.
    assert math.sqrt(cell.largest) / 0.01 == pytest.approx(111.2, rel=5e-3)


def test_a_cell_over_the_pole_has_its_area():
    cells = grid("EPSG:3413", -5000, 5000, 1000, (10, 10))
    scale = 0.5 * (1 + math.sin(math.radians(70)))  # of lengths at the pole, true at 70 N
    assert cells.cell_areas().largest == pytest.approx(1 / scale**2, rel=2e-3)


@pytest.mark.parametrize("crs", [None, "EPSG:4978", 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_what_says_nothing_of_the_earth_has_no_areas(crs):
    crs = None if crs is None else CRS.from_user_input(crs)
    cells = Grid(crs, Affine(10, 0, 0, 0, -10, 0), (3, 3))
    assert cells.cell_areas() is None and cells.pixel_metres() is None
    if crs is not None:
        with pytest.raises(ValueError, match="neither geographic nor projected"):
            CellAreas(crs, cells.transform, cells.shape)


def test_pixel_sizes_agree_with_known_lengths():
    # A degree on the equator: 111.3195 km of longitude, 110.574 km of latitude (WGS 84).
    assert grid("EPSG:4326", 0, 0.5, 1, (1, 1)).pixel_metres() == pytest.approx(
        (111_319.5, 110_574.3), rel=1e-5
    )
    # 60 degrees north: Web Mercator doubles lengths.
    y = 6378137 * np.arctanh(np.sin(np.pi / 3))
    mercator = grid("EPSG:3857", 0, y + 5, 10, (1, 1))
    assert mercator.pixel_metres() == pytest.approx((5, 5), rel=0.005)
    assert mercator.cell_areas().total == pytest.approx(np.prod(mercator.pixel_metres()) / 1e6)
    # US survey feet, where the projection's scale is 0.99988.
    feet = grid("EPSG:2264", 2e6, 6e5, 100, (3, 3)).pixel_metres()
    assert feet == pytest.approx((30.48006, 30.48006), rel=2e-4)
