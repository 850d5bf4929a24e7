"""The command line: download, check, train, adapt, evaluate, experiment, search, map."""

from __future__ import annotations

import os
import re
import warnings
from errno import ENAMETOOLONG
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flora.cli.adapt import adapt
from flora.cli.console import console
from flora.cli.data import check, download_app
from flora.cli.evaluate import evaluate
from flora.cli.experiment import experiment
from flora.cli.map import map_
from flora.cli.options import OnceCommand, grouped
from flora.cli.search import BoxCommand, search
from flora.cli.spelling import in_one_line
from flora.cli.train import train
from flora.errors import FloraError
from flora.files import readable

NARROWEST = 20  # columns that anything can be read in


class Group(TyperGroup):
    """Commands that turn a refused input into one line and exit code 1."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line, even where COLUMNS is no usable width."""
        width = os.environ.get("COLUMNS")
        if width is not None and not (width.isdecimal() and int(width) >= NARROWEST):
            del os.environ["COLUMNS"]
        return super().main(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with --debug the error keeps its traceback."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _WarningLines()
                return super().invoke(ctx)
        except FloraError as error:
            if ctx.params["debug"]:
                raise
            screen = console(error=True)
            screen.print(f"Error: {in_one_line(error)}", style="red")
            raise typer.Exit(1) from error
        except (OSError, UnicodeEncodeError, MemoryError, RuntimeError) as error:
            said = _said_of_the_computer(error)
            if ctx.params["debug"] or said is None:
                raise
            console(error=True).print(f"Error: {said}", style="red")
            raise typer.Exit(1) from error


def _said_of_the_computer(error: Exception) -> str | None:
    """What is said of an error that the computer's limits raise anywhere; None for a defect."""
    said = str(error).partition("\n")[0]
    # torch's errors have no class of their own.
    full = isinstance(error, MemoryError) or re.search("out of memory|allocate memory", said, re.I)
    if full:
        return (
            f"the memory is full ({said[:200]}); use a smaller --tile, --batch or --crop, fewer "
            "--workers, or a part of the scene (--window, --bbox)"
        )
    if isinstance(error, UnicodeEncodeError):
        return f"a name is not UTF-8: {readable(error.object)[:200]}; rename it"
    if isinstance(error, OSError) and error.errno == ENAMETOOLONG:
        name = readable(error.filename)[:200]
        return f"a name is longer than the disk allows: {name}; rename it"
    return None


class _WarningLines:
    """Shows a warning as one line, without the source that Python would show, and only once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        """Show a warning, in place of `warnings.showwarning`."""
        line = f"Warning: {in_one_line(message)}"
        if line not in self._said:
            self._said.add(line)
            screen = console(error=True)
            screen.print(line, style="yellow")


app = typer.Typer(
    cls=Group,
    help="Flood water and an optical image from Sentinel-1 SAR.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(download_app, name="download")
app.command(cls=OnceCommand)(check)
app.command(cls=OnceCommand)(grouped(train))
app.command(cls=OnceCommand)(grouped(adapt))
app.command(cls=OnceCommand)(grouped(evaluate))
app.command(cls=OnceCommand)(grouped(experiment))
app.command(cls=BoxCommand)(grouped(search))
app.command("map", cls=BoxCommand)(grouped(map_))


def _show_version(wanted: bool) -> None:
    if wanted:
        from flora import __version__

        typer.echo(f"flora {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Flood water and an optical image from Sentinel-1 SAR."""


def main() -> None:
    """Entry point of the `flora` command."""
    app()


if __name__ == "__main__":
    main()
