"""How scenes are opened, with all that goes with them: one object for one scene or many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flora.grid import Grid, LonLatBox, PixelWindow
from flora.parts import choose_part
from flora.scenes.bands import find_files
from flora.scenes.before import BeforeScene, open_before
from flora.scenes.dates import open_dates
from flora.scenes.inputs import SarScene, open_scene
from flora.scenes.safe.correction import Correction
from flora.scenes.viewing import Viewing
from flora.sensors import SENTINEL1, SENTINEL2_RGB, OpticalScaling, SarScaling, Units


@dataclass(frozen=True)
class SceneReading:
    """How all scenes of a run are opened: the arguments of `open_scene` and `open_before`.

    Attributes:
        scaling: Sensor.
        units: "db" or "linear".
        window: Part as (column, row, width, height).
        bbox: Part as (west, south, east, north).
        grid: Map grid, see `open_scene`.
        remove_noise: See `open_scene`.
        correction: See `open_scene`.
        incidence: See `open_scene`.
        before: An image from before the flood, or None.
        before_scaling: Its scaling.
        align: Whether it is moved back by the offset that is found, see `open_before`.
        sar_before: Radar scenes from before the flood, in the same units; see
            `flora.scenes.dates.open_dates`.
    """

    scaling: SarScaling = SENTINEL1
    units: Units = "db"
    window: PixelWindow | None = None
    bbox: LonLatBox | None = None
    grid: str | None = None
    remove_noise: bool = True
    correction: Correction | None = None
    incidence: float | None = None
    before: Path | None = None
    before_scaling: OpticalScaling = SENTINEL2_RGB
    align: bool = True
    sar_before: tuple[Path, ...] = ()

    def grid_of(self, paths: str | Path | Sequence[str | Path]) -> Grid:
        """The pixels that would be read of a scene: its files are inspected, no values read."""
        return self.inspected(paths)[0]

    def inspected(self, paths: str | Path | Sequence[str | Path]) -> tuple[Grid, Viewing | None]:
        """The same pixels, and how the radar looked, see `SceneFiles.viewing`."""
        how = self.remove_noise, self.correction, self.incidence
        files = find_files(paths, self.scaling, self.units, self.grid, *how)
        part = choose_part(files.grid, self.window, self.bbox, files.name)
        return files.grid.part(part), files.viewing

    @contextmanager
    def scene(self, paths: str | Path | Sequence[str | Path]) -> Iterator[SarScene]:
        """Open a scene, see `open_scene`; with earlier ones, all as one."""
        how: dict[str, Any] = {"units": self.units, "remove_noise": self.remove_noise}
        part: dict[str, Any] = {"window": self.window, "bbox": self.bbox, "grid": self.grid}
        part |= {"correction": self.correction, "incidence": self.incidence}
        with ExitStack() as stack:
            scene = stack.enter_context(open_scene(paths, scaling=self.scaling, **how, **part))
            if self.sar_before:
                scene = stack.enter_context(open_dates(scene, self.sar_before, **how))
            yield scene

    @contextmanager
    def opened(
        self, paths: str | Path | Sequence[str | Path]
    ) -> Iterator[tuple[SarScene, BeforeScene | None]]:
        """Open a scene, and the image from before the flood on its grid."""
        with ExitStack() as stack:
            scene = stack.enter_context(self.scene(paths))
            before = None
            if self.before is not None:
                image = open_before(self.before, scene, self.before_scaling, align=self.align)
                before = stack.enter_context(image)
            yield scene, before
