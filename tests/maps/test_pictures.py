"""Which bands of a file a map shows, and how bright they are."""

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from flora.errors import FloraError
from flora.maps.layers import read_map
from tests.maps.test_maps import GRID, UTM
from tests.support.fake_data import write_raster

ROWS, COLUMNS = 20, 30


@pytest.fixture
def folder(tmp_path):
    values = np.full((1, ROWS, COLUMNS), 0.5, np.float32)
    write_raster(tmp_path / "p.tif", values, np.nan, GRID, UTM)
    return tmp_path


def write(path, values, names=(), nodata=None, scale=1.0, offset=0.0, colours=()):
    """A raster whose bands hold one value each."""
    values = np.asarray(values)
    bands = np.broadcast_to(values[:, None, None], (len(values), ROWS, COLUMNS))
    write_raster(path, np.ascontiguousarray(bands), nodata, GRID, UTM)
    with rasterio.open(path, "r+") as file:
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
        if (scale, offset) != (1.0, 0.0):
            file.scales, file.offsets = (scale,) * len(values), (offset,) * len(values)
        if colours:
            file.colorinterp = colours
    return path


def shown(folder, **files):
    """Name and middle pixel of the one image of a map."""
    ((name, image),) = read_map(folder / "p.tif", **files).images.items()
    return name, image[image.shape[0] // 2, image.shape[1] // 2].tolist()


VV, VH = -5.0, -30.0
GREY = 204  # of -5 dB between -25 and 0


def test_vv_is_shown_wherever_it_lies(folder):
    path = write(folder / "s.tif", np.float32([VH, VV]), ("VH", "VV"))
    assert shown(folder, sar=path) == ("SAR VV", [GREY] * 3 + [255])
    plain = write(folder / "plain.tif", np.float32([VV, VH]))
    assert shown(folder, sar=plain) == ("SAR VV", [GREY] * 3 + [255])
    angle = write(folder / "a.tif", np.float32([39, VH, VV]), ("angle", "VH", "VV"))
    assert shown(folder, sar=angle) == ("SAR VV", [GREY] * 3 + [255])
    assert shown(folder, before=angle) == ("SAR VV, before", [GREY] * 3 + [255])


def test_what_is_no_vv_is_not_called_so(folder):
    name, pixel = shown(folder, sar=write(folder / "s.tif", np.float32([-12]), ("VH",)))
    assert (name, pixel) == ("SAR VH", [GREY] * 3 + [255])
    assert shown(folder, sar=write(folder / "scene_VH.tif", np.float32([-12])))[0] == "SAR VH"


def test_integers_with_a_scale_and_power_are_not_black(folder):
    path = write(folder / "s.tif", np.int16([-500, -3000]), nodata=-32768, scale=0.01)
    assert shown(folder, sar=path)[1] == [GREY] * 3 + [255]
    power = write(folder / "power.tif", np.float32([10 ** (VV / 10), 0.001]))
    assert shown(folder, sar=power)[1] == [GREY] * 3 + [255]
    counts = write(folder / "n.tif", np.uint16([3162, 10]), scale=1e-4)
    assert shown(folder, sar=counts)[1] == pytest.approx([GREY] * 3 + [255], abs=1)


RED, GREEN, BLUE, INFRARED = 2400, 1200, 600, 3000
COLOUR = [204, 102, 51, 255]


@pytest.mark.parametrize(
    "names",
    [
        ("blue", "green", "red", "nir"),
        ("B2, central wavelength 490 nm", "B3, 560 nm", "B4, 665 nm", "B8, 842 nm"),
        ("S2_B02", "S2_B03", "S2_B04", "S2_B08"),
        ("Blue", "Green", "Red", "Vegetation red edge"),
    ],
)
def test_colours_are_found_by_name(folder, names):
    path = write(folder / "o.tif", np.int16([BLUE, GREEN, RED, INFRARED]), names)
    assert shown(folder, before=path) == ("optical, before", COLOUR)


def test_colours_are_found_in_the_order_of_their_product(folder):
    whole = [500, BLUE, GREEN, RED, *range(3000, 3009)]
    assert shown(folder, before=write(folder / "l1c.tif", np.int16(whole)))[1] == COLOUR
    assert shown(folder, before=write(folder / "l2a.tif", np.int16(whole[:12])))[1] == COLOUR
    four = write(folder / "4.tif", np.int16([RED, GREEN, BLUE, INFRARED]))
    assert shown(folder, before=four)[1] == COLOUR
    colours = (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    swapped = write(folder / "bgr.tif", np.uint8([51, 102, 204]), colours=colours)
    assert shown(folder, before=swapped)[1] == COLOUR


def test_declared_scale_and_reflectance_are_as_bright_as_counts(folder):
    stored = np.uint16([RED + 1000, GREEN + 1000, BLUE + 1000])
    path = write(folder / "o.tif", stored, ("red", "green", "blue"), scale=1e-4, offset=-0.1)
    assert shown(folder, before=path)[1] == pytest.approx(COLOUR, abs=1)
    reflectance = write(folder / "r.tif", np.float32([RED, GREEN, BLUE]) / 10_000)
    assert shown(folder, before=reflectance)[1] == pytest.approx(COLOUR, abs=1)


def test_an_image_without_a_place_is_refused(folder):
    path = folder / "o.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write_raster(path, np.ones((3, ROWS, COLUMNS), np.uint8), None, Affine.identity(), None)
    with pytest.raises(FloraError, match="no CRS"):
        shown(folder, before=path)
