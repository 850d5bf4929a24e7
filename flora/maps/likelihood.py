"""A likelihood of water that was held against truth, and what it says of the area."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from flora.cog import strips, write_cog
from flora.errors import Given
from flora.files import folder_beside, new_file, publish
from flora.grid import GDAL_ERRORS, Grid, open_raster, read_bands
from flora.maps.floods import open_classes
from flora.maps.permanent import open_permanent_water
from flora.models.calibration import AreaInterval, Calibration
from flora.sensors import IGNORE

DESCRIPTION = "likelihood of water, per cent; 255 nodata"
TAG = "FLORA_CALIBRATION"


@dataclass(frozen=True)
class AreaIntervals:
    """Between which areas the true ones should lie.

    Attributes:
        water: Of all water.
        flood: Of the water that was not there before; None where nothing is known of that.
        unit: "km2", or "px" without a CRS.
    """

    water: AreaInterval
    flood: AreaInterval | None
    unit: str


def write_likelihood(
    probability: str | Path,
    output: str | Path,
    calibration: Calibration,
    *,
    overwrite: bool = False,
) -> Path:
    """Write how likely water is in each pixel, in per cent.

    Of the pixels with 70 per cent, 70 of 100 were water on the scenes that the calibration was
    fitted on; on scenes of another kind, nothing was promised.

    Args:
        probability: Water probability of `map_scene`.
        output: Cloud-optimised GeoTIFF to write, uint8, on the same grid: 0 to 100, 255 nodata.
        calibration: Of the weights that made it, see `flora.models.beside.load_calibration`.
        overwrite: Replace an existing output.

    Raises:
        FloraError: If the input is refused, `output` exists already, or the disk refuses.

    Example:
        By a model that is right as often as it says:

        >>> import numpy as np
        >>> import rasterio
        >>> from flora.maps.likelihood import write_likelihood
        >>> from flora.models.calibration import Calibration
        >>> grid = {"crs": "EPSG:32630", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 4.4e6)}
        >>> shape = {"driver": "GTiff", "width": 2, "height": 1, "count": 1, "dtype": "float32"}
        >>> with rasterio.open("probability.tif", "w", **grid, **shape) as file:
        ...     file.write(np.array([[[0.9, 0.25]]], dtype=np.float32))
        >>> honest = Calibration(wet=1, dry=1, shift=0, less=1, more=1, coverage=0.9)
        >>> path = write_likelihood("probability.tif", "likelihood.tif", honest)
        >>> rasterio.open(path).read(1).tolist()
        [[90, 25]]
    """
    target = new_file(output, "output", overwrite, [Given("probability", probability)])
    with ExitStack() as stack:
        chance = stack.enter_context(open_raster(Path(probability), "probability"))
        temporary = stack.enter_context(folder_beside(target, GDAL_ERRORS))
        rows, finished = temporary / "rows.tif", temporary / "likelihood.tif"
        seen = 0
        with open_classes(rows, chance) as file:
            file.update_tags(**{TAG: said_of(calibration)})
            file.set_band_description(1, DESCRIPTION)
            for row, likely in _strips(chance, calibration):
                known = np.isfinite(likely)
                stored = np.where(known, np.rint(100 * np.where(known, likely, 0)), IGNORE)
                window = Window(0, row, chance.width, len(likely))
                file.write(stored.astype(np.uint8), 1, window=window)
                seen += _seen(stored)
        write_cog(rows, finished, "AVERAGE", _seen, seen)
        publish({"likelihood": finished}, {"likelihood": target}, temporary / "earlier")
    return target


def area_intervals(
    probability: str | Path,
    calibration: Calibration,
    *,
    permanent_water: str | Path | None = None,
    permanent_threshold: float | None = None,
    permanent_class: int | Sequence[int] | None = None,
) -> AreaIntervals:
    """Between which areas the true area of water lies, whatever the threshold of the mask.

    The interval holds for the promised share of scenes of the kind that the calibration was fitted
    on, taken one by one; a scene of another kind was promised nothing.

    Args:
        probability: Water probability of `map_scene`.
        calibration: Of the weights that made it.
        permanent_water: See `flora.split_flood`; with it, the flood has an interval of its own,
            from the pixels that were not water before.
        permanent_threshold: See there.
        permanent_class: See there.

    Raises:
        FloraError: If an input is refused.

    Example:
        Two pixels of 100 m2; of the 115 m2 that are expected, 35 are in doubt:

        >>> import numpy as np
        >>> import rasterio
        >>> from flora.maps.likelihood import area_intervals
        >>> from flora.models.calibration import Calibration
        >>> grid = {"crs": "EPSG:32630", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 4.4e6)}
        >>> shape = {"driver": "GTiff", "width": 2, "height": 1, "count": 1, "dtype": "float32"}
        >>> with rasterio.open("probability.tif", "w", **grid, **shape) as file:
        ...     file.write(np.array([[[0.9, 0.25]]], dtype=np.float32))
        >>> honest = Calibration(wet=1, dry=1, shift=0, less=1, more=1, coverage=0.9)
        >>> found = area_intervals("probability.tif", honest)
        >>> [round(1e6 * area) for area in found.water[:3]]
        [80, 115, 150]
    """
    with ExitStack() as stack:
        chance = stack.enter_context(open_raster(Path(probability), "probability"))
        permanent = None
        if permanent_water is not None:
            permanent = stack.enter_context(
                open_permanent_water(permanent_water, chance, permanent_threshold, permanent_class)
            )
        cells = Grid.of(chance).cell_areas()
        sums = np.zeros((2, 3))  # of all, and of what was dry before
        for row, likely in _strips(chance, calibration):
            known = np.isfinite(likely)
            weights = np.ones(likely.shape) if cells is None else cells.rows(row, len(likely))
            before = known if permanent is None else ~permanent.read(row, len(likely))[0]
            for part, chosen in enumerate((known, known & before)):
                chances, areas = likely[chosen], weights[chosen]
                doubtful = np.minimum(chances, 1 - chances)
                sums[part] += areas @ chances, areas @ doubtful, areas.sum()
    water, flood = (calibration.interval(*part) for part in sums.tolist())
    unit = "px" if cells is None else "km2"
    return AreaIntervals(water, None if permanent_water is None else flood, unit)


def said_of(calibration: Calibration) -> str:
    """A calibration in words, which a likelihood keeps as its tag `TAG`."""
    return " ".join(f"{name}={value:.6g}" for name, value in asdict(calibration).items())


def _strips(chance: Any, calibration: Calibration) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """First row and likelihood (height, columns) of a probability, strip by strip."""
    for strip in strips(chance.shape):
        yield strip.row_off, calibration.likelihood(read_bands(chance, indexes=1, window=strip))


def _seen(stored: NDArray[Any]) -> int:
    return int(np.count_nonzero(stored != IGNORE))
