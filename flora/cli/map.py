"""The command that maps scenes: map."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flora.cli.bars import SceneBar
from flora.cli.products import Products
from flora.cli.runs import Run
from flora.cli.search import BlocksBar, parse_bbox
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.stac.fetch import FetchedScene


class Units(StrEnum):
    """Units of backscatter in a file."""

    db = "db"
    linear = "linear"


Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: a GPU if there is one.")
]

PART, FLOOD, MANY = "Part, grid and tiles", "Flood, polygons, page", "Many scenes"


def map_(
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the GeoTIFFs and the quicklook. An interrupted run leaves its rows "
            "there; the same command goes on from them."
        ),
    ],
    sar: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SAR]...",
            help="Sentinel-1 GeoTIFF, bands VV and VH; or a ground range product (.SAFE, .zip). "
            "One or several.",
        ),
    ] = None,
    vh: Annotated[
        Path | None, typer.Option(help="GeoTIFF of VH, where the other one holds VV alone.")
    ] = None,
    stac: Annotated[
        str | None,
        typer.Option(
            help="In place of SAR: address or JSON file of a STAC item; it is fetched into OUT.",
            metavar="ITEM",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights; default: those that come with the package.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            help="Sentinel-2 Level-1C GeoTIFF from before the flood: 13 bands, or B4, B3, B2, B8; "
            "reflectance x 10000 without the offset of baseline 04.00. With --stac, `auto` "
            "fetches the clearest image of the two months before.",
            metavar="FILE",
        ),
    ] = None,
    before_gap: Annotated[
        int,
        typer.Option(
            min=0,
            help="Days that the image of `--before auto` is older than the radar at least: more "
            "than the flood had lasted by then.",
        ),
    ] = 10,
    units: Annotated[
        Units | None,
        typer.Option(help="Units of the backscatter; default: db, and of --stac linear."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability that counts as water.")
    ] = 0.5,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
    reuse: Annotated[
        bool,
        typer.Option(
            help="Take maps and fetched scenes that OUT holds already instead of making them "
            "again, to add products or scenes to a finished run."
        ),
    ] = False,
    permanent_water: Annotated[
        Path | None,
        typer.Option(
            help="What was always wet, on any grid: a mask, a water mask of a scene from before "
            "the flood, or with a threshold JRC occurrence. Writes STEM_flood.tif.",
            rich_help_panel=FLOOD,
        ),
    ] = None,
    permanent_threshold: Annotated[
        float | None,
        typer.Option(
            help="Stored value from which water is permanent, 50 (per cent) for JRC occurrence.",
            rich_help_panel=FLOOD,
        ),
    ] = None,
    polygons: Annotated[
        bool,
        typer.Option(
            "--polygons",
            help="Write STEM_polygons.gpkg and .geojson.",
            rich_help_panel=FLOOD,
        ),
    ] = False,
    minimum_area: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Smallest polygon and smallest hole, m2; default: all.",
            rich_help_panel=FLOOD,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write a map as one page that opens anywhere; of several scenes, a folder of "
            "pages.",
            rich_help_panel=FLOOD,
        ),
    ] = None,
    attribution: Annotated[
        str | None,
        typer.Option(
            help="What the page says of its sources; default: Contains modified Copernicus "
            "Sentinel data, and the year in the scene's name.",
            rich_help_panel=FLOOD,
        ),
    ] = None,
    window: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            help="Map a part, in pixels.", metavar="COL ROW WIDTH HEIGHT", rich_help_panel=PART
        ),
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option(
            help="Map a part: west, south, east, north in degrees (EPSG:4326), e.g. "
            "-0.80,38.08,-0.74,38.12; of --stac, only that is fetched.",
            metavar="W,S,E,N",
            rich_help_panel=PART,
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Resample to 10 m in this CRS: utm, or e.g. EPSG:32630.", rich_help_panel=PART
        ),
    ] = None,
    keep_noise: Annotated[
        bool,
        typer.Option(
            "--keep-noise",
            help="Leave the thermal noise in a ground range product; by default it is subtracted.",
            rich_help_panel=PART,
        ),
    ] = False,
    tile: Annotated[
        int, typer.Option(min=32, help="Side of a tile, px.", rich_help_panel=PART)
    ] = 1024,
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Overlap of tiles, px; default: a quarter of a tile.",
            rich_help_panel=PART,
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Tiles computed at once.", rich_help_panel=PART)
    ] = 1,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes on this computer, one scene each at a time; on GPUs, one for each GPU. "
            "0: one scene after the other.",
            rich_help_panel=MANY,
        ),
    ] = 0,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Scheduler of a running Dask cluster that sees the same disk.",
            metavar="ADDRESS",
            rich_help_panel=MANY,
        ),
    ] = None,
    device: Device = None,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Map water and reconstruct the optical image of Sentinel-1 scenes of any size."""
    import torch

    from flora.models.checkpoints import shipped_weights
    from flora.models.weights import load_model, sensor_of
    from flora.scenes.inputs import SceneReading
    from flora.scenes.many import Mapping, WeightsPredictor, check_names
    from flora.scenes.tiles import Tiling
    from flora.training.evaluation import choose_device

    _check_usage(sar, stac, vh, before, workers, dask)
    box = None if bbox is None else parse_bbox(bbox)
    load_model(weights)  # a file that is refused is refused once, not by every scene
    sar_scaling, optical_scaling = sensor_of(weights)
    if sar_scaling.unit != "dB":
        raise FloraError(
            f"--weights {weights}: trained on {sar_scaling.name} ({sar_scaling.unit}), a scene is "
            "in dB; choose weights trained on sigma0 in dB"
        )
    place = "each worker's" if dask and device is None else str(choose_device(device))
    scenes = [path.absolute() for path in sar or ()]
    image = None if before in (None, "auto") else Path(before).absolute()
    year = None
    if stac is not None:
        fetched = _fetch(
            stac, out, box, before_gap if before == "auto" else None, units, overwrite, reuse, quiet
        )
        scenes, year, box, units = [fetched.sar], fetched.taken.year, None, Units.db
        image = fetched.before or image
    check_names(scenes)
    products = Products(
        folder=out,
        permanent_water=permanent_water,
        permanent_threshold=permanent_threshold,
        polygons=polygons,
        minimum_area=minimum_area,
        html=html,
        several=len(scenes) > 1,
        before=image,
        attribution=attribution,
        overwrite=overwrite,
    )
    products.check([path.stem for path in scenes], threshold)
    reading = SceneReading(
        scaling=sar_scaling,
        units=(units or Units.db).value,
        window=window,
        bbox=box,
        grid=grid,
        remove_noise=not keep_noise,
        before=image,
        before_scaling=optical_scaling,
    )
    checksum = hashlib.sha256((weights or shipped_weights()).read_bytes()).hexdigest()
    model_id = f"{checksum} on {place} by torch {torch.__version__}"
    predictor = WeightsPredictor(weights and weights.absolute(), device)
    mapping = Mapping(Tiling(tile, overlap, batch), threshold, model_id, overwrite)
    run = Run(out, predictor, products, reading, mapping, reuse=reuse, year=year)
    if len(scenes) > 1 or workers or dask:
        run.many(scenes, workers, dask, place)
    else:
        run.one(scenes if vh is None else [*scenes, vh.absolute()], SceneBar(quiet))


def _check_usage(
    sar: list[Path] | None,
    stac: str | None,
    vh: Path | None,
    before: str | None,
    workers: int,
    dask: str | None,
) -> None:
    """Refuse options that do not go together."""
    if not sar and stac is None:
        raise FloraError("SAR: no scene; name one file or several, or a catalogue's with --stac")
    if sar and stac is not None:
        raise FloraError(f"--stac {stac}: is in place of files, but {sar[0]} is named; leave one")
    if vh is not None and (stac is not None or len(sar or ()) > 1 or workers or dask):
        raise FloraError(
            f"--vh {vh}: goes with one file that holds VV alone; of several scenes, stack each "
            "pair into one file (gdalbuildvrt -separate)"
        )
    if before == "auto" and stac is None:
        raise FloraError("--before auto: goes with --stac; else name a file")
    if workers and dask:
        raise FloraError(f"--workers {workers}, --dask {dask}: expected one of the two")


def _fetch(
    item: str,
    out: Path,
    bbox: tuple[float, float, float, float] | None,
    before_gap: int | None,
    units: Units | None,
    overwrite: bool,
    reuse: bool,
    quiet: bool,
) -> FetchedScene:
    from flora.stac.fetch import fetch_item

    with BlocksBar() as bar:
        fetched = fetch_item(
            item,
            out,
            bbox=bbox,
            before_gap=before_gap,
            units=(units or Units.linear).value,
            overwrite=overwrite,
            reuse=reuse,
            progress=None if quiet else bar.show,
        )
    if fetched.before is not None:
        typer.echo(f"Image from before the flood: {fetched.image}")
    return fetched
