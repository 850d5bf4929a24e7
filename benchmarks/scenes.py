"""Speed, memory and seams of mapping whole scenes, in one run.

    python benchmarks/scenes.py [--size 10000 10000] [--seams 2048] [--record results/scenes.json]

Speed: a scene of simulated floods, written block by block, is mapped from file to file with the
weights that ship (i) through `map_scene`, in float32 and in bfloat16, (ii) in a plain loop of tiles
side by side, without threads, blending, overviews and resumption, (iii) through `map_scene` with a
U-Net that has a ResNet-34 encoder and makes one output, and (iv) with the same U-Net in the tiled
inference of terratorch
(`pip install terratorch`, which is no dependency of the library), with tiles, overlap and batch as
in `map_scene`, the whole scene in memory as there. Each runs in a fresh process, whose peak memory
and processor time are recorded beside the wall time (Linux): on a busy machine, compare processor
times. A run that fails, or whose package is not installed, is recorded as absent, with the reason.

Seams: one simulated scene mapped in tiles and in one piece, largest and mean difference of the
probability of water. `--only ours` maps a full scene (--size 17000 25000) and nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flora.experiments.provenance import write_record
from flora.models.predict import Precision, predictor
from flora.models.weights import load_model
from flora.predictors import Prediction, Predictor
from flora.scenes.inputs import open_scene
from flora.scenes.mapping import map_scene
from flora.scenes.rows import predict_rows
from flora.scenes.tiles import Tiling
from flora.sensors import SENTINEL1, OpticalStack
from flora.simulate.scene import simulate

BLOCK, WORLDS, TILE, BATCH, PIXEL = 512, 6, 1024, 1, 10.0
CPU = torch.device("cpu")


def write_mosaic(path: Path, rows: int, columns: int) -> None:
    """A scene of `WORLDS` simulated floods, mirrored and shuffled, with a border of nodata."""
    random = np.random.default_rng(0)
    worlds = [simulate(seed, BLOCK).sar_after.astype(np.float32) for seed in range(WORLDS)]
    profile = {"driver": "GTiff", "dtype": "float32", "count": 2, "nodata": np.nan}
    profile |= {"height": rows, "width": columns, "tiled": True, "compress": "deflate"}
    profile |= {"crs": "EPSG:32630", "predictor": 3, "zlevel": 1, "bigtiff": "if_safer"}
    transform = rasterio.Affine(PIXEL, 0, 500_000, 0, -PIXEL, 4_500_000)
    with rasterio.open(path, "w", **profile, transform=transform) as file:
        for row in range(0, rows, BLOCK):
            for column in range(0, columns, BLOCK):
                values = worlds[random.integers(WORLDS)][:, :: random.choice([-1, 1])]
                values = values[..., : rows - row, : columns - column].copy()
                if column == 0:
                    values[..., :100] = np.nan
                file.write(values, window=Window(column, row, *values.shape[:0:-1]))


def ours(precision: Precision = "float32") -> Predictor:
    """The weights that ship, as `flora map` uses them."""
    return predictor(load_model(), CPU, precision)


def unet() -> Predictor:
    """A U-Net with a ResNet-34 encoder; its weights do not matter for its speed."""
    import segmentation_models_pytorch as smp  # hundreds of MB that the other runs do without

    torch.manual_seed(0)
    model = smp.Unet("resnet34", encoder_weights=None, in_channels=2, classes=1).eval()

    def predict(sar: Tensor, valid: Tensor, guide: OpticalStack | None) -> Prediction:
        return Prediction(torch.sigmoid(model(sar)))

    return predict


def through_map_scene(make: Callable[[], Predictor], scene: Path, folder: Path) -> None:
    """Map a scene as users do."""
    with open_scene(scene) as opened:
        map_scene(opened, folder, make(), tiling=Tiling(TILE, batch=BATCH))


def in_a_plain_loop(make: Callable[[], Predictor], scene: Path, folder: Path) -> None:
    """The loop that one writes first: read a tile, predict it, write it."""
    predict = make()
    folder.mkdir()
    with rasterio.open(scene) as source:
        profile = source.profile | {"count": 4, "nodata": None}
        with rasterio.open(folder / "maps.tif", "w", **profile) as target:
            for row in range(0, source.height, TILE):
                for column in range(0, source.width, TILE):
                    size = min(TILE, source.width - column), min(TILE, source.height - row)
                    window = Window(column, row, *size)
                    values = source.read(window=window)
                    valid = np.isfinite(values).all(axis=0)
                    sar = torch.from_numpy(SENTINEL1.normalise(values, valid))[None]
                    water, rgb = predict(sar, torch.from_numpy(valid)[None], None)
                    layers = [water] if rgb is None else [water, rgb]
                    target.write(torch.cat(layers, 1)[0].numpy(), window=window)


def in_terratorch(make: Callable[[], Predictor], scene: Path, folder: Path) -> None:
    """Read the scene whole, predict it in terratorch's tiles, write the probability."""
    from terratorch.tasks.tiled_inference import tiled_inference

    predict = make()
    folder.mkdir()
    with rasterio.open(scene) as source:
        profile = source.profile | {"count": 1, "nodata": None}
        values = source.read()
    valid = np.isfinite(values).all(axis=0)
    sar = torch.from_numpy(SENTINEL1.normalise(values, valid))[None]
    # `map_scene` blends over the middle of an overlap, terratorch over what `delta` leaves.
    overlap = Tiling(TILE).shared
    water = tiled_inference(
        lambda tiles: predict(tiles, torch.ones_like(tiles[:, 0], dtype=torch.bool), None).water,
        sar,
        crop=TILE,
        stride=TILE - overlap,
        delta=overlap // 4,
        batch_size=BATCH,
    )
    with rasterio.open(folder / "maps.tif", "w", **profile) as target:
        target.write(water[0].numpy())


RUNS: dict[str, Callable[[Path, Path], None]] = {
    "ours": partial(through_map_scene, ours),
    "ours, bfloat16": partial(through_map_scene, partial(ours, "bfloat16")),
    "plain loop": partial(in_a_plain_loop, ours),
    "U-Net R34": partial(through_map_scene, unet),
    "U-Net R34 in terratorch": partial(in_terratorch, unet),
}
NEEDS = {
    "U-Net R34": "segmentation_models_pytorch",
    "U-Net R34 in terratorch": "terratorch.tasks.tiled_inference",  # no dependency of flora
}


def measure(name: str, scene: Path, folder: Path) -> dict[str, Any]:
    """One run in a fresh process; what it died of, if it did."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        run = pool.submit(_measure_here, name, scene, folder)
        try:
            return run.result()
        except (ImportError, MemoryError, RuntimeError) as error:  # a killed process is the last
            return {"absent": f"{type(error).__name__}: {error}"}


def _measure_here(name: str, scene: Path, folder: Path) -> dict[str, Any]:
    with rasterio.open(scene) as file:
        km2 = file.width * file.height * PIXEL**2 / 1e6
    if name in NEEDS:
        import_module(NEEDS[name])  # before the clock starts, as what the others import
    wall, processor = time.perf_counter(), time.process_time()
    RUNS[name](scene, folder)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1e6
    return {
        "wall_s": wall,
        "processor_s": processor,
        "km2_per_s": km2 / wall,
        "km2_per_processor_s": km2 / processor,
        "peak_memory_gb": peak,
    }


def seams(side: int, folder: Path) -> list[dict[str, Any]]:
    """How much tiles of several kinds show on a simulated scene, against one piece."""
    made = simulate(3, side)
    path = folder / "landscape.tif"
    values = made.sar_after.astype(np.float32)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 2, "height": side, "width": side}
    transform = rasterio.Affine(PIXEL, 0, 500_000, 0, -PIXEL, 4_500_000)
    with rasterio.open(path, "w", **profile, crs="EPSG:32630", transform=transform) as file:
        file.write(values)
    rows: list[dict[str, Any]] = []
    with open_scene(path) as scene:
        backscatter, valid = scene.read(0, side)
        sar = torch.from_numpy(scene.scaling.normalise(backscatter, valid))[None]
        predict = ours()
        whole = predict(sar, torch.from_numpy(valid)[None], None).water[0, 0].numpy()
        for tile, overlap in (
            (512, 0),
            (512, 128),
            (512, 256),
            (1024, 192),
            (1024, Tiling().shared),
        ):
            bands = predict_rows(scene, predict, Tiling(tile, overlap))
            tiled = np.concatenate([band.probability for band in bands])
            apart = np.abs(tiled - whole)
            water = made.water_after, tiled >= 0.5
            row: dict[str, Any] = {"tile": tile, "overlap": overlap}
            row |= {"largest": float(apart.max()), "mean": float(apart.mean())}
            row["share_of_other_class"] = float(((tiled >= 0.5) != (whole >= 0.5)).mean())
            row["water_iou"] = float((water[0] & water[1]).sum() / (water[0] | water[1]).sum())
            rows.append(row)
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys as a table."""
    table = Table(*(key.replace("_", " ") for key in rows[0]), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(10_000, 10_000), help="rows, columns")
    parser.add_argument("--seams", type=int, default=2048, help="side of that scene; 0: leave out")
    parser.add_argument("--only", choices=list(RUNS), action="append", help="leave out the others")
    parser.add_argument("--folder", type=Path, help="for scene and maps; default: a temporary one")
    parser.add_argument("--record", type=Path, help="write the rows as JSON to this file")
    arguments = parser.parse_args()
    record: dict[str, Any] = {"benchmark": "scenes", "size": list(arguments.size), "tile": TILE}
    if find_spec("terratorch"):
        record["terratorch"] = version("terratorch")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        scene = folder / "scene.tif"
        write_mosaic(scene, *arguments.size)
        runs = {}
        for name in arguments.only or RUNS:
            runs[name] = measure(name, scene, folder / name.replace(", ", "_").replace(" ", "_"))
        ran = {name: run for name, run in runs.items() if "absent" not in run}
        if ran:
            show("file to file", [{"run": name, **run} for name, run in ran.items()])
        for name in runs.keys() - ran.keys():
            Console().print(f"{name}: absent, {runs[name]['absent']}", markup=False)
        record["runs"] = runs
        first = next(iter(ran.values()), {})
        record["processor_ratio_to_first"] = {
            name: run["processor_s"] / first["processor_s"] for name, run in ran.items()
        }
        if arguments.seams:
            record["seams_side"] = arguments.seams
            record["seams"] = seams(arguments.seams, folder)
            show("seams", record["seams"])
    if arguments.record:
        write_record(arguments.record, record)


if __name__ == "__main__":
    main()
