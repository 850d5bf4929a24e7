"""The command that maps a scene: map."""

from __future__ import annotations

import hashlib
import time
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.scene_inputs import SarScene
    from flora.scene_outputs import SceneOutputs


class Units(StrEnum):
    """Units of backscatter in a file."""

    db = "db"
    linear = "linear"


Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: a GPU if there is one.")
]


def map_(
    sar: Annotated[
        Path,
        typer.Argument(
            help="Sentinel-1 GeoTIFF, bands VV and VH; or a ground range product (.SAFE, .zip)."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the GeoTIFFs and the quicklook. An interrupted run leaves its rows "
            "there; the same command goes on from them."
        ),
    ],
    vh: Annotated[
        Path | None, typer.Option(help="GeoTIFF of VH, where the other one holds VV alone.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights; default: those that come with the package.")
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(
            help="Sentinel-2 Level-1C GeoTIFF from before the flood: 13 bands, or B4, B3, B2, B8; "
            "reflectance x 10000 without the offset of baseline 04.00."
        ),
    ] = None,
    units: Annotated[Units, typer.Option(help="Units of the backscatter.")] = Units.db,
    window: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(help="Map a part, in pixels.", metavar="COL ROW WIDTH HEIGHT"),
    ] = None,
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(help="Map a part, in degrees (EPSG:4326).", metavar="WEST SOUTH EAST NORTH"),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(help="Resample to 10 m in this CRS: utm, or e.g. EPSG:32630."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability that counts as water.")
    ] = 0.5,
    tile: Annotated[int, typer.Option(min=32, help="Side of a tile, px.")] = 512,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Overlap of tiles, px; default: a quarter of a tile.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Tiles computed at once.")] = 4,
    overwrite: Annotated[bool, typer.Option(help="Replace outputs that exist.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
    device: Device = None,
) -> None:
    """Map water and reconstruct the optical image of a Sentinel-1 scene of any size."""
    import torch

    from flora.checkpoints import shipped_weights
    from flora.evaluation import choose_device
    from flora.scene_norm import SceneNormalised
    from flora.scenes import map_scene
    from flora.zoo import load_model, scene_predictor, sensor_of

    network = load_model(weights)
    sar_scaling, optical_scaling = sensor_of(weights)
    if sar_scaling.unit != "dB":
        raise FloraError(
            f"--weights {weights}: trained on {sar_scaling.name} ({sar_scaling.unit}), a scene is "
            "in dB; choose weights trained on sigma0 in dB"
        )
    place = choose_device(device)
    checksum = hashlib.sha256((weights or shipped_weights()).read_bytes()).hexdigest()
    with SceneBar(quiet) as bar:
        outputs = map_scene(
            sar if vh is None else [sar, vh],
            out,
            SceneNormalised(network, partial(scene_predictor, device=place)),
            sar_scaling=sar_scaling,
            optical_scaling=optical_scaling,
            before_path=before,
            units=units.value,
            window=window,
            bbox=bbox,
            grid=grid,
            tile=tile,
            overlap=overlap,
            batch=batch,
            threshold=threshold,
            overwrite=overwrite,
            model_id=f"{checksum} on {place} by torch {torch.__version__}",
            accepted=bar.accepted,
            progress=bar.show,
        )
    report(outputs)


def report(outputs: SceneOutputs) -> None:
    """Say which files were written, and how much water is on them."""
    console = Console(soft_wrap=True, highlight=False)
    for path in (outputs.water_probability, outputs.water_mask, outputs.rgb, outputs.quicklook):
        if path is not None:
            console.print(f"  {path}", markup=False)
    share = outputs.water_pixels / outputs.valid_pixels
    area = "" if outputs.water_km2 is None else f", {outputs.water_km2:.4g} km2"
    console.print(f"Water: {outputs.water_pixels} of {outputs.valid_pixels} px ({share:.1%}){area}")


class SceneBar:
    """A progress bar with speed and time left; it appears with the first tile.

    Args:
        quiet: Show nothing.

    Attributes:
        text: What stands beside the bar.
    """

    def __init__(self, quiet: bool = False) -> None:
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
        self.text = ""
        self._row = self._bar.add_task(self.text)
        self._km2: float | None = None
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:  # stopping writes a line even where nothing was shown
            self._bar.stop()

    def accepted(self, scene: SarScene) -> None:
        """Take the area of a scene."""
        from flora.scene_outputs import cell_areas_km2

        areas = cell_areas_km2(scene.crs, scene.transform, scene.shape)
        self._km2 = None if areas is None else float(areas.sum()) * scene.shape[1]

    def show(self, done: int, total: int) -> None:
        """Show `done` of `total` tiles, and the speed since the first call."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
            self._bar.start()
        before, start = self._first
        said = f"{done} of {total} tiles"
        if done > before:
            tiles_per_second = (done - before) / (now - start)
            if self._km2 is not None:
                said += f", {self._km2 / total * tiles_per_second:,.0f} km2/s"
            left = timedelta(seconds=round((total - done) / tiles_per_second))
            said += f", {left} left" if left else ", writing the maps"
        self.text = said
        self._bar.update(self._row, completed=done, total=total, description=said)
