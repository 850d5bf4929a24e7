"""The optical image from before a flood, on the grid of the radar scene it guides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import Grid, apply, check_georeference, open_raster, read_bands
from flora.scenes.bands import file_identities
from flora.sensors import (
    SENTINEL2_BANDS,
    SENTINEL2_RGB,
    BoolArray,
    FloatArray,
    OpticalScaling,
    normalised_difference,
)

BEFORE_BANDS = ("B4", "B3", "B2", "B8")  # red, green, blue, near infrared


class SceneOnGrid(Protocol):
    """What the image from before the flood has to know of the radar scene."""

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
        path: The file.
        grid: The scene's pixels.
        scaling: What turns stored values into [0, 1].
        dataset: The open raster, or its warped view.
        bands: Its band numbers (from 1) of red, green, blue and near infrared.
    """

    def __init__(
        self, path: Path, grid: Grid, scaling: OpticalScaling, dataset: Any, bands: tuple[int, ...]
    ) -> None:
        self.path = path
        self.grid = grid
        self.scaling = scaling
        self.dataset = dataset
        self.bands = bands

    def identity(self) -> dict[str, Any]:
        """What the image depends on, as JSON values: file and scaling."""
        return {"files": file_identities([self.path]), "scaling": asdict(self.scaling)}

    def read(self, row: int, height: int) -> NDArray[Any]:
        """Read whole rows of stored values: (4, height, columns) as B4, B3, B2, B8."""
        return self._read(window=Window(0, row, self.dataset.width, height))

    def _read(self, **options: Any) -> NDArray[Any]:
        source = Given("before_path", self.path)
        return read_bands(self.dataset, indexes=self.bands, source=source, **options)

    def valid(self, stored: NDArray[Any]) -> BoolArray:
        """Where an image was taken: finite, not the nodata value, and not 0 in every band."""
        valid: BoolArray = np.isfinite(stored).all(axis=0) & (stored != 0).any(axis=0)
        nodata = self.dataset.nodata
        if nodata is not None and nodata != 0:
            valid &= (stored != nodata).all(axis=0)
        return valid

    def scale(self, stored: NDArray[Any]) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Image (3, h, w), NDVI (1, h, w) and validity (h, w) of stored values (4, h, w)."""
        valid = self.valid(stored)
        index = normalised_difference(stored[3:], stored[:1])
        return self.scaling.normalise(stored[:3], valid), np.where(valid, index, 0), valid

    @contextmanager
    def reopen(self) -> Iterator[BeforeScene]:
        """The same, opened again and not checked again: for a thread of its own.

        Raises:
            FloraError: If the file vanished.
        """
        with _opened(self.path, self.grid, self.scaling, Resampling.bilinear) as before:
            yield before

    @contextmanager
    def coarse(self, step: int) -> Iterator[BeforeScene]:
        """The same in pixels of `step` times the side, each the nearest of the image."""
        grid = self.grid.coarse(step)
        with _opened(self.path, grid, self.scaling, Resampling.nearest) as before:
            yield before


@contextmanager
def open_before(
    path: str | Path, scene: SceneOnGrid, scaling: OpticalScaling = SENTINEL2_RGB
) -> Iterator[BeforeScene]:
    """Open a pre-event Sentinel-2 image on the grid of `scene`, reprojected if it has another.

    Bands are found by their names where the file has them; else 13 bands are Level-1C in the
    order of `SENTINEL2_BANDS`, and 4 bands are B4, B3, B2, B8. Values are reflectance x 10000,
    without the offset of 1000 that ESA adds since baseline 04.00. Another grid or CRS is resampled
    bilinearly, block by block as it is read; where the image does not reach is not valid.

    Args:
        path: The file.
        scene: The scene that it is to guide, opened by `flora.open_scene`.
        scaling: What turns stored values into [0, 1].

    Raises:
        FloraError: If bands, values or grid do not fit, or the image does not cover the scene.

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
    if scaling.bands != BEFORE_BANDS[:3] or scaling.index_name != "NDVI":
        raise FloraError(
            f"the model's optical bands are {', '.join(scaling.bands)} with {scaling.index_name} "
            f"({scaling.name}), expected B4, B3, B2 with NDVI",
            argument="before_path",
            value=path,
            remedy="choose other weights, or leave the image out",
        )
    with open_raster(path, "before_path") as dataset:
        kind = dataset.dtypes[0]
        own = Grid.of(dataset)
        if not own.same_as(scene.grid):
            _check_overlap(own, scene.grid, path)
    with _opened(path, scene.grid, scaling, Resampling.bilinear) as before:
        _check_values(before, scene, kind)
        yield before


@contextmanager
def _opened(
    path: Path, grid: Grid, scaling: OpticalScaling, resampling: Resampling
) -> Iterator[BeforeScene]:
    with open_raster(path, "before_path") as dataset:
        bands = _before_bands(dataset)
        if Grid.of(dataset).same_as(grid):
            yield BeforeScene(path, grid, scaling, dataset, bands)
            return
        with (
            open_raster(path, "before_path", _bands_vrt(dataset, bands)) as chosen,
            WarpedVRT(
                chosen,
                crs=grid.crs,
                transform=grid.transform,
                height=grid.shape[0],
                width=grid.shape[1],
                resampling=resampling,
                src_nodata=chosen.nodata,
                nodata=chosen.nodata,
                UNIFIED_SRC_NODATA="YES",  # a dark band alone is not nodata
            ) as warped,
        ):
            yield BeforeScene(path, grid, scaling, warped, (1, 2, 3, 4))


def _bands_vrt(dataset: Any, bands: tuple[int, ...]) -> str:
    """A virtual dataset of some bands, so that GDAL resamples no others.

    Nodata is the dataset's, or 0 where it declares none.
    """
    nodata = 0.0 if dataset.nodata is None else float(dataset.nodata)
    forward = ",".join(repr(float(value)) for value in dataset.transform.to_gdal())
    layers = "".join(
        f'<VRTRasterBand dataType="Float32" band="{number}">'
        f"<NoDataValue>{nodata!r}</NoDataValue><SimpleSource>"
        f"<SourceFilename>{escape(dataset.name)}</SourceFilename><SourceBand>{band}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for number, band in enumerate(bands, start=1)
    )
    return (
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">'
        f"<SRS>{escape(dataset.crs.to_wkt())}</SRS><GeoTransform>{forward}</GeoTransform>"
        f"{layers}</VRTDataset>"
    )


def _before_bands(dataset: Any) -> tuple[int, ...]:
    names = [(name or "").upper().replace("B0", "B") for name in dataset.descriptions]
    if set(BEFORE_BANDS) <= set(names):
        return tuple(names.index(band) + 1 for band in BEFORE_BANDS)
    if dataset.count == len(SENTINEL2_BANDS):
        return tuple(SENTINEL2_BANDS.index(band) + 1 for band in BEFORE_BANDS)
    if dataset.count == len(BEFORE_BANDS):
        return tuple(range(1, 5))
    raise FloraError(
        f"{dataset.count} bands without names, expected 13 (Level-1C: "
        f"{', '.join(SENTINEL2_BANDS)}) or 4 ({', '.join(BEFORE_BANDS)})",
        argument="before_path",
        value=dataset.name,
    )


def _check_overlap(own: Grid, scene: Grid, path: Path) -> None:
    source = Given("before_path", path)
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
    columns, rows = apply(~scene.transform, *own.outline(scene.crs))
    beside = columns.max() <= 0 or columns.min() >= scene.shape[1]
    if beside or rows.max() <= 0 or rows.min() >= scene.shape[0]:
        raise FloraError(
            f"{differs} does not overlap it",
            argument=source,
            remedy="choose an image of the same place",
        )


def _check_values(before: BeforeScene, scene: SceneOnGrid, kind: str) -> None:
    with before.coarse(scene.sample_step) as coarse:
        stored = coarse._read(out_shape=(len(coarse.bands), *scene.sample.shape[1:]))
        valid = coarse.valid(stored)
    source = Given("before_path", before.path)
    if not valid.any():
        raise FloraError(
            "no valid pixel within the scene",
            argument=source,
            remedy="choose an image that covers it",
        )
    bright = float(np.percentile(stored[:, valid], 99))
    if bright <= 2 or kind == "uint8":
        raise FloraError(
            f"values of type {kind} up to about {bright:.4g}, expected reflectance x 10000",
            argument=source,
            remedy="rescale the image",
        )
    seen = np.isfinite(scene.sample).all(axis=0)
    covered = float(valid[seen].mean()) if seen.any() else 1.0
    if covered < 0.5:
        warnings.warn(
            FloraWarning(
                f"valid on {covered:.0%} of the scene; elsewhere SAR alone decides", argument=source
            ),
            stacklevel=6,
        )
