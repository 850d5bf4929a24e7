"""Write the cell that prepares Colab into every notebook: `python tools/colab_cell.py`.

The cell is the same in all of them, but for the extra that a chapter needs. Its address comes from
pyproject.toml and its branch from _config.yml, like those of the button that opens the notebook, so
library and notebook are of one revision. Nothing else in a notebook changes; a test compares each
with what is written here.
"""

from __future__ import annotations

import sys

import nbformat
from nbformat import NotebookNode

from tools.build_book import ROOT, book_config, repository_url

TAG = "colab"
# What a chapter needs besides the library itself: an extra of pyproject.toml.
EXTRAS = {"06_maps": "maps"}
METADATA = {
    "mystnb": {"code_prompt_show": "On Colab: install the library"},
    "tags": [TAG, "hide-cell"],
}
SOURCE = """\
# For Colab, which lacks `flora`. Where it is installed, this cell does nothing.
from importlib.util import find_spec

KEEP_ON_DRIVE = False  # True: work in a folder of Google Drive, which outlives the session
if find_spec("flora") is None:
    %pip install -q "flora{extra} @ git+{url}@{branch}"
    import torch

    no_gpu = "no GPU; for one: Runtime, Change runtime type"
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else no_gpu)
if KEEP_ON_DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")
    %mkdir -p /content/drive/MyDrive/flora-book
    %cd /content/drive/MyDrive/flora-book
"""


def main() -> int:
    """Insert or update the cell in every notebook, and return the exit status."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(text, as_version=4)
        place(notebook, source(path.stem))
        written = nbformat.writes(notebook) + "\n"
        if written != text:
            partial = path.with_suffix(".partial")
            partial.write_text(written, encoding="utf-8")
            partial.replace(path)
            print(f"{path.relative_to(ROOT)}: the cell was written")
    return 0


def source(name: str) -> str:
    """The cell's text in the notebook of this name, for this repository and branch."""
    branch: str = book_config()["repository"]["branch"]
    extra = f"[{EXTRAS[name]}]" if name in EXTRAS else ""
    return SOURCE.format(url=repository_url(), branch=branch, extra=extra).rstrip("\n")


def is_colab(cell: NotebookNode) -> bool:
    """Whether this is the cell."""
    return TAG in cell.metadata.get("tags", [])


def place(notebook: NotebookNode, text: str) -> None:
    """Put the cell before the first cell of code and what leads to it, or renew its text.

    It prints nothing where `flora` is installed, so a notebook that was executed counts it as
    executed, and the counts after it move up by one.

    Args:
        notebook: Changed in place.
        text: What the cell shall hold.
    """
    standing = [cell for cell in notebook.cells if is_colab(cell)]
    if standing:
        standing[0].update(source=text, metadata=METADATA)
        return
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cell = nbformat.v4.new_code_cell(text, id=TAG, metadata=METADATA)
    if code and code[0].execution_count == 1:
        cell.execution_count = 1
        for later in code:
            later.execution_count += 1
            for output in later.outputs:
                if "execution_count" in output:
                    output.execution_count += 1
    notebook.cells.insert(max(notebook.cells.index(code[0]) - 1, 1) if code else 1, cell)


if __name__ == "__main__":
    sys.exit(main())
