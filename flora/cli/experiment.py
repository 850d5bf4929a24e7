"""The command that runs the experiments of the book: experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flora.cli import data as cli_data
from flora.cli.console import console
from flora.cli.data import Yes
from flora.cli.options import Lpips, Quiet
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.experiments.runner import Experiment


@dataclass(frozen=True)
class DataOptions:
    """Where the datasets of an experiment lie."""

    root: Annotated[
        Path | None,
        typer.Option(help="Folder that holds one folder a dataset, as the downloads make it."),
    ] = None
    download: Annotated[
        bool, typer.Option("--download", help="First fetch into --root what is missing there.")
    ] = False
    yes: Yes = False

    def fetch(self, asked: Experiment, quiet: bool) -> None:
        """Fetch the datasets of an experiment into the root.

        Raises:
            FloraError: If there is no root, or one of them has no download.
        """
        if self.root is None:
            raise FloraError("--download: name the folder for the datasets with --root")
        needed = {source.dataset for source in (asked.train, *asked.tests.values())}
        known = cli_data.publishers()
        for dataset in sorted(needed - {"simulated"}):
            if dataset not in known:
                raise FloraError(
                    f"{dataset} has no download: put it into {self.root / dataset} by hand and "
                    "leave out --download"
                )
            cli_data.fetch(known[dataset], self.root / dataset, self.yes, False, 8, quiet)


@dataclass(frozen=True)
class RunOptions:
    """What of an experiment is run, and where its runs and its record are kept."""

    runs: Annotated[Path, typer.Option(help="Folder for weights, logs and checkpoints.")] = Path(
        "runs"
    )
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results")
    only: Annotated[
        list[str] | None, typer.Option(help="Only this competitor; may be given several times.")
    ] = None
    seed: Annotated[
        list[int] | None, typer.Option(help="Only this seed; may be given several times.")
    ] = None


def experiment(
    data: DataOptions,
    run: RunOptions,
    name: Annotated[str | None, typer.Argument(help="Name of the experiment, see --list.")] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Show all experiments, and what of them is recorded.")
    ] = False,
    lpips: Lpips = None,
    quiet: Quiet = False,
) -> None:
    """Train and score all competitors of an experiment; what is recorded is not run again."""
    from flora.experiments.catalogue import named_experiment
    from flora.experiments.runner import Runner
    from flora.training.evaluation import choose_device
    from flora.training.metrics import load_lpips

    screen = console()
    if show:
        screen.print(_overview(data, run))
        return
    if name is None:
        raise FloraError("no experiment named: give a NAME, or --list to see them")
    perceptual = load_lpips(lpips).to(choose_device()) if lpips else None
    asked = named_experiment(name)
    if data.download:
        data.fetch(asked, quiet)
    runner = Runner(name, asked, data.root, run.runs, run.results, perceptual, quiet)
    path = runner.run(run.only or (), run.seed or ())
    screen.print(f"Record: {path}")


def _overview(data: DataOptions, run: RunOptions) -> Table:
    """All experiments, and how much of each is recorded."""
    from flora.experiments.catalogue import EXPERIMENTS, ON_A_GPU
    from flora.experiments.runner import Runner, recorded_trials

    table = Table("experiment", "question", "trials recorded")
    for name, entry in (EXPERIMENTS | ON_A_GPU).items():
        runner = Runner(name, entry, data.root, run.runs, run.results)
        done = len(recorded_trials(run.results / f"{name}.json"))
        table.add_row(name, entry.question, f"{done} of {len(list(runner.trials()))}")
    return table
