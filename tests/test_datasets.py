from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from make_fake_data import (
    CHIPS,
    PIXEL,
    fake_ombria,
    fake_ombria_2021,
    fake_scene,
    fake_sen1floods11,
    north_up,
    write_picture,
    write_raster,
)
from PIL import Image

from flora.datasets import DATASETS, open_dataset, sen1floods11
from flora.datasets.base import InMemory, RandomCrops, Sample, Window, crop_sample
from flora.datasets.ombria import Ombria
from flora.datasets.ombria import cloud_mask as ombria_cloud_mask
from flora.datasets.sen1floods11 import Sen1Floods11, cloud_mask
from flora.errors import FloraError
from flora.sensors import OMBRIA_S1, SENTINEL1

HAND = Path("v1.1/data/flood_events/HandLabeled")
SPAIN = "Spain_7370579"


@pytest.fixture
def floods(tmp_path) -> Path:
    return fake_sen1floods11(tmp_path)


@pytest.fixture
def pictures(tmp_path) -> Path:
    return fake_ombria(tmp_path)


def layer(root: Path, name: str, chip: str = SPAIN) -> Path:
    return root / HAND / name / f"{chip}_{name}.tif"


def rewrite(path: Path, change) -> None:
    """Replace a raster by `change` of its values, on its own grid."""
    with rasterio.open(path) as source:
        values, nodata, transform = source.read(), source.nodata, source.transform
    path.unlink()
    write_raster(path, change(values), nodata, transform)


def same(first: Sample, second: Sample) -> bool:
    tensors = [key for key, value in first.items() if isinstance(value, torch.Tensor)]
    return first["meta"] == second["meta"] and all(
        torch.equal(first[key], second[key]) for key in tensors
    )


# The factory


def test_open_dataset_names_what_it_knows(floods):
    assert isinstance(open_dataset("sen1floods11", floods, "test"), Sen1Floods11)
    with pytest.raises(FloraError, match=r"'floods'.*ombria, sen1floods11, simulated"):
        open_dataset("floods", floods, "test")
    with pytest.raises(FloraError, match="pass the folder"):
        open_dataset("ombria", None, "test")
    with pytest.raises(FloraError, match=r"no option sar_dates; it takes require_all, exclude"):
        open_dataset("sen1floods11", floods, "test", sar_dates=("before",))


def test_open_dataset_simulated_needs_no_root(tmp_path):
    pytest.importorskip("flora.datasets.simulated")
    dataset = open_dataset("simulated", None, "train", count=1, size=64, seed=1)
    assert dataset[0]["water"].shape == (64, 64)
    with pytest.raises(FloraError, match="leave out root"):
        open_dataset("simulated", tmp_path, "train")


def test_every_dataset_declares_itself():
    assert set(DATASETS) == {"ombria", "sen1floods11", "simulated"}
    for dataset in (Ombria, Sen1Floods11):
        assert dataset.name in DATASETS and "test" in dataset.splits
        assert dataset.citation and dataset.urls and dataset.label_codes


# Sen1Floods11: what a sample holds


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
    counts = sen1floods11._unsigned(np.array([-25_536], np.int16))
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
            bands[sen1floods11.SENTINEL2_BANDS.index(name)] = value
        return bands

    assert cloud_mask(pixel(cloud))[0, 0]
    assert not cloud_mask(pixel(cloud), threshold=0.51)[0, 0]
    for cue, change in changes.items():
        assert not cloud_mask(pixel(cloud | change))[0, 0], cue
    with pytest.raises(FloraError, match="13"):
        cloud_mask(np.zeros((3, 4, 4), np.float32))


def test_meta_and_shape(floods):
    dataset = Sen1Floods11(floods, "bolivia")
    meta = dataset[0]["meta"]
    assert meta["id"] == "Bolivia_103757" and meta["place"] == "Bolivia"
    assert meta["date"] == "2018-02-15" and meta["crs"] == "EPSG:4326"
    assert meta["transform"] == pytest.approx((PIXEL, 0, -0.78, 0, -PIXEL, 38.12))
    assert dataset.shape(0) == (48, 48)
    places = {sample["meta"]["place"] for sample in Sen1Floods11(floods, "train")}
    assert places == {"Ghana", "Sri-Lanka", "USA"}


# Sen1Floods11: layout and pairing


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


# Sen1Floods11: windows and alignment


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


def edge_offset(sample: Sample, key: str) -> int:
    """Columns by which a layer lies beside the label: where dark-equals-water agrees best."""
    water = (sample["water"] == 1).float()
    dark = sample[key][0] if key == "index" else sample[key].mean(0)
    dark = (dark < dark.mean()).float()
    scores = {
        shift: float((water == dark.roll(shift, -1)).float().mean()) for shift in range(-3, 4)
    }
    return max(scores, key=lambda shift: scores[shift])


@pytest.mark.parametrize("key", ["sar", "optical", "index"])
def test_layers_lie_on_the_label_and_a_shift_by_a_pixel_is_noticed(floods, key):
    sample = RandomCrops(Sen1Floods11(floods, "test"), 40, 1, seed=0)[0]
    assert edge_offset(sample, key) == 0
    sample[key] = sample[key].roll(1, -1)
    assert edge_offset(sample, key) == -1


# Sen1Floods11: bad files


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


# OMBRIA: what a sample holds


def test_ombria_band_order_is_pinned(pictures):
    """B11, B8, B3 are 30, 40, 60: NDWI is (60 - 40) / 100, MNDWI (60 - 30) / 90."""
    path = pictures / "OmbriaS2/test/AFTER/S2_after_0013.png"
    write_picture(path, np.ones((48, 48, 1), np.uint8) * np.array([30, 40, 60], np.uint8))
    write_picture(
        pictures / "OmbriaS1/test/AFTER/S1_after_0013.png", np.full((48, 48), 255, np.uint8)
    )
    sample = Ombria(pictures, "test")[0]
    np.testing.assert_allclose(sample["optical"][:, 9, 9], np.array([30, 40, 60]) / 255, rtol=1e-6)
    np.testing.assert_allclose(sample["index"], 0.2, rtol=1e-5)
    expected = (255 - OMBRIA_S1.mean[0]) / OMBRIA_S1.std[0]
    np.testing.assert_allclose(sample["sar"], expected, rtol=1e-6)
    modified = Ombria(pictures, "test", index="MNDWI")
    np.testing.assert_allclose(modified[0]["index"], 1 / 3, rtol=1e-5)
    assert modified.optical_scaling.index_name == "MNDWI"


def test_ombria_outside_the_footprint_nothing_counts(pictures):
    sample = Ombria(pictures, "test")[0]
    for key in ("sar_valid", "optical_valid", "before_valid"):
        assert not sample[key][:2].any() and sample[key][2:].all()
    assert (sample["water"][:2] == 255).all()
    assert set(sample["water"][2:].unique().tolist()) == {0, 1}
    assert (sample["sar"][:, :2] == 0).all()  # white on disk


def test_ombria_black_at_one_date_only_keeps_radar_and_label(pictures):
    path = pictures / "OmbriaS2/test/AFTER/S2_after_0013.png"
    counts = np.asarray(Image.open(path)).copy()
    counts[10:20] = 0
    write_picture(path, counts)
    sample = Ombria(pictures, "test")[0]
    assert not sample["optical_valid"][10:20].any() and sample["before_valid"][10:20].all()
    assert sample["sar_valid"][10:20].all() and (sample["water"][10:20] != 255).all()


def test_ombria_dates(pictures):
    after, before, both = (
        Ombria(pictures, "test", sar_dates=dates)
        for dates in (("after",), ("before",), ("before", "after"))
    )
    assert not torch.equal(after[0]["sar"], before[0]["sar"])
    stacked = torch.cat([before[0]["sar"], after[0]["sar"]])
    assert torch.equal(both[0]["sar"], stacked)
    assert both.sar_scaling.bands == ("VV", "VV") and after.sar_scaling.bands == ("VV",)
    assert not torch.equal(after[0]["before"], after[0]["optical"])
    for wrong in ((), ("after", "before"), ("during",)):
        with pytest.raises(FloraError, match="sar_dates"):
            Ombria(pictures, "test", sar_dates=wrong)
    with pytest.raises(FloraError, match="NDVI"):
        Ombria(pictures, "test", index="NDVI")


def test_ombria_cloud_mask_knows_cloud_from_desert_water_and_specks():
    counts = np.ones((3, 40, 40), np.uint8) * np.array([40, 60, 40], np.uint8)[:, None, None]
    counts[:, :10, :10] = np.array([150, 190, 190])[:, None, None]  # cloud
    counts[:, 4:6, 4:6] = 3  # its core, whose counts wrapped around
    counts[:, 20:30, :10] = np.array([190, 140, 95])[:, None, None]  # desert
    counts[:, 20:30, 20:30] = np.array([20, 50, 150])[:, None, None]  # turbid water
    counts[:, 5, 30] = 200  # a roof
    cloudy = ombria_cloud_mask(counts)
    assert cloudy[1:9, 1:9].all()
    cloudy[:10, :10] = False
    assert not cloudy.any()


@pytest.mark.parametrize("kind", ["1", "P", "RGB"])
def test_ombria_reads_grey_however_it_is_stored(pictures, kind):
    """The publisher's masks are one-bit or palette pictures; radar may be three equal channels."""
    expected = Ombria(pictures, "test")[0]
    folder, name = ("MASK", "mask") if kind == "1" else ("AFTER", "after")
    path = pictures / f"OmbriaS1/test/{folder}/S1_{name}_0013.png"
    Image.open(path).convert(kind).save(path)
    assert Image.open(path).mode == kind
    assert same(Ombria(pictures, "test")[0], expected)


# OMBRIA: layout, pairing, splits


def test_ombria_splits_partition_the_official_train(pictures):
    ids = {split: Ombria(pictures, split).manifest() for split in Ombria.splits[:4]}
    assert ids["valid"] == ["0040", "0400"] and ids["test"] == ["0013", "0613"]
    assert sorted(ids["train"] + ids["valid"]) == ids["train+valid"]
    assert not set(ids["train"]) & set(ids["valid"])
    places = {
        split: {sample["meta"]["place"] for sample in Ombria(pictures, split)}
        for split in ("train", "valid")
    }
    assert not places["train"] & places["valid"]
    # One ground imaged twice is one place: chips 120 and 300.
    assert "chips 106-132, 258-312" in places["train"] and len(places["train"]) == 3


@pytest.mark.parametrize("below", ["", "2021", "2021/ALBANIA"])
def test_ombria_2021_from_any_of_three_roots(tmp_path, below):
    dataset = Ombria(fake_ombria_2021(tmp_path) / below, "2021")
    albania = ["ALBANIA_1", "ALBANIA_2", "ALBANIA_10"]
    assert dataset.manifest() == (albania if "ALB" in below else [*albania, "TIMOR_3"])
    sample = dataset[0]
    assert sample["meta"]["place"] == "ALBANIA" and sample["meta"]["split"] == "2021"
    assert (sample["water"] == 1).any()


def test_ombria_2021_pairs_by_number_whatever_the_order_of_names(tmp_path):
    """imafter_10 sorts before imafter_2; each flood must still lie where its radar is dark."""
    for sample in Ombria(fake_ombria_2021(tmp_path), "2021"):
        flood = sample["water"] == 1
        darkness = sample["sar"][0][sample["water"] == 0].mean() - sample["sar"][0][flood].mean()
        assert darkness > 1.5


def test_ombria_mask_of_either_sensor_will_do(tmp_path):
    root = fake_ombria_2021(tmp_path)
    expected = Ombria(root, "2021")[1]
    (root / "2021/ALBANIA/Sentinel1/MASK/gt_2.png").unlink()
    assert same(Ombria(root, "2021")[1], expected)
    (root / "2021/ALBANIA/Sentinel2/MASK/gt_2.png").unlink()
    with pytest.raises(FloraError, match=r"chip 2 has no picture in .*MASK"):
        Ombria(root, "2021")


@pytest.mark.parametrize("sensor", ["S1", "S2"])
@pytest.mark.parametrize("date", ["before", "after"])
def test_ombria_unpaired_pictures_are_refused(pictures, sensor, date):
    (pictures / f"Ombria{sensor}/train/{date.upper()}/{sensor}_{date}_0005.png").unlink()
    with pytest.raises(FloraError, match=f"chip 5 has no picture in .*{date.upper()}, one of 1"):
        Ombria(pictures, "train")


def test_ombria_wrong_roots_splits_and_names_are_refused(pictures, tmp_path):
    with pytest.raises(FloraError, match="no split 'dev'"):
        Ombria(pictures, "dev")
    with pytest.raises(FloraError, match="no folder"):
        Ombria(pictures / "OmbriaS1", "train")
    with pytest.raises(FloraError, match="Sentinel1"):
        Ombria(pictures, "2021")
    write_picture(pictures / "OmbriaS1/test/AFTER/readme.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(FloraError, match="no chip number"):
        Ombria(pictures, "test")


def test_ombria_window_equals_crop_and_memory_equals_files(pictures):
    dataset = Ombria(pictures, "train")
    window = Window(0, 7, 20, 16)
    assert same(dataset.read(1, window), crop_sample(dataset[1], window))
    assert dataset.shape(1) == (48, 48)
    direct = RandomCrops(dataset, 16, 6, seed=2)
    kept = RandomCrops(InMemory(dataset), 16, 6, seed=2)
    assert all(same(direct[number], kept[number]) for number in range(6))


# OMBRIA: bad files

SMALL = np.zeros((40, 48), np.uint8)
COLOUR = np.random.default_rng(0).integers(1, 255, (48, 48, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("OmbriaS1/test/AFTER/S1_after_0013.png", COLOUR, "colour picture"),
        ("OmbriaS2/test/BEFORE/S2_before_0013.png", COLOUR[..., 0], "grey picture"),
        ("OmbriaS1/test/MASK/S1_mask_0013.png", COLOUR[..., 0], r"expected 0 \(dry\) and 255"),
        ("OmbriaS1/test/MASK/S1_mask_0013.png", SMALL, "must have one size"),
        ("OmbriaS1/test/AFTER/S1_after_0013.png", SMALL, "must have one size"),
        ("OmbriaS1/test/AFTER/S1_after_0013.png", np.zeros((48, 48), np.uint16), "8-bit"),
    ],
)
def test_ombria_bad_pictures_are_refused(pictures, file, values, message):
    write_picture(pictures / file, values)
    with pytest.raises(FloraError, match=message):
        Ombria(pictures, "test")[0]


@pytest.mark.parametrize("sensor", ["S1", "S2"])
@pytest.mark.parametrize("keep", [0, 20, 60, 300])
def test_ombria_unreadable_pictures_are_refused(pictures, sensor, keep):
    path = pictures / f"Ombria{sensor}/test/AFTER/{sensor}_after_0013.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FloraError, match=path.name):
        Ombria(pictures, "test")[0]


def test_ombria_a_chip_without_any_data_is_refused(pictures):
    for date in ("before", "after"):
        path = pictures / f"OmbriaS2/test/{date.upper()}/S2_{date}_0013.png"
        write_picture(path, np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(FloraError, match="black at both dates"):
        Ombria(pictures, "test")[0]


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
    ids = {split: sen1floods11._split_chips(root / "v1.1", split) for split in sizes}
    assert {split: len(chips) for split, chips in ids.items()} == sizes
    everything = [chip for chips in ids.values() for chip in chips]
    assert len(set(everything)) == 446
    assert {chip.split("_")[0] for chip in everything} == set(Sen1Floods11.dates)
    with pytest.raises(FloraError, match=r"one of 267 files.*require_all=False"):
        Sen1Floods11(root, "test")
    with pytest.raises(FloraError, match="none of the 15"):
        Sen1Floods11(root, "bolivia", require_all=False)


def test_real_ombria_splits(flora_data):
    ids = {split: Ombria(flora_data / "ombria", split).manifest() for split in Ombria.splits[:4]}
    sizes = {split: len(chips) for split, chips in ids.items()}
    assert sizes == {"train": 545, "valid": 79, "test": 70, "train+valid": 624}
    assert not set(ids["train+valid"]) & set(ids["test"])
    dataset = Ombria(flora_data / "ombria", "train+valid")
    assert "unlisted" not in {chip.place for chip in dataset._chips}


def test_real_ombria_test_chips(flora_data):
    counts = np.zeros(3, np.int64)
    darker, cloud, pixels = 0, 0, 0
    for sample in Ombria(flora_data / "ombria", "test"):
        water, dry, ignored = (sample["water"] == code for code in (1, 0, 255))
        assert torch.equal(ignored, ~sample["sar_valid"])
        counts += [int(part.sum()) for part in (water, dry, ignored)]
        darker += int(sample["sar"][0, water].mean() < sample["sar"][0, dry].mean())
        cloud += int((sample["sar_valid"] & ~sample["optical_valid"]).sum())
        pixels += water.numel()
    # Ignored: 0.52 %, as the class says. The masks hold 1,530,822 water pixels, 140 more.
    assert counts.tolist() == [1_530_682, 3_032_940, 23_898]
    assert cloud / pixels == pytest.approx(0.0551, abs=1e-4)
    assert darker >= 66  # pairs by chance would be darker in half


def test_real_ombria_pairs(flora_data):
    """The radar images of one ground agree between dates; those of two chips do not.

    And the flood of the mask is wetter in the after-image of Sentinel-2 than the rest is.
    """
    dataset = Ombria(flora_data / "ombria", "test", sar_dates=("before", "after"))
    samples = list(dataset)

    def agreement(before: Sample, after: Sample) -> float:
        pair = torch.stack([before["sar"][0].flatten(), after["sar"][1].flatten()])
        return float(torch.corrcoef(pair)[0, 1])

    others = samples[1:] + samples[:1]
    for sample, other in zip(samples, others, strict=True):
        assert agreement(sample, sample) > agreement(sample, other)
    wetter = 0
    for sample in samples:
        water = (sample["water"] == 1) & sample["optical_valid"]
        dry = (sample["water"] == 0) & sample["optical_valid"]
        wetter += int(sample["index"][0, water].mean() > sample["index"][0, dry].mean())
    assert wetter >= 60
