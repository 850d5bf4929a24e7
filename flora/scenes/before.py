"""The optical image from before a flood, on the grid of the radar scene it guides."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from rasterio.enums import Resampling
from rasterio.windows import Window

from flora.antimeridian import seamless, view_on
from flora.errors import FloraError, FloraWarning, Given
from flora.grid import Grid, Part, apply, check_georeference, open_raster, read_bands
from flora.scenes.align import Offset, Rows, scene_offset
from flora.scenes.bands import file_identities
from flora.scenes.optical import (
    CLOUDY,
    OpticalSource,
    bands_raster,
    find_optical,
    is_cloud,
)
from flora.sensors import (
    COLOUR_BANDS,
    SENTINEL2_RGB,
    BoolArray,
    FloatArray,
    OpticalScaling,
    normalised_difference,
)

MOST_COUNTS = 255.0  # 99 % of per cent and of 8-bit counts are no larger, of land they are
MOST_REFLECTANCE = 15_000.0  # of the brightest band, at half of the pixels: cloud is below it
DARK = 1000.0  # reflectance x 10000: 99 % of an image with land are not below it


OFFSET_TAGS = tuple(f"FLORA_BEFORE_OFFSET_{name}" for name in ("ROWS", "COLUMNS", "CONFIDENCE"))
ALIGNED_TAG = "FLORA_BEFORE_ALIGNED"


class Alignment(NamedTuple):
    """How an image lies on a radar scene.

    Attributes:
        offset: The strongest offset of their edges, or None where too little was seen.
        applied: Whether the image is read moved back by it.
    """

    offset: Offset | None = None
    applied: bool = False

    @property
    def tags(self) -> dict[str, str]:
        """What the maps keep of it."""
        if self.offset is None:
            return {ALIGNED_TAG: "no"}
        # Rounded down: what is not clear must not read as if it were.
        confidence = math.floor(10 * self.offset.confidence) / 10
        values = str(self.offset.rows), str(self.offset.columns), f"{confidence:.1f}"
        said = dict(zip(OFFSET_TAGS, values, strict=True))
        return said | {ALIGNED_TAG: "yes" if self.applied else "no"}


class SceneOnGrid(Rows, Protocol):
    """What opening the image from before the flood needs of the radar scene."""

    @property
    def grid(self) -> Grid:
        """The scene's pixels."""
        ...

    @property
    def sample(self) -> FloatArray:
        """(C, h, w) backscatter of every `sample_step`-th pixel, NaN where not valid."""
        ...

    @property
    def sample_step(self) -> int:
        """Pixels of the scene to one of the sample."""
        ...


class BeforeScene:
    """A Sentinel-2 image on the grid of a SAR scene.

    Args:
        source: The file or product, and what it says of itself.
        grid: The scene's pixels, or as many beside them, where the image is moved.
        scaling: What turns reflectance x 10000 into [0, 1].
        dataset: The open raster, or its warped view.
        bands: Its band numbers (from 1) of red, green, blue and near infrared.

    Attributes:
        alignment: How it lies on the scene, see `open_before`.
    """

    alignment = Alignment()

    def __init__(
        self,
        source: OpticalSource,
        grid: Grid,
        scaling: OpticalScaling,
        dataset: Any,
        bands: tuple[int, ...],
    ) -> None:
        self.source = source
        self.grid = grid
        self.scaling = scaling
        self.dataset = dataset
        self.bands = bands

    @property
    def tags(self) -> Mapping[str, str]:
        """What the tags of maps made with it say of it: file, items, dates, and how it lies."""
        return {**self.source.tags, **self.alignment.tags}

    def identity(self) -> dict[str, Any]:
        """What the image depends on, as JSON values: file, what its values mean, and scaling."""
        return {
            "files": file_identities([self.source.path]),
            "values": [self.source.bands, self.source.scale, self.source.offset],
            "scaling": asdict(self.scaling),
            "moved": self.alignment.offset if self.alignment.applied else None,
        }

    def read(self, row: int, height: int) -> FloatArray:
        """Read whole rows: (4, height, columns) reflectance x 10000 as B4, B3, B2, B8.

        NaN where no image was taken: not finite, the nodata value, or 0 in every band.

        Raises:
            FloraError: If the file is damaged, or vanished since it was opened.
        """
        return self._read(window=Window(0, row, self.dataset.width, height))

    def _read(self, **options: Any) -> FloatArray:
        source = Given("before_path", self.source.path)
        stored = read_bands(self.dataset, indexes=self.bands, source=source, **options)
        valid = np.isfinite(stored).all(axis=0) & (stored != 0).any(axis=0)
        nodata = self.dataset.nodata
        if nodata is not None and nodata != 0:
            valid &= (stored != nodata).all(axis=0)
        values = self.source.reflectance(stored)
        values[:, ~valid] = np.nan
        return values

    def scale(self, values: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Image (3, h, w), NDVI (1, h, w) and validity (h, w) of what was read (4, h, w)."""
        valid: BoolArray = np.asarray(np.isfinite(values).all(axis=0))
        index = normalised_difference(values[3:], values[:1])
        return self.scaling.normalise(values[:3], valid), np.where(valid, index, 0), valid

    @contextmanager
    def reopen(self) -> Iterator[BeforeScene]:
        """The same, opened again and not checked again: for a thread of its own.

        Raises:
            FloraError: If the file vanished.
        """
        with _opened(self.source, self.grid, self.scaling, Resampling.bilinear) as before:
            before.alignment = self.alignment
            yield before

    @contextmanager
    def coarse(self, step: int) -> Iterator[BeforeScene]:
        """The same in pixels of `step` times the side, each the nearest of the image."""
        grid = self.grid.coarse(step)
        with _opened(self.source, grid, self.scaling, Resampling.nearest) as before:
            yield before


@contextmanager
def open_before(
    path: str | Path,
    scene: SceneOnGrid,
    scaling: OpticalScaling = SENTINEL2_RGB,
    *,
    align: bool = True,
) -> Iterator[BeforeScene]:
    """Open a pre-event Sentinel-2 image on the grid of `scene`, reprojected if it has another.

    The image is a raster file, or a Sentinel-2 product: NAME.SAFE, its metadata file or a zip.

    Bands are found by their names where the file has them ("B4", "red"); else 13 bands are
    Level-1C, 12 are Level-2A, and 4 are B4, B3, B2, B8. Values are reflectance x 10000, or what
    the scale and offset that the file declares make reflectance of. The offset of 1000 that ESA
    adds since processing baseline 04.00 is taken off where a name (N0400), a tag or a product's
    metadata say that it is there. Another grid or CRS is resampled bilinearly, block by block as
    it is read; where the image does not reach is not valid.

    How far it lies beside the scene is told from their edges, by `flora.scenes.align.find_offset`,
    and kept as its `alignment`. From 2 px on and where the edges agree clearly, it is read moved
    back by that.

    Args:
        path: The file or product.
        scene: The scene that it is to guide, opened by `flora.open_scene`.
        scaling: What turns reflectance x 10000 into [0, 1].
        align: Move it back by the offset that is found; False leaves it where its grid says.

    Raises:
        FloraError: If bands, values or grid do not fit, or the image does not cover the scene.

    Warns:
        FloraWarning: If the bands' order is taken for granted, the offset is taken off, the image
            is dark, cloudy, or covers less than half of the scene.

    Example:
        >>> from pathlib import Path
        >>> from flora import open_before, open_scene
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar, optical = (next(Path("chips").rglob(f"*_{kind}Hand.tif")) for kind in ("S1", "S2"))
        >>> with open_scene(sar) as scene, open_before(optical, scene) as before:
        ...     red, green, blue, infrared = before.read(0, 64)  # reflectance x 10000
        >>> red.shape
        (64, 64)
    """
    path = Path(path)
    if scaling.bands != COLOUR_BANDS[:3] or scaling.index_name != "NDVI":
        raise FloraError(
            f"the model's optical bands are {', '.join(scaling.bands)} with {scaling.index_name} "
            f"({scaling.name}), expected B4, B3, B2 with NDVI",
            argument="before_path",
            value=path,
            remedy="choose other weights, or leave the image out",
        )
    source = find_optical(path)
    with open_raster(path, "before_path", source.connection) as dataset:
        own = Grid.of(dataset)
        if not own.same_as(scene.grid):
            check_overlap(own, scene.grid, Given("before_path", path))
    with _opened(source, scene.grid, scaling, Resampling.bilinear) as before:
        _check_values(before, scene)
        offset = scene_offset(scene, before)
        before.alignment = Alignment(offset)
        if not align or offset is None or not offset.trusted:
            yield before
            return
    beside = scene.grid.part(Part(offset.rows, offset.columns, *scene.grid.shape))
    with _opened(source, beside, scaling, Resampling.bilinear) as before:
        before.alignment = Alignment(offset, applied=True)
        yield before


@contextmanager
def _opened(
    source: OpticalSource, grid: Grid, scaling: OpticalScaling, resampling: Resampling
) -> Iterator[BeforeScene]:
    with ExitStack() as stack:
        opened = open_raster(source.path, "before_path", source.connection)
        dataset = stack.enter_context(opened)
        if Grid.of(dataset).same_as(grid):
            yield BeforeScene(source, grid, scaling, dataset, source.bands)
            return
        if source.connection is None:  # a view of four bands, so that GDAL resamples no others
            nodata = 0.0 if dataset.nodata is None else float(dataset.nodata)
            chosen = bands_raster(dataset, [(dataset.name, band) for band in source.bands], nodata)
            dataset = stack.enter_context(open_raster(source.path, "before_path", chosen))
        view = view_on(
            dataset,
            grid,
            resampling=resampling,
            src_nodata=dataset.nodata,
            nodata=dataset.nodata,
            UNIFIED_SRC_NODATA="YES",  # a dark band alone is not nodata
        )
        yield BeforeScene(source, grid, scaling, stack.enter_context(view), (1, 2, 3, 4))


def check_overlap(own: Grid, scene: Grid, source: Given) -> None:
    """Refuse an image that cannot be put on the scene's grid, or lies elsewhere.

    Raises:
        FloraError: If one has no CRS, the image's georeference is impossible, or they do not
            overlap.
    """
    differs = (
        f"its grid of {own.shape[1]} x {own.shape[0]} px differs from the scene's of "
        f"{scene.shape[1]} x {scene.shape[0]} px and"
    )
    if own.crs is None or scene.crs is None:
        raise FloraError(
            f"{differs} cannot be reprojected, because one of them has no CRS",
            argument=source,
            remedy="georeference both, or resample the image to the scene's grid",
        )
    check_georeference(own, source)
    target = seamless(scene)
    x, y = seamless(own).outline(target.crs or scene.crs)
    columns, rows = apply(~target.transform, x, y)
    beside = columns.max() <= 0 or columns.min() >= scene.shape[1]
    if beside or rows.max() <= 0 or rows.min() >= scene.shape[0]:
        raise FloraError(
            f"{differs} does not overlap it",
            argument=source,
            remedy="choose an image of the same place",
        )


def _check_values(before: BeforeScene, scene: SceneOnGrid) -> None:
    """Compare a sample of the image with the range of reflectance, and with the scene."""
    with before.coarse(scene.sample_step) as coarse:
        values = coarse._read(out_shape=(len(coarse.bands), *scene.sample.shape[1:]))
    valid: BoolArray = np.asarray(np.isfinite(values).all(axis=0))
    source = Given("before_path", before.source.path)
    if not valid.any():
        raise FloraError(
            "no valid pixel within the scene",
            argument=source,
            remedy="choose an image that covers it",
        )
    found = [*_check_reflectance(values[:, valid], before.source)]
    seen = np.isfinite(scene.sample).all(axis=0)
    covered = float(valid[seen].mean()) if seen.any() else 1.0
    if covered < 0.5:
        found.append(f"valid on {covered:.0%} of the scene; elsewhere SAR alone decides")
    for text in found:
        warnings.warn(FloraWarning(text, argument=source), stacklevel=6)


def _check_reflectance(values: FloatArray, source: OpticalSource) -> Iterator[str]:
    """What is doubtful of reflectance x 10000 (4, n).

    Raises:
        FloraError: If it is none.
    """
    bright = float(np.percentile(values, 99))
    brightest_band = float(np.median(values.max(axis=0)))
    counts = source.kind == "uint8" and np.allclose(source.scale, 1)
    if bright <= MOST_COUNTS or counts or brightest_band > MOST_REFLECTANCE:
        what = "reflectance" if bright <= 2 else "per cent" if bright <= 100 else "8-bit counts"
        likely = f": probably {what}" if bright <= MOST_COUNTS else ""
        raise FloraError(
            f"values of type {source.kind} up to about {bright:.4g}{likely}, expected "
            "reflectance x 10000",
            argument=Given("before_path", source.path),
            remedy="rescale the image",
        )
    if bright < DARK:
        yield (
            f"nearly all of it is darker than a reflectance of {DARK / 10_000:g} (99 % below "
            f"{bright:.4g}), land is not: are its values reflectance x 10000?"
        )
    if (cloud := float(is_cloud(values).mean())) > CLOUDY:
        yield (
            f"{cloud:.0%} of it is brighter than land: probably cloud (or snow); choose another "
            "image, or do without"
        )
