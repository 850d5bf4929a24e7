"""Faults that show when all chips of a dataset are looked at together: exchanged layers, units.

Each kind of evidence is shown every sample, then asked for its problems, one line each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flora.datasets.base import FloodDataset, Sample
from flora.sensors import DRY, SENTINEL2_RGB, WATER, FloatArray, OpticalStack

MOST_COUNTS = 255.0  # reflectance x 10000: 99 % of a chip in per cent or counts are no larger
INDEX_MARGIN = 0.02  # of a water index
RADAR_MARGIN = 0.5  # dB, or 8-bit counts
# dB, of the middle pixel of a chip: calm water is darker than the noise, some 10 dB at most below
# the -22 dB of the Sentinel-1 specification; cities reach 0 in VV, and some 7 dB less in VH.
MEDIANS = {"VV": (-45.0, 5.0), "VH": (-50.0, -3.0)}

# Which way an index goes where land becomes water.
RISES_WITH_WATER = {"NDWI": 1, "MNDWI": 1, "NDVI": -1}


class Evidence(Protocol):
    """One kind of it."""

    def add(self, dataset: FloodDataset, sample: Sample) -> None:
        """Look at a chip."""
        ...

    def problems(self) -> Iterator[str]:
        """What is wrong, once all chips were seen."""
        ...


class Polarisations:
    """VV is brighter than VH over land and water: where it is not, they are exchanged."""

    def __init__(self) -> None:
        self.chips = 0
        self.exchanged: list[str] = []

    def add(self, dataset: FloodDataset, sample: Sample) -> None:
        """See `Evidence`."""
        if dataset.sar_scaling.bands != ("VV", "VH") or not sample["sar_valid"].any():
            return
        vv, vh = dataset.sar_scaling.restore(sample["sar"].numpy())[:, sample["sar_valid"].numpy()]
        self.chips += 1
        if np.median(vv) < np.median(vh):
            self.exchanged.append(sample["meta"]["id"])

    def problems(self) -> Iterator[str]:
        """See `Evidence`."""
        if self.exchanged:
            yield (
                f"VV is darker than VH in {len(self.exchanged)} of {self.chips} chips, the first "
                f"is {self.exchanged[0]}: the polarisations are probably exchanged"
            )


class RadarUnits:
    """Half of the pixels of a chip lie on a known side of what any ground reflects, in dB."""

    def __init__(self) -> None:
        self.chips = 0
        self.odd: dict[str, str] = {}

    def add(self, dataset: FloodDataset, sample: Sample) -> None:
        """See `Evidence`."""
        scaling, valid = dataset.sar_scaling, sample["sar_valid"].numpy()
        if scaling.unit != "dB" or not valid.any():
            return
        self.chips += 1
        for band, values in zip(scaling.bands, scaling.restore(sample["sar"].numpy()), strict=True):
            low, high = MEDIANS.get(band, (-np.inf, np.inf))
            middle = float(np.median(values[valid]))
            if not low <= middle <= high:
                said = f"{band} around {middle:.3g} dB, expected {low:g} to {high:g}"
                self.odd.setdefault(sample["meta"]["id"], said)

    def problems(self) -> Iterator[str]:
        """See `Evidence`."""
        for chip, said in list(self.odd.items())[:1]:
            yield (
                f"{len(self.odd)} of {self.chips} radar images are brighter or darker than any "
                f"ground, the first is {chip} ({said}): probably power, amplitude or digital "
                "numbers, or scaled"
            )


class OpticalUnits:
    """Reflectance x 10000 of land is some thousand: what is nearly black is in other units."""

    def __init__(self) -> None:
        self.chips = 0
        self.dark: dict[str, float] = {}

    def add(self, dataset: FloodDataset, sample: Sample) -> None:
        """See `Evidence`."""
        if dataset.optical_scaling != SENTINEL2_RGB:
            return
        images = [OpticalStack(sample["optical"], sample["index"], sample["optical_valid"])]
        images += [sample["before"]] if "before" in sample else []
        for stack in images:
            if stack.valid.any():
                self.chips += 1
                seen = stack.image[:, stack.valid].numpy() * dataset.optical_scaling.white
                if (bright := float(np.percentile(seen, 99))) <= MOST_COUNTS:
                    self.dark.setdefault(sample["meta"]["id"], bright)

    def problems(self) -> Iterator[str]:
        """See `Evidence`."""
        for chip, bright in list(self.dark.items())[:1]:
            yield (
                f"{len(self.dark)} of {self.chips} optical images are nearly black, the first is "
                f"{chip} (99 % of it up to {bright:.3g}): expected reflectance x 10000, these are "
                "probably reflectance, per cent or 8-bit counts"
            )


class DateOrder:
    """Where water is labelled, the later image is the wetter one: else dates are exchanged."""

    def __init__(self) -> None:
        self.optical, self.radar = _Change(), _Change()
        self.expected = 0

    def add(self, dataset: FloodDataset, sample: Sample) -> None:
        """See `Evidence`."""
        water = sample["water"]
        self.expected = RISES_WITH_WATER.get(dataset.optical_scaling.index_name, 0)
        if "before" in sample:
            both = sample["optical_valid"] & sample["before"].valid
            self.optical.add((sample["index"] - sample["before"].index)[0], water, both)
        half, odd = divmod(len(dataset.sar_scaling.bands), 2)
        bands = dataset.sar_scaling.bands
        if not odd and bands[:half] == bands[half:]:
            values: FloatArray = dataset.sar_scaling.restore(sample["sar"].numpy())
            change = torch.from_numpy(values[half] - values[0])
            self.radar.add(change, water, sample["sar_valid"])

    def problems(self) -> Iterator[str]:
        """See `Evidence`."""
        layers = (
            ("optical", self.optical.more_in_water() * self.expected, INDEX_MARGIN),
            ("radar", -self.radar.more_in_water(), RADAR_MARGIN),
        )
        for layer, wetter, margin in layers:
            if wetter < -margin:
                yield (
                    f"the {layer} images from before are wetter where water is labelled than those "
                    "from after: the dates are probably exchanged"
                )


class _Change:
    """Mean change of a layer in labelled water and on labelled dry land."""

    def __init__(self) -> None:
        self.total = {DRY: 0.0, WATER: 0.0}
        self.pixels = {DRY: 0, WATER: 0}

    def add(self, change: Tensor, water: Tensor, valid: Tensor) -> None:
        for code in self.total:
            chosen = change[(water == code) & valid]
            self.total[code] += float(chosen.double().sum())
            self.pixels[code] += chosen.numel()

    def more_in_water(self) -> float:
        """How much more it is in water than on dry land; 0 where one of them is missing."""
        if not all(self.pixels.values()):
            return 0.0
        dry, water = (self.total[code] / self.pixels[code] for code in (DRY, WATER))
        return water - dry
