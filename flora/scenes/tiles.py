"""How a scene is cut into tiles.

A local model answers at a pixel by what is around it. Tiles therefore do not show: they overlap,
each answers for its core, at some distance from its edges, and they begin where the attention
windows of the whole scene do. No statistics of the scene are needed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from flora.errors import FloraError
from flora.sensors import FloatArray

# px: side of the coarsest attention window (8 at stride 8). Tiles that begin at multiples of it,
# counted from the origin of the scene's grid, are cut into the same windows as the whole scene.
ALIGNMENT = 64
OVERLAP = 256  # px; the weights that ship answer in such tiles as they do in one piece, to 1e-4
BLEND = 32  # px: tiles are blended over at most so much of their overlap, and over half of it


@dataclass(frozen=True)
class Tiling:
    """How a scene is cut.

    Attributes:
        tile: Height of a tile in pixels. Tiles are twice as wide: rows of tiles as high as the
            memory allows, and little that is computed twice.
        overlap: Pixels that neighbouring tiles share, at most half of `tile`; None is `OVERLAP`,
            or that half where it is less. Tiles do not show where half of it exceeds what a model
            looks at around a pixel by 16 px or more. `flora.FloraConfig.reach` bounds that from
            above; of the weights that ship, what lies beyond 112 px hardly counts, so the default
            hides their tiles.
        batch: Tiles predicted at once.

    Raises:
        FloraError: If one is out of range.

    Example:
        >>> from flora.scenes.tiles import Tiling
        >>> Tiling(512).shared
        256
    """

    tile: int = 1024
    overlap: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        for name, value in (("tile", self.tile), ("batch", self.batch)):
            if value < 1:
                raise FloraError("expected 1 or more", argument=name, value=value)
        if not 0 <= self.shared <= self.tile // 2:
            raise FloraError(
                f"expected 0 to half of tile {self.tile} px, {self.tile // 2}",
                argument="overlap",
                value=self.overlap,
            )

    @property
    def shared(self) -> int:
        """The overlap in pixels."""
        return min(OVERLAP, self.tile // 2) if self.overlap is None else self.overlap

    @property
    def across(self) -> Self:
        """How the columns are cut."""
        return replace(self, tile=2 * self.tile, overlap=self.shared)

    @property
    def step(self) -> int:
        """From one tile to the next, a multiple of `ALIGNMENT` unless it is less than that."""
        step = self.tile - self.shared
        return step - step % ALIGNMENT if step > ALIGNMENT else step

    @property
    def grain(self) -> int:
        """Tiles begin at multiples of it: of `ALIGNMENT`, unless their step is no multiple."""
        return math.gcd(ALIGNMENT, self.step)


class Axis(NamedTuple):
    """How one side of a scene is cut, in pixels from `before` ahead of its first one.

    Attributes:
        starts: First pixels of its tiles.
        tile: Side of a tile; less than asked for where the scene is smaller.
        margin: From where a tile begins, or the one before it ends, to where they are blended.
        blended: Pixels over which neighbouring tiles are blended.
        before: Pixels from the last place where a tile may begin to the mapped part.
        length: Pixels of the mapped part.
    """

    starts: list[int]
    tile: int
    margin: int
    blended: int
    before: int
    length: int

    @classmethod
    def cut(cls, length: int, tiling: Tiling, origin: int = 0) -> Self:
        """Cut `length` pixels that begin at pixel `origin` of the scene's grid."""
        before = origin % tiling.grain
        starts = tile_starts(before + length, tiling)
        tile = min(tiling.tile, -(-(before + length) // ALIGNMENT) * ALIGNMENT)
        overlap = tiling.tile - tiling.step if len(starts) > 1 else 0
        margin = max(overlap // 4, (overlap - BLEND) // 2)
        return cls(starts, tile, margin, overlap - 2 * margin, before, length)

    @property
    def end(self) -> int:
        """Where the last tile ends: at the end of the scene, or less than `ALIGNMENT` beyond it."""
        aligned = -(-(self.before + self.length) // ALIGNMENT) * ALIGNMENT
        return min(self.starts[-1] + self.tile, aligned)

    @property
    def places(self) -> list[slice]:
        """Where each tile lies. The last one is cut to what is left."""
        return [slice(start, min(start + self.tile, self.end)) for start in self.starts]

    @property
    def cores(self) -> list[slice]:
        """What each tile answers for: without margins, but at the ends of the scene."""
        begins = [start + self.margin for start in self.starts[1:]]
        stops = [begin + self.blended for begin in begins]
        return [*map(slice, [0, *begins], [*stops, self.end])]

    def core_in_tile(self, number: int) -> slice:
        """Where the core of a tile lies in it."""
        core, start = self.cores[number], self.starts[number]
        return slice(core.start - start, core.stop - start)

    @property
    def steps(self) -> list[int]:
        """From each core to the next one, from the last one to its end."""
        begins = [core.start for core in self.cores]
        return [b - a for a, b in itertools.pairwise([*begins, self.end])]

    @property
    def mapped(self) -> slice:
        """The mapped part."""
        return slice(self.before, self.before + self.length)

    def shares(self) -> list[FloatArray]:
        """Weights of each core, (its side,), which sum to 1 at every pixel."""
        rising = rise(self.blended)
        weights: list[FloatArray] = []
        for core in self.cores:
            weight: FloatArray = np.ones(core.stop - core.start, dtype=np.float32)
            if core.start > 0:
                weight[: self.blended] = rising
            if core.stop < self.end:
                weight[len(weight) - self.blended :] = rising[::-1]
            weights.append(weight)
        return weights

    def inside(self, start: int, stop: int) -> tuple[slice, tuple[int, int]]:
        """The pixels of the mapped part in [start, stop), and how many lack before and after."""
        first, last = max(start - self.before, 0), min(stop - self.before, self.length)
        return slice(first, last), (first - (start - self.before), stop - self.before - last)


def tile_starts(length: int, tiling: Tiling) -> list[int]:
    """First pixels of tiles that cover `length`; the last one may reach beyond it."""
    shared = tiling.tile - tiling.step
    return [*range(0, max(length - shared, 1), tiling.step)]


def rise(blended: int) -> FloatArray:
    """Weights (blended,) in (0, 1) with which a core begins where the one before it ends.

    A raised cosine, sin^2(pi/2 (i + 1/2) / n) over n pixels. Reversed, it is how the core before
    ends: both sum to 1.
    """
    weights = np.sin(np.pi / 2 * (np.arange(blended) + 0.5) / max(blended, 1)) ** 2
    return weights.astype(np.float32)
