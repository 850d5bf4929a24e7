"""Simulated scenes, served from memory: no download, and a truth without doubt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from flora.datasets.base import FloodDataset, Meta, Sample, Window, crop_sample
from flora.datasets.pairing import several
from flora.errors import FloraError
from flora.season import SENTINEL1_SEASON, season_statistics
from flora.sensors import (
    IGNORE,
    SENTINEL1,
    SENTINEL2_BANDS,
    SENTINEL2_RGB,
    BoolArray,
    FloatArray,
    OpticalStack,
    normalised_difference,
)
from flora.simulate.radar import LookAlikes
from flora.simulate.scene import SIMULATOR_VERSION, SMALLEST, Scene, draw_parameters, simulate

_STACKED = (("before",), ("after",), ("before", "after"))
_SEVERAL = re.compile(r"before:(\d+)(?:-(\d+))?")

# Scenes of a split have consecutive seeds; splits lie this far apart.
_SPAN = 1_000_000


class Simulated(FloodDataset):
    """Scenes from `flora.simulate.scene.simulate`, each made when it is read.

    The label is open water after the flood, rivers and lakes included. A pixel in cloud or in
    the shadow of a cloud is not valid: nothing seen by radar could tell its colour. Wrap in
    `InMemory` where scenes are read more than once.

    Args:
        split: "train", "valid" or "test"; no two share a seed.
        count: Number of scenes.
        size: Side of a scene, in pixels of 10 m.
        seed: Another number gives other scenes in every split.
        sar_dates: Which radar images are stacked as channels, the earliest first. "before:N" in
            place of "before", with "after", gives in their place statistics over N dates before the
            flood (see `flora.season.season_statistics`); "before:M-N" draws from M to N dates for
            each scene.
        look_alikes: Whether scenes hold what is taken for water (wet snow, smooth wet fields, dark
            sand, border noise) and wind that varies, see `flora.simulate.radar.LookAlikes`;
            without, they are those of version 1. To leave out one of them, pass parameters to
            `flora.simulate.scene.simulate`.
        cloud: Share of both optical images under cloud, 0 to 1, in every scene; None draws the
            weather, which leaves half of the images free of cloud. What radar sees stays the same.

    Raises:
        FloraError: If an argument is out of range.
    """

    name: ClassVar[str] = "simulated"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    citation: ClassVar[str] = "Simulated by flora.simulate.scene."

    def __init__(
        self,
        split: str,
        count: int = 64,
        size: int = 256,
        seed: int = 0,
        sar_dates: Sequence[str] = ("after",),
        look_alikes: bool = True,
        cloud: float | None = None,
    ) -> None:
        if split not in self.splits:
            raise FloraError(f"{self.name}: no split {split!r}; choose {', '.join(self.splits)}")
        if not 1 <= count <= _SPAN:
            raise FloraError(f"count {count}: expected 1 to {_SPAN} scenes")
        if size < SMALLEST:
            raise FloraError(f"size {size}: a scene needs {SMALLEST} px or more a side")
        if seed < 0:
            raise FloraError(f"seed {seed}: expected an integer from 0")
        if cloud is not None and not 0 <= cloud <= 1:
            raise FloraError("expected a share from 0 to 1", argument="cloud", value=cloud)
        self.sar_dates = several(sar_dates)
        self._season = _season(self.sar_dates)
        if self._season is None and self.sar_dates not in _STACKED:
            raise FloraError(
                f"{self.name}: sar_dates {self.sar_dates}: expected ('after',), ('before',) or "
                "('before', 'after'), the earliest first, or ('before:4', 'after') for statistics "
                "of four dates"
            )
        repeated = SENTINEL1.repeat(len(self.sar_dates))
        self.sar_scaling = repeated if self._season is None else SENTINEL1_SEASON
        self.optical_scaling = SENTINEL2_RGB
        self.split = split
        self.size = size
        self.look_alikes = look_alikes
        self.cloud = cloud
        first = (seed * len(self.splits) + self.splits.index(split)) * _SPAN
        self.seeds = range(first, first + count)

    def __len__(self) -> int:
        return len(self.seeds)

    def shape(self, index: int) -> tuple[int, int]:
        """See `FloodDataset.shape`."""
        return self.size, self.size

    def manifest(self) -> list[str]:
        """See `FloodDataset.manifest`; ids hold the simulator's version, the seed and the size."""
        return [self._identifier(seed) for seed in self.seeds]

    def scene(self, index: int) -> Scene:
        """Simulate scene `index` with all that a sample leaves out."""
        seed = self.seeds[index]
        drawn = draw_parameters(seed)
        if not self.look_alikes:
            drawn = replace(drawn, sar=replace(drawn.sar, look_alikes=LookAlikes()))
        if self.cloud is not None:
            drawn = replace(drawn, optical=replace(drawn.optical, cloud=(self.cloud, self.cloud)))
        return simulate(seed, self.size, drawn, self.dates_before(index) - 1)

    def dates_before(self, index: int) -> int:
        """Radar dates before the flood that are simulated of scene `index`, one or more."""
        if self._season is None:
            return 1
        fewest, most = self._season
        # The stream of a seed's own layers has a spawn key, this one has none.
        return int(np.random.default_rng(self.seeds[index]).integers(fewest, most + 1))

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See `FloodDataset.read`; the whole scene is simulated, so a window saves no time."""
        sample = self.sample(self.scene(index))
        return sample if window is None else crop_sample(sample, window)

    def sample(self, scene: Scene) -> Sample:
        """What a model gets of a scene."""
        if self._season is None:
            images = {"before": scene.sar_before, "after": scene.sar_after}
            sar = np.concatenate([images[date] for date in self.sar_dates])
        else:
            before = np.concatenate([scene.sar_before[None], scene.sar_earlier])
            sar = season_statistics(before, scene.sar_after)
        sar_valid: BoolArray = np.isfinite(sar).all(axis=0)
        clear = ~(scene.cloud_after | scene.shadow_after)
        clear_before = ~(scene.cloud_before | scene.shadow_before)
        optical, index_after = self._optical(scene.optical_after, clear)
        before, index_before = self._optical(scene.optical_before, clear_before)
        water = np.where(sar_valid, scene.water_after.astype(np.int64), IGNORE)
        return Sample(
            sar=torch.from_numpy(self.sar_scaling.normalise(sar, sar_valid)),
            sar_valid=torch.from_numpy(sar_valid),
            optical=torch.from_numpy(optical),
            optical_valid=torch.from_numpy(clear),
            index=torch.from_numpy(index_after),
            water=torch.from_numpy(water),
            before=OpticalStack(
                image=torch.from_numpy(before),
                index=torch.from_numpy(index_before),
                valid=torch.from_numpy(clear_before),
            ),
            meta=Meta(
                id=self._identifier(scene.seed),
                place="simulated",
                date=None,
                crs=scene.crs,
                transform=scene.transform,
                split=self.split,
            ),
        )

    def _optical(self, reflectance: FloatArray, clear: BoolArray) -> tuple[FloatArray, FloatArray]:
        """True colour in [0, 1] and NDVI (1, H, W), both 0 where not clear."""
        red, green, blue, near_infrared = (
            reflectance[SENTINEL2_BANDS.index(name)] for name in ("B4", "B3", "B2", "B8")
        )
        stored = np.stack([red, green, blue]) * np.float32(10_000.0)
        ndvi = np.where(clear, normalised_difference(near_infrared, red), 0.0)
        return self.optical_scaling.normalise(stored, clear), ndvi[None].astype(np.float32)

    def _identifier(self, seed: int) -> str:
        version = SIMULATOR_VERSION if self.look_alikes else 1
        cloud = "" if self.cloud is None else f"-cloud-{self.cloud:g}"
        return f"simulated-v{version}-{self.size}px-{seed}{cloud}"


def _season(sar_dates: tuple[str, ...]) -> tuple[int, int] | None:
    """Fewest and most dates before the flood of ("before:N", "after"); None if it is another."""
    if len(sar_dates) != 2 or sar_dates[1] != "after":
        return None
    match = _SEVERAL.fullmatch(sar_dates[0])
    if match is None:
        return None
    fewest = int(match[1])
    most = int(match[2] or fewest)
    if not 1 <= fewest <= most:
        raise FloraError(
            "expected one date or more, the smaller number first",
            argument="sar_dates",
            value=sar_dates[0],
        )
    return fewest, most
