from dataclasses import replace

import pytest
import torch

from flora.datasets.base import Window, collate
from flora.datasets.crops import RandomCrops
from flora.datasets.simulated import Simulated
from flora.datasets.unlabelled import Chosen, Mixed, Unlabelled, drawn
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError


@pytest.fixture(scope="module")
def chips() -> InMemory:
    return InMemory(Simulated("train", count=9, size=64))


def test_a_smaller_draw_is_part_of_a_larger_one_and_another_seed_draws_others(chips) -> None:
    small, large = drawn(chips, 3, seed=0).manifest(), drawn(chips, 6, seed=0).manifest()
    assert small == large[:3] and len(set(large)) == 6
    assert set(drawn(chips, 3, seed=1).manifest()) != set(small)
    for count in (0, 10):
        with pytest.raises(FloraError, match="has 9 chips to draw from"):
            drawn(chips, count, seed=0)
    with pytest.raises(FloraError, match="has chips 0 to 8"):
        Chosen(chips, [9])


def test_no_label_of_an_unlabelled_chip_is_read(chips) -> None:
    assert (chips[0]["water"] != 255).any()
    taught = [torch.full((64, 64), number / 10) for number in range(9)]
    hidden = Unlabelled(chips, taught)
    window = Window(8, 16, 24, 32)
    sample = hidden.read(3, window)
    assert sample["water"].unique().tolist() == [255]
    assert sample["taught"].shape == (24, 32) and sample["taught"].unique().item() == pytest.approx(
        0.3
    )
    assert torch.equal(sample["sar"], chips.read(3, window)["sar"])
    with pytest.raises(FloraError, match="1 maps for 9 chips"):
        Unlabelled(chips, taught[:1])


def test_crops_turn_what_is_taught_with_the_image(chips) -> None:
    # What is taught is the first SAR band itself: after any crop and turn it must be so still.
    hidden = Unlabelled(chips, [chips[index]["sar"][0] for index in range(9)])
    crops = RandomCrops(hidden, 32, 16, seed=0)
    for number in range(16):
        assert torch.equal(crops[number]["taught"], crops[number]["sar"][0])


@pytest.mark.parametrize(("labelled", "share"), [(2, 0.5), (9, 0.5), (3, 0.75), (9, 0.2)])
def test_an_epoch_holds_the_share_and_every_chip(chips, labelled: int, share: float) -> None:
    mixed = Mixed(drawn(chips, labelled, seed=0), Unlabelled(chips), share)
    hidden = [name.startswith("unlabelled ") for name in mixed.manifest()]
    assert sum(hidden) / len(mixed) == pytest.approx(share, abs=0.05)
    assert len(set(mixed.manifest())) == labelled + 9
    batch = collate([mixed[0], mixed[len(mixed) - 1]])
    assert batch["taught"].shape == (2, 64, 64)
    assert (batch["water"][0] != 255).any() and (batch["water"][1] == 255).all()


def test_what_does_not_belong_together_is_refused(chips) -> None:
    with pytest.raises(FloraError, match="share 1: expected"):
        Mixed(chips, Unlabelled(chips), 1)
    other = Simulated("train", count=2, size=64, sar_dates=("before", "after"))
    with pytest.raises(FloraError, match="another sar_scaling"):
        Mixed(chips, Unlabelled(other))
    scaled = Simulated("train", count=2, size=64)
    scaled.optical_scaling = replace(scaled.optical_scaling, white=1.0)
    with pytest.raises(FloraError, match="another optical_scaling"):
        Mixed(chips, Unlabelled(scaled))


def test_pairs_without_an_image_from_before_have_an_invalid_one(chips) -> None:
    class Latest(Unlabelled):
        def read(self, index, window=None):
            sample = super().read(index, window)
            del sample["before"]
            return sample

    mixed = Mixed(chips, Latest(chips))
    batch = collate([mixed[0], mixed[len(mixed) - 1]])
    assert batch["before"].valid[0].any() and not batch["before"].valid[1].any()
