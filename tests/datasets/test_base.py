from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from flora.datasets.base import (
    FloodDataset,
    Meta,
    Sample,
    Window,
    collate,
    crop_sample,
    layers,
)
from flora.datasets.changes import Stretched
from flora.datasets.crops import RandomCrops, orient_sample
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.sensors import SENTINEL1, SENTINEL2_RGB, OpticalStack
from tests.support.fake_data import same

LAYERS = ("sar", "sar_valid", "optical", "optical_valid", "index", "water")
EARLIER = ("image", "index", "valid")


class Pattern(FloodDataset):
    """Chips whose every layer is a function of one random field, so that a shift shows."""

    name: ClassVar[str] = "pattern"
    splits: ClassVar[tuple[str, ...]] = ("all",)
    citation: ClassVar[str] = "none"

    def __init__(self, count: int = 5, size: int = 24) -> None:
        self.sar_scaling, self.optical_scaling = SENTINEL1, SENTINEL2_RGB
        self.count, self.size, self.reads = count, size, 0

    def __len__(self) -> int:
        return self.count

    def shape(self, index: int) -> tuple[int, int]:
        return self.size, self.size + 3

    def manifest(self) -> list[str]:
        return [str(index) for index in range(self.count)]

    def read(self, index: int, window: Window | None = None) -> Sample:
        self.reads += 1
        field = torch.rand(self.shape(index), generator=torch.Generator().manual_seed(index))
        sample = Sample(
            sar=torch.stack([field, -field]),
            sar_valid=field > 0.1,
            optical=torch.stack([field, field**2, field**3]),
            optical_valid=field > 0.2,
            index=field[None] - 0.5,
            water=(field > 0.5).long(),
            before=OpticalStack(torch.stack([field] * 3), field[None], field > 0.3),
            meta=Meta(
                id=str(index), place="here", date=None, crs=None, transform=None, split="all"
            ),
        )
        return sample if window is None else crop_sample(sample, window)


def is_aligned(sample: Sample) -> bool:
    """Whether every layer still is its function of the field."""
    field = sample["sar"][0]
    return all(
        torch.equal(left, right)
        for left, right in (
            (sample["sar"][1], -field),
            (sample["sar_valid"], field > 0.1),
            (sample["optical"], torch.stack([field, field**2, field**3])),
            (sample["optical_valid"], field > 0.2),
            (sample["index"][0], field - 0.5),
            (sample["water"], (field > 0.5).long()),
            (sample["before"].image, torch.stack([field] * 3)),
            (sample["before"].valid, field > 0.3),
            (sample["before"].index[0], field),
        )
    )


@pytest.mark.parametrize("key", LAYERS[1:])
def test_the_alignment_check_notices_one_layer_shifted_by_a_pixel(key):
    sample = Pattern()[0]
    assert is_aligned(sample)
    sample[key] = sample[key].roll(1, dims=-1)
    assert not is_aligned(sample)


@pytest.mark.parametrize("part", EARLIER)
def test_the_alignment_check_notices_a_shift_before_the_flood(part):
    sample = Pattern()[0]
    moved = getattr(sample["before"], part).roll(1, dims=-1)
    sample["before"] = replace(sample["before"], **{part: moved})
    assert not is_aligned(sample)


@pytest.mark.parametrize("orientation", range(8))
def test_crops_and_symmetries_keep_layers_aligned(orientation):
    sample = Pattern()[1]
    cut = crop_sample(sample, Window(3, 5, 7, 9))
    assert cut["optical"].shape == (3, 7, 9) and is_aligned(cut)
    torch.testing.assert_close(cut["sar"], sample["sar"][:, 3:10, 5:14])
    assert is_aligned(orient_sample(cut, orientation))


def test_the_eight_symmetries_differ_and_begin_with_the_identity():
    sample = crop_sample(Pattern()[0], Window(0, 0, 8, 8))
    turned = [orient_sample(sample, orientation)["sar"] for orientation in range(8)]
    assert torch.equal(turned[0], sample["sar"])
    assert not any(torch.equal(turned[i], turned[j]) for i in range(8) for j in range(i))


@pytest.mark.parametrize("window", [Window(-1, 0, 4, 4), Window(0, 24, 4, 4), Window(21, 0, 4, 4)])
def test_a_window_that_leaves_the_chip_is_refused(window):
    with pytest.raises(FloraError, match="leaves the chip"):
        crop_sample(Pattern()[0], window)


def test_a_crop_depends_on_seed_and_number_only():
    forward = RandomCrops(Pattern(), 8, 20, seed=3)
    kept = [forward[number] for number in range(20)]
    other = RandomCrops(InMemory(Pattern()), 8, 40, seed=3)
    for number in (17, 3, 11):  # any order, another length, another reader
        assert same(other[number], kept[number])
    assert all(is_aligned(crop) and crop["water"].shape == (8, 8) for crop in kept)
    assert not same(RandomCrops(Pattern(), 8, 20, seed=4)[0], kept[0])


def test_every_epoch_visits_every_chip_in_a_new_order():
    crops = RandomCrops(Pattern(count=7), 8, 21, seed=0)
    visited = [crops[number]["meta"]["id"] for number in range(21)]
    epochs = [visited[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == [str(index) for index in range(7)] for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_crops_reach_all_corners_and_orientations():
    dataset = Pattern(count=1, size=9)
    whole = dataset[0]["sar"][0]
    crops = RandomCrops(dataset, 8, 300, seed=0)
    starts = {
        tuple(int(i) for i in np.argwhere((whole == crop["sar"][0, 0, 0]).numpy())[0])
        for crop in (crops[number] for number in range(300))
    }
    # 2 x 5 positions; the first pixel of a turned crop is one of its corners.
    positions = {(row, column) for row in range(2) for column in range(5)}
    offsets = [(0, 0), (0, 7), (7, 0), (7, 7)]
    corners = {(row + down, column + along) for row, column in positions for down, along in offsets}
    assert starts == corners


def test_a_crop_larger_than_a_chip_is_refused_with_the_largest_that_works():
    RandomCrops(Pattern(size=24), 24, 1, seed=0)
    with pytest.raises(FloraError, match="at most 24"):
        RandomCrops(Pattern(size=24), 25, 1, seed=0)


def test_an_empty_dataset_is_refused():
    with pytest.raises(FloraError, match="empty"):
        RandomCrops(Pattern(count=0), 8, 1, seed=0)


def test_in_memory_equals_direct_and_reads_once():
    direct, kept = Pattern(), InMemory(counted := Pattern())
    window = Window(2, 1, 6, 5)
    for _ in range(3):
        assert same(kept[2], direct[2])
        assert same(kept.read(2, window), direct.read(2, window))
    assert counted.reads == 1
    assert kept.manifest_hash() == direct.manifest_hash()
    assert len(kept) == len(direct) and kept.shape(0) == direct.shape(0)


class Counted(Pattern):
    """Chips that count their readings in all processes together."""

    def __init__(self, count: int = 5) -> None:
        super().__init__(count)
        self.total = multiprocessing.Value("i", 0)

    def read(self, index: int, window: Window | None = None) -> Sample:
        with self.total.get_lock():
            self.total.value += 1
        return super().read(index, window)


def crops_of(dataset: FloodDataset, workers: int) -> list[Sample]:
    crops = RandomCrops(dataset, 8, 20, seed=3)
    loader = DataLoader(crops, batch_size=None, num_workers=workers, collate_fn=lambda crop: crop)
    return list(loader)


def test_workers_share_one_cache():
    kept = InMemory(counted := Counted())
    kept.preload(workers=2)
    assert counted.total.value == 5
    direct = crops_of(Pattern(), 0)
    for crops in (crops_of(kept, 2), crops_of(kept, 0)):
        assert all(same(*pair) for pair in zip(crops, direct, strict=True))
    assert counted.total.value == 5
    kept.preload()
    assert counted.total.value == 5
    # Without it, no worker builds a cache of its own.
    kept = InMemory(counted := Counted())
    crops_of(kept, 2)
    assert counted.total.value == 20 and not kept._kept
    # A wrapper passes it on.
    Stretched(kept).preload()
    assert len(kept._kept) == 5


def test_no_more_is_kept_than_there_is_room_for():
    one = sum(layer.nbytes for layer in layers(Pattern()[0]))
    for read in ("preload", "lazily"):
        kept = InMemory(counted := Pattern(), budget=2 * one)
        if read == "preload":
            kept.preload()
        for _ in range(2):
            assert all(same(kept[index], Pattern()[index]) for index in range(5))
        assert len(kept._kept) == 2
        assert counted.reads == 2 + 3 + 3


def test_a_wrapped_dataset_answers_for_what_it_wraps(tmp_path):
    kept = pickle.loads(pickle.dumps(Stretched(InMemory(Pattern()))))
    assert (kept.name, kept.splits, kept.sar_scaling) == ("pattern", ("all",), SENTINEL1)
    assert kept.manifest()[0] == "0 stretched"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = kept.nonsense


def test_indices_wrap_once_like_a_sequence():
    dataset = Pattern(count=3)
    assert same(dataset[-1], dataset[2])
    for index in (3, -4):
        with pytest.raises(IndexError):
            dataset[index]


def test_the_manifest_hash_tells_chips_and_order_apart():
    first, second = Pattern(count=3), Pattern(count=4)
    assert first.manifest_hash() != second.manifest_hash()
    assert first.manifest_hash() == Pattern(count=3).manifest_hash()


def test_collate_stacks_layers_and_lists_meta():
    batch = collate([crop_sample(Pattern()[i], Window(0, 0, 8, 8)) for i in range(2)])
    assert batch["before"].image.shape == (2, 3, 8, 8) and batch["water"].shape == (2, 8, 8)
    assert [meta["id"] for meta in batch["meta"]] == ["0", "1"]
    assert all(isinstance(batch[key], Tensor) for key in LAYERS)
    for number, one in enumerate(map(Pattern().__getitem__, range(2))):
        cut = crop_sample(one, Window(0, 0, 8, 8))["before"]
        for part in EARLIER:
            assert torch.equal(getattr(batch["before"], part)[number], getattr(cut, part))
