"""Group normalisation that varies smoothly over a scene, so that its tiles do not show.

`nn.GroupNorm` takes mean and variance from what it is given: from one tile. A pixel that two
tiles share gets two answers then, however wide their overlap. Here the statistics are taken from
patches spread over the scene before, and interpolated between their centres: they depend on where
a pixel lies, not on the tile it is in, and still follow the landscape.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from flora.scenes.inputs import OpticalInput
from flora.scenes.tiles import Patch, Predictor


class Position:
    """Where the patches lie, and where the tiles lie that are being predicted.

    Args:
        rows: Centres of the rows of patches, in pixels of the scene.
        columns: Centres of their columns.
    """

    def __init__(self, rows: Sequence[float], columns: Sequence[float]) -> None:
        self._rows, self._columns = rows, columns
        self._weights: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def put(self, row: int, columns: Sequence[int], side: tuple[int, int]) -> None:
        """Move to a batch of tiles with these first pixels, `side` (rows, columns) large."""
        self._row, self._starts, self._side = row, columns, side
        self._weights.clear()

    def weights(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Linear interpolation from patches to the pixels of a feature map of the tiles.

        Returns:
            (height, rows of patches) and (B, width, columns of patches).
        """
        if (height, width) not in self._weights:
            down = hats(self._rows, self._row, self._side[0], height)
            across = [hats(self._columns, c, self._side[1], width) for c in self._starts]
            self._weights[height, width] = (
                torch.from_numpy(down),
                torch.from_numpy(np.stack(across)),
            )
        return self._weights[height, width]


def hats(centres: Sequence[float], start: int, side: int, count: int) -> NDArray[np.float32]:
    """Weights (count, centres) of linear interpolation, constant beyond the outer centres.

    Args:
        centres: Where values are known, ascending.
        start: Where the first pixel of a tile begins.
        side: Length of the tile.
        count: Number of points, the middles of equal parts of the tile.
    """
    points = start + (np.arange(count) + 0.5) * side / count
    unit = np.eye(len(centres))
    weights = np.stack([np.interp(points, centres, row) for row in unit], axis=1)
    return weights.astype(np.float32)


class SmoothGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` whose statistics can be given as a field over the scene.

    Attributes:
        moments: Mean and mean square (groups, 2) of each image seen during a survey, one after
            the other, else None. Not as tensors: thousands of small ones keep the memory between
            them from being used again.
        position: Where the tiles lie.
    """

    def __init__(self, original: nn.GroupNorm) -> None:
        super().__init__(original.num_groups, original.num_channels, original.eps)
        self.weight, self.bias = original.weight, original.bias
        self.moments: array[float] | None = None
        self.position: Position | None = None
        self._gain_offset: Tensor | None = None  # (2, C, rows of patches, columns of patches)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W): with its own statistics, or with the field where there is one."""
        if self.moments is not None:
            groups = x.detach().float().reshape(len(x), self.num_groups, -1)
            moments = torch.stack([groups.mean(2), groups.square().mean(2)], -1)
            self.moments.extend(moments.flatten().tolist())
        if self.position is None or self._gain_offset is None:
            return super().forward(x)
        down, across = (w.to(x.device) for w in self.position.weights(*x.shape[-2:]))
        rows = torch.einsum("yi,kcij->kcyj", down, self._gain_offset)  # (2, C, H, columns)
        gain, offset = (part @ across[:, None].mT for part in rows)  # (B, C, H, W) each
        return torch.addcmul(offset, x, gain).to(x.dtype)

    @torch.no_grad()
    def settle(self, position: Position | None, nearest: NDArray[np.intp]) -> None:
        """End the survey: the field is made of what was seen.

        Args:
            position: Where the patches and tiles lie; None normalises every tile by itself.
            nearest: (rows, columns) of patches: which of the images that were seen stands for it.
        """
        self.position, self._gain_offset = position, None
        if position is not None and self.moments:
            seen = torch.tensor(self.moments, device=self.weight.device)
            seen = seen.reshape(-1, self.num_groups, 2)
            mean, square = seen[torch.from_numpy(nearest)].unbind(-1)
            deviation = (square - mean.square()).clamp(min=0).add(self.eps).sqrt()
            size = self.num_channels // self.num_groups
            mean, deviation = (v.repeat_interleave(size, -1) for v in (mean, deviation))
            gain = self.weight / deviation
            self._gain_offset = torch.stack([gain, self.bias - mean * gain]).permute(0, 3, 1, 2)
        self.moments = None


class SceneNormalised:
    """A predictor whose group normalisation varies smoothly over the scene.

    Without `survey` it predicts as the model itself does. The model is copied, not changed.

    Args:
        model: A network that normalises with `nn.GroupNorm`.
        predictor: Makes a predictor of such a network.

    Example:
        >>> from functools import partial
        >>> from pathlib import Path
        >>> import torch
        >>> from flora import SceneNormalised, load_model, map_scene, scene_predictor
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> make = partial(scene_predictor, device=torch.device("cpu"))
        >>> outputs = map_scene(sar, "flood", SceneNormalised(load_model(), make), tile=32)
    """

    def __init__(self, model: nn.Module, predictor: Callable[[Any], Predictor]) -> None:
        model = copy.deepcopy(model)
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.GroupNorm):
                    setattr(parent, name, SmoothGroupNorm(child))
        self._norms = [m for m in model.modules() if isinstance(m, SmoothGroupNorm)]
        self._predict = predictor(model)
        self._position: Position | None = None

    def survey(self, patches: Iterable[Patch]) -> None:
        """Take the statistics of these patches; none forgets those of an earlier scene."""
        for norm in self._norms:
            norm.position, norm.moments = None, array("f")
        places = []
        position, nearest = None, np.zeros((0, 0), dtype=np.intp)
        try:
            for patch in patches:
                self._predict(patch.sar, patch.before)
                places.append((patch.row, patch.column, patch.share))
            position, nearest = _field(places)
        finally:
            self._position = position
            for norm in self._norms:
                norm.settle(position, nearest)

    def place(self, row: int, columns: Sequence[int], side: tuple[int, int]) -> None:
        """Say where the tiles of the next call lie: first row, first columns, (rows, columns)."""
        if self._position is not None:
            self._position.put(row, columns, side)

    def __call__(self, sar: Tensor, before: OpticalInput | None, /) -> tuple[Tensor | None, Tensor]:
        """Predict a batch of tiles, see `Predictor`."""
        return self._predict(sar, before)


def _field(
    places: Sequence[tuple[float, float, float]],
) -> tuple[Position | None, NDArray[np.intp]]:
    """Position, and for each place of the grid of patches the number of the one that stands for it.

    Patches less than half as valid as the best one are stood for by the nearest of the others.
    """
    if not places:
        return None, np.zeros((0, 0), dtype=np.intp)
    rows, columns = (sorted({place[axis] for place in places}) for axis in (0, 1))
    number = np.zeros((len(rows), len(columns)), dtype=np.intp)
    share = np.zeros(number.shape)
    for k, (row, column, valid) in enumerate(places):
        at = rows.index(row), columns.index(column)
        number[at], share[at] = k, valid
    poor = share < share.max() / 2
    i, j = distance_transform_edt(poor, return_distances=False, return_indices=True)
    return Position(rows, columns), number[i, j]
