"""Execute the notebooks with other parameters than their defaults: `make variants`.

A chapter promises that its parameters can be changed, and that its solutions run. So every notebook
runs with its solutions, with another seed, and, where FLORA_DATA names a folder of real samples, on
real chips.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell

from tools.build_book import ROOT, BuildError, execute

# The dataset that a notebook's DATA is a folder of; of Sen1Floods11 where nothing else is said.
DATASETS: dict[str, str] = {}

_SOLUTION = re.compile(r"^````\{admonition\} Solution.*?^````$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def main() -> int:
    """Execute every notebook with every variant, and return 1 if one fails."""
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            for parameters in variants(path.stem):
                print(f"{path.name} with {parameters}", flush=True)
                # A copy, in a folder of its own: a chapter needs nothing around it.
                shutil.copy2(path, temporary)
                if not parameters:
                    append_solutions(Path(temporary) / path.name)
                try:
                    execute(Path(temporary), parameters)
                except BuildError as error:
                    print(error, file=sys.stderr)
                    failed += 1
                (Path(temporary) / path.name).unlink()
    return int(failed > 0)


def variants(name: str) -> Iterator[dict[str, Any]]:
    """The values of parameters to run a notebook with; its own run its solutions, too."""
    yield {}
    yield {"SEED": 1}
    if "FLORA_DATA" in os.environ:
        data = Path(os.environ["FLORA_DATA"]) / DATASETS.get(name, "sen1floods11")
        yield {"SEED": 2, "DATA": str(data.resolve())}


def append_solutions(path: Path) -> None:
    """Append the code of a notebook's solutions to it, as a reader would paste it."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells += [new_code_cell(code) for code in solutions(notebook)]
    nbformat.write(notebook, path)


def solutions(notebook: nbformat.NotebookNode) -> list[str]:
    """The code of a notebook's solutions, in their order."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    folded = [solution for text in prose for solution in _SOLUTION.findall(text)]
    return [code for solution in folded for code in _CODE.findall(solution)]


if __name__ == "__main__":
    sys.exit(main())
