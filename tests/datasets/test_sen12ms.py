from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from flora.datasets.base import Window, crop_sample
from flora.datasets.crops import RandomCrops
from flora.datasets.pairing import EmptySplitError
from flora.datasets.sen12ms import LAND_COVER_BANDS, SEASONS, Patch, Sen12MS, _split_of_scene
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError, FloraWarning
from flora.sensors import SENTINEL1
from tests.support.fake_data import fake_sen12ms, north_up, rewrite, same, write_raster

WINTER = "ROIs2017_winter"
DAMAGED = "ROIs1868_summer_146_p202"


@pytest.fixture
def patches(tmp_path) -> Path:
    return fake_sen12ms(tmp_path)


def layer(root: Path, name: str, number: int = 2) -> Path:
    return root / WINTER / f"{name}_1" / f"{WINTER}_{name}_1_p{number}.tif"


# What a sample holds


def test_band_order_is_pinned(patches):
    """Band i of Sentinel-2 is i * 100, so red is 400, green 300, blue 200, near infrared 800."""
    rewrite(
        layer(patches, "s2"),
        lambda old: np.ones_like(old) * np.arange(100, 1400, 100, np.uint16)[:, None, None],
    )
    rewrite(
        layer(patches, "s1"),
        lambda old: np.ones_like(old) * np.array([-7.5, -26.0], np.float32)[:, None, None],
    )
    sample = Sen12MS(patches, "train")[0]
    assert sample["meta"]["id"] == "ROIs2017_winter_1_p2"
    np.testing.assert_allclose(sample["optical"][:, 9, 9], np.array([400, 300, 200]) / 3000)
    np.testing.assert_allclose(sample["index"], 400 / 1200, rtol=1e-6)
    np.testing.assert_allclose(sample["sar"][:, 9, 9], [1.0, -1.0], rtol=1e-6)


def test_meta_holds_scene_and_grid(patches):
    meta = Sen12MS(patches, "valid")[0]["meta"]
    assert meta["id"] == "ROIs1970_fall_139_p839" and meta["place"] == "ROIs1970_fall_139"
    assert meta["crs"] == "EPSG:32650" and meta["transform"] == (10, 0, 500_000, 0, -10, 4e6)
    assert meta["date"] is None and meta["split"] == "valid"


def test_water_is_of_the_land_cover_layer_asked_for(patches):
    """Land is 9, 11, 9 and 30 and water 17, 3, 3 and 3 in the four layers; IGBP has wetland."""
    waters = {
        name: Sen12MS(patches, "train", land_cover=name)[0]["water"] for name in LAND_COVER_BANDS
    }
    assert (waters["IGBP"][0] == 255).all()  # permanent wetland is neither
    for water in waters.values():
        assert torch.equal(water[1:], waters["LCCS1"][1:])
        assert set(water[1:].unique().tolist()) == {0, 1}
    without = Sen12MS(patches, "train", land_cover=None)[0]
    assert (without["water"] == 255).all() and without["optical_valid"].any()


@pytest.mark.parametrize(("name", "water", "unclear"), [
    ("IGBP", 17, {11}), ("LCCS1", 3, set()), ("LCCS2", 3, set()), ("LCCS3", 3, {27, 50}),
])  # fmt: skip
def test_one_class_of_each_layer_is_water(name, water, unclear):
    codes = Sen12MS.land_cover_codes[name]
    assert {code for code, meaning in codes.items() if meaning == 1} == {water}
    assert {code for code, meaning in codes.items() if meaning == 255} == {0, 255} | unclear


def test_a_strange_class_is_refused(patches):
    rewrite(layer(patches, "lc"), lambda old: old + 17)
    with pytest.raises(FloraError, match=r"holds label 2[68]|holds label 34"):
        Sen12MS(patches, "train")[0]


def test_missing_land_cover_is_255_and_said(patches):
    layer(patches, "lc").unlink()
    with pytest.warns(FloraWarning, match="1 of 3 patches have no land cover"):
        dataset = Sen12MS(patches, "train")
    assert (dataset[0]["water"] == 255).all() and (dataset[1]["water"] == 1).any()
    Sen12MS(patches, "train", land_cover=None)  # asked for, hence no warning


# Splits and pairing


def test_splits_hold_out_whole_scenes(patches):
    ids = {split: Sen12MS(patches, split).manifest() for split in Sen12MS.splits}
    assert ids == {
        "train": [f"ROIs2017_winter_1_p{number}" for number in (2, 10, 100)],
        "valid": ["ROIs1970_fall_139_p839"],
        "test": ["ROIs1158_spring_15_p1", "ROIs1158_spring_15_p2"],
    }


def test_scenes_are_assigned_whole_and_for_ever():
    """26 scenes are the publisher's hold-out; about a tenth of the rest, by hash, are valid."""
    scenes = [(season, scene) for season in SEASONS for scene in range(1, 150)]
    parts = {scene: _split_of_scene(Patch(*scene, 1)) for scene in scenes}
    assert all(_split_of_scene(Patch(*scene, 700)) == part for scene, part in parts.items())
    counts = [list(parts.values()).count(part) for part in ("train", "valid", "test")]
    assert counts == [516, 54, 26]


def test_the_publishers_test_list_restricts_the_test(patches):
    listing = patches / "test_list.txt"
    listing.write_text("ROIs1158_spring_s2_15_p2.tif\nROIs2017_winter_s1_1_p10.tif\n")
    ids = Sen12MS(patches, "test").manifest()
    assert ids == ["ROIs1158_spring_15_p2", "ROIs2017_winter_1_p10"]
    # The scene of a listed patch is kept out of training, whole.
    with pytest.raises(EmptySplitError, match="no patch of split 'train'"):
        Sen12MS(patches, "train")
    elsewhere = patches / "elsewhere.txt"
    listing.rename(elsewhere)
    assert len(Sen12MS(patches, "train")) == 3
    assert Sen12MS(patches, "test", test_list=elsewhere).manifest() == ids
    for text, message in (("ROIs_p1.tif", "no file name like"), ("", "is empty")):
        elsewhere.write_text(text)
        with pytest.raises(FloraError, match=message):
            Sen12MS(patches, "test", test_list=elsewhere)
    with pytest.raises(FloraError, match="cannot read the list"):
        Sen12MS(patches, "test", test_list=patches / "nowhere.txt")


def test_the_damaged_patch_is_left_out(patches):
    for name in ("s1", "s2", "lc"):
        target = patches / "ROIs1868_summer" / f"{name}_146"
        target.mkdir(parents=True)
        for number in (202, 203):
            copy = target / f"ROIs1868_summer_{name}_146_p{number}.tif"
            shutil.copy(layer(patches, name), copy)
    split = _split_of_scene(Patch("ROIs1868_summer", 146, 202))
    ids = Sen12MS(patches, split).manifest()
    assert DAMAGED not in ids and "ROIs1868_summer_146_p203" in ids
    assert DAMAGED in Sen12MS(patches, split, include_damaged=True).manifest()


def test_patches_pair_by_id_in_either_layout(patches):
    """Patch 10 sorts before 2 by name; the archives unpack to a folder a season or a layer."""
    before = [Sen12MS(patches, "train")[index] for index in range(3)]
    for name in ("s1", "s2", "lc"):
        (patches / f"{WINTER}_{name}").mkdir()
        (patches / WINTER / f"{name}_1").rename(patches / f"{WINTER}_{name}" / f"{name}_1")
    after = Sen12MS(patches, "train")
    assert all(same(sample, after[index]) for index, sample in enumerate(before))
    shutil.copytree(patches / f"{WINTER}_s1" / "s1_1", patches / WINTER / "s1_1")
    with pytest.raises(FloraError, match="hold one scene: remove one"):
        Sen12MS(patches, "train")
    for sample in before:
        dark = sample["sar"][0][sample["water"] == 1].mean()
        assert dark < sample["sar"][0][sample["water"] == 0].mean() - 1


@pytest.mark.parametrize("name", ["s1", "s2"])
def test_an_unpaired_patch_is_refused(patches, name):
    layer(patches, name, 10).unlink()
    with pytest.raises(FloraError, match=rf"{name}_1_p10.tif is missing, one of 1 files"):
        Sen12MS(patches, "train")
    for exclude in (("ROIs2017_winter_1_p10",), "ROIs2017_winter_1_p10"):
        assert len(Sen12MS(patches, "train", exclude=exclude)) == 2


def test_wrong_arguments_and_names_are_refused(patches, tmp_path):
    with pytest.raises(FloraError, match="no split 'holdout'"):
        Sen12MS(patches, "holdout")
    with pytest.raises(FloraError, match="no land cover 'LC'; choose IGBP, LCCS1"):
        Sen12MS(patches, "train", land_cover="LC")
    with pytest.raises(FloraError, match=r"no patch in .*expected ROIs1158_spring"):
        Sen12MS(patches / WINTER, "train")
    layer(patches, "s1").rename(layer(patches, "s1").with_name("ROIs2017_winter_s1_2_p2.tif"))
    with pytest.raises(FloraError, match=r"misplaced: expected ROIs2017_winter_s1_1_pM.tif"):
        Sen12MS(patches, "train")


def test_a_window_equals_the_crop_and_memory_equals_files(patches):
    dataset = Sen12MS(patches, "train")
    window = Window(3, 7, 20, 16)
    assert same(dataset.read(1, window), crop_sample(dataset[1], window))
    direct = RandomCrops(dataset, 16, 6, seed=2)
    kept = RandomCrops(InMemory(dataset), 16, 6, seed=2)
    assert all(same(direct[number], kept[number]) for number in range(6))


@pytest.mark.parametrize("name", ["s2", "lc"])
def test_layers_on_another_grid_are_refused(patches, name):
    rewrite(layer(patches, name), lambda old: old)
    Sen12MS(patches, "train")[0]
    path = layer(patches, name)
    values = np.full((13 if name == "s2" else 4, 48, 48), 3, np.uint16)
    write_raster(path, values, None, north_up(500_005, 4e6, 10), "EPSG:32650")
    with pytest.raises(FloraError, match="different grids"):
        Sen12MS(patches, "train")[0]


def test_a_patch_of_another_size_is_refused(patches):
    for name in ("s1", "s2", "lc"):
        rewrite(layer(patches, name, 10), lambda old: old[:, :40])
    dataset = Sen12MS(patches, "train")
    assert dataset.shape(1) == (48, 48)
    with pytest.raises(FloraError, match=r"p10.tif has 40 x 48 px where the first chip has 48 x"):
        dataset[1]
    assert dataset[2]["water"].shape == (48, 48)


# The real file


def test_real_patch(flora_data):
    """From SEN12MS-CR: no land cover, and a cloudy image beside the clear one, which is ignored."""
    root = flora_data / "sen12ms"
    with pytest.warns(FloraWarning, match="1 of 1 patches have no land cover"):
        dataset = Sen12MS(root, "valid")
    assert dataset.manifest() == ["ROIs1970_fall_139_p839"] and dataset.shape(0) == (256, 256)
    sample = dataset[0]
    assert sample["meta"]["crs"] == "EPSG:32650" and sample["meta"]["transform"][0] == 10.0
    assert (sample["water"] == 255).all() and sample["sar_valid"].all()
    assert float(sample["optical_valid"].float().mean()) > 0.99
    # Clipped at 0 dB by its publisher: 58 pixels of VV, which are measurements, not nodata.
    restored = SENTINEL1.restore(sample["sar"].numpy())
    assert restored[0].max() == pytest.approx(0, abs=1e-5)
    assert int((np.abs(restored[0]) < 1e-5).sum()) == 58
    window = Window(100, 20, 64, 96)
    assert same(dataset.read(0, window), crop_sample(sample, window))
    for split in ("train", "test"):
        with pytest.raises(EmptySplitError, match="no patch of split"):
            Sen12MS(root, split, land_cover=None)
