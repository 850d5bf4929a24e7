"""The rasters that a radar scene consists of, opened on one grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio.enums import Resampling

from flora.antimeridian import view_on
from flora.errors import Given
from flora.grid import Grid, open_raster
from flora.scenes.safe.correction import CorrectedBand, Correction, ProductGeometry
from flora.scenes.safe.product import SafeBand
from flora.scenes.safe.swath import (
    BLOCK,
    COARSE_BLOCK,
    GroundControl,
    geocoded_vrt,
    mosaic_vrt,
)
from flora.scenes.viewing import Viewing
from flora.sensors import FloatArray, SarScaling, Units


class OpenBands(NamedTuple):
    """An open raster, and what its bands are.

    Attributes:
        dataset: The raster, on the grid asked for.
        bands: Numbers (from 1) of the polarisations in it.
        name: What messages call it.
        nodata: One for each of `bands`, or None.
        scale: (bands,), what turns stored values into backscatter,
        offset: (bands,), with this added.
    """

    dataset: Any
    bands: tuple[int, ...]
    name: str
    nodata: tuple[float | None, ...]
    scale: FloatArray
    offset: FloatArray


@dataclass(frozen=True)
class BandFile:
    """One raster file of a scene, or one polarisation of a GRD product.

    Attributes:
        path: The file, or the product.
        bands: Numbers (from 1) of the polarisations in it.
        grid: Its own pixels.
        control: Where they lie, if by ground control points.
        fill: Value that is to be left out of resampling.
        scale: Of each of `bands`: stored value times scale plus offset is backscatter.
        offset: See `scale`.
        safe: The polarisation of a GRD product.
        others: The same polarisation in further slices of its pass.
        ground: By which terrain is corrected; None puts it on the map by `control`.
    """

    path: Path
    bands: tuple[int, ...]
    grid: Grid
    control: GroundControl | None
    fill: float
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    safe: SafeBand | None = None
    others: tuple[BandFile, ...] = ()
    ground: ProductGeometry | None = None

    @contextmanager
    def opened(
        self, target: Grid | None, resampling: Resampling = Resampling.bilinear
    ) -> Iterator[OpenBands]:
        """The file on its own grid, or resampled to `target`."""
        with ExitStack() as stack:
            bands, nodata = self.bands, (self.fill,) * len(self.bands)
            if target is None:
                connection = self._connection(stack)
                dataset = stack.enter_context(open_raster(self.path, "sar_path", connection))
                nodata = tuple(dataset.nodatavals[band - 1] for band in bands)
            elif self.ground is not None:
                parts = [part._in_swath(stack) for part in (self, *self.others)]
                dataset = CorrectedBand(parts, target, resampling)
            elif self.control is not None:
                slices = (self, *self.others)
                warped = [
                    part._geocoded(stack, part.control, target, resampling)
                    for part in slices
                    if part.control is not None
                ]
                whole = warped[0] if len(warped) == 1 else mosaic_vrt(warped, target, self.fill)
                dataset = stack.enter_context(open_raster(self.path, "sar_path", whole))
                bands = tuple(range(1, len(bands) + 1))
            else:
                connection = self._connection(stack)
                source = stack.enter_context(open_raster(self.path, "sar_path", connection))
                view = view_on(
                    source,
                    target,
                    resampling=resampling,
                    src_nodata=self.fill,
                    nodata=self.fill,
                    dtype="float32",
                )
                dataset = stack.enter_context(view)
            scale, offset = (np.array(v, dtype=np.float32) for v in (self.scale, self.offset))
            yield OpenBands(dataset, bands, str(self.path), nodata, scale, offset)

    def times(self, share: float, units: Units) -> BandFile:
        """The same, its backscatter as power multiplied by a share."""
        if units == "linear":
            scale = tuple(share * value for value in self.scale)
            return replace(self, scale=scale, offset=tuple(share * v for v in self.offset))
        return replace(self, offset=tuple(v + 10 * math.log10(share) for v in self.offset))

    def _connection(self, stack: ExitStack) -> str | None:
        """What GDAL opens where this is not the file itself, until the stack is left."""
        if self.safe is None:
            return None
        return stack.enter_context(self.safe.opened(self.grid.shape))

    def _in_swath(self, stack: ExitStack) -> tuple[Any, ProductGeometry]:
        """This one in the geometry of its image, open until the stack is left, and where it is."""
        if self.ground is None:
            raise ValueError(f"{self.path} has no geometry")
        image = open_raster(self.path, "sar_path", self._connection(stack))
        return stack.enter_context(image), self.ground

    def _geocoded(
        self, stack: ExitStack, control: GroundControl, target: Grid, resampling: Resampling
    ) -> str:
        """What GDAL opens as this one on the map."""
        connection = self._connection(stack)
        # Opened once as a file, so that one that vanished is named.
        stack.enter_context(open_raster(self.path, "sar_path", connection))
        block = COARSE_BLOCK if resampling == Resampling.nearest else BLOCK
        return geocoded_vrt(
            connection or str(self.path),
            self.bands, control, target, self.fill, resampling,
            Given("sar_path", self.path), block,
        )  # fmt: skip


@dataclass(frozen=True)
class SceneFiles:
    """A scene's files, checked, and the grid they are to be read on.

    Attributes:
        paths: As given.
        name: What messages call the scene.
        scaling: Sensor.
        units: Of the values, once calibrated.
        files: In the order of the sensor's bands.
        target: The map grid they are resampled to; None keeps their own.
        remove_noise: Whether the thermal noise of a GRD product is subtracted.
        correction: What the terrain of a GRD product is corrected by; None leaves it.
        quantity: Tags that say what was turned into sigma0, and how; empty where it was sigma0.
        incidence: Angle in degrees that was given for it.
    """

    paths: tuple[Path, ...]
    name: str
    scaling: SarScaling
    units: Units
    files: tuple[BandFile, ...]
    target: Grid | None
    remove_noise: bool
    correction: Correction | None = None
    quantity: dict[str, str] = field(default_factory=dict)
    incidence: float | None = None

    @property
    def grid(self) -> Grid:
        """The grid of the whole scene."""
        return self.files[0].grid if self.target is None else self.target

    @property
    def viewing(self) -> Viewing | None:
        """How the radar looked, as the annotation of a product says it; None of other files.

        Raises:
            FloraError: If the annotation is damaged.
        """
        product = self.files[0].safe
        return None if product is None else product.viewing

    @contextmanager
    def opened(self, coarse: Grid | None = None) -> Iterator[list[OpenBands]]:
        """All files, open on the grid, or the nearest pixels of them on a coarser one."""
        target, resampling = self.target, Resampling.bilinear
        if coarse is not None:
            target, resampling = coarse, Resampling.nearest
        with ExitStack() as stack:
            yield [stack.enter_context(file.opened(target, resampling)) for file in self.files]
