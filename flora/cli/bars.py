"""Progress bars of the command line."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from flora.cli.console import console

if TYPE_CHECKING:
    from flora.scenes.inputs import SarScene


class SceneBar:
    """A progress bar with speed and time left; it appears with the first tile.

    Args:
        quiet: Show nothing.

    Attributes:
        text: What stands beside the bar.
    """

    def __init__(self, quiet: bool = False) -> None:
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console(error=True), disable=quiet)
        self.text = ""
        self._row = self._bar.add_task(self.text)
        self._km2: float | None = None
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:  # stopping writes a line even where nothing was shown
            self._bar.stop()

    def accepted(self, scene: SarScene) -> None:
        """Take the area of a scene."""
        areas = scene.grid.cell_areas()
        self._km2 = None if areas is None else areas.total

    def show(self, done: int, total: int) -> None:
        """Show `done` of `total` tiles, and the speed since the first call."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
            self._bar.start()
        before, start = self._first
        said = f"{done} of {total} tiles"
        if done > before:
            tiles_per_second = (done - before) / (now - start)
            if self._km2 is not None:
                said += f", {self._km2 / total * tiles_per_second:,.0f} km2/s"
            left = timedelta(seconds=round((total - done) / tiles_per_second))
            said += f", {left} left" if left else ", writing the maps"
        self.text = said
        self._bar.update(self._row, completed=done, total=total, description=said)
