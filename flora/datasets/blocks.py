"""Splits whose parts do not touch: chips that lie side by side stay together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from scipy.sparse.csgraph import connected_components

ChipBounds = tuple[float, float, float, float]
"""West, south, east, north of a chip, in one CRS for all."""


def touching(bounds: Mapping[str, ChipBounds], gap: float) -> dict[str, str]:
    """The block of each chip: of chips that touch, directly or through others, the first by name.

    Args:
        bounds: Where each chip lies.
        gap: Chips so close count as touching, in units of the CRS.

    Example:
        >>> from flora.datasets.blocks import touching
        >>> boxes = {"a": (0, 0, 1, 1), "b": (1, 1, 2, 2), "c": (5, 0, 6, 1)}
        >>> touching(boxes, gap=0.01)
        {'a': 'a', 'b': 'a', 'c': 'c'}
    """
    chips = sorted(bounds)
    if not chips:
        return {}
    west, south, east, north = np.array([bounds[chip] for chip in chips]).T
    apart_x = np.maximum(west[:, None] - east, west - east[:, None])  # (chips, chips)
    apart_y = np.maximum(south[:, None] - north, south - north[:, None])
    _, number = connected_components(np.maximum(apart_x, apart_y) <= gap, directed=False)
    first: dict[int, str] = {}
    for chip, block in zip(chips, number.tolist(), strict=True):
        first.setdefault(block, chip)
    return {chip: first[block] for chip, block in zip(chips, number.tolist(), strict=True)}


def whole_blocks(splits: Mapping[str, str], blocks: Mapping[str, str]) -> dict[str, str]:
    """The split of each chip, where no block is in two of them.

    A block that lies in one split stays there. The others, largest first, go whole to that of
    their splits which lacks the largest share of its chips, so that sizes stay near the given ones;
    the first named of those that lack the same.

    Args:
        splits: The given split of each chip.
        blocks: The block of each chip, see `touching`.

    Example:
        >>> from flora.datasets.blocks import whole_blocks
        >>> whole_blocks({"a": "train", "b": "test"}, {"a": "a", "b": "a"})
        {'a': 'train', 'b': 'train'}
    """
    wanted = Counter(splits.values())
    parts: dict[str, list[str]] = {}
    for chip, block in blocks.items():
        parts.setdefault(block, []).append(chip)
    held: Counter[str] = Counter()
    chosen: dict[str, str] = {}

    def put(chips: list[str], split: str) -> None:
        chosen.update(dict.fromkeys(chips, split))
        held[split] += len(chips)

    mixed = []
    for block, chips in parts.items():
        where = {splits[chip] for chip in chips}
        if len(where) == 1:
            put(chips, where.pop())
        else:
            mixed.append((-len(chips), block))
    for _, block in sorted(mixed):
        where = {splits[chip] for chip in parts[block]}
        candidates = [split for split in wanted if split in where]
        put(parts[block], max(candidates, key=lambda s: (wanted[s] - held[s]) / wanted[s]))
    return {chip: chosen[chip] for chip in splits}
