"""The command that maps scenes: map."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flora.cli.bars import SceneBar
from flora.cli.options import Device, Quiet, Threshold, Weights
from flora.cli.products import ProductOptions, Products
from flora.cli.runs import Run
from flora.cli.search import BlocksBar, parse_bbox
from flora.cli.trust import TrustOptions
from flora.errors import FloraError, Given
from flora.sensors import Units

if TYPE_CHECKING:
    from flora.scenes.many import MakePredictor, MapOptions
    from flora.scenes.reading import SceneReading
    from flora.sensors import OpticalScaling, SarScaling

PART, MANY = "Part, grid and tiles", "Many scenes"

Method = Literal["flora", "otsu"]


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
        Path | None,
        typer.Option(
            help="Radar scene from before the flood, on any grid, as SAR and in the same units; "
            "of the same orbit if possible."
        ),
    ] = None
    before_gap: Annotated[
        int,
        typer.Option(
            min=0,
            help="Days that the image of `--before auto` is older than the radar at least: more "
            "than the flood had lasted by then.",
        ),
    ] = 10
    units: Annotated[
        Units | None,
        typer.Option(help="Units of the backscatter; default: db, and of --stac linear."),
    ] = None


@dataclass(frozen=True)
class ModelOptions:
    """What maps them."""

    method: Annotated[
        Method,
        typer.Option(
            help="flora: the network; otsu: a threshold on VH that the scene gives for itself."
        ),
    ] = "flora"
    weights: Weights = None
    threshold: Threshold = 0.5
    device: Device = None
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(
            help="bfloat16 computes in half the digits: faster where the processor knows it, "
            "probabilities move by less than a hundredth."
        ),
    ] = "float32"

    def check(self, before: str | None) -> None:
        """Refuse what Otsu's method has no use for.

        Raises:
            FloraError: If weights, a threshold, a device or an optical image are given with it.
        """
        if self.method == "flora":
            return
        threshold = None if self.threshold == 0.5 else self.threshold
        for argument, value in (
            ("weights", self.weights),
            ("threshold", threshold),
            ("device", self.device),
            ("precision", None if self.precision == "float32" else self.precision),
            ("before_path", before),
        ):
            if value is not None:
                raise FloraError(
                    "--method otsu looks at the radar alone and finds its own threshold",
                    argument=argument,
                    value=value,
                    remedy="leave one of the two out",
                )

    @property
    def makes(self) -> MakePredictor:
        """Makes what maps a scene, in each process."""
        from flora.scenes.many import WeightsPredictor
        from flora.scenes.thresholds import SceneOtsu

        if self.method == "otsu":
            return SceneOtsu
        weights = self.weights and self.weights.absolute()
        return WeightsPredictor(weights, self.device, self.precision)

    def facts(self, place: str) -> dict[str, str]:
        """What tells this model from others, by name: they are kept as tags of the maps."""
        import torch

        from flora.models.checkpoints import shipped_weights

        if self.method == "otsu":
            return {"method": self.method}
        path = self.weights or shipped_weights()
        return {
            "method": self.method,
            "weights": path.name,
            "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "device": place,
            "precision": self.precision,
            "torch": torch.__version__,
        }


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
            help="Overlap of tiles, px; default: 320, at most half a tile.",
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


@dataclass(frozen=True)
class Found:
    """The files that are mapped, with what is known of them.

    Attributes:
        paths: One file or product a scene, or the two files of one scene.
        before: Image from before the flood.
        sar_before: Radar scene from before the flood.
        units: Of the backscatter.
        bbox: Part to map, in degrees.
        year: When they were taken, if a catalogue says so.
    """

    paths: list[Path]
    before: Path | None
    sar_before: Path | None
    units: Units
    bbox: tuple[float, float, float, float] | None
    year: int | None = None


def map_(
    scenes: SceneOptions,
    model: ModelOptions,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the GeoTIFFs and the quicklook. An interrupted run leaves its rows "
            "there; the same command goes on from them."
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
        scenes, wanted = _example(scenes, wanted, out)
    _check_usage(scenes, workers)
    box = None if part.bbox is None else parse_bbox(part.bbox)
    model.check(scenes.before)
    sensors = _check_model(model, scenes.sar_before)
    wanted.check(model.threshold)
    trust.check()
    remote = workers.dask is not None and model.device is None
    place = "each worker's" if remote else str(choose_device(model.device))
    if scenes.stac is None:
        found = _named(scenes, box)
    else:
        found = _fetched(scenes.stac, scenes, out, box, existing, quiet)
    several = len(found.paths) > 1 and scenes.vh is None and not scenes.as_one
    stems = [path.stem for path in (found.paths if several else found.paths[:1])]
    check_names(found.paths if several else found.paths[:1])
    products = Products(wanted, trust, out, several, found.before, overwrite=existing.overwrite)
    products.check_files(stems, _inputs(found, scenes.stac, model.weights))
    run = Run(
        out,
        model.makes,
        products,
        _reading(found, part, sensors, scenes.align),
        _mapping(model, part, existing.overwrite, place),
        reuse=existing.reuse,
        year=found.year,
    )
    if several or workers.workers or workers.dask:
        run.many(found.paths, workers.workers, workers.dask, place)
    else:
        run.one(found.paths, SceneBar(quiet))


def _example(
    scenes: SceneOptions, wanted: ProductOptions, out: Path
) -> tuple[SceneOptions, ProductOptions]:
    """The scene that comes with the package, and a page that says whose it is.

    Raises:
        FloraError: If a scene of one's own is named, too.
    """
    from flora.scenes.example import ATTRIBUTION, example_scene

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
    made = replace(wanted, html=page, attribution=attribution)
    return replace(scenes, sar=[example_scene()]), made


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


def _check_model(model: ModelOptions, sar_before: Path | None) -> tuple[SarScaling, OpticalScaling]:
    """The sensors of the model; a file that is refused is refused once, not by every scene.

    The radar's is that of one date.
    """
    from flora.models.weights import load_model, sensor_of
    from flora.sensors import SENTINEL1, SENTINEL2_RGB

    if model.method == "otsu":
        return SENTINEL1, SENTINEL2_RGB
    weights = model.weights
    load_model(weights)
    sar, optical = sensor_of(weights)
    if sar.unit != "dB":
        raise FloraError(
            f"trained on {sar.name} ({sar.unit}), a scene is in dB",
            argument="weights",
            value=weights,
            remedy="choose weights trained on sigma0 in dB",
        )
    dates = 1 if sar_before is None else 2
    if sar.dates != dates:
        number = {1: "one date", 2: "two dates"}
        given = Given("sar_before", sar_before) if sar_before else Given("weights", weights)
        raise FloraError(
            f"the weights map {number.get(sar.dates, f'{sar.dates} dates')} of radar, expected "
            f"{number[dates]}",
            argument=given,
            remedy="pass {method}, or weights trained on two dates (flora train --option "
            "sar_dates=before,after)"
            if sar_before
            else "pass {sar_before}, the scene from before the flood",
            method="otsu",
            sar_before="FILE",
        )
    return sar.of_one_date(), optical


def _named(scenes: SceneOptions, box: tuple[float, float, float, float] | None) -> Found:
    """The scenes whose files were named."""
    from flora.scenes.safe.folders import product_of

    named = (*(scenes.sar or ()), scenes.vh)
    paths = [product_of(path.absolute()) for path in named if path is not None]
    before = None if scenes.before is None else Path(scenes.before).absolute()
    earlier = scenes.sar_before and scenes.sar_before.absolute()
    return Found(paths, before, earlier, scenes.units or "db", box)


def _fetched(
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
    named = None if scenes.before in (None, "auto") else Path(scenes.before).absolute()
    earlier = scenes.sar_before and scenes.sar_before.absolute()
    return Found([fetched.sar], fetched.before or named, earlier, "db", None, fetched.taken.year)


def _inputs(found: Found, stac: str | None, weights: Path | None) -> list[Given]:
    """Files that no output may replace."""
    from flora.grid import raster_files

    item = Given("stac", stac if stac is not None and Path(stac).is_file() else None)
    named = [("sar_path", path) for path in found.paths]
    named += [("before_path", path) for path in (found.before,) if path is not None]
    named += [("sar_before", path) for path in (found.sar_before,) if path is not None]
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


def _mapping(model: ModelOptions, part: PartOptions, overwrite: bool, place: str) -> MapOptions:
    """How scenes are mapped; what is said of the model changes with weights, device and torch."""
    from flora.scenes.many import MapOptions
    from flora.scenes.tiles import Tiling

    tiling = Tiling(part.tile, part.overlap, part.batch)
    return MapOptions(tiling, model.threshold, model.facts(place), overwrite)
