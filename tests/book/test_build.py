"""The book's tools: what is laid beside the pages, the cell for Colab, links, and print."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from ipywidgets.embed import dependency_state, embed_minimal_html
from pypdf import PdfReader
from sphinx.cmd.build import build_main

from flora import load_record
from tests.support.book_walk import visit
from tests.support.servers import Fault, http_server, without_proxy
from tools import check_links, colab_cell, npm, vendor
from tools.build_book import book_config, mend, pin, published_commit
from tools.npm import PACKAGES, NpmError, Package
from tools.print_book import print_pages
from tools.serve import served
from tools.tables import SENTENCES, TABLES

# --- packages of npm ----------------------------------------------------------------------------


def fake_npm(folder: Path, files: dict[str, str], monkeypatch) -> Package:
    """An npm on PATH whose `pack` gives these files, and the package that pins them."""
    archive = folder / "fake-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            opened.addfile(member, io.BytesIO(text.encode()))
    program = folder / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\ncp {archive} .\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(npm, "CACHE", folder / "cache")
    package = Package("fake", "1.0.0", "", ("main.js", "fonts"))
    with pytest.raises(NpmError) as refused:
        npm.unpacked(package)
    (folder / "calls").unlink()
    return replace(package, integrity=str(refused.value).split("the hash ")[1].split(",")[0])


def test_package_is_fetched_once_and_checked(tmp_path, monkeypatch):
    package = fake_npm(tmp_path, {"main.js": "1", "fonts/a": "2", "big.js": "3"}, monkeypatch)
    folder = npm.unpacked(package)
    assert (folder / "fonts" / "a").read_text() == "2"
    assert npm.unpacked(package) == folder
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["pack fake@1.0.0 --silent --ignore-scripts"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [folder.name]


def test_changed_package_is_refused_and_not_kept(tmp_path, monkeypatch):
    package = fake_npm(tmp_path, {"main.js": "1"}, monkeypatch)
    with pytest.raises(NpmError, match=r"is\s+pinned in tools/npm.py"):
        npm.unpacked(replace(package, integrity="sha512-other"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_npm_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(npm, "CACHE", tmp_path)
    with pytest.raises(NpmError, match="install Node"):
        npm.unpacked(PACKAGES["mathjax"])


def test_page_is_pointed_to_local_copies(tmp_path, monkeypatch):
    package = fake_npm(tmp_path, {"main.js": "1", "fonts/a": "2", "big.js": "3"}, monkeypatch)
    monkeypatch.setitem(PACKAGES, "fake", package)
    page = tmp_path / "site" / "book" / "page.html"
    page.parent.mkdir(parents=True)
    tag = f'<script integrity="sha256-x" src="{vendor.NETWORK}fake@1/main.js"></script>'
    page.write_text(tag + '<a href="https://example.org">elsewhere</a>')
    assert vendor.localise(tmp_path / "site") == ["fake@1"]
    assert page.read_text() == (
        '<script src="../vendor/npm/fake@1/main.js"></script>'
        '<a href="https://example.org">elsewhere</a>'
    )
    laid = tmp_path / "site" / "vendor" / "npm" / "fake@1"
    assert sorted(path.name for path in laid.iterdir()) == ["fonts", "main.js"]


@pytest.mark.parametrize(
    ("html", "message"),
    [
        (f'<script src="{vendor.NETWORK}unheard-of@1/a.js"></script>', "does not pin"),
        (f'<script src="{vendor.NETWORK}mathjax@4/a.js"></script>', "pins 3.2.2"),
        ('<link rel="stylesheet" href="https://example.org/a.css">', "example.org/a.css"),
        ('<iframe srcdoc="&lt;img src=&quot;//example.org/a.png&quot;&gt;"></iframe>', "a.png"),
    ],
)
def test_page_that_would_need_a_network_is_refused(tmp_path, html, message):
    (tmp_path / "page.html").write_text(html)
    with pytest.raises(NpmError, match=message):
        vendor.localise(tmp_path)
    assert (tmp_path / "page.html").read_text() == html


def test_live_widget_and_map_are_drawn_without_a_network(browser, tmp_path):
    from ipyleaflet import Map

    try:
        for name in ("requirejs", "@jupyter-widgets/html-manager", "jupyter-leaflet"):
            npm.unpacked(PACKAGES[name])
    except NpmError as error:
        pytest.skip(f"the widget manager is not at hand: {error}")
    views = [ipywidgets.IntSlider(value=7, description="level"), Map(layers=[])]
    page = tmp_path / "widgets.html"
    # Of these alone: other tests of this process may have left widgets behind.
    embed_minimal_html(page, views=views, title="Widgets", state=dependency_state(views))
    require = next(iter(vendor.SAME))
    manager = f"{vendor.NETWORK}@jupyter-widgets/html-manager@1.0.6"
    head = (
        f'<link rel="icon" href="data:,"><script src="{require}"></script>'
        f'<script data-jupyter-widgets-cdn="{vendor.NETWORK}" src="{manager}/dist/embed-amd.js">'
    )
    # As MyST-NB asks for them.
    text = page.read_text()
    start = text.index("<script", text.index("<head"))
    end = text.index("</script>", text.index("embed-amd.js"))
    page.write_text(text[:start] + head + text[end:])
    assert vendor.localise(tmp_path)
    with served(tmp_path) as address:
        tab = browser.new_context(viewport={"width": 800, "height": 900}).new_page()
        tab.route(lambda url: not url.startswith(address), lambda route: route.abort())
        tab.goto(address + "widgets.html")
        tab.wait_for_selector(".leaflet-container .leaflet-control-zoom")
        assert tab.locator(".widget-readout, .widget-slider input").first.is_visible()
        assert visit(tab, address, "widgets.html", offline=True) == []
        tab.context.close()


# --- the cell for Colab -------------------------------------------------------------------------


def test_colab_cell_follows_the_repository_and_moves_the_counts():
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_markdown_cell("Imports."),
        nbformat.v4.new_code_cell("import os", execution_count=1),
        nbformat.v4.new_code_cell("1", execution_count=2),
    ]
    cells[3].outputs = [nbformat.v4.new_output("execute_result", execution_count=2)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    colab_cell.place(notebook, "old")
    colab_cell.place(notebook, "new")
    expected = ["# Title", "new", "Imports.", "import os", "1"]
    assert [cell.source for cell in notebook.cells] == expected
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3]
    assert notebook.cells[4].outputs[0].execution_count == 3
    nbformat.validate(notebook)


@pytest.mark.parametrize(("name", "package"), [("01_data", "flora"), ("06_maps", "flora[maps]")])
@pytest.mark.parametrize(("installed", "expected"), [(True, []), (False, ["pip"])])
def test_colab_cell_installs_only_what_is_missing(
    installed, expected, name, package, monkeypatch, capsys
):
    called = []

    class Shell:
        def run_line_magic(self, name, line, *_):
            called.append((name, line))

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    code = TransformerManager().transform_cell(colab_cell.source(name))
    exec(code, {"get_ipython": Shell})
    assert [name for name, _ in called] == expected
    assert (capsys.readouterr().out == "") == installed
    for _, line in called:
        assert f'"{package} @ git+{colab_cell.repository_url()}@main"' in line


def test_extras_of_chapters_exist():
    with (colab_cell.ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert set(colab_cell.EXTRAS.values()) <= extras.keys()
    chapters = {path.stem for path in (colab_cell.ROOT / "notebooks").glob("*.ipynb")}
    assert colab_cell.EXTRAS.keys() <= chapters


def test_pages_pin_the_commit_that_readers_can_fetch(tmp_path):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path / "tree"), "-c", "user.name=x", "-c", "user.email=x"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote")], check=True)
    subprocess.run(["git", "init", "-q", str(tmp_path / "tree")], check=True)
    page = tmp_path / "tree" / "page.md"
    page.write_text("x")
    git("add", ".")
    git("commit", "-qm", "x")
    assert published_commit(tmp_path / "tree") is None  # only here
    git("remote", "add", "origin", str(tmp_path / "remote"))
    git("push", "-q", "origin", "HEAD:main")
    git("fetch", "-q", "origin")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert published_commit(tmp_path / "tree") == commit
    page.write_text("y")
    assert published_commit(tmp_path / "tree") is None  # changed since
    assert published_commit(tmp_path) is None  # no repository

    staged = tmp_path / "01_data.ipynb"
    staged.write_bytes((colab_cell.ROOT / "notebooks" / staged.name).read_bytes())
    pin(staged, commit)
    first = next(cell for cell in nbformat.read(staged, 4).cells if colab_cell.is_colab(cell))
    assert f'"flora @ git+{colab_cell.repository_url()}@{commit}"' in first.source
    assert "@main" not in first.source


# --- links --------------------------------------------------------------------------------------


def test_links_are_told_apart(tmp_path, monkeypatch):
    without_proxy(monkeypatch)
    (tmp_path / "book").mkdir()
    with http_server() as site:
        site.files |= {"/good": b"x", "/shy": b"x"}
        site.always["/shy"] = Fault(status=403)
        targets = ["/good#part", "/shy", "/lost"]
        anchors = [f'<a href="{site.base}{target}">x</a>' for target in targets]
        anchors += ['<a href="#here">x</a>', '<a href="http://127.0.0.1:9/">x</a>']
        (tmp_path / "book" / "page.html").write_text("".join(anchors))
        holders = check_links.links(tmp_path)
        found = check_links.check(holders, 2.0)
        by_path = {url.removeprefix(site.base): str(state) for url, (state, _) in found.items()}
        lost = site.asked("/lost")
    assert by_path == {
        "/good": "works",
        "/shy": "unknown",
        "/lost": "broken",
        "http://127.0.0.1:9/": "broken",
    }
    assert len(lost) == 2  # asked again before it counts
    assert holders[f"{site.base}/good"] == {"book/page.html"}


# --- print --------------------------------------------------------------------------------------


def test_print_has_every_page_an_outline_and_links_within(browser, tmp_path):
    style = '<link rel="icon" href="data:,"><article>'
    (tmp_path / "a.html").write_text(
        f'{style}<h1>First</h1><h2>A part</h2><a href="b.html#far">to B</a>'
        "<details><summary>folded</summary>hidden text</details></article>"
    )
    filler = "<p>line</p>" * 120
    (tmp_path / "b.html").write_text(f'{style}<h1>Second</h1>{filler}<p id="far">far</p></article>')
    book = PdfReader(io.BytesIO(print_pages(browser, tmp_path, ["a.html", "b.html"])))
    text = [sheet.extract_text() for sheet in book.pages]
    assert "hidden text" in text[0]
    (first, parts, second) = book.outline
    assert [first.title, parts[0].title, second.title] == ["First", "A part", "Second"]
    assert [book.get_destination_page_number(entry) for entry in (first, second)] == [0, 1]
    (link,) = [note.get_object() for note in book.pages[0]["/Annots"]]
    assert "/A" not in link
    sheets = [sheet.indirect_reference.idnum for sheet in book.pages]
    assert "far" in text[sheets.index(link["/Dest"][0].idnum)]


# --- numbers of figures and tables --------------------------------------------------------------


def test_figures_and_tables_are_numbered_chapter_by_chapter(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "index.md").write_text(
        "# Start\n\n```{toctree}\nnotebooks/02_a\nnotebooks/03_b\nnotebooks/03b_c\n```\n\n"
        "{numref}`fig-two` {numref}`tab-one`\n\n```{figure} x.svg\nOf no chapter.\n```\n"
    )
    figure = "```{{figure}} /x.svg\n:name: {}\n{}\nWords.\n```\n\n"
    (tmp_path / "notebooks/02_a.md").write_text("# A\n\n" + figure.format("fig-zero", ""))
    (tmp_path / "notebooks/03_b.md").write_text(
        "# B\n\n"
        + figure.format("fig-one", "")
        + figure.format("tab-one", ":figclass: table")
        + figure.format("fig-two", "")
    )
    (tmp_path / "notebooks/03b_c.md").write_text("# C\n\n" + figure.format("fig-three", ""))
    (tmp_path / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (tmp_path / "conf.py").write_text(
        "extensions = ['myst_parser', 'tools.numbering']\nnumfig = True\n"
    )
    assert build_main(["-qW", "-b", "html", str(tmp_path), str(tmp_path / "out")]) == 0

    def numbers(page):
        text = (tmp_path / "out" / page).read_text()
        return re.findall(r'class="caption-number">(.+?) </span>', text)

    assert numbers("notebooks/02_a.html") == ["Fig. 2.1"]
    assert numbers("notebooks/03_b.html") == ["Fig. 3.1", "Table 3.1", "Fig. 3.2"]
    assert numbers("notebooks/03b_c.html") == ["Fig. 3b.1"]
    assert numbers("index.html") == ["Fig. 1"]
    start = (tmp_path / "out/index.html").read_text()
    assert re.findall(r'class="std std-numref">(.+?)</span>', start) == ["Fig. 3.2", "Table 3.1"]


# --- what a cell prints -------------------------------------------------------------------------


def test_what_a_cell_prints_bit_by_bit_is_one_block(tmp_path):
    cell = nbformat.v4.new_code_cell("print('first'); print('second')", execution_count=1)
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=f"{word}\n")
        for word in ("first", "second")
    ]
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Page"), cell])
    page.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    nbformat.write(page, tmp_path / "index.ipynb")
    merged = book_config()["sphinx"]["config"]["nb_merge_streams"]
    (tmp_path / "conf.py").write_text(
        "extensions = ['myst_nb']\nnb_execution_mode = 'off'\n"
        f"source_suffix = ['.ipynb']\nnb_merge_streams = {merged}\n"
    )
    assert build_main(["-qW", "-b", "html", str(tmp_path), str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/index.html").read_text()
    assert re.search(r"<pre>(<span></span>)?first\nsecond\n</pre>", text)


# --- what pages quote from records --------------------------------------------------------------


def test_every_chapter_has_its_time_in_the_record_and_on_the_start_page():
    words = book_config()["parse"]["myst_substitutions"]
    intro = (colab_cell.ROOT / "book/intro.md").read_text(encoding="utf-8")
    chapters = sorted(path.stem for path in (colab_cell.ROOT / "notebooks").glob("*.ipynb"))
    assert len(chapters) > 5
    for name in chapters:
        assert words[f"seconds_{name}"].endswith(" s")
        assert f"{{{{ seconds_{name} }}}}" in intro


def test_every_table_of_records_is_whole_and_stands_on_a_page():
    pages = "".join(path.read_text(encoding="utf-8") for path in colab_cell.ROOT.glob("book/*.md"))
    for name, made in TABLES.items():
        widths = {line.count("|") for line in made().splitlines()}
        assert len(widths) == 1, name
        assert len(made().splitlines()) > 3, name
        assert f"{{{{ {name} }}}}" in pages, name
    for name, made in SENTENCES.items():
        assert made() and "\n" not in made()
        assert f"{{{{ {name} }}}}" in pages, name


def test_real_chips_are_quoted_as_they_are_recorded():
    rows = load_record("test_chips")["rows"]
    table = TABLES["test_chips_table"]()
    assert f"{rows['pooled']['VH < -20 dB, 9 px median']['water_iou']:.3f} |" in table
    assert "Paraguay" not in table  # no radar, so no score
    chosen = load_record("real_threshold")
    ours = f"FLoRA, weights that ship, {chosen['ships']:g}"
    own = {name: row.get("FLoRA, weights that ship") for name, row in rows.items()}
    assert own == {name: row.get(ours) for name, row in chosen["test"].items()}
    cells = TABLES["real_threshold_table"]().splitlines()[2].split("|")
    at = chosen["labelled"]["Spain_7370579"]
    assert [cells[2].strip(), cells[4].strip()] == [f"{at[t]:.3f}" for t in ("0.5", "0.1")]
    weights = load_record("spain_bound")["shipped"]["water_iou_at_threshold"]
    assert f"| {weights['0.5']:.3f} |" in TABLES["bound_table"]()
    # Of the weights that ship, or the table says what is not so.
    spain = load_record("spain_flora_tiny_sar")["scores"]["all"]["water_iou"]
    assert weights["0.5"] == pytest.approx(spain, abs=1e-3)


def test_a_number_stays_with_its_spread_but_code_is_left_alone(tmp_path):
    page = tmp_path / "page.html"
    cell = "<td>+0.1 [-0.2, +0.3] of 4 [-0.0012, +0.0003]</td>"
    script = "<script>[0.1, 0.2]</script>"
    other = f"<td>1.0 ± 0.1</td><pre>print(7 % 5, '1 ± 2')</pre><p>3 ± 4 %</p>{script}"
    page.write_text(cell + other, encoding="utf-8")
    mend(page)
    text = page.read_text(encoding="utf-8").replace("\u00a0", "_")
    mended = f"<td>1.0_±_0.1</td><pre>print(7 % 5, '1 ± 2')</pre><p>3_±_4_%</p>{script}"
    assert text == "<td>+0.1 [-0.2,_+0.3] of 4 [-0.0012, +0.0003]</td>" + mended
