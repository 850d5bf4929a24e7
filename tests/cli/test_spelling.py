"""What messages call an argument is what the command line calls it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from flora.cli.main import app
from flora.cli.spelling import in_one_line, in_shell
from flora.errors import NAME_ALONE, FloraError, FloraWarning, Given

FLORA = Path(__file__).resolve().parent.parent.parent / "flora"
ROOMS = ("scenes", "maps", "stac", "cli")
MADE = {"FloraError", "FloraWarning", "Given", "open_raster", "new_file", "writing"}

# What only Python can pass: the command line makes these itself.
IN_PYTHON = {"before_scaling", "optical", "radar", "rgb", "sar", "size", "swipe", "values"}


def test_an_argument_is_spelled_as_an_option():
    error = FloraError(
        "{units} and {grid} are set",
        argument=Given("before_path", "a.tif"),
        remedy="pass {overwrite}, or leave {grid} out; {this} stays",
        units="linear",
        grid=NAME_ALONE,
        overwrite=True,
    )
    said = (
        "--before a.tif: --units linear and --grid are set; pass --overwrite, or leave --grid out"
    )
    assert in_one_line(error) == f"{said}; {{this}} stays"
    assert str(error) == (
        'before_path a.tif: units="linear" and grid are set; pass overwrite=True, or leave grid '
        "out; {this} stays"
    )


def test_prose_is_left_alone():
    assert in_one_line(FloraWarning("dir=out, seed=3 and a grid")) == "dir=out, seed=3 and a grid"
    assert in_one_line(UserWarning("units=3")) == "units=3"


def test_notes_follow_an_error():
    error = FloraError("damaged", argument="units", remedy="copy it")
    error.add_note("pass --reuse")
    assert in_one_line(error) == "--units: damaged; copy it; pass --reuse"


def named_arguments() -> Iterator[tuple[str, str]]:
    """(file, argument) of every argument that a message of these rooms names."""
    for path in (path for room in ROOMS for path in sorted((FLORA / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", None) not in MADE:
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            first = keywords.get("argument")
            if node.func.id == "Given":
                first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value:
                yield path.name, first.value
            for text in (*node.args, *keywords.values()):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    for name in re.findall(r"{(\w+)}", text.value):
                        yield path.name, name


def test_every_argument_that_a_message_names_is_an_option():
    command = typer.main.get_command(app)
    options = {
        option
        for subcommand in command.commands.values()
        for parameter in subcommand.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(named_arguments())
    assert len(named) > 30
    assert {
        (file, name)
        for file, name in named
        if name not in IN_PYTHON and in_shell(name, NAME_ALONE) not in {*options, "SAR"}
    } == set()


@pytest.mark.parametrize("value", ["linear", 3, 0.5])
def test_values_follow_the_option(value):
    assert in_shell("units", value) == f"--units {value}"
