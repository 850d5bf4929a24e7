"""Border noise of Sentinel-1 ground range products: low values where nothing was measured.

Processors before IPF 2.90 (March 2018) fill what lies outside the swath not with 0 but with digital
numbers of up to about 60 (ESA, Masking "No-value" Pixels on GRD Products, MPC-0243), as dark as
water. As in Ali et al. (2018, doi:10.1109/JSTARS.2017.2787650), they are followed from each edge
inwards to the first that was measured; as in Stasolla and Neyt (2018, doi:10.3390/s18103454), only
what is connected with an edge is border, and a filter along the edge keeps out what only touches
it: a lake, a river.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from flora.sensors import BoolArray, FloatArray

FIXED_IN = 2.90  # the first processor whose border is 0
CELL = 8  # px: the mean of 64 pixels hardly has speckle
DARKEST = 0.01  # sigma0, -20 dB, in every polarisation: land, and mostly a rough sea, is brighter
WIDEST = 2000 // CELL  # cells: wider than any border; what stays dark is a sea at the edge,
SEA = 500 // CELL  # of which this much is given up, as SNAP's operator does
ALONG = 65  # cells, 5 km: what touches the edge along less than half of it is no border


def border_cells(sigma0: Sequence[FloatArray]) -> BoolArray:
    """Which cells are border noise.

    Args:
        sigma0: One (rows, columns) a polarisation, linear power averaged over cells of `CELL`
            pixels, 0 where all digital numbers are 0.

    Returns:
        (rows, columns), false in what is 0 all along the edge.
    """
    empty = np.all([band == 0 for band in sigma0], axis=0)
    bright = np.any([band > DARKEST for band in sigma0], axis=0)
    border = np.zeros(empty.shape, bool)
    for turn in range(4):  # each edge in turn is the left one
        inside = _from_the_left(np.rot90(bright, turn), np.rot90(empty, turn))
        border |= np.rot90(inside, -turn)
    return np.asarray(border & ~empty)


def _from_the_left(bright: BoolArray, empty: BoolArray) -> BoolArray:
    rows, columns = bright.shape
    first, end = _first(~empty), _first(bright)
    end = np.where(end - first > WIDEST, first + SEA, end)
    seen = np.flatnonzero(bright.any(axis=1))
    if seen.size:  # a line of the border alone ends where its neighbour does
        nearest = seen[np.abs(np.arange(rows)[:, None] - seen).argmin(axis=1)]
        first, end = first[nearest], end[nearest]
    else:
        end = first + SEA
    window = min(ALONG, rows - 1 + rows % 2)
    first, end = (median_filter(side, window, mode="reflect") for side in (first, end))
    end = np.where(end > first, end + 1, end)  # where border and measurement share a cell
    return np.asarray(np.arange(columns) < end[:, None])


def _first(found: BoolArray) -> NDArray[np.int64]:
    """The first column of each row that is true; the number of columns where none is."""
    return np.asarray(np.where(found.any(axis=1), found.argmax(axis=1), found.shape[1]))
