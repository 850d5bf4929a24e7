"""The project's own promises: versions, bounds, import order, and nothing of one machine."""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

import flora
from flora.experiments import (
    by_place,
    differences,
    gains_on_own_site,
    judge,
    load_record,
    mean_and_spread,
    scored,
)
from tools.build_book import book_config, repository_url, toc_pages

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

# A room may import from its own floor and from those below it (above it here), never in a circle.
# The longest name counts: `models.layers` stands lower than the rest of `models`.
FLOORS = (
    ("errors", "areas"),
    ("cog", "files", "grid", "sensors", "season", "colours", "predictors"),
    (
        "models.norms",
        "models.attention",
        "models.layers",
        "models.otsu",
        "training.operators",
        "antimeridian",
        "parts",
        "simulate",
    ),
    ("datasets",),
    ("models",),
    ("training",),
    ("experiments",),
    ("figures",),
    ("scenes",),
    ("maps", "stac"),
    ("figures.printed",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Names that differ: on conda-forge, and between a distribution and what it is imported as.
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}
IMPORT_NAMES = {
    "lazy-loader": "lazy_loader",
    "odc-geo": "odc",
    "odc-stac": "odc",
    "pillow": "PIL",
    "planetary-computer": "planetary_computer",
    "pystac-client": "pystac_client",
    "pyyaml": "yaml",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}


def split_requirement(requirement: str) -> tuple[str, str]:
    """("name", ">=1,<2") of a requirement without extras or markers."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)\s*([<>=!~].*)?", requirement)
    assert match, f"{requirement}: neither extras nor markers are expected here"
    return match[1].lower(), (match[2] or "").replace(" ", "")


def requirements(entries: list[str]) -> dict[str, str]:
    own = f"{PROJECT['name']}["
    return dict(split_requirement(entry) for entry in entries if not entry.startswith(own))


CORE = requirements(PROJECT["dependencies"])
EXTRAS = {
    name: bound
    for entries in PROJECT["optional-dependencies"].values()
    for name, bound in requirements(entries).items()
}


def test_environment_is_in_step_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    entries = environment["dependencies"]
    listed = dict(split_requirement(entry) for entry in entries if isinstance(entry, str))
    expected = {CONDA_NAMES.get(name, name): bound for name, bound in (CORE | EXTRAS).items()}
    expected |= {"python": PROJECT["requires-python"], "pip": ""}
    assert listed == expected
    assert entries[-1] == {"pip": ["-e ."]}
    assert environment["channels"][0] == "conda-forge"


def test_every_bound_has_its_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = [line for line in text.splitlines() if re.search(r'"[^"]*[<>]=?\s*\d', line)]
    assert len(bounds) > len(CORE)  # the pattern finds them
    assert [line for line in bounds if not re.search(r"#\s*\S+.*\s\S+", line)] == []


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest is not None
    assert citation["version"] == newest[1] == flora.__version__


def test_pages_of_the_table_of_contents_exist():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = list(toc_pages(toc))
    assert len(pages) == len(set(pages)) > 1
    missing = [
        page
        for page in pages
        if sum((ROOT / f"{page}{suffix}").is_file() for suffix in (".md", ".ipynb")) != 1
    ]
    assert missing == []
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks <= set(pages), "a notebook that is no chapter"


def test_address_of_the_repository_stands_in_one_place():
    url = repository_url()
    assert book_config()["repository"]["url"] == url
    address = url.removeprefix("https://")
    holders = [path.as_posix() for path, text in own_texts() if address in text]
    generated = {path for path in holders if path.endswith(".ipynb")}  # by tools/colab_cell.py
    # The README is read on the repository's own page, where nothing is generated.
    assert set(holders) - {"README.md"} - generated == {"pyproject.toml"}
    cloned = re.findall(r"git clone (\S+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(cloned) <= {url, f"{url}.git"}


def told() -> str:
    """What the README and the page beside the records say, with links as the README has them."""
    page = (ROOT / "results/README.md").read_text(encoding="utf-8")
    return (ROOT / "README.md").read_text(encoding="utf-8") + re.sub(
        r"\]\(([\w.-]+\.json)\)", r"](results/\1)", page
    )


# Column of a table in the README: key in the record, unit, digits.
SCORES = {
    "water IoU": ("water_iou", 1, 3),
    "mIoU": ("miou", 1, 3),
    "PSNR, dB": ("psnr", 1, 1),
    "constant image, dB": ("psnr_constant", 1, 1),
    "parameters, M": ("parameters", 1e6, 2),
    "km2/s": ("inference_km2_per_s", 1, 1),
    "training samples/s": ("training_samples_per_s", 1, 2),
    "memory, inference, GB": ("peak_memory_inference_gb", 1, 2),
    "memory, training, GB": ("peak_memory_training_gb", 1, 2),
}


# The same for records of experiments: chips and metric.
COMPARED = {
    "mIoU, official": ("official", "miou"),
    "water IoU, official": ("official", "water_iou"),
    "mIoU, unseen sites": ("unseen", "miou"),
}


def test_scores_in_the_readme_are_those_of_the_records():
    lines = told().splitlines()
    header: list[str] = []
    checked = 0
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        link = re.search(r"\]\((results/[\w.-]+\.json)\)", line)
        if cells[-1] == "record":
            header = cells
        elif header[:1] == ["question"]:
            continue  # in words, see below
        elif line.startswith("|") and link:
            record = json.loads((ROOT / link[1]).read_text(encoding="utf-8"))
            if "competitors" in record:
                row = dict(zip(header, cells, strict=True))
                scores = record["competitors"][row["trial"].strip("`")]["scores"]
                for name, (test, metric) in COMPARED.items():
                    said = mean_and_spread(scores[test][row["mode"]][metric])
                    assert row[name] == said, (line, name)
                    checked += 1
                continue
            if "scores" in record:
                values = record["scores"]["all"]
            else:
                values = record["rows"][cells[0].removeprefix("FLoRA ").strip("`")]
            for name, cell in zip(header, cells, strict=True):
                if name in SCORES:
                    key, unit, digits = SCORES[name]
                    said = f"{values[key] / unit:.{digits}f}" if key in values else "-"
                    assert cell == said, (line, name)
                    checked += 1
    assert checked >= 60


def test_scores_of_held_out_sites_in_the_readme_are_those_of_the_records():
    names = ("ombria", "ombria_floods_1", "ombria_floods_2", "ombria_floods_3")
    records = [load_record(name, ROOT / "results") for name in names]
    text = told()
    rows = re.findall(r"\| ([\d.]+) \| ([\d.]+) \| (\d+ of \d+) \| `(\w+)` \|\n", text)
    assert len(rows) >= 7
    for mean, worst, fails, competitor in rows:
        scores = list(by_place(records, "unseen", competitor, "miou").values())
        assert len(scores) == 14
        assert (mean, worst) == (f"{statistics.mean(scores):.3f}", f"{min(scores):.2f}")
        assert fails == f"{sum(score < 0.6 for score in scores)} of 14"


def test_answers_in_the_readme_are_those_of_the_records():
    """The table of questions: every number in an answer is computed here from its record."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    records = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (ROOT / "results").glob("*.json")
    }

    def worst_and_better(gains: list[float]) -> str:
        gaining = sum(gain > 0 for gain in gains)
        return f"{gaining} of {len(gains)} sites gain, the worst loses {-min(gains):.3f}"

    ombria = records["ombria"]
    without = differences(ombria, "official", "miou")["no_teacher"]
    floods = [ombria, *(records[f"ombria_floods_{number}"] for number in (1, 2, 3))]
    by_site = {
        name: by_place(floods, "unseen", name, "miou")
        for name in ("flora_two_dates", "unet_two_dates", "otsu_two_dates")
    }
    ours = by_site.pop("flora_two_dates")
    gains = [judge([ours[site] - rival[site] for site in ours]) for rival in by_site.values()]
    new = [records[f"ombria_sites_{number}"] for number in range(4)]
    adapted, further = (by_place(new, "unseen", name, "miou") for name in ("adapted", "further"))
    by_pairs = [adapted[site] - further[site] for site in adapted]
    by_own = list(gains_on_own_site(new, "unseen", "further", "miou").values())
    pooled = records["test_chips"]["rows"]["pooled"]
    spain = records["spain_flora_tiny_sar"]["scores"]["all"]
    chips = [f"{m['water_iou']:.3f}" for m in pooled.values() if isinstance(m, dict)]
    picture = f"{spain['psnr']:.1f} dB, one constant colour has {spain['psnr_constant']:.1f} dB"
    few = [
        judge(differences(records["ombria_labels"], test, "miou", "labels_27")["output_27"])
        for test in ("unseen", "official")
    ]
    half = judge(
        differences(records["ombria_labels"], "official", "miou", "labels_273")["output_273"]
    )
    opening = records["hero"]["from_probability"]
    area = records["likelihood"]["modes"]["sar"]
    kept = [area[on]["intervals"]["water"] for on in ("simulated", "real")]
    counts = [f"{round(held['covered'] * held['scenes'])} of {held['scenes']}" for held in kept]
    answers = [
        f"on {counts[0]} simulated scenes; on {counts[1]} real chips",
        f"from a probability of 0.1 on, they find {opening['0.1']['recall']:.0%}".replace(
            "%", " %"
        ),
        f"(an IoU of {opening['0.1']['water_iou']:.3f}; from 0.5 on it is "
        f"{opening['0.5']['water_iou']:.3f};",
        judge(without).text(),
        f"{judge(by_pairs).text()} of mIoU over as many further steps without them; "
        f"{worst_and_better(by_pairs)}",
        f"{judge(by_own).text()}, {worst_and_better(by_own)}",
        *(gain.text() for gain in few),
        f"cost {-half.mean:.3f} [{-half.high:.3f}, {-half.low:.3f}] on the official test",
        *(gain.text() for gain in gains),
        *chips,
        picture,
    ]
    assert [answer for answer in answers if answer not in text] == []


def test_answers_beyond_the_paper_are_those_of_the_records():
    text = (ROOT / "results/README.md").read_text(encoding="utf-8")

    def held(row: dict[str, float], name: str = "difference", digits: int = 3) -> str:
        mean, low, high = (f"{row[key]:+.{digits}f}" for key in (name, "low", "high"))
        return f"{mean} [{low}, {high}]"

    def loaded(name: str) -> dict[str, Any]:
        return load_record(name, ROOT / "results")

    dates = loaded("season")["steps"]["own network"]
    shifted = loaded("alignment")["modes"]["before"]["shift 8 px"]["registered"]
    head, few = loaded("uncertainty"), loaded("few_real_labels")
    touching = [
        loaded("leakage")["counts"][scheme]["test chips that share an edge with a training chip"]
        for scheme in ("official", "blocked")
    ]
    chosen = loaded("real_threshold")
    tested = {
        at: chosen["test"]["pooled"][f"FLoRA, weights that ship, {at:g}"]["water_iou"]
        for at in (0.5, chosen["chosen"])
    }
    pooled = [f"{seed['pooled']['water_iou']:.3f}" for seed in few["test"]["without the teacher"]]
    few_scenes = loaded("simulated_labels")

    def iou(name: str) -> str:
        return f"{scored(few_scenes, name, 'test', 'sar')['water_iou']['mean']:.3f}"

    averages = loaded("averaging")["found"]["no_teacher"]
    new = [loaded(f"ombria_sites_{number}") for number in range(4)]
    adapted, further, longer, plain, otsu = (
        by_place(new, "unseen", name, "miou")
        for name in ("adapted", "further", "longer", "not_adapted", "otsu_two_dates")
    )
    pairs = [(adapted, other) for other in (plain, further, longer, otsu)]
    pairs += [(further, plain), (longer, plain), (plain, otsu)]
    own = [gains_on_own_site(new, "unseen", less, "miou") for less in ("further", "adapted")]
    answers = [
        *(judge(list(gains.values())).text() for gains in own),
        *(judge([one[site] - other[site] for site in one]).text() for one, other in pairs),
        *(held(averages[f"average_{of}"]["water_iou"]) for of in (0.99, 0.995, 0.998)),
        f"{iou('output_8')} of water IoU in place of {iou('labels_8')}",
        *(
            judge(differences(few_scenes, "test", "water_iou", other)["output_8"]).text()
            for other in ("labels_8", "labels_256")
        ),
        *(f"{iou(f'output_{n}')} in place of {iou(f'labels_{n}')}" for n in (32, 256)),
        f"with 32 labelled scenes {iou('output_32_cloudy')} under cloud",
        f"{iou('output_32_shifted')} where they lie beside",
        *(
            judge(
                differences(few_scenes, "test", "water_iou", "output_32")[f"output_32_{how}"]
            ).text()
            for how in ("cloudy", "shifted")
        ),
        held(loaded("two_dates")["rows"]["two dates"]["water_iou"]),
        *(held(dates[step], "mean") for step in ("0 to 1", "1 to 2", "2 to 4")),
        held(shifted["water_iou"]),
        *(
            held(head[on]["less_plain"]["error head"]["brier"], digits=4)
            for on in ("simulated", "real")
        ),
        few["left_out"]["without the teacher"]["less those that ship"],
        f"{pooled[0]}, {pooled[1]} and {pooled[2]} in place of "
        f"{few['test']['weights that ship']['pooled']['water_iou']:.3f}",
        chosen["left_out"]["less_0.5"],
        f"{chosen['chosen']:g} has {tested[chosen['chosen']]:.3f} and 0.5 has {tested[0.5]:.3f}",
        f"{touching[0]} of 90 along an edge; under the split that holds out blocks {touching[1]}",
    ]
    assert [answer for answer in answers if answer not in text] == []


def test_the_scene_in_the_readme_is_that_of_its_record():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / "results/scenes_full.json").read_text(encoding="utf-8"))
    rows, columns = record["size"]
    run = record["runs"]["ours"]
    assert record["provenance"]["hardware"]["cores"] == 2
    assert (
        f"{rows:,} x {columns:,} px of simulated floods, took {run['wall_s'] / 60:.0f} minutes on "
        f"two CPU cores and {run['peak_memory_gb']:.1f} GB"
    ) in text


# --- imports ------------------------------------------------------------------------------------


def module_of(path: Path) -> str:
    """The name of a file's module under `flora`: datasets/base.py is datasets.base."""
    return ".".join(path.relative_to(ROOT / "flora").with_suffix("").parts).removesuffix(
        ".__init__"
    )


def floor_of(module: str) -> int | None:
    """The floor of a module, by the longest room that holds it."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((FLOOR[name] for name in names if name in FLOOR), None)


def library_files() -> list[Path]:
    files = sorted((ROOT / "flora").rglob("*.py"))
    return [path for path in files if path != ROOT / "flora/__init__.py"]


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every module that the code names in an import, in full; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    """The modules of `flora` that a file of `flora` imports."""
    modules = {module_of(file) for file in library_files()}
    found = set()
    for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
        inner = name.removeprefix("flora.")
        found |= {inner, inner.rpartition(".")[0]} & modules if name.startswith("flora.") else set()
    return found


def test_imports_run_downwards():
    assert {
        module_of(path) for path in library_files() if floor_of(module_of(path)) is None
    } == set()
    upwards = [
        f"{module_of(path)} imports {target}"
        for path in library_files()
        for target in sorted(imports_of(path))
        if floor_of(target) > floor_of(module_of(path))
    ]
    assert upwards == []


def test_imports_have_no_circle():
    graph = {module_of(path): imports_of(path) - {module_of(path)} for path in library_files()}
    assert sum(len(targets) for targets in graph.values()) > len(graph)  # imports are seen
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def third_party(names: Iterator[str]) -> set[str]:
    heads = {name.split(".")[0] for name in names}
    return heads - set(sys.stdlib_module_names) - {"flora"}


def test_library_imports_what_it_declares():
    core = {IMPORT_NAMES.get(name, name) for name in CORE}
    declared = core | {IMPORT_NAMES.get(name, name) for name in EXTRAS}
    for path in library_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert third_party(imported_names(tree)) <= declared, path
        # What an extra brings is imported where it is used, so that the rest works without it.
        top = ast.Module([node for node in tree.body if runs_on_import(node)], [])
        assert third_party(imported_names(top)) <= core, path


def runs_on_import(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) != "TYPE_CHECKING"
    return not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def test_import_has_no_side_effect():
    code = (
        "import os, sys, logging, warnings\n"
        "before = dict(os.environ), list(logging.root.handlers), list(warnings.filters)\n"
        "import flora\n"
        "after = dict(os.environ), list(logging.root.handlers), list(warnings.filters)\n"
        "assert [b == a for b, a in zip(before, after)][:2] == [True, True], 'state changed'\n"
        "heavy = {'matplotlib.pyplot', 'IPython', 'rasterio', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_rooms_in_the_guide_are_those_of_the_library():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    rooms = {name for row in rows for name in re.findall(r"`([\w./]+)`", row[1])}
    there = {path.name for path in (ROOT / "flora").glob("*.py") if not path.name.startswith("_")}
    there |= {f"{path.parent.name}/" for path in (ROOT / "flora").glob("*/__init__.py")}
    assert rooms == there
    for row in rows:
        for name in re.findall(r"`([\w/]+\.py)`", row[3]):
            folder = re.findall(r"`(\w+/)`", row[1])[0]
            assert (ROOT / "flora" / folder / name).is_file(), name


# --- size ---------------------------------------------------------------------------------------

# A function of more lines has two ideas in it, one of more parameters an object hidden in it.
LINES_OF_A_FUNCTION, PARAMETERS_OF_A_FUNCTION, LINES_OF_A_FILE = 60, 9, 420


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its `def`, without those of its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    several = [one for one in (given.vararg, given.kwarg) if one is not None]
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *several]
    return sum(one.arg not in ("self", "cls") for one in named)


def too_large(name: str, text: str) -> Iterator[str]:
    """What of a file goes beyond a limit, as "file" or "file function"."""
    if len(text.splitlines()) > LINES_OF_A_FILE:
        yield name
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            lines_of_code(node) > LINES_OF_A_FUNCTION
            or parameters_of(node) > PARAMETERS_OF_A_FUNCTION
        ):
            yield f"{name} {node.name}"


def test_files_and_functions_are_small():
    found = {
        large
        for path in sorted((ROOT / "flora").rglob("*.py"))
        for large in too_large(
            path.relative_to(ROOT / "flora").as_posix(), path.read_text(encoding="utf-8")
        )
    }
    assert found == set()


def test_what_is_too_large_is_seen():
    head = 'def f(self, a, b, c, d, e, f, g, h, *i):\n    "Doc."\n'
    small = head + "    x = 0\n" * 59
    assert list(too_large("a.py", small)) == []
    assert list(too_large("a.py", small + "    x = 1\n")) == ["a.py f"]
    assert list(too_large("a.py", small.replace("*i", "*i, **j"))) == ["a.py f"]
    assert list(too_large("a.py", "x = 1\n" * 421)) == ["a.py"]


def test_a_name_is_one_thing():
    """Classes and types of the library that other modules can see, each named once."""
    homes: dict[str, list[str]] = {}
    for path in library_files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            named = []
            if isinstance(node, ast.ClassDef):
                named = [node.name]
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
                named = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in named:
                if not name.startswith("_") and not name.isupper():
                    homes.setdefault(name, []).append(module_of(path))
    assert homes["Grid"] == ["grid"]
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


# --- nothing of one machine ---------------------------------------------------------------------

TEXT_SUFFIXES = {
    *(".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".bib", ".ipynb", ".json", ".css", ".txt"),
    "",
}

# Written in pieces, so that this file does not contain what it looks for.
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(?:root|work|Users|home)" + r"/\w",
            r"\b[A-Z]:\\\\?" + r"Users",
            r"/tmp/" + r"ipykernel",
            r"\b(?:test\.)?pypi" + r"\.(?:org|python\.org)",
            r"files\.python" + r"hosted\.org",
            r"registry\.npm" + r"js\.org",
        ]
    )
)


@cache
def own_texts() -> list[tuple[Path, str]]:
    """(path in the repository, text) of every file that is committed or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no git repository here to list the project's files")
    paths = [Path(line) for line in listing.stdout.splitlines()]
    return [
        (path, (ROOT / path).read_text(encoding="utf-8"))
        for path in paths
        if path.suffix in TEXT_SUFFIXES and (ROOT / path).is_file()
    ]


@pytest.mark.parametrize(
    "text",
    ["in /ro" + "ot/data", "/ho" + "me/ana/x", "C:\\\\Us" + "ers", "https://py" + "pi.org/simple"],
)
def test_pattern_finds_what_belongs_to_one_machine(text):
    assert MACHINE.search(text)


def test_pattern_passes_what_is_general():
    assert not MACHINE.search("/content/drive, data/home/x, book/how_to_run.md, my-data/")


def test_no_file_names_a_machine_or_a_registry():
    found = [f"{path}: {match[0]}" for path, text in own_texts() if (match := MACHINE.search(text))]
    assert found == []


def test_real_test_chips_in_the_readme_are_those_of_their_record():
    rows = load_record("test_chips", ROOT / "results")["rows"]
    text = told()
    table = text[text.index("| test chip |") :].split("\n\n")[0].splitlines()[2:]
    said = {line.split("|")[1].strip(): line for line in table}
    assert set(said) == set(rows)
    for name, line in said.items():
        cells = [cell.strip() for cell in line.split("|")[3:-1]]
        methods = [value for value in rows[name].values() if isinstance(value, dict)]
        ious = [f"{m['water_iou']:.3f}" if "water_iou" in m else "-" for m in methods]
        assert cells == (ious or ["-"] * 3), name
