"""What lies beside weights serves these weights, and no others."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from flora.errors import FloraError
from flora.models.beside import (
    ChosenThreshold,
    Held,
    calibrated_on,
    calibration_file,
    held_on_real,
    load_calibration,
    load_thresholds,
    save_calibrations,
    save_thresholds,
)
from flora.models.calibration import Calibration
from flora.models.checkpoints import shipped_weights
from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.predictors import SHIPPED_ON, threshold_of, trained_on
from flora.training.tasks import StudentTask

HONEST = Calibration(wet=1, dry=1, shift=0, less=2, more=3, coverage=0.9)


def test_calibrations_lie_beside_their_weights_and_serve_no_others(tmp_path):
    weights = tmp_path / "mine.safetensors"
    shutil.copy(shipped_weights(), weights)
    assert load_calibration(weights) is None
    said = {"interval": {"scenes": 99}}
    assert calibrated_on(weights) == {}
    assert save_calibrations(weights, {"sar": HONEST}, said) == tmp_path / "mine.calibration.json"
    assert calibrated_on(weights) == said
    assert load_calibration(weights) == HONEST
    assert load_calibration(weights, "before") is None
    with weights.open("ab") as file:
        file.write(b" ")
    with pytest.raises(FloraError, match="of other weights"):
        load_calibration(weights)


def test_thresholds_and_calibrations_lie_side_by_side_and_go_with_the_model(tmp_path):
    weights = tmp_path / "mine.safetensors"
    shutil.copy(shipped_weights(), weights)
    own = {"sar": ChosenThreshold(0.3, ("Ebro", "Segura"))}
    save_thresholds(weights, own)
    save_calibrations(weights, {"sar": HONEST}, {}, {"sar": Held(6, 3)})
    assert load_thresholds(weights) == own and load_calibration(weights) == HONEST
    assert held_on_real(weights, "sar") == (6, 3) and held_on_real(weights, "before") is None
    save_thresholds(weights, {"before": own["sar"]})
    assert list(load_thresholds(weights)) == ["before"] and load_calibration(weights) == HONEST

    model = load_model(weights)
    predict = predictor(model)
    assert [threshold_of(predict, mode) for mode in ("sar", "before", "oracle")] == [0.5, 0.3, 0.5]
    assert (trained_on(predictor(load_model())), trained_on(predict)) == (SHIPPED_ON, "simulated")
    StudentTask(model)  # other weights from here on
    assert threshold_of(predict, "before") == 0.5 and trained_on(predict) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"sar": {"value": 0.0, "chosen_on": ["Ebro"]}},
        {"sar": {"value": 1, "chosen_on": ["Ebro"]}},
        {"sar": {"value": "0.1", "chosen_on": ["Ebro"]}},
        {"sar": {"value": 0.1, "chosen_on": []}},
        {"sar": {"value": 0.1}},
        {"radar": {"value": 0.1, "chosen_on": ["Ebro"]}},
    ],
)
def test_a_wrong_threshold_beside_weights_is_refused(tmp_path, wrong):
    weights = tmp_path / "mine.safetensors"
    shutil.copy(shipped_weights(), weights)
    path = save_thresholds(weights, {"sar": ChosenThreshold(0.1, ("Ebro",))})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thresholds": wrong}))
    with pytest.raises(FloraError, match="damaged"):
        load_model(weights)


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"{}", b"\xff", b'{"weights_sha256": "", "modes": {"sar": {"wet": 1}}}']
)
def test_a_damaged_calibration_is_refused(tmp_path, record):
    weights = tmp_path / "mine.safetensors"
    shutil.copy(shipped_weights(), weights)
    calibration_file(weights).write_bytes(record)
    with pytest.raises(FloraError, match="damaged"):
        load_calibration(weights)


def test_the_shipped_calibrations_are_those_of_the_record():
    from tests.test_project import ROOT

    record = json.loads((ROOT / "results/likelihood.json").read_text())
    for mode in ("sar", "before"):
        shipped = load_calibration(shipped_weights(), mode)
        assert vars(shipped) == pytest.approx(record["modes"][mode]["fitted"])
        for found in record["modes"][mode]["simulated"]["intervals"].values():
            # Three standard deviations below what was promised.
            least = shipped.coverage - 3 * np.sqrt(0.9 * 0.1 / found["scenes"])
            assert found["covered"] >= least


def test_the_shipped_threshold_and_what_held_on_real_chips_are_those_of_the_records():
    from tests.test_project import ROOT

    chosen = json.loads((ROOT / "results/real_threshold.json").read_text())
    (own,) = load_thresholds(shipped_weights()).values()
    assert own.value == chosen["ships"] and set(own.chosen_on) == set(chosen["labelled"])
    assert load_thresholds(shipped_weights(2)) == {}
    on_real = json.loads((ROOT / "results/likelihood.json").read_text())["modes"]["sar"]["real"]
    found = on_real["intervals"]["water"]
    held = round(found["covered"] * found["scenes"])
    assert held_on_real(shipped_weights(), "sar") == (found["scenes"], held)
