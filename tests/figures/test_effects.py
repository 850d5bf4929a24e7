import pytest
from matplotlib.colors import to_hex

from flora.errors import FloraError
from flora.figures.effects import evidence_frames, parts_map
from flora.figures.records import difference_figure


def record(**scores: list[float]) -> dict:
    """Water IoU of FLoRA and of models that lack a part, one value a seed."""
    trials = [
        {
            "competitor": name,
            "seed": seed,
            "scores": {"test": {"sar": {"all": {"water_iou": value}}}},
        }
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]
    said = {name: {"says": name, "group": "ablation"} for name in scores}
    said["flora"] = {"says": "FLoRA", "group": "FLoRA"}
    return {"competitors": said, "trials": dict(enumerate(trials))}


FLORA = [0.80, 0.82, 0.81]
PARTS = record(
    flora=FLORA,
    gate=[0.77, 0.79, 0.78],  # three points worse with every seed: the gate helps
    film=[0.82, 0.80, 0.81],  # no difference
    edge=[0.805, 0.825, 0.815],  # half a point better with every seed: the edge loss hurts
)


def test_the_map_colours_what_is_clear_of_zero_by_its_sign() -> None:
    ax = parts_map(PARTS, "test", {"water_iou": 0.03}).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["gate", "film", "edge"]
    assert [text.get_text() for text in ax.texts] == ["+3.0", "0.0", "-0.5"]
    assert [text.get_fontweight() for text in ax.texts] == ["bold", "normal", "bold"]
    image = ax.images[0]
    help_, null, harm = (image.cmap(image.norm(value)) for value in image.get_array()[:, 0])
    assert to_hex(help_) == "#0072b2"  # full: three points are as much as `full` says
    assert min(null) > 0.99  # white
    assert harm[0] > harm[2]  # orange, a pale one
    with pytest.raises(FloraError, match="group release"):
        parts_map(PARTS, "test", {"water_iou": 0.03}, group="release")


def test_more_differences_change_the_verdict_on_one_axis() -> None:
    rows = {"this less that": [0.03, 0.01, 0.04, 0.03, 0.02], "null": [1.0, -1.0, 0.5, -0.5, 0.0]}
    frames = evidence_frames(rows, (1, 3, 5), "points", scale=100)
    said = {
        count: [text.get_text() for text in made.axes[0].texts] for count, made in frames.items()
    }
    assert said == {
        1: ["this less that: open: too few", "null: open: too few"],
        3: ["this less that: not shown", "null: not shown"],
        5: ["this less that: ahead", "null: not shown"],
    }
    assert len({made.axes[0].get_xlim() for made in frames.values()}) == 1
    dots = frames[3].axes[0].lines[:2]
    assert [list(line.get_xdata()) for line in dots] == [
        pytest.approx([3, 1, 4]),
        pytest.approx([3, 2]),
    ]
    with pytest.raises(FloraError, match="this less that: fewer than 6 differences"):
        evidence_frames(rows, (6,), "points")


def test_a_bar_beyond_the_axis_is_broken_off_and_says_how_long_it_is() -> None:
    ax = difference_figure(PARTS, "test", "water_iou", ["ablation"], limits=(-0.01, 0.01)).axes[0]
    assert ax.get_xlim() == (-0.01, 0.01)
    assert [text.get_text() for text in ax.texts] == ["-0.030"]
    with pytest.raises(FloraError, match="a lower end below 0"):
        difference_figure(PARTS, "test", "water_iou", ["ablation"], limits=(0.01, 0.02))
