"""Sphinx extension: figures and tables are numbered chapter by chapter, whatever drew them.

A figure of chapter 03 is Fig. 3.1, 3.2 and so on, of 05b Fig. 5b.1; on a page that is no chapter,
Fig. 1, 2. A figure of the class `table`, which is how a cell's metadata mark an output that is a
table, is numbered among the tables.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform


class captioned_table(nodes.figure):  # in lower case: docutils finds a node's visitor by its name
    """A table that a cell of code has drawn, with its caption."""


class TablesAmongFigures(SphinxTransform):
    """Makes tables of the figures that say they are, before anything is numbered."""

    default_priority = 200  # Sphinx marks what it will number at 210

    def apply(self, **_: Any) -> None:
        """Replace every figure of the class `table`."""
        for figure in list(self.document.findall(nodes.figure)):
            if "table" in figure["classes"] and not isinstance(figure, captioned_table):
                table = captioned_table("", *figure.children, **figure.attributes)
                table["classes"] = [name for name in figure["classes"] if name != "table"]
                table.source, table.line = figure.source, figure.line
                figure.replace_self(table)
                self.document.ids.update(dict.fromkeys(table["ids"], table))


def caption_of(node: nodes.Node) -> str | None:
    """The words of a node's caption, or None without one."""
    captions = (child for child in node.children if isinstance(child, nodes.caption))
    first = next(captions, None)
    return None if first is None else first.astext()


def number_by_chapter(app: Sphinx, environment: BuildEnvironment) -> list[str]:
    """Number what Sphinx has numbered through the book anew, from 1 on every page."""
    for page, kinds in environment.toc_fignumbers.items():
        chapter = re.match(r"notebooks/(\d+b?)_", page)
        before = (chapter[1].lstrip("0") or "0",) if chapter else ()
        for numbers in kinds.values():
            for count, name in enumerate(sorted(numbers, key=numbers.__getitem__), start=1):
                numbers[name] = (*before, count)
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_enumerable_node(
        captioned_table,
        "table",
        caption_of,
        html=(
            lambda writer, node: writer.visit_figure(node),
            lambda writer, node: writer.depart_figure(node),
        ),
    )
    app.add_transform(TablesAmongFigures)
    app.connect("env-get-updated", number_by_chapter, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
