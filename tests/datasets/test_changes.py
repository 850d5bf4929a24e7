import pytest
import torch
from scipy.ndimage import median_filter

from flora.datasets.base import Window, optical_stack
from flora.datasets.changes import Anchored, Misaligned, Ranked, Shifted, Stretched
from flora.datasets.crops import RandomCrops
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.models.otsu import otsu_change
from flora.sensors import WATER


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


def test_anchored_sar_is_negative_where_otsu_finds_flood(chips) -> None:
    class TwoDates(Simulated):
        """The same ground, darker where water came."""

        def read(self, index, window=None):
            sample = super().read(index, window)
            after = sample["sar"][1]
            before = torch.where(sample["water"] == WATER, after + 2.0, after)
            return {**sample, "sar": torch.stack([before, after])}

    dates = TwoDates("train", count=2, size=64)
    sample, anchored = dates[0], Anchored(dates)[0]["sar"]
    before, after = sample["sar"]
    # A threshold a chip and channel is taken off, nothing else.
    for channel, source in enumerate((after, after - before)):
        threshold = source - anchored[channel]
        torch.testing.assert_close(threshold, threshold.flatten()[0].expand(64, 64))
    batch = {"sar": sample["sar"][None], "sar_valid": sample["sar_valid"][None]}
    found = otsu_change(median=9)(batch["sar"], batch["sar_valid"], None).water[0, 0] > 0.5
    smooth_before, smooth_after = (
        torch.from_numpy(median_filter(date.numpy(), 9)) for date in (before, after)
    )
    dark, darker = (torch.stack([after, after - before]) - anchored)[:, 0, 0]
    assert torch.equal(found, (smooth_after < dark) & (smooth_after - smooth_before < darker))
    water = sample["water"] == WATER
    assert (found & water).sum() > 0.5 * (found | water).sum()

    # What a publisher adds to the image after is gone from it.
    class Brighter(TwoDates):
        def read(self, index, window=None):
            sample = super().read(index, window)
            return {**sample, "sar": sample["sar"] + torch.tensor([0.5, 1.2])[:, None, None]}

    other = Anchored(Brighter("train", count=2, size=64))[0]["sar"]
    torch.testing.assert_close(other[0], anchored[0], atol=2e-2, rtol=0)
    window = Window(8, 16, 24, 32)
    assert torch.equal(Anchored(dates).read(0, window)["sar"], anchored[:, 8:32, 16:48])


def test_anchored_sar_needs_two_dates(chips) -> None:
    class One(Simulated):
        def read(self, index, window=None):
            sample = super().read(index, window)
            return {**sample, "sar": sample["sar"][:1]}

    with pytest.raises(FloraError, match=r"SAR image of 1 band\(s\): expected one before"):
        Anchored(One("train", count=1, size=64))[0]


def test_misaligned_crops_show_different_ground(chips) -> None:
    window = Window(0, 0, 32, 32)
    right, wrong = chips.read(0, window), Misaligned(chips).read(0, window)
    assert torch.equal(right["sar"], wrong["sar"])
    for layer in ("optical", "water"):
        assert not torch.equal(right[layer], wrong[layer])
    assert not torch.equal(right["before"].image, wrong["before"].image)
    # Image, index and validity of one date stay together.
    assert bool((wrong["index"][0][~wrong["optical_valid"]] == 0).all())
    whole = Misaligned(chips)[0]
    assert torch.equal(whole["water"], chips[0]["water"])


def test_misaligned_crops_are_the_same_in_every_run(chips) -> None:
    first, second = (RandomCrops(Misaligned(chips), 32, 4, seed=0)[3] for _ in range(2))
    assert torch.equal(first["water"], second["water"])


def test_shifted_images_leave_radar_and_label_where_they_are() -> None:
    chips = Simulated("train", count=4, size=64, cloud=0.0)
    offsets = []
    for index, chip in enumerate(chips):
        shifted = Shifted(chips)[index]
        for layer in ("sar", "sar_valid", "water"):
            assert torch.equal(shifted[layer], chip[layer])
        for mode in ("oracle", "before"):
            was, now = optical_stack(chip, mode), optical_stack(shifted, mode)
            assert now.of_flood == was.of_flood
            rows, columns = now.valid.nonzero().T
            # Nothing is cloudy: what is not valid came in from beyond the edge.
            down, right = ((low + high - 63) for low, high in (rows.aminmax(), columns.aminmax()))
            assert sorted((abs(int(down)), abs(int(right)))) == [0, 4]
            before = was.image[:, rows - down, columns - right]
            assert torch.equal(now.image[:, rows, columns], before)
            offsets.append((int(down), int(right)))
    assert offsets[::2] == offsets[1::2] and len(set(offsets)) == 4
    window = Window(8, 16, 24, 32)
    part, whole = Shifted(chips).read(0, window), Shifted(chips)[0]
    assert torch.equal(part["optical"], whole["optical"][:, 8:32, 16:48])


def test_changed_chips_have_another_manifest(chips) -> None:
    assert Stretched(chips).manifest_hash() != chips.manifest_hash()
