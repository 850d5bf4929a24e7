"""A Sentinel-1 scene of any size to maps on its own grid, tile by tile in constant memory.

The model is any callable (`Predictor`). Tiles overlap and are blended with weights that fall
smoothly to their edges; sums are kept for one row of tiles only, and rows that no further tile
can reach are written at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor

from flora.errors import FloraError
from flora.scene_inputs import BeforeScene, OpticalInput, SarScene, Units, open_before, open_raster
from flora.scene_outputs import (
    SceneOutputs,
    SceneWriter,
    cell_areas_km2,
    check_targets,
    draw_quicklook,
    publish,
    temporary_folder,
)
from flora.sensors import (
    IGNORE,
    SENTINEL1,
    SENTINEL2_RGB,
    BoolArray,
    FloatArray,
    OpticalScaling,
    SarScaling,
)

PAD_MULTIPLE = 32  # px: scenes smaller than a tile are padded to a multiple of it

Progress = Callable[[int, int], None]


class Predictor(Protocol):
    """A model as `map_scene` sees it."""

    def __call__(self, sar: Tensor, before: OpticalInput | None, /) -> tuple[Tensor | None, Tensor]:
        """Predict a batch of tiles; the model moves its input to its own device.

        Args:
            sar: (B, C, h, w) float32, normalised, 0 in nodata.
            before: The optical image from before the flood on these pixels, if one was given.

        Returns:
            The reconstructed image (B, 3, h, w) in [0, 1], or None, and the probability of water
            (B, 1, h, w) in [0, 1].
        """
        ...


class Tiling(NamedTuple):
    """How a scene is cut.

    Attributes:
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share, at most half a tile.
        batch: Tiles predicted at once.
    """

    tile: int = 512
    overlap: int = 64
    batch: int = 4


class PredictedRows(NamedTuple):
    """Finished rows of a scene, from `row` on.

    Attributes:
        row: First row.
        probability: (h, W) in [0, 1].
        rgb: (3, h, W) in [0, 1], or None.
        valid: (h, W); elsewhere the values mean nothing.
    """

    row: int
    probability: FloatArray
    rgb: FloatArray | None
    valid: BoolArray


def map_scene(
    sar_path: str | Path,
    output_folder: str | Path,
    predict: Predictor,
    *,
    sar_scaling: SarScaling = SENTINEL1,
    optical_scaling: OpticalScaling = SENTINEL2_RGB,
    before_path: str | Path | None = None,
    tile: int = 512,
    overlap: int = 64,
    batch: int = 4,
    threshold: float = 0.5,
    units: Units = "db",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SceneOutputs:
    """Map the water of a scene, and reconstruct its optical image, on the scene's own grid.

    Writes `STEM_water_probability.tif`, `STEM_water_mask.tif`, `STEM_rgb.tif` (if the model makes
    an image) and `STEM_quicklook.png`, where STEM is the scene's file name without its ending.
    They appear together at the end: after a failure or an interruption there is none of them.

    Args:
        sar_path: GeoTIFF with the bands of `sar_scaling` (VV, VH).
        output_folder: Where the results go; made if need be.
        predict: The model.
        sar_scaling: Sensor the model was trained on.
        optical_scaling: Scaling of the image from before the flood.
        before_path: Sentinel-2 image from before the flood: 13 bands (Level-1C) or B4, B3, B2,
            B8, reflectance x 10000, on any grid that has a CRS.
        tile: Side of a tile in pixels.
        overlap: Pixels over which neighbouring tiles are blended, at most half a tile.
        batch: Tiles predicted at once.
        threshold: Probability from which a pixel is water.
        units: "db", or "linear" if the scene holds sigma0 as power.
        overwrite: Replace existing results.
        progress: Called with the number of tiles done and of all tiles.

    Raises:
        FloraError: If an input is refused (see `SarScene`, `open_before`), an option is out of
            range, results exist already, the disk refuses, or `predict` returns anything but
            finite probabilities of the right shape.
    """
    tiling = Tiling(tile, overlap, batch)
    _check_options(tiling, threshold, units)
    folder, stem = Path(output_folder), Path(sar_path).stem
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # SarScene says the same in words that name the consequence.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = stack.enter_context(open_raster(Path(sar_path), "sar_path"))
        scene = SarScene(dataset, sar_scaling, units)
        before = None
        if before_path is not None:
            before = stack.enter_context(open_before(Path(before_path), scene, optical_scaling))
        targets = check_targets(folder, stem, overwrite)
        temporary = stack.enter_context(temporary_folder(folder))
        tags = {"FLORA_SCENE": stem, "FLORA_WATER_THRESHOLD": f"{threshold:g}"}
        writer = stack.enter_context(SceneWriter(temporary, scene, tags))

        areas = cell_areas_km2(scene.crs, scene.transform, scene.shape)
        pixels, km2 = np.zeros(2, dtype=np.int64), np.zeros(2)  # of water, of all that is valid
        for rows in predict_rows(scene, predict, tiling, before, progress):
            water = (rows.probability >= threshold) & rows.valid
            counts = np.stack([water.sum(axis=1), rows.valid.sum(axis=1)])
            pixels += counts.sum(axis=1)
            if areas is not None:
                km2 += counts @ areas[rows.row : rows.row + len(water)]
            _write_rows(writer, rows, water)

        maps = writer.finish()
        quicklook = temporary / "quicklook.png"
        area = f"{km2[0]:,.2f} km²" if areas is not None else f"{pixels[0]:,} px"
        draw_quicklook(maps, scene, quicklook, f"{stem}: {area} of water")
        publish(maps | {"quicklook": quicklook}, targets)
    return SceneOutputs(
        water_probability=targets["water_probability"],
        water_mask=targets["water_mask"],
        rgb=targets["rgb"] if "rgb" in maps else None,
        quicklook=targets["quicklook"],
        water_pixels=int(pixels[0]),
        valid_pixels=int(pixels[1]),
        water_km2=None if areas is None else float(km2[0]),
        valid_km2=None if areas is None else float(km2[1]),
    )


def predict_rows(
    scene: SarScene,
    predict: Predictor,
    tiling: Tiling,
    before: BeforeScene | None = None,
    progress: Progress | None = None,
) -> Iterator[PredictedRows]:
    """Predict a scene from top to bottom, holding one row of tiles in memory.

    Tiles without a valid pixel are not predicted.

    Raises:
        FloraError: If `predict` returns anything but finite probabilities of the right shape.
    """
    height, width = min(tiling.tile, scene.shape[0]), min(tiling.tile, scene.shape[1])
    row_starts = tile_starts(scene.shape[0], tiling.tile, tiling.overlap)
    column_starts = tile_starts(scene.shape[1], tiling.tile, tiling.overlap)
    weight = np.outer(
        taper(height, tiling.overlap if len(row_starts) > 1 else 0),
        taper(width, tiling.overlap if len(column_starts) > 1 else 0),
    ).astype(np.float32)
    weights = np.zeros((height, scene.shape[1]), dtype=np.float32)
    sums: FloatArray | None = None
    done, total = 0, len(row_starts) * len(column_starts)

    for row, next_row in zip(row_starts, [*row_starts[1:], scene.shape[0]], strict=True):
        sar, valid = scene.read(row, height)
        optical = None if before is None else before.read(row, height)
        for first in range(0, len(column_starts), tiling.batch):
            group = column_starts[first : first + tiling.batch]
            done += len(group)
            columns = [slice(c, c + width) for c in group if valid[:, c : c + width].any()]
            if columns:
                tiles = [scene.scaling.normalise(sar[..., c], valid[:, c]) for c in columns]
                guides = None
                if before is not None and optical is not None:
                    guides = _optical_input(before, [optical[..., c] for c in columns], tiling.tile)
                answers = _predict(predict, _padded(tiles, tiling.tile), guides)
                if sums is None:
                    sums = np.zeros((answers.shape[1], *weights.shape), dtype=np.float32)
                if answers.shape[1] != len(sums):
                    raise FloraError("predict gave an rgb image for some tiles only")
                for answer, c in zip(answers, columns, strict=True):
                    sums[..., c] += weight * answer[:, :height, :width]
                    weights[:, c] += weight
            if progress is not None:
                progress(done, total)

        ready = next_row - row
        yield _finished(row, ready, sums, weights, valid)
        for kept in (weights, *(() if sums is None else sums)):
            kept[: height - ready] = kept[ready:].copy()
            kept[height - ready :] = 0


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover `length`; the last tile ends where the scene does."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def taper(length: int, overlap: int) -> FloatArray:
    """Weights (length,) in (0, 1] that rise over `overlap` pixels at both ends.

    A raised cosine, sin^2(pi/2 (i + 1/2) / overlap): the weights of two tiles that overlap by
    this much sum to 1.
    """
    rise = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    weights = np.ones(length)
    weights[:overlap] = rise
    weights[length - overlap :] = rise[::-1]
    return weights.astype(np.float32)


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


def _padded(tiles: list[Any], tile: int) -> Tensor:
    """Stack (..., h, w) arrays, those smaller than a tile continued by reflection."""
    stacked = np.stack(tiles)
    sides = [min(tile, -(-side // PAD_MULTIPLE) * PAD_MULTIPLE) for side in stacked.shape[-2:]]
    missing = [(0, to - side) for to, side in zip(sides, stacked.shape[-2:], strict=True)]
    around = [(0, 0)] * (stacked.ndim - 2) + missing
    return torch.from_numpy(np.pad(stacked, around, mode="symmetric"))


def _optical_input(before: BeforeScene, stored: list[NDArray[Any]], tile: int) -> OpticalInput:
    optical, index, valid = zip(*(before.scale(part) for part in stored), strict=True)
    return OpticalInput(*(_padded(list(part), tile) for part in (optical, index, valid)))


def _predict(predict: Predictor, sar: Tensor, before: OpticalInput | None) -> FloatArray:
    """Predictions (B, 1 or 4, h, w): the probability, then the image if there is one."""
    with torch.no_grad():
        rgb, probability = predict(sar, before)
    batch, _, height, width = sar.shape
    layers = [(probability, 1, "water probability")] + [(rgb, 3, "rgb")] * (rgb is not None)
    arrays = []
    for layer, channels, name in layers:
        expected = (batch, channels, height, width)
        if layer is None or tuple(layer.shape) != expected:
            shape = None if layer is None else tuple(layer.shape)
            raise FloraError(f"predict gave {name} of shape {shape}: expected {expected}")
        array = layer.float().cpu().numpy()
        if not (np.isfinite(array).all() and array.min() >= -1e-3 and array.max() <= 1 + 1e-3):
            raise FloraError(
                f"predict gave {name} from {array.min():.4g} to {array.max():.4g}: expected finite "
                "values in [0, 1]; check the weights, and that logits went through a sigmoid"
            )
        arrays.append(array)
    return np.concatenate(arrays, axis=1)


def _finished(
    row: int, ready: int, sums: FloatArray | None, weights: FloatArray, valid: BoolArray
) -> PredictedRows:
    valid = valid[:ready]
    if sums is None:  # nothing but nodata so far
        return PredictedRows(row, np.zeros(valid.shape, dtype=np.float32), None, valid)
    reached = np.where(valid, weights[:ready], np.float32(1))
    mean: FloatArray = np.clip(sums[:, :ready] / reached, 0, 1)
    return PredictedRows(row, mean[0], mean[1:] if len(mean) > 1 else None, valid)


def _write_rows(writer: SceneWriter, rows: PredictedRows, water: BoolArray) -> None:
    seen = rows.valid
    writer.write(
        "water_probability", rows.row, np.where(seen, rows.probability, np.float32("nan"))[None]
    )
    writer.write("water_mask", rows.row, np.where(seen, water, IGNORE).astype(np.uint8)[None])
    if rows.rgb is not None:
        colour = np.where(seen, np.rint(255 * rows.rgb), 0)
        alpha = np.where(seen, 255, 0)
        writer.write("rgb", rows.row, np.concatenate([colour, alpha[None]]).astype(np.uint8))
