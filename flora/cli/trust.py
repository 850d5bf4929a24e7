"""The options of `flora map` that say where a map is not to be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flora.cli.spelling import area_words
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.maps.trust import TrustAreas, TrustLimits

PANEL = "Where not to trust the map"


@dataclass(frozen=True)
class TrustOptions:
    """The elevation, and the limits that it is compared with."""

    dem: Annotated[
        list[Path] | None,
        typer.Option(
            help="Elevation in m, such as tiles of Copernicus DEM; may be given several times. "
            "Writes STEM_trust.tif.",
            rich_help_panel=PANEL,
        ),
    ] = None
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
            help="Direction of flight, from which radar shadow and layover follow.",
            rich_help_panel=PANEL,
        ),
    ] = None

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
            if self.orbit is not None:
                raise FloraError(
                    "goes with --dem FILE", argument="orbit", value=self.orbit, remedy="add that"
                )
            return
        check_installed()
        _ = self.limits

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
        if self.orbit is None:
            parts[2] = "shadow and layover not looked for without --orbit"
        doubtful = area_words(areas.doubtful_pixels, areas.doubtful_km2)
        return (
            f"Of the {flood}, {doubtful} lie where the map is not to be trusted "
            f"({', '.join(parts)}); {dark[0]}"
        )
