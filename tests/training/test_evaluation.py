import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flora.datasets.base import Batch, InMemory
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.experiments.provenance import write_record
from flora.sensors import WATER
from flora.training.evaluation import choose_device, evaluate, mean_image


@pytest.fixture(scope="module")
def chips() -> InMemory:
    return InMemory(Simulated("test", count=3, size=64))


def truth(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch["optical"], (batch["water"] == WATER).float().unsqueeze(1)


def test_the_truth_scores_full_marks_and_its_opposite_none(chips: InMemory) -> None:
    perfect = evaluate(truth, chips)["all"]
    assert perfect["water_iou"] == perfect["miou"] == 1.0
    assert perfect["psnr"] == 100.0 and perfect["ssim"] == pytest.approx(1.0)
    opposite = evaluate(lambda batch: (None, 1 - truth(batch)[1]), chips)["all"]
    assert opposite["water_iou"] == 0.0 and "psnr" not in opposite


def test_the_constant_image_scores_as_the_constant_baseline(chips: InMemory) -> None:
    colour = mean_image(chips)
    constant = colour.view(1, -1, 1, 1)

    def predict(batch: Batch) -> tuple[Tensor, Tensor]:
        return constant.expand_as(batch["optical"]), truth(batch)[1]

    scores = evaluate(predict, chips, mean_image=colour)["all"]
    assert scores["psnr"] == pytest.approx(scores["psnr_constant"], abs=1e-3)
    assert scores["ssim"] == pytest.approx(scores["ssim_constant"], abs=1e-3)


def test_the_threshold_counts(chips: InMemory) -> None:
    def half(batch: Batch) -> tuple[None, Tensor]:
        return None, torch.full_like(truth(batch)[1], 0.4)

    assert evaluate(half, chips, threshold=0.5)["all"]["recall"] == 0.0
    assert evaluate(half, chips, threshold=0.3)["all"]["recall"] == 1.0


def test_places_add_up(chips: InMemory) -> None:
    scores = evaluate(truth, chips)
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
        evaluate(truth, Empty(Simulated("test", count=1, size=64)))
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
