"""What is known of water before a flood: masks, measures, class codes and outlines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from flora.antimeridian import view_on
from flora.cog import strips
from flora.errors import FloraError
from flora.grid import Grid, LonLatBox, open_raster, read_bands
from flora.maps.shorelines import Shorelines, is_vector, shorelines_grid
from flora.sensors import IGNORE, BoolArray

SURVEY_SIDE = 1024  # px: values are looked for in a reading this large first
MOST_SEARCHED = 4_000_000_000  # px: of larger files only the survey is looked at
MOST_LISTED = 12  # codes that a message lists


class PermanentWater(Protocol):
    """Where water was before the flood, on the pixels of a scene."""

    def read(self, row: int, height: int) -> tuple[BoolArray, BoolArray]:
        """Read whole rows: (height, columns) where water is permanent, and where that is known."""
        ...


@dataclass(frozen=True)
class Meaning:
    """What the values of a raster say.

    Attributes:
        threshold: Value from which water is permanent.
        codes: Values that are water; with neither, the raster is a mask of 0 and 1.
    """

    threshold: float | None = None
    codes: tuple[int, ...] = ()

    @classmethod
    def of(cls, threshold: float | None, codes: int | Sequence[int] | None) -> Meaning:
        """The meaning that options give it.

        Raises:
            FloraError: If they contradict each other, or the threshold is no number above 0.
        """
        listed = tuple(codes) if isinstance(codes, Sequence) else () if codes is None else (codes,)
        if threshold is None:
            return cls(None, listed)
        if listed:
            raise FloraError(
                "{permanent_threshold} and {permanent_class}: expected one of them",
                remedy="classes have codes, measures a threshold; leave one out",
                permanent_threshold=threshold,
                permanent_class=listed[0],
            )
        if not (math.isfinite(threshold) and threshold > 0):
            raise FloraError(
                "expected a finite number above 0, the stored value from which water is permanent",
                argument="permanent_threshold",
                value=threshold,
                remedy="for JRC occurrence pass {permanent_threshold} (per cent)",
                permanent_threshold=50,
            )
        return cls(float(threshold))

    def water(self, values: NDArray[Any]) -> BoolArray:
        """Which values are water."""
        if self.codes:
            return np.isin(values, self.codes)
        reached: BoolArray = values >= (1 if self.threshold is None else self.threshold)
        return reached

    def known(self, values: NDArray[Any], nodata: float | None) -> BoolArray:
        """Which values say something: finite, not nodata, and not 255 unless that is water.

        255 is nodata in JRC's layers and in masks of `map_scene`, whether declared or not.
        """
        known: BoolArray = np.isfinite(values)
        if nodata is not None:
            known &= values != nodata
        if IGNORE not in self.codes and (self.threshold is None or self.threshold < IGNORE):
            known &= values != IGNORE
        return known

    def check_mask(self, values: NDArray[Any], path: Path) -> None:
        """Refuse values (n,) that a mask of 0 and 1 cannot hold; others pass.

        Raises:
            FloraError: If there are such values.
        """
        other = values[(values != 0) & (values != 1)]
        if self.threshold is None and not self.codes and len(other):
            _refuse(
                path,
                f"holds {other[0]:g}, expected a mask of 0 and 1 (255 nodata)",
                "for JRC occurrence pass {permanent_threshold} (percent), for seasonality 12 "
                "(months), for classes their code, as {permanent_class} for ESA WorldCover",
            )

    def check_whole(self, dtype: str) -> None:
        """Refuse a threshold below 1 of whole numbers, from which every value but 0 is water.

        Args:
            dtype: Of the values.

        Raises:
            FloraError: If it is one.
        """
        if self.threshold is not None and self.threshold < 1 and np.dtype(dtype).kind in "iu":
            raise FloraError(
                "by it every value but 0 is water, because the file holds whole numbers",
                argument="permanent_threshold",
                value=self.threshold,
                remedy="JRC occurrence is in per cent: pass {permanent_threshold}; or pass 1, if "
                "every value but 0 is meant",
                permanent_threshold=50,
            )

    def check_unused(self, path: Path) -> None:
        """Refuse options for values with a file that has none.

        Raises:
            FloraError: If there are such options.
        """
        for argument, given in (
            ("permanent_threshold", self.threshold),
            ("permanent_class", self.codes[0] if self.codes else None),
        ):
            if given is not None:
                raise FloraError(
                    f"goes with a raster, and {path} holds outlines",
                    argument=argument,
                    value=given,
                    remedy="leave it out",
                )


class WaterRaster:
    """Permanent water of a raster on the pixels of the scene."""

    def __init__(self, dataset: Any, meaning: Meaning, path: Path) -> None:
        self._dataset, self._meaning, self._path = dataset, meaning, path

    def read(self, row: int, height: int) -> tuple[BoolArray, BoolArray]:
        """See `PermanentWater`.

        Raises:
            FloraError: If a mask of 0 and 1 holds another value.
        """
        window = Window(0, row, self._dataset.width, height)
        values = read_bands(self._dataset, indexes=1, window=window)
        known = self._meaning.known(values, self._dataset.nodata)
        self._meaning.check_mask(values[known], self._path)
        return known & self._meaning.water(values), known


def check_permanent_water(
    path: str | Path,
    permanent_threshold: float | None = None,
    permanent_class: int | Sequence[int] | None = None,
    scene: Grid | None = None,
) -> None:
    """Refuse what `split_flood` would refuse, before a scene is mapped.

    Args:
        path: See `flora.split_flood`, as the other options.
        permanent_threshold: See there.
        permanent_class: See there.
        scene: Pixels of the scene that is to be split, if they are known.

    Raises:
        FloraError: If the file cannot be read, its values are not those that the options expect
            (the message says which it holds), or it lies elsewhere than the scene.

    Example:
        Land cover with two fields, a lake and a wetland, in the codes of ESA WorldCover:

        >>> import numpy as np
        >>> import rasterio
        >>> from flora import FloraError
        >>> from flora.maps.permanent import check_permanent_water
        >>> grid = {"crs": "EPSG:32630", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 4.4e6)}
        >>> shape = {"driver": "GTiff", "width": 4, "height": 1, "count": 1, "dtype": "uint8"}
        >>> with rasterio.open("cover.tif", "w", **grid, **shape) as file:
        ...     file.write(np.uint8([[[40, 40, 80, 90]]]))
        >>> check_permanent_water("cover.tif", permanent_class=80)
        >>> try:
        ...     check_permanent_water("cover.tif", permanent_threshold=100)
        ... except FloraError as error:
        ...     print(str(error).split(";")[0])
        permanent_threshold 100.0: no value of cover.tif is water by it: it holds 40, 80, 90
    """
    path = Path(path)
    meaning = Meaning.of(permanent_threshold, permanent_class)
    if is_vector(path):
        meaning.check_unused(path)
        own = shorelines_grid(path)
    else:
        with open_raster(path, "permanent_water") as dataset:
            own = Grid.of(dataset)
            _check_values(dataset, meaning, path)
    if scene is None or own.same_as(scene):
        return
    if own.crs is None or scene.crs is None:
        _refuse(
            path,
            "its grid differs from the scene's and cannot be reprojected, because one of them has "
            "no CRS",
            "georeference both",
        )
    if not _overlap(own.lon_lat_box(), scene.lon_lat_box()):
        _refuse(
            path,
            "nothing is known within the scene (no overlap)",
            "choose one of the same place",
        )


@contextmanager
def open_permanent_water(
    path: str | Path,
    scene: Any,
    permanent_threshold: float | None = None,
    permanent_class: int | Sequence[int] | None = None,
) -> Iterator[PermanentWater]:
    """Open what is known about water before the flood, on the grid of an open raster `scene`.

    Another grid is resampled to the nearest pixel, because codes and counts have no average.

    Raises:
        FloraError: See `check_permanent_water`.
    """
    path, grid = Path(path), Grid.of(scene)
    check_permanent_water(path, permanent_threshold, permanent_class, grid)
    if is_vector(path):
        yield Shorelines(path, grid)
        return
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(path, "permanent_water"))
        if not Grid.of(dataset).same_as(grid):
            outside = IGNORE if dataset.nodata is None else dataset.nodata
            view = view_on(dataset, grid, resampling=Resampling.nearest, nodata=outside)
            dataset = stack.enter_context(view)
        meaning = Meaning.of(permanent_threshold, permanent_class)
        yield WaterRaster(dataset, meaning, path)


def _check_values(dataset: Any, meaning: Meaning, path: Path) -> None:
    """Refuse a raster in which nothing is what the options expect."""
    meaning.check_whole(dataset.dtypes[0])
    step = max(1, math.ceil(max(dataset.shape) / SURVEY_SIDE))
    shape = tuple(math.ceil(side / step) for side in dataset.shape)
    survey = read_bands(dataset, indexes=1, out_shape=shape)
    known = survey[meaning.known(survey, dataset.nodata)]
    meaning.check_mask(known, path)
    if meaning.water(known).any():
        return
    held = set(np.unique(known).tolist())
    large = dataset.width * dataset.height > MOST_SEARCHED
    for strip in strips(dataset.shape) if step > 1 and not large else ():
        values = read_bands(dataset, indexes=1, window=strip)
        values = values[meaning.known(values, dataset.nodata)]
        meaning.check_mask(values, path)
        if meaning.water(values).any():
            return
        held |= set(np.unique(values).tolist()) if len(held) <= MOST_LISTED else set()
        held |= {values.min().item(), values.max().item()} if len(values) else set()
    _refuse_without_water(survey, sorted(held), meaning, path, dataset.nodata)


def _refuse_without_water(
    survey: NDArray[Any], held: list[float], meaning: Meaning, path: Path, nodata: float | None
) -> None:
    if meaning.codes or meaning.threshold is not None:
        if len(held) <= MOST_LISTED:
            found = ", ".join(f"{value:g}" for value in held) or "nothing but nodata"
        else:
            found = f"{held[0]:g} to {held[-1]:g}"
        wanted = meaning.codes[0] if meaning.codes else meaning.threshold
        raise FloraError(
            f"no value of {path} is water by it: it holds {found}",
            argument="permanent_class" if meaning.codes else "permanent_threshold",
            value=wanted,
            remedy="pass a value that it holds, or leave {permanent_water} out where no water is "
            "permanent",
            permanent_water=path.name,
        )
    if nodata != IGNORE and (survey == IGNORE).any():
        _refuse(
            path,
            "holds 0 and 255 and no 1: 255 may be water or nodata",
            "if it is water pass {permanent_class}; if nodata, declare it (gdal_edit -a_nodata "
            "255)",
            permanent_class=IGNORE,
        )


def _overlap(first: LonLatBox, second: LonLatBox) -> bool:
    """Whether two boxes in degrees share a point, also a turn of the earth apart."""
    if not np.isfinite([first, second]).all():
        return True  # a part has no coordinates there: the reading will tell
    lower = max(first[1], second[1]) < min(first[3], second[3])
    return lower and any(
        max(first[0], second[0] + turn) < min(first[2], second[2] + turn) for turn in (-360, 0, 360)
    )


def _refuse(path: Path, expected: str, remedy: str, **options: Any) -> NoReturn:
    options = {"permanent_threshold": 50, "permanent_class": 80} | options
    raise FloraError(expected, argument="permanent_water", value=path, remedy=remedy, **options)
