"""Scenes an hour with one and with two processes, and in this process, in one run.

    python benchmarks/many_scenes.py [--record results/many_scenes.json]

Simulated scenes are mapped by the weights of the package, with one thread a process. The start
of the processes and their first scene, in which the model is loaded, are outside the time. Rounds
of all three are interleaved and the median is taken, so that a busy machine slows all alike; the
load of the machine is recorded beside.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import rasterio
from rasterio.transform import Affine

from flora.experiments.provenance import write_record
from flora.scenes.many import MapOptions, WeightsPredictor, Workers, map_scenes
from flora.simulate.scene import simulate

WORKERS = (0, 1, 2)


def write_scenes(folder: Path, count: int, side: int) -> list[Path]:
    """Simulated scenes as GeoTIFFs in dB on a 10 m grid."""
    paths = [folder / f"scene{number}.tif" for number in range(count)]
    for seed, path in enumerate(paths):
        sar = simulate(seed, side).sar_after
        grid = {"crs": "EPSG:32630", "transform": Affine(10, 0, 500_000, 0, -10, 4_200_000)}
        size = {"count": 2, "height": side, "width": side, "dtype": "float32"}
        with rasterio.open(path, "w", driver="GTiff", **grid, **size) as file:
            file.write(sar)
    return paths


def seconds_a_scene(paths: list[Path], folder: Path, workers: int) -> float:
    """Seconds a scene, from when every process has ended one scene to when the last has ended."""
    ends: list[float] = []
    reports = map_scenes(
        paths,
        folder,
        WeightsPredictor(device="cpu"),
        mapping=MapOptions(overwrite=True),
        workers=Workers(workers),
        done=lambda _: ends.append(time.perf_counter()),
    )
    failed = [report.error for report in reports if report.error is not None]
    if failed:
        raise SystemExit(failed[0])
    first = max(workers, 1)
    return (ends[-1] - ends[first - 1]) / (len(ends) - first)


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, help="write the figures as JSON to this file")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--side", type=int, default=512, help="side of a scene in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    seconds: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_scenes(folder, arguments.scenes, arguments.side)
        for _ in range(arguments.rounds):
            for workers in WORKERS:
                seconds[workers].append(seconds_a_scene(paths, folder / "maps", workers))
    median = {workers: statistics.median(values) for workers, values in seconds.items()}
    for workers, value in median.items():
        print(f"{workers} workers: {value:.2f} s a scene, {median[1] / value:.2f} of one worker's")
    if arguments.record:
        record = {
            "benchmark": "many_scenes",
            "scenes": arguments.scenes,
            "side": arguments.side,
            "seconds_a_scene": {str(workers): values for workers, values in seconds.items()},
            "throughput_ratio_two_to_one": median[1] / median[2],
            "throughput_ratio_one_to_serial": median[0] / median[1],
            "load_average_at_start": load,
        }
        write_record(arguments.record, record)


if __name__ == "__main__":
    main()
