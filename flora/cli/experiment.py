"""The command that runs the experiments of the book: experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flora.cli import data as cli_data
from flora.cli.data import Yes
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.experiments.runner import Experiment


def experiment(
    name: Annotated[str | None, typer.Argument(help="Name of the experiment, see --list.")] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Show all experiments, and what of them is recorded.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that holds one folder a dataset, as the downloads make it."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="First fetch into --root what is missing there."),
    ] = False,
    yes: Yes = False,
    runs: Annotated[Path, typer.Option(help="Folder for weights, logs and checkpoints.")] = Path(
        "runs"
    ),
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results"),
    only: Annotated[
        list[str] | None, typer.Option(help="Only this competitor; may be given several times.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Only this seed; may be given several times.")
    ] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="AlexNet weights (.npz) for LPIPS; without, no LPIPS.")
    ] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Train and score all competitors of an experiment; what is recorded is not run again."""
    from flora.experiments.catalogue import EXPERIMENTS, ON_A_GPU, named_experiment
    from flora.experiments.runner import Runner, recorded_trials
    from flora.training.evaluation import choose_device
    from flora.training.metrics import load_lpips

    console = Console(highlight=False, soft_wrap=True)
    if show:
        table = Table("experiment", "question", "trials recorded")
        for known, entry in (EXPERIMENTS | ON_A_GPU).items():
            runner = Runner(known, entry, root, runs, results)
            done = len(recorded_trials(results / f"{known}.json"))
            table.add_row(known, entry.question, f"{done} of {len(list(runner.trials()))}")
        console.print(table)
        return
    if name is None:
        raise FloraError("no experiment named: give a NAME, or --list to see them")
    perceptual = load_lpips(lpips).to(choose_device()) if lpips else None
    asked = named_experiment(name)
    if download:
        _fetch_datasets(asked, root, yes, quiet)
    runner = Runner(name, asked, root, runs, results, perceptual, quiet)
    path = runner.run(only or (), seed or ())
    console.print(f"Record: {path}")


def _fetch_datasets(asked: Experiment, root: Path | None, yes: bool, quiet: bool) -> None:
    if root is None:
        raise FloraError("--download: name the folder for the datasets with --root")
    needed = {source.dataset for source in (asked.train, *asked.tests.values())} - {"simulated"}
    known = cli_data.sources()
    for dataset in sorted(needed):
        if dataset not in known:
            raise FloraError(
                f"{dataset} has no download: put it into {root / dataset} by hand and leave out "
                "--download"
            )
        cli_data.fetch(known[dataset](), root / dataset, yes, False, 8, quiet)
