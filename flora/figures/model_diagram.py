"""The model in one drawing, whose guidance the reader switches: no kernel, no script."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from importlib import resources
from string import Template

from flora.errors import FloraError
from flora.predictors import MODES, Mode

PARTS = ("encoder", "prior", "teacher", "fusion")
# The roads by which guidance brings something into the features, and the words for them.
ROADS = {
    "none": "none",
    "attention": "cross-attention",
    "shift": "FiLM's shift",
    "both": "both",
}
LABEL = (
    "FLoRA. The SAR image goes through an encoder into features s; an estimator guesses p from "
    "them. Where there is an optical image, a frozen teacher makes features t of it. Guidance g is "
    "t where something was seen, else p. At each of four levels, FiLM and a gate fuse s and g, at "
    "two of them after cross-attention. Two decoders make an image and a map of water of the fused "
    "features."
)


class ModelDiagram:
    """FLoRA from the images to the image and the map, with its three modes of guidance to switch.

    Switching is done by the style sheet alone, so it works wherever the page is shown.

    Args:
        lit: Part to be marked: "encoder", "prior" (the estimator), "teacher" or "fusion".
        mode: The mode shown at first.
        scores: What the model reaches with a road closed, in words by road and mode. The reader
            closes a road, of those that are given, and reads it beside; "none" is closed at first.

    Raises:
        FloraError: If the part, the mode or a road is unknown, or the scores lack those with no
            road closed.

    Example:
        >>> from flora.figures.model_diagram import ModelDiagram
        >>> ModelDiagram(lit="teacher")
        ModelDiagram(teacher, mode sar)
    """

    def __init__(
        self,
        lit: str = "",
        mode: Mode = "sar",
        scores: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        if lit and lit not in PARTS:
            raise FloraError(f"lit {lit!r}: expected one of {', '.join(PARTS)}")
        if mode not in MODES:
            raise FloraError(f"mode {mode!r}: expected one of {', '.join(MODES)}")
        for road in scores or {}:
            if road not in ROADS:
                raise FloraError(f"scores of {road!r}: expected one of {', '.join(ROADS)}")
        if scores and "none" not in scores:
            raise FloraError("scores: expected those with no road closed, 'none', as well")
        self.lit = lit
        self.mode = mode
        self.scores = scores or {}

    def __repr__(self) -> str:
        return f"ModelDiagram({self.lit or 'whole'}, mode {self.mode})"

    def _repr_html_(self) -> str:
        whole = f"{self.lit} {self.mode}{self.scores or ''}"
        key = "model-" + hashlib.sha256(whole.encode()).hexdigest()[:8]
        page = _static("html").replace("{{svg}}", _drawing(key, ""))
        page = page.replace("{{style}}", _static("css") + _static("page.css"))
        chosen = {mode: " checked" if mode == self.mode else "" for mode in MODES}
        return Template(page).substitute(key=key, lit=self.lit, roads=self._roads(key), **chosen)

    def _roads(self, key: str) -> str:
        """Buttons that close a road, and the scores of each with each mode."""
        if not self.scores:
            return ""
        buttons = "\n".join(
            f'<label><input type="radio" name="{key}-road" value="{road}"'
            f"{' checked' if road == 'none' else ''}> {words}</label>"
            for road, words in ROADS.items()
            if road in self.scores
        )
        lines = "\n".join(
            f'<p data-closed="{road}" data-scored="{mode}">{escape(words)}</p>'
            for road, modes in self.scores.items()
            for mode, words in modes.items()
        )
        return (
            f"<fieldset><legend>Closed road</legend>\n{buttons}</fieldset>\n"
            f'<div class="scores" aria-live="polite">{lines}</div>'
        )

    def svg(self) -> str:
        """The drawing alone, of no mode, as a file in the reader's light or dark colours."""
        light, dark = (_static(name) for name in ("css", "page.css"))
        colours = dark[dark.index("{") + 1 : dark.index("}")]
        style = light.replace(".flora-model {", ":root {")
        style = style.replace(".flora-model ", "").replace(".flora-model", ":root")
        style += f"@media (prefers-color-scheme: dark) {{ :root {{{colours}}} }}\n"
        return _drawing("model", f"<style>\n{style}</style>\n")


def _drawing(key: str, style: str) -> str:
    svg = _static("svg").replace("{{key}}", key).replace("{{label}}", LABEL)
    return svg.replace("{{style}}", style).replace(
        'class="road', f'marker-end="url(#{key}-tip)" class="road'
    )


def _static(ending: str) -> str:
    name = f"model_diagram{'_' if ending == 'page.css' else '.'}{ending}"
    return (resources.files("flora.figures") / "static" / name).read_text(encoding="utf-8")
