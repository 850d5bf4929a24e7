from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor

from flora.errors import FloraError
from flora.predictors import Prediction, Predictor
from flora.scenes.inputs import open_scene
from flora.scenes.many import MapOptions, SceneReport, WeightsPredictor, Workers, map_scenes
from flora.scenes.mapping import map_scene
from flora.scenes.tiles import Tiling
from tests.support.fake_data import fake_scene, write_raster

pytest.importorskip("distributed")

TILES = MapOptions(Tiling(64, 16, 4))

# The scenes here are random numbers about 0 dB.
pytestmark = pytest.mark.filterwarnings("ignore:.*brighter than land:flora.errors.FloraWarning")


class Dark:
    """Water is where VV is dark. A scene brighter than `bright` first leaves a note, then dies."""

    def __init__(self, folder: Path | None = None, deaths: int = 1) -> None:
        self.folder = folder
        self.deaths = deaths

    def __call__(self) -> Predictor:
        if self.folder is not None:
            note = self.folder / f"model.{os.getpid()}"
            note.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        return self.predict

    def predict(self, sar: Tensor, *_: object) -> Prediction:
        if self.folder is not None and sar[:, 0].mean() > 2.5:
            notes = len(list(self.folder.glob("death.*")))
            if notes < self.deaths:
                (self.folder / f"death.{notes}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        water = torch.sigmoid(-sar[:, :1])
        return Prediction(water, water.expand(-1, 3, -1, -1))


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    """Four scenes; the second is so bright that `Dark` may die of it."""
    paths = []
    for number in range(4):
        sar = fake_scene(number, 80)["sar"]
        paths.append(write_raster(tmp_path / f"in/scene{number}.tif", sar + 20 * (number == 1)))
    return paths


def pixels(reports: list[SceneReport]) -> list[bytes]:
    """Every map of every scene, value by value."""
    found = []
    for report in reports:
        assert report.outputs is not None, report.error
        for path in (report.outputs.water_probability, report.outputs.water_mask):
            with rasterio.open(path) as file:
                found.append(file.read().tobytes())
    return found


def outputs_of(folder: Path) -> set[str]:
    return {path.name.split("_")[0] for path in folder.glob("*.tif")}


def test_in_this_process(scenes, tmp_path):
    seen: list[SceneReport] = []
    reports = map_scenes(scenes, tmp_path / "out", Dark(), done=seen.append, mapping=TILES)
    assert [report.path for report in reports] == scenes
    assert seen == reports
    with open_scene(scenes[2]) as scene:
        alone = map_scene(scene, tmp_path / "alone", Dark()(), tiling=TILES.tiling)
    one = SceneReport(scenes[2], alone, None, 0.0)
    assert pixels([reports[2]]) == pixels([one])
    assert len(set(pixels(reports))) > 4  # the scenes differ


def test_workers_agree_with_this_process_and_a_killed_one_costs_its_scene_only(scenes, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    broken = tmp_path / "in/broken.tif"
    broken.write_bytes(scenes[0].read_bytes()[:700])
    serial = map_scenes(scenes, tmp_path / "serial", Dark(), mapping=TILES)
    paths = [scenes[0], broken, *scenes[1:]]
    reports = map_scenes(paths, tmp_path / "out", Dark(notes), workers=Workers(2), mapping=TILES)

    assert [report.path for report in reports] == paths
    failed = reports.pop(1)
    assert failed.outputs is None
    assert failed.error is not None
    assert "broken.tif" in str(failed.error)
    assert pixels(reports) == pixels(serial)
    assert len(list(notes.glob("death.*"))) == 1  # it did die
    # Two workers, and the one that took the place of the dead; each made one model.
    models = list(notes.glob("model.*"))
    assert 2 <= len(models) <= 3
    assert {note.read_text() for note in models} == {""}  # without GPUs asked for, none is seen
    assert outputs_of(tmp_path / "out") == {path.stem for path in scenes}
    assert not list((tmp_path / "out").glob(".*"))  # nothing of the killed attempt


def test_scene_that_always_kills_is_given_up_and_a_gpu_has_its_own_process(scenes, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    reports = map_scenes(
        scenes[:2],
        tmp_path / "out",
        Dark(notes, deaths=99),
        mapping=TILES,
        workers=Workers(1, retries=0),
    )
    assert len(list(notes.glob("death.*"))) == 1
    assert reports[1].error is not None
    assert "killed with its process 1 times" in str(reports[1].error)
    assert outputs_of(tmp_path / "out") == {"scene0"}


def test_existing_maps_are_kept_unless_asked(scenes, tmp_path):
    first = map_scenes(scenes[:1], tmp_path / "out", Dark())
    again = map_scenes(scenes[:2], tmp_path / "out", Dark())
    assert again[0].error is not None
    assert "overwrite" in str(again[0].error)
    assert again[1].error is None
    third = map_scenes(scenes[:1], tmp_path / "out", Dark(), mapping=MapOptions(overwrite=True))
    assert pixels(third) == pixels(first)


def test_threads_are_as_before(scenes, tmp_path):
    seen = []

    def predict(sar: Tensor, *_: object) -> Prediction:
        seen.append(torch.get_num_threads())
        return Prediction(torch.zeros_like(sar[:, :1]))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        map_scenes(scenes[:1], tmp_path / "out", lambda: predict)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_defect_is_raised(scenes, tmp_path):
    def predict(sar: Tensor, *_: object) -> Prediction:
        raise KeyError("a mistake in the code")

    with pytest.raises(KeyError, match="mistake"):
        map_scenes(scenes[:1], tmp_path / "out", lambda: predict)


def test_weights_of_the_package(tmp_path, scenes):
    loaded = map_scenes(scenes[:1], tmp_path / "out", WeightsPredictor(device="cpu"))
    assert loaded[0].error is None
    assert np.isfinite(loaded[0].outputs.water_km2)


@pytest.fixture
def running_cluster() -> Iterator[str]:
    """A scheduler without workers in a process of its own; its address."""
    code = (
        "import asyncio\n"
        "from distributed import Scheduler\n"
        "async def main():\n"
        "    async with Scheduler(host='127.0.0.1', port=0, dashboard=False) as scheduler:\n"
        "        print(scheduler.address, flush=True)\n"
        "        await scheduler.finished()\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_running_cluster(scenes, tmp_path, running_cluster, monkeypatch):
    monkeypatch.setattr("flora.scenes.many.CONNECT_TIMEOUT", 0.3)
    with pytest.raises(FloraError, match=r"no worker; .*dask worker"):
        map_scenes(scenes, tmp_path / "out", Dark(), workers=Workers(address=running_cluster))
    monkeypatch.setattr("flora.scenes.many.CONNECT_TIMEOUT", 120)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", running_cluster]
    arguments = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
    worker = subprocess.Popen(
        [*command, *arguments, "--local-directory", str(tmp_path)], stderr=subprocess.DEVNULL
    )
    try:
        # The model comes from the package: a running cluster cannot import this file.
        model = WeightsPredictor(device="cpu")
        reports = map_scenes(
            scenes[:2], tmp_path / "out", model, workers=Workers(address=running_cluster)
        )
    finally:
        worker.kill()
        worker.wait()
    serial = map_scenes(scenes[:2], tmp_path / "serial", model)
    assert pixels(reports) == pixels(serial)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "workers -1"),
        ({"threads": 0}, "threads 0"),
        ({"count": 2, "gpus": [0]}, "one of the three"),
        ({"count": 2, "address": "tcp://127.0.0.1:9"}, "one of the three"),
        ({"address": "tcp://127.0.0.1:9"}, "no Dask scheduler answers"),
    ],
)
def test_refused_arguments(arguments, message, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("flora.scenes.many.CONNECT_TIMEOUT", 0.3)
    with pytest.raises(FloraError, match=message):
        map_scenes(scenes, tmp_path / "out", Dark(), workers=Workers(**arguments))
    assert not (tmp_path / "out").exists()


def test_names_that_collide(scenes, tmp_path):
    twin = write_raster(tmp_path / "other/SCENE0.tif", fake_scene(9, 32)["sar"])
    with pytest.raises(FloraError, match=r"scene0\.tif and .*SCENE0\.tif would write"):
        map_scenes([*scenes, twin], tmp_path / "out", Dark())
    with pytest.raises(FloraError, match="no scene"):
        map_scenes([], tmp_path / "out", Dark())


def test_without_dask(scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert map_scenes(scenes[:1], tmp_path / "out", Dark())[0].error is None
    with pytest.raises(FloraError, match=r'pip install "flora\[dask\]"'):
        map_scenes(scenes[:1], tmp_path / "other", Dark(), workers=Workers(2))
