import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from typer.testing import CliRunner

from flora import __version__
from flora.cli.main import app
from flora.cli.method import ModelOptions
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.models.checkpoints import read_metadata, save_weights, shipped_weights
from flora.models.config import named_config
from flora.models.network import Flora
from flora.simulate.scene import simulate
from tests.support.fake_data import fake_ombria

RUNNER = CliRunner()


def flora(*arguments: object) -> str:
    """Run a command that must succeed; its output."""
    result = RUNNER.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """Run a command that must be refused in one line, without a traceback; that line."""
    result = RUNNER.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scene as people have them: two bands in dB, NaN as nodata."""
    made = simulate(7, 96)
    path = tmp_path_factory.mktemp("scene") / "S1.tif"
    sar = made.sar_after.astype(np.float32)
    sar[:, :5, :9] = np.nan
    profile = {"driver": "GTiff", "dtype": "float32", "nodata": np.nan, "count": 2}
    profile |= {"height": 96, "width": 96, "crs": made.crs, "transform": made.transform}
    with rasterio.open(path, "w", **profile) as target:
        target.write(sar)
    return path


@pytest.fixture(scope="module")
def ombria(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ombria")
    fake_ombria(root)
    return root


@pytest.fixture(scope="module")
def trained(ombria: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    arguments = ["train", "--dataset", "ombria", "--root", ombria, "--out", out, "--quiet"]
    arguments += ["--size", "tiny", "--steps", 3, "--teacher-steps", 2, "--batch", 2, "--crop", 32]
    assert "weights.safetensors" in flora(*arguments)
    return out / "weights.safetensors"


def test_train_then_evaluate(trained: Path, ombria: Path, tmp_path: Path) -> None:
    record = tmp_path / "scores.json"
    arguments = ["evaluate", "--dataset", "ombria", "--root", ombria, "--weights", trained]
    table = flora(*arguments, "--mode", "before", "--json", record)
    assert "mode before" in table and "stored value / 255" in table
    scores = json.loads(record.read_text())
    assert scores["scores"]["all"]["chips"] == scores["chips"] > 0
    assert sum(row["chips"] for row in scores["scores"]["places"].values()) == scores["chips"]
    assert scores["provenance"]["hardware"]["cores"] >= 1
    assert scores["weights"]["training"]["steps"] == 3
    before = trained.read_bytes()
    assert "--json" in refused(*arguments, "--json", trained)
    assert trained.read_bytes() == before


def test_train_unet_then_evaluate(ombria: Path, tmp_path: Path) -> None:
    arguments = ["--dataset", "ombria", "--root", ombria]
    flora(
        "train", *arguments, "--model", "unet", "--out", tmp_path, "--steps", 2, "--batch", 2,
        "--crop", 32, "--quiet",
    )  # fmt: skip
    weights = ["--weights", tmp_path / "weights.safetensors"]
    assert "unet" in flora("evaluate", *arguments, *weights)
    said = refused("evaluate", *arguments, *weights, "--mode", "before")
    assert 'this UNet was trained for mode "sar"' in said


def test_options_reach_the_dataset(ombria: Path, tmp_path: Path) -> None:
    arguments = ["train", "--dataset", "ombria", "--root", ombria, "--out", tmp_path, "--quiet"]
    arguments += ["--size", "tiny", "--steps", 1, "--teacher-steps", 0, "--batch", 1, "--crop", 32]
    flora(*arguments, "--option", "sar_dates=before,after")
    assert read_metadata(tmp_path / "weights.safetensors")["config"]["sar_channels"] == 2
    assert "no option colour" in refused(*arguments, "--option", "colour=red")
    assert "expected NAME=VALUE" in refused(*arguments, "--option", "colour")


def test_map_works_right_after_installation(scene: Path, tmp_path: Path) -> None:
    output = flora("map", scene, "--out", tmp_path)
    assert "Water: " in output and "km2" in output
    with rasterio.open(tmp_path / "S1_water_mask.tif") as mask, rasterio.open(scene) as sar:
        assert (mask.crs, mask.transform, mask.shape) == (sar.crs, sar.transform, sar.shape)
        codes = mask.read(1)
    assert (codes[:5, :9] == 255).all()
    assert set(np.unique(codes)) <= {0, 1, 255}
    names = {path.name for path in tmp_path.iterdir()}
    rasters = {
        f"S1_{name}.tif" for name in ("water_mask", "water_probability", "likelihood", "rgb")
    }
    assert names == rasters | {"S1_quicklook.png"}


def test_map_with_an_optical_image_from_before(scene: Path, tmp_path: Path) -> None:
    made = simulate(7, 96)
    before = tmp_path / "S2.tif"
    bands = np.clip(made.optical_before * 10_000, 1, None).astype(np.uint16)
    profile = {"driver": "GTiff", "dtype": "uint16", "nodata": 0, "count": len(bands)}
    profile |= {"height": 96, "width": 96, "crs": made.crs, "transform": made.transform}
    with rasterio.open(before, "w", **profile) as target:
        target.write(bands)
    flora("map", scene, "--out", tmp_path / "sar")
    flora("map", scene, "--out", tmp_path / "before", "--before", before)
    images = []
    for mode in ("sar", "before"):
        with rasterio.open(tmp_path / mode / "S1_rgb.tif") as rgb:
            images.append(rgb.read().astype(int))
    assert np.abs(images[0] - images[1]).mean() > 1


def test_map_says_how_the_image_from_before_lies_and_moves_it(tmp_path: Path) -> None:
    made = simulate(11, 160)
    profile = {"driver": "GTiff", "height": 160, "width": 160, "crs": made.crs}
    west, pixel = made.transform[2], made.transform[0]
    bands = np.clip(made.optical_before * 10_000, 1, None).astype(np.uint16)
    for name, values, right in (
        ("S1", made.sar_after, 0),
        ("S2", bands, 4),
        ("S2_there", bands, 0),
    ):
        moved = Affine(pixel, 0, west + right * pixel, *made.transform[3:6])
        kind = {"count": len(values), "dtype": values.dtype, "transform": moved}
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile, **kind) as target:
            target.write(values)

    def image(out: str, *options: str | Path) -> tuple[str, np.ndarray]:
        files = tmp_path / "S1.tif", "--out", tmp_path / out, "--item", "--attribution", "ours"
        said = " ".join(flora("map", *files, *options).split())
        kept = json.loads((tmp_path / out / "S1_item.json").read_text())["properties"]
        assert kept["flora:before_aligned"] == ("yes" if "moved back" in said else "no")
        with rasterio.open(tmp_path / out / "S1_rgb.tif") as rgb:
            return said, rgb.read()

    said, back = image("back", "--before", tmp_path / "S2.tif")
    assert "0 px down, 4 px right of the radar" in said and "moved back" in said
    said, left = image("left", "--before", tmp_path / "S2.tif", "--no-align")
    assert "0 px down, 4 px right of the radar" in said and "left as it is" in said
    said, there = image("there", "--before", tmp_path / "S2_there.tif")
    assert "left as it is" in said
    for out, image_file, option, says in (
        ("back", "S2", "--no-align", "moved back, expected left as it is; pass --align"),
        ("left", "S2", "--align", "left as it is, expected moved back; pass --no-align"),
        ("back", "S2", "--align", ""),
        ("left", "S2", "--no-align", ""),
        ("there", "S2_there", "--no-align", ""),
    ):
        files = tmp_path / "S1.tif", "--out", tmp_path / out, "--reuse", option
        again = [*files, "--before", tmp_path / f"{image_file}.tif"]
        assert says in (refused("map", *again) if says else flora("map", *again))
    inside = (slice(None), slice(None), slice(0, 96))
    assert (back[inside] == there[inside]).mean() > 0.99
    assert (left[inside] == there[inside]).mean() < 0.9


def test_weights_of_another_sensor_are_refused(trained: Path, scene: Path, tmp_path: Path) -> None:
    line = refused("evaluate", "--dataset", "simulated", "--weights", trained)
    assert "were trained on ombria sentinel-1 VV" in line
    assert "a scene is in dB" in refused(
        "map", scene, "--out", tmp_path / "maps", "--weights", trained
    )
    assert not (tmp_path / "maps").exists() or not list((tmp_path / "maps").iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "--dataset", "ombria"], "pass the folder"),
        (["evaluate", "--dataset", "ombria", "--root", "absent"], "absent"),
        (["evaluate", "--dataset", "simulated", "--split", "nowhere"], "no split 'nowhere'"),
        (["evaluate", "--dataset", "simulated", "--weights", "no.safetensors"], "no.safetensors"),
        (["evaluate", "--dataset", "simulated", "--device", "abacus"], "device 'abacus'"),
        (["map", "absent.tif", "--out", "maps"], "absent.tif"),
        (
            ["train", "--dataset", "simulated", "--out", "run", "--crop", "1024"],
            "crop 1024 is larger than chip",
        ),
        (["train", "--dataset", "simulated", "--out", "run", "--precision", "fp4"], "'fp4'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(*arguments)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    arguments = ["map", str(tmp_path / "absent.tif"), "--out", str(tmp_path)]
    with pytest.raises(FloraError, match="absent"):
        RUNNER.invoke(app, ["--debug", *arguments], catch_exceptions=False)
    command = [sys.executable, "-m", "flora"]
    quiet = subprocess.run([*command, *arguments], capture_output=True, text=True)
    loud = subprocess.run([*command, "--debug", *arguments], capture_output=True, text=True)
    assert quiet.returncode == 1 and "Traceback" not in quiet.stderr
    assert loud.returncode != 0 and "Traceback" in loud.stderr


def test_linear_power_is_refused_with_the_remedy(scene: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as source:
        profile, decibels = source.profile, source.read()
    linear = tmp_path / "linear.tif"
    with rasterio.open(linear, "w", **profile) as target:
        target.write(10 ** (decibels / 10))
    line = refused("map", linear, "--out", tmp_path / "maps")
    assert "--units linear" in line or "units" in line
    flora("map", linear, "--out", tmp_path / "maps", "--units", "linear")
    flora("map", scene, "--out", tmp_path / "maps")
    values = []
    for stem in ("linear", "S1"):
        with rasterio.open(tmp_path / "maps" / f"{stem}_water_probability.tif") as probability:
            values.append(probability.read(1))
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)


def test_help_and_version_load_no_torch() -> None:
    loaded = "{'torch', 'rasterio'} & {*sys.modules}"
    code = f"import sys; from flora.cli.main import app; print({loaded})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()"
    assert __version__ in flora("--version")
    for command in ("train", "evaluate", "map"):
        assert command in flora("--help")


def test_coordinate_systems_of_another_program_are_refused_in_one_line(tmp_path: Path) -> None:
    """Shells of other programs set PROJ_DATA to a database of another version, or of none."""
    command = [sys.executable, "-m", "flora", "map", "S1.tif", "--out", "o"]
    environment = os.environ | {"PROJ_DATA": str(tmp_path), "PROJ_LIB": str(tmp_path)}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1 and line.startswith("Error: the database of coordinate systems")
    assert line.endswith("unset PROJ_LIB and PROJ_DATA, which another program has set")
    assert not (tmp_path / "o").exists()


def test_map_on_the_real_chip(flora_data: Path, tmp_path: Path) -> None:
    folder = flora_data / "sen1floods11/v1.1/data/flood_events/HandLabeled"
    flora("map", folder / "S1Hand/Spain_7370579_S1Hand.tif", "--out", tmp_path)
    with (
        rasterio.open(tmp_path / "Spain_7370579_S1Hand_water_mask.tif") as mask,
        rasterio.open(folder / "LabelHand/Spain_7370579_LabelHand.tif") as label,
    ):
        predicted, true = mask.read(1), label.read(1)
    both = ((predicted == 1) & (true == 1)).sum()
    either = (((predicted == 1) | (true == 1)) & (true >= 0)).sum()
    assert both / either > 0.5


def test_adapt_then_map(scene: Path, tmp_path: Path) -> None:
    """Weights are adapted to pairs without labels, and map radar alone."""
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for seed in (1, 2):
        made = simulate(seed, 96)
        profile = {"driver": "GTiff", "height": 96, "width": 96, "crs": made.crs}
        profile["transform"] = made.transform
        sar = profile | {"dtype": "float32", "nodata": np.nan, "count": 2}
        with rasterio.open(pairs / f"Plain_{seed}_sar.tif", "w", **sar) as target:
            target.write(made.sar_after.astype(np.float32))
        optical = profile | {"dtype": "uint16", "nodata": 0, "count": 13}
        with rasterio.open(pairs / f"Plain_{seed}_optical.tif", "w", **optical) as target:
            target.write(np.clip(made.optical_after * 10_000, 1, None).astype(np.uint16))
    short = ["--steps", 2, "--batch", 2, "--crop", 32, "--quiet"]
    arguments = ["adapt", "--dataset", "folder", "--root", pairs, *short]
    for name, extra in (("own", []), ("index", ["--teacher", "index", "--rehearse", 2])):
        assert "weights.safetensors" in flora(*arguments, "--out", tmp_path / name, *extra)
        weights = tmp_path / name / "weights.safetensors"
        page = tmp_path / f"{name}.html"
        assert "Water: " in flora(
            "map", scene, "--out", tmp_path / f"{name}-maps", "--weights", weights,
            "--html", page, "--attribution", "Simulated",
        )  # fmt: skip
        trained = {"own": "folder", "index": "simulated and folder"}[name]
        assert f"by a model, trained last on {trained} and is" in page.read_text()
    line = refused(*arguments, "--out", tmp_path / "unsure", "--confidence", 1)
    assert "sure of no pixel" in line and not (tmp_path / "unsure" / "weights.safetensors").exists()
    # The same pairs beside labelled chips, for a training from the start.
    flora(
        "train", "--dataset", "simulated", "--scenes", 8, "--size", "tiny",
        "--out", tmp_path / "new", "--unlabelled", pairs, "--teacher-steps", 1,
        "--confidence", 0.5, *short,
    )  # fmt: skip
    assert (tmp_path / "new" / "weights.safetensors").is_file()


def test_train_with_few_labels(ombria: Path, tmp_path: Path) -> None:
    arguments = ["train", "--dataset", "ombria", "--root", ombria, "--out", tmp_path, "--quiet"]
    arguments += ["--size", "tiny", "--steps", 2, "--teacher-steps", 1, "--batch", 2, "--crop", 32]
    flora(*arguments, "--labels", 1, "--confidence", 0.5)
    teacher = read_metadata(tmp_path / "optical" / "last.safetensors")
    assert teacher["config"]["dates"] == "both"
    refused(*arguments, "--labels", 1, "--unlabelled", tmp_path)


def test_adapt_to_a_flood_by_labels_of_others(ombria: Path, tmp_path: Path) -> None:
    """A teacher learns from labelled chips, as in the experiment, and its maps are learnt."""
    short = ["--batch", 2, "--crop", 32, "--quiet"]
    chips = ["--dataset", "ombria", "--root", ombria]
    taught = ["--size", "tiny", "--steps", 2, "--teacher-steps", 0]
    flora("train", *chips, "--out", tmp_path / "base", *taught, *short)
    weights = tmp_path / "base" / "weights.safetensors"
    pairs = ["adapt", *chips, "--split", "valid", "--weights", weights, "--steps", 2, *short]
    out = ["--out", tmp_path / "new", "--confidence", 0.5]
    line = refused(*pairs, *out, "--teacher", "labels")
    assert "--labelled" in line
    assert "--rehearse" in refused(*pairs, *out, "--labelled", ombria, "--rehearse", 2)
    assert "--labelled-dataset" in refused(*pairs, *out, "--labelled-dataset", "ombria")
    flora(*pairs, *out, "--labelled", ombria, "--teacher-steps", 3)
    teacher = read_metadata(tmp_path / "new" / "optical" / "last.safetensors")
    assert teacher["config"]["dates"] == "both" and teacher["training"]["steps"] == 3
    # The same chips beside the pairs, and another teacher: other weights.
    index = ["--out", tmp_path / "index", "--confidence", 0.5, "--teacher", "index"]
    flora(*pairs, *index, "--labelled", ombria)
    assert not (tmp_path / "index" / "optical").exists()
    first, second = (tmp_path / name / "weights.safetensors" for name in ("new", "index"))
    assert first.read_bytes() != second.read_bytes()


def test_weights_of_statistics_take_no_stacked_dates(tmp_path: Path) -> None:
    chips = Simulated("train", count=1, size=64, sar_dates=("before:2", "after"))
    config = replace(named_config("tiny"), sar_channels=len(chips.sar_scaling.bands))
    scalings = {
        "sar_scaling": asdict(chips.sar_scaling),
        "optical_scaling": asdict(chips.optical_scaling),
    }
    weights = tmp_path / "season.safetensors"
    save_weights(Flora(config), weights, {"model": "flora", "config": config.to_dict(), **scalings})
    with pytest.raises(FloraError, match="statistics of dates"):
        ModelOptions(weights=weights).sensors(5, ["1.tif", "2.tif", "3.tif", "4.tif"])


def test_only_the_weights_of_the_package_are_known_to_have_seen_simulated_scenes_only() -> None:
    """Others may have begun from weights that had seen more than their last training."""
    own, named = ModelOptions(), ModelOptions(weights=shipped_weights())
    assert own.facts("cpu", 1)["trained_on"] == "simulated scenes only"
    assert named.facts("cpu", 1)["trained_on"] == "simulated"
