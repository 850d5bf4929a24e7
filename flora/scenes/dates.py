"""Two radar scenes of one place, before the flood and in it, as one scene of twice the bands."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import Part
from flora.scenes.bands import find_files
from flora.scenes.before import check_overlap
from flora.scenes.inputs import SarScene
from flora.scenes.names import date_in_name
from flora.sensors import BoolArray, FloatArray, Units

# Of an absolute orbit, the orbit in the cycle of 175 (Sentinel-1 Mission Operations Plan).
ORBIT = re.compile(r"S1(?P<unit>[AB])_\w{2}_GRD.*?_(?P<orbit>\d{6})_[0-9A-F]{6}")
FIRST_ORBIT = {"A": 73, "B": 27}
CYCLE = 175

MOST_MISSING = 0.05  # share of the scene that the earlier one may lack before it is said


class TwoDates(SarScene):
    """A scene with an earlier one on its grid: the bands before the flood, then those in it.

    A pixel is valid where both dates were measured. All else is as of the later scene.

    Args:
        before: The earlier scene.
        after: The scene of the flood.

    Attributes:
        before: The earlier scene.
        after: The scene of the flood.
    """

    def __init__(self, before: SarScene, after: SarScene) -> None:
        self.__dict__.update(vars(after))
        self.before, self.after = before, after
        self.scaling = after.scaling.repeat(2)
        self.shown = len(after.scaling.bands)
        both = np.concatenate([before.sample, after.sample])
        self.sample: FloatArray = np.where(np.isfinite(both).all(axis=0), both, np.nan)

    def identity(self) -> dict[str, Any]:
        """What its values depend on, as JSON values."""
        scaling = {"scaling": asdict(self.scaling)}
        return self.after.identity() | scaling | {"sar_before": self.before.identity()}

    def read(self, row: int, height: int) -> tuple[FloatArray, BoolArray]:
        """Read whole rows: backscatter (2 C, height, columns), and where it is valid.

        Raises:
            FloraError: If a file is damaged, or vanished since it was opened.
        """
        earlier, seen = self.before.read(row, height)
        values, valid = self.after.read(row, height)
        return np.concatenate([earlier, values]), seen & valid

    @contextmanager
    def reopen(self) -> Iterator[SarScene]:
        """The same, opened again and not checked again: for a thread of its own.

        Raises:
            FloraError: If a file vanished.
        """
        with self.before.reopen() as before, self.after.reopen() as after:
            yield TwoDates(before, after)


@contextmanager
def open_dates(
    scene: SarScene,
    sar_before: str | Path | Sequence[str | Path],
    *,
    units: Units = "db",
    remove_noise: bool = True,
) -> Iterator[TwoDates]:
    """Put an earlier radar scene on the grid of a scene, and stack both, the earlier first.

    On another grid it is resampled bilinearly, block by block as it is read. Where names hold
    dates, the earlier one must be earlier; where they hold orbits, one relative orbit is expected:
    on another one slopes and fields look different without any flood.

    Args:
        scene: The scene of the flood, opened by `flora.open_scene`.
        sar_before: The earlier one, as `open_scene` takes it.
        units: Of the earlier one.
        remove_noise: See `open_scene`.

    Raises:
        FloraError: If the earlier scene is refused, not earlier, or does not overlap.

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
    named = [sar_before] if isinstance(sar_before, str | Path) else list(sar_before)
    paths = [Path(path) for path in named]
    source = Given("sar_before", paths[0])
    _check_names(paths[0], scene.paths[0], source)
    try:
        by = scene.correction
        files = find_files(paths, scene.scaling, units, scene.whole, remove_noise, by)
        for file in files.files:
            if file.control is None and not file.grid.same_as(scene.whole):
                check_overlap(file.grid, scene.grid, source)
        with files.opened() as layers:
            earlier = SarScene(files, layers, Part(*scene.origin, *scene.shape))
            both = TwoDates(earlier, scene)
            _check_covered(both, source)
            yield both
    except FloraError as error:
        if error.argument != "sar_path" or error.value not in (str(paths[0]), *paths):
            raise
        raise FloraError(
            error.expected,
            argument=source,
            remedy=error.remedy,
            **error.options,
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

    Example:
        >>> from flora.scenes.dates import relative_orbit
        >>> relative_orbit("S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B")
        165
    """
    found = ORBIT.search(name)
    if found is None:
        return None
    return (int(found["orbit"]) - FIRST_ORBIT[found["unit"]]) % CYCLE + 1


def _check_covered(both: TwoDates, source: Given) -> None:
    seen = np.isfinite(both.after.sample).all(axis=0)
    covered = float(np.isfinite(both.sample[0][seen]).mean())
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
