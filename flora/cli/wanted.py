"""The options of `flora map` that say what is made of its maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flora.errors import FloraError, Given
from flora.predictors import EVEN

if TYPE_CHECKING:
    from flora.grid import Grid

PANEL = "Flood, polygons, page"


@dataclass(frozen=True)
class ProductOptions:
    """What is made besides the maps."""

    permanent_water: Annotated[
        Path | None,
        typer.Option(
            help="What was always wet, on any grid: a mask, a water mask of a scene from before "
            "the flood, outlines (GeoPackage, GeoJSON), with a threshold JRC occurrence, or with "
            "classes land cover. Writes STEM_flood.tif.",
            rich_help_panel=PANEL,
        ),
    ] = None
    permanent_threshold: Annotated[
        float | None,
        typer.Option(
            help="Stored value from which water is permanent, 50 (per cent) for JRC occurrence.",
            rich_help_panel=PANEL,
        ),
    ] = None
    permanent_class: Annotated[
        list[int] | None,
        typer.Option(
            help="Stored value that is permanent water, 80 for ESA WorldCover; may be given "
            "several times.",
            rich_help_panel=PANEL,
        ),
    ] = None
    polygons: Annotated[
        bool,
        typer.Option(
            "--polygons", help="Write STEM_polygons.gpkg and .geojson.", rich_help_panel=PANEL
        ),
    ] = False
    minimum_area: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Smallest polygon and smallest hole, m2; default: all.",
            rich_help_panel=PANEL,
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write a map as one page that opens anywhere; of several scenes, a folder of "
            "pages.",
            rich_help_panel=PANEL,
        ),
    ] = None
    item: Annotated[
        bool,
        typer.Option(
            "--item",
            help="Write STEM_item.json, a STAC item: when, where, what of, by which weights.",
            rich_help_panel=PANEL,
        ),
    ] = False
    against: Annotated[
        Literal["otsu"] | None,
        typer.Option(
            help="Map the scene by Otsu's method, too, and write where the two differ, "
            "STEM_against_otsu.tif.",
            rich_help_panel=PANEL,
        ),
    ] = None
    attribution: Annotated[
        str | None,
        typer.Option(
            help="What page and item say of their sources; default: Contains modified Copernicus "
            "Sentinel data, and the year in the scene's name.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def check(self, threshold: float | None, method: str) -> None:
        """Refuse options that do not go together, and permanent water that is none.

        Args:
            threshold: Of the water mask; None is a default.
            method: What maps the scene.

        Raises:
            FloraError: If there is something to refuse.
        """
        from flora.maps.permanent import check_permanent_water

        if self.against == method:
            raise FloraError(
                f"compares the network's map with that of --method {method}, which is this one",
                argument="against",
                value=self.against,
                remedy=f"leave --method {method} out",
            )

        codes = self.permanent_class[0] if self.permanent_class else None
        water, page = self.permanent_water, self.html
        for argument, given, other, there in (
            ("permanent_threshold", self.permanent_threshold, "--permanent-water FILE", water),
            ("permanent_class", codes, "--permanent-water FILE", water),
            ("minimum_area", self.minimum_area, "--polygons", self.polygons or None),
            ("attribution", self.attribution, "--html FILE", page or self.item or None),
        ):
            if given is not None and there is None:
                raise FloraError(
                    f"goes with {other}", argument=argument, value=given, remedy="add that"
                )
        if page is not None and not 0.01 <= (EVEN if threshold is None else threshold) <= 0.99:
            raise FloraError(
                "with --html, expected a probability from 0.01 to 0.99, where its slider ends",
                argument="threshold",
                value=threshold,
            )
        if water is not None:
            check_permanent_water(water, self.permanent_threshold, self.permanent_class)

    def check_scene(self, pixels: Grid, source: Given) -> None:
        """Refuse a scene of which these things cannot be made, before it is mapped.

        Args:
            pixels: What is to be mapped.
            source: The argument that named the scene.

        Raises:
            FloraError: If it has no CRS, or permanent water lies elsewhere.
        """
        from flora.maps.permanent import check_permanent_water
        from flora.maps.polygons import check_outlines

        if self.polygons:
            check_outlines(pixels, self.minimum_area or 0.0, source)
        if self.permanent_water is not None:
            check_permanent_water(
                self.permanent_water, self.permanent_threshold, self.permanent_class, pixels
            )
