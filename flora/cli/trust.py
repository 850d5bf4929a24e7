"""The options of `flora map` that say where a map is not to be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from flora.cli.spelling import area_words
from flora.errors import FloraError, FloraWarning
from flora.files import make_folder

if TYPE_CHECKING:
    from flora.grid import Grid
    from flora.maps.trust import TrustAreas, TrustLimits
    from flora.scenes.safe.correction import Correction
    from flora.scenes.viewing import Viewing

AUTO = "auto"
PANEL = "Where not to trust the map"


@dataclass(frozen=True)
class TrustOptions:
    """The elevation, and the limits that it is compared with."""

    dem: Annotated[
        list[str] | None,
        typer.Option(
            help="Elevation in m, such as tiles of Copernicus DEM; may be given several times. Or "
            "`auto`: Copernicus DEM is fetched into OUT/STEM_dem.tif, from the catalogue of "
            "--stac, else from planetary-computer; or the name or address of another catalogue. "
            "Writes STEM_trust.tif, and corrects the terrain of products.",
            metavar="FILE|auto",
            rich_help_panel=PANEL,
        ),
    ] = None
    geoid: Annotated[
        float | None,
        typer.Option(
            help="Height of the geoid above the ellipsoid, m, for the correction of terrain; "
            "default: as PROJ's grid of EGM2008 says.",
            rich_help_panel=PANEL,
        ),
    ] = None
    uncorrected: Annotated[
        bool,
        typer.Option(
            "--uncorrected",
            help="Put ground range products on the map by their control points, in spite of --dem.",
            rich_help_panel=PANEL,
        ),
    ] = False
    depth: Annotated[
        bool,
        typer.Option(
            "--depth",
            help="Write STEM_depth.tif: how deep the flood is, from the ground at its edge.",
            rich_help_panel=PANEL,
        ),
    ] = False
    slope_limit: Annotated[
        float, typer.Option(help="Degrees from which ground is steep.", rich_help_panel=PANEL)
    ] = 10.0
    hand_limit: Annotated[
        float,
        typer.Option(
            help="Metres above the nearest drainage from which ground is high.",
            rich_help_panel=PANEL,
        ),
    ] = 15.0
    orbit: Annotated[
        Literal["ascending", "descending"] | None,
        typer.Option(
            help="Direction of flight, from which radar shadow and layover follow; a product says "
            "it itself, and its angles.",
            rich_help_panel=PANEL,
        ),
    ] = None

    @property
    def files(self) -> list[Path]:
        """Elevation that is there already."""
        return [Path(name) for name in self.dem or () if not _is_catalogue(name)]

    @property
    def catalogue(self) -> str | None:
        """Where elevation is to be fetched from; "auto" leaves that open."""
        return next((name for name in self.dem or () if _is_catalogue(name)), None)

    @property
    def correction(self) -> Correction | None:
        """What the terrain of products is corrected by."""
        from flora.scenes.safe.correction import Correction

        if not self.files or self.uncorrected:
            return None
        return Correction(tuple(path.absolute() for path in self.files), self.geoid)

    @property
    def limits(self) -> TrustLimits:
        """The limits, for the library."""
        from flora.maps.trust import TrustLimits

        return TrustLimits(self.slope_limit, self.hand_limit, self.orbit)

    def check(self) -> None:
        """Refuse limits out of range or without elevation, and a missing library.

        Raises:
            FloraError: If there is something to refuse.
        """
        from flora.maps.terrain import check_installed

        if self.dem is None:
            given = {"orbit": self.orbit, "geoid": self.geoid, "depth": self.depth or None}
            for argument, value in given.items():
                if value is not None:
                    raise FloraError(
                        "goes with --dem FILE",
                        argument=argument,
                        value=None if value is True else value,
                        remedy="add that",
                    )
            return
        if self.catalogue is not None and len(self.dem) > 1:
            raise FloraError(
                "is fetched from one catalogue, or read from files",
                argument="dem",
                value=", ".join(self.dem),
                remedy="name one of the two",
            )
        check_installed()
        _ = self.limits, self.correction

    def check_scene(self, pixels: Grid, viewing: Viewing | None) -> None:
        """Refuse elevation or a direction of flight that does not fit a scene, before it is mapped.

        Args:
            pixels: What is to be mapped.
            viewing: How the radar looked, where its annotation tells.

        Raises:
            FloraError: If the scene has no CRS, a file is refused, none reaches the scene, or its
                annotation says another direction of flight.
        """
        from flora.maps.terrain import read_terrain

        if self.orbit is not None:
            self.limits.view(viewing)
        if self.files:
            read_terrain(self.files, pixels)

    def fetched(
        self, grids: Mapping[str, Callable[[], Grid]], out: Path, endpoint: str, fresh: bool
    ) -> Self:
        """The same, with elevation as files: where it is to be fetched, around each scene.

        Args:
            grids: What finds the pixels of each scene, by its name.
            out: Where the maps go.
            endpoint: The catalogue that "auto" means.
            fresh: Fetch what is there already again.

        Raises:
            FloraError: If it cannot be had.
        """
        if self.catalogue is None:
            return self
        from flora.stac.elevation import fetch_elevation

        make_folder(out)
        files = []
        for stem, find in grids.items():
            with warnings.catch_warnings():  # it is said when the scene is read
                warnings.simplefilter("ignore", FloraWarning)
                grid = find()
            target = out / f"{stem}_dem.tif"
            if fresh or not _surrounds(target, grid):
                named = endpoint if self.catalogue == AUTO else self.catalogue
                found = fetch_elevation(grid, target, endpoint=named, overwrite=True)
                typer.echo(f"Elevation: {found}")
            else:
                typer.echo(f"Elevation: {target}, fetched before")
            files.append(str(target))
        return replace(self, dem=files)

    def said(self, areas: TrustAreas, flood: str) -> str:
        """What the terminal says of doubtful water.

        Args:
            areas: What was found.
            flood: What the water is called.
        """
        from flora.maps.trust import DOUBTS, REASONS

        def words(reason: str) -> str:
            return f"{reason} {area_words(areas.pixels[reason], areas.km2.get(reason))}"

        parts = [words(reason) for bit, reason in REASONS.items() if bit & DOUBTS]
        dark = [words(reason) for bit, reason in REASONS.items() if not bit & DOUBTS]
        if not areas.looked:
            parts[2] = "shadow and layover not looked for without --orbit"
        doubtful = area_words(areas.doubtful_pixels, areas.doubtful_km2)
        return (
            f"Of the {flood}, {doubtful} lie where the map is not to be trusted "
            f"({', '.join(parts)}); {dark[0]}"
        )


def _is_catalogue(name: str) -> bool:
    """Whether elevation is named by where it is fetched from."""
    from flora.stac.search import ENDPOINTS

    known = name == AUTO or name in ENDPOINTS or name.startswith(("http://", "https://"))
    return known and not Path(name).exists()


def _surrounds(path: Path, grid: Grid) -> bool:
    """Whether a file is elevation that was fetched around just these pixels."""
    from flora.grid import Grid, open_raster
    from flora.scenes.elevation import terrain_grid

    if not path.is_file():
        return False
    with open_raster(path, "dem") as file:
        return "FLORA_ENDPOINT" in file.tags() and Grid.of(file).same_as(terrain_grid(grid))
