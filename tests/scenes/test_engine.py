"""How scenes are mapped: threads, interrupted runs, what is left after a failure, seams."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from rasterio.warp import transform
from rio_cogeo.cogeo import cog_validate
from typer.testing import CliRunner

from flora.cli.bars import SceneBar
from flora.cli.main import app
from flora.errors import FloraError
from flora.grid import Grid
from flora.models.config import named_config
from flora.models.network import Flora
from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.scenes import work as scene_work
from flora.scenes.blending import Blend
from flora.scenes.tiles import Axis, Tiling
from flora.scenes.work import PREFIX, Work
from flora.sensors import SENTINEL1
from flora.simulate.scene import simulate
from tests.scenes.test_mapping import (
    GRID,
    UTM,
    by_vh,
    everything_in,
    flooded,
    map_file,
    read,
    write_tif,
)

TILES = {"tile": 64, "overlap": 16, "batch": 2}
ACROSS, ALL = 4, 24  # tiles of the scene of 300 x 260 px: 128 px wide, 64 px apart, six rows


@pytest.fixture
def scene(tmp_path):
    return write_tif(tmp_path / "scene.tif", flooded())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


class Counting:
    """`by_vh` that counts its tiles, and does something at one of its calls."""

    def __init__(self, at=None, action=None):
        self.tiles, self.calls, self.at, self.action = 0, 0, at, action

    def __call__(self, sar, valid, guide):
        self.calls += 1
        self.tiles += len(sar)
        if self.calls == self.at:
            self.action()
        return by_vh(sar, valid, guide)


def interrupt():
    raise KeyboardInterrupt


def vanish(folder):
    """Remove a folder that another thread still writes into."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def work_folders(out):
    return sorted(path for path in out.glob(f"{PREFIX}*") if path.is_dir())


def same_maps(first, second):
    for name in ("water_probability", "water_mask", "rgb"):
        np.testing.assert_array_equal(read(getattr(first, name)), read(getattr(second, name)))
    assert (first.water_pixels, first.valid_pixels) == (second.water_pixels, second.valid_pixels)
    assert (first.water_km2, first.valid_km2) == (second.water_km2, second.valid_km2)


# --- reading, computing and writing at the same time ---------------------------------------------


def test_the_next_rows_are_read_and_the_last_are_written_while_the_model_computes(
    scene, out, monkeypatch
):
    read_row = {row: threading.Event() for row in (0, 64, 112, 160)}  # below what was read
    written = threading.Event()
    threads = set()

    def watch(name, event_of):
        original = getattr(*name)

        def watched(self, row, *arguments):
            threads.add(threading.current_thread().name)
            result = original(self, row, *arguments)
            event_of(row).set()
            return result

        monkeypatch.setattr(*name, watched)

    from flora.scenes.inputs import SarScene

    watch((SarScene, "read"), lambda row: read_row.get(row, threading.Event()))
    watch((Work, "add"), lambda row: written)
    waited = []

    def predict(sar, valid, guide):
        if not waited:  # the first tiles: the second row of tiles comes meanwhile
            waited.append(read_row[64].wait(20))
        elif read_row[112].is_set() and len(waited) == 1:  # the second row: the first is written
            waited.append(written.wait(20))
        return by_vh(sar, valid, guide)

    map_file(scene, out, predict, **TILES)
    assert waited == [True, True]
    assert any("flora-read" in name for name in threads)
    assert any("flora-write" in name for name in threads)


@pytest.mark.parametrize("part", ["read", "predict", "write"])
def test_an_error_in_any_of_them_ends_the_run_and_leaves_nothing(scene, out, monkeypatch, part):
    class Broken(Exception):
        pass

    def fail(*_):
        raise Broken

    if part == "write":
        monkeypatch.setattr(scene_work, "encode_rows", fail)
    if part == "read":
        monkeypatch.setattr("flora.scenes.strips.read_strip", fail)
    predict = Counting(3, fail) if part == "predict" else by_vh
    before = threading.active_count()
    with pytest.raises(Broken):
        map_file(scene, out, predict, **TILES, model_id="by vh")
    assert not out.exists()
    assert threading.active_count() == before


# --- interrupted runs ----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from tests.scenes.test_engine import TILES, Counting
from tests.scenes.test_mapping import map_file
kill = Counting(10, lambda: os.kill(os.getpid(), signal.SIGKILL))
map_file(sys.argv[1], sys.argv[2], kill, **TILES, model_id="by vh")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_where_it_was(scene, out, tmp_path):
    command = [sys.executable, "-c", KILLED, scene, out, Path(__file__).resolve().parents[2]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (folder,) = work_folders(out)
    left = [path for path in everything_in(out) if path.parent == out]
    assert left == [folder, out / f"{PREFIX}scene.lock"]  # no map
    finished = len(list(folder.glob("*.json")))
    assert finished >= 2

    seen = []
    rest = Counting()
    result = map_file(
        scene, out, rest, **TILES, model_id="by vh", progress=lambda *now: seen.append(now)
    )
    whole = Counting()
    reference = map_file(scene, tmp_path / "whole", whole, **TILES)
    same_maps(result, reference)
    assert whole.tiles == ALL
    assert seen[0] == (finished * ACROSS, ALL) and seen[-1] == (ALL, ALL)
    # The last finished row of tiles reaches into the next: it is predicted once more.
    assert rest.tiles == ALL - (finished - 1) * ACROSS
    assert len(everything_in(out)) == 4


def test_only_the_very_same_run_goes_on(scene, out):
    def interrupted(**options):
        shutil.rmtree(out, ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            map_file(scene, out, Counting(10, interrupt), **TILES, **options)

    def tiles(**options):
        predict = Counting()
        map_file(scene, out, predict, **(TILES | {"model_id": "a"} | options))
        return predict.tiles

    interrupted(model_id="a")
    assert tiles() < ALL
    for other in (
        {"model_id": "b"},
        {"threshold": 0.4},
        {"batch": 1},
        {"window": (0, 0, 260, 299)},
        {"model_id": None},
    ):
        interrupted(model_id="a")
        assert tiles(**other) >= ALL, other
        assert work_folders(out) == []  # nobody goes on from what was left
    interrupted(model_id="a")
    with rasterio.open(scene, "r+") as file:
        file.write(file.read() - 1)
    assert tiles() == ALL


def test_without_a_model_id_an_interrupted_run_leaves_nothing(scene, out):
    with pytest.raises(KeyboardInterrupt):
        map_file(scene, out, Counting(10, interrupt), **TILES)
    assert not out.exists()


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "record"])
def test_a_damaged_band_is_made_again(scene, out, tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        map_file(scene, out, Counting(10, interrupt), **TILES, model_id="a")
    (folder,) = work_folders(out)
    band = folder / "00000052_water_probability.tif"
    data = bytearray(band.read_bytes())
    if damage == "truncated":
        band.write_bytes(data[:-1])
    elif damage == "changed":
        data[len(data) // 2] ^= 1
        band.write_bytes(data)
    elif damage == "missing":
        band.unlink()
    else:
        (folder / "00000052.json").write_bytes(b"{")
    predict = Counting()
    result = map_file(scene, out, predict, **TILES, model_id="a")
    assert predict.tiles == ALL  # the one row of tiles that is left reaches into the next
    same_maps(result, map_file(scene, tmp_path / "whole", by_vh, **TILES))


def test_two_runs_at_the_same_job_are_refused(scene, out):
    def again():
        with pytest.raises(FloraError, match="another process is mapping scene"):
            map_file(scene, out, by_vh, **TILES, model_id="a")

    predict = Counting(2, again)
    assert map_file(scene, out, predict, **TILES, model_id="a").rgb.exists()
    assert predict.calls > 2


# --- failures ------------------------------------------------------------------------------------


def test_a_source_that_vanishes_halfway_is_refused_and_leaves_nothing(tmp_path, out, monkeypatch):
    path = write_tif(tmp_path / "scene.tif", flooded(900, 260))

    def truncate():
        os.truncate(path, 20_000)

    # Bytes: else all of it is in memory already.
    monkeypatch.setattr("flora.scenes.mapping.BLOCK_CACHE", 100_000)
    with pytest.raises(FloraError, match=r"scene\.tif.*(truncated|damaged|vanished)"):
        map_file(path, out, Counting(2, truncate), **TILES, model_id="a")
    assert not out.exists()


def test_an_output_folder_that_vanishes_is_refused(scene, out):
    with pytest.raises(FloraError, match=f"output_folder {out}: cannot be written"):
        map_file(scene, out, Counting(6, lambda: vanish(out)), **TILES, model_id="a")
    assert not out.exists()


@pytest.mark.parametrize("refused", ["water_mask.tif", "quicklook.png"])
def test_old_results_are_back_if_the_new_ones_cannot_be_renamed(scene, out, monkeypatch, refused):
    map_file(scene, out, by_vh)
    old = {path.name: path.read_bytes() for path in everything_in(out)}
    replace = Path.replace

    def full(self, target):
        if Path(target) == out / f"scene_{refused}" and self.parent.name != "replaced":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FloraError, match="No space left"):
        map_file(scene, out, by_vh, threshold=0.9, overwrite=True)
    assert {path.name: path.read_bytes() for path in everything_in(out)} == old
    monkeypatch.undo()
    map_file(scene, out, by_vh, threshold=0.9, overwrite=True)
    assert (out / "scene_water_mask.tif").read_bytes() != old["scene_water_mask.tif"]


# --- the maps ------------------------------------------------------------------------------------


def test_maps_are_valid_cloud_optimized_geotiffs(tmp_path, out):
    values = flooded(700, 620)
    values[:, :130] = np.nan
    result = map_file(write_tif(tmp_path / "scene.tif", values), out, by_vh, **TILES)
    for path in (result.water_probability, result.water_mask, result.rgb):
        valid, errors, warnings = cog_validate(path, strict=True)
        assert valid, (errors, warnings)
    # The validator does find fault with another file.
    assert not cog_validate(tmp_path / "scene.tif", strict=True)[0]


def test_a_part_is_mapped_on_its_own_pixels(scene, tmp_path, out):
    whole = map_file(scene, tmp_path / "whole", by_vh, **TILES)
    part = map_file(scene, out, by_vh, **TILES, window=(30, 50, 130, 200))
    cut = np.s_[..., 50:250, 30:160]
    np.testing.assert_allclose(
        read(part.water_probability), read(whole.water_probability)[cut], atol=1e-6
    )
    with rasterio.open(part.rgb) as small, rasterio.open(whole.rgb) as large:
        assert small.crs == large.crs
        assert small.bounds[:1] + small.bounds[3:] == pytest.approx(large.xy(50, 30, offset="ul"))


@pytest.mark.parametrize("part", [{"window": (200, 0, 100, 50)}, {"bbox": (10, 10, 11, 11)}])
def test_a_part_outside_the_scene_is_refused(scene, out, part):
    with pytest.raises(FloraError, match=next(iter(part))):
        map_file(scene, out, by_vh, **part)
    assert not out.exists()


def test_a_border_above_and_below_leaves_bands_without_an_image(tmp_path, out):
    values = flooded(300, 100)
    values[:, :120] = np.nan
    values[:, -60:] = np.nan
    result = map_file(write_tif(tmp_path / "scene.tif", values), out, by_vh, **TILES)
    alpha = read(result.rgb)[3]
    assert (alpha[:120] == 0).all() and (alpha[-60:] == 0).all() and (alpha[120:-60] == 255).all()
    assert np.isnan(read(result.water_probability)[0, :120]).all()


# --- seams ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    """A local network whose branches all count: what starts at zero is stirred."""
    torch.manual_seed(0)
    network = Flora(named_config("tiny"))
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return predictor(network, torch.device("cpu"))


@pytest.fixture(scope="module")
def landscape(tmp_path_factory):
    """A simulated flood, 1,024 x 1,000 px."""
    sar = simulate(5, 1024).sar_after[..., :1000]
    return write_tif(tmp_path_factory.mktemp("landscape") / "scene.tif", sar.astype(np.float32))


@pytest.fixture(scope="module")
def untiled(landscape, model, tmp_path_factory):
    return map_file(landscape, tmp_path_factory.mktemp("untiled"), model, tile=1024)


def apart(first, second):
    """Largest difference of the probabilities, and of the images in grey levels."""
    water, image = (
        np.abs(read(getattr(first, name)).astype(float) - read(getattr(second, name))).max()
        for name in ("water_probability", "rgb")
    )
    return water, image


def test_tiles_do_not_show(landscape, untiled, out, model):
    """Tiles that are small enough for a quick test, with less overlap than the default."""
    assert Tiling().shared == 256 and Tiling().across.tile == 2048
    tiled = map_file(landscape, out / "tiled", model, tile=512, overlap=256)
    water, image = apart(tiled, untiled)
    assert water < 1e-4 and image <= 1
    # They would without an overlap.
    bare = map_file(landscape, out / "bare", model, tile=512, overlap=0)
    assert apart(bare, untiled)[0] > 0.05


@pytest.mark.parametrize("dates", [1, 2])
def test_the_weights_that_ship_answer_in_tiles_as_in_one_piece(landscape, dates):
    """With the default overlap, for one date and for two."""
    with rasterio.open(landscape) as file:
        values = file.read()[:, :704, :704]
    sar = torch.from_numpy(SENTINEL1.normalise(values, np.isfinite(values).all(axis=0)))[None]
    sar = torch.cat([sar.flip(-1)] * (dates - 1) + [sar], dim=1)  # the earlier date is another one
    predict = predictor(load_model(dates=dates))

    axis = Axis.cut(704, Tiling(512))
    assert axis.places == [slice(0, 512), slice(256, 704)]
    cores = [axis.core_in_tile(number) for number in (0, 1)]
    blend, tiled = Blend(axis, axis), []
    for number, rows in enumerate(axis.places):
        blend.begin(number)
        for column, columns in enumerate(axis.places):
            part = sar[..., rows, columns]
            valid = torch.ones_like(part[:, 0], dtype=torch.bool)
            water = predict.part(part, valid, None, cores[number], cores[column]).water
            blend.add(column, [water[0].numpy()])
        tiled.append(blend.rows()[0])
    whole = predict(sar, torch.ones_like(sar[:, 0], dtype=torch.bool), None).water[0, 0]
    apart = np.abs(np.concatenate(tiled) - whole.numpy())
    assert 0 < apart.max() < 1e-4  # measured: 3e-5


def test_the_batch_changes_nothing(landscape, untiled, out, model):
    one = map_file(landscape, out / "one", model, tile=512, overlap=256, batch=1)
    four = map_file(landscape, out / "four", model, tile=512, overlap=256, batch=4)
    assert apart(one, four)[0] < 1e-6


def test_a_part_is_mapped_as_in_the_whole(landscape, untiled, out, model):
    """But near its edges, also where it does not begin at a tile."""
    part = map_file(landscape, out, model, window=(130, 75, 700, 640), tile=512, overlap=256)
    inner = np.s_[..., 160:-160, 160:-160]
    cut = read(untiled.water_probability)[..., 75:715, 130:830]
    assert np.abs(read(part.water_probability) - cut)[inner].max() < 1e-4


@pytest.mark.filterwarnings("ignore:.*hold exactly:flora.errors.FloraWarning")
def test_a_dark_border_changes_nothing_inside(landscape, untiled, out, model, tmp_path):
    """Statistics of the scene would carry it everywhere."""
    with rasterio.open(landscape) as file:
        values = file.read()
    values[..., :128] = -35
    dark = map_file(write_tif(tmp_path / "dark.tif", values), out, model, tile=1024)
    difference = np.abs(read(dark.water_probability) - read(untiled.water_probability))[0]
    assert difference[:, :128].max() > 0.01
    assert difference[:, 128 + 171 :].max() == 0  # 171: FloraConfig.reach of `tiny`


@pytest.mark.filterwarnings("ignore:.*hold exactly:flora.errors.FloraWarning")
def test_a_constant_scene_is_answered_alike_in_every_attention_window(tmp_path, out, model):
    shape = (600, 640)
    values = np.stack([np.full(shape, -12.0), np.full(shape, -21.0)])
    path = write_tif(tmp_path / "constant.tif", values.astype(np.float32))
    made = map_file(path, out, model, tile=512, overlap=256)
    inner = read(made.water_probability)[0, 176:-176, 176:-176]  # beyond the zero padding's reach
    assert np.abs(inner[64:] - inner[:-64]).max() < 1e-3
    assert np.abs(inner[:, 64:] - inner[:, :-64]).max() < 1e-3


# --- the command ---------------------------------------------------------------------------------


def test_the_command_maps_a_part(scene, out):
    arguments = ["map", scene, "--out", out, "--tile", 128, "--quiet"]

    def run(*more):
        return CliRunner().invoke(app, [str(argument) for argument in (*arguments, *more)])

    assert run("--window", 30, 50, 130, 200).exit_code == 0
    mask = read(out / "scene_water_mask.tif")
    assert mask.shape == (1, 200, 130)
    with rasterio.open(scene) as file:
        west, north = transform(UTM, "EPSG:4326", [file.bounds.left + 505], [file.bounds.top - 505])
        east, south = transform(UTM, "EPSG:4326", [file.bounds.left + 995], [file.bounds.top - 995])
    box = ",".join(f"{side:.9f}" for (side,) in (west, south, east, north))
    assert box.startswith("-")  # a negative west is not taken for an option
    assert run("--bbox", box, "--overwrite").exit_code == 0
    rows, columns = read(out / "scene_water_mask.tif").shape[1:]
    assert 49 <= rows <= 54 and 49 <= columns <= 54  # the box is turned a little in UTM
    for part in (("--window", 200, 0, 100, 50), ("--bbox", "10,10,11,11")):
        refused = run(*part, "--overwrite")
        assert refused.exit_code == 1
        assert len(refused.stderr.splitlines()) == 1 and part[0][2:] in refused.stderr


def test_the_bar_says_speed_and_time_left_since_the_run_went_on(monkeypatch):
    clock = iter([100.0, 105.0])
    monkeypatch.setattr("flora.cli.bars.time.monotonic", lambda: next(clock))
    bar = SceneBar(quiet=True)
    # 1000 x 1000 px of 10 m: 100 km2, one for each tile.
    bar.accepted(SimpleNamespace(grid=Grid(UTM, GRID, (1000, 1000))))
    bar.show(10, 100)
    bar.show(60, 100)  # 50 tiles in 5 s
    assert bar.text == "60 of 100 tiles, 10 km2/s, 0:00:04 left"
