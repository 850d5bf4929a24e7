from __future__ import annotations

import numpy as np
import pytest
import torch

from flora.datasets.base import Window, collate
from flora.datasets.crops import RandomCrops
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.season import season_statistics
from flora.sensors import SENTINEL1, SENTINEL2_BANDS, SENTINEL2_RGB
from flora.simulate.radar import LookAlikes
from flora.simulate.scene import draw_parameters

SIZE = 64


def test_a_sample_keeps_the_contract():
    dataset = Simulated("train", count=4, size=SIZE)
    assert len(dataset) == len(dataset.manifest()) == 4
    assert dataset.sar_scaling == SENTINEL1
    assert dataset.optical_scaling is SENTINEL2_RGB
    for number in range(len(dataset)):
        sample = dataset[number]
        plane = (SIZE, SIZE)
        expected = {
            "sar": (torch.float32, (2, *plane)),
            "sar_valid": (torch.bool, plane),
            "optical": (torch.float32, (3, *plane)),
            "optical_valid": (torch.bool, plane),
            "index": (torch.float32, (1, *plane)),
            "water": (torch.int64, plane),
        }
        tensors = {key: value for key, value in sample.items() if key not in ("meta", "before")}
        assert {key: (v.dtype, tuple(v.shape)) for key, v in tensors.items()} == expected
        stack = sample["before"]
        earlier = {"optical": stack.image, "index": stack.index, "optical_valid": stack.valid}
        for key, layer in earlier.items():
            assert (layer.dtype, tuple(layer.shape)) == expected[key]
        for image in (sample["optical"], stack.image):
            assert image.min() >= 0.0 and image.max() <= 1.0
        assert sample["index"].abs().max() <= 1.0
        assert torch.isfinite(sample["sar"]).all()
        assert set(sample["water"].unique().tolist()) <= {0, 1, 255}
        assert sample["meta"]["place"] == "simulated"
        assert sample["meta"]["split"] == "train"
        assert sample["meta"]["id"] == dataset.manifest()[number]
        assert len(sample["meta"]["transform"]) == 6


def test_layers_are_those_of_the_scene():
    dataset = Simulated("valid", count=1, size=SIZE)
    sample, scene = dataset[0], dataset.scene(0)
    seen = sample["sar_valid"].numpy()
    restored = SENTINEL1.restore(sample["sar"].numpy())
    np.testing.assert_allclose(restored[:, seen], scene.sar_after[:, seen], atol=1e-3)
    np.testing.assert_array_equal(sample["water"].numpy()[seen], scene.water_after[seen])
    clear = sample["before"].valid.numpy()
    for channel, name in enumerate(("B4", "B3", "B2")):
        stored = scene.optical_before[SENTINEL2_BANDS.index(name)] / 0.3
        np.testing.assert_allclose(
            sample["before"].image.numpy()[channel][clear], stored[clear].clip(0, 1), atol=1e-4
        )


def test_cloud_and_its_shadow_are_not_valid():
    dataset = Simulated("train", count=12, size=SIZE)
    cloudy = next(n for n in range(12) if draw_parameters(dataset.seeds[n]).optical.cloud[1] > 0.2)
    scene, sample = dataset.scene(cloudy), dataset[cloudy]
    hidden = torch.from_numpy(scene.cloud_after | scene.shadow_after)
    assert torch.equal(sample["optical_valid"], ~hidden)
    assert (sample["optical"][:, hidden] == 0.0).all()
    assert (sample["index"][:, hidden] == 0.0).all()
    assert (sample["water"][hidden] != 255).any()  # radar sees through cloud


def test_the_swath_border_is_ignored():
    dataset = Simulated("train", count=60, size=SIZE)
    edge = next(n for n in range(60) if draw_parameters(dataset.seeds[n]).sar.border > 0)
    sample = dataset[edge]
    assert not sample["sar_valid"].all()
    assert torch.equal(sample["water"] == 255, ~sample["sar_valid"])
    assert (sample["sar"][:, ~sample["sar_valid"]] == 0.0).all()


def test_splits_and_seeds_share_no_scene():
    manifests = [
        set(Simulated(split, count=1000, size=SIZE, seed=seed).manifest())
        for split in Simulated.splits
        for seed in (0, 1)
    ]
    assert len(set.union(*manifests)) == sum(map(len, manifests)) == 6000
    first = Simulated("train", count=3, size=SIZE)
    assert first.manifest_hash() == Simulated("train", count=3, size=SIZE).manifest_hash()
    assert first.manifest_hash() != Simulated("train", count=3, size=96).manifest_hash()


def test_both_dates_stack_with_the_earlier_first():
    dataset = Simulated("test", count=1, size=SIZE, sar_dates=("before", "after"))
    both, scene = dataset[0]["sar"].numpy(), dataset.scene(0)
    seen = dataset[0]["sar_valid"].numpy()
    assert both.shape == (4, SIZE, SIZE)
    stacked = np.concatenate([scene.sar_before, scene.sar_after])
    restored = dataset.sar_scaling.restore(both)
    np.testing.assert_allclose(restored[:, seen], stacked[:, seen], atol=1e-3)


def test_several_dates_before_are_statistics_of_that_many():
    few, many = (Simulated("test", 2, SIZE, sar_dates=(f"before:{n}", "after")) for n in (1, 4))
    scene = many.scene(0)
    assert scene.sar_earlier.shape[0] == 3
    before = np.concatenate([scene.sar_before[None], scene.sar_earlier])
    seen = many[0]["sar_valid"].numpy()
    restored = many.sar_scaling.restore(many[0]["sar"].numpy())
    expected = np.clip(season_statistics(before, scene.sar_after), -50, 15)
    np.testing.assert_allclose(restored[:, seen], expected[:, seen], atol=1e-3)
    assert few[0]["sar"].shape == many[0]["sar"].shape == (10, SIZE, SIZE)
    assert torch.equal(few[0]["sar"][-2:], Simulated("test", 2, SIZE)[0]["sar"])
    assert not torch.equal(few[0]["sar"][:2], many[0]["sar"][:2])


def test_how_many_dates_is_drawn_once_for_a_scene():
    chips = Simulated("train", count=40, size=SIZE, sar_dates=("before:1-8", "after"))
    counts = [chips.dates_before(index) for index in range(40)]
    assert counts == [chips.dates_before(index) for index in range(40)]
    assert min(counts) >= 1 and max(counts) == 8 and len(set(counts)) > 4


def test_windows_crops_and_batches_work_as_on_every_dataset():
    dataset = InMemory(Simulated("train", count=2, size=SIZE))
    window = Window(5, 9, 20, 30)
    whole, part = dataset[0], Simulated("train", count=2, size=SIZE).read(0, window)
    assert torch.equal(part["sar"], whole["sar"][:, 5:25, 9:39])
    assert torch.equal(part["before"].valid, whole["before"].valid[5:25, 9:39])
    batch = collate([RandomCrops(dataset, 32, 4, seed=1)[n] for n in range(4)])
    assert batch["before"].image.shape == (4, 3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "bolivia"}, "no split 'bolivia'"),
        ({"split": "train", "count": 0}, "count 0"),
        ({"split": "train", "size": 16}, "size 16"),
        ({"split": "train", "seed": -1}, "seed -1"),
        ({"split": "train", "cloud": 1.5}, "a share from 0 to 1"),
        ({"split": "train", "sar_dates": ("after", "before")}, "earliest first"),
        ({"split": "train", "sar_dates": ("before:0", "after")}, "one date or more"),
        ({"split": "train", "sar_dates": ("before:3-2", "after")}, "the smaller number first"),
        ({"split": "train", "sar_dates": ("before:4",)}, "statistics"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(FloraError, match=message):
        Simulated(**arguments)


def test_look_alikes_are_on_unless_left_out():
    drawn = [draw_parameters(seed).sar.look_alikes for seed in range(40)]
    assert sum(some != LookAlikes() for some in drawn) > 20
    number = next(n for n, some in enumerate(drawn) if some.snow > 0.3)
    with_some = Simulated("train", count=40, size=SIZE)
    without = Simulated("train", count=40, size=SIZE, look_alikes=False)
    assert without.scene(number).parameters.sar.look_alikes == LookAlikes()
    assert not torch.equal(with_some[number]["sar"], without[number]["sar"])
    assert torch.equal(with_some[number]["water"], without[number]["water"])
    assert without.manifest()[0].startswith("simulated-v1-")
    assert not set(without.manifest()) & set(with_some.manifest())


@pytest.mark.parametrize("cloud", [0.0, 0.7])
def test_clouds_asked_for_hide_the_ground_and_change_nothing_that_radar_sees(cloud):
    drawn, asked = (Simulated("train", count=6, size=SIZE, cloud=c) for c in (None, cloud))
    assert not set(drawn.manifest()) & set(asked.manifest())
    for number in range(len(asked)):
        weather, sample, scene = drawn[number], asked[number], asked.scene(number)
        for layer in ("sar", "sar_valid", "water"):
            assert torch.equal(sample[layer], weather[layer])
        for mask in (scene.cloud_before, scene.cloud_after):  # thin edges of a cloud count as clear
            assert cloud - 0.1 <= mask.mean() <= cloud
