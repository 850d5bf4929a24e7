"""A map as one HTML page: no kernel, no tile server, no network; it opens from a file."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import zlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flora.colours import FLOOD_COLOUR, PERMANENT_COLOUR, probability_ramp, rgb_bytes
from flora.errors import FloraError
from flora.files import new_file, write_text
from flora.maps.layers import OUTLINE_STEPS, SceneMap
from flora.maps.overlays import OVERLAYS
from flora.sensors import ByteArray

QUALITY = 70  # of WebP: speckle at a higher one is what fills the page


class StaticMap:
    """A map that a notebook or a book page shows in a frame of its own.

    Args:
        scene: What to show.
        tiles: Address of a base map's tiles with {z}, {x} and {y}; offered in the map, and off
            until a reader asks for it. Without, the page needs no network whatever one does.
        tiles_attribution: What the base map's owner asks to have said.

    Raises:
        FloraError: If `tiles` is no such address, comes without attribution, or the scene has no
            CRS.

    Example:
        >>> from pathlib import Path
        >>> from flora import load_model, map_scene, open_scene, predictor
        >>> from flora import read_map
        >>> from flora.maps import StaticMap
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = predictor(load_model())
        >>> with open_scene(sar) as scene:
        ...     outputs = map_scene(scene, "flood", predict)
        >>> scene = read_map(outputs.water_probability, sar=sar)
        >>> StaticMap(scene.labelled(title="Simulated flood"))
        StaticMap('Simulated flood', 64 x 64 px)
    """

    def __init__(
        self, scene: SceneMap, *, tiles: str | None = None, tiles_attribution: str = ""
    ) -> None:
        if tiles is not None:
            if not all(part in tiles for part in ("{z}", "{x}", "{y}")):
                raise FloraError(f"tiles {tiles!r}: expected an address with {{z}}, {{x}}, {{y}}")
            if not tiles_attribution:
                raise FloraError("tiles_attribution is empty: name the owner of the base map")
            if scene.grid.crs is None:
                raise FloraError("tiles: a scene without a CRS cannot be laid on a base map")
        self.scene = scene
        self._tiles = tiles
        said = [scene.attribution, tiles_attribution]
        parts = {
            "title": html.escape(scene.title),
            "maker": html.escape(scene.maker),
            "attribution": html.escape(". ".join(text for text in said if text)),
            "style": _static("flood_map.css"),
            "script": _static("flood_map.js"),
            # In a script, only "<" could end it.
            "data": json.dumps(self._data(), separators=(",", ":")).replace("<", "\\u003c"),
        }
        self.page = _filled("flood_map.html", parts)

    def __repr__(self) -> str:
        rows, columns = self.scene.grid.shape
        return f"StaticMap({self.scene.title!r}, {rows} x {columns} px)"

    def _repr_html_(self) -> str:
        title = html.escape(f"Map of {self.scene.title}", quote=True)
        page = html.escape(self.page, quote=True)
        return _filled("frame.html", {"title": title, "page": page})

    def _data(self) -> dict[str, Any]:
        scene, transform = self.scene, self.scene.grid.transform
        colours = probability_ramp()
        placed = scene.grid.crs is not None
        return {
            "width": scene.grid.shape[1],
            "height": scene.grid.shape[0],
            "left": transform.c,
            "top": transform.f,
            "pixel": transform.a if placed else None,
            "levels": _packed(scene.levels),
            "images": [
                {"name": name, "source": data_uri(image), "over": _key(name)}
                for name, image in scene.images.items()
            ],
            "ramp": base64.b64encode(colours.tobytes()).decode(),
            "rampColours": [f"rgb({r} {g} {b})" for r, g, b in colours[::10].tolist()],
            "flood": rgb_bytes(FLOOD_COLOUR),
            "permanent": rgb_bytes(PERMANENT_COLOUR),
            "areas": [[_short(value) for value in row] for row in scene.areas.tolist()],
            "valid": _short(scene.valid_area),
            "unit": scene.unit,
            "intervals": _intervals(scene),
            "threshold": scene.threshold,
            "split": scene.split,
            "steps": OUTLINE_STEPS,
            "outlines": [
                {
                    "kind": outline.kind,
                    "area": _short(outline.km2),
                    "rings": [ring.ravel().tolist() for ring in outline.rings],
                }
                for outline in scene.outlines
            ],
            "leftOut": scene.outlines_left_out,
            "tiles": self._tiles,
        }


def write_html(
    scene: SceneMap,
    path: str | Path,
    *,
    tiles: str | None = None,
    tiles_attribution: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a map as one HTML file that opens in any browser, without a network.

    Args:
        scene: What to show.
        path: File to write.
        tiles: See `StaticMap`.
        tiles_attribution: See `StaticMap`.
        overwrite: Replace an existing file.

    Raises:
        FloraError: If the file exists already, the disk refuses, or see `StaticMap`.

    Example:
        >>> from pathlib import Path
        >>> from flora import load_model, map_scene, open_scene, predictor
        >>> from flora import read_map, write_html
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = predictor(load_model())
        >>> with open_scene(sar) as scene:
        ...     outputs = map_scene(scene, "flood", predict)
        >>> page = write_html(read_map(outputs.water_probability, sar=sar), "flood.html")
        >>> page.name
        'flood.html'
    """
    target = new_file(path, "path", overwrite)
    page = StaticMap(scene, tiles=tiles, tiles_attribution=tiles_attribution).page
    write_text(target, page)
    return target


def data_uri(image: ByteArray) -> str:
    """An image (H, W, 4) as WebP inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="webp", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _key(name: str) -> list[int] | None:
    """Colour of a layer that lies over the water; None of an image."""
    return list(rgb_bytes(OVERLAYS[name].colour)) if name in OVERLAYS else None


def _intervals(scene: SceneMap) -> list[dict[str, Any]]:
    """What the panel says of the true areas."""
    if scene.intervals is None:
        return []
    found = {"flood": scene.intervals.flood, "water": scene.intervals.water}
    return [
        {
            "of": name,
            "ends": [_short(one.low), _short(one.high)],
            "promise": scene.promise,
        }
        for name, one in found.items()
        if one is not None
    ]


def _packed(levels: ByteArray) -> str:
    """Differences (modulo 256) from the pixel on the left, compressed."""
    differences = levels.copy()
    differences[:, 1:] -= levels[:, :-1]
    return base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode()


def _short(value: float) -> float:
    """Nine digits: more than any area has, and fewer bytes."""
    return float(np.format_float_positional(value, 9, fractional=False))


def _static(name: str) -> str:
    return (resources.files("flora.maps") / "static" / name).read_text(encoding="utf-8")


def _filled(name: str, parts: Mapping[str, str]) -> str:
    """A page with {{name}} replaced by the part of that name; what parts hold is left as it is."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _static(name))
