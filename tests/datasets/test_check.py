from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from flora.datasets.check import CheckReport, check_dataset
from flora.errors import FloraError
from tests.support.fake_data import (
    fake_deepflood,
    fake_ombria,
    fake_ombria_2021,
    fake_scene,
    fake_sen1floods11,
    fake_sen12ms,
    fake_weak,
    north_up,
    rewrite,
    write_picture,
    write_raster,
)

HAND = Path("v1.1/data/flood_events/HandLabeled")
SPAIN = "Spain_7370579"
FAKES = {
    "deepflood": fake_deepflood,
    "ombria": fake_ombria,
    "sen12ms": fake_sen12ms,
    "sen1floods11": fake_sen1floods11,
    "sen1floods11-weak": fake_weak,
}


@pytest.fixture
def floods(tmp_path) -> Path:
    return fake_sen1floods11(tmp_path)


def layer(root: Path, name: str, chip: str = SPAIN) -> Path:
    return root / HAND / name / f"{chip}_{name}.tif"


def text(report: CheckReport) -> str:
    out = io.StringIO()
    Console(width=200, file=out).print(report.table())
    return out.getvalue()


def chips(report: CheckReport) -> dict[tuple[str, str], int]:
    return {key: count.chips for key, count in report.places.items()}


@pytest.mark.parametrize("name", FAKES)
def test_a_good_dataset_has_no_problems(name, tmp_path):
    report = check_dataset(name, FAKES[name](tmp_path))
    assert report.problems == []
    assert sum(chips(report).values()) > 3
    assert any(note.startswith("mean of the first radar band") for note in report.notes)


def test_scenes_without_labels_are_checked_too(tmp_path):
    scene = fake_scene(0, 300)
    grey = (scene["sar"][0] * 5 + 150).clip(0, 255).astype(np.uint8)
    write_picture(tmp_path / "Pair-2" / "SAR-Image-2.jpg", grey)
    colour = np.stack([grey, grey // 2, grey // 3], axis=-1)
    write_picture(tmp_path / "Pair-2" / "Optical-Image-2.jpg", colour)
    report = check_dataset("sih1733", tmp_path)
    assert report.problems == [] and chips(report) == {("pair-2", "pair-2"): 1}
    (tmp_path / "Pair-2" / "SAR-Image-2.jpg").unlink()
    assert "SAR-Image-2.jpg" in check_dataset("sih1733", tmp_path).problems[0]


def test_counts_by_split_and_place(floods):
    report = check_dataset("sen1floods11", floods)
    assert chips(report) == {
        ("train", "Ghana"): 1, ("train", "Sri-Lanka"): 1, ("train", "USA"): 1,
        ("valid", "Ghana"): 1, ("valid", "Mekong"): 1,
        ("test", "Spain"): 1, ("test", "Ghana"): 1, ("bolivia", "Bolivia"): 1,
    }  # fmt: skip
    # 16 px without radar and 16 without label of 48 x 48; 30 % of the pixels are water.
    for count in report.places.values():
        assert count.pixels - count.water - count.dry == 32
        assert count.water / count.pixels == pytest.approx(0.3, abs=0.02)
        assert count.optical == count.pixels
    printed = text(report)
    assert "Mekong" in printed and "1.4%" in printed


def test_progress_is_told(floods):
    seen: list[tuple[int, int]] = []
    check_dataset("sen1floods11", floods, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2), (1, 2), (2, 2), (1, 1)]


# Each kind of problem, and nothing else


def spoil(values, where, what):
    values[where] = what
    return values


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("S1Hand", lambda old: spoil(old, (0, 30, 30), 61), "1 of 4576 values lie outside -100 to"),
        ("S1Hand", lambda old: spoil(old, (1, 30, 30), -101), "outside -100 to 60 dB .from -101 "),
        ("S1Hand", lambda old: old * np.nan, "nodata only"),
        ("S1Hand", lambda old: spoil(old, (0, 9, 9), -np.inf), "infinite values"),
        ("S1Hand", lambda old: np.float32(10) ** (old / 10), "looks like linear power"),
        ("S2Hand", lambda old: old * 0, "holds nodata only: exclude this chip"),
        ("S2Hand", lambda old: spoil(old, (slice(None), 5), 31_000), "outside 0 to 3 reflectance"),
        ("S2Hand", lambda old: old[:12], "12 bands: expected 13"),
        ("LabelHand", lambda old: spoil(old, (0, 9, 9), 2), "holds label 2"),
    ],
)
def test_one_bad_chip_is_one_problem(floods, name, change, message):
    rewrite(layer(floods, name), change)
    report = check_dataset("sen1floods11", floods)
    assert len(report.problems) == 1 and SPAIN in report.problems[0]
    assert re.search(message, report.problems[0]), report.problems


def test_a_few_glints_are_physics(floods):
    """Two pixels of 48 x 48 in 13 bands are 0.007 % of the values."""
    rewrite(layer(floods, "S2Hand"), lambda old: spoil(old, (0, 5, slice(2)), 31_000))
    assert check_dataset("sen1floods11", floods).problems == []


@pytest.mark.parametrize("name", ["S1Hand", "S2Hand", "LabelHand"])
def test_a_missing_file_does_not_stop_the_check(floods, name):
    layer(floods, name).unlink()
    report = check_dataset("sen1floods11", floods)
    assert len(report.problems) == 1
    assert re.search(rf"'test': {SPAIN} is incomplete: no .*_{name}.tif", report.problems[0])
    assert chips(report)["test", "Ghana"] == 1 and len(report.places) == 7


def test_a_place_may_be_left_out_but_not_half_of_it(floods):
    for name in ("S1Hand", "S2Hand", "LabelHand"):
        for chip in ("USA_9", "Ghana_103272", "Ghana_5079", "Bolivia_103757"):
            layer(floods, name, chip).unlink()
    report = check_dataset("sen1floods11", floods)
    (problem,) = report.problems
    assert problem.startswith("2 chips of Ghana are missing, the first is ")
    assert "nothing of USA is there (1 chips)" in report.notes
    assert "nothing of Bolivia is there (1 chips)" in report.notes
    assert len(report.places) == 4


def test_unreadable_files_and_other_grids(floods):
    path = layer(floods, "S2Hand")
    path.write_bytes(path.read_bytes()[:600])
    label = np.zeros((1, 48, 48), np.int16)
    write_raster(layer(floods, "LabelHand", "USA_9"), label, transform=north_up(-0.7, 38.12))
    problems = check_dataset("sen1floods11", floods).problems
    assert len(problems) == 2
    assert "USA_9" in problems[0] and "different grids" in problems[0]
    assert SPAIN in problems[1] and "cannot read" in problems[1]


def test_a_chip_in_two_splits_is_a_leak(floods):
    listing = floods / "v1.1/splits/flood_handlabeled/flood_test_data.csv"
    listing.write_text(listing.read_text() + "USA_9_S1Hand.tif,USA_9_LabelHand.tif\n")
    assert check_dataset("sen1floods11", floods).problems == [
        "USA_9 is in two splits, train and test"
    ]


@pytest.mark.parametrize("name", ["sen1floods11", "deepflood"])
def test_labels_that_do_not_fit_the_radar_are_told(name, tmp_path):
    """Swapped codes: 0 and 1 of Sen1Floods11, 1 and 2 of DeepFlood."""
    root = FAKES[name](tmp_path)
    masks = root.rglob("LabelHand/*.tif") if name == "sen1floods11" else root.rglob("Mask/*.tif")
    swap = {0: 1, 1: 0} if name == "sen1floods11" else {1: 2, 2: 1}
    for path in list(masks):
        rewrite(path, lambda old: np.vectorize(lambda code: swap.get(code, code))(old).astype("i2"))
    (problem,) = check_dataset(name, root).problems
    assert "is no darker in radar than" in problem and "swapped codes" in problem


def test_deepflood_shows_its_classes(tmp_path):
    report = check_dataset("deepflood", fake_deepflood(tmp_path))
    (means,) = [note for note in report.notes if note.startswith("mean of the first")]
    found = dict(re.findall(r"(inundated vegetation|dry vegetation|open water) (-?[\d.]+)", means))
    assert float(found["inundated vegetation"]) == pytest.approx(-5, abs=0.5)
    assert float(found["dry vegetation"]) == pytest.approx(-8, abs=0.5)
    assert float(found["open water"]) == pytest.approx(-19, abs=0.5)
    assert any("never opened on real files" in note for note in report.notes)


def test_options_reach_the_dataset(tmp_path):
    root = fake_deepflood(tmp_path)
    for path in [*root.rglob("SAR*/*.tif")]:
        rewrite(path, lambda old: np.float32(10) ** (old / 10))
    assert len(check_dataset("deepflood", root).problems) == 6
    assert check_dataset("deepflood", root, units="linear").problems == []


def test_sen12ms_says_that_it_has_no_flood(tmp_path):
    root = fake_sen12ms(tmp_path)
    shutil.rmtree(root / "ROIs1970_fall/lc_139")
    report = check_dataset("sen12ms", root)
    assert report.problems == []
    assert any("no flood truth" in note for note in report.notes)
    assert any("1 of 1 patches have no land cover" in note for note in report.notes)
    count = report.places["valid", "ROIs1970_fall_139"]
    assert count.water + count.dry == 0 and count.optical == count.pixels


def test_weak_labels_are_both_checked(tmp_path):
    root = fake_weak(tmp_path)
    assert chips(check_dataset("sen1floods11-weak", root)) == {
        (f"{split}, {label}", place): count
        for label in ("S2IndexLabelWeak", "S1OtsuLabelWeak")
        for split, place, count in (
            ("train", "Ghana", 1), ("train", "Spain", 2), ("only-Bolivia", "Bolivia", 1)
        )
    }  # fmt: skip
    shutil.rmtree(root / "v1.1/data/flood_events/WeaklyLabeled/S2IndexLabelWeak")
    assert len(check_dataset("sen1floods11-weak", root).places) == 3


def test_ombria_official_and_2021(tmp_path):
    root = fake_ombria_2021(tmp_path)
    assert {split for split, _ in check_dataset("ombria", root).places} == {"2021"}
    report = check_dataset("ombria", fake_ombria(root))
    assert {split for split, _ in report.places} == {"train", "valid", "test", "2021"}
    (root / "OmbriaS1/train/AFTER/S1_after_0005.png").unlink()
    (problem,) = check_dataset("ombria", root).problems
    assert "chip 5 has no picture" in problem


def test_a_wrong_folder_is_one_problem(tmp_path):
    for name in FAKES:
        assert len(check_dataset(name, tmp_path / "nowhere").problems) == 1
    with pytest.raises(FloraError, match="nothing to check"):
        check_dataset("simulated", tmp_path)
    with pytest.raises(FloraError, match="no dataset 'floods'"):
        check_dataset("floods", tmp_path)


# The real files


def test_real_sen1floods11(flora_data):
    report = check_dataset("sen1floods11", flora_data / "sen1floods11")
    assert chips(report) == {("test", "Spain"): 1}
    (problem,) = report.problems
    assert problem.startswith("29 chips of Spain are missing")
    absent = [re.fullmatch(r"nothing of .* is there .(\d+) chips.", note) for note in report.notes]
    assert (
        sum(int(match[1]) for match in absent if match) == 446 - 30 - 1
    )  # one is known to be damaged
    assert "mean of the first radar band, dB: dry land -9.3, water -17.0" in report.notes


def test_real_sen12ms(flora_data):
    report = check_dataset("sen12ms", flora_data / "sen12ms")
    assert report.problems == [] and chips(report) == {("valid", "ROIs1970_fall_139"): 1}
