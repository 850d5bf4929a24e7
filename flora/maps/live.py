"""Maps of a flood: live in a notebook, as one HTML page, and as a figure for print.

`read_map` reads the layers once; `flood_map`, `StaticMap`, `write_html` and `print_figure` show
them.
"""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from flora.errors import FloraError
from flora.figures import plots
from flora.maps.floods import FLOOD, FLOOD_COLOUR, PERMANENT, PERMANENT_COLOUR
from flora.maps.layers import (
    OUTLINE_STEPS,
    RGB,
    SAR,
    THRESHOLDS,
    UNSEEN,
    ByteArray,
    SceneMap,
    area_text,
    ramp_colours,
    read_map,
)
from flora.maps.page import StaticMap, data_uri, write_html
from flora.scenes.outputs import SEMI_MAJOR_AXIS

__all__ = ["SceneMap", "StaticMap", "flood_map", "print_figure", "read_map", "write_html"]

WATER_OPACITY = 0.8


def flood_map(scene: SceneMap, *, swipe: str | None = None, height: str = "600px") -> Any:
    """A live map for JupyterLab, VS Code and Colab: leafmap on ipyleaflet, over OpenStreetMap.

    Each layer has a switch and an opacity; a slider moves the threshold, and the areas follow.
    The base map comes from the network; the scene's own layers do not.

    Args:
        scene: What to show.
        swipe: Name of the image of `scene.images` that is shown left of a line that can be
            dragged; by default the one from before the flood, if there is one.
        height: Height of the map in CSS units.

    Returns:
        A `leafmap.Map`, to which more can be added.

    Raises:
        FloraError: If leafmap is missing, the scene has no CRS, or there is no image of this name.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from flora import flood_map, load_model, map_scene, read_map, scene_predictor
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = scene_predictor(load_model(), torch.device("cpu"))
        >>> outputs = map_scene(sar, "flood", predict)
        >>> live = flood_map(read_map(outputs.water_probability, sar=sar))
        >>> type(live).__name__
        'Map'
    """
    try:
        import ipyleaflet
        import ipywidgets
        import leafmap.leafmap as leafmap
    except ImportError as error:
        raise FloraError(
            f"flood_map needs {error.name}: install it with pip install leafmap, or use write_html"
        ) from error
    if scene.grid.crs is None:
        raise FloraError(
            "scene: has no CRS, so it has no place on a live map; georeference the scene, or use "
            "write_html"
        )
    if swipe is None:
        swipe = next((name for name in scene.images if "before" in name), None)
    elif swipe not in scene.images:
        raise FloraError(f"swipe {swipe!r}: expected one of {', '.join(scene.images)}")

    west, south, east, north = scene.grid.lon_lat_box()
    bounds = ((south, west), (north, east))
    made = leafmap.Map(
        center=((south + north) / 2, (west + east) / 2),
        height=height,
        scroll_wheel_zoom=True,
        draw_control=False,
        measure_control=False,
        toolbar_control=False,
    )
    # The line of a swipe cuts panes, so each of its sides needs one.
    # Tiles lie at 200; outlines at 400, where a GeoJSON always is, and have to be above the images.
    made.panes = {"flora-left": {"zIndex": 310}, "flora-right": {"zIndex": 311}}
    images: dict[str, ByteArray] = {
        name: scene.images[name]
        for name in sorted(scene.images, key=lambda name: (name != SAR, name))
        if name != swipe
    }
    images["water probability"] = probability_colours(scene)
    overlays = {
        name: ipyleaflet.ImageOverlay(
            url=data_uri(image), bounds=bounds, name=name, pane="flora-right"
        )
        for name, image in images.items()
    }
    water = ipyleaflet.ImageOverlay(
        url=data_uri(water_colours(scene, scene.threshold)),
        bounds=bounds,
        name="flood and permanent water" if scene.split else "water",
        opacity=WATER_OPACITY,
        pane="flora-right",
        attribution=html.escape(scene.attribution),
    )
    overlays[water.name] = water
    shown = {SAR if SAR in scene.images else "water probability", water.name}
    if scene.outlines:
        overlays["polygons"] = ipyleaflet.GeoJSON(
            data=_outlines_geojson(scene),
            name="polygons",
            style={"color": "#ffe600", "weight": 1.5, "fill": False},
        )
        # Shown at first: ipyleaflet draws a GeoJSON that is not, and draws it twice when it is.
        shown.add("polygons")
    rows: list[Any] = []
    for name, overlay in overlays.items():
        overlay.visible = name in shown
        made.add(overlay)
        rows.insert(0, _layer_row(ipywidgets, overlay))
    if swipe is not None:
        left = ipyleaflet.ImageOverlay(
            url=data_uri(scene.images[swipe]), bounds=bounds, name=swipe, pane="flora-left"
        )
        made.add(left)
        made.add(ipyleaflet.SplitMapControl(left_layer=left, right_layer=water))

    slider = ipywidgets.FloatSlider(
        scene.threshold, min=0.01, max=0.99, step=0.01, description="threshold"
    )
    reading = ipywidgets.HTML(_reading(scene, scene.threshold))

    def follow(change: dict[str, Any]) -> None:
        threshold = round(100 * change["new"]) / 100
        water.url = data_uri(water_colours(scene, threshold))
        reading.value = _reading(scene, threshold)

    slider.observe(follow, "value")
    panel = ipywidgets.VBox([slider, reading, *rows])
    made.add(ipyleaflet.WidgetControl(widget=panel, position="topright"))
    made.add_legend(title="Legend", legend_dict=_legend(scene))
    made.fit_bounds(bounds)
    return made


def water_colours(scene: SceneMap, threshold: float) -> ByteArray:
    """Flood and permanent water as colours (H, W, 4) at screen size, transparent elsewhere."""
    codes = scene.classes(threshold)
    colours = np.zeros((*codes.shape, 4), dtype=np.uint8)
    for code, colour in ((FLOOD, FLOOD_COLOUR), (PERMANENT, PERMANENT_COLOUR)):
        colours[codes == code] = np.rint(255 * np.array(to_rgba(colour)))
    return colours


def probability_colours(scene: SceneMap) -> ByteArray:
    """The probability as colours (H, W, 4) at screen size, transparent in nodata."""
    level = scene.levels & UNSEEN
    colours: ByteArray = ramp_colours()[np.minimum(level, len(THRESHOLDS) - 1)]
    colours[level == UNSEEN] = 0
    return colours


def print_figure(
    scene: SceneMap, *, threshold: float | None = None, before: str | None = None
) -> plots.BookFigure:
    """A figure for print: before, after, and the flood over the radar image.

    Save it with `figure.savefig("flood.pdf", dpi=300, bbox_inches="tight")`.

    Args:
        scene: What to draw; its `size` is the resolution of the panels.
        threshold: Probability from which a pixel is water, in hundredths; by default the map's.
        before: Name of an image of `scene.images` for the first panel; by default the one from
            before the flood, if there is one.

    Raises:
        FloraError: If there is no such image, or the threshold is not a hundredth.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from flora import load_model, map_scene, print_figure, read_map, scene_predictor
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = scene_predictor(load_model(), torch.device("cpu"))
        >>> outputs = map_scene(sar, "flood", predict)
        >>> figure = print_figure(read_map(outputs.water_probability, sar=sar))
        >>> figure.savefig("flood.png", dpi=50)
    """
    threshold = scene.threshold if threshold is None else threshold
    flood, permanent = scene.area(threshold)
    if before is None:
        before = next((name for name in scene.images if "before" in name), None)
    names = [name for name in (before, SAR, RGB) if name is not None and name in scene.images]
    if before is not None and before not in scene.images:
        raise FloraError(f"before {before!r}: expected one of {', '.join(scene.images)}")
    rows, columns = scene.levels.shape
    side = 3.2
    panel = (side, min(side * rows / columns, 2 * side) + 0.3)
    made, axes = plots.figure(1, len(names) + 1, panel=panel)
    codes = scene.classes(threshold)
    ground = SAR if SAR in scene.images else next(iter(scene.images), None)
    with plots.style():
        for ax, name in zip(axes[0], names, strict=False):
            _show(ax, scene.images[name], name)
        last = axes[0, -1]
        if ground is None:
            plots.show_probability(last, np.where(codes == 255, np.nan, 1.0))
        else:
            _show(last, scene.images[ground], "")
        last.set_title(f"{'flood' if scene.split else 'water'}, probability ≥ {threshold:.2f}")
        last.imshow(water_colours(scene, threshold), interpolation="nearest")
        handles = [
            Patch(color=colour, label=f"{name} {area_text(area, scene.unit)}")
            for (name, colour), area in zip(
                _legend(scene).items(), (flood, permanent), strict=False
            )
        ]
        last.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), frameon=False)
        if scene.grid.crs is not None:
            plots.scale_bar(axes[0, 0], pixel_on_ground(scene))
            _north_arrow(axes[0, 0])
        made.suptitle(scene.title, fontsize=11)
        made.supxlabel(f"{scene.attribution}. Made with FLoRA.", fontsize=7, color="0.35")
    return made


def pixel_on_ground(scene: SceneMap) -> float:
    """Side in metres of a pixel in the middle of the map: Web Mercator stretches by 1 / cos."""
    transform, rows = scene.grid.transform, scene.grid.shape[0]
    y = transform.f + transform.e * rows / 2
    return float(transform.a / math.cosh(y / SEMI_MAJOR_AXIS))


def _show(ax: Any, image: ByteArray, title: str) -> None:
    plots.show_rgb(ax, np.moveaxis(image[..., :3], -1, 0) / 255, image[..., 3] > 0, title=title)


def _north_arrow(ax: Any) -> None:
    """Web Mercator has north at the top everywhere."""
    ax.annotate(
        "N",
        xy=(0.94, 0.97),
        xytext=(0.94, 0.83),
        xycoords="axes fraction",
        ha="center",
        va="top",
        fontsize=8,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        arrowprops={
            "arrowstyle": "simple,head_length=0.7,head_width=0.7,tail_width=0.2",
            "facecolor": "white",
            "edgecolor": "black",
        },
    )


def _legend(scene: SceneMap) -> dict[str, str]:
    if not scene.split:
        return {"water": FLOOD_COLOUR}
    return {"flood": FLOOD_COLOUR, "permanent water": PERMANENT_COLOUR}


def _reading(scene: SceneMap, threshold: float) -> str:
    flood, permanent = scene.area(threshold)
    parts = [f"{'flood' if scene.split else 'water'} <b>{area_text(flood, scene.unit)}</b>"]
    if scene.split:
        parts.append(f"permanent water <b>{area_text(permanent, scene.unit)}</b>")
    parts.append(f"of {area_text(scene.valid_area, scene.unit)} mapped")
    return "<br>".join(parts)


def _layer_row(ipywidgets: Any, overlay: Any) -> Any:
    """A switch, and an opacity where the layer has one, both linked in the browser."""
    box = ipywidgets.Checkbox(overlay.visible, description=overlay.name, indent=False)
    box.layout.width = "14rem"
    ipywidgets.jslink((box, "value"), (overlay, "visible"))
    if "opacity" not in overlay.trait_names():
        return box
    fade = ipywidgets.FloatSlider(overlay.opacity, min=0.0, max=1.0, step=0.05, readout=False)
    fade.layout.width = "6rem"
    fade.tooltip = f"opacity of {overlay.name}"
    ipywidgets.jslink((fade, "value"), (overlay, "opacity"))
    return ipywidgets.HBox([box, fade])


def _outlines_geojson(scene: SceneMap) -> dict[str, Any]:
    """The outlines in longitude and latitude."""
    a, _, c, _, e, f = scene.grid.transform[:6]
    features = []
    for outline in scene.outlines:
        rings = []
        for ring in outline.rings:
            x, y = (ring / OUTLINE_STEPS).T
            longitude = np.degrees((a * x + c) / SEMI_MAJOR_AXIS)
            latitude = np.degrees(np.arctan(np.sinh((e * y + f) / SEMI_MAJOR_AXIS)))
            rings.append(np.stack([longitude, latitude], axis=1).round(6).tolist())
        features.append(
            {
                "type": "Feature",
                "properties": {"class": outline.kind, "area_km2": outline.km2},
                "geometry": {"type": "Polygon", "coordinates": rings},
            }
        )
    return {"type": "FeatureCollection", "features": features}
