"""The examples in docstrings run, and every public name has one; the notation names what exists."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import flora
from flora.training import LossWeights

ROOT = Path(__file__).resolve().parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FINDER = doctest.DocTestFinder(recurse=False, exclude_empty=True)
DIRECTIVE = re.compile(r"^\.\. auto(?:class|function|data|exception):: (\S+)", re.MULTILINE)
CODE_NAME = re.compile(r"`~?(flora\.[\w.]+)`")


def names_with_examples() -> Iterator[str]:
    """Dotted names of all functions, classes and methods with an example; imports nothing."""
    for path in sorted((ROOT / "flora").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        for node in ast.parse(text).body if ">>> " in text else []:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inner = node.body if isinstance(node, ast.ClassDef) else []
                methods = [method for method in inner if isinstance(method, ast.FunctionDef)]
                described = {node.name: node} | {f"{node.name}.{m.name}": m for m in methods}
                for name, definition in described.items():
                    if ">>> " in (ast.get_docstring(definition) or ""):
                        yield f"{module}.{name}"


def look_up(dotted: str) -> Any:
    """The object of a dotted name: modules are imported, then attributes taken.

    A last part that is an annotation only, such as a field of a TypedDict, gives its annotation.
    """
    parts = dotted.split(".")
    found: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        if hasattr(found, part):
            found = getattr(found, part)
        elif inspect.ismodule(found):
            found = importlib.import_module(".".join(parts[: number + 1]))
        else:
            found = inspect.get_annotations(found)[part]
    return found


@pytest.mark.parametrize(
    "page",
    [path for path in sorted((ROOT / "book").glob("*.md")) if ">>> " in path.read_text("utf-8")],
    ids=lambda path: path.stem,
)
def test_example_of_a_page_runs(page: Path) -> None:
    # Block by block: a fence is no output.
    blocks = re.findall(r"^```pycon\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, None, 0)
    assert len(example.examples) > 1
    assert doctest.DocTestRunner(optionflags=FLAGS).run(example).failed == 0


@pytest.mark.parametrize("name", list(names_with_examples()))
def test_example(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples write files
    tests = FINDER.find(look_up(name), name, globs={})
    assert len(tests) == 1 and tests[0].examples
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(tests[0], out=said.append)
    assert not said, "".join(said)


def runs(example: doctest.Example) -> bool:
    return not example.options.get(doctest.SKIP, False)


# `plots` is a module: what it draws with is described where it is used.
PUBLIC = [name for name in flora.__all__ if name != "plots"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_an_example_that_runs(name):
    tests = FINDER.find(getattr(flora, name), name, globs={})
    assert any(runs(example) for test in tests for example in test.examples)


def test_an_example_that_is_wrong_is_seen(tmp_path):
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert "Expected:\n    3\nGot:\n    2" in "".join(said)


# --- the reference and the notation -------------------------------------------------------------


@cache
def reference_pages() -> str:
    pages = [ROOT / "book/api.md", *sorted((ROOT / "book/api").glob("*.md"))]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def test_reference_holds_every_public_name_once():
    described = DIRECTIVE.findall(reference_pages())
    assert len(described) == len(set(described))
    assert {f"flora.{name}" for name in PUBLIC} <= set(described)


def test_every_function_of_the_reference_has_an_example():
    described = {name: look_up(name) for name in DIRECTIVE.findall(reference_pages())}
    functions = {name: value for name, value in described.items() if inspect.isfunction(value)}
    assert len(functions) > 20
    assert [name for name, value in functions.items() if ">>> " not in (value.__doc__ or "")] == []


def notation() -> str:
    return (ROOT / "book/notation.md").read_text(encoding="utf-8")


def test_names_of_the_notation_exist():
    names = CODE_NAME.findall(notation())
    assert len(names) > 40
    for name in names:
        look_up(name)


def test_a_name_that_does_not_exist_is_seen():
    with pytest.raises((ImportError, KeyError)):
        look_up("flora.training.losses.tversky")
    with pytest.raises(KeyError):
        look_up("flora.Sample.sars")


def test_values_of_the_notation_are_those_of_the_code():
    rows = re.findall(r"^\|.*\| `(flora\.[\w.]+)` = (\S+) \|$", notation(), re.MULTILINE)
    assert len(rows) >= 3
    assert [(name, str(look_up(name))) for name, _ in rows] == rows


def test_loss_terms_of_the_notation_are_those_of_the_code():
    loss = notation().partition("## The loss")[2].partition("\n## ")[0]
    named = re.findall(r"^\|.*\| `(\w+)` \|$", loss, re.MULTILINE)
    assert named == list(inspect.get_annotations(LossWeights))
