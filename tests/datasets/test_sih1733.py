import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flora.datasets import open_dataset
from flora.datasets.base import Window
from flora.datasets.sih1733 import CHIP, Sih1733
from flora.errors import FloraError
from flora.sensors import IGNORE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two small scenes in the real layout: two chips and a remainder that is not used."""
    random = np.random.default_rng(0)
    for number in (1, 2):
        folder = tmp_path / f"Pair-{number}"
        folder.mkdir()
        sar = random.integers(0, 255, (CHIP + 10, 2 * CHIP + 5), dtype=np.uint8)
        colour = random.integers(0, 255, (*sar.shape, 3), dtype=np.uint8)
        Image.fromarray(sar).save(folder / f"SAR-Image-{number}.jpg")
        Image.fromarray(colour).save(folder / f"Optical-Image-{number}.jpg")
    return tmp_path


def test_a_scene_is_cut_into_chips_that_do_not_overlap(root) -> None:
    chips = open_dataset("sih1733", root, "pair-1")
    assert len(chips) == 2
    first, second = chips[0], chips[1]
    assert first["sar"].shape == (1, CHIP, CHIP)
    assert first["optical"].shape == (3, CHIP, CHIP)
    with Image.open(root / "Pair-1/Optical-Image-1.jpg") as picture:
        stored = np.asarray(picture).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(first["optical"], stored[:, :CHIP, :CHIP], atol=1e-6)
    np.testing.assert_allclose(second["optical"], stored[:, :CHIP, CHIP : 2 * CHIP], atol=1e-6)


def test_the_scenes_are_split_whole(root) -> None:
    one, two = (Sih1733(root, split) for split in Sih1733.splits)
    assert not set(one.manifest()) & set(two.manifest())
    assert not torch.equal(one[0]["sar"], two[0]["sar"])


def test_nothing_is_labelled_and_a_window_is_a_part(root) -> None:
    chips = Sih1733(root, "pair-2")
    assert bool((chips[0]["water"] == IGNORE).all())
    part = chips.read(1, Window(3, 7, 32, 40))
    assert torch.equal(part["sar"], chips[1]["sar"][:, 3:35, 7:47])
    assert torch.equal(part["index"], chips[1]["index"][:, 3:35, 7:47])


def test_what_does_not_fit_is_refused(root) -> None:
    with pytest.raises(FloraError, match="no split 'train'; choose pair-1, pair-2"):
        Sih1733(root, "train")
    with pytest.raises(FloraError, match="check the path"):
        Sih1733(root / "absent", "pair-1")
    Image.fromarray(np.zeros((CHIP, CHIP), dtype=np.uint8)).save(root / "Pair-1/SAR-Image-1.jpg")
    with pytest.raises(FloraError, match="must have one size"):
        Sih1733(root, "pair-1")


@pytest.mark.skipif("FLORA_DATA" not in os.environ, reason="FLORA_DATA names no real samples")
def test_real_scenes_make_54_chips_each() -> None:
    folder = Path(os.environ["FLORA_DATA"]) / "sih1733"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for split in Sih1733.splits:
        chips = Sih1733(folder, split)
        assert len(chips) == 54  # 2500 x 1733 px
        assert chips[20]["sar"].abs().mean() < 2
