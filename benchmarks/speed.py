"""Speed and memory of FLoRA's sizes beside a U-Net with a ResNet-34 encoder, in one run.

    python benchmarks/speed.py [--record results/speed.json]

Inference is of one 512 x 512 px chip at 10 m, both outputs, mode `sar`; a training step is of
2 crops of 256 px, forward, loss, backward and update. Rounds of all models are interleaved and
each model's median is taken, so that a busy machine slows all of them alike. Peak memory is that
of a fresh process that does nothing else (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from flora.datasets.base import collate
from flora.datasets.simulated import Simulated
from flora.experiments.provenance import write_record
from flora.models.config import SIZES
from flora.models.network import Flora, parameter_count
from flora.training.tasks import StudentTask

SIDE, CROP, BATCH = 512, 256, 2
SQUARE_KM = SIDE * SIDE * 1e-4
UNET = "U-Net R34"


def build(name: str) -> nn.Module:
    """The model of a row of the table."""
    torch.manual_seed(0)
    if name == UNET:
        import segmentation_models_pytorch as smp

        unet = smp.Unet("resnet34", encoder_weights=None, in_channels=2, classes=1)
        return unet  # type: ignore[no-any-return]
    return Flora(SIZES[name])


def inference(name: str) -> Callable[[], Tensor]:
    """A function that maps one chip."""
    model = build(name).eval()
    sar = torch.randn(1, 2, SIDE, SIDE)

    @torch.inference_mode()
    def run() -> Tensor:
        output = model(sar)
        return output if name == UNET else output.water_logits  # type: ignore[no-any-return]

    return run


def training(name: str) -> Callable[[], None]:
    """A function that makes one training step."""
    model = build(name)
    batch = collate([Simulated("train", count=1, size=CROP)[0]] * BATCH)
    task = StudentTask(model) if isinstance(model, Flora) else None
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters)
    water = (batch["water"] == 1).float().unsqueeze(1)

    def run() -> None:
        if task is None:
            loss = nn.functional.binary_cross_entropy_with_logits(model(batch["sar"]), water)
        else:
            loss, _ = task(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return run


def peak_memory(make: Callable[..., Callable[[], object]], *arguments: object) -> float:
    """Peak resident memory in GB of a fresh process that makes a function and runs it twice."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (make, *arguments))


def _peak_here(make: Callable[..., Callable[[], object]], *arguments: object) -> float:
    run = make(*arguments)
    run()
    run()
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function; the functions take turns."""
    for run in runs.values():
        run()
    return medians({name: partial(wall_time, run) for name, run in runs.items()}, rounds)


def wall_time(run: Callable[[], object]) -> float:
    """Seconds that a function takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def medians(clocks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of what each clock reads; the clocks take turns."""
    read: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(rounds):
        for name, clock in clocks.items():
            read[name].append(clock())
    return {name: statistics.median(values) for name, values in read.items()}


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, help="write the rows as JSON to this file")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    names = [*SIZES, UNET]
    mapping = interleaved({name: inference(name) for name in names}, arguments.rounds)
    steps = interleaved({name: training(name) for name in names}, arguments.rounds)
    rows = {
        name: {
            "parameters": parameter_count(build(name)),
            "inference_km2_per_s": SQUARE_KM / mapping[name],
            "inference_ratio_to_unet": mapping[UNET] / mapping[name],
            "training_samples_per_s": BATCH / steps[name],
            "training_ratio_to_unet": steps[UNET] / steps[name],
            "peak_memory_inference_gb": peak_memory(inference, name),
            "peak_memory_training_gb": peak_memory(training, name),
        }
        for name in names
    }
    table = Table("", *names)
    for key in rows[UNET]:
        table.add_row(key.replace("_", " "), *(f"{rows[name][key]:,.2f}" for name in names))
    Console().print(table)
    if arguments.record:
        write_record(arguments.record, {"benchmark": "speed", "rows": rows})


if __name__ == "__main__":
    main()
