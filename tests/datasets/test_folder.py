from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from flora.datasets import open_dataset
from flora.datasets.base import Window, collate, crop_sample, layers
from flora.datasets.check import check_dataset
from flora.datasets.folder import Folder
from flora.errors import FloraError, FloraWarning
from flora.sensors import SENTINEL1
from flora.training.objective import FloraLoss
from tests.support.fake_data import fake_folder, fake_scene, north_up, rewrite, same, write_raster


@pytest.fixture
def mine(tmp_path) -> Path:
    return fake_folder(tmp_path)


def test_chips_have_the_layers_that_are_there_and_no_others(mine):
    chips = Folder(mine, "train")
    assert chips.manifest() == ["Po_1", "Po_2", "radar_only"]
    whole, apart, radar = chips
    scenes = [fake_scene(number, 48) for number in range(3)]
    for chip, scene in zip((whole, apart, radar), scenes, strict=True):
        seen = chip["sar_valid"].numpy()
        assert not seen[:4, :4].any() and seen.sum() == 48 * 48 - 16
        restored = SENTINEL1.restore(chip["sar"].numpy())
        np.testing.assert_allclose(restored[:, seen], scene["sar"][:, seen], atol=1e-4)
    np.testing.assert_allclose(
        whole["optical"].numpy(), scenes[0]["optical"][[3, 2, 1]] / 3000, atol=1e-6
    )
    for chip, scene, codes in ((whole, scenes[0], [0, 1, 255]), (apart, scenes[1], [0, 1, 255])):
        assert chip["water"].unique().tolist() == codes
        counted = chip["water"] < 2
        assert (chip["water"].numpy() == scene["water"])[counted.numpy()].all()
    assert (apart["water"][:, -2:] == 255).all()
    assert (radar["water"] == 255).all()
    for chip in (apart, radar):
        assert not chip["optical_valid"].any() and not chip["optical"].any()
    # One chip has an image from before the flood, so all have one that may be looked at.
    np.testing.assert_allclose(
        whole["before"].image[:, :-3].numpy(),
        scenes[1]["optical"][[3, 2, 1], :-3] / 3000,
        atol=1e-6,
    )
    red, infrared = scenes[1]["optical"][[3, 7], 9, 9].astype(float)
    assert whole["before"].index[0, 9, 9].item() == pytest.approx(
        (infrared - red) / (infrared + red), abs=1e-5
    )
    assert not whole["before"].valid[-3:].any() and whole["before"].valid[:-3].all()
    assert not radar["before"].valid.any()
    assert collate([whole, apart, radar])["before"].valid.shape == (3, 48, 48)
    assert [chip["meta"]["place"] for chip in chips] == ["Po", "Po", "radar"]


def test_what_is_absent_teaches_nothing(mine):
    batch = collate([Folder(mine, "train")[2]])
    image = torch.rand(1, 3, 48, 48, requires_grad=True)
    logits = torch.randn(1, 1, 48, 48, requires_grad=True)
    total, _ = FloraLoss()(_Answer(image, logits), batch, teacher=None)
    gradients = torch.autograd.grad(total, (image, logits), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


class _Answer:
    fused = prior = ()

    def __init__(self, rgb, water_logits):
        self.rgb, self.water_logits = rgb, water_logits


def test_a_folder_without_splits_is_one(mine, tmp_path):
    chips = Folder(mine / "train", "all")
    assert len(chips) == len(Folder(mine, "all")) == 3
    assert chips[0]["meta"]["split"] == "all"
    with pytest.raises(FloraError, match="chips in a folder 'valid', or split 'all'"):
        Folder(mine, "valid")
    with pytest.raises(FloraError, match="no split 'dev'; choose all, train, valid, test"):
        Folder(mine, "dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FloraError, match=r"no chip in .*expected NAME_sar.tif"):
        Folder(tmp_path / "empty", "all")
    assert Folder(mine, "train", exclude="Po_1").manifest() == ["Po_2", "radar_only"]
    assert "before" not in Folder(mine, "train", exclude="Po_1")[0]


def test_windows_are_cut_from_every_layer(mine):
    chips, window = Folder(mine, "train"), Window(2, 5, 20, 30)
    for index in range(3):
        assert same(chips.read(index, window), crop_sample(chips[index], window))
        assert chips.shape(index) == (48, 48)
    assert len(list(layers(chips[0]))) == 9


def test_linear_power_is_converted_when_it_is_said_to_be(mine):
    expected = Folder(mine, "train")[2]["sar"]
    rewrite(mine / "train" / "radar_only_S1Hand.tif", lambda db: 10 ** (db / 10))
    with pytest.raises(FloraError, match="looks like linear power"):
        _ = Folder(mine, "train")[2]
    converted = Folder(mine, "train", units="linear")[2]["sar"]
    torch.testing.assert_close(converted, expected, atol=1e-4, rtol=0)
    with pytest.raises(FloraError, match="units 'amplitude'"):
        Folder(mine, "train", units="amplitude")


def test_files_that_do_not_fit_are_refused(mine):
    folder = mine / "train"
    shutil.copy(folder / "Po_1_sar.tif", folder / "apart" / "Po_1_sar.tif")
    with pytest.raises(FloraError, match=r"are both the sar of chip Po_1: remove one"):
        Folder(mine, "train")
    (folder / "apart" / "Po_1_sar.tif").unlink()
    (folder / "apart" / "Po_2_vh.tif").rename(mine / "Po_2_vh.tif")
    with pytest.raises(FloraError, match=r"chip Po_2 has Po_2_vv.tif, Po_2.tif and no radar image"):
        Folder(mine, "train")
    (mine / "Po_2_vh.tif").rename(folder / "apart" / "Po_2_vh.tif")
    write_raster(folder / "heights.tif", np.ones((1, 48, 48), np.float32))
    with pytest.warns(FloraWarning, match=r"1 files in .* belong to no chip, .* heights.tif"):
        Folder(mine, "train")
    (folder / "heights.tif").unlink()
    write_raster(folder / "Po_1_label.tif", np.full((1, 48, 48), 3, np.uint8))
    with pytest.raises(FloraError, match=r"holds label 3: expected 0 \(dry\), 1 \(water\)"):
        _ = Folder(mine, "train")[0]
    write_raster(
        folder / "Po_1_label.tif", np.zeros((1, 48, 48), np.uint8), transform=north_up(-0.5, 38.12)
    )
    with pytest.raises(FloraError, match="lie on different grids"):
        _ = Folder(mine, "train")[0]
    write_raster(folder / "Po_2_optical.tif", np.ones((3, 48, 48), np.uint16))
    with pytest.raises(FloraError, match="3 bands without names, expected 13"):
        _ = Folder(mine, "train")[1]


def test_it_is_checked_like_the_others(mine):
    report = check_dataset("folder", mine)
    assert report.problems == []
    assert {key: count.chips for key, count in report.places.items()} == {
        ("train", "Po"): 2,
        ("train", "radar"): 1,
    }


def test_real_chips_of_others(flora_data):
    few = flora_data / "sen1floods11_few"
    with warnings.catch_warnings():
        warnings.simplefilter("error", FloraWarning)
        test = open_dataset("folder", few, "test", exclude=["Paraguay_34417"])
        relabelled = open_dataset("folder", few / "relabelled", "all")
    assert len(test) == 6 and relabelled.manifest() == ["jja10", "pxs10", "qxb32"]
    for chips in (test, relabelled):
        for chip in chips:
            assert (chip["water"] == 0).any() and not chip["optical_valid"].any()
            assert chip["sar_valid"].float().mean() > 0.9
    with pytest.raises(FloraError, match=r"Paraguay_34417_S1Hand.tif holds nodata only"):
        list(open_dataset("folder", few, "test"))
