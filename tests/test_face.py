"""The package's face and those of its rooms: few names, loaded when they are first used."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import flora

ROOT = Path(__file__).resolve().parent.parent
STUBS = sorted((ROOT / "flora").rglob("__init__.pyi"))


def module_of(stub: Path) -> str:
    return ".".join(stub.parent.relative_to(ROOT).parts)


def loaded_by(code: str) -> set[str]:
    """Distributions and packages that a fresh interpreter has loaded after running the code."""
    names = "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", f"import sys\n{code}\n{names}"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return set(finished.stdout.split()) - set(sys.stdlib_module_names)


def test_the_face_is_one_short_table():
    assert "open_dataset" in flora.__all__  # the table is read
    assert 20 <= len(flora.__all__) <= 30


def test_importing_the_package_loads_only_what_loads_names_later():
    assert loaded_by("import flora; dir(flora)") - loaded_by("") == {"flora", "lazy_loader"}


def test_a_model_is_loaded_without_what_reads_rasters_or_draws():
    loaded = loaded_by("import flora; flora.load_model()")
    assert "torch" in loaded
    assert not loaded & {"rasterio", "scipy", "matplotlib", "shapely", "torchvision"}


@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_names_of_a_face_are_what_their_homes_define(stub):
    room = importlib.import_module(module_of(stub))
    lines = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert lines
    for line in lines:
        for alias in line.names:
            home = f"{room.__name__}.{line.module}" if line.module else room.__name__
            value = getattr(room, alias.name)
            assert alias.asname == alias.name, "seen by the type checker"
            assert value is getattr(importlib.import_module(home), alias.name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert value.__module__ == home, "named by where it is defined"


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="open_datasets"):
        flora.open_datasets  # noqa: B018
