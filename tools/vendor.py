"""Make a built book need no network: what its pages load from elsewhere is laid beside them.

`vendor/npm` mirrors the content network that the pages name, so that an address becomes a local
one by its prefix alone; that holds for what a widget's script loads later, too. The files come
from the npm registry (tools/npm.py) and lie outside `_static`, whose scripts Jupyter Book loads
on every page.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from tools.npm import PACKAGES, NpmError, unpacked

NETWORK = "https://cdn.jsdelivr.net/npm/"
# The same file, where a page takes it from somewhere else.
SAME = {
    "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.4/require.min.js": (
        f"{NETWORK}requirejs@2.3.8/require.js"
    ),
}
ADDRESS = re.compile(re.escape(NETWORK) + r"((?:@[\w.-]+/)?[\w.-]+)@([\w.^~-]+)/")
WIDGET_STATE = re.compile(
    r'<script type="application/vnd\.jupyter\.widget-state\+json">(.*?)</script>', re.DOTALL
)
# Their scripts are in the widget manager itself.
MANAGED = {"@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output"}


def localise(site: Path) -> list[str]:
    """Point every page of a built site to local copies of its scripts, styles and fonts.

    Args:
        site: Folder of the built pages; `vendor` is made in it.

    Returns:
        The packages that were laid there, as "name@version asked for".

    Raises:
        NpmError: If a package cannot be had, or a page loads what no package of tools/npm.py has.
    """
    laid: set[str] = set()
    pages = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.parts]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for same, address in SAME.items():
            text = text.replace(same, address)
        widgets = set(widget_packages(text))
        for name, version in {*ADDRESS.findall(text), *widgets}:
            if f"{name}@{version}" not in laid:
                _lay(name, version, site / "vendor" / "npm", page)
                laid.add(f"{name}@{version}")
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = re.sub(rf"<(?:script|link)\b[^>]*{re.escape(NETWORK)}[^>]*>", _unguarded, text)
        text = text.replace(NETWORK, f"{up}vendor/npm/")
        if widgets:
            text = text.replace("<head>", f"<head>{widget_paths(widgets, up)}", 1)
        left = sorted(set(foreign(text)))
        if left:
            raise NpmError(
                f"{page.relative_to(site)} loads {', '.join(left)}: give tools/npm.py the package "
                "that has it, or take it out of the page"
            )
        page.write_text(text, encoding="utf-8")
    return sorted(laid)


def widget_packages(text: str) -> Iterator[tuple[str, str]]:
    """(name, version asked for) of the packages that a page's live widgets load."""
    for state in WIDGET_STATE.findall(text):
        for model in json.loads(state)["state"].values():
            if model["model_module"] not in MANAGED:
                yield model["model_module"], model["model_module_version"]


def widget_paths(packages: Iterable[tuple[str, str]], up: str) -> str:
    """The script that tells where widgets lie.

    Without it the widget manager looks beside the page first, and is told "not found".
    """
    paths = {name: f"{up}vendor/npm/{name}@{version}/dist/index" for name, version in packages}
    return f"<script>var require = {json.dumps({'paths': paths})};</script>"


def foreign(text: str) -> Iterator[str]:
    """Addresses on other hosts that a page's own tags load, those of its inline frames included."""
    found = _Loads(text)
    yield from (url for url in found.urls if url.startswith(("http://", "https://", "//")))
    for document in found.documents:
        yield from foreign(document)


class _Loads(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.documents: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag != "a" and "src" in values:
            self.urls.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.urls.append(values.get("href", ""))
        if "srcdoc" in values:
            self.documents.append(values["srcdoc"])


def _unguarded(tag: re.Match[str]) -> str:
    """A tag without what guards a foreign script: a local copy is of another hash and origin."""
    return re.sub(r'\s(?:integrity|crossorigin)="[^"]*"', "", tag[0])


def _lay(name: str, version: str, mirror: Path, page: Path) -> None:
    """Copy the parts of one package that pages load, under the version that they ask for."""
    if name not in PACKAGES:
        raise NpmError(f"{page.name} loads the package {name}, which tools/npm.py does not pin")
    package = PACKAGES[name]
    # Pages ask for "3", "^0.20", "1.0.6": one version is pinned, so at least its first part fits.
    if version.lstrip("^~").split(".")[0] != package.version.split(".")[0]:
        raise NpmError(
            f"{page.name} loads {name}@{version}, and tools/npm.py pins {package.version}"
        )
    folder = unpacked(package)
    for part in (*package.parts, *(path.name for path in folder.glob("LICENSE*"))):
        source, target = folder / part, mirror / f"{name}@{version}" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
