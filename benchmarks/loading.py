"""Samples per second of random crops from GeoTIFF chips: windowed against whole-file reading.

    python benchmarks/loading.py [--chips FOLDER] [--record results/loading.json]

Crops of 256 px come from chips of 512 px in the layout of Sen1Floods11: simulated ones, written to
a temporary folder, and the test chips in FOLDER, where given. Three readers serve the same crops:

- windowed: what training does. Only the window is read, and of Sentinel-2 the 7 bands in use.
- whole chip: the same chip whole, then cropped.
- whole files: all bands of the three files, as float32, then cropped; no mask, scaling or check,
  which is less work than the other two do.

What a window saves depends on how the files are cut: the publisher's hold one strip a band, which
is decoded whole for any window. Rounds are interleaved and the median is taken, so that a busy
machine slows all alike. Every process keeps to one thread, as workers do. They are started before
the clock, and files are in the system's cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import rasterio
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from flora.datasets.base import FloodDataset, Sample, Window, collate, crop_sample
from flora.datasets.crops import RandomCrops
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.experiments.provenance import write_record
from flora.simulate.scene import write_sen1floods11

CHIP, CROP, BATCH = 512, 256, 8
WORKERS = (0, 2)


class WholeChip(Sen1Floods11):
    """Reads the chip whole and crops it."""

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`."""
        sample = super().read(index)
        return sample if window is None else crop_sample(sample, window)


class WholeFiles(Sen1Floods11):
    """Reads all bands of the files whole and crops them, without masks, scaling and checks."""

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; the values are as stored."""
        layers = []
        for layer in ("S1Hand", "S2Hand", "LabelHand"):
            with rasterio.open(self.path(index, layer)) as source:
                layers.append(torch.from_numpy(source.read()).float())
        sar, optical, label = layers
        valid = torch.ones(label.shape[1:], dtype=torch.bool)
        sample = Sample(
            sar=sar,
            sar_valid=valid,
            optical=optical,
            optical_valid=valid,
            index=optical[:1],
            water=label[0].long(),
            meta={
                "id": self.manifest()[index],
                "place": "",
                "date": None,
                "crs": None,
                "transform": None,
                "split": self.split,
            },
        )
        return sample if window is None else crop_sample(sample, window)


READERS = {"windowed": Sen1Floods11, "whole chip": WholeChip, "whole files": WholeFiles}


def loader(dataset: FloodDataset, crops: int, workers: int) -> DataLoader[Sample]:
    """Batches of random crops; its workers live on between passes."""
    return DataLoader(
        RandomCrops(dataset, CROP, crops, seed=0),
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )


def measure(root: Path, crops: int, rounds: int) -> dict[str, dict[str, float]]:
    """Samples per second of each reader by number of workers; the readers take turns."""
    loaders = {
        (name, workers): loader(reader(root, "test", require_all=False), crops, workers)
        for name, reader in READERS.items()
        for workers in WORKERS
    }
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in loaders}
    for number in range(rounds + 1):
        for key, batches in loaders.items():
            start = time.perf_counter()
            served = sum(len(batch["meta"]) for batch in batches)
            if number:  # the first pass starts the workers and fills the system's cache
                seconds[key].append((time.perf_counter() - start) / served)
    rows: dict[str, dict[str, float]] = {name: {} for name in READERS}
    for (name, workers), values in seconds.items():
        rows[name][f"samples_per_s_{workers}_workers"] = 1 / median(values)
        ratio = median(seconds["whole files", workers]) / median(values)
        rows[name][f"ratio_to_whole_files_{workers}_workers"] = ratio
    return rows


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", type=Path, help="folder of Sen1Floods11, with test chips")
    parser.add_argument("--record", type=Path, help="write the rows as JSON to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crops", type=int, default=64, help="crops a round")
    parser.add_argument("--scenes", type=int, default=8, help="simulated chips")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_sen1floods11({"test": range(arguments.scenes)}, Path(folder), CHIP)
        sources = {"simulated": Path(folder)}
        if arguments.chips:
            sources["given"] = arguments.chips
        rows = {
            name: measure(root, arguments.crops, arguments.rounds) for name, root in sources.items()
        }
    for name, readers in rows.items():
        table = Table("reader", *(key.replace("_", " ") for key in readers["windowed"]), title=name)
        for reader, row in readers.items():
            table.add_row(reader, *(f"{value:,.2f}" for value in row.values()))
        Console().print(table)
    if arguments.record:
        write_record(arguments.record, {"benchmark": "loading", "crop": CROP, "rows": rows})


if __name__ == "__main__":
    main()
