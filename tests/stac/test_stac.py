from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import Result
from rasterio.transform import Affine
from typer.testing import CliRunner

from flora.cli.main import app
from flora.errors import FloraError, FloraWarning
from flora.predictors import Prediction
from flora.scenes.inputs import open_before, open_scene
from flora.scenes.mapping import map_scene
from flora.stac.assets import SAR_BANDS, find_asset, scale_and_offset
from flora.stac.fetch import fetch_scene
from flora.stac.orbits import fetch_same_orbit, find_same_orbit, said_of
from flora.stac.search import (
    ENDPOINTS,
    address_of,
    find_before,
    orbit_of,
    read_item,
    search,
    time_of,
)
from tests.support.fake_data import fake_scene, write_raster
from tests.support.servers import without_proxy
from tests.support.stac_server import StacSite, serve_stac

pystac = pytest.importorskip("pystac")

SIDE = 120
UTM = "EPSG:32630"
GRID = Affine(10, 0, 500_000, 0, -10, 4_200_000)
OPTICAL = {"B04": 3, "B03": 2, "B02": 1, "B08": 7}
SCENE = fake_scene(3, SIDE)
ON_DAY = "2019-09-13"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[StacSite]:
    without_proxy(monkeypatch)
    monkeypatch.setattr("flora.stac.search.RETRIES", 1)
    monkeypatch.setattr("flora.stac.assets.RETRIES", 0)
    with serve_stac() as served:
        yield served


def radar_files(folder: Path, grid: Affine = GRID, decibels: float = 0.0) -> dict[str, Path]:
    """VV and VH of the fake scene as power, one file each; its first rows are nodata."""
    power = (10 ** ((SCENE["sar"] + decibels) / 10)).astype(np.float32)
    power[:, :5] = -32768
    return {
        name: write_raster(folder / f"{name}.tif", power[i : i + 1], -32768, grid, UTM)
        for i, name in enumerate(("vv", "vh"))
    }


def optical_files(folder: Path, grid: Affine = GRID, added: int = 0) -> dict[str, Path]:
    stored = (SCENE["optical"] + added).astype(np.uint16)
    return {
        name: write_raster(folder / f"{name}.tif", stored[i : i + 1], None, grid, UTM)
        for name, i in OPTICAL.items()
    }


def add_radar(site: StacSite, folder: Path, days: range = range(13, 14)) -> None:
    files = radar_files(folder)
    for day in days:
        site.add(f"s1_{day}", "sentinel-1-rtc", f"2019-09-{day:02}T06:00:00Z", files)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


# --- searching ----------------------------------------------------------------------------------


def test_pages_are_followed_and_sorted(site, tmp_path):
    add_radar(site, tmp_path, range(10, 17))
    box = site.items["s1_10"]["bbox"]
    found = search(box, (date(2019, 9, 11), date(2019, 9, 15)), endpoint=site.base)
    assert [item.id for item in found] == [f"s1_{day}" for day in range(11, 16)]
    assert len(site.asked("/search")) == 3  # two items a page
    assert time_of(found[0]).isoformat() == "2019-09-11T06:00:00+00:00"
    assert [item.id for item in search(box, ON_DAY, endpoint=site.base)] == ["s1_13"]


def test_limit_says_that_there_is_more(site, tmp_path):
    add_radar(site, tmp_path, range(10, 17))
    box = site.items["s1_10"]["bbox"]
    with pytest.warns(FloraWarning, match="limit 3"):
        found = search(box, "2019-09-10/2019-09-16", endpoint=site.base, limit=3)
    assert len(found) == 3
    assert len(search(box, "2019-09-10/2019-09-16", endpoint=site.base, limit=7)) == 7


def test_one_polarisation_is_left_out(site, tmp_path):
    files = radar_files(tmp_path)
    add_radar(site, tmp_path)
    site.add("one", "sentinel-1-rtc", "2019-09-13T06:00:00Z", {"vv": files["vv"]})
    box = site.items["one"]["bbox"]
    assert [item.id for item in search(box, ON_DAY, endpoint=site.base)] == ["s1_13"]
    del site.items["s1_13"]
    with pytest.raises(FloraError, match="both VV and VH"):
        search(box, ON_DAY, endpoint=site.base)


def test_clearest_pass_before_the_flood(site, tmp_path):
    add_radar(site, tmp_path)
    files = optical_files(tmp_path)
    half = optical_files(tmp_path / "half", GRID * Affine.translation(SIDE // 2, 0))
    for name, day, cloud, where in [
        ("cloudy", "2019-09-10", 90, files),
        ("clear but half", "2019-09-08", 0, half),
        ("hazy", "2019-09-06", 15, files),
        ("clear", "2019-09-04", 5, files),
        ("clear and older", "2019-09-02", 5, files),
        ("clearest, too old", "2019-06-01", 0, files),
        ("clearest, too late", "2019-09-13", 0, files),
    ]:
        site.add(name, "sentinel-2-l2a", f"{day}T11:00:00Z", where, {"eo:cloud_cover": cloud})
    radar = read_item(f"{site.base}/collections/sentinel-1-rtc/items/s1_13")
    assert [item.id for item in find_before(radar)] == ["clear and older"]  # ten days before
    assert [item.id for item in find_before(radar, gap=1)] == ["clear"]
    assert [item.id for item in find_before(radar, gap=1, days=8)] == ["hazy"]
    with pytest.raises(FloraError, match=r"at most 1 % cloud.*15 %"):
        find_before(radar, days=7, gap=6, max_cloud=1)
    with pytest.raises(FloraError, match="gap 9, days 3"):
        find_before(radar, days=3, gap=9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": {"/": 503}}, r"HTTP 503 \(trouble\); .*later"),
        ({"status": {"/search": 400}}, r"HTTP 400"),
        ({"status": {"/search": 401}}, r"HTTP 401 .*account"),
        ({"bodies": {"/": b"<html>welcome</html>"}}, "not a STAC API"),
        ({"bodies": {"/": b"[]"}}, "not a STAC API"),
        ({"bodies": {"/": b'{"type": "Feature"}'}}, "not a STAC API"),
        (
            {"bodies": {"/": b'{"type":"Catalog","id":"x","description":"","links":[]}'}},
            "not a STAC API that can be searched",
        ),
        ({"bodies": {"/search": b'{"features": [{"id": 1}]}'}}, "no STAC item"),
    ],
)
def test_server_that_fails(change, message, site, tmp_path):
    add_radar(site, tmp_path)
    box = site.items["s1_13"]["bbox"]
    assert search(box, ON_DAY, endpoint=site.base)
    for name, value in change.items():
        setattr(site, name, value)
    with pytest.raises(FloraError, match=message):
        search(box, ON_DAY, endpoint=site.base)


def test_busy_server_is_asked_again(site, tmp_path):
    add_radar(site, tmp_path)
    site.status = {"/search": 503}
    with pytest.raises(FloraError, match="503"):
        search(site.items["s1_13"]["bbox"], ON_DAY, endpoint=site.base)
    assert len(site.asked("/search")) == 2


def test_nothing_where_nothing_is(site, tmp_path):
    add_radar(site, tmp_path)
    box = site.items["s1_13"]["bbox"]
    with pytest.raises(FloraError, match=r"nothing found: .*sentinel-1-rtc, 2010-01-01"):
        search(box, "2010-01-01", endpoint=site.base)
    with pytest.raises(FloraError, match=r"'sentinel-9'.*choose one of sentinel-1-rtc"):
        search(box, ON_DAY, endpoint=site.base, collection="sentinel-9")
    with pytest.raises(FloraError, match=r"cannot be reached \(.{0,12}Connection refused\); check"):
        search(box, ON_DAY, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("bbox", "dates", "message"),
    [
        ((1, 2, 3), ON_DAY, "four numbers"),
        ((500_000, 4_100_000, 510_000, 4_200_000), ON_DAY, "convert projected"),
        ((179, 0, -179, 1), ON_DAY, "antimeridian"),
        ((0, 1, 1, 0), ON_DAY, "south < north"),
        ((0, float("nan"), 1, 1), ON_DAY, "four numbers"),
        ((0, 0, 1, 1), "13.9.2019", "expected 2019-09-13"),
        ((0, 0, 1, 1), "2019-09-13/2019-09-01", "in this order"),
    ],
)
def test_refused_places_and_dates(bbox, dates, message):
    with pytest.raises(FloraError, match=message):
        search(bbox, dates, endpoint="http://127.0.0.1:9")


def test_endpoints():
    assert address_of("planetary-computer").startswith("https://planetarycomputer.microsoft.com/")
    assert all(url.startswith("https://") for url in ENDPOINTS.values())
    assert address_of("https://stac.example.org/v1/") == "https://stac.example.org/v1"
    with pytest.raises(FloraError, match="planetary-computer, earth-search"):
        address_of("google")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    with pytest.raises(FloraError, match=r'pip install "flora\[stac\]"'):
        search((0, 0, 1, 1), ON_DAY)


def test_item_from_a_file(site, tmp_path):
    add_radar(site, tmp_path)
    (item,) = search(site.items["s1_13"]["bbox"], ON_DAY, endpoint=site.base)
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item.to_dict(transform_hrefs=False)))
    again = read_item(str(path))
    assert (again.id, again.get_self_href()) == (item.id, item.get_self_href())
    path.write_text('{"type": "FeatureCollection"}')
    with pytest.raises(FloraError, match="no STAC item"):
        read_item(str(path))
    with pytest.raises(FloraError, match="check the address or path"):
        read_item(str(tmp_path / "nix.json"))
    with pytest.raises(FloraError, match="HTTP 404"):
        read_item(f"{site.base}/nix")


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": None},
        {"id": 5},
        {"stac_version": None},
        {"assets": None},
        {"assets": {"vv": {}}},
        {"assets": {"vv": {"href": 3}}},
        {"properties": None},
        {"properties": {}},
        {"properties": {"datetime": "yesterday"}},
        {"properties": {"datetime": "2019-09-13T06:00:00Z", "eo:cloud_cover": "none"}},
        {"links": [3]},
        {"links": [{"rel": "related", "href": 5}]},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}},
        {"geometry": {"type": "Blob"}},
        {"geometry": None, "bbox": None},
        {"geometry": None, "bbox": [0, 1]},
        {"stac_extensions": 3},
        {"id": ""},
        {"id": "two\nlines"},
        {"bbox": ["a", 0, 1, 1]},
        {"bbox": [0, 1]},
    ],
    ids=str,
)
def test_malformed_item(wrong, site, tmp_path):
    add_radar(site, tmp_path)
    path = tmp_path / "item.json"
    path.write_text(json.dumps(site._item("s1_13")))
    assert read_item(str(path)).id == "s1_13"
    path.write_text(json.dumps(site._item("s1_13") | wrong))
    with pytest.raises(FloraError, match="no STAC item") as raised:
        read_item(str(path))
    assert "\n" not in str(raised.value)


def test_document_without_end_is_refused(tmp_path):
    path = tmp_path / "item.json"
    path.write_text("[" * 100_000)
    with pytest.raises(FloraError, match="no STAC item"):
        read_item(str(path))
    with pytest.raises(FloraError, match="cannot be reached"):
        read_item("x" * 300)


@pytest.mark.parametrize(
    ("where", "said", "message"),
    [
        ("vv", {"raster:bands": 3}, "its bands are '3', expected a list"),
        ("vv", {"raster:bands": ["vv"]}, "its bands are"),
        ("vv", {"bands": {"name": "vv"}}, "its bands are"),
        ("vv", {"raster:bands": [{"scale": "one"}]}, "its scale is 'one', expected a number"),
        ("vv", {"raster:bands": [{"scale": 0}]}, "its scale is '0'"),
        ("vv", {"raster:bands": [{"offset": [0]}]}, r"its offset is '\[0\]'"),
        ("vv", {"raster:bands": [{"offset": float("nan")}]}, "its offset is 'nan'"),
        ("vv", {"href": ""}, "cannot be read"),
        ("vv", {"href": "/vsimem/nix.tif"}, "cannot be read"),
        ("B04", {"raster:bands": [{"scale": True}]}, "its scale is 'True'"),
        ("B04", {"eo:bands": 5, "href": "nix.tif"}, "cannot be read"),
        ("properties", {"s2:processing_baseline": "new"}, "s2:processing_baseline is 'new'"),
        ("properties", {"s2:processing_baseline": ["05.00"]}, "s2:processing_baseline is"),
        ("properties", {"s2:processing_baseline": None}, "s2:processing_baseline is 'None'"),
    ],
    ids=str,
)
def test_item_that_says_nonsense_is_refused_in_one_line(where, said, message, site, tmp_path):
    """Found only when its files are asked for; nothing is written then."""
    add_radar(site, tmp_path)
    baseline = {"s2:processing_baseline": "03.01"}
    day = "2019-09-05T11:00:00Z"
    site.add("s2", "sentinel-2-l2a", day, optical_files(tmp_path), baseline)
    items = {name: site._item(name) for name in ("s1_13", "s2")}
    for item in items.values():
        item["links"] = []  # else they would be read anew
        changed = item["properties"] if where == "properties" else item["assets"].get(where, {})
        changed |= said
    radar, optical = (pystac.Item.from_dict(item) for item in items.values())
    with pytest.raises(FloraError, match=message) as raised:
        fetch_scene(radar, tmp_path / "out", before=[optical])
    assert "\n" not in str(raised.value) and str(raised.value).startswith("item s")
    assert not (tmp_path / "out").exists()


def test_name_that_no_disk_holds_is_shortened(site, tmp_path):
    files = radar_files(tmp_path)
    long = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 300
    names = set()
    for identity in (long, long + "x"):
        site.add("s1", "sentinel-1-rtc", "2019-09-13T06:00:00Z", files)
        item = pystac.Item.from_dict(site._item("s1"))
        item.id = identity
        names.add(fetch_scene(item, tmp_path / "out").sar.name)
    assert len(names) == 2 and all(len(name.encode()) < 200 for name in names)


def test_lists_that_never_end(site, tmp_path):
    """A page that leads to itself, of items and of collections."""
    add_radar(site, tmp_path)
    item = site._item("s1_13")
    following = [{"rel": "next", "href": f"{site.base}/search", "method": "GET"}]
    page = {"type": "FeatureCollection", "features": [item], "links": following}
    site.bodies["/search"] = json.dumps(page).encode()
    with pytest.warns(FloraWarning, match="limit 5"):
        found = search(item["bbox"], ON_DAY, endpoint=site.base, limit=5)
    assert [one.id for one in found] == ["s1_13"] and len(site.asked("/search")) == 6
    site.bodies["/search"] = b'{"type": "FeatureCollection", "features": []}'
    following[0]["href"] = f"{site.base}/collections"
    page = {"collections": [site._collection("a"), site._collection("b")], "links": following}
    site.bodies["/collections"] = json.dumps(page).encode()
    with pytest.raises(FloraError, match=r"'nix'.*choose one of a, b$"):
        search(item["bbox"], ON_DAY, endpoint=site.base, collection="nix")
    assert len(site.asked("/collections")) <= 501


@pytest.mark.parametrize("name", ["mspc-s1-rtc", "mspc-s1-grd", "earthsearch-s1-grd"])
def test_real_items(name, flora_data):
    """What the catalogues really give is understood; fetching it would need a network."""
    item = read_item(str(flora_data / f"fixtures/stac/{name}.json"))
    assert time_of(item).date() == date(2024, 3, 25)
    assert orbit_of(item) == {"m": "descending 37", "e": "descending 39"}[name[0]]
    home = (item.get_self_href() or "").partition("/collections/")[0]
    assert home in ENDPOINTS.values()
    if "rtc" in name:
        for band, names in SAR_BANDS.items():
            asset = find_asset(item, band, names)
            assert asset.href.endswith(f"iw-{band.lower()}.rtc.tiff")
            assert scale_and_offset(item, asset, optical=False) == (1, 0)


# --- earlier passes of the same orbit ------------------------------------------------------------


def orbit(number: int, state: str = "ascending") -> dict[str, object]:
    return {"sat:orbit_state": state, "sat:relative_orbit": number}


def add_passes(site: StacSite, folder: Path) -> None:
    """The flood on 26 September, and passes before it, of which not all serve."""
    files = radar_files(folder)
    passes = (
        ("flood", 26, orbit(110)),
        ("too_late", 20, orbit(110)),
        ("latest", 14, orbit(110)),
        ("other_side", 15, orbit(110, "descending")),
        ("other_orbit", 12, orbit(8)),
        ("first", 2, orbit(110)),
    )
    for name, day, said in passes:
        site.add(name, "sentinel-1-rtc", f"2019-09-{day:02}T06:00:00Z", files, said)
    aside = radar_files(folder / "aside", GRID * Affine.translation(SIDE * 0.7, 0))
    site.add("aside", "sentinel-1-rtc", "2019-09-08T06:00:00Z", aside, orbit(110))


def test_earlier_passes_are_of_the_same_orbit_and_cover_the_area(site, tmp_path):
    add_passes(site, tmp_path)
    flood = read_item(f"{site.base}/collections/sentinel-1-rtc/items/flood")
    names = [[item.id for item in slices] for slices in find_same_orbit(flood)]
    assert names == [["latest"]]
    assert [s[0].id for s in find_same_orbit(flood, count=2)] == ["latest", "first"]
    assert [s[0].id for s in find_same_orbit(flood, count=3)] == ["latest", "aside", "first"]
    assert find_same_orbit(flood, gap=3)[0][0].id == "too_late"
    with pytest.raises(FloraError, match=r"expected 4 earlier passes of orbit ascending 110"):
        find_same_orbit(flood, count=4)


def test_earlier_passes_of_no_known_orbit_are_refused(site, tmp_path):
    add_radar(site, tmp_path)
    item = read_item(f"{site.base}/collections/sentinel-1-rtc/items/s1_13")
    with pytest.raises(FloraError, match="says neither the direction nor the number"):
        find_same_orbit(item)


def test_earlier_passes_that_are_there_are_taken_without_asking(site, tmp_path):
    add_passes(site, tmp_path)
    flood = read_item(f"{site.base}/collections/sentinel-1-rtc/items/flood")
    files = fetch_same_orbit(flood, tmp_path / "out", count=2)
    assert [said_of(path) for path in files] == ["latest of 2019-09-14", "first of 2019-09-02"]
    asked = len(site.requests)
    assert fetch_same_orbit(flood, tmp_path / "out", count=2, reuse=True) == files
    assert len(site.requests) == asked


# --- fetching -----------------------------------------------------------------------------------


def found_at(site: StacSite, collection: str = "sentinel-1-rtc", **given: object) -> pystac.Item:
    box = next(iter(site.items.values()))["bbox"]
    days = "2019-01-01/2019-12-31"
    sensor = "sar" if collection.startswith("sentinel-1") else "optical"
    return search(box, days, endpoint=site.base, collection=collection, sensor=sensor, **given)[0]


def test_radar_is_the_archive_in_decibels(site, tmp_path):
    add_radar(site, tmp_path)
    steps = []
    fetched = fetch_scene(
        found_at(site), tmp_path / "out", progress=lambda *step: steps.append(step)
    )
    assert fetched.before is None
    assert steps == [(1, 1)]
    with rasterio.open(fetched.sar) as file:
        values = file.read()
        assert file.descriptions == ("VV", "VH")
        assert (file.crs.to_string(), file.transform) == (UTM, GRID)
        assert file.tags()["FLORA_BACKSCATTER"] == "gamma0, dB"
    assert np.isnan(values[:, :5]).all()
    np.testing.assert_allclose(values[:, 5:], SCENE["sar"][:, 5:], atol=1e-4)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"s1_13_sar.tif"}


def test_box_keeps_the_archives_pixels(site, tmp_path):
    add_radar(site, tmp_path)
    whole = read(fetch_scene(found_at(site), tmp_path / "out").sar)
    west, south, east, north = site.items["s1_13"]["bbox"]
    inner = (west + (east - west) / 4, south + (north - south) / 4, east, (south + north) / 2)
    cut = fetch_scene(found_at(site), tmp_path / "cut", bbox=inner).sar
    with rasterio.open(cut) as file:
        column, row = (round(value) for value in ~GRID * (file.transform.c, file.transform.f))
        assert (column, file.width) == (SIDE // 4, SIDE - SIDE // 4)
        assert abs(row - SIDE // 2) <= 1
        expected = whole[:, row : row + file.height, column:]
        np.testing.assert_array_equal(file.read(), expected)
    with pytest.raises(FloraError, match="does not overlap item s1_13"):
        fetch_scene(found_at(site), tmp_path / "no", bbox=(10, 10, 11, 11))
    assert not (tmp_path / "no").exists()


def test_blocks_do_not_show(site, tmp_path):
    """A scene of several blocks and two overlapping items, the second on a shifted grid."""
    power = np.random.default_rng(0).uniform(0.01, 0.1, (1, 700, 600)).astype(np.float32)
    for name, shift in (("a", 0), ("b", 300)):
        path = write_raster(
            tmp_path / f"{name}.tif", power, None, GRID * Affine.translation(shift, 0), UTM
        )
        site.add(name, "sentinel-1-rtc", "2019-09-13T06:00:00Z", {"vv": path, "vh": path})
    box = site.items["a"]["bbox"]
    both = search(box, ON_DAY, endpoint=site.base)
    small = read(fetch_scene(both, tmp_path / "small", block=512).sar)
    assert small.shape == (2, 700, 900)
    expected = 10 * np.log10(power[0])
    np.testing.assert_allclose(small[0, :, :600], expected, atol=1e-5)
    np.testing.assert_allclose(small[0, :, 600:], expected[:, 300:], atol=1e-5)
    np.testing.assert_array_equal(read(fetch_scene(both, tmp_path / "large").sar), small)


def test_before_image_on_the_radars_grid_without_its_offset(site, tmp_path):
    add_radar(site, tmp_path)
    files = optical_files(tmp_path, added=1000)
    site.add(
        "s2", "sentinel-2-l2a", "2019-09-05T11:00:00Z", files, {"s2:processing_baseline": "05.00"}
    )
    before = [found_at(site, "sentinel-2-l2a")]
    fetched = fetch_scene(found_at(site), tmp_path / "out", before=before)
    with rasterio.open(fetched.before) as file:
        assert file.descriptions == ("B4", "B3", "B2", "B8")
        assert (file.transform, file.nodata) == (GRID, 0)
        np.testing.assert_array_equal(file.read(), SCENE["optical"][list(OPTICAL.values())])

    def predict(sar, valid, guide):
        assert bool(guide.valid.all())
        return Prediction(guide.index.clamp(0, 1))

    with (
        pytest.warns(FloraWarning, match="read as sigma0 = gamma0 cos"),
        open_scene(fetched.sar) as scene,
        open_before(fetched.before, scene) as image,
    ):
        mapped = map_scene(scene, tmp_path / "maps", predict, before=image)
    assert mapped.valid_pixels == SIDE * (SIDE - 5)


def test_before_image_on_another_grid(site, tmp_path):
    add_radar(site, tmp_path)
    shifted = GRID * Affine.translation(-40, -40) * Affine.scale(2)
    files = {
        name: write_raster(
            tmp_path / f"{name}.tif", np.full((1, 80, 80), 100 * i, np.uint16), 0, shifted, UTM
        )
        for i, name in enumerate(("red", "green", "blue", "nir"), 1)
    }
    bands = {"raster:bands": [{"scale": 0.0001, "offset": 0.0}]}
    site.add("s2", "s2", "2019-09-05T11:00:00Z", files, assets=dict.fromkeys(files, bands))
    fetched = fetch_scene(found_at(site), tmp_path / "out", before=[found_at(site, "s2")])
    values = read(fetched.before)
    assert [sorted(set(np.unique(band)) - {0}) for band in values] == [[100], [200], [300], [400]]
    assert (values[:, -5:] > 0).all()  # 120 px from -40 in 20 m pixels reach 120


def optical_asset(properties: dict[str, object], said: dict[str, object]) -> tuple:
    asset = pystac.Asset("B04.tif", extra_fields=said)
    time = datetime(2019, 9, 5, tzinfo=UTC)
    return pystac.Item("s2", None, None, time, properties, assets={"B04": asset}), asset


@pytest.mark.parametrize(
    ("properties", "asset", "expected"),
    [
        ({"s2:processing_baseline": "03.01"}, {}, (0.0001, 0.0)),
        ({"s2:processing_baseline": "04.00"}, {}, (0.0001, -0.1)),
        ({"processing:version": "05.11"}, {}, (0.0001, -0.1)),
        (
            {"s2:processing_baseline": "05.00"},
            {"raster:bands": [{"scale": 0.0001, "offset": 0}]},
            (0.0001, 0.0),
        ),
        ({}, {"bands": [{"raster:scale": 0.0001, "raster:offset": -0.1}]}, (0.0001, -0.1)),
        (
            {"s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": True},
            {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]},
            (0.0001, 0.0),
        ),
        (
            {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False},
            {},
            (0.0001, -0.1),
        ),
        ({"processing:version": "N0509"}, {}, (0.0001, -0.1)),
        ({"s2:processing_baseline": "0301"}, {}, (0.0001, 0.0)),
        ({"s2:processing_baseline": 4}, {}, (0.0001, -0.1)),
        (
            {"s2:product_uri": "S2A_MSIL2A_20220906_N0400_R108"},
            {},
            (0.0001, -0.1),
        ),
        (
            {"s2:product_uri": "S2A_MSIL2A_20190906_N0213_R108"},
            {},
            (0.0001, 0.0),
        ),
    ],
)
def test_offset_of_baseline_4(properties, asset, expected):
    assert scale_and_offset(*optical_asset(properties, asset)) == pytest.approx(expected)


def test_scale_of_item_and_file_is_applied_once(site, tmp_path):
    """Radar in hundredths of a dB and reflectance, declared by the file, by the item, by both."""
    said = {"raster:bands": [{"scale": 0.01}]}
    radar = optical = None
    for where in ("file", "item", "both"):
        files = {}
        for name, value in (("vv", -1000), ("vh", -1800), ("B04", 600), ("B03", 500)):
            path = tmp_path / where / f"{name}.tif"
            write_raster(path, np.full((1, 60, 60), value, np.int16), None, GRID, UTM)
            with rasterio.open(path, "r+") as file:
                if where != "item":
                    file.scales = [0.01 if value < 0 else 0.0001]
                    file.offsets = [0.0 if value < 0 else -0.01]
            files[name] = path
        sar = {name: files[name] for name in ("vv", "vh")}
        assets = {} if where == "file" else dict.fromkeys(sar, said)
        day = f"2019-09-1{len(site.items)}T06:00:00Z"
        site.add(f"s1_{where}", "sentinel-1-rtc", day, sar, assets=assets)
        images = {"B04": files["B04"], "B03": files["B03"], "B02": files["B03"]}
        images["B08"] = files["B04"]
        bands = {"raster:bands": [{"scale": 0.0001, "offset": -0.01}]}
        assets = {} if where == "file" else dict.fromkeys(images, bands)
        site.add(f"s2_{where}", "sentinel-2-l2a", day, images, assets=assets)
        box = site.items[f"s1_{where}"]["bbox"]
        (item,) = search(box, day[:10], endpoint=site.base)
        before = search(box, day[:10], endpoint=site.base, sensor="optical")
        fetched = fetch_scene(item, tmp_path / "out", before=before, units="db")
        radar, optical = read(fetched.sar), read(fetched.before)
        np.testing.assert_allclose(radar[:, 0, 0], [-10, -18], atol=1e-5)
        assert optical[:, 0, 0].tolist() == [500, 400, 400, 500]


@pytest.mark.parametrize(
    ("filed", "message"),
    [
        (
            (0.001, 0.0),
            r"says scale 0\.0001, its file 0\.001; the item is believed; if",
        ),
        ((0.0001, -0.1), r"says offset 0, its file -0\.1; the item"),
        ((0.001, -0.1), r"says scale 0\.0001, its file 0\.001 and offset 0, its file -0\.1;"),
    ],
)
def test_item_that_contradicts_its_file(filed, message):
    item, asset = optical_asset({}, {"raster:bands": [{"scale": 0.0001, "offset": 0}]})
    with pytest.warns(FloraWarning, match=message):
        assert scale_and_offset(item, asset, filed) == (0.0001, 0)


def test_offset_that_the_file_alone_declares():
    item, asset = optical_asset({}, {"raster:bands": [{"scale": 0.0001}]})
    assert scale_and_offset(item, asset, (0.0001, -0.1)) == (0.0001, -0.1)
    assert scale_and_offset(item, asset, (1.0, -1000)) == pytest.approx((0.0001, -0.1))


def test_offset_that_is_not_told():
    with pytest.raises(FloraError, match=r"neither its offset .*choose another collection"):
        scale_and_offset(*optical_asset({}, {}))


# --- what was put together ----------------------------------------------------------------------


def test_several_passes_are_not_one_scene(site, tmp_path):
    files = radar_files(tmp_path)
    for name, day, orbit in (
        ("a", 13, "ascending"),
        ("b", 13, "descending"),
        ("c", 19, "ascending"),
    ):
        said = {"sat:orbit_state": orbit, "sat:relative_orbit": 110}
        site.add(name, "sentinel-1-rtc", f"2019-09-{day}T06:00:00Z", files, said)
    a, b, c = search(site.items["a"]["bbox"], "2019-09-13/2019-09-19", endpoint=site.base)
    for items in ([a, b], [a, c]):
        with pytest.raises(FloraError, match="several passes") as error:
            fetch_scene(items, tmp_path / "out")
        assert "a, 2019-09-13 06:00, ascending 110; " in str(error.value)
    assert "c, 2019-09-19" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_images_of_several_days_are_named(site, tmp_path):
    add_radar(site, tmp_path)
    files, said = optical_files(tmp_path), {"s2:processing_baseline": "03.01"}
    for day in (2, 3):
        site.add(f"s2_{day}", "sentinel-2-l2a", f"2019-09-0{day}T11:00:00Z", files, said)
    box, days = site.items["s1_13"]["bbox"], "2019-09-01/2019-09-05"
    images = search(box, days, endpoint=site.base, sensor="optical")
    with pytest.warns(FloraWarning, match=r"s2_2 of 2019-09-02, s2_3 of 2019-09-03"):
        fetched = fetch_scene(found_at(site), tmp_path / "out", before=images)
    assert fetched.image == "s2_2 s2_3 of 2019-09-02 2019-09-03"


def test_image_that_is_cloud_everywhere_is_said(site, tmp_path):
    add_radar(site, tmp_path)
    files, said = optical_files(tmp_path, added=4000), {"s2:processing_baseline": "03.01"}
    site.add("white", "sentinel-2-l2a", "2019-09-02T11:00:00Z", files, said | {"eo:cloud_cover": 3})
    item = found_at(site)
    with pytest.warns(FloraWarning, match=r"white of 2019-09-02.*probably cloud .*100%"):
        fetched = fetch_scene(item, tmp_path / "out", before=find_before(item))
    with rasterio.open(fetched.before) as file:
        assert file.tags()["FLORA_ITEMS"] == "white"
        assert file.tags()["FLORA_DATES"] == "2019-09-02"


# --- links --------------------------------------------------------------------------------------


def test_expired_links_are_renewed_once(site, tmp_path):
    add_radar(site, tmp_path)
    item = found_at(site)
    site.signature = "second"
    fetched = fetch_scene(item, tmp_path / "out")
    assert np.isfinite(read(fetched.sar)[:, 5:]).all()
    assert len(site.asked("/collections/sentinel-1-rtc/items/s1_13")) == 1


def test_links_that_stay_expired(site, tmp_path, capfd):
    add_radar(site, tmp_path)
    item = found_at(site)
    site.status = {"/files": 410}
    with pytest.raises(
        FloraError, match=r"HTTP 410.*not even with new links.*search again"
    ) as error:
        fetch_scene(item, tmp_path / "out")
    assert len(site.asked("/collections/sentinel-1-rtc/items/s1_13")) == 1
    assert "sig=" not in str(error.value)
    assert "sig=" not in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def blobs(site, monkeypatch):
    """The site as Planetary Computer's: its files are blobs, for which a token is given out."""
    from planetary_computer import sas
    from planetary_computer.settings import Settings

    site.in_links = False
    monkeypatch.setattr(sas, "BLOB_STORAGE_DOMAIN", site.base.removeprefix("http://"))
    monkeypatch.setattr(sas, "TOKEN_CACHE", {})
    monkeypatch.setattr(Settings.get(), "sas_url", f"{site.base}/token")
    return site


def test_links_signed_by_a_token(blobs, tmp_path):
    add_radar(blobs, tmp_path)
    item = found_at(blobs)
    fetched = fetch_scene(item, tmp_path / "out")
    assert np.isfinite(read(fetched.sar)[:, 5:]).all()
    assert blobs.asked("/token") == ["/token/127/files"]  # one for all files of a container


def test_token_that_ends_meanwhile(blobs, tmp_path):
    power = np.full((1, 600, 1100), 0.05, np.float32)
    path = write_raster(tmp_path / "a.tif", power, None, GRID, UTM)
    blobs.add("a", "sentinel-1-rtc", "2019-09-13T06:00:00Z", {"vv": path, "vh": path})
    blobs.lasts = 30  # less than a minute is too little to rely on

    def ends(done: int, total: int) -> None:
        blobs.signature = f"{done}-of-{total}"

    fetched = fetch_scene(found_at(blobs), tmp_path / "out", block=512, progress=ends)
    assert np.isfinite(read(fetched.sar)).all()
    assert blobs.signature == "6-of-6"


@pytest.mark.parametrize("silent", [False, True])
def test_token_that_is_not_given_out(silent, blobs, tmp_path):
    add_radar(blobs, tmp_path)
    item = found_at(blobs)
    blobs.silent, blobs.status = silent, {"/token": 401}
    expected = "cannot be reached .no answer within 1 s" if silent else "HTTP 401"
    started = time.monotonic()
    with pytest.raises(FloraError, match=f"token of planetary-computer: {expected}"):
        fetch_scene(item, tmp_path / "out", timeout=1)
    assert time.monotonic() - started < 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": {"/files/s1_13/vh": 404}}, "HTTP 404"),
        ({"status": {"/files/s1_13/vh": 503}}, "HTTP 503.*later"),
        ({"files": {"s1_13/vv.tif": b"no raster", "s1_13/vh.tif": b"no raster"}}, "damaged"),
    ],
)
def test_archive_that_fails_leaves_nothing(change, message, site, tmp_path):
    add_radar(site, tmp_path)
    item = found_at(site)
    for name, value in change.items():
        setattr(site, name, value)
    with pytest.raises(FloraError, match=message):
        fetch_scene(item, tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_file_that_lies_on_a_line_is_refused(site, tmp_path):
    add_radar(site, tmp_path)
    item = found_at(site)
    line = Affine(10, 10, GRID.c, 10, 10, GRID.f)
    path = write_raster(tmp_path / "line.tif", np.ones((1, 8, 8), np.float32), None, line, UTM)
    site.files["s1_13/vh.tif"] = path.read_bytes()
    with pytest.raises(FloraError, match=r"^item s1_13, VH: the transform .* to one line"):
        fetch_scene(item, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_calibrated_radar(site, tmp_path):
    files = radar_files(tmp_path, decibels=45)  # as bright as digital numbers
    site.add("dn", "sentinel-1-rtc", "2019-09-13T06:00:00Z", files)
    with pytest.raises(FloraError, match="uncalibrated digital numbers"):
        fetch_scene(found_at(site), tmp_path / "out")
    site.items.clear()
    add_radar(site, tmp_path)
    for name in ("vv", "vh"):
        path = write_raster(tmp_path / f"{name}.tif", SCENE["sar"][:1], crs=None)
        site.files[f"s1_13/{name}.tif"] = path.read_bytes()
    with pytest.raises(FloraError, match=r"no map grid.*SNAP"):
        fetch_scene(found_at(site), tmp_path / "out")


def test_existing_files_are_kept_unless_asked(site, tmp_path):
    add_radar(site, tmp_path)
    fetched = fetch_scene(found_at(site), tmp_path / "out")
    stamp = fetched.sar.stat().st_mtime_ns
    with pytest.raises(FloraError, match=r"already holds s1_13_sar\.tif"):
        fetch_scene(found_at(site), tmp_path / "out")
    assert fetched.sar.stat().st_mtime_ns == stamp
    assert fetch_scene(found_at(site), tmp_path / "out", overwrite=True) == fetched


def test_refused_arguments(site, tmp_path):
    add_radar(site, tmp_path)
    item = found_at(site)
    for given, message in [
        ({"block": 500}, "block 500"),
        ({"units": "watt"}, "units 'watt'"),
        ({"bbox": (1, 2)}, "four numbers"),
    ]:
        with pytest.raises(FloraError, match=message):
            fetch_scene(item, tmp_path / "out", **given)
    with pytest.raises(FloraError, match="sar: no item"):
        fetch_scene([], tmp_path / "out")
    with pytest.raises(FloraError, match="no asset for band B4"):
        fetch_scene(item, tmp_path / "out", before=[item])


def test_real_chip(site, tmp_path, flora_data):
    """A real terrain-corrected chip, turned into power, and its Level-2A image."""
    name = "433D_629L_3_1.tif"
    with rasterio.open(flora_data / "terramesh/S1RTC" / name) as file:
        decibels, grid, crs = file.read(), file.transform, file.crs.to_string()
    with rasterio.open(flora_data / "terramesh/S2L2A" / name) as file:
        stored = file.read()
    for i, band in enumerate(("vv", "vh")):
        power = (10 ** (decibels[i : i + 1] / 10)).astype(np.float32)
        write_raster(tmp_path / f"{band}.tif", power, -32768, grid, crs)
    radar = {band: tmp_path / f"{band}.tif" for band in ("vv", "vh")}
    site.add("s1", "sentinel-1-rtc", "2020-04-11T23:43:09Z", radar)
    optical = {
        band: write_raster(tmp_path / f"{band}.tif", stored[i : i + 1], None, grid, crs)
        for band, i in OPTICAL.items()
    }
    baseline = {"s2:processing_baseline": "02.14", "eo:cloud_cover": 3.0}
    site.add("s2", "sentinel-2-l2a", "2020-04-08T15:00:00Z", optical, baseline)

    (item,) = search(site.items["s1"]["bbox"], "2020-04-11", endpoint=site.base)
    fetched = fetch_scene(item, tmp_path / "out", before=find_before(item, gap=1))
    np.testing.assert_allclose(read(fetched.sar), decibels, atol=1e-4)
    np.testing.assert_array_equal(read(fetched.before), stored[list(OPTICAL.values())])


# --- the command --------------------------------------------------------------------------------


def run_search(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["search", *arguments])


def test_command_finds_and_fetches(site, tmp_path):
    add_radar(site, tmp_path, range(12, 14))
    images = optical_files(tmp_path)
    said = {"s2:processing_baseline": "03.01", "eo:cloud_cover": 4}
    site.add("s2", "sentinel-2-l2a", "2019-09-03T11:00:00Z", images, said)
    west, south, east, north = site.items["s1_13"]["bbox"]
    where = ["--bbox", f"{west},{south},{east},{north}", "--endpoint", site.base]
    result = run_search(
        *where,
        *("--date", "2019-09-10/2019-09-20", "--fetch", str(tmp_path / "out"), "--before"),
        *("--json", str(tmp_path / "found.json")),
    )
    assert result.exit_code == 0, result.output
    assert "2 found" in result.output
    assert f"{site.base}/collections/sentinel-1-rtc/items/s1_13" in result.output
    assert f"flora map {tmp_path / 'out/s1_13_sar.tif'}" in result.output
    assert f"--before {tmp_path / 'out/s1_13_before.tif'}" in result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert [item["id"] for item in found["features"]] == ["s1_12", "s1_13"]
    assert read(tmp_path / "out/s1_13_sar.tif").shape == (2, SIDE, SIDE)

    clouds = run_search(*where, "--date", "2019-09-03", "--sensor", "optical", "--max-cloud", "3")
    assert clouds.exit_code == 1
    assert "the clearest of 1 images has 4 %" in clouds.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bbox=a,b"], "WEST,SOUTH,EAST,NORTH"),
        (["--bbox", "0,0,1"], "four numbers joined by commas"),
        (["--bbox", "-0.9", "38", "-.6", "38.2"], "write --bbox -0.9,38,-.6,38.2"),
        (["--bbox=-0.9", "38", "-.6", "38.2"], "write --bbox -0.9,38,-.6,38.2"),
        (["--bbox", "-0.9,", "38,", "-0.6,", "38.2"], "write --bbox -0.9,38,-0.6,38.2"),
        (["--bbox=0,0,1,1", "--before"], "goes with --fetch"),
        (["--bbox=0,0,1,1", "--sensor", "optical", "--fetch", "out"], "--sensor sar"),
    ],
)
def test_command_refuses(arguments, message):
    result = run_search(*arguments, "--date", ON_DAY)
    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")
    assert "Traceback" not in result.output
