"""Maps that an earlier run has finished."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from flora.errors import FloraError, FloraWarning

if TYPE_CHECKING:
    from flora.scenes.inputs import SarScene
    from flora.scenes.outputs import SceneOutputs

# What maps depend on besides scene, part and threshold, by their tags.
MADE_BY = {
    "FLORA_METHOD": "another method",
    "FLORA_WEIGHTS_SHA256": "other weights",
    "FLORA_BEFORE": "another image from before the flood",
    "FLORA_SAR_BEFORE": "other radar scenes from before the flood",
}
OpenScene = Callable[[], "AbstractContextManager[SarScene]"]


def finished_maps(
    folder: Path,
    stem: str,
    opened: OpenScene,
    threshold: float,
    made_by: Mapping[str, str],
    align: bool = True,
) -> SceneOutputs | None:
    """The maps that an earlier run wrote of a scene; None where they are not all there.

    Maps that Python wrote may not say what made them: a warning says that this was not checked.

    Args:
        folder: Where they are.
        stem: Name of the scene.
        opened: Opens what is to be mapped.
        threshold: Of the water mask that is asked for.
        made_by: Tags that these maps would get, some of `MADE_BY`; a tag that is left out must
            not be there.
        align: Whether the image from before the flood would be moved back by a trusted offset.

    Raises:
        FloraError: If they are of another part, grid or threshold, or something else made them,
            or the same things read in another way.
    """
    from flora.grid import Grid, open_raster
    from flora.maps.floods import water_strips
    from flora.scenes.names import PIXELS_TAG
    from flora.scenes.outputs import SceneOutputs, check_targets
    from flora.sensors import IGNORE, WATER

    targets = check_targets(folder, stem, overwrite=True)
    if not all(targets[name].is_file() for name in ("water_probability", "water_mask")):
        return None
    wrong = f"--reuse: {targets['water_mask']} was made"
    with open_raster(targets["water_mask"], "reuse") as mask:
        _check_made_by(mask.tags(), made_by, wrong)  # first: the threshold may follow from it
        used = float(mask.tags().get("FLORA_WATER_THRESHOLD", "nan"))
        if f"{used:g}" != f"{threshold:g}":
            raise FloraError(
                f"{wrong} with --threshold {used:g}, expected {threshold:g}; pass that threshold, "
                "or --overwrite without --reuse"
            )
        _check_aligned(mask.tags(), align, wrong)
        with opened() as scene:
            if not Grid.of(mask).same_as(scene.grid):
                raise FloraError(
                    f"{wrong} of another part or on another grid than is asked for; pass the same "
                    "options, or --overwrite without --reuse"
                )
            _check_read(mask.tags(), scene.tags, wrong)
            if mask.tags().get(PIXELS_TAG, scene.pixels) != scene.pixels:
                raise FloraError(
                    f"{wrong} of another scene of this name: its pixels are others; pass another "
                    "--out, or --overwrite without --reuse"
                )
        areas = Grid.of(mask).cell_areas()
        pixels, km2 = [0, 0], [0.0, 0.0]
        for row, codes in water_strips(mask):
            for number, chosen in enumerate((codes == WATER, codes != IGNORE)):
                pixels[number] += int(chosen.sum())
                km2[number] += 0.0 if areas is None else areas.sum(row, chosen)
    return SceneOutputs(
        water_probability=targets["water_probability"],
        water_mask=targets["water_mask"],
        rgb=targets["rgb"] if targets["rgb"].is_file() else None,
        quicklook=targets["quicklook"] if targets["quicklook"].is_file() else None,
        water_pixels=pixels[0],
        valid_pixels=pixels[1],
        water_km2=None if areas is None else km2[0],
        valid_km2=None if areas is None else km2[1],
    )


def _check_read(made: Mapping[str, str], asked: Mapping[str, str], wrong: str) -> None:
    """Refuse maps of the same files read in another way."""
    from flora.scenes.names import SIGMA0_TAG
    from flora.scenes.safe.correction import TERRAIN_TAG
    from flora.scenes.safe.product import NOISE_TAG

    for tag, what, how, plain, options in (
        (TERRAIN_TAG, "terrain", "corrected by ", "as it is", "--dem, --geoid or --uncorrected"),
        (SIGMA0_TAG, "backscatter", "read as sigma0 from ", "as it is", "--incidence"),
        (NOISE_TAG, "thermal noise", "", "subtracted", "--keep-noise"),
    ):
        then, now = (how + said[tag] if tag in said else plain for said in (made, asked))
        if then != now:
            raise FloraError(
                f"{wrong} with its {what} {then}, expected {now}; pass the same {options}, or "
                "--overwrite without --reuse"
            )


def _check_aligned(tags: Mapping[str, str], align: bool, wrong: str) -> None:
    """Refuse maps whose image from before the flood lay elsewhere than it would now.

    Maps that do not say how it lay are taken.
    """
    from flora.scenes.align import Offset
    from flora.scenes.before import ALIGNED_TAG, OFFSET_TAGS

    if OFFSET_TAGS[0] not in tags:
        return
    rows, columns, confidence = (float(tags[tag]) for tag in OFFSET_TAGS)
    moved = align and Offset(int(rows), int(columns), confidence).trusted
    if moved != (tags[ALIGNED_TAG] == "yes"):
        then, now = ("left as it is", "moved back") if moved else ("moved back", "left as it is")
        option = "--no-align" if moved else "--align"
        raise FloraError(
            f"{wrong} with the image from before the flood {then}, expected {now}; pass {option}, "
            "or --overwrite without --reuse"
        )


def _check_made_by(tags: Mapping[str, str], made_by: Mapping[str, str], wrong: str) -> None:
    if "FLORA_METHOD" not in tags:
        said = FloraWarning(f"{wrong} by something that it does not name: it is taken as it is")
        warnings.warn(said, stacklevel=3)
        return
    for tag, what in MADE_BY.items():
        then, now = tags.get(tag), made_by.get(tag)
        if then != now:
            # Checksums say nothing to a person.
            named = "" if tag.endswith("SHA256") else f" ({then or 'none'}, now {now or 'none'})"
            raise FloraError(
                f"{wrong} with {what} than is asked for{named}; pass the same options, or "
                "--overwrite without --reuse"
            )
