"""Pictures of feature maps: many channels as three colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from flora.errors import FloraError
from flora.figures.plots import show_rgb


@dataclass(frozen=True)
class FeatureColours:
    """A fixed way to colour features: their first three principal components as RGB.

    Colours of two maps can be compared only where both went through the same `FeatureColours`.
    A colour means nothing by itself; alike colours mean alike features, along the three
    directions in which the features vary most.

    Attributes:
        mean: (C,) mean feature.
        axes: (3, C) orthonormal directions, the one of most variance first.
        low: (3,) projection that becomes 0.
        high: (3,) projection that becomes 1.
        explained: Share of the variance along the three directions, 0 to 1.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    explained: float

    @classmethod
    def fit(cls, features: ArrayLike, valid: ArrayLike | None = None) -> Self:
        """Find the components of (C, H, W) features, C of 3 or more.

        The range from the 2nd to the 98th percentile of each becomes 0 to 1.

        Args:
            features: (C, H, W).
            valid: (H, W), which pixels to look at; all by default.

        Raises:
            FloraError: If the shape is another, or fewer than three pixels are valid.
        """
        values = _pixels(features)  # (H * W, C)
        if valid is not None:
            values = values[np.asarray(valid, dtype=bool).ravel()]
        if min(values.shape) < 3:
            raise FloraError(
                f"features: {values.shape[0]} valid pixels of {values.shape[1]} channels: expected "
                "three or more of both"
            )
        mean = values.mean(axis=0)
        variances, vectors = np.linalg.eigh(np.cov(values, rowvar=False))  # ascending
        axes = vectors[:, -1:-4:-1].T
        # The sign of an eigenvector is arbitrary; fixed, the same features give the same colours.
        axes = axes * np.sign(axes[np.arange(3), np.abs(axes).argmax(axis=1)])[:, None]
        low, high = np.percentile((values - mean) @ axes.T, [2, 98], axis=0)
        explained = variances[-3:].sum() / max(variances.sum(), 1e-12)
        return cls(mean, axes, low, high, float(explained))

    def __call__(self, features: ArrayLike) -> NDArray[np.float64]:
        """Colour (C, H, W) features: (3, H, W) in [0, 1]."""
        values = _pixels(features)
        if values.shape[1] != len(self.mean):
            raise FloraError(
                f"features of {values.shape[1]} channels: these colours were found on "
                f"{len(self.mean)}; fit others"
            )
        projected = (values - self.mean) @ self.axes.T
        colours = (projected - self.low) / np.maximum(self.high - self.low, 1e-12)
        shape = np.shape(features)[1:]
        image: NDArray[np.float64] = colours.clip(0.0, 1.0).T.reshape(3, *shape)
        return image


def show_features(
    ax: Axes,
    features: ArrayLike,
    colours: FeatureColours | None = None,
    valid: ArrayLike | None = None,
    *,
    title: str = "features",
) -> Axes:
    """Draw (C, H, W) features in colours, each cell a square; not `valid` (H, W) stays hatched.

    Args:
        ax: Where to draw.
        features: (C, H, W).
        colours: How to colour them; by default by their own components.
        valid: (H, W).
        title: Above the panel.
    """
    chosen = FeatureColours.fit(features, valid) if colours is None else colours
    show_rgb(ax, chosen(features), valid, title=title)
    ax.images[-1].set_interpolation("nearest")
    return ax


def _pixels(features: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 3:
        raise FloraError(f"features of shape {values.shape}: expected (channels, rows, columns)")
    return values.reshape(len(values), -1).T
