"""The map of a flood in a notebook: layers, a swipe, and a slider for the threshold."""

from __future__ import annotations

import html
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from flora.antimeridian import RADIUS
from flora.errors import FloraError
from flora.maps.layers import OUTLINE_STEPS, SceneMap, area_text
from flora.maps.page import data_uri
from flora.sensors import ByteArray

WATER_OPACITY = 0.8
PROBABILITY = "water probability"
LeafletBounds = tuple[tuple[float, float], tuple[float, float]]


class _Libraries(NamedTuple):
    """What comes with leafmap, loaded when a live map is made."""

    leafmap: ModuleType
    leaflet: ModuleType
    widgets: ModuleType


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
        >>> from flora import load_model, map_scene, open_scene, predictor
        >>> from flora import flood_map, read_map
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> sar = next(Path("chips").rglob("*_S1Hand.tif"))
        >>> predict = predictor(load_model())
        >>> with open_scene(sar) as scene:
        ...     outputs = map_scene(scene, "flood", predict)
        >>> live = flood_map(read_map(outputs.water_probability, sar=sar))
        >>> type(live).__name__
        'Map'
    """
    libraries = _libraries()
    if scene.grid.crs is None:
        raise FloraError(
            "scene: has no CRS, so it has no place on a live map; georeference the scene, or use "
            "write_html"
        )
    if swipe is None:
        swipe = scene.before
    elif swipe not in scene.images:
        raise FloraError(
            f"expected one of {', '.join(scene.images)}", argument="swipe", value=repr(swipe)
        )
    west, south, east, north = scene.grid.lon_lat_box()
    bounds = ((south, west), (north, east))
    made = libraries.leafmap.Map(
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
    overlays, water = _overlays(libraries.leaflet, scene, bounds, swipe)
    for overlay in overlays:
        made.add(overlay)
    if swipe is not None:
        left = _image(libraries.leaflet, scene.images[swipe], bounds, swipe, "flora-left")
        made.add(left)
        made.add(libraries.leaflet.SplitMapControl(left_layer=left, right_layer=water))
    panel = _panel(libraries.widgets, scene, overlays, water)
    made.add(libraries.leaflet.WidgetControl(widget=panel, position="topright"))
    made.add_legend(title="Legend", legend_dict=scene.water_layers)
    made.fit_bounds(bounds)
    return made


def _libraries() -> _Libraries:
    try:
        import ipyleaflet
        import ipywidgets
        import leafmap.leafmap as leafmap
    except ImportError as error:
        raise FloraError(
            f"flood_map needs {error.name}: install it with pip install leafmap, or use write_html"
        ) from error
    return _Libraries(leafmap, ipyleaflet, ipywidgets)


def _image(
    leaflet: ModuleType,
    image: ByteArray,
    bounds: LeafletBounds,
    name: str,
    pane: str,
    **options: Any,
) -> Any:
    return leaflet.ImageOverlay(url=data_uri(image), bounds=bounds, name=name, pane=pane, **options)


def _overlays(
    leaflet: ModuleType, scene: SceneMap, bounds: LeafletBounds, swipe: str | None
) -> tuple[list[Any], Any]:
    """The layers from the lowest to the highest, switched as they are at first; and the water."""
    images: dict[str, ByteArray] = {
        name: scene.images[name]
        for name in sorted(scene.images, key=lambda name: (name != scene.radar, name))
        if name != swipe
    }
    images[PROBABILITY] = scene.probability_colours()
    overlays = [
        _image(leaflet, image, bounds, name, "flora-right") for name, image in images.items()
    ]
    water = _image(
        leaflet,
        scene.water_colours(scene.threshold),
        bounds,
        "flood and permanent water" if scene.split else "water",
        "flora-right",
        opacity=WATER_OPACITY,
        attribution=html.escape(scene.attribution),
    )
    overlays.append(water)
    if scene.outlines:
        style = {"color": "#ffe600", "weight": 1.5, "fill": False}
        outlines = leaflet.GeoJSON(data=_outlines_geojson(scene), name="polygons", style=style)
        overlays.append(outlines)
    # Polygons are shown at first: ipyleaflet draws a GeoJSON that is not, and draws it twice when
    # it is.
    shown = {scene.radar or PROBABILITY, water.name, "polygons"}
    for overlay in overlays:
        overlay.visible = overlay.name in shown
    return overlays, water


def _panel(widgets: ModuleType, scene: SceneMap, overlays: list[Any], water: Any) -> Any:
    """The threshold, what it gives, and a switch for each layer, the highest first."""
    slider = widgets.FloatSlider(
        scene.threshold, min=0.01, max=0.99, step=0.01, description="threshold"
    )
    reading = widgets.HTML(_reading(scene, scene.threshold))

    def follow(change: dict[str, Any]) -> None:
        threshold = round(100 * change["new"]) / 100
        water.url = data_uri(scene.water_colours(threshold))
        reading.value = _reading(scene, threshold)

    slider.observe(follow, "value")
    rows = [_layer_row(widgets, overlay) for overlay in reversed(overlays)]
    return widgets.VBox([slider, reading, *rows])


def _reading(scene: SceneMap, threshold: float) -> str:
    flood, permanent = scene.area(threshold)
    parts = [f"{'flood' if scene.split else 'water'} <b>{area_text(flood, scene.unit)}</b>"]
    if scene.split:
        parts.append(f"permanent water <b>{area_text(permanent, scene.unit)}</b>")
    parts.append(f"of {area_text(scene.valid_area, scene.unit)} mapped")
    return "<br>".join(parts)


def _layer_row(widgets: ModuleType, overlay: Any) -> Any:
    """A switch, and an opacity where the layer has one, both linked in the browser."""
    box = widgets.Checkbox(overlay.visible, description=overlay.name, indent=False)
    box.layout.width = "14rem"
    widgets.jslink((box, "value"), (overlay, "visible"))
    if "opacity" not in overlay.trait_names():
        return box
    fade = widgets.FloatSlider(overlay.opacity, min=0.0, max=1.0, step=0.05, readout=False)
    fade.layout.width = "6rem"
    fade.tooltip = f"opacity of {overlay.name}"
    widgets.jslink((fade, "value"), (overlay, "opacity"))
    return widgets.HBox([box, fade])


def _outlines_geojson(scene: SceneMap) -> dict[str, Any]:
    """The outlines in longitude and latitude, beyond 180 degrees where the images are."""
    a, _, c, _, e, f = scene.grid.transform[:6]
    features = []
    for outline in scene.outlines:
        rings = []
        for ring in outline.rings:
            x, y = (ring / OUTLINE_STEPS).T
            longitude = np.degrees((a * x + c) / RADIUS)
            latitude = np.degrees(np.arctan(np.sinh((e * y + f) / RADIUS)))
            rings.append(np.stack([longitude, latitude], axis=1).round(6).tolist())
        features.append(
            {
                "type": "Feature",
                "properties": {"class": outline.kind, "area_km2": outline.km2},
                "geometry": {"type": "Polygon", "coordinates": rings},
            }
        )
    return {"type": "FeatureCollection", "features": features}
