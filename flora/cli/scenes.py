"""Which scenes `flora map` maps: files that were named, a catalogue's item, or the example."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from flora.cli.earlier import earlier_dates, earlier_files, fetched_earlier
from flora.cli.search import BlocksBar
from flora.cli.wanted import ProductOptions
from flora.errors import FloraError
from flora.files import new_file
from flora.sensors import Units


@dataclass(frozen=True)
class SceneOptions:
    """Which scenes are mapped."""

    sar: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SAR]...",
            help="Sentinel-1 GeoTIFF, bands VV and VH; or a ground range product (.SAFE, .zip). "
            "One or several.",
        ),
    ] = None
    as_one: Annotated[
        bool,
        typer.Option(
            "--as-one",
            help="Map several ground range products, slices of one pass, as one scene.",
        ),
    ] = False
    example: Annotated[
        bool,
        typer.Option(
            "--example",
            help="In place of SAR: a small real scene that comes with the package. Writes a page, "
            "OUT/map.html, too.",
        ),
    ] = False
    vh: Annotated[
        Path | None, typer.Option(help="GeoTIFF of VH, where the other one holds VV alone.")
    ] = None
    stac: Annotated[
        str | None,
        typer.Option(
            help="In place of SAR: address or JSON file of a STAC item; it is fetched into OUT.",
            metavar="ITEM",
        ),
    ] = None
    before: Annotated[
        str | None,
        typer.Option(
            help="Sentinel-2 image from before the flood: a GeoTIFF (bands by name, or 13, 12 or "
            "B4, B3, B2, B8; reflectance x 10000, or as its scale and offset say), or a product "
            "(.SAFE, .zip). With --stac, `auto` fetches the clearest image of the two months "
            "before.",
            metavar="FILE",
        ),
    ] = None
    align: Annotated[
        bool,
        typer.Option(
            help="Move the image of --before back by its offset from the radar, where that is 2 px "
            "or more and clear; the offset is said either way."
        ),
    ] = True
    sar_before: Annotated[
        list[str] | None,
        typer.Option(
            help="Radar scene from before the flood, on any grid, as SAR and in the same units; "
            "of the same orbit if possible. May be given several times. With --stac, `auto` "
            "fetches the latest one of the same orbit that covers the area, `auto:3` three.",
            metavar="FILE",
        ),
    ] = None
    before_gap: Annotated[
        int,
        typer.Option(
            min=0,
            help="Days that what `--before auto` and `--sar-before auto` fetch is older than the "
            "radar at least: more than the flood had lasted by then.",
        ),
    ] = 10
    units: Annotated[
        Units | None,
        typer.Option(help="Units of the backscatter; default: db, and of --stac linear."),
    ] = None

    incidence: Annotated[
        float | None,
        typer.Option(
            help="Angle of incidence in degrees, by which gamma0 or beta0 is read as sigma0; "
            "default: what a fetched file says of the place, else the middle of the swath; 0 "
            "leaves it as it is, for weights that know it."
        ),
    ] = None

    @property
    def image(self) -> Path | None:
        """The image from before the flood, where a file is named."""
        return None if self.before in (None, "auto") else Path(self.before).absolute()

    @property
    def dates(self) -> int:
        """Radar dates of a scene."""
        return 1 + earlier_dates(self.sar_before, self.stac)


@dataclass(frozen=True)
class ExistingOptions:
    """What becomes of files that are there already."""

    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False
    reuse: Annotated[
        bool,
        typer.Option(
            help="Take maps and fetched scenes that OUT holds already instead of making them "
            "again, to add products or scenes to a finished run."
        ),
    ] = False


@dataclass(frozen=True)
class Found:
    """The files that are mapped, with what is known of them.

    Attributes:
        paths: One file or product a scene, or the two files of one scene.
        before: Image from before the flood.
        sar_before: Radar scenes from before the flood.
        units: Of the backscatter.
        bbox: Part to map, in degrees.
        year: When they were taken, if a catalogue says so.
        endpoint: The catalogue they are of, else the one that is asked for elevation.
    """

    paths: list[Path]
    before: Path | None
    sar_before: tuple[Path, ...]
    units: Units
    bbox: tuple[float, float, float, float] | None
    year: int | None = None
    endpoint: str = "planetary-computer"


def example_given(
    scenes: SceneOptions, wanted: ProductOptions, out: Path, existing: ExistingOptions
) -> tuple[SceneOptions, ProductOptions]:
    """The scene that comes with the package, and a page that says whose it is.

    Raises:
        FloraError: If a scene of one's own is named, too, or the page exists.
    """
    from flora.scenes.example import ATTRIBUTION, example_scene
    from flora.scenes.names import MIDDLE_INCIDENCE

    for argument, value in (("sar_path", scenes.sar), ("vh", scenes.vh), ("stac", scenes.stac)):
        if value:
            named = value[0] if isinstance(value, list) else value
            raise FloraError(
                "--example brings a scene of its own",
                argument=argument,
                value=named,
                remedy="leave one of the two out",
            )
    page, attribution = wanted.html or out / "map.html", wanted.attribution or ATTRIBUTION
    if wanted.html is None and not existing.reuse:
        new_file(page, "output_folder", existing.overwrite)
    made = replace(wanted, html=page, attribution=attribution)
    # Nothing says at which angle it was seen; that of the middle is taken without a warning.
    angle = MIDDLE_INCIDENCE if scenes.incidence is None else scenes.incidence
    return replace(scenes, sar=[example_scene()], incidence=angle), made


def found_scenes(
    scenes: SceneOptions,
    out: Path,
    box: tuple[float, float, float, float] | None,
    existing: ExistingOptions,
    quiet: bool,
) -> Found:
    """The scenes that were named, or the one of a catalogue, fetched."""
    if scenes.stac is None:
        return _named_scenes(scenes, box)
    return _fetched_scene(scenes.stac, scenes, out, box, existing, quiet)


def _named_scenes(scenes: SceneOptions, box: tuple[float, float, float, float] | None) -> Found:
    """The scenes whose files were named."""
    from flora.scenes.safe.folders import product_of

    named = (*(scenes.sar or ()), scenes.vh)
    paths = [product_of(path.absolute()) for path in named if path is not None]
    earlier = earlier_files(scenes.sar_before)
    return Found(paths, scenes.image, earlier, scenes.units or "db", box)


def _fetched_scene(
    item: str,
    scenes: SceneOptions,
    out: Path,
    box: tuple[float, float, float, float] | None,
    existing: ExistingOptions,
    quiet: bool,
) -> Found:
    """The scene of a catalogue, fetched: cut to the box, in dB."""
    from flora.stac.fetch import fetch_item

    with BlocksBar() as bar:
        fetched = fetch_item(
            item,
            out,
            bbox=box,
            before_gap=scenes.before_gap if scenes.before == "auto" else None,
            units=scenes.units or "linear",
            overwrite=existing.overwrite,
            reuse=existing.reuse,
            progress=None if quiet else bar.show,
        )
    if fetched.before is not None:
        typer.echo(f"Image from before the flood: {fetched.image}")
    earlier = earlier_files(scenes.sar_before)
    if scenes.sar_before and not earlier:
        with BlocksBar() as bar:
            earlier = fetched_earlier(
                item,
                fetched.sar.parent / "before",
                count=scenes.dates - 1,
                gap=scenes.before_gap,
                bbox=box,
                units=scenes.units or "linear",
                overwrite=existing.overwrite,
                reuse=existing.reuse,
                progress=None if quiet else bar.show,
            )
    image, year = fetched.before or scenes.image, fetched.taken.year
    endpoint = fetched.endpoint or Found.endpoint
    return Found([fetched.sar], image, earlier, "db", None, year, endpoint)
