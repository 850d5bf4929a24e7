"""Drainage of an elevation grid, height above it, and the land that a flood reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from flora.sensors import BoolArray, FloatArray

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Drainage:
    """Where each cell of an elevation grid drains, cells numbered row by row.

    Attributes:
        order: Cells from the outlet upstream: a cell comes after the one it drains to.
        receiver: The cell that each cell drains to; -1 at the outlet.
        filled: (rows, columns) elevation with depressions filled to their lowest pass.
        accumulation: (rows, columns) number of cells that drain through each cell, itself included.
    """

    order: NDArray[np.int32]
    receiver: NDArray[np.int32]
    filled: NDArray[np.float64]
    accumulation: NDArray[np.float64]


def route(elevation: NDArray[np.floating], outlet: int) -> Drainage:
    """Eight-neighbour drainage of a grid to one outlet, leaving depressions by their lowest pass.

    The path that climbs least is the path in a minimum spanning tree whose edges weigh the
    height of their upper end, so one spanning tree routes slopes and depressions alike
    (equivalent to priority flooding, Barnes et al. 2014).

    Args:
        elevation: (rows, columns) in m.
        outlet: Number of the cell that everything drains to.
    """
    rows, columns = elevation.shape
    size = rows * columns
    cell = np.arange(size, dtype=np.int32).reshape(rows, columns)
    pairs = (
        (cell[:, :-1], cell[:, 1:]),
        (cell[:-1], cell[1:]),
        (cell[:-1, :-1], cell[1:, 1:]),
        (cell[:-1, 1:], cell[1:, :-1]),
    )
    first = np.concatenate([pair[0].ravel() for pair in pairs])
    second = np.concatenate([pair[1].ravel() for pair in pairs])
    # A weight of 0 would mean "no edge"; the small second term prefers the lowest neighbour.
    height = np.asarray(elevation, dtype=np.float64).ravel() - float(elevation.min()) + 1.0
    upper = np.maximum(height[first], height[second])
    weight = upper + 1e-4 * np.minimum(height[first], height[second])
    graph = sparse.coo_matrix((weight, (first, second)), shape=(size, size)).tocsr()
    tree = csgraph.minimum_spanning_tree(graph)
    order, receiver = csgraph.breadth_first_order(tree, outlet, directed=False)
    receiver = np.where(receiver < 0, -1, receiver).astype(np.int32)

    # Plain lists: a loop over a quarter of a million array items would be ten times slower.
    filled = np.asarray(elevation, dtype=np.float64).ravel().tolist()
    area = [1.0] * size
    down = receiver.tolist()
    upstream = order.tolist()
    for here in upstream[1:]:
        filled[here] = max(filled[here], filled[down[here]])
    for here in reversed(upstream[1:]):
        area[down[here]] += area[here]
    return Drainage(
        order=order,
        receiver=receiver,
        filled=np.asarray(filled).reshape(rows, columns),
        accumulation=np.asarray(area).reshape(rows, columns),
    )


def drainage_level(drainage: Drainage, channel: BoolArray) -> NDArray[np.float64]:
    """Elevation of the channel that each cell drains to, in m (rows, columns).

    Subtracted from the ground it gives HAND, the height above the nearest drainage (Nobre et
    al. 2011). A cell that meets no channel takes the level of the outlet.

    Args:
        drainage: The routing.
        channel: (rows, columns) cells that are drainage.
    """
    level = drainage.filled.ravel().tolist()
    is_channel = channel.ravel().tolist()
    down = drainage.receiver.tolist()
    for here in drainage.order.tolist()[1:]:
        if not is_channel[here]:
            level[here] = level[down[here]]
    return np.asarray(level).reshape(channel.shape)


def flood_extent(hand: FloatArray, permanent: BoolArray, stage: float) -> BoolArray:
    """Land under water at a stage: lower than it, and connected with permanent water.

    Args:
        hand: (H, W) height above the nearest drainage, in m.
        permanent: (H, W) water that is there all year.
        stage: Rise of the water above its usual level, in m; 0 or less floods nothing.

    Returns:
        (H, W), true on flooded land; permanent water is not part of it.
    """
    low = (hand < stage) | permanent
    labels, count = ndimage.label(low, structure=_EIGHT)
    connected = np.zeros(count + 1, dtype=bool)
    connected[labels[permanent]] = True
    connected[0] = False
    flooded: BoolArray = connected[labels] & ~permanent
    return flooded
