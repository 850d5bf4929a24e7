"""Build the book: stage its pages, execute its notebooks, run Jupyter Book on the stage.

The committed notebooks are read and never written: what is executed, and what Jupyter Book reads,
lies in `_build/source`. The repository's address is taken from `pyproject.toml`, its only place.
With `--offline`, the scripts that pages load from elsewhere are laid beside them (tools/vendor.py).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import yaml

from flora.figures.model_diagram import ModelDiagram
from tools.npm import NpmError
from tools.tables import SENTENCES, TABLES, record
from tools.vendor import localise

ROOT = Path(__file__).resolve().parent.parent


class BuildError(Exception):
    """The book cannot be built; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Build the book as the command line asks, and return the exit status."""
    options = parse_arguments(arguments)
    build = options.output.resolve() / "_build"
    try:
        source = stage(build / "source")
        if not options.committed:
            execute(source, dict(options.parameter), at_once=min(2, os.cpu_count() or 1))
        build_pages(source, options.output.resolve())
        if options.offline:
            print("Laying the scripts beside the pages:", *localise(build / "html"), flush=True)
    except (BuildError, NpmError) as error:
        print(f"The book was not built: {error}", file=sys.stderr)
        return 1
    page = build / "html" / "index.html"
    print(f"The book is built. Open this page in a browser:\n{page}")
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; values of parameters are read as YAML, as papermill does."""
    parser = argparse.ArgumentParser(description="Build the book with Jupyter Book.")
    parser.add_argument(
        "--committed",
        action="store_true",
        help="take the notebooks with the outputs they were committed with, execute nothing",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="a book that needs no network: its scripts are taken from the npm registry, by npm",
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT, help="folder that receives _build (the repository)"
    )
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="value for the notebooks' parameters cell, for instance -p SEED 1; may be repeated",
    )
    options = parser.parse_args(arguments)
    options.parameter = [(name, yaml.safe_load(value)) for name, value in options.parameter]
    return options


def toc_pages(toc: Any) -> Iterator[str]:
    """Every page of a table of contents, in reading order, without suffix."""
    if isinstance(toc, dict):
        for key, value in toc.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from toc_pages(value)
    elif isinstance(toc, list):
        for entry in toc:
            yield from toc_pages(entry)


def repository_url() -> str:
    """The address under `project.urls` in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        url: str = tomllib.load(file)["project"]["urls"]["Repository"]
    return url


def book_config() -> dict[str, Any]:
    """_config.yml with the repository's address filled in where the book needs it.

    Buttons get it as Jupyter Book's `repository.url`, prose as the substitutions `repository`
    (a link), `clone` and `colab` (commands). The seconds that each notebook took when
    results/book.json was recorded are `seconds_00_quickstart` and so on; what mapping the scene of
    results/scenes_full.json took is `scene_size`, `scene_minutes` and `scene_gb`. Whole tables of
    records are those of `tools.tables.TABLES`, single numbers those of `SENTENCES`.
    """
    config: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    url = repository_url()
    config["repository"]["url"] = url
    config["sphinx"]["local_extensions"] = {"tools.numbering": str(ROOT)}
    config["parse"]["myst_substitutions"] = {
        "repository": f"[{url.removeprefix('https://')}]({url})",
        "colab": f"```python\n%pip install -q git+{url}.git\n```",
        "clone": f"```bash\ngit clone {url}.git\ncd {url.rsplit('/', 1)[-1]}\n```",
    }
    recorded = record("book")
    # A new chapter has no record before the book has been built with it.
    config["parse"]["myst_substitutions"] |= {
        f"seconds_{path.stem}": "not measured" for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    config["parse"]["myst_substitutions"] |= {
        f"seconds_{Path(name).stem}": f"{seconds:.0f} s"
        for name, seconds in recorded["notebooks_s"].items()
    }
    scene = record("scenes_full")
    ours = scene["runs"]["ours"]
    config["parse"]["myst_substitutions"] |= {
        "scene_size": " x ".join(f"{side:,}" for side in scene["size"]),
        "scene_minutes": f"{ours['wall_s'] / 60:.0f}",
        "scene_gb": f"{ours['peak_memory_gb']:.1f}",
    } | {name: made() for name, made in (TABLES | SENTENCES).items()}
    return config


def stage(source: Path) -> Path:
    """Lay the book's pages, configuration and committed notebooks into an empty folder.

    The drawing of the model comes from the library, as `book/model_diagram.html`. Where readers can
    fetch the commit that is built, the notebooks install it on Colab: one that is downloaded from
    a page stays with the library that it was run with. Else they install the branch.

    Raises:
        BuildError: If a page of the table of contents does not exist.
    """
    print(f"Staging the pages in {source}", flush=True)
    if source.exists():
        shutil.rmtree(source)
    shutil.copytree(ROOT / "book", source / "book")
    shutil.copy2(ROOT / "_toc.yml", source)
    (source / "_config.yml").write_text(
        yaml.safe_dump(book_config(), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    for page in toc_pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))):
        found = [page + suffix for suffix in (".md", ".ipynb") if (ROOT / (page + suffix)).exists()]
        if len(found) != 1:
            raise BuildError(f"_toc.yml names {page}, and there is no one {page}.md or .ipynb")
        target = source / found[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / found[0], target)
    if commit := published_commit():
        for notebook in sorted(source.rglob("*.ipynb")):
            pin(notebook, commit)
    diagram = ModelDiagram()._repr_html_()
    (source / "book/model_diagram.html").write_text(diagram, encoding="utf-8")
    return source


def published_commit(root: Path = ROOT) -> str | None:
    """The commit of a working tree without changes, if a branch of its remote holds it.

    In twelve digits: with forty, the line that installs it would be cut on the page.
    """

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no")
    published = changed == "" and git("branch", "-r", "--contains")
    return git("rev-parse", "--short=12", "HEAD") if published else None


def pin(notebook: Path, commit: str) -> None:
    """Make the cell for Colab of a staged notebook install this commit in place of the branch."""
    address = f"{repository_url()}@"
    branch = book_config()["repository"]["branch"]
    text = notebook.read_text(encoding="utf-8")
    notebook.write_text(text.replace(f"{address}{branch}", f"{address}{commit}"), encoding="utf-8")


def execute(source: Path, parameters: dict[str, Any], at_once: int = 1) -> dict[str, float]:
    """Execute every staged notebook in place, each in a kernel of its own.

    Args:
        source: The stage.
        parameters: Values for the parameters cells.
        at_once: Notebooks under way at the same time.

    Returns:
        Seconds by the notebook's path in `source`.

    Raises:
        BuildError: If a cell of a notebook fails.
    """
    if at_once > 1:  # kernels that each use all cores slow each other down many times
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    notebooks = sorted(source.rglob("*.ipynb"))
    names = [notebook.relative_to(source).as_posix() for notebook in notebooks]
    with ProcessPoolExecutor(max_workers=at_once) as pool:
        seconds = pool.map(execute_one, notebooks, names, repeat(parameters))
        return dict(zip(names, seconds, strict=True))


def execute_one(notebook: Path, name: str, parameters: dict[str, Any]) -> float:
    """Execute one notebook in place, and return how many seconds it took.

    Raises:
        BuildError: If a cell fails.
    """
    # Imported here: a build from committed outputs does not need it.
    import papermill
    from papermill.exceptions import PapermillExecutionError

    print(f"Executing {name} ...", flush=True)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            notebook,
            notebook,
            parameters,
            cwd=notebook.parent,
            progress_bar=False,
            extra_arguments=["--log-level=ERROR"],  # of the kernel; the notebook's show
        )
    except PapermillExecutionError as error:
        raise BuildError(f"{name} failed while it was executed.\n{error}") from error
    seconds = time.monotonic() - start
    print(f"Executed {name} in {seconds:.0f} s", flush=True)
    return seconds


def build_pages(source: Path, output: Path) -> None:
    """Run Jupyter Book on the stage; any warning is an error.

    Raises:
        BuildError: If Jupyter Book reports a warning or an error.
    """
    html = output / "_build" / "html"
    if html.exists():
        shutil.rmtree(html)
    print("Building the pages with Jupyter Book; a warning is an error", flush=True)
    # --all: Sphinx reports the warnings of a page only when it reads it.
    # -c: the module has no __main__, and a script called jupyter-book on PATH may be another one.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    flags = ["--warningiserror", "--nitpick", "--keep-going", "--all", "-q"]
    finished = subprocess.run([*command, "build", source, "--path-output", output, *flags])
    if finished.returncode != 0:
        raise BuildError("Jupyter Book reported the warnings or errors above.")
    for page in html.rglob("*.html"):
        mend(page)


# For those who hear the page. Sphinx marks the entries of a bibliography with a role that
# DPUB-ARIA 1.1 deprecates, and MyST-NB names every folded cell alike, whatever its visible name.
MENDED = {
    'role="doc-biblioentry"': 'role="listitem"',
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # The arrow that unfolds the sections of a page in the sidebar has no name.
    '<summary><span class="toctree-toggle"': (
        '<summary aria-label="Sections of this page"><span class="toctree-toggle"'
    ),
}


def mend(page: Path) -> None:
    """Correct what the generators write into a page and its readers stumble on.

    A line does not break between a number and its spread or its "%", nor, in a table, in an
    interval.
    """
    text = mended = page.read_text(encoding="utf-8")
    for wrong, right in MENDED.items():
        mended = mended.replace(wrong, right)
    # Every other part is a block of code, whose text somebody may copy.
    parts = re.split(r"(<pre.*?</pre>)", mended, flags=re.DOTALL)
    parts[::2] = [part.replace(" ± ", "\u00a0±\u00a0") for part in parts[::2]]
    parts[::2] = [re.sub(r"(?<=\d) %", "\u00a0%", part) for part in parts[::2]]
    parts[::2] = [re.sub(r"<td>.*?</td>", _unbroken, part) for part in parts[::2]]
    mended = "".join(parts)
    if mended != text:
        page.write_text(mended, encoding="utf-8")


def _unbroken(cell: re.Match[str]) -> str:
    """A cell of a table with its intervals in one piece, but for those of four decimals."""
    end = r"[-+]?\d*\.?\d{1,3}"
    return re.sub(rf"(\[{end},) (?={end}\])", "\\1\u00a0", cell[0])


if __name__ == "__main__":
    sys.exit(main())
