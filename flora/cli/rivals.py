"""How `flora map` compares its map with that of another method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flora.cli.spelling import area_words

if TYPE_CHECKING:
    from flora.cli.finished import OpenScene
    from flora.maps.differences import MapDifferences
    from flora.scenes.tiles import Tiling


def write_against_otsu(
    water_mask: Path, target: Path, opened: OpenScene, tiling: Tiling, overwrite: bool
) -> MapDifferences:
    """Map a scene by Otsu's method, from its last date, and write where the map differs.

    Raises:
        FloraError: See `flora.maps.differences.write_differences`.
    """
    from flora.maps.differences import write_differences
    from flora.scenes.dates import DatedScene
    from flora.scenes.thresholds import SceneOtsu

    with opened() as scene:
        shown = scene.after if isinstance(scene, DatedScene) else scene
        rival = SceneOtsu().of(shown)
        return write_differences(
            water_mask, shown, rival, target, tiling=tiling, overwrite=overwrite
        )


def differences_said(found: MapDifferences) -> str:
    """What the terminal says of two maps."""
    from flora.maps.differences import BOTH, MAP_ALONE, RIVAL_ALONE

    both, ours, theirs = (
        area_words(found.pixels[code], found.km2.get(code))
        for code in (BOTH, MAP_ALONE, RIVAL_ALONE)
    )
    share = found.agreement
    agreed = "" if share is None else f"; IoU of the two {share:.2f}"
    alone = f"in this map alone {ours}, by Otsu alone {theirs}"
    return f"Against Otsu: water in both {both}, {alone}{agreed}"
