"""What a reader's browser finds wrong with one page of the built book."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, Page

# Whatever draws itself by a script: a kernel-free figure, a map, an ipywidget, a frame.
WIDGETS = "canvas, iframe, .flora-map, .leaflet-container, .jupyter-widgets"

# What a closed box holds is part of the page, and pictures below the fold may load lazily. A box
# that fades in would be judged half-way.
OPEN = """() => {
  const still = document.createElement("style");
  still.textContent =
    "*, ::before, ::after { animation: none !important; transition: none !important }";
  document.head.append(still);
  document.querySelectorAll("details").forEach(box => box.open = true);
  document.querySelectorAll("img").forEach(image => image.loading = "eager");
}"""

BLANK = """element => {
  const box = element.getBoundingClientRect();
  if (box.width < 20 || box.height < 20) return `${box.width} x ${box.height} px`;
  if (element.tagName === "CANVAS") {
    const context = element.getContext("2d", {willReadFrequently: true});
    if (!context) return null;  // drawn by WebGL: its size is all that can be asked
    const data = context.getImageData(0, 0, element.width, element.height).data;
    return data.every((value, n) => value === data[n % 4]) ? "of one colour" : null;
  }
  const inside = element.tagName === "IFRAME" ? element.contentDocument?.body : element;
  return inside && inside.childElementCount ? null : "empty";
}"""

# Text outside of code in which TeX is left, and formulas that were not typeset.
UNTYPESET = r"""() => {
  const found = [...document.querySelectorAll(".math")]
    .filter(formula => !formula.querySelector("mjx-container"))
    .map(formula => formula.textContent.slice(0, 60));
  found.push(...[...document.querySelectorAll("mjx-merror")].map(error => error.textContent));
  const walker = document.createTreeWalker(
    document.querySelector("article") || document.body, NodeFilter.SHOW_TEXT);
  const code = "pre, code, script, style, noscript, textarea, .math, mjx-container";
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (/\\\(|\\\[|\$[^$\s][^$]*\$/.test(node.data) && !node.parentElement.closest(code))
      found.push(node.data.trim().slice(0, 60));
  }
  return found;
}"""


def is_vendored(site: Path) -> bool:
    """Whether the book was built to need no network."""
    return (site / "vendor").is_dir()


def visit(page: Page, address: str, path: str, *, offline: bool = False) -> list[str]:
    """Load one page of the book and tell what is wrong with it.

    Args:
        page: The browser's tab; requests to other hosts are best blocked by its context.
        address: Of the book.
        path: Of the page in the book.
        offline: Whether the book was built to need no network: then a script or style asked of
            another host and a formula that is not typeset are wrong, too. A picture may be of
            another host even then: a map lays a base map under its own images where it can.
    """
    problems: list[str] = []

    def own(url: str) -> bool:
        return url.startswith((address, "data:", "blob:", "about:"))

    def on_console(message) -> None:
        # What a blocked foreign host causes is reported at that host's address.
        if message.type == "error" and own(message.location.get("url", "") or address):
            problems.append(f"console: {message.text}")

    def on_request(request) -> None:
        if offline and not own(request.url) and request.resource_type != "image":
            problems.append(f"foreign: {request.url}")

    def on_response(response) -> None:
        if own(response.url) and response.status >= 400:
            problems.append(f"status {response.status}: {response.url}")

    def on_failed(request) -> None:
        # The browser itself drops what is under way, a favicon say, when the walk goes on.
        if own(request.url) and request.failure != "net::ERR_ABORTED":
            problems.append(f"failed: {request.url} {request.failure}")

    listeners = {
        "console": on_console,
        "pageerror": lambda error: problems.append(f"error: {error}"),
        "request": on_request,
        "response": on_response,
        "requestfailed": on_failed,
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(address + path, wait_until="load")
    page.evaluate(OPEN)
    page.wait_for_function("[...document.images].every(image => image.complete)", timeout=10_000)
    problems += [
        f"image does not load: {source}"
        for source in page.evaluate(
            "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
        )
    ]
    if offline:
        typeset(page)
        problems += [f"not typeset: {text}" for text in page.evaluate(UNTYPESET)]
    overflow = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    if overflow > 0:
        problems.append(f"{overflow} px wider than the window")
    for widget in page.locator(WIDGETS).all():
        if blank := widget.evaluate(BLANK):
            problems.append(f"blank widget, {blank}: {describe(widget)}")
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return [f"{path}: {problem}" for problem in problems]


def typeset(page: Page) -> None:
    """Wait until MathJax, where the page loads it, has typeset the page."""
    page.evaluate("window.MathJax && window.MathJax.startup && window.MathJax.startup.promise")


def describe(element: Locator) -> str:
    """The opening tag of an element."""
    opening: str = element.evaluate("element => element.cloneNode(false).outerHTML")
    return opening[:120]


def moves(page: Page, slider: Locator) -> bool:
    """Whether the figure of a slider looks different at its two ends."""
    nearest = "slider => slider.closest('[class*=flora-], .cell_output, body')"
    figure = slider.evaluate_handle(nearest).as_element()
    assert figure is not None
    pictures = []
    for end in ("Home", "End"):
        slider.focus()
        page.keyboard.press(end)
        page.wait_for_timeout(50)
        # Without the slider itself, whose handle moves in any case.
        pictures.append(figure.screenshot(mask=[slider], animations="disabled"))
    return pictures[0] != pictures[1]


def pans(page: Page, drawn: Locator) -> bool:
    """Whether a map shows something else after it was dragged."""
    drawn.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    before = drawn.screenshot(animations="disabled")
    box = drawn.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] / 5, y + box["height"] / 6, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    return drawn.screenshot(animations="disabled") != before
