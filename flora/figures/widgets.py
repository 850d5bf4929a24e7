"""Where the pages of the figures that a reader moves come from: HTML, CSS and JavaScript files."""

from __future__ import annotations

from importlib import resources
from string import Template


def widget_page(name: str) -> Template:
    """The page `static/NAME.html` with its style and script in it, places as $name."""
    static = resources.files("flora.figures") / "static"
    files = (static / f"{name}.{ending}" for ending in ("html", "css", "js"))
    html, css, js = (file.read_text(encoding="utf-8") for file in files)
    return Template(html.replace("{{style}}", css).replace("{{script}}", js))
