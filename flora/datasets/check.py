"""Is a downloaded dataset what it should be: every chip read, counted and checked."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from flora.datasets import dataset_class, open_dataset
from flora.datasets.base import FloodDataset, Sample
from flora.datasets.evidence import (
    DateOrder,
    Evidence,
    OpticalUnits,
    Polarisations,
    RadarUnits,
)
from flora.datasets.pairing import EmptySplitError, MissingFilesError, how_to_exclude
from flora.datasets.rasters import read_raster
from flora.datasets.sentinel import unsigned
from flora.errors import FloraError, FloraWarning
from flora.sensors import DRY, IGNORE, REFLECTANCE, WATER


@dataclass
class PlaceCount:
    """Chips and pixels of one place in one split.

    Attributes:
        chips: Chips that could be read.
        pixels: Their pixels.
        water: Pixels labelled water.
        dry: Pixels labelled dry.
        optical: Pixels with a valid optical image.
    """

    chips: int = 0
    pixels: int = 0
    water: int = 0
    dry: int = 0
    optical: int = 0


@dataclass
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        dataset: Name of the dataset.
        root: Its folder.
        places: Counts by (split, place).
        problems: What is wrong, one line each; empty where nothing is.
        notes: What is not wrong but should be known.
    """

    dataset: str
    root: Path
    places: dict[tuple[str, str], PlaceCount] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> Table:
        """Counts per split and place, with the shares of their pixels."""
        table = Table("split", title=f"{self.dataset} in {self.root}")
        table.add_column("place", overflow="fold")
        for name in ("chips", "water", "dry", "unlabelled", "optical valid"):
            table.add_column(name, justify="right")
        for (split, place), count in self.places.items():
            unlabelled = count.pixels - count.water - count.dry
            shares = [count.water, count.dry, unlabelled, count.optical]
            cells = (f"{share / max(1, count.pixels):.1%}" for share in shares)
            table.add_row(split, place, str(count.chips), *cells)
        return table

    def unlabelled(self) -> Iterator[str]:
        """A line for each split of which no pixel is labelled."""
        labels: dict[str, int] = {}
        for (split, _), count in self.places.items():
            labels[split] = labels.get(split, 0) + count.water + count.dry
        for split, pixels in labels.items():
            if pixels == 0:
                yield f"split {split!r} holds no label: it can train only what needs none"


def require_labels(dataset: FloodDataset) -> None:
    """Refuse to train water on a split without a single label.

    Args:
        dataset: The split; read up to its first chip with a label.

    Raises:
        FloraError: If there is none.
    """
    for index in range(len(dataset)):
        if (dataset[index]["water"] != IGNORE).any():
            return
    raise FloraError(
        f"{dataset.name}: none of the {len(dataset)} chips to train on has a label, so nothing is "
        "learnt about water; add labels (0 dry, 1 water, 255 unknown), or choose another split"
    )


def check_dataset(
    name: str,
    root: Path,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> CheckReport:
    """Read every chip of a downloaded dataset and say what is wrong with it.

    Problems are files that are missing, unreadable or misnamed; grids that differ within a chip;
    label codes outside the list; values outside physics; chips without any data; and labels that
    do not fit their radar images, in which water is darker than land; VV darker than VH; radar
    or optical images in other units; images of exchanged dates. A place that was not downloaded
    at all, and a split without labels, is a note.

    Args:
        name: One of `flora.datasets.DATASETS` that is read from files.
        root: The folder it was downloaded to.
        progress: Called with the chips done and the chips of the split, for a progress bar.
        options: Further arguments of the dataset's constructor, e.g. `units` of `DeepFlood`.

    Raises:
        FloraError: If the name is unknown, or its chips are not read from files.
    """
    kind = dataset_class(name)
    if "root" not in inspect.signature(kind).parameters:
        raise FloraError(f"{name} needs no files of yours: there is nothing to check")
    if "sar_dates" in inspect.signature(kind).parameters:  # both, to compare them
        options.setdefault("sar_dates", ("before", "after"))
    report = CheckReport(name, Path(root))
    if kind.truth:
        report.notes.append(kind.truth)
    darkness = _Darkness(kind.classes)
    evidence: tuple[Evidence, ...] = (
        Polarisations(),
        RadarUnits(),
        OpticalUnits(),
        DateOrder(),
    )
    split_of: dict[str, str] = {}
    absent: dict[str, Path] = {}
    for split, layer in kind.parts(Path(root)):
        dataset = _open(report, split, layer | options, absent)
        if dataset is None:
            continue
        label = ", ".join((split, *layer.values()))
        for chip in dataset.manifest():
            if split_of.setdefault(chip, split) != split:
                report.problems.append(f"{chip} is in two splits, {split_of[chip]} and {split}")
        for index in range(len(dataset)):
            sample = _check_chip(report, dataset, index, label, darkness)
            if sample is not None:
                for one in evidence:
                    one.add(dataset, sample)
            if progress is not None:
                progress(index + 1, len(dataset))
    darkness.conclude(report)
    report.problems.extend(line for one in evidence for line in one.problems())
    report.notes.extend(report.unlabelled())
    _conclude_absent(report, absent)
    if not report.places and not report.problems:
        report.problems.append(f"{name}: no chip in {root}: check the folder")
    return report


def _open(
    report: CheckReport,
    split: str,
    options: Mapping[str, Any],
    absent: dict[str, Path],
    exclude: tuple[str, ...] = (),
) -> FloodDataset | None:
    """The dataset of a split without its incomplete chips, or None where it cannot be opened.

    A file of each chip of which nothing is there goes to `absent`.
    """
    if exclude:
        options = {**options, "exclude": (*options.get("exclude", ()), *exclude)}
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FloraWarning)
            dataset = open_dataset(report.dataset, report.root, split, **options)
    except MissingFilesError as error:
        for chip, paths in error.missing.items():
            if chip in error.absent:
                absent[chip] = paths[0]
            else:
                lost = ", ".join(map(str, paths))
                report.problems.append(f"split {split!r}: {chip} is incomplete: no {lost}")
        return _open(report, split, options, absent, tuple(error.missing))
    except EmptySplitError as error:
        if not exclude:
            report.notes.append(str(error))
    except FloraError as error:
        if str(error) not in report.problems:
            report.problems.append(str(error))
    else:
        report.notes.extend(str(warning.message) for warning in caught)
        return dataset
    return None


def _conclude_absent(report: CheckReport, absent: Mapping[str, Path]) -> None:
    """Listed chips of which nothing is there: a place may be left out, but not parts of one."""
    present = {place for _, place in report.places}
    for place in sorted({chip.split("_")[0] for chip in absent}):
        paths = [path for chip, path in absent.items() if chip.split("_")[0] == place]
        if place in present:
            report.problems.append(
                f"{len(paths)} chips of {place} are missing, the first is {paths[0]}"
            )
        else:
            report.notes.append(f"nothing of {place} is there ({len(paths)} chips)")


def _check_chip(
    report: CheckReport, dataset: FloodDataset, index: int, label: str, darkness: _Darkness
) -> Sample | None:
    """Read a chip as training does, count it, and check that its values are physically possible."""
    try:
        sample = dataset[index]
        beyond = list(_beyond(dataset, index))
    except FloraError as error:
        report.problems.append(str(error))
        return None
    report.problems.extend(beyond)
    key = (label, sample["meta"]["place"])
    count = report.places.setdefault(key, PlaceCount())
    count.chips += 1
    count.pixels += sample["water"].numel()
    count.water += int((sample["water"] == WATER).sum())
    count.dry += int((sample["water"] == DRY).sum())
    count.optical += int(sample["optical_valid"].sum())
    darkness.add(dataset, index, sample)
    return sample


def _beyond(dataset: Any, index: int) -> Iterator[str]:
    """A line for each layer of a chip that holds nothing, or values that no sensor gives."""
    for layer, (bands, limits) in dataset.stored.items():
        path = dataset.path(index, layer)
        raster = read_raster(path, bands)
        stored = unsigned(raster.values) if limits is REFLECTANCE else raster.values
        if limits is REFLECTANCE:
            measured = stored > 0
        else:
            measured = np.isfinite(stored) & (stored != raster.nodata)
        if not measured.any():
            yield f"{path} holds nodata only: exclude this chip: {how_to_exclude(path)}"
            continue
        values = stored[measured].astype(np.float64) / limits.scale
        outside = np.count_nonzero((values < limits.low) | (values > limits.high))
        if outside > limits.tolerated * values.size:
            yield (
                f"{path}: {outside} of {values.size} values lie outside {limits.low:g} to "
                f"{limits.high:g} {limits.unit} (from {values.min():.4g} to {values.max():.4g})"
            )


class _Darkness:
    """Mean of the first radar band by class: where labels fit their images, water is darkest."""

    def __init__(self, classes: Mapping[int, str] | None) -> None:
        self.classes = classes
        self.unit = ""
        self.total: dict[int, float] = {}
        self.pixels: dict[int, int] = {}

    def add(self, dataset: Any, index: int, sample: Sample) -> None:
        """Count a chip, by the publisher's classes where there are more than water and dry."""
        if self.classes is None:
            codes = sample["water"].numpy()
        else:
            codes = read_raster(dataset.path(index, "Mask"), ("class",)).values[0]
        self.unit = dataset.sar_scaling.unit
        dates = dataset.sar_scaling.bands.count(dataset.sar_scaling.bands[0])
        restored = dataset.sar_scaling.restore(sample["sar"].numpy())
        first = restored[len(restored) // dates * (dates - 1)]  # of the latest date
        valid = sample["sar_valid"].numpy()
        for code in np.unique(codes[valid]).tolist():
            chosen = first[valid & (codes == code)]
            self.total[code] = self.total.get(code, 0.0) + float(chosen.sum(dtype=np.float64))
            self.pixels[code] = self.pixels.get(code, 0) + chosen.size

    def conclude(self, report: CheckReport) -> None:
        """Note the means; a class that is as dark as water is a problem."""
        classes = self.classes or {DRY: "dry land", WATER: "water"}
        water = next(code for code, name in classes.items() if name in ("water", "open water"))
        means = {
            code: self.total[code] / self.pixels[code] for code in classes if code in self.pixels
        }
        if means:
            parts = ", ".join(f"{classes[code]} {mean:.1f}" for code, mean in means.items())
            report.notes.append(f"mean of the first radar band, {self.unit}: {parts}")
        brighter = [
            classes[code]
            for code in means
            if code != water and means[code] <= means.get(water, -np.inf)
        ]
        if brighter:
            report.problems.append(
                f"{classes[water]} is no darker in radar than {', '.join(brighter)}: labels of "
                "other images, swapped codes, or water roughened by wind; look before training"
            )
