"""The command that maps scenes: map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flora.cli.bars import SceneBar
from flora.cli.likely import Likely
from flora.cli.method import ModelOptions
from flora.cli.options import Quiet
from flora.cli.products import Products
from flora.cli.runs import Run
from flora.cli.scenes import (
    ExistingOptions,
    Found,
    SceneOptions,
    example_given,
    found_scenes,
)
from flora.cli.search import parse_bbox
from flora.cli.trust import TrustOptions
from flora.cli.wanted import ProductOptions
from flora.errors import FloraError, Given

if TYPE_CHECKING:
    from flora.grid import Grid
    from flora.scenes.many import MapOptions
    from flora.scenes.reading import SceneReading
    from flora.scenes.tiles import Tiling
    from flora.sensors import OpticalScaling, SarScaling

PART, MANY = "Part, grid and tiles", "Many scenes"


@dataclass(frozen=True)
class PartOptions:
    """Which part of a scene is mapped, on which grid, and how it is cut."""

    window: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            help="Map a part, in pixels.", metavar="COL ROW WIDTH HEIGHT", rich_help_panel=PART
        ),
    ] = None
    bbox: Annotated[
        str | None,
        typer.Option(
            help="Map a part: west, south, east, north in degrees (EPSG:4326), e.g. "
            "-0.80,38.08,-0.74,38.12; of --stac, only that is fetched.",
            metavar="W,S,E,N",
            rich_help_panel=PART,
        ),
    ] = None
    grid: Annotated[
        str | None,
        typer.Option(
            help="Resample to 10 m in this CRS: utm, or e.g. EPSG:32630.", rich_help_panel=PART
        ),
    ] = None
    keep_noise: Annotated[
        bool,
        typer.Option(
            "--keep-noise",
            help="Leave the thermal noise in a ground range product; by default it is subtracted.",
            rich_help_panel=PART,
        ),
    ] = False
    tile: Annotated[
        int,
        typer.Option(
            min=32,
            help="Height of a tile, px; it is twice as wide.",
            rich_help_panel=PART,
        ),
    ] = 1024
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Overlap of tiles, px; default: 256, at most half a tile.",
            rich_help_panel=PART,
        ),
    ] = None
    batch: Annotated[
        int, typer.Option(min=1, help="Tiles computed at once.", rich_help_panel=PART)
    ] = 1


@dataclass(frozen=True)
class WorkerOptions:
    """How many scenes are mapped at once."""

    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes on this computer, one scene each at a time; on GPUs, one for each GPU. "
            "0: one scene after the other.",
            rich_help_panel=MANY,
        ),
    ] = 0
    dask: Annotated[
        str | None,
        typer.Option(
            help="Scheduler of a running Dask cluster that sees the same disk.",
            metavar="ADDRESS",
            rich_help_panel=MANY,
        ),
    ] = None


def map_(
    scenes: SceneOptions,
    model: ModelOptions,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the GeoTIFFs and the quicklook. An interrupted run leaves its rows "
            "there; the same command goes on from them (of --stac with --reuse)."
        ),
    ],
    existing: ExistingOptions,
    wanted: ProductOptions,
    trust: TrustOptions,
    part: PartOptions,
    workers: WorkerOptions,
    quiet: Quiet = False,
) -> None:
    """Map water and reconstruct the optical image of Sentinel-1 scenes of any size."""
    from flora.scenes.many import check_names
    from flora.training.evaluation import choose_device

    if scenes.example:
        scenes, wanted = example_given(scenes, wanted, out, existing)
    _check_usage(scenes, workers)
    box = None if part.bbox is None else parse_bbox(part.bbox)
    model.check(scenes.before)
    sensors = model.sensors(scenes.dates, scenes.sar_before)
    wanted.check(model.threshold, model.method)
    trust.check()
    remote = workers.dask is not None and model.device is None
    place = "each worker's" if remote else str(choose_device(model.device))
    found = found_scenes(scenes, out, box, existing, quiet)
    several = len(found.paths) > 1 and scenes.vh is None and not scenes.as_one
    stems = [path.stem for path in (found.paths if several else found.paths[:1])]
    check_names(found.paths if several else found.paths[:1])
    guided = found.before is not None
    threshold, remark = model.least(scenes.dates, guided)
    likely = Likely.of(model.chosen(scenes.dates), guided, existing.reuse)
    products = Products(wanted, trust, likely, _tiling(part), out, existing, several, found.before)
    products.check_files(stems, _inputs(found, scenes.stac, model.weights))
    facts = model.facts(place, scenes.dates)
    mapping = _mapping(products.tiling, threshold, facts, existing.overwrite)
    reading = _reading(found, part, sensors, scenes.align)
    if trust.catalogue is not None:
        scenes_of = [[path] for path in found.paths] if several else [found.paths]
        grids = _grids(stems, scenes_of, reading)
        again = existing.overwrite and not existing.reuse
        trust = trust.fetched(grids, out, found.endpoint, again)
        products = replace(products, trust=trust)
    reading = replace(reading, correction=trust.correction, incidence=scenes.incidence)
    makes, reuse = model.makes(scenes.dates), existing.reuse
    run = Run(out, makes, products, reading, mapping, reuse=reuse, year=found.year, remark=remark)
    if several or workers.workers or workers.dask:
        run.many(found.paths, workers.workers, workers.dask, place)
    else:
        run.one(found.paths, SceneBar(quiet))


def _grids(
    stems: Sequence[str], scenes: Sequence[list[Path]], reading: SceneReading
) -> dict[str, Callable[[], Grid]]:
    """What gives the pixels of each scene, by its name."""
    return {s: partial(reading.grid_of, n) for s, n in zip(stems, scenes, strict=True)}


def _check_usage(scenes: SceneOptions, workers: WorkerOptions) -> None:
    """Refuse options that do not go together."""
    sar, stac, vh = scenes.sar or [], scenes.stac, scenes.vh
    if not sar and stac is None:
        raise FloraError(
            "SAR: no scene; name one file or several, or a catalogue's with --stac, or pass "
            "--example"
        )
    if sar and stac is not None:
        raise FloraError(f"--stac {stac}: is in place of files, but {sar[0]} is named; leave one")
    if scenes.as_one and (len(sar) < 2 or vh is not None or workers.workers or workers.dask):
        raise FloraError(
            "goes with several products (.SAFE, .zip) of one pass, and without --vh or workers",
            argument="as_one",
            remedy="name them all, or leave it",
        )
    if vh is not None and (stac is not None or len(sar) > 1 or workers.workers or workers.dask):
        raise FloraError(
            f"--vh {vh}: goes with one file that holds VV alone; of several scenes, stack each "
            "pair into one file (gdalbuildvrt -separate)"
        )
    if scenes.before == "auto" and stac is None:
        raise FloraError("--before auto: goes with --stac; else name a file")
    if workers.workers and workers.dask:
        raise FloraError(
            f"--workers {workers.workers}, --dask {workers.dask}: expected one of the two"
        )


def _inputs(found: Found, stac: str | None, weights: Path | None) -> list[Given]:
    """Files that no output may replace."""
    from flora.grid import raster_files

    item = Given("stac", stac if stac is not None and Path(stac).is_file() else None)
    named = [("sar_path", path) for path in found.paths]
    named += [("before_path", path) for path in (found.before,) if path is not None]
    named += [("sar_before", path) for path in found.sar_before]
    rasters = [Given(name, file) for name, path in named for file in raster_files(path)]
    return [*rasters, item, Given("weights", weights)]


def _reading(
    found: Found, part: PartOptions, sensors: tuple[SarScaling, OpticalScaling], align: bool
) -> SceneReading:
    from flora.scenes.reading import SceneReading

    return SceneReading(
        scaling=sensors[0],
        units=found.units,
        window=part.window,
        bbox=found.bbox,
        grid=part.grid,
        remove_noise=not part.keep_noise,
        before=found.before,
        before_scaling=sensors[1],
        align=align,
        sar_before=found.sar_before,
    )


def _tiling(part: PartOptions) -> Tiling:
    """How scenes are cut."""
    from flora.scenes.tiles import Tiling

    return Tiling(part.tile, part.overlap, part.batch)


def _mapping(
    tiling: Tiling, threshold: float, facts: dict[str, str], overwrite: bool
) -> MapOptions:
    """How scenes are mapped; the facts of the model change with weights, device and torch."""
    from flora.scenes.many import MapOptions

    return MapOptions(tiling, threshold, facts, overwrite)
