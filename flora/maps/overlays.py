"""Layers that lie over the water of a map: where it is in doubt, and where another one differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flora.cog import strips
from flora.colours import rgb_bytes
from flora.errors import FloraError
from flora.grid import Grid, open_raster, read_bands
from flora.maps import differences
from flora.maps.screen import Screen
from flora.maps.trust import DOUBTS
from flora.sensors import IGNORE, BoolArray, ByteArray

DOUBTFUL = "not to be trusted"
MAP_ALONE = "water in this map alone"
RIVAL_ALONE = "water by Otsu alone"


class Overlay(NamedTuple):
    """What one layer shows.

    Attributes:
        colour: Of its pixels, "#rrggbb".
        chosen: Where they are, of stored codes (any shape) without nodata.
    """

    colour: str
    chosen: Callable[[NDArray[Any]], BoolArray]


OVERLAYS: Mapping[str, Overlay] = {
    # Vermilion of Okabe and Ito, which nobody confuses with blue.
    DOUBTFUL: Overlay("#d55e00", lambda bits: np.asarray(bits & DOUBTS > 0)),
    MAP_ALONE: Overlay(
        differences.COLOURS[differences.MAP_ALONE],
        lambda codes: np.asarray(codes == differences.MAP_ALONE),
    ),
    RIVAL_ALONE: Overlay(
        differences.COLOURS[differences.RIVAL_ALONE],
        lambda codes: np.asarray(codes == differences.RIVAL_ALONE),
    ),
}


def read_overlays(
    path: Path, argument: str, grid: Grid, names: Sequence[str]
) -> dict[str, ByteArray]:
    """Colours (H, W, 4) of layers by name, of the nearest pixel; transparent elsewhere.

    Args:
        path: Raster of codes.
        argument: The argument that named it.
        grid: Of the map.
        names: Some of `OVERLAYS`.

    Raises:
        FloraError: If the raster is refused, or lies elsewhere.
    """
    with open_raster(path, argument) as file:
        screen = Screen.of(file, max(grid.shape))
        if not screen.grid.same_as(grid):
            raise FloraError(
                "of another scene or part",
                argument=argument,
                value=path,
                remedy="write it anew for this map",
            )
        rows, columns = screen.pixels_of(file)
        pictures = {name: np.zeros((*grid.shape, 4), dtype=np.uint8) for name in names}
        for strip in strips(file.shape):
            codes, row = read_bands(file, indexes=1, window=strip), strip.row_off
            here = (rows >= row) & (rows < row + strip.height)
            found = codes[rows[here] - row, columns[here]]
            for name, picture in pictures.items():
                shown = (found != IGNORE) & OVERLAYS[name].chosen(found)
                colour = (*rgb_bytes(OVERLAYS[name].colour), 255)
                picture[here] = np.where(shown[:, None], colour, 0)
    return pictures
