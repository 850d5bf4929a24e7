"""Panels from arrays in one look: grey backscatter, blue water, hatching where there is no data."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.rcsetup import cycler
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from flora.colours import (
    BACKSCATTER_LIMITS,
    DRY_COLOUR,
    FALSE_ALARM_COLOUR,
    MISS_COLOUR,
    OVERLAY_COLOUR,
    WATER_COLOUR,
)
from flora.errors import FloraError
from flora.sensors import DRY, WATER

SCREEN_DPI = 110  # at which figures are laid out
EXACT_BYTES = 60_000  # up to which a picture is stored without loss, whatever JPEG would take
MANY_COLOURS = 4096  # more are a photograph or speckle
NOT_SEEN = 6  # of 255 levels: a colour that is off by no more looks the same
SHARPEST = 1440  # pixels across: nearly twice the width of a page's column of text

STYLE: dict[str, Any] = {
    "axes.edgecolor": "0.5",
    "axes.prop_cycle": cycler(
        color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]
    ),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": SCREEN_DPI,
    "font.size": 9,
    "hatch.color": "0.65",
    "hatch.linewidth": 0.6,
    "image.interpolation": "auto",
    "legend.fontsize": 8,
    "savefig.dpi": SCREEN_DPI,
}


class BookFigure(Figure):
    """A figure that a notebook shows exactly once, without pyplot and its list of open figures.

    It is drawn at twice the resolution that it is shown at, up to what a page has room for, and
    encoded without a visible loss where that takes few bytes.
    """

    def picture(self) -> tuple[Image.Image, int]:
        """What is drawn, in full colour, and the width in pixels at which it is shown."""
        buffer = io.BytesIO()
        dots = min(2 * SCREEN_DPI, SHARPEST / self.get_figwidth())
        self.savefig(buffer, format="png", bbox_inches="tight", dpi=dots)
        image = Image.open(buffer).convert("RGB")
        return image, round(image.width * SCREEN_DPI / dots)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        image, width = self.picture()
        kind, encoded = smallest(image)
        return {kind: base64.b64encode(encoded).decode("ascii")}, {kind: {"width": width}}


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure here, for a `with` block; rcParams are as before afterwards."""
    with mpl.rc_context(cast(Any, STYLE)):
        yield


def figure(
    rows: int = 1, columns: int = 1, panel: tuple[float, float] = (3.0, 3.0)
) -> tuple[BookFigure, NDArray[Any]]:
    """A figure in the book's style and its axes as a (rows, columns) array.

    Args:
        rows: Rows of panels.
        columns: Columns of panels.
        panel: Width and height of one panel in inches.
    """
    with style():
        made = BookFigure(figsize=(columns * panel[0], rows * panel[1]), layout="compressed")
        axes: NDArray[Any] = made.subplots(rows, columns, squeeze=False)
    return made, axes


def show_backscatter(
    ax: Axes,
    backscatter: ArrayLike,
    *,
    band: str = "VV",
    unit: str = "dB",
    limits: tuple[float, float] | None = None,
    colour_bar: bool = True,
    aspect: float = 1.0,
) -> Axes:
    """Draw one polarisation in grey.

    Args:
        ax: Where to draw.
        backscatter: (H, W) in `unit`; NaN is no data and stays hatched.
        band: Polarisation, for the title and the default limits.
        unit: Unit beside the colour bar.
        limits: Values drawn black and white; by default the band's in dB, else 0 to 255.
        colour_bar: Draw a colour bar.
        aspect: Height of a pixel over its width.
    """
    values = _plane(backscatter, "backscatter")
    if limits is None:
        limits = BACKSCATTER_LIMITS.get(band[:2], (-30.0, 0.0)) if unit == "dB" else (0.0, 255.0)
    image = _draw(ax, values, f"SAR {band}", aspect, cmap="gray", vmin=limits[0], vmax=limits[1])
    if colour_bar:
        colour_bar_beside(ax, image, f"{band} backscatter ({unit})", extend="both")
    return ax


def show_rgb(
    ax: Axes,
    rgb: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    title: str = "optical",
    aspect: float = 1.0,
) -> Axes:
    """Draw a (3, H, W) image in [0, 1]; what is not `valid` (H, W) stays hatched."""
    image = np.moveaxis(np.asarray(rgb, dtype=np.float64), 0, -1)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise FloraError(f"rgb of shape {np.shape(rgb)}: expected (3, rows, columns) in [0, 1]")
    seen = np.isfinite(image).all(axis=-1, keepdims=True)
    if valid is not None:
        seen &= np.asarray(valid, dtype=bool)[..., None]
    colours = np.concatenate([np.where(seen, image, 0.0), seen], axis=-1)
    _draw(ax, colours.clip(0.0, 1.0), title, aspect)
    return ax


def show_index(
    ax: Axes,
    index: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    name: str = "NDVI",
    aspect: float = 1.0,
) -> Axes:
    """Draw a normalised difference (H, W) on its whole range, -1 to 1."""
    values = _plane(index, "index")
    if valid is not None:
        values = np.where(np.asarray(valid, dtype=bool), values, np.nan)
    image = _draw(ax, values, name, aspect, cmap="BrBG", vmin=-1, vmax=1)
    colour_bar_beside(ax, image, name)
    return ax


def show_probability(
    ax: Axes, probability: ArrayLike, *, title: str = "water probability", aspect: float = 1.0
) -> Axes:
    """Draw a probability (H, W) in [0, 1]; NaN is no data and stays hatched."""
    values = _plane(probability, "probability")
    image = _draw(ax, values, title, aspect, cmap="cividis", vmin=0, vmax=1)
    colour_bar_beside(ax, image, "probability")
    return ax


def show_water(
    ax: Axes,
    water: ArrayLike,
    *,
    title: str = "water",
    legend: bool = True,
    aspect: float = 1.0,
) -> Axes:
    """Draw label codes (H, W): 0 dry, 1 water; 255 was not labelled and stays hatched."""
    codes = _plane(water, "water")
    labelled = np.where(np.isin(codes, (DRY, WATER)), codes, np.nan)
    colours = ListedColormap([DRY_COLOUR, WATER_COLOUR])
    bounds = BoundaryNorm([-0.5, 0.5, 1.5], 2)
    _draw(ax, labelled, title, aspect, cmap=colours, norm=bounds, interpolation="nearest")
    if legend:
        handles = [Patch(color=WATER_COLOUR, label="water"), Patch(color=DRY_COLOUR, label="dry")]
        _legend(ax, handles, bool(np.isnan(labelled).any()))
    return ax


def show_water_over(
    ax: Axes, water: ArrayLike, *, opacity: float = 0.85, legend: bool = True
) -> Axes:
    """Lay the water of label codes (H, W) over the image that `ax` shows already."""
    codes = _plane(water, "water")
    overlay = np.zeros((*codes.shape, 4))
    overlay[codes == WATER] = to_rgba(OVERLAY_COLOUR, opacity)
    ax.imshow(overlay, interpolation="nearest", aspect=ax.get_aspect())
    if legend:
        unseen = bool((~np.isin(codes, (DRY, WATER))).any())
        _legend(ax, [Patch(color=OVERLAY_COLOUR, label="water")], unseen)
    return ax


def show_errors(
    ax: Axes,
    predicted: ArrayLike,
    label: ArrayLike,
    *,
    title: str = "map against label",
    legend: bool = True,
    aspect: float = 1.0,
) -> Axes:
    """Draw hits, misses and false alarms of a water map.

    Args:
        ax: Where to draw.
        predicted: Label codes (H, W) of the map: 0 dry, 1 water; other codes are no answer.
        label: Label codes of the truth; what either does not know stays hatched.
        title: Above the panel.
        legend: Whether the colours are explained below.
        aspect: Height of a pixel over its width.

    Raises:
        FloraError: If the two differ in shape.
    """
    found, truth = _plane(predicted, "predicted"), _plane(label, "label")
    if found.shape != truth.shape:
        raise FloraError(f"predicted of shape {found.shape}, label of {truth.shape}: expected one")
    known = np.isin(found, (DRY, WATER)) & np.isin(truth, (DRY, WATER))
    codes = np.where(known, 2 * (truth == WATER) + (found == WATER), np.nan)
    names = {
        "dry, both": DRY_COLOUR,
        "false alarm": FALSE_ALARM_COLOUR,
        "missed": MISS_COLOUR,
        "found": WATER_COLOUR,
    }
    norm = BoundaryNorm([-0.5, 0.5, 1.5, 2.5, 3.5], 4)
    colours = ListedColormap(list(names.values()))
    _draw(ax, codes, title, aspect, cmap=colours, norm=norm, interpolation="nearest")
    if legend:
        order = ("found", "missed", "false alarm", "dry, both")
        handles = [Patch(color=names[name], label=name) for name in order]
        _legend(ax, handles, bool(np.isnan(codes).any()), columns=2)
    return ax


def scale_bar(ax: Axes, pixel_metres: float) -> Axes:
    """Draw a bar of a round length, about a quarter of the image wide.

    Args:
        ax: Axes that show an image in pixel coordinates.
        pixel_metres: Width of a pixel of that image in metres.

    Raises:
        FloraError: If the width of a pixel is not a positive number.
    """
    if not (math.isfinite(pixel_metres) and pixel_metres > 0):
        raise FloraError(f"pixel_metres {pixel_metres}: expected the width of a pixel in metres")
    left, right = sorted(ax.get_xlim())
    length = round_length((right - left) * pixel_metres / 4)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    start, width = 0.05, length / pixel_metres / (right - left)
    for colour, line in (("black", 4.5), ("white", 2.5)):
        ax.plot(
            [start, start + width],
            [0.06, 0.06],
            color=colour,
            linewidth=line,
            solid_capstyle="butt",
            transform=ax.transAxes,
        )
    label = ax.text(start, 0.08, text, color="white", ha="left", va="bottom")
    label.set(transform=ax.transAxes, fontsize=8)
    label.set_path_effects([patheffects.withStroke(linewidth=2, foreground="black")])
    return ax


def round_length(length: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is at most `length` (positive)."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))


def smallest(image: Image.Image) -> tuple[str, bytes]:
    """The media type and the bytes of a picture: lines as PNG, photographs and speckle as JPEG.

    Many lines and letters have few colours but for their soft edges: 256 colours that nobody tells
    from all of them take less than JPEG does, and leave no haze around letters.
    """
    exact = _png(image)
    if len(exact) <= EXACT_BYTES:
        return "image/png", exact
    near = io.BytesIO()
    image.save(near, format="jpeg", quality=70, subsampling=0, optimize=True, progressive=True)
    few = _png(_few_colours(image))
    if len(few) <= len(near.getvalue()):
        return "image/png", few
    return "image/jpeg", near.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    colours = image.getcolors(256)
    if colours is not None and image.mode == "RGB":
        image = image.quantize(len(colours), dither=Image.Dither.NONE)
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _few_colours(image: Image.Image) -> Image.Image:
    """The picture in 256 colours where it has not many more and none is seen to be off."""
    if image.getcolors(MANY_COLOURS) is None:
        return image
    widest = Image.Quantize.MAXCOVERAGE
    palette = image.quantize(method=widest, kmeans=1, dither=Image.Dither.NONE)
    apart = np.asarray(palette.convert("RGB"), dtype=np.int16) - np.asarray(image, dtype=np.int16)
    # A thin line of a colour of its own is a few pixels, and must not become another's.
    seen = np.percentile(abs(apart), 99.9) > NOT_SEEN or abs(apart).max() > 5 * NOT_SEEN
    return image if seen else palette


def _plane(values: ArrayLike, name: str) -> NDArray[np.float64]:
    plane = np.asarray(values, dtype=np.float64)
    if plane.ndim != 2 or plane.size == 0:
        raise FloraError(f"{name} of shape {plane.shape}: expected (rows, columns)")
    return plane


def _draw(ax: Axes, image: NDArray[Any], title: str, aspect: float, **options: Any) -> Any:
    """Show an image whose transparent (NaN, or alpha 0) pixels let a hatched ground through."""
    ax.patch.set(facecolor="white", edgecolor="0.65", hatch="////", linewidth=0)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.set_title(title)
    return ax.imshow(image, aspect=aspect, **options)


def colour_bar_beside(ax: Axes, image: Any, label: str, extend: str = "neither") -> None:
    """A colour bar beside an image; `extend` says at which ends values go on."""
    figure_of_ax = ax.get_figure()
    if figure_of_ax is not None:
        figure_of_ax.colorbar(image, ax=ax, label=label, shrink=0.8, pad=0.02, extend=extend)


def _legend(ax: Axes, handles: list[Patch], unseen: bool, columns: int = 9) -> None:
    if unseen:
        handles = [*handles, Patch(facecolor="white", edgecolor="0.65", hatch="////")]
        handles[-1].set_label("no data")
    # Below the image, where it hides nothing.
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=min(len(handles), columns),
        frameon=False,
        handlelength=1.2,
        borderaxespad=0.3,
    )
