"""DeepFlood on faithful fakes: no real file of it could be obtained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from flora.datasets.base import Window, crop_sample
from flora.datasets.deepflood import DeepFlood
from flora.datasets.pairing import EmptySplitError
from flora.errors import FloraError
from tests.support.fake_data import fake_deepflood, north_up, rewrite, same, write_raster

KINSTON = "Kinston_Mattew_15_10_16_01_tile_1"


@pytest.fixture
def tiles(tmp_path) -> Path:
    return fake_deepflood(tmp_path)


def layer(root: Path, name: str, tile: str = KINSTON) -> Path:
    return root / "TILES" / name / f"{tile}.tif"


def classes(root: Path) -> torch.Tensor:
    with rasterio.open(layer(root, "Mask")) as source:
        return torch.from_numpy(source.read(1).astype(np.int64))


# What a sample holds


def test_band_order_is_pinned(tiles):
    """Red, green, blue are 30, 60, 90: NGRDI is (60 - 30) / 90."""
    rewrite(layer(tiles, "Optical"), lambda old: old * 0 + np.array([[[30]], [[60]], [[90]]], "u1"))
    rewrite(layer(tiles, "SAR VV"), lambda old: old * 0 - np.float32(7.5))
    rewrite(layer(tiles, "SAR VH"), lambda old: old * 0 - np.float32(26))
    dataset = DeepFlood(tiles, "test")
    sample = dataset[0]
    np.testing.assert_allclose(sample["optical"][:, 9, 9], np.array([30, 60, 90]) / 255, rtol=1e-6)
    np.testing.assert_allclose(sample["index"], 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(sample["sar"][:, 9, 9], [1.0, -1.0], rtol=1e-6)
    assert dataset.optical_scaling.index_name == "NGRDI"


def test_four_classes_become_water_and_dry(tiles):
    stored = classes(tiles)
    assert set(stored.unique().tolist()) == {0, 1, 2, 3}
    flooded = DeepFlood(tiles, "test")[0]["water"]
    assert torch.equal(flooded == 1, (stored == 0) | (stored == 2)) and (flooded != 255).all()
    open_water = DeepFlood(tiles, "test", water_classes=(2,))[0]["water"]
    assert torch.equal(open_water == 1, stored == 2)
    assert torch.equal(DeepFlood(tiles, "test", water_classes=2)[0]["water"], open_water)
    assert DeepFlood.label_codes == DeepFlood(tiles, "test").codes
    with pytest.raises(FloraError, match=r"water_classes \(1, 4\): expected .*2 \(open water\)"):
        DeepFlood(tiles, "test", water_classes=(1, 4))
    with pytest.raises(FloraError, match=r"water_classes \(\)"):
        DeepFlood(tiles, "test", water_classes=())


def test_a_fifth_class_is_refused(tiles):
    rewrite(layer(tiles, "Mask"), lambda old: old + 1)
    with pytest.raises(FloraError, match=r"holds label 4: expected 0 \(inundated vegetation\)"):
        DeepFlood(tiles, "test")[0]


def test_black_is_no_image_and_radar_nodata_no_label(tiles):
    def punch(values):
        values[:, 20, 20] = np.nan
        return values

    rewrite(layer(tiles, "SAR VH"), punch)
    sample = DeepFlood(tiles, "test")[0]
    assert not sample["optical_valid"][0].any() and sample["optical_valid"][1:].all()
    assert not sample["sar_valid"][20, 20] and int((~sample["sar_valid"]).sum()) == 1
    assert sample["water"][20, 20] == 255 and (sample["water"] == 255).sum() == 1


def test_linear_power_has_to_be_named(tiles):
    expected = DeepFlood(tiles, "test")[0]["sar"]
    for name in ("SAR VV", "SAR VH"):
        rewrite(layer(tiles, name), lambda old: np.float32(10) ** (old / 10))
    with pytest.raises(FloraError, match="looks like linear power"):
        DeepFlood(tiles, "test")[0]
    linear = DeepFlood(tiles, "test", units="linear")
    torch.testing.assert_close(linear[0]["sar"], expected, rtol=0, atol=1e-4)
    rewrite(layer(tiles, "SAR VV"), lambda old: -old)
    with pytest.raises(FloraError, match="pass units='db'"):
        linear[0]
    with pytest.raises(FloraError, match="units 'power'"):
        DeepFlood(tiles, "test", units="power")


def test_meta_is_read_off_the_name(tiles):
    meta = DeepFlood(tiles, "test")[0]["meta"]
    assert (meta["id"], meta["place"], meta["date"]) == (KINSTON, "Kinston", "2016-10-15")


# Splits and pairing


def test_no_site_is_on_two_sides_of_a_split(tiles):
    sites = {
        split: {sample["meta"]["place"] for sample in DeepFlood(tiles, split)}
        for split in ("train", "valid", "test", "train-without-Grifton", "valid-without-Grifton")
    }
    assert sites == {
        "train": {"Elizabeth", "Washington"},
        "valid": {"Grifton"},
        "test": {"Kinston"},
        "train-without-Grifton": {"Elizabeth", "Washington"},
        "valid-without-Grifton": {"Kinston"},
    }


@pytest.mark.parametrize("site", ["Elizabeth", "Grifton", "Kinston", "Washington"])
def test_each_site_is_left_out_in_turn(tiles, site):
    parts = [
        set(DeepFlood(tiles, split).manifest())
        for split in (f"train-without-{site}", f"valid-without-{site}", f"only-{site}")
    ]
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == 6
    assert {tile.split("_")[0] for tile in parts[2]} == {site}


def test_empty_and_unknown_sites(tiles):
    with pytest.raises(EmptySplitError, match="no tile of split 'only-Lumberton'"):
        DeepFlood(tiles, "only-Lumberton")
    with pytest.raises(FloraError, match=r"no split 'only-Raleigh'.*Elizabeth, Grifton"):
        DeepFlood(tiles, "only-Raleigh")


def test_a_site_of_two_names_is_one(tiles):
    for name in ("SAR VV", "SAR VH", "Optical", "Mask"):
        path = layer(tiles, name)
        path.rename(path.with_name("Elizabethtown_Florence_14_09_18_03_tile_4.tif"))
    assert len(DeepFlood(tiles, "only-Elizabeth")) == 4


def test_names_that_tell_no_site_are_refused(tiles):
    for name in ("SAR VV", "SAR VH", "Optical", "Mask"):
        path = layer(tiles, name)
        path.rename(path.with_name("tile_0001.tif"))
    with pytest.raises(FloraError, match="tile tile_0001: expected a name like Kinston_"):
        DeepFlood(tiles, "train")


@pytest.mark.parametrize("name", ["SAR VV", "SAR VH", "Optical", "Mask"])
def test_an_unpaired_tile_is_refused(tiles, name):
    layer(tiles, name).unlink()
    with pytest.raises(FloraError, match=rf"{name}/{KINSTON}.tif is missing, one of 1 files"):
        DeepFlood(tiles, "test")


def test_either_name_of_a_folder_and_of_the_root(tiles):
    expected = DeepFlood(tiles, "test")[0]
    for name in ("SAR VV", "SAR VH", "Mask"):
        folder = tiles / "TILES" / name
        folder.rename(folder.with_name(name.replace(" ", "_").upper()))
    assert same(DeepFlood(tiles / "TILES", "test")[0], expected)
    with pytest.raises(FloraError, match="no folder"):
        DeepFlood(tiles / "TILES" / "MASK", "test")


def test_a_window_equals_the_crop(tiles):
    dataset = DeepFlood(tiles, "train")
    for window in (Window(0, 0, 8, 8), Window(3, 20, 30, 18)):
        assert same(dataset.read(1, window), crop_sample(dataset[1], window))


def test_other_grids_bands_and_types_are_refused(tiles):
    rewrite(layer(tiles, "Optical"), lambda old: old.astype(np.uint16))
    with pytest.raises(FloraError, match="holds uint16: expected 8-bit"):
        DeepFlood(tiles, "test")[0]
    rewrite(layer(tiles, "Optical"), lambda old: old[:1].astype(np.uint8))
    with pytest.raises(FloraError, match="1 bands: expected 3, red, green, blue"):
        DeepFlood(tiles, "test")[0]
    vv = np.full((1, 48, 48), -9, np.float32)
    write_raster(layer(tiles, "SAR VV"), vv, transform=north_up(-0.5, 38.12))
    # All layers of a tile have one name.
    with pytest.raises(FloraError, match=r"^SAR VV/.* and .*/.* lie on different grids"):
        DeepFlood(tiles, "test")[0]


def test_a_tile_of_another_size_is_refused(tiles):
    name = "Elizabeth_Florence_14_09_18_01_tile_7"
    for folder in ("SAR VV", "SAR VH", "Optical", "Mask"):
        rewrite(layer(tiles, folder, name), lambda old: old[:, :40])
    dataset = DeepFlood(tiles, "train")
    with pytest.raises(FloraError, match=r"tile_7.tif has 40 x 48 px where the first chip has 48"):
        dataset[dataset.manifest().index(name)]
