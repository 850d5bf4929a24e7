"""A small real scene that comes with the package."""

from __future__ import annotations

from pathlib import Path

from flora.datasets.sample import RADAR

ATTRIBUTION = (
    "Contains modified Copernicus Sentinel data 2021. Scene: TerraMesh (IBM), CC BY-SA 4.0"
)


def example_scene() -> Path:
    """The file of a real Sentinel-1 scene: 224 x 224 pixels at the Bay of Paranaguá, Brazil.

    Terrain-corrected gamma0, VV and VH in dB, of 21 July 2021; from TerraMesh, CC BY-SA 4.0, see
    LICENCE.md beside it. There is no flood on it: the water is sea and creeks, and much of what
    is as dark is sand, as the optical image of `open_dataset("sample")` shows.

    Example:
        >>> import numpy as np
        >>> import rasterio
        >>> from flora.scenes.example import example_scene
        >>> with rasterio.open(example_scene()) as file:
        ...     file.shape, file.descriptions, int(np.median(file.read(2)) * file.scales[1])
        ((224, 224), ('VV', 'VH'), -20)
    """
    return RADAR
