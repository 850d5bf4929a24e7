import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.experiments.provenance import write_record
from flora.predictors import MODES, Mode, Prediction
from flora.sensors import WATER, OpticalStack
from flora.training.evaluation import choose_device, evaluate, mean_image


@pytest.fixture(scope="module")
def chips() -> InMemory:
    return InMemory(Simulated("test", count=3, size=64))


class Truth:
    """A predictor that knows the chips, which are asked one after the other."""

    def __init__(self, chips: InMemory) -> None:
        self.samples = [chips[index] for index in range(len(chips))]

    def __call__(self, sar: Tensor, valid: Tensor, guide: OpticalStack | None, /) -> Prediction:
        sample = self.samples.pop(0)
        torch.testing.assert_close(sar[0], sample["sar"])
        return Prediction((sample["water"] == WATER).float()[None, None], sample["optical"][None])


def test_the_truth_scores_full_marks_and_its_opposite_none(chips: InMemory) -> None:
    perfect = evaluate(Truth(chips), chips)["all"]
    assert perfect["water_iou"] == perfect["miou"] == 1.0
    assert perfect["psnr"] == 100.0 and perfect["ssim"] == pytest.approx(1.0)
    truth = Truth(chips)
    opposite = evaluate(lambda *asked: Prediction(1 - truth(*asked).water), chips)["all"]
    assert opposite["water_iou"] == 0.0 and "psnr" not in opposite


def test_the_constant_image_scores_as_the_constant_baseline(chips: InMemory) -> None:
    colour, truth = mean_image(chips), Truth(chips)

    def predict(*asked: Any) -> Prediction:
        water, rgb = truth(*asked)
        return Prediction(water, colour.view(1, -1, 1, 1).expand_as(rgb))

    scores = evaluate(predict, chips, mean_image=colour)["all"]
    assert scores["psnr"] == pytest.approx(scores["psnr_constant"], abs=1e-3)
    assert scores["ssim"] == pytest.approx(scores["ssim_constant"], abs=1e-3)


def test_the_threshold_counts(chips: InMemory) -> None:
    def half(sar: Tensor, *_: Any) -> Prediction:
        return Prediction(torch.full_like(sar[:, :1], 0.4))

    assert evaluate(half, chips, threshold=0.5)["all"]["recall"] == 0.0
    assert evaluate(half, chips, threshold=0.3)["all"]["recall"] == 1.0


@pytest.mark.parametrize("mode", MODES)
def test_a_predictor_is_shown_the_image_of_the_mode(chips: InMemory, mode: Mode) -> None:
    shown = []

    def predict(sar: Tensor, valid: Tensor, guide: OpticalStack | None, /) -> Prediction:
        shown.append(guide)
        return Prediction(torch.zeros_like(sar[:, :1]))

    evaluate(predict, chips, mode)
    for guide, chip in zip(shown, (chips[i] for i in range(len(chips))), strict=True):
        assert (guide is None) == (mode == "sar")
        if guide is not None:
            image = chip["before"].image if mode == "before" else chip["optical"]
            assert torch.equal(guide.image[0], image)


def test_places_add_up(chips: InMemory) -> None:
    scores = evaluate(Truth(chips), chips)
    total = sum(row["pixels_scored"] for row in scores["places"].values())
    assert total == scores["all"]["pixels_scored"] > 0


def test_mean_image_reads_valid_pixels_only(chips: InMemory) -> None:
    values = torch.cat(
        [chips[i]["optical"][:, chips[i]["optical_valid"]] for i in range(len(chips))], dim=1
    )
    torch.testing.assert_close(mean_image(chips), values.mean(dim=1))
    assert not torch.allclose(
        mean_image(chips),
        torch.stack([c["optical"].mean((1, 2)) for c in chips]).mean(0),  # type: ignore[attr-defined]
    )


def test_an_empty_split_and_an_absent_device_are_refused() -> None:
    class Empty(InMemory):
        def __len__(self) -> int:
            return 0

    with pytest.raises(FloraError, match="the split is empty"):
        evaluate(lambda *_: Prediction(torch.zeros(1)), Empty(Simulated("test", count=1, size=64)))
    with pytest.raises(FloraError, match="'abacus' cannot be used"):
        choose_device("abacus")
    assert choose_device("cpu").type == "cpu"


def test_a_record_says_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "results" / "record.json"
    write_record(path, {"score": 0.5})
    record = json.loads(path.read_text())
    assert record["score"] == 0.5
    source = record["provenance"]
    assert source["commit"] is None or len(source["commit"].removesuffix("+changes")) == 40
    assert source["hardware"]["cores"] >= 1 and "torch" in source["versions"]
