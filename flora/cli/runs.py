"""How `flora map` maps one scene or many, and what it says meanwhile."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flora.cli.console import console
from flora.cli.finished import finished_maps
from flora.cli.products import Products
from flora.cli.spelling import area_words, in_one_line, offset_words
from flora.errors import FloraError, Given
from flora.predictors import EVEN

if TYPE_CHECKING:
    from flora.cli.bars import SceneBar
    from flora.cli.finished import OpenScene
    from flora.scenes.many import MakePredictor, MapOptions, SceneReport, Workers
    from flora.scenes.outputs import SceneOutputs
    from flora.scenes.reading import SceneReading


class Run:
    """One call of `flora map`.

    Args:
        out: Where maps go.
        predictor: Makes the model, or the method.
        products: What is made of the maps.
        reading: How scenes are opened.
        mapping: How they are mapped.
        reuse: Take existing maps.
        year: When the scene was taken; None takes it from its name.
        remark: What is said of the threshold as soon as a scene is accepted; may be empty.
    """

    def __init__(
        self,
        out: Path,
        predictor: MakePredictor,
        products: Products,
        reading: SceneReading,
        mapping: MapOptions,
        *,
        reuse: bool,
        year: int | None,
        remark: str = "",
    ) -> None:
        self._out, self._predictor, self._products = out, predictor, products
        self._reading, self._mapping = reading, mapping
        self._reuse, self._year, self._remark = reuse, year, remark
        self._console = console()

    def one(self, paths: list[Path], bar: SceneBar) -> None:
        """Map one scene of one file or two, and make its products."""
        from flora.scenes.mapping import map_scene
        from flora.scenes.thresholds import fitted

        outputs = self._finished(paths)
        if outputs is None:
            with bar, self._reading.opened(paths) as (scene, before):
                given = Given("sar_path", scene.name)
                self._products.check_scene(scene.grid, scene.viewing, given)
                bar.accepted(scene)
                self._say_remark()
                outputs = map_scene(
                    scene,
                    self._out,
                    fitted(self._predictor(), scene),
                    before=before,
                    tiling=self._mapping.tiling,
                    threshold=self._mapping.threshold,
                    overwrite=self._mapping.overwrite,
                    model_id=self._mapping.model_id,
                    progress=bar.show,
                )
        self._report(outputs, paths)

    def many(self, scenes: list[Path], workers: int, address: str | None, place: str) -> None:
        """Map scenes, and make the products of each as soon as it is mapped.

        Raises:
            Exit: With code 1, if one failed.
        """
        from flora.scenes.many import map_scenes

        failures: dict[Path, FloraError] = {}

        def products(path: Path, outputs: SceneOutputs) -> None:
            try:
                self._report(outputs, [path])
            except FloraError as error:
                failures[path] = error

        def ended(report: SceneReport) -> None:
            if report.outputs is not None:
                self._console.print(f"{report.path.name}: {report.seconds:.0f} s")
                products(report.path, report.outputs)
            elif report.error is not None:
                failures[report.path] = report.error
                self._console.print(f"{report.path.name}: failed")

        waiting = []
        for path in scenes:
            try:
                outputs = self._finished([path])
                if outputs is None:
                    grid, viewing = self._reading.inspected(path)
                    self._products.check_scene(grid, viewing, Given("sar_path", path))
            except FloraError as error:
                failures[path] = error
                continue
            if outputs is None:
                waiting.append(path)
            else:
                self._console.print(f"{path.name}: mapped before")
                products(path, outputs)
        if waiting:
            self._say_remark()
            map_scenes(
                waiting,
                self._out,
                self._predictor,
                reading=self._reading,
                mapping=self._mapping,
                workers=_processes(workers, address, place),
                done=ended,
            )
        if failures:
            _print_failures(failures, len(scenes))
            raise typer.Exit(1)

    def _say_remark(self) -> None:
        """Say once what the threshold is."""
        if self._remark:
            self._console.print(self._remark)
            self._remark = ""

    def _finished(self, paths: list[Path]) -> SceneOutputs | None:
        """The maps of an earlier run, if they are to be taken and are there.

        Raises:
            FloraError: If they are there and are neither to be taken nor replaced.
        """
        from flora.scenes.outputs import check_targets
        from flora.scenes.work import settle

        stem = paths[0].stem
        settle(self._out, stem)
        if self._reuse:
            threshold, align = self._mapping.threshold, self._reading.align
            asked, opened = EVEN if threshold is None else threshold, self._opener(paths)
            return finished_maps(self._out, stem, opened, asked, self._made_by(), align)
        try:
            check_targets(self._out, stem, self._mapping.overwrite)
        except FloraError as error:
            error.add_note("to make something of these maps, pass --reuse")
            raise
        return None

    def _made_by(self) -> dict[str, str]:
        """Tags by which maps that this run would make are told from others."""
        from flora.scenes.dates import names_of

        reading, model = self._reading, self._mapping.model_id
        facts = model if isinstance(model, dict) else {}
        said = {f"FLORA_{name.upper()}": value for name, value in facts.items()}
        if reading.before is not None:
            said["FLORA_BEFORE"] = reading.before.name
        if reading.sar_before:
            said["FLORA_SAR_BEFORE"] = names_of(reading.sar_before)
        return said

    def _report(self, outputs: SceneOutputs, paths: list[Path]) -> None:
        """Say which maps were written and how much water is on them; then make the products."""
        from flora.scenes.before import ALIGNED_TAG
        from flora.scenes.names import SIGMA0_TAG, date_in_name
        from flora.scenes.thresholds import OTSU_CHANGE_TAG, OTSU_TAG
        from flora.scenes.work import settled

        self._say_remark()
        for path in (outputs.water_probability, outputs.water_mask, outputs.rgb, outputs.quicklook):
            if path is not None:
                self._console.print(f"  {path}")
        share = outputs.water_pixels / outputs.valid_pixels
        area = "" if outputs.water_km2 is None else f", {area_words(0, outputs.water_km2)}"
        tags = self._tags(outputs)
        water = "New water" if OTSU_CHANGE_TAG in tags else "Water"
        self._console.print(
            f"{water}: {outputs.water_pixels} of {outputs.valid_pixels} px ({share:.1%}){area}"
        )
        if ALIGNED_TAG in tags:
            self._console.print(offset_words(tags))
        if SIGMA0_TAG in tags:
            self._console.print(f"Backscatter: sigma0, from {tags[SIGMA0_TAG]}")
        said = [
            f"{name} below {tags[tag]} dB"
            for name, tag in (("VH", OTSU_TAG), ("its change", OTSU_CHANGE_TAG))
            if tag in tags
        ]
        if said:
            self._console.print(f"Otsu: {', '.join(said)}")
        taken = date_in_name(paths[0])
        year = self._year or (None if taken is None else taken.year)
        try:
            stem = paths[0].stem
            with settled(self._out, stem) if self._products.in_folder else nullcontext():
                for line in self._products.make(outputs, stem, self._opener(paths), year):
                    self._console.print(line)
        except FloraError as error:
            if not self._reuse:
                error.add_note("the maps are finished: pass --reuse to go on from them")
            raise

    def _tags(self, outputs: SceneOutputs) -> dict[str, str]:
        """What the maps keep of how they were made, such as the thresholds of Otsu's method."""
        from flora.grid import open_raster

        with open_raster(outputs.water_mask, "output_folder") as mask:
            tags: dict[str, str] = mask.tags()
        return tags

    def _opener(self, paths: list[Path]) -> OpenScene:
        return partial(self._reading.scene, paths)


def _processes(workers: int, address: str | None, place: str) -> Workers:
    """The processes that map scenes.

    Raises:
        FloraError: If there are fewer GPUs.
    """
    import torch

    from flora.scenes.many import Workers

    threads = 1 if address else max(1, torch.get_num_threads() // max(1, workers))
    if not (workers and place.startswith("cuda")):
        return Workers(count=workers, address=address, threads=threads)
    found = torch.cuda.device_count()
    if workers > found:
        raise FloraError(
            f"--workers {workers}: more than the {found} GPUs here; use {found}, or --device cpu"
        )
    return Workers(gpus=range(workers), threads=threads)


def _print_failures(failures: dict[Path, FloraError], scenes: int) -> None:
    errors = console(error=True)
    errors.print(f"Failed: {len(failures)} of {scenes} scenes", style="red")
    for path, error in failures.items():
        errors.print(f"  {path.name}: {in_one_line(error)}", style="red")
