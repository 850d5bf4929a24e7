from __future__ import annotations

from pathlib import Path

import pytest

from flora.datasets import DATASETS, dataset_class, open_dataset
from flora.datasets.pairing import (
    EmptySplitError,
    MissingFilesError,
    complete_chips,
    held_out,
    require_split,
)
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.errors import FloraError
from tests.support.fake_data import (
    fake_deepflood,
    fake_folder,
    fake_ombria,
    fake_sen1floods11,
    fake_sen12ms,
    fake_weak,
)

FAKES = {
    "deepflood": fake_deepflood,
    "ombria": fake_ombria,
    "sen12ms": fake_sen12ms,
    "sen1floods11": fake_sen1floods11,
    "sen1floods11-weak": fake_weak,
}


def test_open_dataset_names_what_it_knows(tmp_path):
    floods = fake_sen1floods11(tmp_path)
    assert isinstance(open_dataset("sen1floods11", floods, "test"), Sen1Floods11)
    with pytest.raises(FloraError, match=r"'floods'.*ombria, sample, sen12ms, sen1floods11"):
        open_dataset("floods", floods, "test")
    with pytest.raises(FloraError, match="pass the folder"):
        open_dataset("ombria", None, "test")
    with pytest.raises(FloraError, match=r"no option sar_dates; it takes require_all, exclude"):
        open_dataset("sen1floods11", floods, "test", sar_dates=("before",))


def test_open_dataset_simulated_needs_no_root(tmp_path):
    dataset = open_dataset("simulated", None, "train", count=1, size=64, seed=1)
    assert dataset[0]["water"].shape == (64, 64)
    with pytest.raises(FloraError, match="leave out root"):
        open_dataset("simulated", tmp_path, "train")


def test_every_dataset_declares_itself():
    # Those without a training split of floods have tests of their own.
    assert set(DATASETS) == {*FAKES, "folder", "sample", "simulated", "sih1733"}
    assert [dataset_class(name).name for name in DATASETS] == list(DATASETS)
    for name in FAKES:
        dataset = dataset_class(name)
        assert dataset.name == name and "train" in dataset.splits
        assert dataset.citation and dataset.urls
        assert (
            set(dataset.label_codes.values()) <= {0, 1, 255} and 1 in dataset.label_codes.values()
        )


@pytest.mark.parametrize(("name", "fake"), [*FAKES.items(), ("folder", fake_folder)])
def test_every_dataset_serves_the_contract(name, fake, tmp_path):
    """The fields of a sample: shapes, types, ranges; what is not valid is 0, and never counted."""
    dataset = open_dataset(name, fake(tmp_path), "train")
    sample = dataset[len(dataset) - 1]
    size = dataset.shape(len(dataset) - 1)
    bands = len(dataset.optical_scaling.bands)
    shapes = {
        "sar": (len(dataset.sar_scaling.bands), *size),
        "sar_valid": size,
        "optical": (bands, *size),
        "optical_valid": size,
        "index": (1, *size),
        "water": size,
    }
    assert {key: tuple(sample[key].shape) for key in shapes} == shapes
    types = [str(sample[key].dtype).removeprefix("torch.") for key in shapes]
    assert types == ["float32", "bool", "float32", "bool", "float32", "int64"]
    assert sample["optical"].min() >= 0 and sample["optical"].max() <= 1
    assert (sample["optical"][:, ~sample["optical_valid"]] == 0).all()
    assert (sample["index"][:, ~sample["optical_valid"]] == 0).all()
    assert (sample["sar"][:, ~sample["sar_valid"]] == 0).all()
    assert (sample["water"][~sample["sar_valid"]] == 255).all()
    assert set(sample["water"].unique().tolist()) <= {0, 1, 255}
    assert sample["meta"]["split"] == "train" and len(dataset.manifest()) == len(dataset)


# Pairing and held-out places


def test_held_out_splits_are_read_by_their_names():
    assert held_out("train-without-Sri-Lanka") == ("train", "Sri-Lanka")
    assert held_out("valid-without-USA") == ("valid", "USA")
    assert held_out("only-Spain") == ("only", "Spain")
    for other in ("train", "test-without-Spain", "only-", "without-Spain"):
        assert held_out(other) is None


def test_a_split_of_an_unknown_place_is_refused():
    require_split("x", "only-A", ("train",), ("A", "B"))
    for split in ("only-C", "dev", "train-without-"):
        with pytest.raises(FloraError, match=f"no split '{split}'; choose train, .* one of A, B"):
            require_split("x", split, ("train",), ("A", "B"))


def test_complete_chips_tells_absent_from_half_there():
    one, two = Path("one.tif"), Path("two.tif")
    missing = {"whole": [], "half": [two], "absent": [one, two]}
    with pytest.raises(
        MissingFilesError, match=r"of 3 chips: two.tif is missing, one of 3"
    ) as error:
        complete_chips(missing, 2, "set", require_all=True)
    assert error.value.missing == {"half": [two], "absent": [one, two]}
    assert error.value.absent == {"absent"}
    with pytest.raises(MissingFilesError, match=r"two.tif is missing, one of 1 files"):
        complete_chips(missing, 2, "set", require_all=False)
    assert complete_chips({"whole": [], "absent": [one, two]}, 2, "set", False) == ["whole"]
    with pytest.raises(EmptySplitError, match="none of the 1 chips"):
        complete_chips({"absent": [one, two]}, 2, "set", require_all=False)
