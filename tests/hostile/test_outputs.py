"""Outputs that are inputs, folders or another run's, and runs that end in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from rasterio.transform import Affine
from typer.testing import CliRunner

from flora.cli.main import app
from flora.datasets import open_dataset
from flora.errors import FloraError, FloraWarning
from flora.files import alone, folder_beside
from flora.maps.floods import split_flood
from flora.maps.polygons import write_polygons
from flora.models.checkpoints import shipped_weights
from flora.models.config import named_config
from flora.models.network import Flora
from flora.scenes import work as scene_work
from flora.scenes.inputs import open_scene
from flora.scenes.mapping import map_scene
from flora.scenes.outputs import SceneOutputs
from flora.scenes.tiles import Tiling
from flora.scenes.work import PREFIX, Work
from flora.simulate.scene import write_sen1floods11
from flora.training.config import TrainingConfig
from flora.training.fit import fit
from flora.training.tasks import StudentTask
from tests.support.fake_data import fake_scene, write_raster

SIDE = 96
UTM, GRID = "EPSG:32630", Affine(10, 0, 600_000, 0, -10, 4_400_000)
SAR = fake_scene(3, SIDE)["sar"]
SAID = pytest.mark.filterwarnings("always::flora.errors.FloraWarning")
TO = "map S1.tif --method otsu --quiet --overwrite --out"
MAP = f"{TO} o"
EVALUATE = "evaluate --dataset sen1floods11 --root r --weights w.safetensors --json"


def write_files(folder: Path) -> None:
    """A scene, and files that may be in the way."""
    for path in ("o", "i", "o/B_water_mask.tif"):
        (folder / path).mkdir()
    for path in ("S1.tif", "i/A.tif"):
        write_raster(folder / path, SAR, np.nan, GRID, UTM)
    write_raster(folder / "A.tif", SAR[:1], np.nan, GRID, UTM)
    write_raster(folder / "o/A_rgb.tif", SAR[1:], np.nan, GRID, UTM)
    wet = (np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE) % 3 == 0).astype(np.uint8)
    for path in ("wet.tif", "o/S1_flood.tif", "p/S1_water_mask.tif"):
        write_raster(folder / path, wet, None, GRID, UTM)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Runs happen there."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Everything that the refused commands name; none of them changes it."""
    folder = tmp_path_factory.mktemp("crowded")
    write_files(folder)
    for path in ("j", "t/weights.safetensors"):
        (folder / path).mkdir(parents=True)
    for path in ("o/T_water_mask.tif", "i/C.tif", "source.tif"):
        write_raster(folder / path, SAR, np.nan, GRID, UTM)
    optical = np.full((4, SIDE, SIDE), 1000, np.uint16)
    write_raster(folder / "b.tif", optical, None, GRID, UTM)
    (folder / "w.safetensors").symlink_to(shipped_weights())
    write_sen1floods11({"test": [7]}, folder / "r", size=64)
    rasterio.shutil.copy(folder / "source.tif", folder / "virtual.vrt", driver="VRT")
    (folder / "link").symlink_to(folder)
    os.link(folder / "S1.tif", folder / "hard.html")
    (folder / "item.json").write_text("{}")
    (folder / "text").write_text("a file")
    return folder


def state(folder: Path) -> dict[str, object]:
    """Every path below a folder, with the checksum of each small file."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{MAP} --html S1.tif", "--html S1.tif: would replace what SAR names"),
        (f"{MAP} --html link/S1.tif", "would replace what SAR names"),
        (f"{MAP} --html hard.html", "would replace what SAR names"),
        (f"{MAP} --html o", "--html o: is a folder"),
        (f"{TO} new/o --html new", "--html new: is a folder"),
        (f"{MAP} --html j", "--html j: is a folder"),
        (f"{MAP} --html o/S1_water_mask.tif", "would replace what --out names"),
        (f"{MAP} --html o/S1_quicklook.png", "would replace what --out names"),
        (f"{MAP} --html o/S1_polygons.gpkg --polygons", "would replace what --out names"),
        (f"{MAP} --html S1.tif/page.html", "lies inside what SAR names; choose a folder outside"),
        (f"{MAP} --permanent-water o/S1_flood.tif", "would replace what --permanent-water names"),
        (f"{MAP} --permanent-water wet.tif --html wet.tif", "what --permanent-water names"),
        (f"{TO} p --permanent-water p/S1_water_mask.tif", "what --permanent-water names"),
        (f"{TO} S1.tif", "lies inside what SAR names"),
        (f"{TO} S1.tif/deeper", "lies inside what SAR names"),
        (f"{TO} text", "text"),
        (f"{MAP} --html text/page.html", "/text is no folder that can be written to"),
        (f"{MAP} --html text/new/page.html", "/text is no folder that can be written to"),
        ("map virtual.vrt --method otsu --out o --html source.tif --overwrite", "what SAR names"),
        ("map A.tif --vh o/A_rgb.tif --method otsu --out o --overwrite", "what SAR names"),
        ("map S1.tif o/T_water_mask.tif i/T.tif --method otsu --out o --overwrite", "SAR names"),
        ("map i/A.tif i/C.tif --method otsu --out o --html i/A.tif", "is a file"),
        ("map i/B.tif --method otsu --out o --overwrite", "B_water_mask.tif: is a folder"),
        ("map S1.tif --before b.tif --out o --html b.tif --overwrite", "what --before names"),
        ("map S1.tif --weights w.safetensors --out o --html w.safetensors --overwrite", "weights"),
        ("map --stac item.json --out o --html item.json --overwrite", "item.json"),
        (f"{EVALUATE} w.safetensors", "--json w.safetensors: would replace what --weights names"),
        (f"{EVALUATE} link/w.safetensors", "would replace what --weights names"),
        (f"{EVALUATE} j", "--json j: is a folder"),
        (f"{EVALUATE} text/scores.json", "/text is no folder that can be written to"),
        (f"{EVALUATE} r/v1.1/splits/flood_handlabeled/flood_test_data.csv", "what --root names"),
        ("search --bbox=1,2,3,4 --date 2019-01-01 --json j", "--json j: is a folder"),
        ("train --dataset sen1floods11 --root r --out t", "weights.safetensors: is a folder"),
        ("adapt --dataset sen1floods11 --root r --out t", "weights.safetensors: is a folder"),
    ],
)
def test_outputs_in_the_way_are_refused_at_once(crowded, monkeypatch, command, said):
    monkeypatch.chdir(crowded)
    before = state(crowded)
    result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and said in lines[0], result.stderr
    assert "; " in lines[0], lines[0]  # a remedy
    assert state(crowded) == before


@SAID
def test_a_folder_that_cannot_be_written_to_is_refused_at_once(folder, monkeypatch):
    here = folder.resolve()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).resolve() != here)
    result = CliRunner().invoke(app, f"{MAP} --html new/page.html".split())
    assert result.exit_code == 1 and "no folder that can be written to" in result.stderr
    assert (
        CliRunner().invoke(app, f"{MAP} --html o/page.html --attribution us".split()).exit_code == 0
    )


def test_python_refuses_them_too(folder):
    outputs = folder / "o"
    with pytest.raises(FloraError, match="would replace what water_mask names"):
        split_flood("wet.tif", "wet.tif", "p/S1_water_mask.tif", overwrite=True)
    with pytest.raises(FloraError, match="would replace what permanent_water names"):
        split_flood("wet.tif", "p/S1_water_mask.tif", "p/S1_water_mask.tif", overwrite=True)
    shutil.copy("wet.tif", "w.gpkg")
    with pytest.raises(FloraError, match="would replace what classes names"):
        write_polygons("w.gpkg", "w.gpkg", overwrite=True)
    refused = partial(pytest.raises, FloraError)
    pair = "A.tif", outputs / "A_rgb.tif"
    with open_scene(pair) as scene, refused(match=r"A_rgb.tif: would replace what sar_path names"):
        map_scene(scene, outputs, dark, overwrite=True)
    shutil.copy("S1.tif", "B.tif")
    with open_scene("B.tif") as scene, refused(match=r"B_water_mask.tif: is a folder"):
        map_scene(scene, outputs, dark, overwrite=True)
    assert (outputs / "B_water_mask.tif").is_dir()


# --- two runs at once ----------------------------------------------------------------------------


def dark(sar, valid, guide):
    """Water where the normalised VH is low."""
    from flora.predictors import Prediction

    return Prediction((sar[:, 1:] < -0.5).float(), None)


def map_quietly(scene, out, model=dark, **options) -> SceneOutputs:
    with open_scene(scene) as opened:
        return map_scene(opened, out, model, tiling=Tiling(64, 8), **options)


def test_two_runs_of_one_scene_in_one_folder_are_refused(folder):
    out, other, tried = folder / "new", [], []

    def meanwhile(*inputs):
        if not tried:
            tried.append(True)
            for options in ({"threshold": 0.3}, {"overwrite": True}):
                with pytest.raises(FloraError, match="another process is mapping S1 there; wait"):
                    map_quietly("S1.tif", out, **options)
            other.append(map_quietly("i/A.tif", out))  # another scene may go there
        return dark(*inputs)

    ours = map_quietly("S1.tif", out, meanwhile)
    assert ours.water_mask.exists() and other[0].water_mask.exists()
    assert not list(out.glob(".*"))


@SAID
def test_products_of_a_scene_wait_for_its_maps(folder):
    CliRunner().invoke(app, MAP.split(), catch_exceptions=False)
    command = [*MAP.replace("--overwrite ", "").split(), "--reuse", "--polygons"]
    with alone(folder / "o" / f"{PREFIX}S1.lock", "out", "mapping S1"):
        result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 1 and "another process is mapping S1 there" in result.stderr
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0


def test_two_trainings_in_one_folder_are_refused(folder):
    chips = open_dataset("simulated", None, "train", count=1, size=64)
    config = TrainingConfig(steps=1, batch=1, crop=32)
    task = StudentTask(Flora(named_config("tiny")))
    run = folder / "run"
    run.mkdir()
    refused = pytest.raises(FloraError, match="another process is training there; wait for it")
    with alone(run / ".lock", "out", "training"), refused:
        fit(task, chips, config, run, quiet=True)
    fit(task, chips, config, run, quiet=True)
    assert not (run / ".lock").exists()


def test_a_lock_that_a_killed_process_left_is_taken_over(folder):
    lock = folder / "o" / f"{PREFIX}S1.lock"
    lock.touch()
    with alone(lock, "out", "mapping"):
        pass
    assert not lock.exists()


def test_what_a_killed_process_left_beside_its_output_is_removed(folder):
    command = """
import os, signal
from pathlib import Path
from flora.files import folder_beside
with folder_beside(Path("o/out.tif")) as temporary:
    (temporary / "rows.tif").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", command], check=False, env=os.environ)
    left = list((folder / "o").glob(".flora-*"))
    assert any(path.is_dir() for path in left)
    with folder_beside(folder / "o" / "other.tif"):
        pass
    assert set(left) <= set((folder / "o").glob(".flora-*"))  # another's is not touched
    target = folder / "o" / "out.tif"
    again = pytest.raises(FloraError, match=r"another process is writing out\.tif there")
    with folder_beside(target) as temporary, again, folder_beside(target):
        pass
    assert not temporary.exists() and not list((folder / "o").glob(".flora-*"))


def test_a_folder_that_was_made_for_nothing_is_gone(folder):
    for target in ("new/deeper/out.tif", "o/out.tif"):
        with pytest.raises(FloraError, match="damaged"), folder_beside(folder / target):
            raise FloraError("damaged")
    assert not (folder / "new").exists() and (folder / "o").is_dir()


# --- runs that end in the middle -----------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing that a process would do at its end is done."""


@pytest.mark.parametrize("renames", range(1, 5))
def test_a_run_killed_between_its_renames_is_completed_by_the_next(folder, monkeypatch, renames):
    out = folder / "new"
    old = map_quietly("S1.tif", out, threshold=0.9)
    wanted = state(map_quietly("S1.tif", folder / "whole", model_id="a").water_mask.parent)
    done = []

    def dying(finished, targets, aside):
        aside.mkdir()
        for name, target in targets.items():
            if len(done) == renames:
                break
            if target.exists():
                target.replace(aside / target.name)
            if name in finished:
                finished[name].replace(target)
            done.append(name)
        # What the clean-up of this process would remove is kept, as after SIGKILL.
        shutil.copytree(aside.parent, folder / "kept")
        raise Killed

    monkeypatch.setattr(scene_work, "publish", dying)
    with pytest.raises(Killed):
        map_quietly("S1.tif", out, overwrite=True, model_id="a")
    monkeypatch.undo()
    (work,) = (path for path in out.glob(f"{PREFIX}S1-*") if path.is_dir())
    shutil.rmtree(work)
    shutil.copytree(folder / "kept", work)

    monkeypatch.chdir(folder)
    with pytest.raises(FloraError, match="already holds"):
        map_quietly("S1.tif", out)
    found = {Path(name).name: value for name, value in state(out).items()}
    assert found == {Path(name).name: value for name, value in wanted.items()}
    assert old.water_mask.exists()


@pytest.mark.parametrize(
    "record",
    [
        {"row": 0, "height": 0, "files": {}, "totals": {}},
        {"row": 0, "height": -64, "files": {}, "totals": {}},
        {"row": 64, "height": 64, "files": {}, "totals": {}},
        {"row": 0, "height": 64, "files": [], "totals": {}},
        {"row": 0, "height": "64", "files": {}, "totals": {}},
        {"row": 0, "height": 64, "files": {"rgb": {"size": 1}}, "totals": {}},
        [],
        None,
        7,
    ],
)
def test_damaged_records_of_rows_are_not_believed(tmp_path, record):
    (tmp_path / "00000000.json").write_text(json.dumps(record))
    assert Work(tmp_path).bands == []


def test_a_damaged_plan_of_renames_takes_nothing_away(folder):
    out = folder / "new"
    map_quietly("S1.tif", out)
    before = state(out)
    work = out / f"{PREFIX}S1-{'0' * 16}"
    work.mkdir()
    (work / scene_work.PLAN).write_text("{")
    with pytest.raises(FloraError, match="already holds"):
        map_quietly("S1.tif", out)
    assert state(out) == before


# --- a quicklook that cannot be drawn ------------------------------------------------------------


@pytest.mark.parametrize("name", ["S1$x", "a_$b$_{", "x^y\\frac", "ü ñ 洪水", "[bold]x"])
def test_names_are_not_read_as_formulas(folder, name):
    scene = shutil.copy("S1.tif", f"{name}.tif")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # no font has all letters
        outputs = map_quietly(scene, folder / "new")
    assert outputs.quicklook.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("key", "value"), [("text.usetex", True), ("savefig.format", "pdf"), ("font.family", "none")]
)
def test_a_broken_matplotlibrc_costs_no_map(folder, monkeypatch, key, value):
    import matplotlib as mpl

    monkeypatch.setenv("PATH", "")  # without LaTeX
    with mpl.rc_context({key: value}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = map_quietly("S1.tif", folder / "new")
    assert outputs.water_mask.exists()
    said = [str(one.message) for one in caught if issubclass(one.category, FloraWarning)]
    if outputs.quicklook is None:
        assert any("cannot be drawn" in text and "the maps are whole" in text for text in said)
    else:
        assert outputs.quicklook.read_bytes().startswith(b"\x89PNG") and not said
    if key == "text.usetex":
        assert outputs.quicklook is None
