"""A figure to click through: where each head of an attention block looks from a pixel."""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from flora.errors import FloraError
from flora.figures.attention import attention_weights
from flora.figures.widgets import widget_page
from flora.models.attention import WindowCrossAttention

# What one figure may take of a page, in bytes of weights.
_MOST_BYTES = 500_000


class AttentionView:
    """Two images side by side: click a pixel of the radar's, see where each head looks.

    The pixels are those of the feature map. Colours from dark blue to yellow give each pixel's
    share of the attention, relative to the largest in its window; small pictures show the window
    itself and the shares under every head. Shares are stored in 8 bits.

    Args:
        block: The attention, trained or not.
        query: SAR features (1, C, H, W).
        guide: Guidance features (1, C_g, H, W).
        query_image: What the radar saw, (H', W') or (3, H', W') in [0, 1], where H' and W' are
            the same multiple of H and W.
        guide_image: What the guidance was made from, of the same size.
        names: Captions of the two images.
        start: Row and column of the first query; by default the middle.

    Raises:
        FloraError: If there is more than one image, the sizes do not fit, or the figure would take
            more than half a megabyte of the page.
    """

    def __init__(
        self,
        block: WindowCrossAttention,
        query: Tensor,
        guide: Tensor,
        query_image: ArrayLike,
        guide_image: ArrayLike,
        *,
        names: tuple[str, str] = ("radar", "guidance"),
        start: tuple[int, int] | None = None,
    ) -> None:
        if query.shape[0] != 1 or query.shape[2:] != guide.shape[2:]:
            raise FloraError(
                f"query of shape {tuple(query.shape)} and guide of shape {tuple(guide.shape)}: "
                "expected one image, with the same rows and columns in both; index the batch"
            )
        self.rows, self.columns = query.shape[2:]
        size = self.rows * self.columns * block.heads_per_window
        size *= sum(w * w for w in block.window_sizes)
        if size > _MOST_BYTES:
            raise FloraError(
                f"query of {self.rows} x {self.columns} px: its attention takes {size} bytes of "
                f"the page, at most {_MOST_BYTES} are allowed; crop query and guide"
            )
        row, column = start if start is not None else (self.rows // 2, self.columns // 2)
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise FloraError(
                f"start {start}: expected a row and a column within {self.rows} x {self.columns} px"
            )
        self.start = (row, column)
        self.names = names
        self.shifted = block.shifted
        self.images = [
            self._pixels(image, name)
            for image, name in ((query_image, "query_image"), (guide_image, "guide_image"))
        ]
        if self.images[0].shape != self.images[1].shape:
            raise FloraError(
                f"query_image of {self.images[0].shape[:2]} px and guide_image of "
                f"{self.images[1].shape[:2]} px: expected the same"
            )
        # One entry a head: (H, W, w, w) uint8.
        self.heads: list[NDArray[np.uint8]] = []
        for shares in attention_weights(block, query, guide):
            relative = shares[0] / shares[0].amax(dim=(-2, -1), keepdim=True)
            self.heads += list((relative * 255).round().to(torch.uint8).cpu().numpy())

    def shares(self, head: int, row: int, column: int) -> NDArray[np.float64]:
        """What the page shows of one query: (w, w), sum 1, up to the 8 bits of each share."""
        stored = self.heads[head][row, column].astype(np.float64)
        shares: NDArray[np.float64] = stored / stored.sum()
        return shares

    def __repr__(self) -> str:
        windows = ", ".join(str(head.shape[-1]) for head in self.heads)
        return f"AttentionView({self.rows} x {self.columns} px, heads with windows of {windows} px)"

    def _repr_html_(self) -> str:
        data = b"".join(head.tobytes() for head in self.heads)
        pixels = b"".join(image.tobytes() for image in self.images)
        height, width = self.images[0].shape[:2]
        settings = {
            "rows": self.rows,
            "columns": self.columns,
            "height": height,
            "width": width,
            "windows": [head.shape[-1] for head in self.heads],
            "shifted": self.shifted,
            "start": self.start,
        }
        key = hashlib.sha256(data + pixels + repr((settings, self.names)).encode()).hexdigest()
        return widget_page("attention_view").substitute(
            key=key[:12],
            settings=json.dumps(settings),
            query_name=self.names[0],
            guide_name=self.names[1],
            weights=base64.b64encode(data).decode("ascii"),
            pixels=base64.b64encode(pixels).decode("ascii"),
        )

    def _pixels(self, image: ArrayLike, name: str) -> NDArray[np.uint8]:
        """(H', W', 3) bytes of an image in [0, 1]."""
        values = np.asarray(image, dtype=np.float64)
        if values.ndim == 2:
            values = np.stack([values] * 3)
        scale = values.shape[1] // self.rows if values.ndim == 3 else 0
        if scale < 1 or values.shape != (3, scale * self.rows, scale * self.columns):
            raise FloraError(
                f"{name} of shape {np.shape(image)}: expected (rows, columns) or (3, rows, "
                f"columns) with the same multiple of {self.rows} rows and {self.columns} columns"
            )
        pixels = np.rint(255 * np.nan_to_num(values).clip(0.0, 1.0)).astype(np.uint8)
        return np.moveaxis(pixels, 0, -1)
