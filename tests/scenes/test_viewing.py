from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS

from flora.errors import FloraError, Given
from flora.grid import LON_LAT, covering_grid
from flora.scenes.safe.annotation import viewing_of
from flora.scenes.viewing import swath_incidence

SOURCE = Given("sar_path", "a product")


def annotation(folder: Path, start: str) -> bytes:
    """The first annotation of a real product whose name begins so."""
    product = next((folder / "fixtures" / "safe").glob(f"{start}*"))
    if product.is_dir():
        return sorted(product.glob("annotation/*.xml"))[0].read_bytes()
    with zipfile.ZipFile(product) as archive:
        names = [n for n in archive.namelist() if "/annotation/s1" in n and n.endswith(".xml")]
        return archive.read(sorted(names)[0])


@pytest.mark.parametrize(
    ("start", "crs", "flight", "azimuth", "incidence"),
    [
        ("S1A_IW_GRDH_1SDV_2015", 32634, "descending", 279, (30.6, 46.0)),
        ("S1A_IW_GRDH_1SDV_2021", 32736, "descending", 283, (30.2, 46.0)),
        ("S1A_IW_GRDH_1SDV_2026", 32601, "descending", 286, (30.5, 45.7)),  # across 180 degrees
        ("S1A_EW", 32645, "descending", 294, (18.9, 46.4)),  # at 80 N it turns to the pole
        ("S1C_S4", 32632, "ascending", 77, (34.5, 39.7)),
    ],
)
def test_real_products_tell_how_they_were_looked_at(
    start, crs, flight, azimuth, incidence, flora_data
):
    view = viewing_of(annotation(flora_data, start), SOURCE)
    assert view.flight == flight
    assert view.azimuth(CRS.from_epsg(crs)) == pytest.approx(azimuth, abs=4)
    assert (view.incidence.min(), view.incidence.max()) == pytest.approx(incidence, abs=0.06)
    # At the points the polynomial gives what the annotation says, even in degrees at 80 N.
    middle = len(view.longitude) // 2
    for point in range(0, view.longitude.shape[1], 5):
        at = view.longitude[middle, point], view.latitude[middle, point]
        grid = covering_grid(LON_LAT, *(np.array([v, v]) for v in at), SOURCE)
        here = view.angles(grid)
        assert here[0, 0] == pytest.approx(view.incidence[middle, point], abs=0.1)


@pytest.mark.parametrize("text", [None, b"<product/>", b"<a><pass>Ascending</pass></a>"])
def test_annotation_that_says_nothing(text):
    assert viewing_of(text, SOURCE) is None


@pytest.mark.parametrize(
    "points",
    [
        "<geolocationGridPoint><line>0</line></geolocationGridPoint>",
        "<geolocationGridPoint><line>x</line><longitude>1</longitude><latitude>1</latitude>"
        "<incidenceAngle>30</incidenceAngle></geolocationGridPoint>",
    ],
)
def test_damaged_annotation_is_refused(points):
    flight = "<productInformation><pass>Ascending</pass></productInformation>"
    with pytest.raises(FloraError, match="damaged geolocation grid"):
        viewing_of(f"<product>{flight}{points}</product>".encode(), SOURCE)


@pytest.mark.parametrize("year", ["2015", "2021", "2026"])
def test_angle_from_the_outline_is_nearly_that_of_the_annotation(year, flora_data):
    view = viewing_of(annotation(flora_data, f"S1A_IW_GRDH_1SDV_{year}"), SOURCE)
    corners = np.s_[[0, 0, -1, -1], [0, -1, -1, 0]]
    outline = np.stack([view.longitude[corners], view.latitude[corners]], axis=-1)
    middle = len(view.longitude) // 2
    for point in range(0, view.longitude.shape[1], 4):
        at = float(view.longitude[middle, point]), float(view.latitude[middle, point])
        found = swath_incidence(outline, view.flight, *at)
        # A degree is .06 dB of the quotient of sigma0 and gamma0.
        assert found == pytest.approx(view.incidence[middle, point], abs=1.0)
