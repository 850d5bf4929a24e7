"""A Sentinel-1 scene of any size to maps on its own grid, one row of tiles in memory at a time.

Memory grows with the width of a scene, and hardly with its length (results/scenes.json and
scenes_full.json). The model is any callable (`Predictor`). One thread reads the next row of tiles,
the caller's computes, another one writes. Finished rows are kept on disk, so that an interrupted
run goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from flora import __version__
from flora.areas import CellAreas
from flora.errors import FloraError, Given
from flora.predictors import Predictor, threshold_of, trained_on
from flora.scenes.inputs import BeforeScene, SarScene
from flora.scenes.outputs import (
    SceneOutputs,
    check_targets,
    draw_quicklook,
    layers_of,
)
from flora.scenes.rows import PredictedRows, TilesDone, predict_rows
from flora.scenes.thresholds import SceneThresholds
from flora.scenes.tiles import Tiling
from flora.scenes.work import Work, open_work, settle

# Bytes of decoded blocks that GDAL keeps. It is 5 % of the memory unless said otherwise, and a
# scene that is read once from top to bottom would fill it.
BLOCK_CACHE = 128_000_000


def map_scene(
    scene: SarScene,
    out: str | Path,
    model: Predictor,
    *,
    before: BeforeScene | None = None,
    tiling: Tiling = Tiling(),
    threshold: float | None = None,
    overwrite: bool = False,
    model_id: str | dict[str, str] | None = None,
    progress: TilesDone | None = None,
) -> SceneOutputs:
    """Map the water of a scene, and reconstruct its optical image, on the scene's own grid.

    Writes `STEM_water_probability.tif`, `STEM_water_mask.tif`, `STEM_rgb.tif` (if the model makes
    an image) and `STEM_quicklook.png`, where STEM is the scene's file name without its ending.
    They appear together at the end. After a failure there is none of them; after an interruption
    (Ctrl-C, a kill, a power cut) of a run with a `model_id`, finished rows wait in
    `out`/.flora-STEM-... for the same call, which goes on from them and gives what the
    uninterrupted run would have given. The next run of this scene that ends well removes that
    folder; deleting it by hand loses nothing but these rows.

    The network's answer at a pixel depends on its neighbourhood only, so no statistics of the
    scene are needed, and tiles do not show. Tiles begin at multiples of 64 px from the origin of
    the scene's grid. A part of a scene differs from the same part of the whole map only near its
    edges, beyond which it is mirrored.

    Args:
        scene: The scene, opened by `flora.open_scene`; its first file names the results.
        out: Folder of the results; made if need be. Until the run ends it holds the rows too, and
            needs about twice the room of the results.
        model: The model, see `flora.predictors.Predictor`.
        before: An image from before the flood, opened by `flora.open_before` on this scene.
        tiling: How the scene is cut; the maps depend on it by rounding alone if the model is
            local and the overlap wide enough.
        threshold: Probability from which a pixel is water. By default the one that the weights
            bring for maps from radar of one date alone; with an image from before the flood, and
            for a model that brings none, 0.5: see `flora.predictors.threshold_of`.
        overwrite: Replace existing results.
        model_id: A text that differs where the model does, such as the checksum of its weights;
            or several by name, which the maps then keep as tags (`weights` as FLORA_WEIGHTS).
            Without it, no run goes on from an interrupted one.
        progress: Called with the number of tiles done and of all tiles; the first call of a run
            that goes on from another says how many were done already.

    Raises:
        FloraError: If the threshold is out of range, results exist already, the disk refuses, a
            source vanishes, or `model` returns anything but finite probabilities of the right
            shape.

    Example:
        >>> from pathlib import Path
        >>> from flora import load_model, map_scene, open_scene, predictor
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> model = predictor(load_model())
        >>> with open_scene(sar) as scene:
        ...     outputs = map_scene(scene, "flood", model)
        >>> outputs.water_mask.name, outputs.valid_pixels
        ('Simulated_7_S1Hand_water_mask.tif', 4096)
    """
    if threshold is None:
        threshold = threshold_of(model, "sar" if before is None else "before")
    if not 0 < threshold < 1:
        raise FloraError(
            "expected a probability between 0 and 1", argument="threshold", value=threshold
        )
    folder = Path(out)
    settle(folder, scene.stem)
    inputs = [Given("sar_path", path) for path in scene.paths]
    targets = check_targets(folder, scene.stem, overwrite, inputs)
    job = None
    if model_id is not None:
        job = {
            "versions": [5, __version__],
            "scene": scene.identity(),
            "before": before and before.identity(),
            "options": [tiling.tile, tiling.shared, tiling.batch, threshold],
            "model": model_id,
        }
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE))
        stack.enter_context(warnings.catch_warnings())
        # SarScene warns of the same, and names the consequence.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        work = stack.enter_context(open_work(folder, scene.stem, job))
        check_targets(folder, scene.stem, overwrite)  # another process may have ended meanwhile
        areas = scene.grid.cell_areas()
        rows = predict_rows(scene, model, tiling, before, progress, len(work.bands))
        _write_all(work, stack.enter_context(closing(rows)), threshold, areas)

        tags = {"FLORA_SCENE": scene.stem, "FLORA_WATER_THRESHOLD": f"{threshold:g}"}
        tags |= _tags_of(model, model_id) | scene.tags
        if before is not None:
            tags |= before.tags
        maps = work.finish(scene, tags)
        title = f"{scene.stem}: {_water_in_words(work, areas)}"
        maps |= draw_quicklook(maps, scene, work.path / "quicklook.png", title)
        work.publish(maps, targets)
    return SceneOutputs(
        water_probability=targets["water_probability"],
        water_mask=targets["water_mask"],
        rgb=targets["rgb"] if "rgb" in maps else None,
        quicklook=targets["quicklook"] if "quicklook" in maps else None,
        water_pixels=int(work.total("water_pixels")),
        valid_pixels=int(work.total("valid_pixels")),
        water_km2=None if areas is None else work.total("water_km2"),
        valid_km2=None if areas is None else work.total("valid_km2"),
    )


def _water_in_words(work: Work, areas: CellAreas | None) -> str:
    if areas is None:
        return f"{work.total('water_pixels'):,} px of water"
    return f"{work.total('water_km2'):,.2f} km² of water"


def _tags_of(model: Predictor, model_id: str | dict[str, str] | None) -> dict[str, str]:
    """What the maps keep of what made them."""
    tags = {"FLORA_VERSION": __version__}
    if known := trained_on(model):
        tags["FLORA_TRAINED_ON"] = known
    if isinstance(model_id, dict):
        tags |= {f"FLORA_{name.upper()}": said for name, said in model_id.items()}
    return tags | (model.tags if isinstance(model, SceneThresholds) else {})


def _write_all(
    work: Work,
    finished: Iterable[PredictedRows],
    threshold: float,
    areas: CellAreas | None,
) -> None:
    """Write rows as they come; a thread writes one row of tiles as the next is made."""
    with ThreadPoolExecutor(1, "flora-write") as writer:
        written: Future[None] | None = None
        for rows in finished:
            if written is not None:
                written.result()
            written = writer.submit(_write_rows, work, rows, threshold, areas)
        if written is not None:
            written.result()


def _write_rows(work: Work, rows: PredictedRows, threshold: float, areas: CellAreas | None) -> None:
    water = (rows.probability >= threshold) & rows.valid
    totals: dict[str, float] = {}
    for name, chosen in (("water", water), ("valid", rows.valid)):
        totals[f"{name}_pixels"] = int(chosen.sum())
        if areas is not None:
            totals[f"{name}_km2"] = areas.sum(rows.row, chosen)
    layers = layers_of(rows.probability, water, rows.rgb, rows.valid)
    work.add(rows.row, len(rows.valid), layers, totals)
