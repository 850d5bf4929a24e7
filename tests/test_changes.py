import pytest
import torch

from flora.datasets.base import RandomCrops, Window
from flora.datasets.changes import Misaligned, Places, Ranked, Stretched, UnlabelledAsDry
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.sensors import DRY, IGNORE


@pytest.fixture(scope="module")
def chips() -> Simulated:
    return Simulated("train", count=2, size=64)


def brighter(chips: Simulated) -> Simulated:
    """The same chips, 6 dB brighter."""

    class Brighter(Simulated):
        def read(self, index, window=None):
            sample = super().read(index, window)
            return {**sample, "sar": sample["sar"] + 1.2}

    return Brighter("train", count=2, size=64)


@pytest.mark.parametrize("change", [Stretched, Ranked])
def test_a_chip_s_own_scale_hides_its_brightness(chips, change) -> None:
    assert not torch.allclose(chips[0]["sar"], brighter(chips)[0]["sar"])
    torch.testing.assert_close(
        change(chips)[0]["sar"], change(brighter(chips))[0]["sar"], atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("change", [Stretched, Ranked])
def test_a_window_is_cut_from_the_changed_chip(chips, change) -> None:
    window = Window(8, 16, 24, 32)
    whole = change(chips)[0]["sar"][:, 8:32, 16:48]
    assert torch.equal(change(chips).read(0, window)["sar"], whole)


def test_ranks_are_uniform_and_keep_the_order(chips) -> None:
    sar, ranked = chips[0]["sar"][0].flatten(), Ranked(chips)[0]["sar"][0].flatten()
    order = sar.argsort()
    assert bool((ranked[order].diff() >= 0).all())
    assert abs(ranked.mean().item()) < 0.01
    assert abs(ranked.std().item() - 1) < 0.01


def test_misaligned_crops_show_different_ground(chips) -> None:
    window = Window(0, 0, 32, 32)
    right, wrong = chips.read(0, window), Misaligned(chips).read(0, window)
    assert torch.equal(right["sar"], wrong["sar"])
    for layer in ("optical", "water", "before"):
        assert not torch.equal(right[layer], wrong[layer])
    # Image, index and validity of one date stay together.
    assert bool((wrong["index"][0][~wrong["optical_valid"]] == 0).all())
    whole = Misaligned(chips)[0]
    assert torch.equal(whole["water"], chips[0]["water"])


def test_misaligned_crops_are_the_same_in_every_run(chips) -> None:
    first, second = (RandomCrops(Misaligned(chips), 32, 4, seed=0)[3] for _ in range(2))
    assert torch.equal(first["water"], second["water"])


def test_what_has_no_label_becomes_dry(chips) -> None:
    class Partly(Simulated):
        def read(self, index, window=None):
            sample = super().read(index, window)
            sample["water"][:5] = IGNORE
            return sample

    partly = Partly("train", count=1, size=64)
    changed = UnlabelledAsDry(partly)[0]["water"]
    assert bool((changed[:5] == DRY).all())
    assert torch.equal(changed[5:], partly[0]["water"][5:])


def test_changed_chips_have_another_manifest(chips) -> None:
    assert Stretched(chips).manifest_hash() != chips.manifest_hash()


def test_places_hold_out_whole_floods(chips) -> None:
    class Two(Simulated):
        def read(self, index, window=None):
            sample = super().read(index, window)
            sample["meta"]["place"] = "upstream" if index == 0 else "downstream"
            return sample

    two = Two("train", count=2, size=64)
    assert Places(two, ["upstream"]).manifest() == [two.manifest()[0]]
    rest = Places(two, ["upstream"], other=True)
    assert rest.manifest() == [two.manifest()[1]]
    assert rest[0]["meta"]["place"] == "downstream"
    with pytest.raises(FloraError, match=r"places nowhere: not in simulated, which has downstream"):
        Places(two, ["nowhere"])
    with pytest.raises(FloraError, match="no chip of simulated left"):
        Places(two, ["upstream", "downstream"], other=True)
