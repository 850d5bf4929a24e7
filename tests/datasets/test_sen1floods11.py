from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from flora.datasets import sen1floods11, sentinel
from flora.datasets.base import Window, crop_sample
from flora.datasets.crops import RandomCrops
from flora.datasets.rasters import read_grid
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.datasets.sentinel import cloud_mask
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.sensors import SENTINEL1
from tests.support.fake_data import (
    CHIPS,
    PIXEL,
    edge_offset,
    fake_scene,
    fake_sen1floods11,
    north_up,
    rewrite,
    same,
    write_raster,
)

HAND = Path("v1.1/data/flood_events/HandLabeled")
SPAIN = "Spain_7370579"


@pytest.fixture
def floods(tmp_path) -> Path:
    return fake_sen1floods11(tmp_path)


def layer(root: Path, name: str, chip: str = SPAIN) -> Path:
    return root / HAND / name / f"{chip}_{name}.tif"


# What a sample holds


def test_band_order_is_pinned(floods):
    """Band i of Sentinel-2 is i * 100, so red is 400, green 300, blue 200, near infrared 800."""
    rewrite(
        layer(floods, "S2Hand"),
        lambda old: np.ones_like(old) * np.arange(100, 1400, 100, np.int16)[:, None, None],
    )
    rewrite(
        layer(floods, "S1Hand"),
        lambda old: np.ones_like(old) * np.array([-7.5, -26.0], np.float32)[:, None, None],
    )
    sample = Sen1Floods11(floods, "test")[0]
    assert sample["meta"]["id"] == SPAIN
    assert sample["optical_valid"].all()
    np.testing.assert_allclose(sample["optical"][:, 0, 0], np.array([400, 300, 200]) / 3000)
    np.testing.assert_allclose(sample["index"][0], 400 / 1200, rtol=1e-6)
    np.testing.assert_allclose(sample["sar"][:, 9, 9], [1.0, -1.0], rtol=1e-6)


def test_stored_reflectance_above_32767_is_unsigned(floods):
    def brighten(old):
        old[:, 20, 20] = np.array([40_000], np.uint16).view(np.int16)
        return old

    rewrite(layer(floods, "S2Hand"), brighten)
    sample = Sen1Floods11(floods, "test")[0]
    # 4.0 is absurdly bright and counts as cloud; read as negative it would be nodata all the same,
    # so look at the helper, too.
    assert not sample["optical_valid"][20, 20]
    counts = sentinel.unsigned(np.array([-25_536], np.int16))
    assert counts[0] == 40_000


def test_nodata_of_each_layer(floods):
    def punch(old):
        old[3, 10, 10] = 0  # red alone
        old[:, 11, 11] = 0
        return old

    rewrite(layer(floods, "S2Hand"), punch)
    rewrite(layer(floods, "S1Hand"), lambda old: _one_band_nan(old, 12))
    sample = Sen1Floods11(floods, "test")[0]

    assert not sample["sar_valid"][:4, :4].any() and not sample["sar_valid"][12, 12]
    assert int((~sample["sar_valid"]).sum()) == 17
    assert (sample["sar"][:, ~sample["sar_valid"]] == 0).all()
    assert torch.isfinite(sample["sar"]).all()

    for row in (10, 11):
        assert not sample["optical_valid"][row, row]
        assert (sample["optical"][:, row, row] == 0).all() and sample["index"][0, row, row] == 0
    assert int((~sample["optical_valid"]).sum()) == 2

    # No radar and no label both mean: never counted.
    ignored = sample["water"] == 255
    assert ignored[:4, :8].all() and ignored[12, 12] and int(ignored.sum()) == 33


def _one_band_nan(values, row):
    values[1, row, row] = np.nan
    return values


def test_a_finite_nodata_value_is_nodata_too(floods):
    path = layer(floods, "S1Hand")
    with rasterio.open(path) as source:
        values, transform = source.read(), source.transform
    write_raster(path, np.nan_to_num(values, nan=-9999), -9999, transform)
    sample = Sen1Floods11(floods, "test")[0]
    assert int((~sample["sar_valid"]).sum()) == 16 and not sample["sar_valid"][:4, :4].any()


def test_label_minus_one_never_counts_and_the_rest_is_kept(floods):
    chip = CHIPS["test"].index(SPAIN)
    water = Sen1Floods11(floods, "test")[chip]["water"]
    with rasterio.open(layer(floods, "LabelHand")) as source:
        stored = torch.from_numpy(source.read(1).astype(np.int64))
    assert (stored == -1).any() and (water[stored == -1] == 255).all()
    kept = (water != 255) & (stored != -1)
    assert torch.equal(water[kept], stored[kept])
    assert set(water.unique().tolist()) == {0, 1, 255}


def test_cloud_is_invalid_in_the_optical_image_only(floods):
    def cover(old):
        old[:, 30:, :] = np.array(
            [4000, 4000, 4000, 4100, 4200, 4300, 4300, 4400, 4400, 2000, 100, 3000, 2000]
        )[:, None, None]
        return old

    clear = Sen1Floods11(floods, "test")[0]
    assert clear["optical_valid"].all()
    rewrite(layer(floods, "S2Hand"), cover)
    cloudy = Sen1Floods11(floods, "test")[0]
    assert not cloudy["optical_valid"][30:].any() and cloudy["optical_valid"][:30].all()
    assert torch.equal(cloudy["water"], clear["water"])
    assert torch.equal(cloudy["sar_valid"], clear["sar_valid"])


def test_cloud_mask_by_hand():
    """Blue .3 scores (.3 - .1) / .4 = .5; each other cue is set to 1 and then lowered in turn."""
    cloud = {"B1": 0.4, "B2": 0.3, "B3": 0.3, "B4": 0.3, "B8": 0.4, "B10": 0.0, "B11": 0.3}
    changes = {
        "dark blue": {"B2": 0.15},  # (.15 - .1) / .4 = .125
        "dark aerosol": {"B1": 0.13},  # (.13 - .1) / .2 = .15
        "dry": {"B8": 0.2},  # NDMI -.2
        "snow": {"B11": 0.02},  # NDSI .875
    }

    def pixel(values):
        bands = np.zeros((13, 1, 1), np.float32)
        for name, value in values.items():
            bands[sentinel.SENTINEL2_BANDS.index(name)] = value
        return bands

    assert cloud_mask(pixel(cloud))[0, 0]
    assert not cloud_mask(pixel(cloud), threshold=0.51)[0, 0]
    for cue, change in changes.items():
        assert not cloud_mask(pixel(cloud | change))[0, 0], cue
    with pytest.raises(FloraError, match="13"):
        cloud_mask(np.zeros((3, 4, 4), np.float32))


def test_cloud_mask_finds_its_bands_by_name():
    bands = np.random.default_rng(0).uniform(0.05, 0.6, (13, 40, 40)).astype(np.float32)
    expected = cloud_mask(bands)
    assert 0 < expected.mean() < 1
    names = sentinel.SENTINEL2_BANDS[::-1]
    np.testing.assert_array_equal(cloud_mask(bands[::-1], bands=names), expected)
    used = ("B11", "B1", "B2", "B3", "B4", "B8", "B10")
    subset = bands[[sentinel.SENTINEL2_BANDS.index(name) for name in used]]
    np.testing.assert_array_equal(cloud_mask(subset, bands=used), expected)
    assert (cloud_mask(subset, bands=used[::-1]) != expected).any()


def test_meta_and_shape(floods):
    dataset = Sen1Floods11(floods, "bolivia")
    meta = dataset[0]["meta"]
    assert meta["id"] == "Bolivia_103757" and meta["place"] == "Bolivia"
    assert meta["date"] == "2018-02-15" and meta["crs"] == "EPSG:4326"
    assert meta["transform"] == pytest.approx((PIXEL, 0, -0.78, 0, -PIXEL, 38.12))
    assert dataset.shape(0) == (48, 48)
    places = {sample["meta"]["place"] for sample in Sen1Floods11(floods, "train")}
    assert places == {"Ghana", "Sri-Lanka", "USA"}


# Layout and pairing


@pytest.mark.parametrize("mirror", [False, True])
def test_both_roots_and_the_mirrors_folder_names(tmp_path, mirror):
    root = fake_sen1floods11(tmp_path, mirror=mirror)
    outer, inner = Sen1Floods11(root, "train"), Sen1Floods11(root / "v1.1", "train")
    assert outer.manifest() == inner.manifest() == list(CHIPS["train"])
    assert same(outer[1], inner[1])


def test_chips_pair_by_id_not_by_order(floods):
    """A stray file in one folder would shift every pair of two sorted listings."""
    before = list(Sen1Floods11(floods, "train"))
    shutil.copy(layer(floods, "S1Hand"), layer(floods, "S1Hand", "Aaa_1"))
    after = list(Sen1Floods11(floods, "train"))
    assert all(same(first, second) for first, second in zip(before, after, strict=True))


def test_missing_chips_are_counted_and_may_be_left_out(floods):
    for name in ("S1Hand", "S2Hand", "LabelHand"):
        layer(floods, name, "USA_9").unlink()
    with pytest.raises(FloraError, match=r"USA_9_S1Hand.tif is missing, one of 3 .*require_all"):
        Sen1Floods11(floods, "train")
    present = Sen1Floods11(floods, "train", require_all=False)
    assert present.manifest() == ["Ghana_103272", "Sri-Lanka_12348"]
    assert Sen1Floods11(floods, "train", exclude=("USA_9",)).manifest() == present.manifest()


@pytest.mark.parametrize("name", ["S1Hand", "S2Hand", "LabelHand"])
def test_a_half_present_chip_is_always_an_error(floods, name):
    layer(floods, name, "USA_9").unlink()
    with pytest.raises(FloraError, match=f"USA_9_{name}.tif is missing"):
        Sen1Floods11(floods, "train", require_all=False)


def test_an_empty_result_is_an_error(floods):
    for path in (floods / HAND).rglob("Bolivia*"):
        path.unlink()
    with pytest.raises(FloraError, match="none of the 1 chips"):
        Sen1Floods11(floods, "bolivia", require_all=False)


def test_wrong_roots_and_splits_are_refused(floods, tmp_path):
    with pytest.raises(FloraError, match="no split 'dev'; choose train, valid, test, bolivia"):
        Sen1Floods11(floods, "dev")
    with pytest.raises(FloraError, match="no folder"):
        Sen1Floods11(tmp_path / "nowhere", "test")
    with pytest.raises(FloraError, match="no split list"):
        Sen1Floods11(floods / "v1.1" / "data", "test")
    lists = floods / "v1.1/splits/flood_handlabeled/flood_test_data.csv"
    lists.write_text("Ghana_1_S1Hand.tif,Ghana_2_LabelHand.tif\n")
    with pytest.raises(FloraError, match="not a pair"):
        Sen1Floods11(floods, "test")


# Windows and alignment


def test_a_window_equals_the_crop_of_the_whole(floods):
    dataset = Sen1Floods11(floods, "test")
    whole = dataset[0]
    for window in (Window(0, 0, 8, 8), Window(3, 30, 20, 18), Window(0, 0, 48, 48)):
        assert same(dataset.read(0, window), crop_sample(whole, window))
    for window in (Window(40, 0, 16, 16), Window(0, -1, 16, 16)):
        with pytest.raises(FloraError, match="leaves"):
            dataset.read(0, window)


def test_crops_of_files_and_of_memory_are_the_same(floods):
    direct = RandomCrops(Sen1Floods11(floods, "train"), 16, 9, seed=5)
    kept = RandomCrops(InMemory(Sen1Floods11(floods, "train")), 16, 9, seed=5)
    assert all(same(direct[number], kept[number]) for number in range(9))
    with pytest.raises(FloraError, match="at most 48"):
        RandomCrops(Sen1Floods11(floods, "train"), 64, 1, seed=0)


@pytest.mark.parametrize("key", ["sar", "optical", "index"])
def test_layers_lie_on_the_label_and_a_shift_by_a_pixel_is_noticed(floods, key):
    sample = RandomCrops(Sen1Floods11(floods, "test"), 40, 1, seed=0)[0]
    assert edge_offset(sample, key) == 0
    sample[key] = sample[key].roll(1, -1)
    assert edge_offset(sample, key) == -1


# Bad files


def linear_power(values):
    return np.float32(10) ** (values / 10)


def infinite(values):
    values[0, 5, 5] = -np.inf
    return values


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("S1Hand", lambda old: old[:1], "1 bands: expected 2, VV, VH"),
        ("S2Hand", lambda old: old[:12], "12 bands: expected 13"),
        ("LabelHand", lambda old: old.repeat(2, axis=0), "2 bands: expected 1"),
        ("S1Hand", linear_power, r"expected dB; convert with 10\*log10"),
        ("S1Hand", infinite, "infinite values: expected dB"),
        ("S1Hand", lambda old: old * np.nan, "nodata only"),
        ("LabelHand", lambda old: old + 2, "holds label 3|holds label 2"),
        ("S2Hand", lambda old: old[:, :40], "different grids"),
        ("LabelHand", lambda old: old[:, :, 1:], "different grids"),
    ],
)
def test_bad_chips_are_refused(floods, name, change, message):
    dataset = Sen1Floods11(floods, "test")
    dataset[0]
    rewrite(layer(floods, name), change)
    with pytest.raises(FloraError, match=message):
        dataset[0]


@pytest.mark.parametrize("change", [linear_power, lambda old: old * np.nan])
def test_a_window_of_a_bad_chip_is_refused_too(floods, change):
    rewrite(layer(floods, "S1Hand"), change)
    with pytest.raises(FloraError, match=r"linear power|nodata only"):
        Sen1Floods11(floods, "test").read(0, Window(8, 8, 16, 16))


def test_an_odd_window_of_a_good_chip_is_served(floods):
    def city(old):
        old[:, 20:30, 20:30] = 3.0
        return old

    rewrite(layer(floods, "S1Hand"), city)
    dataset = Sen1Floods11(floods, "test")
    assert dataset.read(0, Window(20, 20, 8, 8))["sar_valid"].all()
    assert not dataset.read(0, Window(0, 0, 4, 4))["sar_valid"].any()


@pytest.mark.parametrize("name", ["S1Hand", "S2Hand", "LabelHand"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_unreadable_files_are_refused(floods, name, damage):
    path = layer(floods, name)
    content = {"truncated": path.read_bytes()[:600], "text": b"not found", "empty": b""}
    path.write_bytes(content[damage])
    with pytest.raises(FloraError, match=path.name):
        Sen1Floods11(floods, "test")[0]


def test_grids_may_differ_by_float_noise_but_not_by_a_tenth_of_a_pixel(floods):
    path = layer(floods, "S2Hand")
    optical = fake_scene(0, 48)["optical"]
    write_raster(path, optical, 0, north_up(-0.78, 38.12 + 1e-12, PIXEL * (1 + 1e-10)))
    Sen1Floods11(floods, "test")[0]
    write_raster(path, optical, 0, north_up(-0.78, 38.12 + PIXEL / 10))
    with pytest.raises(FloraError, match="different grids"):
        Sen1Floods11(floods, "test")[0]
    write_raster(path, optical, 0, crs="EPSG:32630")
    with pytest.raises(FloraError, match="different grids"):
        Sen1Floods11(floods, "test")[0]


# Countries held out


def test_a_country_is_held_out_of_training_and_choosing(floods):
    """Fake Ghana has chips in the train, valid and test lists."""
    ids = {
        split: Sen1Floods11(floods, split).manifest()
        for split in ("train-without-Ghana", "valid-without-Ghana", "only-Ghana", "train", "valid")
    }
    assert ids["only-Ghana"] == ["Ghana_103272", "Ghana_5079", "Ghana_313799"]
    assert ids["train-without-Ghana"] == ["Sri-Lanka_12348", "USA_9"]
    assert ids["valid-without-Ghana"] == ["Mekong_11"]
    for part in ("train", "valid"):
        assert set(ids[part]) == set(ids[f"{part}-without-Ghana"]) | (
            set(ids[part]) & set(ids["only-Ghana"])
        )
    assert Sen1Floods11(floods, "only-Sri-Lanka")[0]["meta"]["split"] == "only-Sri-Lanka"
    official = Sen1Floods11(floods, "bolivia").manifest()
    assert Sen1Floods11(floods, "only-Bolivia").manifest() == official


def test_a_country_is_called_as_in_the_files(floods):
    with pytest.raises(FloraError, match=r"no split 'only-Cambodia'.*Mekong"):
        Sen1Floods11(floods, "only-Cambodia")


# Chips that touch

BLOCKS = {
    "train": ("Ghana_1", "Ghana_2", "Ghana_3", "USA_9"),
    "valid": ("Ghana_4", "USA_10"),
    "test": ("Ghana_5", "Ghana_6", "USA_11", "USA_12"),
    "bolivia": ("Bolivia_1",),
}
# Ghana 1, 5 and 6 are a row that ends at a corner; USA 10 and 11 touch; the others stand alone.
PLACES = {
    "Ghana_1": (0, 0), "Ghana_5": (1, 0), "Ghana_6": (2, 1), "Ghana_2": (4, 0), "Ghana_3": (6, 0),
    "Ghana_4": (8, 0), "USA_9": (20, 20), "USA_10": (24, 20), "USA_11": (24, 21),
    "USA_12": (30, 20), "Bolivia_1": (50, 50),
}  # fmt: skip


def touch(one: Sen1Floods11, first: int, other: Sen1Floods11, second: int) -> bool:
    a, b = (
        read_grid(chips.path(index, "S1Hand")).bounds
        for chips, index in ((one, first), (other, second))
    )
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) < PIXEL


def touching_pairs(root: Path, **options) -> int:
    """Pairs of chips that touch and are in two splits."""
    opened = [Sen1Floods11(root, split, **options) for split in Sen1Floods11.splits]
    return sum(
        touch(one, first, other, second)
        for number, one in enumerate(opened)
        for other in opened[number + 1 :]
        for first in range(len(one))
        for second in range(len(other))
    )


def test_no_chip_of_a_blocked_split_touches_one_of_another(tmp_path):
    floods = fake_sen1floods11(tmp_path, size=16, chips=BLOCKS, places=PLACES)
    assert touching_pairs(floods) == 2
    assert touching_pairs(floods, scheme="blocked") == 0
    split = {
        chip.split()[0]: name
        for name in Sen1Floods11.splits
        for chip in Sen1Floods11(floods, name, scheme="blocked").manifest()
    }
    official = {chip: name for name, chips in BLOCKS.items() for chip in chips}
    assert split.keys() == official.keys()
    moved = {chip for chip in official if split[chip] != official[chip]}
    assert moved <= {"Ghana_1", "Ghana_5", "Ghana_6", "USA_10", "USA_11"}
    assert split["Ghana_1"] == split["Ghana_5"] == split["Ghana_6"]
    blocked = Sen1Floods11(floods, split["Ghana_6"], scheme="blocked")
    assert "Ghana_6 in block Ghana_1" in blocked.manifest()
    assert blocked[0]["meta"]["id"] == blocked.manifest()[0].split()[0]
    # A chip that is left out moves no other.
    rest = Sen1Floods11(floods, split["Ghana_6"], scheme="blocked", exclude=["Ghana_5"])
    assert rest.manifest() == [c for c in blocked.manifest() if not c.startswith("Ghana_5 ")]
    held = Sen1Floods11(floods, "train-without-Ghana", scheme="blocked")
    assert {chip.split("_")[0] for chip in held.manifest()} == {"USA"}


def test_blocks_need_every_chip(tmp_path):
    floods = fake_sen1floods11(tmp_path, size=16, chips=BLOCKS, places=PLACES)
    for name in ("S1Hand", "S2Hand", "LabelHand"):
        layer(floods, name, "USA_12").unlink()
    with pytest.raises(FloraError, match=r"all splits of 11 chips: .*USA_12_S1Hand.tif is missing"):
        Sen1Floods11(floods, "train", scheme="blocked")
    assert touching_pairs(floods, scheme="blocked", require_all=False) == 0
    with pytest.raises(FloraError, match="no scheme 'random'; choose official or blocked"):
        Sen1Floods11(floods, "train", scheme="random")


def test_a_chip_known_to_be_damaged_is_left_out_unless_asked_for(tmp_path):
    floods = fake_sen1floods11(tmp_path, chips={"test": ("Paraguay_34417", "Spain_1")})
    assert Sen1Floods11(floods, "test").manifest() == ["Spain_1"]
    assert len(Sen1Floods11(floods, "test", include_damaged=True)) == 2


def test_real_countries_held_out(flora_data):
    """Of 446 chips, each country's own and the others' training and validation chips."""
    root = flora_data / "sen1floods11" / "v1.1"

    def split_chips(root: Path, split: str) -> list[str]:
        return sen1floods11._split_chips(partial(sen1floods11._listed_chips, root), split)

    only = {place: split_chips(root, f"only-{place}") for place in Sen1Floods11.dates}
    assert sum(len(chips) for chips in only.values()) == 446
    assert len(only["Bolivia"]) == 15
    for place, chips in only.items():
        parts = [split_chips(root, f"{part}-without-{place}") for part in ("train", "valid")]
        trained = {chip for part in parts for chip in part}
        assert not trained & set(chips) and not trained & set(only["Bolivia"])
        assert place not in {chip.split("_")[0] for chip in trained}
        assert len({chip.split("_")[0] for chip in trained}) == (10 if place == "Bolivia" else 9)
    dataset = Sen1Floods11(flora_data / "sen1floods11", "only-Spain", require_all=False)
    assert dataset.manifest() == [SPAIN]


# The real files


def test_real_sen1floods11_chip(flora_data):
    root = flora_data / "sen1floods11"
    dataset = Sen1Floods11(root, "test", require_all=False)
    assert dataset.manifest() == [SPAIN] and dataset.shape(0) == (512, 512)
    sample = dataset[0]
    assert sample["meta"]["place"] == "Spain" and sample["meta"]["date"] == "2019-09-17"
    counts = {code: int((sample["water"] == code).sum()) for code in (0, 1, 255)}
    assert counts == {0: 192_010, 1: 70_035, 255: 99}
    assert sample["sar_valid"].all()
    restored = SENTINEL1.restore(sample["sar"].numpy())
    assert restored.mean((1, 2)) == pytest.approx([-11.36, -19.11], abs=0.02)
    # The image is cloudless: what the cloud mask takes are bright roofs.
    assert 0.95 < float(sample["optical_valid"].float().mean()) < 1
    # Water is darker than land at both polarisations and has the lower NDVI.
    water, dry = sample["water"] == 1, sample["water"] == 0
    assert (sample["sar"][:, water].mean(1) < sample["sar"][:, dry].mean(1) - 0.5).all()
    assert sample["index"][0, water].mean() < sample["index"][0, dry].mean()
    window = Window(100, 200, 64, 96)
    assert same(dataset.read(0, window), crop_sample(sample, window))


def test_real_sen1floods11_lists(flora_data):
    root = flora_data / "sen1floods11"
    sizes = {"train": 252, "valid": 89, "test": 90, "bolivia": 15}
    ids = {
        split: sen1floods11._split_chips(partial(sen1floods11._listed_chips, root / "v1.1"), split)
        for split in sizes
    }
    assert {split: len(chips) for split, chips in ids.items()} == sizes
    everything = [chip for chips in ids.values() for chip in chips]
    assert len(set(everything)) == 446
    assert {chip.split("_")[0] for chip in everything} == set(Sen1Floods11.dates)
    with pytest.raises(FloraError, match=r"one of 264 files.*require_all=False"):
        Sen1Floods11(root, "test")
    with pytest.raises(FloraError, match="none of the 15"):
        Sen1Floods11(root, "bolivia", require_all=False)
