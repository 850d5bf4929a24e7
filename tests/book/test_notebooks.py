"""Every committed notebook keeps the book's form: executed, clean, readable, small."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import rasterio
from rasterio.windows import Window

from tools import colab_cell
from tools.run_variants import solutions

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
PARAMETERS = {"PROFILE", "DATA", "SEED"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:root|work|home|Users|tmp|mnt|opt|var)/|\b[A-Z]:\\")

# Whatever keeps nbval from comparing a cell's output.
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception"}
NOT_COMPARED_COMMENT = re.compile(r"#\s*(?:NBVAL_|PYTEST_VALIDATE_)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def cells(path):
    """The chapter: all cells but the generated one that prepares Colab."""
    return [
        cell for cell in nbformat.read(path, as_version=4).cells if not colab_cell.is_colab(cell)
    ]


def code_cells(path):
    return [cell for cell in cells(path) if cell.cell_type == "code"]


def parse(cell):
    """The cell's syntax tree; lines that only IPython understands become `pass`."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE))


def nodes(cell, kind):
    return [node for node in ast.walk(parse(cell)) if isinstance(node, kind)]


def functions(path):
    return [node.name for cell in code_cells(path) for node in nodes(cell, ast.FunctionDef)]


def tags(cell):
    return cell.metadata.get("tags", [])


def test_format_is_valid(path):
    nbformat.validate(nbformat.read(path, as_version=4))


def test_was_executed_in_order_from_a_fresh_kernel(path):
    everything = nbformat.read(path, as_version=4).cells
    counts = [cell.execution_count for cell in everything if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert any(cell.outputs for cell in code_cells(path)), "no cell has an output"


def test_no_output_is_an_error_or_a_complaint(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_solutions_can_be_parsed_and_import_what_there_is(path):
    for code in solutions(nbformat.read(path, as_version=4)):
        cell = nbformat.v4.new_code_cell(code)
        for wanted in nodes(cell, ast.ImportFrom):
            module = importlib.import_module(wanted.module)
            assert [name.name for name in wanted.names if not hasattr(module, name.name)] == []


def test_the_code_of_solutions_is_found():
    everything = [solutions(nbformat.read(path, as_version=4)) for path in NOTEBOOKS]
    assert sum(map(len, everything)) > 25
    assert all("```" not in code for chapter in everything for code in chapter)


def test_one_cell_imports(path):
    importing = [cell for cell in code_cells(path) if nodes(cell, ast.Import | ast.ImportFrom)]
    assert len(importing) == 1, [cell.source for cell in importing]


def test_parameters_cell(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in tags(cell)]
    assert len(tagged) == 1
    body = parse(tagged[0]).body
    assert all(isinstance(node, ast.Assign) for node in body), "nothing but assignments"
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in body}
    assert values.keys() >= PARAMETERS
    assert values["PROFILE"] == "cpu", "a committed notebook shows the run of a laptop"


def test_no_injected_parameters(path):
    assert [cell.source for cell in code_cells(path) if "injected-parameters" in tags(cell)] == []


def test_prose_before_every_code_cell(path):
    kinds = [cell.cell_type for cell in cells(path)]
    assert kinds[0] == "markdown", "a chapter opens with its title"
    alone = [
        cell.source.splitlines()[0]
        for before, cell in zip(kinds, cells(path)[1:], strict=False)
        # One sentence may announce imports and parameters: the first picture comes the sooner.
        if cell.cell_type == "code" and before != "markdown" and "parameters" not in tags(cell)
    ]
    assert alone == []


def test_one_title(path):
    prose = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    outside_code = re.sub(r"^```.*?^```", "", prose, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", outside_code, re.MULTILINE)) == 1


def test_few_and_short(path):
    assert len(functions(path)) <= 2, functions(path)
    cells_of_code = code_cells(path)
    imports = next(c for c in cells_of_code if nodes(c, ast.Import | ast.ImportFrom))
    assert "hide-input" in tags(imports)  # folded on the page, so its length is in nobody's way
    shown = [cell for cell in cells_of_code if cell is not imports]
    long = [cell.source for cell in shown if len(cell.source.splitlines()) > 25]
    assert long == []


def test_no_function_is_defined_twice_in_the_book(path):
    elsewhere = [name for other in NOTEBOOKS if other != path for name in functions(other)]
    assert set(functions(path)) & set(elsewhere) == set()


def test_no_cell_hides_its_value_with_a_semicolon(path):
    # nbval runs cells without history, where IPython does not see the semicolon: it would show.
    assert [c.source for c in code_cells(path) if c.source.rstrip().endswith(";")] == []


def test_small(path):
    assert path.stat().st_size < 2_000_000


# What 390 px show of a printed line (book/_static/book.css); wider tables are tables.
PRINTED = 57


def test_what_a_cell_prints_fits_a_narrow_screen(path):
    printed = [o.text for c in code_cells(path) for o in c.outputs if o.output_type == "stream"]
    wide = [line for text in printed for line in text.splitlines() if len(line) > PRINTED]
    assert wide == []


def test_no_number_says_nothing(path):
    """A spread of 0.0 has too few digits, and zero has no sign."""
    shown = [str(o.get("text", o.get("data", {}))) for c in code_cells(path) for o in c.outputs]
    empty = re.compile(r"± 0\.?0*(?![\d.])|(?<![\d.\[])-0\.0+(?!\d)")
    assert [found for text in shown for found in empty.findall(text)] == []


def test_no_absolute_path(path):
    text = path.read_text(encoding="utf-8")
    # Pictures are base64, in which anything can stand.
    assert ABSOLUTE_PATH.findall(re.sub(r'"image/(png|jpeg)": "[^"]*"', "", text)) == []


def test_figures_have_a_description(path):
    silent = [
        cell.source.splitlines()[0]
        for cell in code_cells(path)
        if any(is_picture(output) for output in cell.outputs)
        and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()
    ]
    assert silent == [], 'add {"mystnb": {"image": {"alt": "..."}}} to the cell\'s metadata'


def is_picture(output):
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def is_shown(output):
    """A picture, or a table or widget: anything with a look of its own."""
    return is_picture(output) or "text/html" in output.get("data", {})


def test_figures_and_tables_have_a_caption_and_a_name_of_their_own(path):
    shown = [cell for cell in code_cells(path) if any(is_shown(output) for output in cell.outputs)]
    figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in shown]
    silent = [
        cell.source.splitlines()[0]
        for cell, figure in zip(shown, figures, strict=True)
        if not (figure.get("caption") and figure.get("name"))
    ]
    assert silent == []
    names = [figure["name"] for figure in figures if "name" in figure]
    assert len(names) == len(set(names))


def not_compared(path):
    """The cells whose output `pytest --nbval` does not compare."""
    return [
        cell
        for cell in code_cells(path)
        if NOT_COMPARED & set(tags(cell)) or NOT_COMPARED_COMMENT.search(cell.source)
    ]


def test_output_that_is_not_compared_is_rare_and_has_a_reason(path):
    ignored = not_compared(path)
    tagged = [cell for cell in ignored if set(tags(cell)) & NOT_COMPARED == {"nbval-ignore-output"}]
    assert ignored == tagged, "the tag nbval-ignore-output is the one way to opt out"
    silent = [cell.source for cell in ignored if "#" not in cell.source]
    assert silent == [], "say in a comment why this output cannot be compared"
    assert len(ignored) <= max(1, len(code_cells(path)) // 8)


def test_count_of_cells_that_are_not_compared(capsys):
    lines = [
        f"  {path.stem}: {re.search('#.*', cell.source)[0]}"
        for path in NOTEBOOKS
        for cell in not_compared(path)
    ]
    total = sum(len(code_cells(path)) for path in NOTEBOOKS)
    with capsys.disabled():
        print(
            f"\n{len(lines)} of {total} cells of code are not compared by nbval", *lines, sep="\n"
        )
    assert len(lines) <= total / 10


def test_colab_cell_is_the_generated_one(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [index for index, cell in enumerate(code) if colab_cell.is_colab(cell)] == [0]
    assert code[0].source == colab_cell.source(path.stem), "run: python tools/colab_cell.py"
    assert code[0].metadata["tags"] == colab_cell.METADATA["tags"]
    assert code[0].outputs == []


def test_quickstart_runs_on_a_real_chip_with_another_seed(flora_data, tmp_path):
    executed = papermill.execute_notebook(
        *(NOTEBOOKS[0], tmp_path / "out.ipynb"),
        parameters={"DATA": str(flora_data / "sen1floods11"), "SEED": 1},
        cwd=tmp_path,  # a chapter needs no folder of the repository around it
        progress_bar=False,
    )
    committed = {cell.id: cell.outputs for cell in code_cells(NOTEBOOKS[0])}
    printed = [
        (cell.id, output.text)
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stdout"
    ]
    changed = [text for key, text in printed if [text] != [o.get("text") for o in committed[key]]]
    assert len(changed) > len(printed) / 2


def cut(source, target, side=96):
    """The upper left corner of a raster, as a raster of its own."""
    with rasterio.open(source) as opened:
        corner = opened.read(window=Window(0, 0, side, side))
        profile = opened.profile | {"width": side, "height": side, "tiled": False}
        profile = {key: profile[key] for key in profile if not key.startswith("block")}
    with rasterio.open(target, "w", **profile) as written:
        written.write(corner)


def test_reproduction_runs_on_a_real_chip(flora_data, tmp_path):
    # The few chips at hand are all of one split: one of them takes the names of five.
    ids = {
        "train": ["Ghana_1", "Ghana_2"],
        "valid": ["India_1"],
        "test": ["Spain_1"],
        "bolivia": ["Bolivia_1"],
    }
    inner = Path("sen1floods11/v1.1")
    hand = inner / "data/flood_events/HandLabeled"
    for layer in ("S1Hand", "S2Hand", "LabelHand"):
        (tmp_path / hand / layer).mkdir(parents=True)
        real = flora_data / hand / layer / f"Spain_7370579_{layer}.tif"
        for chip in (chip for chips in ids.values() for chip in chips):
            cut(real, tmp_path / hand / layer / f"{chip}_{layer}.tif")
    lists = tmp_path / inner / "splits/flood_handlabeled"
    lists.mkdir(parents=True)
    for split, chips in ids.items():
        rows = [f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in chips]
        (lists / f"flood_{split}_data.csv").write_text("".join(rows))
    notebook = NOTEBOOKS[0].parent / "10_reproduce.ipynb"
    executed = papermill.execute_notebook(
        *(notebook, tmp_path / "out.ipynb"),
        parameters={"DATA": str(tmp_path), "SEEDS": 2},
        cwd=tmp_path,
        progress_bar=False,
    )
    printed = "".join(
        output.get("text", "") for cell in executed.cells for output in cell.get("outputs", [])
    )
    assert "2 chips to train on" in printed
    assert "7 of 7 trials are recorded" in printed
    assert "no verdict" not in printed
