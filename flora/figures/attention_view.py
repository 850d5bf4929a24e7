"""Where a trained attention block looks: its weights, and a figure to click through them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from string import Template

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from flora.errors import FloraError
from flora.models.layers import WindowCrossAttention, window_merge, window_padding, window_partition

# What one figure may take of a page, in bytes of weights.
_MOST_BYTES = 500_000


@torch.no_grad()
def attention_weights(block: WindowCrossAttention, query: Tensor, guide: Tensor) -> list[Tensor]:
    """How much of each guidance pixel every query pixel takes.

    softmax(q k^T / sqrt(D) + position bias), which `WindowCrossAttention` computes within a fused
    kernel and never shows (Vaswani et al., Attention Is All You Need, NeurIPS 2017, equation 1).

    Args:
        block: The attention.
        query: SAR features (B, C, H, W).
        guide: Guidance features (B, C_g, H, W).

    Returns:
        For each window size w of the block (B, heads, H, W, w, w): for each pixel of the query,
        the shares of the pixels of its window, which sum to 1. The window of pixel (y, x) starts
        at `window_start(y, w, shifted)`, `window_start(x, w, shifted)`; where it sticks out of
        the image, the share is 0.
    """
    height, width = query.shape[-2:]
    q = block.to_query(block.query_norm(query))
    k, _ = block.to_key_value(block.guide_norm(guide)).chunk(2, dim=1)
    parts = len(block.window_sizes)
    shares = []
    for q_part, k_part, w, bias in zip(
        q.chunk(parts, dim=1),
        k.chunk(parts, dim=1),
        block.window_sizes,
        block.position_bias,
        strict=True,
    ):
        pad = window_padding(height, width, w, w // 2 if block.shifted else 0)
        heads = block.heads_per_window
        q_tokens, k_tokens = (
            window_partition(F.pad(x, pad), w, heads) for x in (q_part, k_part)
        )  # (B, windows, heads, w * w, D)
        scores = q_tokens @ k_tokens.mT / math.sqrt(q_tokens.shape[-1])
        scores = scores + bias[:, block.get_buffer(f"offsets_{w}")]
        inside = window_partition(F.pad(q.new_ones(1, 1, height, width), pad), w, 1)
        scores = scores.masked_fill(inside.mT == 0, float("-inf"))
        padded = (height + pad[2] + pad[3], width + pad[0] + pad[1])
        merged = window_merge(scores.softmax(dim=-1), w, *padded)  # (B, heads * w * w, ...)
        merged = merged[..., pad[2] : pad[2] + height, pad[0] : pad[0] + width]
        merged = merged.reshape(-1, heads, w, w, height, width)
        shares.append(merged.permute(0, 1, 4, 5, 2, 3))
    return shares


def window_start(position: int, window: int, shifted: bool) -> int:
    """First row (or column) of the window of a pixel's row (or column); negative outside."""
    shift = window // 2 if shifted else 0
    return (position + shift) // window * window - shift


def effective_pixels(shares: NDArray[np.float64]) -> float:
    """Over how many pixels attention spreads: exp of the entropy, from 1 to the window's area.

    Args:
        shares: Any shape, sum 1.
    """
    positive = shares[shares > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


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
        return _PAGE.substitute(
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


_PAGE = Template("""\
<div class="flora-attention" data-key="$key">
<style>
.flora-attention { max-width: 44rem; color: var(--pst-color-text-base, inherit); }
.flora-attention .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr));
  gap: .6rem; }
.flora-attention canvas { display: block; width: 100%; box-sizing: border-box;
  border: 1px solid #8888; border-radius: 4px; cursor: crosshair; }
.flora-attention canvas:focus-visible, .flora-attention input:focus-visible + canvas {
  outline: 3px solid #d55e00; outline-offset: 2px; }
.flora-attention .name { margin: 0 0 .2rem; font-size: .9rem; }
.flora-attention fieldset { display: grid; gap: .4rem;
  grid-template-columns: repeat(auto-fit, minmax(3.6rem, 1fr));
  margin: .6rem 0 0; padding: 0; border: 0; min-width: 0; }
/* The theme floats legends, which would make this one a cell of the grid. */
.flora-attention legend { float: none; margin: 0 0 .3rem; padding: 0; font-size: .9rem; }
.flora-attention label, .flora-attention .window { position: relative; margin: 0; max-width: 9rem;
  font-size: .85rem; line-height: 1.3; }
.flora-attention label { cursor: pointer; }
.flora-attention .window canvas { border-width: 2px; cursor: default; }
.flora-attention .scale { padding: 0 .4em; border-radius: 3px; color: #fff;
  text-shadow: 0 0 2px #000, 0 0 3px #000;
  background: linear-gradient(90deg, #00224e, #575d6d, #a59c74, #fee838); }
.flora-attention label canvas { cursor: pointer; border-width: 2px; }
.flora-attention input { position: absolute; opacity: 0; }
.flora-attention input:checked + canvas { border-color: #d55e00; }
.flora-attention input:checked ~ span { font-weight: 600; }
.flora-attention output { display: block; min-height: 3.2em; margin: .5rem 0 0;
  font-variant-numeric: tabular-nums; }
/* The book's theme lays every HTML output on a light ground, in dark mode too. */
html[data-theme=dark] div.cell_output .text_html:has(> .flora-attention) {
  background: none !important; padding: 0 !important; }
</style>
<div class="pair">
<div><p class="name">Asks: $query_name</p>
<canvas tabindex="0" role="application" aria-label="$query_name. Arrow keys move the pixel that
asks, with Shift by eight pixels."></canvas></div>
<div><p class="name">Is looked at: $guide_name</p>
<canvas role="img" aria-label="$guide_name, with the window of the pixel that asks."></canvas></div>
</div>
<fieldset><legend>The window, enlarged, and what each head looks at there, from
<span class="scale">nothing to most</span></legend>
<div class="window"><canvas width="128" height="128" role="img"
aria-label="Guidance in the window."></canvas><span>guidance</span></div></fieldset>
<output aria-live="polite"></output>
<noscript>This figure needs JavaScript.</noscript>
<script>
(() => {
  const box = document.querySelector('.flora-attention[data-key="$key"]:not([data-ready])');
  if (!box) return;
  const copy = document.querySelectorAll(".flora-attention[data-ready]").length;
  box.dataset.ready = "";
  const {rows, columns, height, width, windows, shifted, start} = $settings;
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const weights = bytes("$weights"), pixels = bytes("$pixels");
  const zoom = 3, cell = zoom * height / rows, text = box.querySelector("output");
  let [row, column] = start, head = 0;

  const pictures = [0, 1].map(n => {
    const picture = document.createElement("canvas");
    Object.assign(picture, {width, height});
    const context = picture.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      const from = 3 * (n * width * height + i);
      image.data.set([pixels[from], pixels[from + 1], pixels[from + 2], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    return picture;
  });
  const [asking, seen] = box.querySelectorAll(".pair canvas");
  const near = box.querySelector(".window canvas");
  for (const canvas of [asking, seen])
    Object.assign(canvas, {width: zoom * width, height: zoom * height});

  let offset = 0;
  const heads = windows.map((side, n) => {
    const label = document.createElement("label"), radio = document.createElement("input");
    const canvas = document.createElement("canvas"), name = document.createElement("span");
    Object.assign(radio, {type: "radio", name: "head-$key-" + copy, checked: n === 0});
    Object.assign(canvas, {width: 128, height: 128});
    name.textContent = "head " + (n + 1) + ", " + side + " \u00d7 " + side + " px";
    label.append(radio, canvas, name);
    box.querySelector("fieldset").append(label);
    radio.addEventListener("change", () => { head = n; draw(); });
    const at = offset;
    offset += rows * columns * side * side;
    return {side, canvas, first: at};
  });

  const query = ({side, first}) => {
    const from = first + (row * columns + column) * side * side;
    const stored = weights.subarray(from, from + side * side);
    const shift = shifted ? Math.floor(side / 2) : 0;
    const begin = position => Math.floor((position + shift) / side) * side - shift;
    return {stored, top: begin(row), left: begin(column)};
  };
  const frame = (context, x, y, w, h, colour) => {
    for (const [line, style] of [[5, "#000"], [2.5, colour]]) {
      Object.assign(context, {lineWidth: line, strokeStyle: style});
      context.strokeRect(x, y, w, h);
    }
  };
  // Cividis by four of its colours: it is even in lightness and safe for the colour-blind.
  const stops = [[0, 34, 78], [87, 93, 109], [165, 156, 116], [254, 232, 56]];
  const shade = (context, {stored, top, left}, side, x, y, size, opacity) => {
    stored.forEach((weight, n) => {
      const down = Math.floor(n / side), right = n % side;
      if (top + down < 0 || top + down >= rows || left + right < 0 || left + right >= columns)
        return;
      const t = weight / 85, from = Math.min(Math.floor(t), 2);
      const rgb = stops[from].map((c, i) => Math.round(c + (stops[from + 1][i] - c) * (t - from)));
      context.fillStyle = "rgba(" + rgb + ", " + opacity + ")";
      context.fillRect(x + right * size, y + down * size, size, size);
    });
  };
  const step = (by, positive, negative) =>
    by === 0 ? "" : Math.abs(by) + " " + (by > 0 ? positive : negative);

  const draw = () => {
    [asking, seen].forEach((canvas, n) => {
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(pictures[n], 0, 0, canvas.width, canvas.height);
      const {side} = heads[head], window = query(heads[head]), {top, left} = window;
      if (n) shade(context, window, side, left * cell, top * cell, cell, 0.75);
      frame(context, left * cell, top * cell, side * cell, side * cell, "#fff");
      frame(context, column * cell, row * cell, cell, cell, "#f0e442");
    });
    [heads[head], ...heads].forEach((one, n) => {
      const {side} = one, window = query(one), {top, left} = window;
      const canvas = n ? one.canvas : near, context = canvas.getContext("2d");
      const unit = cell / zoom, size = canvas.width / side;
      context.imageSmoothingEnabled = false;
      context.fillStyle = "#808080";
      context.fillRect(0, 0, canvas.width, canvas.height);
      if (n) shade(context, window, side, 0, 0, size, 1);
      else context.drawImage(pictures[1], left * unit, top * unit, side * unit, side * unit,
        0, 0, canvas.width, canvas.height);
      frame(context, (column - left) * size, (row - top) * size, size, size,
        n ? "#fff" : "#f0e442");
    });
    const {side} = heads[head], {stored, top, left} = query(heads[head]);
    const total = stored.reduce((sum, weight) => sum + weight, 0);
    const shares = Array.from(stored, weight => weight / total), most = Math.max(...shares);
    const spread = Math.exp(-shares.reduce((sum, s) => sum + (s > 0 ? s * Math.log(s) : 0), 0));
    const best = shares.indexOf(most);
    const away = [step(top + Math.floor(best / side) - row, "down", "up"),
      step(left + best % side - column, "right", "left")].filter(Boolean).join(", ");
    text.textContent = "Row " + row + ", column " + column + ", head " + (head + 1) +
      ": looks at about " + spread.toFixed(1) + " of " + side * side + " pixels; most, " +
      (100 * most).toFixed(0) + " %, at " + (away || "its own place") + ".";
  };
  const move = (y, x) => {
    row = Math.min(Math.max(y, 0), rows - 1);
    column = Math.min(Math.max(x, 0), columns - 1);
    draw();
  };
  for (const canvas of [asking, seen]) canvas.addEventListener("click", event => {
    const place = canvas.getBoundingClientRect();
    move(Math.floor((event.clientY - place.top) / place.height * rows),
      Math.floor((event.clientX - place.left) / place.width * columns));
  });
  const keys = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  asking.addEventListener("keydown", event => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    const [down, right] = keys[event.key], far = event.shiftKey ? 8 : 1;
    move(row + far * down, column + far * right);
  });
  draw();
})();
</script>
</div>
""")
