"""A STAC item beside the maps of a scene: what they are, and what they were made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flora.files import new_file, write_text
from flora.grid import LON_LAT, Grid, open_raster
from flora.scenes.dates import DatedScene
from flora.scenes.inputs import SarScene
from flora.scenes.names import date_in_name

EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
]
LAUNCH = "2014-04-03T00:00:00Z"  # of Sentinel-1A: no scene is older
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
KINDS = {
    ".tif": COG,
    ".png": "image/png",
    ".geojson": "application/geo+json",
    ".gpkg": "application/geopackage+sqlite3",
    ".html": "text/html",
}


def write_item(
    target: str | Path,
    water_mask: str | Path,
    scene: SarScene,
    files: Mapping[str, Path],
    *,
    inputs: Mapping[str, Sequence[Path]],
    attribution: str,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a STAC item (version 1.1.0), by which a map can be traced.

    It holds where and when, the files, what the maps' own tags say of model and threshold (as
    `flora:...`), the names and dates of all inputs, and what their owners ask to have said. A scene
    whose name holds no date is of some time since the launch of Sentinel-1.

    Args:
        target: The JSON file.
        water_mask: Of `map_scene`: its tags and its grid are taken.
        scene: The scene that was mapped.
        files: What was written, by the names that its assets get; addresses are relative.
        inputs: Other files that were read, by their role, such as "dem".
        attribution: What the sources ask to have said.
        facts: Properties besides those, as JSON values, such as the area's interval.
        overwrite: Replace an existing file.

    Raises:
        FloraError: If the mask is refused, `target` exists already, or the disk refuses.

    Example:
        >>> from pathlib import Path
        >>> from flora import open_scene
        >>> from flora.maps.item import write_item
        >>> mask = Path("S1_water_mask.tif")
        >>> with open_scene("S1.tif") as scene:  # doctest: +SKIP
        ...     write_item("S1_item.json", mask, scene, {"mask": mask}, inputs={}, attribution="")
    """
    path = new_file(target, "output", overwrite)
    with open_raster(Path(water_mask), "water_mask") as mask:
        grid, tags = Grid.of(mask), mask.tags()
    said = {k.lower().replace("_", ":", 1): v for k, v in tags.items() if k.startswith("FLORA_")}
    read = {"sar": scene.paths, **inputs}
    if isinstance(scene, DatedScene):
        read["sar_before"] = [path for earlier in scene.before for path in earlier.paths]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    properties = {
        "created": now,
        **_time(scene.paths[0], now),
        **_projection(grid),
        "processing:software": {"flora": tags.get("FLORA_VERSION", "")},
        **said,
        **(facts or {}),
        "flora:inputs": [_input(role, file) for role, paths in read.items() for file in paths],
        "attribution": attribution,
    }
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": scene.stem,
        **_place(grid),
        "properties": properties,
        "links": [],
        "assets": {name: _asset(file, path.parent) for name, file in files.items()},
    }
    write_text(path, json.dumps(item, indent=2, ensure_ascii=False) + "\n")
    return path


def _time(scene: Path, now: str) -> dict[str, str | None]:
    """The day in the scene's name, or the whole time in which it may have been taken."""
    taken = date_in_name(scene)
    if taken is None:
        return {"datetime": None, "start_datetime": LAUNCH, "end_datetime": now}
    hours = {"start_datetime": "T00:00:00Z", "end_datetime": "T23:59:59Z"}
    return {"datetime": None} | {name: f"{taken}{hour}" for name, hour in hours.items()}


def _projection(grid: Grid) -> dict[str, Any]:
    code = None if grid.crs is None else grid.crs.to_epsg()
    shape = {"proj:shape": list(grid.shape), "proj:transform": list(grid.transform[:6])}
    return {"proj:code": None if code is None else f"EPSG:{code}"} | shape


def _place(grid: Grid) -> dict[str, Any]:
    """Geometry and box in degrees; without a CRS there is neither."""
    if grid.crs is None:
        return {"geometry": None}
    west, south, east, north = grid.lon_lat_box()
    if east > 180:
        halves = [_ring(west, south, 180.0, north), _ring(-180.0, south, east - 360, north)]
        geometry = {"type": "MultiPolygon", "coordinates": [[half] for half in halves]}
        return {"geometry": geometry, "bbox": [west, south, east - 360, north]}
    x, y = grid.outline(LON_LAT, points=2)
    # Of its edges' ends, the corners from the lower left on, against the clock as in GeoJSON.
    ring = [[float(x[n]), float(y[n])] for n in (4, 3, 1, 0, 4)]
    return {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
    }


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def _input(role: str, path: Path) -> dict[str, str | None]:
    """Name and date of an input, and the items of a catalogue that it was made of."""
    taken = date_in_name(path)
    said = {"role": role, "name": path.name, "date": None if taken is None else str(taken)}
    if path.suffix.lower() not in (".tif", ".tiff") or not path.is_file():
        return said
    with open_raster(path, role) as file:
        tags = file.tags()
    kept = {"items": "FLORA_ITEMS", "endpoint": "FLORA_ENDPOINT"}
    return said | {name: tags[tag] for name, tag in kept.items() if tag in tags}


def _asset(path: Path, folder: Path) -> dict[str, Any]:
    near = path.resolve().is_relative_to(folder.resolve())
    href = path.resolve().relative_to(folder.resolve()) if near else path.resolve()
    asset = {"href": href.as_posix(), "roles": ["overview" if path.suffix == ".png" else "data"]}
    return asset | ({"type": KINDS[path.suffix]} if path.suffix in KINDS else {})
