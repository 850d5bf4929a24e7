"""Throughput and memory of FLoRA on a GPU or the CPU, and what bounds it, in one run.

    python benchmarks/throughput.py [--size small] [--record results/throughput.json]

Inference maps chips of 10 m with both outputs in mode `sar`; a training step is that of
`flora.training.fit.fit`: forward with mixed guidance, loss, backward, clipping, update, and reading
the loss. Variants change one thing of the first row; the last of a GPU's combines what helps.
The rate of a large matrix product in the same precision and the bandwidth of a large copy take
turns with them, so that a busy machine slows all alike, and shares are of what was measured in
the same run. Each time is the median of the rounds, after a warm-up, read from CUDA events on a
GPU. On a CPU it is wall time, or with OMP_NUM_THREADS=1 processor time, which other programs do
not lengthen. A variant that does not run is recorded as absent, with the reason.

Peak memory is that of the tensors on a GPU, and that of a fresh process on a CPU (Linux). The
time that a training step waits for data is measured with crops of GeoTIFF chips, simulated and
written to a temporary folder, or those in --chips.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.table import Table

from benchmarks.roofline import (
    COPY_BYTES,
    DTYPES,
    MATRIX_SIDE,
    RULE,
    Run,
    bound,
    clock_name,
    copy,
    count_operations,
    count_traffic,
    matrix_product,
    take_turns,
)
from benchmarks.speed import peak_memory
from benchmarks.variants import Setup, Variant, build, left_out, native_precision, trainer, variants
from flora.datasets.base import FloodDataset
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.experiments.provenance import write_record
from flora.models.config import SIZES
from flora.models.network import Flora, parameter_count
from flora.simulate.scene import write_sen1floods11

# The very loader of `fit`: this measures what it does.
from flora.training.config import TrainingConfig
from flora.training.evaluation import choose_device
from flora.training.fit import _loader
from flora.training.tasks import StudentTask

KINDS = ("inference", "training")
SQUARE_KM = 1e-4  # of a pixel of 10 m
WARM_UP = 3  # steps before the clock: workers start, kernels are chosen


def prepare(kind: str, variant: Variant, setup: Setup) -> tuple[Run, float | None] | str:
    """A warm function and its peak memory in GB; or the reason why the variant does not run."""
    device = setup.on
    try:
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            run = build(kind, variant, setup)
            for _ in range(WARM_UP):  # compilation and the choice of kernels take memory of theirs
                run()
            torch.cuda.reset_peak_memory_stats(device)
            run()
            return run, (torch.cuda.max_memory_allocated(device) - before) / 1e9
        run = build(kind, variant, setup)
        run()
    except torch.cuda.OutOfMemoryError:
        return "out of memory"
    # The compiler's own errors are RuntimeErrors; the code that it writes asserts its layouts.
    except (RuntimeError, AssertionError) as error:
        if variant.compiled == "no":
            raise
        return f"torch.compile: {type(error).__name__}: {first_line(error)}"
    # A compiler's own memory is not the model's.
    return run, peak_memory(build, kind, variant, setup) if variant.compiled == "no" else None


def first_line(error: Exception) -> str:
    """What an error says first, without the report that follows."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]


def measure(
    setup: Setup, batches: Sequence[int], rounds: int, compiling: bool
) -> tuple[dict[str, float], dict[str, dict[str, dict[str, Any]]]]:
    """Measure the device's rates and all variants; all take turns.

    Returns:
        The rates in operations and bytes a second, and by kind of run a row a variant.
    """
    device = setup.on
    side, copied = MATRIX_SIDE[device.type], COPY_BYTES[device.type]
    runs = {"copy": copy(device, copied)}
    for precision in dict.fromkeys(("float32", native_precision(device))):
        runs[f"matrix {precision}"] = matrix_product(precision, device, side)
    for run in runs.values():
        run()  # before memory is measured: libraries keep workspaces
    rows: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
    operations = {kind: count_operations(build(kind, Variant(1), setup)) for kind in KINDS}
    traffic: dict[str, int] = {}
    for kind in KINDS:
        for name, variant in variants(kind, batches, device).items():
            row = rows[kind][name] = asdict(variant)
            absent = left_out(variant, device, compiling)
            ready = absent or prepare(kind, variant, setup)
            if isinstance(ready, str):
                row["absent"] = ready
                continue
            key = f"{kind} {name}"
            runs[key], row["peak_memory_gb"] = ready
            if variant.compiled == "no":
                traffic[key] = count_traffic(runs[key])
    taken = take_turns(runs, rounds, device)

    rates = {"copy_bytes_per_s": 2 * copied / taken.pop("copy")}
    for precision in DTYPES:
        if f"matrix {precision}" in taken:
            rates[f"{precision}_operations_per_s"] = 2 * side**3 / taken[f"matrix {precision}"]
    for kind in KINDS:
        first: float | None = None  # samples a second of the first row, if that one ran
        for number, (name, row) in enumerate(rows[kind].items()):
            key = f"{kind} {name}"
            if key not in taken:
                continue
            work = operations[kind] * row["batch"], traffic.get(key)
            row |= figures(row, setup.side(kind), taken[key], work, rates)
            first = row["samples_per_s"] if number == 0 else first
            row["ratio_to_first"] = None if first is None else row["samples_per_s"] / first
    return rates, rows


def figures(
    row: Mapping[str, Any],
    side: int,
    taken: float,
    work: tuple[int, int | None],
    rates: Mapping[str, float],
) -> dict[str, Any]:
    """What follows from the seconds that a batch took.

    Args:
        row: Its variant.
        side: Of its images in pixels.
        taken: Seconds.
        work: Operations of the batch, and bytes of its traffic where they are known.
        rates: Of the device, see `measure`.
    """
    operations, moved = work
    matrix = operations / taken / rates[f"{row['precision']}_operations_per_s"]
    traffic = None if moved is None else moved / taken / rates["copy_bytes_per_s"]
    samples = row["batch"] / taken
    return {
        "samples_per_s": samples,
        "km2_per_s": samples * side**2 * SQUARE_KM,
        "operations_per_sample": operations / row["batch"],
        "bytes_per_sample": None if moved is None else moved / row["batch"],
        "matrix_share": matrix,
        "copy_share": traffic,
        "bound_by": bound(matrix, traffic),
    }


def waiting(
    setup: Setup, dataset: FloodDataset, batch: int, workers: int, steps: int
) -> dict[str, float]:
    """Seconds of a training step, and those of it in which the step waits for its batch."""
    device = setup.on
    variant = Variant(batch, native_precision(device))
    config = TrainingConfig(steps=WARM_UP + steps, batch=batch, crop=setup.crop, workers=workers)
    step = trainer(StudentTask(Flora(SIZES[setup.size]).to(device)), variant, device)
    AcceleratorState._reset_state()  # as `fit` does
    batches = iter(_loader(dataset, config, 0, Accelerator(cpu=device.type == "cpu")))
    waits, whole = [], []
    for _ in range(config.steps):
        start = time.perf_counter()
        crops = next(batches)
        ready = time.perf_counter()
        step(crops)  # ends when the device has ended, for it reads the loss
        waits.append(ready - start)
        whole.append(time.perf_counter() - start)
    waited, taken = sum(waits[WARM_UP:]), sum(whole[WARM_UP:])
    return {
        "workers": workers,
        "step_s": taken / steps,
        "wait_s": waited / steps,
        "wait_share": waited / taken,
        "samples_per_s": batch * steps / taken,
    }


def show(record: Mapping[str, Any]) -> None:
    """Print a record as tables."""
    console = Console()
    for kind in KINDS:
        table = Table(kind, "samples/s", "km2/s", "memory, GB", "bound by", title=record["size"])
        for name, row in record[kind].items():
            if "absent" in row:
                table.add_row(name, "-", "-", "-", row["absent"])
                continue
            memory = row["peak_memory_gb"]
            cells = (f"{row[key]:,.2f}" for key in ("samples_per_s", "km2_per_s"))
            table.add_row(name, *cells, "-" if memory is None else f"{memory:.2f}", row["bound_by"])
        console.print(table)
    for name, rate in record["rates"].items():
        console.print(f"{name}: {rate:.3g}")
    for row in record["waiting"]:
        console.print(f"{row['workers']} workers: {row['wait_share']:.1%} of a step waits for data")
    console.print(RULE)


def positive(text: str) -> int:
    """A number of 1 or more of the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected 1 or more")
    return value


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--device", choices=sorted(COPY_BYTES), help="a GPU if there is one")
    parser.add_argument("--chip", type=positive, default=512, help="side in inference, px")
    parser.add_argument("--crop", type=positive, default=256, help="side in training, px")
    parser.add_argument(
        "--batches",
        type=positive,
        nargs="+",
        default=[8, 1, 32],
        help="the first is that of the other variants",
    )
    parser.add_argument("--rounds", type=positive, default=10)
    parser.add_argument("--steps", type=positive, default=30, help="steps that may wait for data")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--chips", type=Path, help="folder of Sen1Floods11, with training chips")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure torch.compile; the default on a GPU, for on a CPU compiling takes long",
    )
    parser.add_argument("--note", help="what else the machine did, for the record")
    parser.add_argument("--record", type=Path, help="write the figures as JSON to this file")
    options = parser.parse_args()
    device = choose_device(options.device)
    compiling = device.type == "cuda" if options.compile is None else options.compile
    setup = Setup(options.size, options.chip, options.crop, str(device))
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        root = options.chips or Path(folder)
        if options.chips is None:
            write_sen1floods11({"train": range(8)}, root)
        chips = Sen1Floods11(root, "train", require_all=False)
        waits = [
            waiting(setup, chips, options.batches[0], workers, options.steps)
            for workers in options.workers
        ]
    rates, rows = measure(setup, options.batches, options.rounds, compiling)
    record = {
        "benchmark": "throughput",
        "size": options.size,
        "parameters": parameter_count(Flora(SIZES[options.size])),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "chip": options.chip,
        "crop": options.crop,
        "rounds": options.rounds,
        "clock": clock_name(device),
        "rates": rates,
        **rows,
        "waiting": waits,
        "rule": RULE,
        "load_average": {"start": load, "end": os.getloadavg()},
        "note": options.note,
    }
    show(record)
    if options.record:
        write_record(options.record, record)


if __name__ == "__main__":
    main()
