from dataclasses import replace

import pytest
import torch

from flora.datasets.base import collate
from flora.datasets.simulated import Simulated
from flora.datasets.unlabelled import Unlabelled
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.models.config import FloraConfig
from flora.models.network import Flora
from flora.models.weights import load_any
from flora.training.config import TrainingConfig
from flora.training.recipes import adapt, taught_pairs, with_pairs
from flora.training.teaching import (
    IndexTeacher,
    OpticalWater,
    flora_teacher,
    teach,
    teacher_scores,
)

SHORT = TrainingConfig(steps=2, batch=2, crop=32, mixed_precision="no")
SHAPE = FloraConfig(widths=(8, 16), attention_levels=(1,), window_sizes=(4,), heads=2)


@pytest.fixture(scope="module")
def chips() -> InMemory:
    return InMemory(Simulated("train", count=4, size=64))


@pytest.fixture(scope="module")
def batch(chips):
    return collate([chips[index] for index in range(4)])


@pytest.mark.parametrize("dates", ["after", "both"])
def test_an_optical_teacher_sees_no_radar_and_only_its_dates(batch, dates) -> None:
    torch.manual_seed(0)
    model = OpticalWater(3, dates).eval()
    answer = model(batch).water_logits
    assert torch.equal(model({**batch, "sar": batch["sar"] + 1}).water_logits, answer)
    later = {**batch, "optical": 1 - batch["optical"]}
    earlier = {**batch, "before": replace(batch["before"], image=1 - batch["before"].image)}
    assert not torch.equal(model(later).water_logits, answer)
    assert torch.equal(model(earlier).water_logits, answer) == (dates == "after")


@pytest.mark.parametrize("teacher", ["network", "own", "index"])
def test_no_teacher_speaks_of_what_is_under_cloud(batch, teacher) -> None:
    torch.manual_seed(0)
    asked = {
        "network": OpticalWater(3).teach,
        "own": flora_teacher(Flora(SHAPE)),
        "index": IndexTeacher("NDVI"),
    }[teacher]
    clear = batch["optical_valid"]
    assert not clear.all()
    assert torch.equal(asked(batch)[:, 0].isfinite(), clear)


def test_ndvi_and_colours_give_the_water_index() -> None:
    # Green 0.2, red 0.1, near infrared 0.3: NDVI 0.5, NDWI -0.2.
    image = torch.tensor([0.1, 0.2, 0.05]).view(1, 3, 1, 1)
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    chip = {"optical": image, "index": torch.full((1, 1, 1, 1), 0.5), "optical_valid": valid}
    assert IndexTeacher("NDVI", threshold=-0.21)(chip).item() == 1
    assert IndexTeacher("NDVI", threshold=-0.19)(chip).item() == 0
    assert IndexTeacher("NDWI", threshold=0.49)(chip).item() == 1  # taken as it is
    with pytest.raises(FloraError, match="expected NDVI, NDWI or MNDWI"):
        IndexTeacher("EVI")


def test_new_water_is_what_was_dry_before(batch) -> None:
    before = {**batch, "before": replace(batch["before"], image=batch["optical"])}
    before["before"] = replace(before["before"], index=batch["index"], valid=batch["optical_valid"])
    assert IndexTeacher("NDVI", "after")(before).nansum() > 0
    assert IndexTeacher("NDVI", "both")(before).nansum() == 0  # nothing changed


def test_only_a_sure_teacher_is_heard(chips) -> None:
    words = torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64)
    heard = teach(lambda batch: words, chips, confidence=0.9)[0]
    assert torch.equal(heard.isfinite(), (words[0, 0] >= 0.9) | (words[0, 0] <= 0.1))
    assert all(word.isfinite().all() for word in teach(lambda batch: words, chips, 0.5))
    with pytest.raises(FloraError, match=r"confidence 0\.3"):
        teach(lambda batch: words, chips, 0.3)
    with pytest.raises(FloraError, match="sure of no pixel of 4 pairs"):
        taught_pairs(lambda batch: torch.full_like(words, 0.5), chips)


def test_scores_of_a_teacher_say_what_it_saw(chips) -> None:
    def perfect(batch):
        water = (batch["water"] == 1).float()[:, None]
        return water.masked_fill(~batch["optical_valid"][:, None], torch.nan)

    scores = teacher_scores(perfect, chips)
    assert scores["clear"]["water_iou"] == 1
    assert scores["all"]["water_iou"] < 1  # water under cloud is missed
    assert 0 < scores["seen"] < 1


def test_adapting_learns_from_the_teachers_word_and_no_label(chips, tmp_path) -> None:
    torch.manual_seed(0)
    model = Flora(SHAPE)

    def everywhere(batch):
        return torch.ones_like(batch["water"], dtype=torch.float32)[:, None]

    config = replace(SHORT, steps=30, learning_rate=5e-3)
    blind = Unlabelled(chips)  # labels that could help are not there
    batch = collate([chips[0]])
    start = torch.sigmoid(model(batch["sar"]).water_logits).mean()
    result = adapt(model, blind, tmp_path, teacher=everywhere, training=config, quiet=True)
    water = torch.sigmoid(load_any(result.last)(batch["sar"]).water_logits).mean()
    assert water > max(0.9, start)


def test_pairs_and_labels_train_together(chips, tmp_path) -> None:
    mixed, teacher = with_pairs(
        chips, chips, tmp_path, training=SHORT, dates="both", confidence=0.5, quiet=True
    )
    assert len(mixed) == 8 and isinstance(teacher, OpticalWater)
    assert mixed[7]["taught"].isfinite().any() and mixed[0]["taught"].isnan().all()


def test_a_run_is_not_taken_for_finished_with_another_teachers_word(chips, tmp_path) -> None:
    def says(water):
        return lambda batch: torch.full_like(batch["water"], water, dtype=torch.float32)[:, None]

    def adapted(water):
        torch.manual_seed(0)
        adapt(Flora(SHAPE), chips, tmp_path, teacher=says(water), training=SHORT, quiet=True)

    adapted(1)
    adapted(1)  # the same again: there is nothing to do
    with pytest.raises(FloraError, match="another data"):
        adapted(0)
