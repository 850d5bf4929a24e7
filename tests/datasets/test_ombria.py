from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flora.datasets.base import Sample, Window, crop_sample
from flora.datasets.crops import RandomCrops
from flora.datasets.ombria import Ombria, cloud_mask
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.sensors import OMBRIA_S1
from tests.support.fake_data import fake_ombria, fake_ombria_2021, same, write_picture


@pytest.fixture
def pictures(tmp_path) -> Path:
    return fake_ombria(tmp_path)


# What a sample holds


def test_band_order_is_pinned(pictures):
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


def test_outside_the_footprint_nothing_counts(pictures):
    sample = Ombria(pictures, "test")[0]
    for valid in (sample["sar_valid"], sample["optical_valid"], sample["before"].valid):
        assert not valid[:2].any() and valid[2:].all()
    assert (sample["water"][:2] == 255).all()
    assert set(sample["water"][2:].unique().tolist()) == {0, 1}
    assert (sample["sar"][:, :2] == 0).all()  # white on disk


def test_black_at_one_date_only_keeps_radar_and_label(pictures):
    path = pictures / "OmbriaS2/test/AFTER/S2_after_0013.png"
    counts = np.asarray(Image.open(path)).copy()
    counts[10:20] = 0
    write_picture(path, counts)
    sample = Ombria(pictures, "test")[0]
    assert not sample["optical_valid"][10:20].any() and sample["before"].valid[10:20].all()
    assert sample["sar_valid"][10:20].all() and (sample["water"][10:20] != 255).all()


def test_dates(pictures):
    after, before, both = (
        Ombria(pictures, "test", sar_dates=dates)
        for dates in (("after",), ("before",), ("before", "after"))
    )
    assert not torch.equal(after[0]["sar"], before[0]["sar"])
    stacked = torch.cat([before[0]["sar"], after[0]["sar"]])
    assert torch.equal(both[0]["sar"], stacked)
    assert both.sar_scaling.bands == ("VV", "VV") and after.sar_scaling.bands == ("VV",)
    alone = Ombria(pictures, "test", sar_dates="before")  # as --option sar_dates=before gives it
    assert torch.equal(alone[0]["sar"], before[0]["sar"])
    with pytest.raises(FloraError, match="held_out Atlantis: no such site"):
        Ombria(pictures, "test", held_out="Atlantis")
    assert not torch.equal(after[0]["before"].image, after[0]["optical"])
    for wrong in ((), ("after", "before"), ("during",)):
        with pytest.raises(FloraError, match="sar_dates"):
            Ombria(pictures, "test", sar_dates=wrong)
    with pytest.raises(FloraError, match="NDVI"):
        Ombria(pictures, "test", index="NDVI")


def test_cloud_mask_knows_cloud_from_desert_water_and_specks():
    counts = np.ones((3, 40, 40), np.uint8) * np.array([40, 60, 40], np.uint8)[:, None, None]
    counts[:, :10, :10] = np.array([150, 190, 190])[:, None, None]  # cloud
    counts[:, 4:6, 4:6] = 3  # its core, whose counts wrapped around
    counts[:, 20:30, :10] = np.array([190, 140, 95])[:, None, None]  # desert
    counts[:, 20:30, 20:30] = np.array([20, 50, 150])[:, None, None]  # turbid water
    counts[:, 5, 30] = 200  # a roof
    cloudy = cloud_mask(counts)
    assert cloudy[1:9, 1:9].all()
    cloudy[:10, :10] = False
    assert not cloudy.any()


@pytest.mark.parametrize("kind", ["1", "P", "RGB"])
def test_reads_grey_however_it_is_stored(pictures, kind):
    """The publisher's masks are one-bit or palette pictures; radar may be three equal channels."""
    expected = Ombria(pictures, "test")[0]
    folder, name = ("MASK", "mask") if kind == "1" else ("AFTER", "after")
    path = pictures / f"OmbriaS1/test/{folder}/S1_{name}_0013.png"
    Image.open(path).convert(kind).save(path)
    assert Image.open(path).mode == kind
    assert same(Ombria(pictures, "test")[0], expected)


# Layout, pairing, splits


def test_splits_partition_the_official_train(pictures):
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
def test_2021_from_any_of_three_roots(tmp_path, below):
    dataset = Ombria(fake_ombria_2021(tmp_path) / below, "2021")
    albania = ["ALBANIA_1", "ALBANIA_2", "ALBANIA_10"]
    assert dataset.manifest() == (albania if "ALB" in below else [*albania, "TIMOR_3"])
    sample = dataset[0]
    assert sample["meta"]["place"] == "ALBANIA" and sample["meta"]["split"] == "2021"
    assert (sample["water"] == 1).any()


def test_2021_pairs_by_number_whatever_the_order_of_names(tmp_path):
    """imafter_10 sorts before imafter_2; each flood must still lie where its radar is dark."""
    for sample in Ombria(fake_ombria_2021(tmp_path), "2021"):
        flood = sample["water"] == 1
        darkness = sample["sar"][0][sample["water"] == 0].mean() - sample["sar"][0][flood].mean()
        assert darkness > 1.5


def test_mask_of_either_sensor_will_do(tmp_path):
    root = fake_ombria_2021(tmp_path)
    expected = Ombria(root, "2021")[1]
    (root / "2021/ALBANIA/Sentinel1/MASK/gt_2.png").unlink()
    assert same(Ombria(root, "2021")[1], expected)
    (root / "2021/ALBANIA/Sentinel2/MASK/gt_2.png").unlink()
    with pytest.raises(FloraError, match=r"chip 2 has no picture in .*MASK"):
        Ombria(root, "2021")


@pytest.mark.parametrize("sensor", ["S1", "S2"])
@pytest.mark.parametrize("date", ["before", "after"])
def test_unpaired_pictures_are_refused(pictures, sensor, date):
    (pictures / f"Ombria{sensor}/train/{date.upper()}/{sensor}_{date}_0005.png").unlink()
    with pytest.raises(FloraError, match=f"chip 5 has no picture in .*{date.upper()}, one of 1"):
        Ombria(pictures, "train")


def test_wrong_roots_splits_and_names_are_refused(pictures, tmp_path):
    with pytest.raises(FloraError, match="no split 'dev'"):
        Ombria(pictures, "dev")
    with pytest.raises(FloraError, match="no folder"):
        Ombria(pictures / "OmbriaS1", "train")
    with pytest.raises(FloraError, match="Sentinel1"):
        Ombria(pictures, "2021")
    write_picture(pictures / "OmbriaS1/test/AFTER/readme.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(FloraError, match="no chip number"):
        Ombria(pictures, "test")


def test_window_equals_crop_and_memory_equals_files(pictures):
    dataset = Ombria(pictures, "train")
    window = Window(0, 7, 20, 16)
    assert same(dataset.read(1, window), crop_sample(dataset[1], window))
    assert dataset.shape(1) == (48, 48)
    direct = RandomCrops(dataset, 16, 6, seed=2)
    kept = RandomCrops(InMemory(dataset), 16, 6, seed=2)
    assert all(same(direct[number], kept[number]) for number in range(6))


# Bad files

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
def test_bad_pictures_are_refused(pictures, file, values, message):
    write_picture(pictures / file, values)
    with pytest.raises(FloraError, match=message):
        Ombria(pictures, "test")[0]


@pytest.mark.parametrize("sensor", ["S1", "S2"])
@pytest.mark.parametrize("keep", [0, 20, 60, 300])
def test_unreadable_pictures_are_refused(pictures, sensor, keep):
    path = pictures / f"Ombria{sensor}/test/AFTER/{sensor}_after_0013.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FloraError, match=path.name):
        Ombria(pictures, "test")[0]


def test_a_chip_without_any_data_is_refused(pictures):
    for date in ("before", "after"):
        path = pictures / f"OmbriaS2/test/{date.upper()}/S2_{date}_0013.png"
        write_picture(path, np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(FloraError, match="black at both dates"):
        Ombria(pictures, "test")[0]


# The real files


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
