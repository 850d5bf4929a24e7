import pytest

from flora.errors import FloraError
from flora.plots_records import difference_figure
from flora.records import (
    Table,
    comparison,
    differences,
    judge,
    load_record,
    mean_and_spread,
    results_folder,
    scored,
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


@pytest.mark.parametrize(
    ("values", "spread", "verdict"),
    [
        ([-0.03, -0.02, -0.04], 0.01, "helps"),
        ([0.03, 0.02, 0.04], 0.01, "hurts"),
        ([-0.03, -0.02, 0.001], 0.01, "no difference"),  # not with every seed
        ([-0.03, -0.02, -0.04], 0.05, "no difference"),  # within FLoRA's own spread
        ([-0.3, -0.2], 0.01, "open"),  # too few seeds
        ([-0.3, -0.2, -0.1], None, "open"),
    ],
)
def test_the_rule_of_the_verdict(values, spread, verdict) -> None:
    assert judge(values, spread) == verdict
