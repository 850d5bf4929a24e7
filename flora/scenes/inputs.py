"""Radar scenes as they are on disk: opened, checked before anything is computed, read in rows."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import (
    GDAL_ERRORS,
    Grid,
    LonLatBox,
    Part,
    PixelWindow,
    open_raster,
    read_bands,
)
from flora.parts import choose_part
from flora.scenes.bands import (
    PLAUSIBLE,
    file_identities,
    find_files,
    is_fill,
    is_stored_fill,
)
from flora.scenes.before import BeforeScene, open_before
from flora.scenes.layers import OpenBands, SceneFiles
from flora.scenes.names import PIXELS_TAG
from flora.scenes.safe.correction import TERRAIN_TAG, Correction
from flora.scenes.safe.product import NOISE_TAG
from flora.scenes.viewing import Viewing
from flora.sensors import (
    SENTINEL1,
    BoolArray,
    FloatArray,
    SarScaling,
    Units,
)

__all__ = [
    "GDAL_ERRORS",
    "BeforeScene",
    "SarScene",
    "open_before",
    "open_raster",
    "open_scene",
    "read_bands",
]

SAMPLE_SIDE = 1024  # px: statistics and the quicklook come from a reading at most this large

FEW = 0.1  # of values below 0: power has fewer, dB many more
ALIKE = 1.0  # dB: VV is brighter than VH by more, even over calm water
BRIGHT_VH = -11.5  # dB: VH over land is darker than this; read as power, its amplitude is brighter
CONSTANT_SHARE = 0.05  # of pixels that hold one value, from which it is probably no measurement
CONSTANT_PIXELS = 100  # at least, for it to be said


@contextmanager
def open_scene(
    paths: str | Path | Sequence[str | Path],
    *,
    scaling: SarScaling = SENTINEL1,
    units: Units = "db",
    window: PixelWindow | None = None,
    bbox: LonLatBox | None = None,
    grid: str | None = None,
    remove_noise: bool = True,
    correction: Correction | None = None,
    incidence: float | None = None,
) -> Iterator[SarScene]:
    """Open a Sentinel-1 scene, or a part of it, for reading row by row.

    `paths` is one of

    - a raster with the bands of `scaling` (VV, VH), found by their descriptions where these name
      polarisations, else taken in order; other bands are allowed beside named ones;
    - two rasters of one band each, told apart by descriptions or file names (`_VV.tif`,
      `-vh-`, `vv.rtc.tiff`), else taken as VV, then VH;
    - a Sentinel-1 GRD product, NAME.SAFE or the same as .zip (slower): thermal noise is
      subtracted, the rest is calibrated to sigma0 and put on a map grid. Positions come from its
      ground control points, on the ellipsoid and without terrain correction: slopes are displaced
      and keep their brightness; with `correction`, from its orbit and elevation;
    - several of these, the slices of one pass, as one scene.

    Another grid is resampled bilinearly in the stored unit, block by block as it is read.

    Args:
        paths: See above.
        scaling: Sensor: number and order of bands, unit.
        units: "db", or "linear" where files hold backscatter as power. A GRD product needs none.
        window: Part to read as (column, row, width, height), in pixels of the grid that is read.
        bbox: Part to read as (west, south, east, north), in degrees (WGS 84).
        grid: None keeps the files' own grid; "utm" resamples to 10 m in the scene's UTM zone; a
            CRS, such as "EPSG:4326", to 10 m there. A GRD product goes to its UTM zone without, in
            its own pixel spacing.
        remove_noise: Subtract the thermal noise of a GRD product, of which a tenth of the
            measured power is left at least. Other files are taken as they are.
        correction: By which the terrain of a GRD product is corrected. Other files are taken as
            they are.
        incidence: Angle of incidence in degrees at which files that say gamma0 or beta0 are read as
            sigma0 (gamma0 cos(angle), beta0 sin(angle)); 0 leaves values as they are. The default
            is what a fetched file's tags say, else 38.8, the middle of the swath, with a warning.

    Raises:
        FloraError: If a file is missing, damaged, complex or of another kind, files differ in
            grid, the part lies outside, or bands, values or units are not what was expected.

    Example:
        >>> from pathlib import Path
        >>> from flora import open_scene
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> with open_scene(next(Path("chips").rglob("*_S1Hand.tif"))) as scene:
        ...     backscatter, valid = scene.read(0, 16)  # VV and VH in dB, of the first 16 rows
        >>> scene.shape, backscatter.shape, valid.shape
        ((64, 64), (2, 16, 64), (16, 64))
    """
    files = find_files(paths, scaling, units, grid, remove_noise, correction, incidence)
    part = choose_part(files.grid, window, bbox, files.name)
    with files.opened() as layers:
        yield SarScene(files, layers, part)


class SarScene:
    """A Sentinel-1 scene in dB, whatever unit it is stored in; `open_scene` makes them.

    A pixel is valid where every band was measured: finite, not the nodata value nor one of the
    usual fill values, not masked, in linear power above 0 (the border of a ground range product is
    0), and between -50 and 50 dB: beyond lie fill values and what resampling made of them.

    Args:
        files: Where the values are, and how they are brought to the grid.
        layers: These, open.
        part: The part of the grid that is read.

    Attributes:
        name: What messages call it: the path of its first file.
        paths: Its files, as given.
        stem: What its maps are called: the name of its first file without the ending.
        grid: The pixels of the part, also as `crs`, `transform` and `shape` (rows, columns).
        whole: The pixels of the whole scene.
        origin: (row, column) of the part in it.
        scaling: Its sensor.
        sample: (C, h, w) in `scaling.unit`, every `sample_step`-th pixel, NaN where not valid.
        shown: Channel that a picture of it shows.

    Raises:
        FloraError: If units are not what was expected, or nothing was measured.
    """

    def __init__(self, files: SceneFiles, layers: Sequence[OpenBands], part: Part) -> None:
        self.name = files.name
        self.paths = files.paths
        self.stem = files.paths[0].stem
        self.scaling = files.scaling
        self.units = files.units
        self.whole: Grid = files.grid
        self.grid: Grid = files.grid.part(part)
        self.crs = self.grid.crs
        self.transform = self.grid.transform
        self.shape = self.grid.shape
        self.origin = part.row, part.column
        self.sample_step = max(1, math.ceil(max(self.shape) / SAMPLE_SIDE))
        self._files, self._layers, self._part = files, layers, part
        values, measured = self._load_sample()
        self._check_values(values, measured)
        values, valid = self._convert(values, measured)
        self.shown = 0
        self.sample: FloatArray = np.where(valid, values, np.nan).astype(np.float32)

    def identity(self) -> dict[str, Any]:
        """What its values depend on, as JSON values: files, sensor, grid, options and pixels."""
        return {
            "files": file_identities(self.paths),
            "scaling": asdict(self.scaling),
            "units": self.units,
            "grid": [*self.shape, *self.origin, *self.transform, str(self.crs)],
            "remove_noise": self._files.remove_noise,
            **self._files.quantity,
            **self._corrected_by(),
            "pixels": self.pixels,
        }

    @property
    def pixels(self) -> str:
        """SHA-256 of the sample, by which scenes of one name are told apart."""
        return hashlib.sha256(self.sample.tobytes()).hexdigest()

    @property
    def correction(self) -> Correction | None:
        """What its terrain is corrected by."""
        return self._files.correction

    @property
    def incidence(self) -> float | None:
        """The angle that was given, by which gamma0 or beta0 is read as sigma0."""
        return self._files.incidence

    @property
    def tags(self) -> dict[str, str]:
        """What maps made of it keep of its pixels, and of how it was read."""
        by = self._files.correction
        kept = self._files.files[0].safe is not None and not self._files.remove_noise
        said = {PIXELS_TAG: self.pixels, **self._files.quantity}
        said |= {NOISE_TAG: "kept"} if kept else {}
        return said | ({} if by is None else {TERRAIN_TAG: str(by)})

    def _corrected_by(self) -> dict[str, Any]:
        by = self._files.correction
        if by is None:
            return {}
        return {"dem": file_identities(by.dem), "geoid": by.geoid}

    @property
    def viewing(self) -> Viewing | None:
        """How the radar looked, see `SceneFiles.viewing`."""
        return self._files.viewing

    def read(self, row: int, height: int) -> tuple[FloatArray, BoolArray]:
        """Read whole rows: backscatter (C, height, columns), and where it is valid.

        Raises:
            FloraError: If a file is damaged, or vanished since it was opened.
        """
        return self._convert(*self._load(self._layers, window=self._part.rows(row, height)))

    @contextmanager
    def reopen(self) -> Iterator[SarScene]:
        """The same scene, opened again and not checked again: for a thread of its own.

        Raises:
            FloraError: If a file vanished.
        """
        with self._files.opened() as layers:
            again = copy.copy(self)
            again._layers = layers
            yield again

    def _load(
        self, layers: Sequence[OpenBands], shape: tuple[int, int] | None = None, **options: Any
    ) -> tuple[FloatArray, BoolArray]:
        """Stored values as backscatter (C, h, w), and where all were measured (h, w)."""
        parts, measured = [], []
        for layer in layers:
            read = {"indexes": layer.bands, "source": Given("sar_path", layer.name), **options}
            if shape is not None:
                read["out_shape"] = (len(layer.bands), *shape)
            values = read_bands(layer.dataset, out_dtype="float32", **read)
            good = ~is_stored_fill(values)
            flags = [layer.dataset.mask_flag_enums[band - 1] for band in layer.bands]
            if any(MaskFlags.per_dataset in flag or MaskFlags.alpha in flag for flag in flags):
                good &= read_bands(layer.dataset, masks=True, **read) != 0
            for band, nodata in enumerate(layer.nodata):
                if nodata is not None:
                    good[band] &= values[band] != np.float32(nodata)
            # In place: a strip of a whole scene is large.
            values *= layer.scale[:, None, None]
            values += layer.offset[:, None, None]
            parts.append(values)
            measured.append(good & ~is_fill(values))
        backscatter = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return backscatter, np.asarray(np.concatenate(measured).all(axis=0))

    def _load_sample(self) -> tuple[FloatArray, BoolArray]:
        reduced = self.grid.coarse(self.sample_step)
        if self._files.target is not None:
            with self._files.opened(reduced) as layers:
                return self._load(layers)
        if self.shape == self._files.grid.shape:
            return self._load(self._layers, reduced.shape)
        window = self._part.rows(0, self.shape[0])
        return self._load(self._layers, reduced.shape, window=window)

    def _convert(self, values: FloatArray, measured: BoolArray) -> tuple[FloatArray, BoolArray]:
        if self.units == "linear":
            measured = measured & (values > 0).all(axis=0)
            values = 10 * np.log10(np.where(measured, values, np.float32(1)))
        if self.scaling.unit != "dB":
            return values, measured
        low, high = PLAUSIBLE
        return values, measured & ((values > low) & (values <= high)).all(axis=0)

    def _check_values(self, values: FloatArray, measured: BoolArray) -> None:
        """Check the sample or, where it caught nothing, the first rows that hold something."""
        strips = range(0, self.shape[0], 256)
        windows = (self._part.rows(r, min(256, self.shape[0] - r)) for r in strips)
        for window in (None, *windows):
            if window is not None:
                values, measured = self._load(self._layers, window=window)
            # 0 is what an untagged border holds: it says nothing about units.
            seen = values[:, measured & (values != 0).any(axis=0)]
            if seen.size == 0:
                continue
            if self.scaling.unit == "dB":
                check_units(seen, self.units, self.name)
            backscatter, valid = self._convert(values, measured)
            if valid.any():
                if self.scaling.unit == "dB":
                    self._warn_unusual(backscatter[:, valid], values[:, valid])
                return
        raise FloraError(
            "no pixel was measured (all nodata, NaN, 0 or beyond -50 to 50 dB)",
            argument="sar_path",
            value=self.name,
            remedy="choose a scene, or a part of it, that covers the area",
        )

    def _warn_unusual(self, seen: FloatArray, stored: FloatArray) -> None:
        """Warn of what is possible but probably not meant, in dB and as stored (C, n)."""
        found = []
        if self.scaling.bands[:2] == ("VV", "VH"):
            vv, vh = seen[:2].mean(axis=1)
            if vv < vh:
                found.append(
                    f"mean VV {vv:.1f} dB is below mean VH {vh:.1f} dB: the polarisations are "
                    "probably swapped; expected VV, then VH"
                )
            elif vv - vh < ALIKE:
                found.append(
                    f"mean VV {vv:.1f} dB and mean VH {vh:.1f} dB hardly differ: probably one "
                    "polarisation twice; expected VV, then VH"
                )
            elif (middle := np.median(seen[1])) > BRIGHT_VH:
                probably = "dB of amplitude, or z-scores, expected sigma0 in dB; calibrate again"
                if self.units == "linear":
                    probably = "amplitude, expected power; square them"
                found.append(
                    f"median VH {middle:.1f} dB is brighter than land: the values are probably "
                    f"{probably}"
                )
        constants = (constant_of(band) for band in stored)
        for value, share in dict(constant for constant in constants if constant).items():
            unit = "dB" if self.units == "db" else "in power"
            found.append(
                f"{share:.0%} of its pixels hold exactly {value:.7g} {unit}: probably border that "
                f"is not declared; declare it (gdal_edit -a_nodata {value:.7g})"
            )
        for text in found:
            said = FloraWarning(text, argument="sar_path", value=self.name)
            warnings.warn(said, stacklevel=6)


def constant_of(values: FloatArray) -> tuple[float, float] | None:
    """A value that many of `values` (n,) hold exactly, and their share; None if there is none.

    In a file of whole numbers, many values are held by many pixels: one stands out only if it is
    held by four times as many as the third.

    Example:
        >>> import numpy as np
        >>> from flora.scenes.inputs import constant_of
        >>> constant_of(np.append(np.linspace(-20, -10, 900), np.full(100, -35.0)))
        (-35.0, 0.1)
        >>> constant_of(np.rint(np.linspace(-20, -10, 1000)))  # whole dB
    """
    held, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts)
    most = int(counts[order[0]])
    third = int(counts[order[2]]) if len(order) > 2 else 0
    share = most / values.size
    if most < CONSTANT_PIXELS or share <= CONSTANT_SHARE or most < 4 * third:
        return None
    return float(held[order[0]]), share


def check_units(seen: FloatArray, units: Units, name: str) -> None:
    """Refuse measured values, not 0, that cannot be sigma0 in the unit they are said to have.

    Land and water lie between about -35 and 0 dB, which is 0.0003 to 1 in power; dB is negative
    nearly everywhere, power nowhere but where more noise was subtracted than there was.

    Raises:
        FloraError: If they are in the other unit, digital numbers or scaled integers.
    """
    negative, median = float(np.mean(seen < 0)), float(np.median(seen))
    source = Given("sar_path", name)
    if median > 10:
        raise FloraError(
            f"median value {median:.4g}: uncalibrated digital numbers, expected sigma0",
            argument=source,
            remedy="calibrate the scene first, or pass the GRD product's .SAFE folder",
        )
    if units == "db" and negative < FEW:
        raise FloraError(
            f"values are mostly 0 or more (median {median:.4g}): linear power, expected dB",
            argument=source,
            remedy="convert with 10 log10, or pass {units}",
            units="linear",
        )
    if units == "linear" and negative > 0.5:
        raise FloraError(
            f"values are negative (median {median:.4g}): dB, expected linear power",
            argument=source,
            remedy="pass {units}",
            units="db",
        )
    if median < -60:
        raise FloraError(
            f"median value {median:.4g}: too low for dB",
            argument=source,
            remedy="integers scaled by 100 or more must be divided first, or declare their scale "
            "(gdal_edit -scale)",
        )
