import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from flora.cli import data as cli_data
from flora.cli.main import app
from flora.datasets import open_dataset
from flora.datasets.ombria import Ombria
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.errors import FloraError
from flora.experiments.catalogue import (
    EXPERIMENTS,
    HELD_OUT_FLOODS,
    OMBRIA,
    SIMULATED,
    named_experiment,
)
from flora.experiments.records import load_record
from flora.experiments.runner import Runner, Source, recorded_trials, summary
from tests.support.fake_data import fake_deepflood, fake_ombria, fake_sen1floods11, fake_sen12ms
from tests.support.servers import below, http_server, serve_bucket, without_proxy


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

    import flora.training.fit

    broken = runner(small, tmp_path / "broken")
    original = flora.training.fit.save_run

    def stop(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(flora.training.fit, "save_run", stop)
    with pytest.raises(KeyboardInterrupt):
        broken.run(only=["unet_water"], seeds=[0])
    monkeypatch.setattr(flora.training.fit, "save_run", original)
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


def test_a_mode_that_no_test_chip_can_give_is_refused_before_training(tmp_path) -> None:
    chips = Source("sen1floods11", "test", {"require_all": False})
    fake_sen1floods11(tmp_path / "sen1floods11", size=64)
    experiment = replace(
        named_experiment("sim_to_real"),
        train=Source("simulated", "train", {"count": 2, "size": 64}),
        tests={"real": chips},
        competitors={"flora": SIMULATED.competitors["flora"]},
    )
    folders = tmp_path / "runs", tmp_path / "results"
    with pytest.raises(FloraError, match=r"flora: .* the chips of real"):
        Runner("x", experiment, tmp_path, *folders).run()
    assert not folders[0].exists()


def test_the_catalogue_asks_for_no_such_mode() -> None:
    for name, experiment in EXPERIMENTS.items():
        pairs = {test.dataset for test in experiment.tests.values()}
        if not pairs <= {"simulated", "ombria"}:
            asked = {mode for c in experiment.competitors.values() for mode in c.modes}
            assert "before" not in asked, name


def test_real_data_needs_a_root(small, tmp_path) -> None:
    real = replace(small, train=Source("ombria", "train"))
    with pytest.raises(FloraError, match="holds ombria/ as --root"):
        runner(real, tmp_path).run()


FAKE = {
    "sen1floods11": (fake_sen1floods11, {"official", "Bolivia"}),
    "sen12ms": (fake_sen12ms, {"official"}),
    "deepflood": (fake_deepflood, {"held-out site"}),
}


def shortened(name):
    """An experiment of the catalogue in all but its length and size."""
    asked = named_experiment(name)
    short = replace(asked.training, steps=2, batch=2, crop=32, workers=0, checkpoint_every=2)
    return replace(asked, training=short, teacher_steps=1, size="tiny", seeds=(0,))


@pytest.mark.parametrize("name", sorted(FAKE))
def test_experiments_on_downloads_run_on_files_in_the_publishers_layout(name, tmp_path) -> None:
    make, tests = FAKE[name]
    make(tmp_path / name)
    asked = shortened(name)
    ran = Runner(name, asked, tmp_path, tmp_path / "runs", tmp_path / "results", quiet=True)
    record = read(ran.run())
    assert record["trials_done"] == record["trials_planned"] == len(asked.competitors)
    for trial in record["trials"].values():
        assert trial["scores"].keys() == tests
        for modes in trial["scores"].values():
            assert 0 <= modes["sar"]["all"]["water_iou"] <= 1
    for test in record["tests"].values():
        assert not set(test["ids"]) & set(record["train"]["ids"])


def test_one_command_downloads_trains_and_evaluates(tmp_path, monkeypatch) -> None:
    without_proxy(monkeypatch)
    served = below(fake_sen1floods11(tmp_path / "published", size=32))
    served["v1.1/Sen1Floods11_Metadata.geojson"] = b"{}"
    monkeypatch.setitem(EXPERIMENTS, "sen1floods11", shortened("sen1floods11"))
    arguments = ["experiment", "sen1floods11", "--only", "unet_water", "--quiet", "--download"]
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    with http_server() as site:
        serve_bucket(site, served)
        there = {"sen1floods11": replace(Sen1Floods11.publisher, base=site.base)}
        monkeypatch.setattr(cli_data, "publishers", lambda: there)
        root = ["--root", str(tmp_path / "data")]
        declined = CliRunner().invoke(app, [*arguments, *folders, *root], input="n\n")
        assert declined.exit_code == 1 and not below(tmp_path / "data")
        result = CliRunner().invoke(
            app, [*arguments, *folders, *root, "--yes"], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        assert below(tmp_path / "data" / "sen1floods11") == served
        refused = CliRunner().invoke(app, [*arguments, *folders])
        assert refused.exit_code == 1 and "with --root" in refused.stderr
    record = load_record("sen1floods11", tmp_path / "results")
    assert record["trials_done"] == 1
    assert record["competitors"]["unet_water"]["scores"].keys() == {"official", "Bolivia"}


def test_every_download_goes_by_the_name_of_its_dataset() -> None:
    assert {name: publisher.name for name, publisher in cli_data.publishers().items()} == {
        name: name for name in ("sen1floods11", "sen12ms", "deepflood", "ombria")
    }


def test_a_single_place_keeps_its_scores(tmp_path) -> None:
    name = "ombria_floods_1"
    fake_ombria(tmp_path / "ombria")
    short = shortened(name)
    asked = replace(short, competitors={"otsu_vv": short.competitors["otsu_vv"]})
    ran = Runner(name, asked, tmp_path, tmp_path / "runs", tmp_path / "results", quiet=True)
    scores = read(ran.run())["trials"]["otsu_vv"]["scores"]["unseen"]["sar"]
    assert scores["places"].keys() == {"chips 436-718"}
    assert scores["places"]["chips 436-718"]["water_iou"] == scores["all"]["water_iou"]


def test_what_has_no_download_is_said(tmp_path) -> None:
    arguments = ["experiment", "true_colour", "--root", str(tmp_path), "--download"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and "sih1733 has no download" in result.stderr


def test_every_flood_of_ombria_is_held_out_once(tmp_path) -> None:
    root = fake_ombria(tmp_path)
    everything = open_dataset("ombria", root, "train+valid").manifest()
    held_out = []
    for experiment in (OMBRIA, *HELD_OUT_FLOODS.values()):
        (test,) = (t for name, t in experiment.tests.items() if name == "unseen")
        assert test.options == experiment.train.options
        sites = test.options.get("held_out", Ombria.valid_sites)
        held_out += sites
        train, valid = (
            open_dataset("ombria", root, split, held_out=sites) for split in ("train", "valid")
        )
        assert sorted([*train.manifest(), *valid.manifest()]) == everything
        assert {sample["meta"]["place"] for sample in valid} <= set(sites)
        assert not {sample["meta"]["place"] for sample in train} & set(sites)
    assert len(held_out) == len(set(held_out)) == len(Ombria.sites)
    with pytest.raises(FloraError, match="held_out chips 1-2: no such site; they are chips 1-17;"):
        Ombria(root, "train", held_out=["chips 1-2"])


def test_summary_worked_out_by_hand() -> None:
    trials = [{"test": {"sar": {"all": {"miou": value}}}} for value in (0.5, 0.6, 0.7)]
    scores = summary(trials)["test"]["sar"]["miou"]
    assert scores == {"mean": 0.6, "sd": 0.1, "n": 3}
    assert summary(trials[:1])["test"]["sar"]["miou"]["sd"] is None


def test_records_of_this_repository_are_those_of_the_catalogue() -> None:
    from pathlib import Path

    from flora.experiments.catalogue import ON_A_GPU

    for path in sorted((Path(__file__).resolve().parents[2] / "results").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "experiment" in record:
            experiment = (EXPERIMENTS | ON_A_GPU)[record["experiment"]]
            assert record["training"]["steps"] == experiment.training.steps
            assert set(record["competitors"]) <= set(experiment.competitors)
            for trial in record["trials"].values():
                assert not trial["provenance"]["commit"].endswith("+changes")
