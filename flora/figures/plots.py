"""Figures from arrays, in one look: grey backscatter, blue water, hatching where nothing was seen.

Colour limits are constants of the sensor, as the normalisation is, so that the same grey is the
same backscatter in every figure. The colours of water and land differ in lightness too, hence
survive colour blindness and grey print.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
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

from flora.errors import FloraError
from flora.sensors import DRY, SENTINEL1, SENTINEL2_RGB, WATER, OpticalScaling, SarScaling

WATER_COLOUR = "#0072b2"
DRY_COLOUR = "#ecd9a8"
OVERLAY_COLOUR = "#2fa4ff"  # lighter than WATER_COLOUR: it lies on radar-dark water

STYLE: dict[str, Any] = {
    "axes.edgecolor": "0.5",
    "axes.prop_cycle": cycler(
        color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]
    ),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": 110,
    "font.size": 9,
    "hatch.color": "0.65",
    "hatch.linewidth": 0.6,
    "image.interpolation": "auto",
    "legend.fontsize": 8,
    "savefig.dpi": 110,
}

# dB, by band: open water lies at the dark end, towns at the bright one.
BACKSCATTER_LIMITS = {"VV": (-25.0, 0.0), "VH": (-32.0, -7.0)}


class BookFigure(Figure):
    """A figure that a notebook shows exactly once, without pyplot and its list of open figures."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return _compact(buffer)


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
        _colour_bar(ax, image, f"{band} backscatter ({unit})", extend="both")
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
    _colour_bar(ax, image, name)
    return ax


def show_probability(
    ax: Axes, probability: ArrayLike, *, title: str = "water probability", aspect: float = 1.0
) -> Axes:
    """Draw a probability (H, W) in [0, 1]; NaN is no data and stays hatched."""
    values = _plane(probability, "probability")
    image = _draw(ax, values, title, aspect, cmap="cividis", vmin=0, vmax=1)
    _colour_bar(ax, image, "probability")
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


def sample_figure(
    sample: Mapping[str, Any],
    sar_scaling: SarScaling = SENTINEL1,
    optical_scaling: OpticalScaling = SENTINEL2_RGB,
    *,
    pixel_metres: float | None = None,
) -> BookFigure:
    """Draw all layers of one sample side by side: SAR, optical, index, before, water.

    Args:
        sample: A sample of a dataset (`flora.datasets.base.Sample`).
        sar_scaling: What turned its backscatter into the model's input.
        optical_scaling: Names the bands and the index.
        pixel_metres: Width of a pixel in metres, for a scale bar.

    Example:
        >>> from flora import open_dataset, sample_figure
        >>> chips = open_dataset("simulated", None, "test", count=1, size=64)
        >>> figure = sample_figure(chips[0], pixel_metres=10)
        >>> figure.savefig("chip.png")
    """
    stored = sar_scaling.restore(np.asarray(sample["sar"]))
    stored = np.where(np.asarray(sample["sar_valid"]), stored, np.nan)
    count = len(sar_scaling.bands) + 3 + ("before" in sample)
    columns = count if count <= 4 else math.ceil(count / 2)
    made, axes = figure(math.ceil(count / columns), columns)
    panels = iter(axes.flat)
    with style():
        for band, values in zip(sar_scaling.bands, stored, strict=True):
            show_backscatter(next(panels), values, band=band, unit=sar_scaling.unit)
        if pixel_metres is not None:
            scale_bar(axes.flat[0], pixel_metres)
        bands = ", ".join(optical_scaling.bands)
        if "before" in sample:
            before = f"optical before ({bands})"
            show_rgb(next(panels), sample["before"][:3], sample["before_valid"], title=before)
        optical, valid = sample["optical"], sample["optical_valid"]
        show_rgb(next(panels), optical[:3], valid, title=f"optical ({bands})")
        show_index(next(panels), sample["index"][0], valid, name=optical_scaling.index_name)
        show_water(next(panels), sample["water"], title="water label")
        for unused in panels:
            unused.set_axis_off()
    return made


def training_curves(
    rows: Sequence[Mapping[str, float]],
    *,
    terms: Sequence[str] | None = None,
    columns: int = 4,
) -> BookFigure:
    """Plot the log of a training run, one panel a loss term (no unit), against the step.

    The thin line is each logged value, the thick one its mean over a twentieth of the run, which
    is what can be read: crops differ more from each other than a term moves in a few steps.

    Args:
        rows: Rows with a `step` and numbers; a row may lack a term.
        terms: Which columns to plot; by default all but `step`, `epoch` and `lr`.
        columns: Panels in a row.

    Raises:
        FloraError: If there is no row, or nowhere a value of a term.

    Example:
        >>> from flora.figures.plots import training_curves
        >>> rows = [{"step": step, "dice": 1 / step} for step in range(1, 50)]
        >>> training_curves(rows).savefig("curves.png")
    """
    if terms is None:
        terms = list(dict.fromkeys(k for row in rows for k in row))
        terms = [name for name in terms if name not in ("step", "epoch", "lr")]
    if not rows or not terms:
        raise FloraError("the training log is empty: expected rows with a step and loss terms")
    columns = min(columns, len(terms))
    made, axes = figure(math.ceil(len(terms) / columns), columns, panel=(2.6, 2.0))
    with style():
        for ax, name in zip(axes.flat, terms, strict=False):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if not points:
                raise FloraError(f"the training log has no {name!r}: it has {', '.join(rows[0])}")
            steps, values = np.asarray(points, dtype=np.float64).T
            window = max(1, len(values) // 20)
            if window > 1:
                ax.plot(steps, values, linewidth=0.5, alpha=0.35)
            mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
            sparse = "o-" if len(values) < 40 else "-"
            ax.plot(steps[window // 2 :][: len(mean)], mean, sparse, color="C0", markersize=3)
            ax.set_title(name.replace("_", " "))
            ax.set_xlabel("step")
        for unused in axes.flat[len(terms) :]:
            unused.set_axis_off()
    return made


def quicklook(
    backscatter: ArrayLike,
    water: ArrayLike,
    rgb: ArrayLike | None = None,
    *,
    band: str = "VV",
    unit: str = "dB",
    pixel_metres: tuple[float, float] | None = None,
    title: str = "",
) -> BookFigure:
    """The results of a scene at a glance: SAR, reconstruction, water over SAR.

    Args:
        backscatter: (H, W) in `unit`, NaN in nodata.
        water: Label codes (H, W): 0 dry, 1 water, 255 no data.
        rgb: Reconstructed image (3, H, W) in [0, 1], if the model makes one.
        band: Polarisation of `backscatter`.
        unit: Its unit.
        pixel_metres: Width and height of a pixel in metres, for the scale bar and the aspect.
        title: Above all panels.

    Example:
        >>> from flora.figures.plots import quicklook
        >>> from flora.simulate.scene import simulate
        >>> scene = simulate(7, 64)
        >>> quicklook(scene.sar_after[0], scene.water_after).savefig("quicklook.png")
    """
    codes = _plane(water, "water")
    width_metres, height_metres = pixel_metres or (1.0, 1.0)
    aspect = height_metres / width_metres
    shape = codes.shape[0] * aspect / codes.shape[1]
    side = 4.2
    panel = (side, min(max(side * shape, 0.8), 2 * side) + 0.6)
    count = 2 if rgb is None else 3
    made, axes = figure(*((count, 1) if shape < 0.4 else (1, count)), panel=panel)
    panels = axes.ravel()
    with style():
        for ax in (panels[0], panels[-1]):
            show_backscatter(ax, backscatter, band=band, unit=unit, colour_bar=False, aspect=aspect)
        _colour_bar(panels[0], panels[0].images[0], f"backscatter ({unit})", extend="both")
        if rgb is not None:
            name = "optical image, reconstructed"
            show_rgb(panels[1], rgb, codes != 255, title=name, aspect=aspect)
        panels[-1].set_title(f"water on SAR {band}")
        show_water_over(panels[-1], codes)
        if pixel_metres is not None:
            scale_bar(panels[0], width_metres)
        if title:
            made.suptitle(title, fontsize=10)
    return made


def _compact(drawn: io.BytesIO) -> bytes:
    """The same PNG with 32 levels a channel: speckle in full depth makes pages of megabytes."""
    pixels = np.asarray(Image.open(drawn).convert("RGB")) / 255
    image = Image.fromarray(np.rint(np.rint(pixels * 31) * (255 / 31)).astype(np.uint8))
    colours = image.getcolors(256)
    if colours is not None:
        image = image.quantize(len(colours), dither=Image.Dither.NONE)  # exact: a palette of all
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


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


def _colour_bar(ax: Axes, image: Any, label: str, extend: str = "neither") -> None:
    figure_of_ax = ax.get_figure()
    if figure_of_ax is not None:
        figure_of_ax.colorbar(image, ax=ax, label=label, shrink=0.8, pad=0.02, extend=extend)


def _legend(ax: Axes, handles: list[Patch], unseen: bool) -> None:
    if unseen:
        handles = [*handles, Patch(facecolor="white", edgecolor="0.65", hatch="////")]
        handles[-1].set_label("no data")
    # Below the image, where it hides nothing.
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=len(handles),
        frameon=False,
        handlelength=1.2,
        borderaxespad=0.3,
    )
