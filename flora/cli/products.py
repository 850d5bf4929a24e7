"""What `flora map` makes of finished maps: flood, polygons, and a page to send."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from flora.errors import FloraError, FloraWarning

if TYPE_CHECKING:
    from flora.scenes.inputs import SarScene
    from flora.scenes.outputs import SceneOutputs
    from flora.sensors import FloatArray

OpenScene = Callable[[], "AbstractContextManager[SarScene]"]

ATTRIBUTION = "Contains modified Copernicus Sentinel data"
FIRST_YEAR = 2014  # of Sentinel-1
DATE_IN_NAME = re.compile(r"(?<!\d)(20\d\d)-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])(?!\d)")
STRIP = 512  # rows of a scene read at a time


@dataclass(frozen=True)
class Products:
    """What is made besides the maps, and how.

    Attributes:
        folder: Where files go; they are named after their scene.
        permanent_water: What is known of water before the flood, see `flora.split_flood`.
        permanent_threshold: See there.
        polygons: Whether polygons are written.
        minimum_area: See `flora.write_polygons`.
        html: Page to write; of several scenes, the folder of their pages.
        several: Whether there are several scenes.
        before: Image from before the flood, shown on the page.
        attribution: What the page says of its sources; None says what the Sentinel licence asks.
        overwrite: Replace existing files.
    """

    folder: Path
    permanent_water: Path | None = None
    permanent_threshold: float | None = None
    polygons: bool = False
    minimum_area: float | None = None
    html: Path | None = None
    several: bool = False
    before: Path | None = None
    attribution: str | None = None
    overwrite: bool = False

    def check(self, stems: Sequence[str], threshold: float) -> None:
        """Refuse before anything is computed what would be refused after it.

        Args:
            stems: Names of the scenes.
            threshold: Of the water mask.

        Raises:
            FloraError: If options do not go together, or a file to be written exists.
        """
        from flora.maps.permanent import check_permanent_water

        for option, given, other, wanted in (
            ("--permanent-threshold", self.permanent_threshold, "--permanent-water FILE",
             self.permanent_water),
            ("--minimum-area", self.minimum_area, "--polygons", self.polygons or None),
            ("--attribution", self.attribution, "--html FILE", self.html),
        ):  # fmt: skip
            if given is not None and wanted is None:
                raise FloraError(f"{option} {given}: goes with {other}; add that")
        if self.permanent_water is not None:
            check_permanent_water(self.permanent_water, self.permanent_threshold)
        if self.html is not None:
            if self.several and self.html.is_file():
                raise FloraError(
                    f"--html {self.html}: is a file; of several scenes, expected a folder"
                )
            if not 0.01 <= threshold <= 0.99:
                raise FloraError(
                    f"--threshold {threshold}: with --html, expected a probability from 0.01 to "
                    "0.99, where its slider ends"
                )
        for stem in stems:
            for option, path in self._targets(stem):
                if path.is_dir():
                    raise FloraError(f"{option}: {path} is a folder, expected the name of a file")
                if path.exists() and not self.overwrite:
                    raise FloraError(
                        f"{option}: {path} exists already; choose another name, or pass --overwrite"
                    )

    def make(
        self, outputs: SceneOutputs, stem: str, opened: OpenScene, year: int | None
    ) -> Iterator[str]:
        """Make the products of one scene; yields a line for each to be printed.

        Args:
            outputs: Its maps.
            stem: Its name.
            opened: Opens it.
            year: When it was taken.

        Raises:
            FloraError: If the maps do not allow it (no CRS, no overlap), or the disk refuses.
        """
        from flora.maps.floods import split_flood
        from flora.maps.polygons import write_polygons

        targets = dict(self._targets(stem))
        classes, outlines = outputs.water_mask, None
        if self.permanent_water is not None:
            split = split_flood(
                outputs.water_mask,
                targets["--permanent-water"],
                self.permanent_water,
                permanent_threshold=self.permanent_threshold,
                overwrite=self.overwrite,
            )
            classes = split.classes
            flood = area_words(split.flood_pixels, split.flood_km2)
            permanent = area_words(split.permanent_pixels, split.permanent_km2)
            yield f"  {classes}"
            yield f"New flood: {flood}; permanent water: {permanent}"
        if self.polygons:
            found = write_polygons(
                classes,
                targets["--polygons"],
                probability=outputs.water_probability,
                minimum_area=self.minimum_area or 0.0,
                overwrite=self.overwrite,
            )
            outlines = found.geojson
            yield f"  {found.geopackage}"
            yield f"  {found.geojson}"
            parts = ", ".join(f"{name} {km2:.4g} km2" for name, km2 in found.km2.items())
            yield f"Polygons: {found.count} ({parts})"
        if self.html is not None:
            self._write_page(targets["--html"], outputs, opened, year, outlines)
            yield f"  {targets['--html']}"

    def _targets(self, stem: str) -> Iterator[tuple[str, Path]]:
        """Option and file of each product; of two files the one that the other is named after."""
        if self.permanent_water is not None:
            yield "--permanent-water", self.folder / f"{stem}_flood.tif"
        if self.polygons:
            yield "--polygons", self.folder / f"{stem}_polygons.geojson"
            yield "--polygons", self.folder / f"{stem}_polygons.gpkg"
        if self.html is not None:
            yield "--html", self.html / f"{stem}.html" if self.several else self.html

    def _write_page(
        self,
        target: Path,
        outputs: SceneOutputs,
        opened: OpenScene,
        year: int | None,
        outlines: Path | None,
    ) -> None:
        from flora.files import make_folder
        from flora.maps.layers import read_map
        from flora.maps.page import write_html

        attribution = self.attribution
        if attribution is None:
            attribution = ATTRIBUTION if year is None else f"{ATTRIBUTION} {year}"
            if year is None:
                warnings.warn(
                    "--html: no date in the scene's name, but the licence of Sentinel data asks "
                    f"for the year; pass e.g. --attribution '{ATTRIBUTION} 2019'",
                    FloraWarning,
                    stacklevel=2,
                )
        make_folder(target.parent)
        with tempfile.TemporaryDirectory() as temporary:
            backscatter = Path(temporary) / "backscatter.tif"
            with opened() as scene:
                write_view(scene, backscatter)
            page = read_map(
                outputs.water_probability,
                sar=backscatter,
                rgb=outputs.rgb,
                before=self.before,
                permanent_water=self.permanent_water,
                permanent_threshold=self.permanent_threshold,
                polygons=outlines,
            ).labelled(attribution=attribution)
            write_html(page, target, overwrite=self.overwrite)


def finished_maps(
    folder: Path, stem: str, opened: OpenScene, threshold: float
) -> SceneOutputs | None:
    """The maps that an earlier run wrote of a scene; None where they are not all there.

    Args:
        folder: Where they are.
        stem: Name of the scene.
        opened: Opens what is to be mapped.
        threshold: Of the water mask that is asked for.

    Raises:
        FloraError: If they are of another part, grid or threshold.
    """
    from flora.grid import Grid, open_raster
    from flora.maps.floods import water_strips
    from flora.scenes.outputs import SceneOutputs, cell_areas_km2, check_targets
    from flora.sensors import IGNORE, WATER

    targets = check_targets(folder, stem, overwrite=True)
    if not all(path.is_file() for name, path in targets.items() if name != "rgb"):
        return None
    wrong = f"--reuse: {targets['water_mask']} was made"
    with open_raster(targets["water_mask"], "--reuse") as mask:
        used = float(mask.tags().get("FLORA_WATER_THRESHOLD", "nan"))
        if f"{used:g}" != f"{threshold:g}":
            raise FloraError(
                f"{wrong} with --threshold {used:g}, expected {threshold:g}; pass that threshold, "
                "or --overwrite without --reuse"
            )
        with opened() as scene:
            if not Grid.of(mask).same_as(scene.grid):
                raise FloraError(
                    f"{wrong} of another part or on another grid than is asked for; pass the same "
                    "options, or --overwrite without --reuse"
                )
        areas = cell_areas_km2(mask.crs, mask.transform, mask.shape)
        counts = np.concatenate(
            [
                np.stack([(codes == WATER).sum(axis=1), (codes != IGNORE).sum(axis=1)])
                for _, codes in water_strips(mask)
            ],
            axis=1,
        )
    pixels = counts.sum(axis=1).tolist()
    km2 = [None, None] if areas is None else (counts @ areas).tolist()
    return SceneOutputs(
        water_probability=targets["water_probability"],
        water_mask=targets["water_mask"],
        rgb=targets["rgb"] if targets["rgb"].is_file() else None,
        quicklook=targets["quicklook"],
        water_pixels=pixels[0],
        valid_pixels=pixels[1],
        water_km2=km2[0],
        valid_km2=km2[1],
    )


def area_words(pixels: int, km2: float | None) -> str:
    """An area in km2, or in pixels where nothing says how large these are."""
    return f"{pixels} px" if km2 is None else f"{km2:.4g} km2"


def year_in_name(path: Path) -> int | None:
    """The year of the first date in a file's name, as of every Sentinel-1 product; else None."""
    years = (int(year) for year in DATE_IN_NAME.findall(path.name))
    return next((year for year in years if year >= FIRST_YEAR), None)


def write_view(scene: SarScene, path: Path) -> None:
    """Write VV of a scene in dB, averaged in power to about a thousand pixels a side.

    It shows every kind of scene alike: one file, two files, a product, a part of one.
    """
    step = scene.sample_step
    grid = scene.grid.coarse(step)
    view = np.empty(grid.shape, dtype=np.float32)
    lines = max(1, STRIP // step)
    for row in range(0, len(view), lines):
        height = min(lines * step, scene.shape[0] - row * step)
        values, valid = scene.read(row * step, height)
        view[row : row + lines] = multilook(np.where(valid, values[0], np.nan), step)
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "nodata": np.nan}
    profile |= {"height": grid.shape[0], "width": grid.shape[1]}
    profile |= {"crs": grid.crs, "transform": grid.transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a page shows such a scene, too
        with rasterio.open(path, "w", **profile) as file:
            file.write(view, 1)


def multilook(decibels: FloatArray, step: int) -> FloatArray:
    """Mean power in dB of blocks of `step` x `step` pixels.

    Args:
        decibels: (rows, columns), NaN in nodata; the last blocks may be cut.
        step: Side of a block.

    Returns:
        (rows / step, columns / step), rounded up; NaN where nothing is known.
    """
    rows, columns = (-(-side // step) for side in decibels.shape)
    padding = [
        (0, whole * step - side)
        for whole, side in zip((rows, columns), decibels.shape, strict=True)
    ]
    power = np.pad(10 ** (decibels / 10), padding, constant_values=np.nan)
    blocks = power.reshape(rows, step, columns, step)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3))
    known = count > 0
    mean = np.divide(total, count, out=np.ones((rows, columns)), where=known)
    return np.where(known, 10 * np.log10(mean), np.nan).astype(np.float32)
