from unittest.mock import ANY

import pytest

from flora.errors import FloraError
from flora.experiments.records import (
    Table,
    by_place,
    comparison,
    differences,
    gains_on_own_site,
    load_record,
    mean_and_spread,
    results_folder,
    scored,
)
from flora.figures.records import (
    difference_figure,
    forest_figure,
    places_figure,
    score_curve,
)


def trial(name: str, seed: int, miou: float) -> dict:
    return {
        "competitor": name,
        "seed": seed,
        "scores": {"test": {"sar": {"all": {"miou": miou}}}},
    }


def competitor(says: str, group: str, mean: float, n: int) -> dict:
    score = {"mean": mean, "sd": 0.1 if n > 1 else None, "n": n}
    return {
        "says": says,
        "group": group,
        "needs_optical": False,
        "scores": {"test": {"sar": {"miou": score}}} if n else {},
    }


@pytest.fixture
def record() -> dict:
    return {
        "tests": {"test": {}},
        "competitors": {
            "flora": competitor("FLoRA", "FLoRA", 0.6, 2),
            "unet": competitor("U-Net", "baseline", 0.5, 2),
            "late": competitor("not run yet", "baseline", 0.0, 0),
        },
        "trials": {
            "flora-0": trial("flora", 0, 0.5),
            "flora-1": trial("flora", 1, 0.7),
            "unet-1": trial("unet", 1, 0.6),
            "unet-2": trial("unet", 2, 0.4),
        },
    }


def test_differences_are_paired_by_seed(record) -> None:
    assert differences(record, "test", "miou") == {"unet": [pytest.approx(-0.1)]}
    assert differences(record, "test", "psnr") == {}


def test_a_comparison_shows_what_was_run(record) -> None:
    table = comparison(record, "test", ["miou"])
    assert table.rows == [
        ["FLoRA", "sar", "0.600 ± 0.100", "2", "`flora`"],
        ["U-Net", "sar", "0.500 ± 0.100", "2", "`unet`"],
    ]
    assert comparison(record, "test", ["miou"], ["baseline"]).rows == table.rows[1:]
    with pytest.raises(FloraError, match="'tests': the record has test"):
        comparison(record, "tests", ["miou"])


def test_a_missing_score_is_a_dash_and_one_seed_has_no_spread() -> None:
    assert mean_and_spread(None) == "-"
    assert mean_and_spread({"mean": 0.5, "sd": None, "n": 1}) == "0.500"
    assert mean_and_spread({"mean": 17.24, "sd": 0.1, "n": 3}, 1) == "17.2 ± 0.1"
    assert mean_and_spread({"mean": 19.824, "sd": 0.026, "n": 3}, 1) == "19.82 ± 0.03"
    assert mean_and_spread({"mean": 0.5, "sd": 0.0, "n": 3}, 1) == "0.5 ± 0.0"


def test_what_is_not_recorded_is_empty(record) -> None:
    assert scored(record, "unet", "test", "sar")["miou"]["mean"] == 0.5
    assert scored(record, "unet", "test", "oracle") == {}
    assert scored(record, "absent", "test", "sar") == {}


def test_table_is_html_in_a_notebook_and_markdown_in_print() -> None:
    table = Table(["a", "b"], [["`x<y`", "**2**"]])
    assert repr(table) == "| a | b |\n| --- | --- |\n| `x<y` | **2** |"
    shown = table._repr_html_()
    assert "<td><code>x&lt;y</code></td><td><strong>2</strong></td>" in shown
    assert '<th scope="col">a</th>' in shown


def test_the_records_of_the_book_are_found() -> None:
    assert (results_folder() / "README.md").is_file()
    assert "scores" in load_record("ombria_unet")
    with pytest.raises(FloraError, match=r"no record nothing\.json"):
        load_record("nothing")


def test_difference_figure_draws_every_competitor_and_seed(record) -> None:
    ax = difference_figure(record, "test", "miou", ["baseline"]).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["U-Net"]
    assert ax.patches  # a bar
    assert ax.lines[0].get_xdata()[0] == pytest.approx(-0.1)
    with pytest.raises(FloraError, match="no trial of theirs is recorded"):
        difference_figure(record, "test", "miou", ["release"])


def placed(name: str, seed: int, **miou: float | None) -> dict:
    places = {place: {} if m is None else {"miou": m} for place, m in miou.items()}
    scores = {"unseen": {"sar": {"places": places}}}
    return {"competitor": name, "seed": seed, "scores": scores}


def floods(*trials: dict) -> dict:
    said = {trial["competitor"]: {"says": trial["competitor"].upper()} for trial in trials}
    return {"competitors": said, "trials": dict(enumerate(trials))}


def test_scores_by_place_are_means_over_seeds_and_leave_out_what_has_no_score() -> None:
    first = floods(placed("flora", 0, Ebro=0.5, Po=None), placed("flora", 1, Ebro=0.7, Po=0.2))
    second = floods(placed("flora", 0, Elbe=0.9), placed("unet", 0, Elbe=0.1))
    assert by_place([first, second], "unseen", "flora", "miou") == {
        "Ebro": pytest.approx(0.6),
        "Po": 0.2,
        "Elbe": 0.9,
    }
    assert by_place([first], "unseen", "flora", "miou", mode="before") == {}


def named(*trials: dict) -> dict:
    return {"trials": {f"{one['competitor']}-{one['seed']}": one for one in trials}}


def test_what_a_site_gains_alone_is_paired_by_seed_and_counts_no_other_site() -> None:
    of_ebro = {"adapted_to": ["1"], "site": "Ebro"}
    two_sites = named(
        placed("alone", 0, Ebro=0.75, Po=0.9) | of_ebro,
        placed("alone", 1, Ebro=0.5, Po=0.9) | of_ebro,
        placed("adapted", 0, Ebro=0.5, Po=0.5) | {"adapted_to": ["1", "2"]},
        placed("longer", 0, Ebro=0.5, Po=0.1),
        placed("longer", 1, Ebro=0.0, Po=0.1),
        placed("longer", 2, Ebro=0.9, Po=0.1),
    )
    one_site = named(
        placed("adapted", 0, Elbe=0.5) | {"adapted_to": ["3"]}, placed("longer", 0, Elbe=0.75)
    )
    records = [two_sites, one_site]
    gains = gains_on_own_site(records, "unseen", "longer", "miou")
    assert gains == {"Ebro": pytest.approx(0.375), "Elbe": -0.25}
    assert gains_on_own_site(records, "unseen", "adapted", "miou") == {"Ebro": 0.25}


def test_places_figure_draws_places_by_rank_and_asks_for_all_scores() -> None:
    record = floods(placed("flora", 0, Ebro=0.9, Po=0.5), placed("unet", 0, Ebro=0.4, Po=0.6))
    ax = places_figure([record], "unseen", ["flora", "unet"], "miou").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Po", "Ebro"]
    assert [list(line.get_xdata()) for line in ax.lines] == [[0.5, 0.9], [0.6, 0.4]]
    assert len({line.get_marker() for line in ax.lines}) == 2
    lacking = floods(placed("flora", 0, Ebro=0.9, Po=0.5), placed("unet", 0, Ebro=0.4))
    with pytest.raises(FloraError, match="unet: not recorded on the same places as flora"):
        places_figure([lacking], "unseen", ["flora", "unet"], "miou")
    with pytest.raises(FloraError, match="0 competitors"):
        places_figure([record], "unseen", [], "miou")


def test_the_curve_of_labels_joins_means_and_leaves_out_what_is_not_recorded() -> None:
    trials = [
        trial("labels_27", 0, 0.5), trial("labels_27", 1, 0.6), trial("labels_109", 0, 0.7),
        trial("output_27", 0, 0.65), trial("free_0", 0, 0.4), trial("unet_labels_27", 0, 0.1),
    ]  # fmt: skip
    record = {"trials": dict(enumerate(trials))}
    families = {"labels": "labels alone", "output": "and a teacher"}
    ax = score_curve(record, "test", "miou", families, ("free_0", "no label")).axes[0]
    drawn = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines
    }
    assert drawn["labels alone"] == ([pytest.approx(26, abs=0.5), ANY], [pytest.approx(0.55), 0.7])
    assert drawn["and a teacher"] == ([pytest.approx(28, abs=0.5)], [0.65])  # side by side
    assert drawn["no label"][1] == [0.4, 0.4]
    assert ax.get_xlabel() == "labelled chips"
    steps = score_curve(record, "test", "miou", families, along="steps").axes[0]
    assert steps.get_xlabel() == "steps"
    second = trial("labels_27", 0, 0.5) | {"scores": {"other": {"sar": {"all": {"miou": 0.3}}}}}
    both = {"trials": {**record["trials"], "second": second}}
    panels = score_curve(both, ("test", "other"), "miou", {"labels": "labels alone"}).axes
    assert [list(ax.lines[-1].get_ydata()) for ax in panels] == [[pytest.approx(0.55), 0.7], [0.3]]
    assert [ax.get_ylabel()[-7:] for ax in panels] == [" (test)", "(other)"]
    with pytest.raises(FloraError, match="output: nothing of that family is recorded on other"):
        score_curve(both, ("test", "other"), "miou", families)
    with pytest.raises(FloraError, match="both: nothing of that family"):
        score_curve(record, "test", "miou", {"both": "both"})


def test_forest_figure_draws_means_on_intervals_under_headings() -> None:
    groups = {"A": {"null": [-0.01, 0.02, -0.01], "ahead": [1.0, 2.0, 3.0]}, "B": {"one": [0.0, 1]}}
    ax = forest_figure(groups, "points", scale=100).axes[0]
    words = {label.get_text(): label.get_fontweight() for label in ax.get_yticklabels()}
    assert words == {
        **{"A": "bold", "null (3)": "normal", "ahead (3)": "normal"},
        **{"B": "bold", "one (2)": "normal"},
    }
    # Mean 2, standard deviation 1: t(0.975, 2) = 4.303, times 1 / sqrt(3).
    ends = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 1.6]
    assert ends[1] == pytest.approx([100 * (2 - 2.484), 100 * (2 + 2.484)], abs=0.1)
    assert ax.get_xlim()[1] >= max(end for _, end in ends)
    with pytest.raises(FloraError, match="two or more"):
        forest_figure({"A": {"single": [1.0]}}, "points")
