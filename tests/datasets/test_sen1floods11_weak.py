"""The weak labels on fakes: no real file of them was at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from flora.datasets.base import Window, crop_sample
from flora.datasets.sen1floods11_weak import Sen1Floods11Weak
from flora.errors import FloraError
from tests.support.fake_data import edge_offset, fake_weak, rewrite, same

WEAK = Path("v1.1/data/flood_events/WeaklyLabeled")


@pytest.fixture
def weak(tmp_path) -> Path:
    return fake_weak(tmp_path)


def test_chips_have_no_optical_image_and_one_of_two_labels(weak):
    index, otsu = (
        Sen1Floods11Weak(weak, "train", label=label)[1] for label in Sen1Floods11Weak.label_layers
    )
    assert index["meta"]["id"] == "Spain_3" and index["meta"]["date"] == "2019-09-17"
    for sample in (index, otsu):
        assert not sample["optical_valid"].any()
        assert not sample["optical"].any() and not sample["index"].any()
    assert torch.equal(index["sar"], otsu["sar"])
    assert (index["water"][:, :24] == 1).any() and (otsu["water"][:, :24] != 1).all()
    assert (index["water"][:4, 4:8] == 255).all()
    with pytest.raises(FloraError, match="no label 'LabelHand'; choose S2IndexLabelWeak or"):
        Sen1Floods11Weak(weak, "train", label="LabelHand")


def test_layers_fit_and_a_window_equals_the_crop(weak):
    dataset = Sen1Floods11Weak(weak, "train")
    sample = dataset[2]
    assert edge_offset(sample, "sar") == 0
    window = Window(5, 9, 16, 20)
    assert same(dataset.read(2, window), crop_sample(sample, window))


def test_splits_keep_bolivia_and_a_country_out(weak):
    ids = {
        split: [sample["meta"]["id"] for sample in Sen1Floods11Weak(weak, split)]
        for split in ("train", "train-without-Spain", "only-Spain", "only-Bolivia")
    }
    assert ids == {
        "train": ["Ghana_2", "Spain_3", "Spain_40"],
        "train-without-Spain": ["Ghana_2"],
        "only-Spain": ["Spain_3", "Spain_40"],
        "only-Bolivia": ["Bolivia_1"],
    }
    for split in ("valid", "valid-without-Spain", "only-Cambodia"):
        with pytest.raises(FloraError, match=f"no split '{split}'"):
            Sen1Floods11Weak(weak, split)
    manifests = {
        label: Sen1Floods11Weak(weak, "train", label=label).manifest_hash()
        for label in Sen1Floods11Weak.label_layers
    }
    assert len(set(manifests.values())) == 2


@pytest.mark.parametrize("name", ["S1Weak", "S2IndexLabelWeak"])
def test_chips_are_paired_and_misnamed_ones_refused(weak, name):
    (weak / WEAK / name / f"Spain_3_{name}.tif").rename(weak / WEAK / name / f"Spain_4_{name}.tif")
    with pytest.raises(FloraError, match=r"one of 2 files; complete the download$"):
        Sen1Floods11Weak(weak, "train")
    rest = Sen1Floods11Weak(weak, "train", exclude=("Spain_3", "Spain_4"))
    assert len(rest) == 2
    (weak / WEAK / name / f"Spain_4_{name}.tif").rename(weak / WEAK / name / "Spain_3.tif")
    with pytest.raises(FloraError, match=r"Spain_3.tif: expected a name"):
        Sen1Floods11Weak(weak, "train")


def test_needs_only_the_label_layer_asked_for(weak):
    shutil.rmtree(weak / WEAK / "S1OtsuLabelWeak")
    assert len(Sen1Floods11Weak(weak, "train")) == 3
    with pytest.raises(FloraError, match=r"no folder .*S1OtsuLabelWeak"):
        Sen1Floods11Weak(weak, "train", label="S1OtsuLabelWeak")
    rewrite(weak / WEAK / "S2IndexLabelWeak/Ghana_2_S2IndexLabelWeak.tif", lambda old: old + 2)
    with pytest.raises(FloraError, match="holds label"):
        Sen1Floods11Weak(weak, "train")[0]
