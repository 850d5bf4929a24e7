"""Radar scenes of one place, before the flood and in it, as one scene of all their bands."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import Part
from flora.scenes.bands import find_files
from flora.scenes.before import check_overlap
from flora.scenes.inputs import SarScene
from flora.scenes.names import PIXELS_TAG, date_in_name
from flora.sensors import BoolArray, FloatArray, Units

ORBIT = re.compile(r"S1(?P<unit>[A-D])_\w{2}_GRD.*?_(?P<orbit>\d{6})_[0-9A-F]{6}")
# Satellite, absolute orbit from which it holds, and what is subtracted from an absolute orbit for
# the orbit in the cycle of 175 (SentiWiki, S1 Products, naming convention). Sentinel-1C was moved
# in June 2026, after orbit 8018 (pull request 28130 of isce2). Not told: products of Sentinel-1C
# from before its first place, and of Sentinel-1D from before pull request 151 of s1-reader saw it.
OFFSETS = (("A", 1, 73), ("B", 1, 27), ("C", 8019, 99), ("C", 1681, 172), ("D", 2389, 42))
CYCLE = 175

MOST_MISSING = 0.05  # share of the scene that the earlier one may lack before it is said


class DatedScene(SarScene):
    """A scene with earlier ones on its grid: the bands of each, the earliest first, then its own.

    A pixel is valid where every date was measured. All else is as of the latest scene.

    Args:
        before: The earlier scenes, in their order.
        after: The scene of the flood.

    Attributes:
        before: The earlier scenes.
        after: The scene of the flood.
    """

    def __init__(self, before: Sequence[SarScene], after: SarScene) -> None:
        self.__dict__.update(vars(after))
        self.before, self.after = tuple(before), after
        self.scaling = after.scaling.repeat(len(self.before) + 1)
        self.shown = len(after.scaling.bands) * len(self.before)
        every = np.concatenate([scene.sample for scene in (*self.before, after)])
        self.sample: FloatArray = np.where(np.isfinite(every).all(axis=0), every, np.nan)

    @property
    def tags(self) -> dict[str, str]:
        """What the maps are to say of the earlier scenes: names, and dates where known."""
        paths = [scene.paths[0] for scene in self.before]
        said = self.after.tags | {PIXELS_TAG: self.pixels, "FLORA_SAR_BEFORE": names_of(paths)}
        days = [str(taken) for taken in map(date_in_name, paths) if taken is not None]
        return said | ({"FLORA_SAR_BEFORE_DATES": " ".join(days)} if days else {})

    def identity(self) -> dict[str, Any]:
        """What its values depend on, as JSON values."""
        scaling = {"scaling": asdict(self.scaling)}
        earlier = [scene.identity() for scene in self.before]
        return self.after.identity() | scaling | {"sar_before": earlier}

    def read(self, row: int, height: int) -> tuple[FloatArray, BoolArray]:
        """Read whole rows: backscatter (dates x C, height, columns), and where it is valid.

        Raises:
            FloraError: If a file is damaged, or vanished since it was opened.
        """
        read = [scene.read(row, height) for scene in (*self.before, self.after)]
        valid: BoolArray = np.logical_and.reduce([seen for _, seen in read])
        return np.concatenate([values for values, _ in read]), valid

    @contextmanager
    def reopen(self) -> Iterator[SarScene]:
        """The same, opened again and not checked again: for a thread of its own.

        Raises:
            FloraError: If a file vanished.
        """
        with ExitStack() as stack:
            before = [stack.enter_context(scene.reopen()) for scene in self.before]
            yield DatedScene(before, stack.enter_context(self.after.reopen()))


@contextmanager
def open_dates(
    scene: SarScene,
    sar_before: str | Path | Sequence[str | Path],
    *,
    units: Units = "db",
    remove_noise: bool = True,
) -> Iterator[DatedScene]:
    """Put earlier radar scenes on the grid of a scene, and stack all, the earliest first.

    On another grid they are resampled bilinearly, block by block as they are read. Where names
    hold dates, each must be earlier than the scene, and they are put in their order; where names
    hold orbits (as those of products do), one relative orbit is expected, and another one is warned
    of: on it slopes and fields look different without any flood.

    Args:
        scene: The scene of the flood, opened by `flora.open_scene`.
        sar_before: The earlier one or several, each a file or a product as `open_scene` takes it.
        units: Of the earlier ones.
        remove_noise: See `open_scene`.

    Raises:
        FloraError: If an earlier scene is refused, not earlier, named twice, or does not overlap.

    Example:
        >>> from pathlib import Path
        >>> from flora import map_scene, open_scene
        >>> from flora.scenes.dates import open_dates
        >>> from flora.scenes.thresholds import SceneOtsu
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [5, 7]}, Path("chips"), size=96)
        >>> first, second = sorted(Path("chips").rglob("*_S1Hand.tif"))
        >>> with open_scene(first) as scene, open_dates(scene, second) as both:
        ...     backscatter, valid = both.read(0, 16)
        >>> both.scaling.bands, backscatter.shape
        (('VV', 'VH', 'VV', 'VH'), (4, 16, 96))
    """
    paths = _in_order([sar_before] if isinstance(sar_before, str | Path) else sar_before)
    with ExitStack() as stack:
        earlier = []
        for path in paths:
            _check_names(path, scene.paths[0], Given("sar_before", path))
            earlier.append(stack.enter_context(_earlier(path, scene, units, remove_noise)))
        dates = DatedScene(earlier, scene)
        for one in earlier:
            _check_covered(one, scene)
        yield dates


def names_of(sar_before: Sequence[Path]) -> str:
    """What the maps say of earlier scenes, in their order."""
    return " ".join(path.name for path in _in_order(sar_before))


def _in_order(named: Sequence[str | Path]) -> list[Path]:
    """The earlier scenes, the earliest first where all names hold a date.

    Raises:
        FloraError: If there is none, or one is named twice.
    """
    paths = [Path(path) for path in named]
    if not paths:
        raise FloraError("no scene, expected one or more", argument="sar_before")
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise FloraError(
                "is named twice", argument="sar_before", value=path, remedy="name each date once"
            )
    days = {path: taken for path in paths if (taken := date_in_name(path)) is not None}
    return sorted(paths, key=days.__getitem__) if len(days) == len(paths) else paths


@contextmanager
def _earlier(path: Path, scene: SarScene, units: Units, remove_noise: bool) -> Iterator[SarScene]:
    """One earlier scene, on the grid and of the part of the scene."""
    source = Given("sar_before", path)
    try:
        by = scene.correction
        files = find_files(
            [path], scene.scaling, units, scene.whole, remove_noise, by, scene.incidence
        )
        for file in files.files:
            if file.control is None and not file.grid.same_as(scene.whole):
                check_overlap(file.grid, scene.grid, source)
        with files.opened() as layers:
            yield SarScene(files, layers, Part(*scene.origin, *scene.shape))
    except FloraError as error:
        if error.argument != "sar_path" or error.value not in (str(path), path):
            raise
        raise FloraError(
            error.expected, argument=source, remedy=error.remedy, **error.options
        ) from error


def _check_names(before: Path, after: Path, source: Given) -> None:
    """Refuse a date that is not earlier, and warn of another orbit, where names say so.

    Raises:
        FloraError: If the dates are equal or exchanged.
    """
    first, second = date_in_name(before), date_in_name(after)
    if first is not None and second is not None and first >= second:
        raise FloraError(
            f"of {first}, as its name says, expected before {second}, the date of {after.name}",
            argument=source,
            remedy="exchange the two, or choose an earlier scene",
        )
    orbits = [relative_orbit(path.name) for path in (before, after)]
    if None not in orbits and orbits[0] != orbits[1]:
        warnings.warn(
            FloraWarning(
                f"seen from relative orbit {orbits[0]}, {after.name} from {orbits[1]}: slopes and "
                "fields change with the direction of view alone",
                argument=source,
                remedy="choose an earlier scene of the same orbit",
            ),
            stacklevel=4,
        )


def relative_orbit(name: str) -> int | None:
    """The orbit of a product's name in the cycle of 175; None where it says none.

    Where Sentinel-1C and 1D flew before they took up their places (absolute orbits before 1681 and
    2389) their names do not say it: None.

    Example:
        >>> from flora.scenes.dates import relative_orbit
        >>> relative_orbit("S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B")
        165
    """
    found = ORBIT.search(name)
    if found is None:
        return None
    orbit = int(found["orbit"])
    for unit, first, offset in OFFSETS:
        if unit == found["unit"] and orbit >= first:
            return (orbit - offset) % CYCLE + 1
    return None


def _check_covered(earlier: SarScene, scene: SarScene) -> None:
    source = Given("sar_before", earlier.paths[0])
    seen = np.isfinite(scene.sample).all(axis=0)
    known: BoolArray = np.asarray(np.isfinite(earlier.sample).all(axis=0))
    covered = float(known[seen].mean())
    if covered == 0:
        raise FloraError(
            "no pixel of it lies where the scene was measured",
            argument=source,
            remedy="choose a scene of the same place",
        )
    if covered < 1 - MOST_MISSING:
        warnings.warn(
            FloraWarning(
                f"covers {covered:.0%} of the scene; the rest is mapped as nodata", argument=source
            ),
            stacklevel=5,
        )
