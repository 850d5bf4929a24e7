"""Seconds that one scene with all its layers takes on one core.

Run: python benchmarks/simulate.py [--size 512] [--runs 7] [--record results/simulate.json]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

# One core: numpy's linear algebra would start a thread a core otherwise.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from flora.experiments.provenance import write_record
from flora.simulate.scene import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the scene in pixels")
    parser.add_argument("--runs", type=int, default=7, help="scenes timed, each of another seed")
    parser.add_argument("--record", type=Path, help="write the seconds as JSON to this file")
    arguments = parser.parse_args()
    simulate(0, 64)  # imports and transforms that are planned once
    wall, processor = [], []
    for seed in range(arguments.runs):
        start, start_processor = time.perf_counter(), time.process_time()
        simulate(seed, arguments.size)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    print(
        f"{arguments.size} x {arguments.size} px, {arguments.runs} runs: median "
        f"{statistics.median(wall):.2f} s wall, {statistics.median(processor):.2f} s processor, "
        f"slowest {max(wall):.2f} s wall"
    )
    if arguments.record:
        seconds = {
            "wall_s": wall,
            "processor_s": processor,
            "median_wall_s": statistics.median(wall),
        }
        record = {"benchmark": "simulate", "size": arguments.size, **seconds}
        write_record(arguments.record, record)


if __name__ == "__main__":
    main()
