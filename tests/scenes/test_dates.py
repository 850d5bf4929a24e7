from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from rasterio.transform import Affine

from flora.errors import FloraError, FloraWarning
from flora.scenes.dates import open_dates, relative_orbit
from flora.scenes.inputs import open_scene
from flora.scenes.names import date_in_name
from flora.scenes.thresholds import SceneOtsu
from tests.support.fake_scenes import GRID, fake_safe, map_truth, write_scene

SHAPE = (96, 120)


def write_truth(path: Path, grid: Affine = GRID, shape: tuple[int, int] = SHAPE, shift=0.0) -> Path:
    return write_scene(path, (map_truth(grid, shape) + shift).astype(np.float32), transform=grid)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("S1A_IW_GRDH_1SDV_20190917T060141_20200101T000000.SAFE", date(2019, 9, 17)),
        ("flood_2021-07-15.tif", date(2021, 7, 15)),
        ("Spain_7370579_S1Hand.tif", None),
        ("tile_20131301.tif", None),
        ("tile_20210231.tif", None),
        ("scene_19990101.tif", None),
    ],
)
def test_date_in_a_name(name, taken):
    assert date_in_name(Path(name)) == taken


def test_on_one_grid_both_dates_are_read_as_they_are_the_earlier_first(tmp_path):
    after = write_truth(tmp_path / "after.tif")
    before = write_truth(tmp_path / "before.tif", shift=-3)
    with open_scene(after) as scene, open_dates(scene, before) as both:
        values, valid = both.read(8, 16)
        expected = map_truth(GRID, SHAPE)[:, 8:24]
        with both.reopen() as again:
            np.testing.assert_array_equal(again.read(8, 16)[0], values)
        assert both.identity() != scene.identity()
    assert valid.all() and both.shown == 2
    np.testing.assert_allclose(values, [*(expected - 3), *expected], atol=1e-4)


def test_the_checksum_of_stacked_dates_is_of_all_of_them(tmp_path):
    """Maps of other pixels of either date are not taken for this scene's."""
    paths = {
        shift: write_truth(tmp_path / f"{name}.tif", shift=shift)
        for name, shift in (("plain", 0.0), ("darker", -3.0), ("brighter", 2.0))
    }

    def checksum(before: float, after: float) -> str:
        with open_scene(paths[after]) as scene, open_dates(scene, paths[before]) as both:
            return both.pixels

    stacks = [(0.0, -3.0), (0.0, 2.0), (2.0, -3.0), (-3.0, 0.0)]
    assert len({checksum(*stack) for stack in stacks}) == len(stacks)


def test_another_grid_is_resampled_onto_the_part_that_is_mapped(tmp_path):
    after = write_truth(tmp_path / "after.tif")
    shifted = Affine(12, 0, GRID.c - 207, 0, -12, GRID.f + 203)
    before = write_truth(tmp_path / "before.tif", shifted, (140, 160))
    with open_scene(after, window=(20, 10, 64, 32)) as scene, open_dates(scene, before) as both:
        values, valid = both.read(0, 32)
    assert values.shape == (4, 32, 64) and valid.all()
    np.testing.assert_allclose(values[:2], values[2:], atol=0.05)


def test_a_product_goes_onto_the_grid_of_the_scene(tmp_path):
    product = fake_safe(tmp_path)
    grid = Affine(10, 0, 600_300, 0, -10, 4_399_000)
    after = write_truth(tmp_path / "S1_20190929.tif", grid, (64, 64))
    with open_scene(after) as scene, open_dates(scene, product) as both:
        values, valid = both.read(0, 64)
    assert valid.all()
    assert np.abs(values[:2] - values[2:]).mean() < 0.3


def test_where_one_date_lacks_values_nothing_is_mapped(tmp_path):
    holed = map_truth(GRID, SHAPE).astype(np.float32)
    holed[:, :, :60] = np.nan
    before = write_scene(tmp_path / "before.tif", holed)
    after = write_truth(tmp_path / "after.tif")
    with (
        open_scene(after) as scene,
        pytest.warns(FloraWarning, match="covers 50% of the scene"),
        open_dates(scene, before) as both,
    ):
        _, valid = both.read(0, SHAPE[0])
    assert not valid[:, :60].any() and valid[:, 60:].all()


def test_dates_in_names_must_be_in_order(tmp_path):
    after = write_truth(tmp_path / "S1_20190917.tif")
    for name in ("S1_20190917b.tif", "S1_20190929.tif"):
        before = write_truth(tmp_path / "in" / name)
        with (
            open_scene(after) as scene,
            pytest.raises(FloraError, match="expected before 2019"),
            open_dates(scene, before),
        ):
            pass


def test_another_orbit_is_said(tmp_path):
    stem = "S1A_IW_GRDH_1SDV_{}T060141_{}T060206_{:06d}_034BE1_2B2F"
    after = write_truth(tmp_path / f"{stem.format('20190917', '20190917', 29045)}.tif")
    same = write_truth(tmp_path / f"{stem.format('20190905', '20190905', 29045 - 175)}.tif")
    other = write_truth(tmp_path / f"{stem.format('20190910', '20190910', 28943)}.tif")
    with open_scene(after) as scene:
        with open_dates(scene, same):
            pass
        with pytest.warns(FloraWarning, match="relative orbit"), open_dates(scene, other):
            pass
    assert relative_orbit(same.name) == relative_orbit(after.name) == (29045 - 73) % 175 + 1


@pytest.mark.parametrize(
    ("unit", "absolute", "relative"),
    [
        ("A", 22812, 165),
        ("B", 27, 1),
        ("C", 638, None),  # while it was tested; its manifest says 15
        ("C", 1681, 110),
        ("C", 8018, 147),
        ("C", 8019, 46),  # moved by 73 orbits
        ("D", 2389, 73),
    ],
)
def test_each_satellite_counts_its_orbits_from_its_own_place(unit, absolute, relative):
    name = f"S1{unit}_IW_GRDH_1SDV_20260901T060141_20260901T060206_{absolute:06d}_034BE1_2B2F"
    assert relative_orbit(name) == relative


def test_a_name_says_the_orbit_of_its_manifest(flora_data):
    said = {
        manifest.parent.name: int(found[1])
        for manifest in flora_data.glob("fixtures/safe/*/manifest.safe")
        if (found := re.search(r'elativeOrbitNumber type="start">(\d+)<', manifest.read_text()))
    }
    known = {name: orbit for name in said if (orbit := relative_orbit(name))}
    assert known
    assert known == {name: said[name] for name in known}


def test_an_earlier_scene_elsewhere_or_of_other_bands_is_refused_by_its_own_name(tmp_path):
    after = write_truth(tmp_path / "after.tif")
    away = write_truth(tmp_path / "away.tif", Affine(10, 0, 700_000, 0, -10, 4_400_000))
    cross = write_scene(
        tmp_path / "cross.tif", map_truth(GRID, SHAPE).astype(np.float32), names=("HH", "HV")
    )
    for path, words in ((away, "does not overlap"), (cross, "described as HH, HV")):
        with (
            open_scene(after) as scene,
            pytest.raises(FloraError, match=words) as refused,
            open_dates(scene, path),
        ):
            pass
        assert refused.value.argument == "sar_before"


def test_several_dates_are_read_in_their_order(tmp_path):
    after = write_truth(tmp_path / "S1_20190917.tif")
    days = ("20190905", "20190812", "20190824")
    paths = [write_truth(tmp_path / f"S1_{day}.tif", shift=-n) for n, day in enumerate(days, 1)]
    with open_scene(after) as scene, open_dates(scene, paths) as dates:
        values, valid = dates.read(0, 16)
        with dates.reopen() as again:
            np.testing.assert_array_equal(again.read(0, 16)[0], values)
        assert dates.tags["FLORA_SAR_BEFORE_DATES"] == "2019-08-12 2019-08-24 2019-09-05"
        assert dates.tags["FLORA_SAR_BEFORE"].split()[0] == "S1_20190812.tif"
        assert dates.scaling.dates == 4 and dates.shown == 6
    expected = map_truth(GRID, SHAPE)[:, :16]
    shifted = [band - shift for shift in (2, 3, 1, 0) for band in expected]
    np.testing.assert_allclose(values, shifted, atol=1e-4)
    assert valid.all()


def test_a_date_named_twice_is_refused(tmp_path):
    after, before = (write_truth(tmp_path / f"{name}.tif") for name in ("after", "before"))
    twice = [before, tmp_path / "x" / ".." / "before.tif"]
    (tmp_path / "x").mkdir()
    with (
        open_scene(after) as scene,
        pytest.raises(FloraError, match="is named twice"),
        open_dates(scene, twice),
    ):
        pass


def test_otsu_takes_the_median_of_the_dates_before(tmp_path):
    """A field that was flooded, or wet, on one of three dates before is no river."""
    speckle = np.random.default_rng(0).normal(0, 1, (4, 2, 100, 150))
    *before, after = np.array([-10.0, -17.0])[:, None, None] + speckle
    for number, image in enumerate(before):
        image[:, :, :30] -= 10  # a river
        image[:, 30 * number : 30 * (number + 1), 40:60] -= 10  # each date another field
    after[:, :, :70] -= 10
    for number, image in enumerate((*before, after)):
        write_scene(tmp_path / f"{number}.tif", image.astype(np.float32))
    earlier = [tmp_path / f"{number}.tif" for number in range(3)]

    def found(dates):
        with open_scene(tmp_path / "3.tif") as scene, open_dates(scene, dates) as every:
            predict = SceneOtsu().of(every)
            values, valid = every.read(0, 100)
            sar = every.scaling.normalise(values, valid)
        both = predict(torch.from_numpy(sar)[None], torch.from_numpy(valid)[None], None)
        return both.water[0, 0].numpy()

    assert found(earlier)[:, 34:66].min() == 1 and found(earlier)[:, :26].max() == 0
    assert found(earlier[:1])[5:25, 44:56].max() == 0  # one date alone takes its field for a river


def test_otsu_of_two_dates_leaves_the_river_out(tmp_path):
    speckle = np.random.default_rng(0).normal(0, 1, (2, 2, 100, 150))
    before, after = np.array([-10.0, -17.0])[:, None, None] + speckle
    before[:, :, :30] -= 10  # a river
    after[:, :, :70] -= 10  # and its flood
    paths = [tmp_path / "before.tif", tmp_path / "after.tif"]
    for path, values in zip(paths, (before, after), strict=True):
        write_scene(path, values.astype(np.float32))
    with open_scene(paths[1]) as scene, open_dates(scene, paths[0]) as both:
        predict = SceneOtsu().of(both)
        values, valid = both.read(0, 100)
        sar = both.scaling.normalise(values, valid)
    found = predict(torch.from_numpy(sar)[None], torch.from_numpy(valid)[None], None).water[0, 0]
    wet = found.numpy().mean(axis=0)
    assert wet[34:66].min() == 1 and wet[:26].max() == 0 and wet[74:].max() == 0
    assert -10 < float(predict.tags["FLORA_OTSU_VH_CHANGE_BELOW_DB"]) < -3
