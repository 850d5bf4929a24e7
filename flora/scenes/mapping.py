"""A Sentinel-1 scene of any size to maps on its own grid, one row of tiles in memory at a time.

Memory grows with the width of a scene, and hardly with its length (results/scenes.json and
scenes_full.json). The model is any callable (`Predictor`). One thread reads the next row of tiles,
the caller's computes, another one writes. Finished rows are kept on disk, so that an interrupted
run goes on.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from flora import __version__
from flora.errors import FloraError
from flora.files import publish
from flora.scenes.inputs import BeforeScene, SarScene, Units, open_before, open_scene
from flora.scenes.outputs import (
    SceneOutputs,
    cell_areas_km2,
    check_targets,
    draw_quicklook,
    layers_of,
)
from flora.scenes.tiles import PredictedRows, Progress, Tiling, predict_rows
from flora.scenes.tiles import Predictor as Predictor
from flora.scenes.work import Work, file_identities, open_work
from flora.sensors import SENTINEL1, SENTINEL2_RGB, OpticalScaling, SarScaling

# Bytes of decoded blocks that GDAL keeps. It is 5 % of the memory unless said otherwise, and a
# scene that is read once from top to bottom would fill it.
BLOCK_CACHE = 128_000_000


def map_scene(
    sar_path: str | Path | Sequence[str | Path],
    output_folder: str | Path,
    predict: Predictor,
    *,
    sar_scaling: SarScaling = SENTINEL1,
    optical_scaling: OpticalScaling = SENTINEL2_RGB,
    before_path: str | Path | None = None,
    units: Units = "db",
    window: tuple[int, int, int, int] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    grid: str | None = None,
    remove_noise: bool = True,
    tile: int = 512,
    overlap: int | None = None,
    batch: int = 4,
    threshold: float = 0.5,
    overwrite: bool = False,
    model_id: str | None = None,
    accepted: Callable[[SarScene], None] | None = None,
    progress: Progress | None = None,
) -> SceneOutputs:
    """Map the water of a scene, and reconstruct its optical image, on the scene's own grid.

    Writes `STEM_water_probability.tif`, `STEM_water_mask.tif`, `STEM_rgb.tif` (if the model makes
    an image) and `STEM_quicklook.png`, where STEM is the scene's file name without its ending.
    They appear together at the end. After a failure there is none of them; after an interruption
    (Ctrl-C, a kill, a power cut) of a run with a `model_id`, finished rows wait in
    `output_folder`/.flora-STEM-... for the same call, which goes on from them and gives what the
    uninterrupted run would have given. The next run of this scene that ends well removes that
    folder; deleting it by hand loses nothing but these rows.

    Tiles begin at the upper left corner of what is mapped. A window of a scene is therefore cut
    otherwise than the scene itself, and a `SceneNormalised` model takes its statistics from the
    window alone: both may move probabilities a little. Where that matters, map the scene and cut
    the window out of the maps.

    Args:
        sar_path: GeoTIFF with the bands of `sar_scaling` (VV, VH), or what else `open_scene`
            takes; of several files, the first names the results.
        output_folder: Where the results go; made if need be. Until the run ends it holds the rows
            too, and needs about twice the room of the results.
        predict: The model. One that normalises over a tile (`nn.GroupNorm`) shows the tiles; wrap
            it in `flora.scenes.norm.SceneNormalised`.
        sar_scaling: Sensor the model was trained on.
        optical_scaling: Scaling of the image from before the flood.
        before_path: Sentinel-2 image from before the flood: 13 bands (Level-1C) or B4, B3, B2,
            B8, reflectance x 10000, on any grid that has a CRS.
        units: "db", or "linear" if the scene holds sigma0 as power.
        window: Part to map, in pixels: (column, row, width, height).
        bbox: Part to map, in degrees (EPSG:4326): (west, south, east, north).
        grid: Grid to map on: None is the scene's own, "utm" that of its UTM zone.
        remove_noise: Subtract the thermal noise of a GRD product; see `open_scene`.
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share, at most half a tile, blended over the
            middle half of them; None is a quarter of a tile. Tiles show least where
            `tile - overlap` is a multiple of 64 (see `flora.scenes.tiles.ALIGNMENT`).
        batch: Tiles predicted at once.
        threshold: Probability from which a pixel is water.
        overwrite: Replace existing results.
        model_id: A text that differs where the model does, such as the checksum of its weights.
            Without it, no run goes on from an interrupted one.
        accepted: Called with the scene when all inputs have been accepted, before the first tile.
        progress: Called with the number of tiles done and of all tiles; the first call of a run
            that goes on from another says how many were done already.

    Raises:
        FloraError: If an input is refused (see `open_scene`, `open_before`), an option is out of
            range, results exist already, the disk refuses, a source vanishes, or `predict`
            returns anything but finite probabilities of the right shape.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from flora import load_model, map_scene, scene_predictor
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = scene_predictor(load_model(), torch.device("cpu"))
        >>> outputs = map_scene(sar, "flood", predict)
        >>> outputs.water_mask.name, outputs.valid_pixels
        ('Simulated_7_S1Hand_water_mask.tif', 4096)
    """
    tiling = Tiling(tile, tile // 4 if overlap is None else overlap, batch)
    _check_options(tiling, threshold, units)
    sar_paths = [
        Path(path) for path in ([sar_path] if isinstance(sar_path, str | Path) else sar_path)
    ]
    before_paths = [] if before_path is None else [Path(before_path)]
    folder, stem = Path(output_folder), sar_paths[0].stem
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE))
        stack.enter_context(warnings.catch_warnings())
        # SarScene says the same in words that name the consequence.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        scene = stack.enter_context(
            open_scene(
                sar_paths,
                scaling=sar_scaling,
                units=units,
                window=window,
                bbox=bbox,
                grid=grid,
                remove_noise=remove_noise,
            )
        )
        before = None
        if before_paths:
            before = stack.enter_context(open_before(before_paths[0], scene, optical_scaling))
        targets = check_targets(folder, stem, overwrite)
        job = None
        if model_id is not None:
            job = {
                "versions": [1, __version__],
                "files": file_identities([*sar_paths, *before_paths]),
                "scene": [*scene.shape, *scene.transform, str(scene.crs)],
                "pixels": hashlib.sha256(scene.sample.tobytes()).hexdigest(),
                "scalings": [asdict(sar_scaling), asdict(optical_scaling)],
                "options": [units, window, bbox, grid, *tiling, threshold, bool(before_paths)],
                "remove_noise": remove_noise,
                "model": model_id,
            }
        work = stack.enter_context(open_work(folder, stem, job))
        if accepted is not None:
            accepted(scene)
        areas = cell_areas_km2(scene.crs, scene.transform, scene.shape)
        _map_rows(work, scene, predict, tiling, before, threshold, areas, progress)

        tags = {"FLORA_SCENE": stem, "FLORA_WATER_THRESHOLD": f"{threshold:g}"}
        maps = work.finish(scene, tags)
        water = f"{work.total('water_pixels'):,} px"
        if areas is not None:
            water = f"{work.total('water_km2'):,.2f} km²"
        quicklook = work.path / "quicklook.png"
        draw_quicklook(maps, scene, quicklook, f"{stem}: {water} of water")
        publish(maps | {"quicklook": quicklook}, targets, work.path / "replaced")
    return SceneOutputs(
        water_probability=targets["water_probability"],
        water_mask=targets["water_mask"],
        rgb=targets["rgb"] if "rgb" in maps else None,
        quicklook=targets["quicklook"],
        water_pixels=int(work.total("water_pixels")),
        valid_pixels=int(work.total("valid_pixels")),
        water_km2=None if areas is None else work.total("water_km2"),
        valid_km2=None if areas is None else work.total("valid_km2"),
    )


def _map_rows(
    work: Work,
    scene: SarScene,
    predict: Predictor,
    tiling: Tiling,
    before: BeforeScene | None,
    threshold: float,
    areas: NDArray[Any] | None,
    progress: Progress | None,
) -> None:
    """Predict what is not finished yet; a thread writes one row of tiles as the next is made."""
    with ExitStack() as stack:
        writer = stack.enter_context(ThreadPoolExecutor(1, "flora-write"))
        finished = predict_rows(scene, predict, tiling, before, progress, len(work.bands))
        written: Future[None] | None = None
        for rows in stack.enter_context(closing(finished)):
            if written is not None:
                written.result()
            written = writer.submit(_write_rows, work, rows, threshold, areas)
        if written is not None:
            written.result()


def _write_rows(
    work: Work, rows: PredictedRows, threshold: float, areas: NDArray[Any] | None
) -> None:
    water = (rows.probability >= threshold) & rows.valid
    counts = np.stack([water.sum(axis=1), rows.valid.sum(axis=1)])
    totals: dict[str, float] = dict(
        zip(("water_pixels", "valid_pixels"), counts.sum(axis=1).tolist(), strict=True)
    )
    if areas is not None:
        km2 = counts @ areas[rows.row : rows.row + len(water)]
        totals |= zip(("water_km2", "valid_km2"), km2.tolist(), strict=True)
    layers = layers_of(rows.probability, water, rows.rgb, rows.valid)
    work.add(rows.row, layers, totals)


def _check_options(tiling: Tiling, threshold: float, units: str) -> None:
    if tiling.tile < 1 or tiling.batch < 1:
        raise FloraError(f"tile {tiling.tile}, batch {tiling.batch}: expected 1 or more of both")
    if not 0 <= tiling.overlap <= tiling.tile // 2:
        raise FloraError(
            f"overlap {tiling.overlap}: expected 0 to half of tile {tiling.tile} px, "
            f"{tiling.tile // 2}"
        )
    if not 0 < threshold < 1:
        raise FloraError(f"threshold {threshold}: expected a probability between 0 and 1")
    if units not in ("db", "linear"):
        raise FloraError(f'units {units!r}: expected "db" or "linear"')
