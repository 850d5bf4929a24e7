import json
from dataclasses import replace

import pytest

from flora.catalogue import SIMULATED
from flora.errors import FloraError
from flora.experiments import Runner, Source, recorded_trials, summary
from flora.records import load_record


@pytest.fixture
def small():
    return replace(
        SIMULATED,
        train=Source("simulated", "train", {"count": 2, "size": 64}),
        tests={"test": Source("simulated", "test", {"count": 1, "size": 64})},
        competitors={
            name: SIMULATED.competitors[name] for name in ("flora", "unet_water", "otsu_vh")
        },
        training=replace(SIMULATED.training, steps=2, batch=2, crop=32, checkpoint_every=1),
        teacher_steps=1,
        seeds=(0, 1),
    )


def runner(small, tmp_path):
    return Runner("small", small, None, tmp_path / "runs", tmp_path / "results", quiet=True)


def read(path):
    return load_record(path.stem, path.parent)


def test_a_record_holds_what_is_needed_to_believe_it(small, tmp_path) -> None:
    record = read(runner(small, tmp_path).run())
    assert record["trials_done"] == record["trials_planned"] == 5  # Otsu learns nothing: once
    trial = record["trials"]["flora-1"]
    assert {"sar", "before", "oracle"} == trial["scores"]["test"].keys()
    assert trial["provenance"]["hardware"]["cores"] >= 1
    assert trial["wall_s"]["training"] >= 0
    assert trial["peak_memory_mb"] > 0
    assert len(record["train"]["ids"]) == 2
    assert len(record["train"]["sha256"]) == 64
    scores = record["competitors"]["flora"]["scores"]["test"]["sar"]["water_iou"]
    values = [
        record["trials"][f"flora-{s}"]["scores"]["test"]["sar"]["all"]["water_iou"] for s in (0, 1)
    ]
    assert scores["n"] == 2
    assert scores["mean"] == pytest.approx(sum(values) / 2, abs=1e-4)


def test_a_finished_trial_is_not_run_again(small, tmp_path, monkeypatch) -> None:
    first = runner(small, tmp_path)
    first.run(only=["unet_water"], seeds=[0])
    ran = []
    again = runner(small, tmp_path)
    original = again._run
    monkeypatch.setattr(again, "_run", lambda trial: ran.append(trial.name) or original(trial))
    again.run(only=["unet_water"])
    assert ran == ["unet_water-1"]
    # The record alone is enough: weights and logs may be gone.
    elsewhere = Runner("small", small, None, tmp_path / "other", tmp_path / "results", quiet=True)
    monkeypatch.setattr(elsewhere, "_run", lambda trial: pytest.fail(f"{trial.name} ran again"))
    elsewhere.run(only=["unet_water"])


def test_an_interrupted_trial_continues(small, tmp_path, monkeypatch) -> None:
    whole = runner(small, tmp_path / "whole")
    expected = read(whole.run(only=["unet_water"], seeds=[0]))

    import flora.training

    broken = runner(small, tmp_path / "broken")
    original = flora.training._save

    def stop(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(flora.training, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        broken.run(only=["unet_water"], seeds=[0])
    monkeypatch.setattr(flora.training, "_save", original)
    assert recorded_trials(tmp_path / "broken/results/small.json") == {}
    record = read(broken.run(only=["unet_water"], seeds=[0]))
    trial = record["trials"]["unet_water-0"]
    assert trial["wall_s"]["training_was_resumed"]
    assert trial["scores"] == expected["trials"]["unet_water-0"]["scores"]


def test_unknown_names_are_refused_with_the_known_ones(small, tmp_path) -> None:
    with pytest.raises(FloraError, match="competitors unett: small has flora, unet_water"):
        runner(small, tmp_path).run(only=["unett"])
    with pytest.raises(FloraError, match="seeds 7: small is defined for 0, 1"):
        runner(small, tmp_path).run(seeds=[7])
    with pytest.raises(FloraError, match="run `flora experiment absent`"):
        load_record("absent", tmp_path)


def test_real_data_needs_a_root(small, tmp_path) -> None:
    real = replace(small, train=Source("ombria", "train"))
    with pytest.raises(FloraError, match="holds ombria/ as --root"):
        runner(real, tmp_path).run()


def test_summary_worked_out_by_hand() -> None:
    trials = [{"test": {"sar": {"all": {"miou": value}}}} for value in (0.5, 0.6, 0.7)]
    scores = summary(trials)["test"]["sar"]["miou"]
    assert scores == {"mean": 0.6, "sd": 0.1, "n": 3}
    assert summary(trials[:1])["test"]["sar"]["miou"]["sd"] is None


def test_records_of_this_repository_are_those_of_the_catalogue() -> None:
    from pathlib import Path

    from flora.catalogue import EXPERIMENTS, ON_A_GPU

    for path in sorted((Path(__file__).parent.parent / "results").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "experiment" in record:
            experiment = (EXPERIMENTS | ON_A_GPU)[record["experiment"]]
            assert record["training"]["steps"] == experiment.training.steps
            assert set(record["competitors"]) <= set(experiment.competitors)
            for trial in record["trials"].values():
                assert not trial["provenance"]["commit"].endswith("+changes")
