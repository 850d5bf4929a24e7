"""What `flora map` makes of finished maps: flood, polygons, and a page to send."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flora.cli.rivals import differences_said, write_against_otsu
from flora.cli.spelling import area_words
from flora.errors import FloraError, FloraWarning, Given
from flora.files import check_outputs, check_writable, make_folder, new_file

if TYPE_CHECKING:
    from flora.cli.finished import OpenScene
    from flora.cli.likely import Likely
    from flora.cli.scenes import ExistingOptions
    from flora.cli.trust import TrustOptions
    from flora.cli.wanted import ProductOptions
    from flora.grid import Grid
    from flora.maps.floods import FloodAreas
    from flora.maps.likelihood import AreaIntervals
    from flora.scenes.outputs import SceneOutputs
    from flora.scenes.tiles import Tiling
    from flora.scenes.viewing import Viewing

ATTRIBUTION = "Contains modified Copernicus Sentinel data"


@dataclass(frozen=True)
class Products:
    """What is made besides the maps, and where it goes.

    Attributes:
        wanted: What is made.
        trust: Where the maps are not to be trusted.
        likely: How likely the water is.
        tiling: How a rival's map is cut.
        folder: Where files go; they are named after their scene.
        existing: What becomes of files that are there.
        several: Whether there are several scenes: then `wanted.html` is the folder of their pages.
        before: Image from before the flood, shown on the page; without one, the earlier radar
            scene is, where there is one.
    """

    wanted: ProductOptions
    trust: TrustOptions
    likely: Likely
    tiling: Tiling
    folder: Path
    existing: ExistingOptions
    several: bool = False
    before: Path | None = None

    @property
    def overwrite(self) -> bool:
        """Whether existing files are replaced."""
        return self.existing.overwrite

    @property
    def in_folder(self) -> bool:
        """Whether something is made beside the maps."""
        return bool(self._targets("").keys() - {"page"})

    def check_files(self, stems: Sequence[str], inputs: Sequence[Given]) -> None:
        """Refuse files that are in the way of the maps or of what is made of them.

        Args:
            stems: Names of the scenes.
            inputs: Files that are read, besides the permanent water.

        Raises:
            FloraError: If an output is a folder, an input or another output, or a product exists.
        """
        from flora.grid import raster_files
        from flora.scenes.outputs import check_targets

        page = self.wanted.html
        if page is not None and self.several and page.is_file():
            raise FloraError(
                "is a file, of several scenes expected a folder",
                argument="html",
                value=page,
                remedy="choose another name",
            )
        maps = [
            Given("output_folder", path)
            for stem in stems
            for path in check_targets(self.folder, stem, overwrite=True).values()
        ]
        made = [given for stem in stems for given in self._targets(stem).values()]
        named = [("permanent_water", self.wanted.permanent_water)]
        named += [("dem", path) for path in self.trust.files]
        known = [Given(name, file) for name, path in named for file in raster_files(path)]
        check_outputs([*maps, *made], [*inputs, *known])
        check_writable([*maps, *made])
        for stem in stems:
            mapped = check_targets(self.folder, stem, overwrite=True)["water_mask"].exists()
            for name, given in self._targets(stem).items():
                # Maps that are there are refused, or held against what made them, before it is.
                if name != "likelihood" or not mapped:
                    self._check_new(given)

    def check_scene(self, pixels: Grid, viewing: Viewing | None, source: Given) -> None:
        """Refuse a scene of which these things cannot be made, before it is mapped.

        Args:
            pixels: What is to be mapped.
            viewing: How the radar looked, where its annotation tells.
            source: The argument that named the scene.

        Raises:
            FloraError: If it has no CRS, permanent water or elevation lies elsewhere, or its
                annotation says another direction of flight than was given.
        """
        self.wanted.check_scene(pixels, source)
        self.trust.check_scene(pixels, viewing)

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
        from flora.maps.polygons import write_polygons

        wanted = self.wanted
        targets = {name: Path(str(given.value)) for name, given in self._targets(stem).items()}
        self._warn_of_flood(stem)
        classes, outlines = outputs.water_mask, None
        mapped = {"water": _area(outputs.water_pixels, outputs.water_km2)}
        if wanted.permanent_water is not None:
            classes = targets["flood"]
            flood = yield from self._write_flood(classes, outputs, wanted.permanent_water)
            mapped["flood"] = _area(flood.flood_pixels, flood.flood_km2)
        intervals = self._intervals(outputs)
        if "likelihood" in targets:
            chance, made = outputs.water_probability, targets["likelihood"]
            yield from self.likely.write(chance, made, self.overwrite)
        yield self.likely.said(intervals, mapped)
        if wanted.polygons:
            found = write_polygons(
                classes,
                targets["geojson"],
                probability=outputs.water_probability,
                minimum_area=wanted.minimum_area or 0.0,
                overwrite=self.overwrite,
            )
            outlines = found.geojson
            yield f"  {found.geopackage}"
            yield f"  {found.geojson}"
            parts = ", ".join(f"{name} {km2:.4g} km2" for name, km2 in found.km2.items())
            yield f"Polygons: {found.count} ({parts})"
        if self.trust.dem is not None:
            yield from self._write_trust(targets["trust"], classes, opened)
        if self.trust.depth:
            yield from self._write_depth(targets["depth"], classes)
        if "against" in targets:
            mask, made = outputs.water_mask, targets["against"]
            differences = write_against_otsu(mask, made, opened, self.tiling, self.overwrite)
            yield f"  {made}"
            yield differences_said(differences)
        if wanted.html is None and not wanted.item:
            return
        said = self._attribution(year)
        if wanted.html is not None:
            self._write_page(targets, outputs, opened, said, outlines, intervals)
            yield f"  {targets['page']}"
        if wanted.item:
            self._write_item(targets, outputs, opened, said, intervals)
            yield f"  {targets['item']}"

    def _check_new(self, given: Given) -> None:
        """Refuse a product that exists, and say how it is made anew of maps that are kept."""
        path = Path(str(given.value))
        if self.existing.reuse and not self.overwrite and path.is_file():
            raise FloraError(
                "exists already",
                argument=given.argument,
                value=path,
                remedy="pass {overwrite}, too: the maps are kept, what is made of them is new",
                overwrite=True,
            )
        new_file(path, given.argument, self.overwrite)

    def _targets(self, stem: str) -> dict[str, Given]:
        """File of each product, with the argument that leads to its name."""
        targets = {}
        if self.wanted.permanent_water is not None:
            targets["flood"] = Given("output_folder", self.folder / f"{stem}_flood.tif")
        if self.wanted.polygons:
            for ending in ("geojson", "gpkg"):
                path = self.folder / f"{stem}_polygons.{ending}"
                targets[ending] = Given("output_folder", path)
        likelihood = self.likely.target(self.folder, stem)
        if likelihood is not None:
            targets["likelihood"] = Given("output_folder", likelihood)
        if self.wanted.against is not None:
            path = self.folder / f"{stem}_against_{self.wanted.against}.tif"
            targets["against"] = Given("output_folder", path)
        if self.trust.dem is not None:
            targets["trust"] = Given("output_folder", self.folder / f"{stem}_trust.tif")
        if self.trust.depth:
            targets["depth"] = Given("output_folder", self.folder / f"{stem}_depth.tif")
        if self.wanted.item:
            targets["item"] = Given("output_folder", self.folder / f"{stem}_item.json")
        page = self.wanted.html
        if page is not None:
            targets["page"] = Given("html", page / f"{stem}.html" if self.several else page)
        return targets

    def _warn_of_flood(self, stem: str) -> None:
        """Warn where a flood of an earlier run lies beside what is made of all water."""
        flood = self.folder / f"{stem}_flood.tif"
        of_classes = (self.wanted.polygons, self.wanted.html, self.trust.dem)
        if self.wanted.permanent_water is None and any(of_classes) and flood.is_file():
            warnings.warn(
                FloraWarning(
                    "of an earlier run, is not read: what is made here is of all water",
                    argument="output_folder",
                    value=flood,
                    remedy="name the permanent water again, and pass {overwrite}",
                    overwrite=True,
                ),
                stacklevel=2,
            )

    def _write_flood(
        self, target: Path, outputs: SceneOutputs, permanent_water: Path
    ) -> Generator[str, None, FloodAreas]:
        from flora.maps.floods import split_flood

        split = split_flood(
            outputs.water_mask,
            target,
            permanent_water,
            permanent_threshold=self.wanted.permanent_threshold,
            permanent_class=self.wanted.permanent_class,
            overwrite=self.overwrite,
        )
        flood = area_words(split.flood_pixels, split.flood_km2)
        permanent = area_words(split.permanent_pixels, split.permanent_km2)
        yield f"  {split.classes}"
        yield f"New flood: {flood}; permanent water: {permanent}"
        return split

    def _intervals(self, outputs: SceneOutputs) -> AreaIntervals | None:
        """Between which areas the true ones should lie; None without a calibration."""
        from flora.maps.likelihood import area_intervals

        if self.likely.calibration is None:
            return None
        return area_intervals(
            outputs.water_probability,
            self.likely.calibration,
            permanent_water=self.wanted.permanent_water,
            permanent_threshold=self.wanted.permanent_threshold,
            permanent_class=self.wanted.permanent_class,
        )

    def _write_trust(self, target: Path, classes: Path, opened: OpenScene) -> Iterator[str]:
        from flora.maps.trust import write_trust

        with opened() as scene:
            doubts = write_trust(
                classes,
                scene,
                self.trust.files,
                target,
                limits=self.trust.limits,
                overwrite=self.overwrite,
            )
        yield f"  {doubts.trust}"
        yield self.trust.said(doubts, "flood" if self.wanted.permanent_water else "water")

    def _write_depth(self, target: Path, classes: Path) -> Iterator[str]:
        from flora.maps.depth import write_depth

        found = write_depth(classes, self.trust.files, target, overwrite=self.overwrite)
        yield f"  {found.depth}"
        if not found.cells:
            yield "Depth of the flood: the map shows no flood"
            return
        if math.isnan(found.median):
            yield "Depth of the flood: not known, since none has an edge of known elevation"
            return
        yield (
            f"Depth of the flood: half of it below {found.median:.1f} m, 95 % below "
            f"{found.high:.1f} m, as far as the elevation can tell"
        )

    def _write_item(
        self,
        targets: dict[str, Path],
        outputs: SceneOutputs,
        opened: OpenScene,
        attribution: str,
        intervals: AreaIntervals | None,
    ) -> None:
        from flora.maps.item import write_item

        names = ("water_probability", "water_mask", "rgb", "quicklook")
        maps = {name: path for name in names if (path := getattr(outputs, name)) is not None}
        made = {name: path for name, path in targets.items() if name != "item"}
        read = {"before": self.before, "permanent_water": self.wanted.permanent_water}
        inputs = {role: [path] for role, path in read.items() if path is not None}
        with opened() as scene:
            write_item(
                targets["item"],
                outputs.water_mask,
                scene,
                maps | made,
                inputs={**inputs, "dem": self.trust.files},
                attribution=attribution,
                facts=self.likely.facts(intervals),
                overwrite=self.overwrite,
            )

    def _write_page(
        self,
        targets: dict[str, Path],
        outputs: SceneOutputs,
        opened: OpenScene,
        attribution: str,
        outlines: Path | None,
        intervals: AreaIntervals | None,
    ) -> None:
        from flora.cli.view import write_view
        from flora.maps.layers import read_map
        from flora.maps.page import write_html

        target = targets["page"]
        make_folder(target.parent)
        with tempfile.TemporaryDirectory() as temporary:
            backscatter = Path(temporary) / "backscatter.tif"
            before = self.before
            with opened() as scene:
                write_view(scene, backscatter, scene.shown)
                if before is None and scene.scaling.dates > 1:
                    before = Path(temporary) / "earlier.tif"
                    write_view(scene, before, 0)
            page = read_map(
                outputs.water_probability,
                sar=backscatter,
                rgb=outputs.rgb,
                before=before,
                permanent_water=self.wanted.permanent_water,
                permanent_threshold=self.wanted.permanent_threshold,
                permanent_class=self.wanted.permanent_class,
                polygons=outlines,
            ).labelled(attribution=attribution)
            if "trust" in targets:
                page = page.with_doubts(targets["trust"])
            if "against" in targets:
                page = page.with_differences(targets["against"])
            if intervals is not None:
                page = page.with_intervals(intervals, self.likely.promise())
            write_html(page, target, overwrite=self.overwrite)

    def _attribution(self, year: int | None) -> str:
        """What the page says of its sources: what the licences of Sentinel data and DEM ask for."""
        from flora.grid import open_raster

        said = [self._attribution_of_sentinel(year)]
        for path in self.trust.files:
            with open_raster(path, "dem") as file:
                said.append(file.tags().get("FLORA_ATTRIBUTION", ""))
        return ". ".join(dict.fromkeys(text for text in said if text))

    def _attribution_of_sentinel(self, year: int | None) -> str:
        if self.wanted.attribution is not None:
            return self.wanted.attribution
        if year is not None:
            return f"{ATTRIBUTION} {year}"
        warnings.warn(
            "no date in the scene's name, but the licence of Sentinel data asks for the "
            f"year; pass e.g. --attribution '{ATTRIBUTION} 2019'",
            FloraWarning,
            stacklevel=2,
        )
        return ATTRIBUTION


def _area(pixels: int, km2: float | None) -> float:
    """An area in the unit of the intervals: km2, or pixels where no CRS tells their size."""
    return pixels if km2 is None else km2
