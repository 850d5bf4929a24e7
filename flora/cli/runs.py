"""How `flora map` maps one scene or many, and what it says meanwhile."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from flora.cli.products import Products, area_words, finished_maps, year_in_name
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.cli.bars import SceneBar
    from flora.cli.products import OpenScene
    from flora.scenes.inputs import SceneReading
    from flora.scenes.many import Mapping, SceneReport, WeightsPredictor
    from flora.scenes.outputs import SceneOutputs


class Run:
    """One call of `flora map`.

    Args:
        out: Where maps go.
        predictor: Makes the model.
        products: What is made of the maps.
        reading: How scenes are opened.
        mapping: How they are mapped.
        reuse: Take existing maps.
        year: When the scene was taken; None takes it from its name.
    """

    def __init__(
        self,
        out: Path,
        predictor: WeightsPredictor,
        products: Products,
        reading: SceneReading,
        mapping: Mapping,
        *,
        reuse: bool,
        year: int | None,
    ) -> None:
        self._out, self._predictor, self._products = out, predictor, products
        self._reading, self._mapping = reading, mapping
        self._reuse, self._year = reuse, year
        self._console = Console(soft_wrap=True, highlight=False)

    def one(self, paths: list[Path], bar: SceneBar) -> None:
        """Map one scene of one file or two, and make its products."""
        from flora.scenes.mapping import map_scene

        outputs = self._finished(paths)
        if outputs is None:
            with bar, self._reading.opened(paths) as (scene, before):
                bar.accepted(scene)
                outputs = map_scene(
                    scene,
                    self._out,
                    self._predictor(),
                    before=before,
                    **vars(self._mapping),
                    progress=bar.show,
                )
        self._report(outputs, paths)

    def many(self, scenes: list[Path], workers: int, address: str | None, place: str) -> None:
        """Map scenes, and make the products of each as soon as it is mapped.

        Raises:
            Exit: With code 1, if one failed.
        """
        import torch

        from flora.scenes.many import Workers, map_scenes

        failures: dict[Path, str] = {}

        def products(path: Path, outputs: SceneOutputs) -> None:
            try:
                self._report(outputs, [path])
            except FloraError as error:
                failures[path] = in_options(str(error))

        def ended(report: SceneReport) -> None:
            if report.outputs is not None:
                self._console.print(f"{report.path.name}: {report.seconds:.0f} s", markup=False)
                products(report.path, report.outputs)
            else:
                failures[report.path] = in_options(report.error or "")
                self._console.print(f"{report.path.name}: failed", markup=False)

        waiting = []
        for path in scenes:
            try:
                outputs = self._finished([path])
            except FloraError as error:
                failures[path] = in_options(str(error))
                continue
            if outputs is None:
                waiting.append(path)
            else:
                self._console.print(f"{path.name}: mapped before", markup=False)
                products(path, outputs)
        gpus = _gpus(workers) if workers and place.startswith("cuda") else ()
        if waiting:
            map_scenes(
                waiting,
                self._out,
                self._predictor,
                reading=self._reading,
                mapping=self._mapping,
                workers=Workers(
                    count=0 if gpus else workers,
                    address=address,
                    gpus=gpus,
                    threads=1 if address else max(1, torch.get_num_threads() // max(1, workers)),
                ),
                done=ended,
            )
        if failures:
            errors = Console(stderr=True, soft_wrap=True, highlight=False)
            errors.print(f"Failed: {len(failures)} of {len(scenes)} scenes", style="red")
            for path, reason in failures.items():
                errors.print(f"  {path.name}: {reason}", style="red", markup=False)
            raise typer.Exit(1)

    def _finished(self, paths: list[Path]) -> SceneOutputs | None:
        if not self._reuse:
            return None
        return finished_maps(self._out, paths[0].stem, self._opener(paths), self._mapping.threshold)

    def _report(self, outputs: SceneOutputs, paths: list[Path]) -> None:
        """Say which maps were written and how much water is on them; then make the products."""
        for path in (outputs.water_probability, outputs.water_mask, outputs.rgb, outputs.quicklook):
            if path is not None:
                self._console.print(f"  {path}", markup=False)
        share = outputs.water_pixels / outputs.valid_pixels
        area = "" if outputs.water_km2 is None else f", {area_words(0, outputs.water_km2)}"
        self._console.print(
            f"Water: {outputs.water_pixels} of {outputs.valid_pixels} px ({share:.1%}){area}"
        )
        year = self._year or year_in_name(paths[0])
        for line in self._products.make(outputs, paths[0].stem, self._opener(paths), year):
            self._console.print(line, markup=False)

    def _opener(self, paths: list[Path]) -> OpenScene:
        return partial(self._reading.scene, paths)


def _gpus(workers: int) -> range:
    import torch

    found = torch.cuda.device_count()
    if workers > found:
        raise FloraError(
            f"--workers {workers}: more than the {found} GPUs here; use {found}, or --device cpu"
        )
    return range(workers)


# What the library's messages call an argument, and what its users call it here.
OPTIONS = {
    "before_path": "--before",
    "grid": "--grid",
    "minimum_area": "--minimum-area",
    "output_folder": "--out",
    "overwrite": "--overwrite",
    "permanent_class": "--permanent-class",
    "permanent_threshold": "--permanent-threshold",
    "permanent_water": "--permanent-water",
    "sar_path": "SAR",
    "units": "--units",
}


def in_options(message: str) -> str:
    """A message of the library in the words of the command line.

    Example:
        >>> from flora.cli.runs import in_options
        >>> in_options("permanent_water a.tif: pass permanent_threshold=50, or overwrite=True")
        '--permanent-water a.tif: pass --permanent-threshold 50, or --overwrite'
    """

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in OPTIONS:
            return found[0]
        return OPTIONS[name] if value == "True" else f"{OPTIONS[name]} {value}"

    text = re.sub(r'\b([a-z_]+)="?([\w.:]+)"?(?: \(--[^)]*\))?', option, message)
    text = text.replace("name both one-band files", "name the file of VH by --vh")
    snake = "|".join(name for name in OPTIONS if "_" in name)
    return re.sub(rf"\b({snake})\b", lambda found: OPTIONS[found[1]], text)
