r"""Where sarsen and the library find the ground in a product, and how much brighter slopes are.

    pip install sarsen
    FLORA_DATA=my-data python benchmarks/terrain.py --record results/terrain.json

Orbit, times and ranges are those of real products (`fixtures/safe` in the folder of data; their
pixels are not needed), the ground is made: hills of 500 m. Both libraries are asked for time and
ground range of the same places. Slopes are those along the radar's look, and their brightness that
which sarsen's flattening (Small 2011) takes away, less that of level ground.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from benchmarks.simulated_chips import rounded
from flora.errors import Given
from flora.experiments.provenance import write_record
from flora.scenes.safe.range_doppler import RangeDoppler, range_doppler_of

CELL = 1 / 3600  # degrees, as Copernicus DEM
SIDE = 400
GROUPED = (6.0, 6.0)  # pixels of the image: sarsen asks for cells well above those of the elevation
CLASSES = ((-30, -20), (-20, -10), (-10, -5), (-2, 2), (5, 10), (10, 20), (20, 30))  # degrees

Values = NDArray[np.float64]


class Ground(NamedTuple):
    """What sarsen says of each cell of a made ground, (rows, columns).

    Attributes:
        place: Coordinates (rows, columns, 3) in m, fixed to the earth.
        time: Of zero Doppler.
        ground_range: In m.
        brightness: Of the ellipsoid's backscatter, in dB.
    """

    place: Values
    time: NDArray[np.datetime64]
    ground_range: Values
    brightness: Values


def hills(longitude: float, latitude: float, path: Path, height: float) -> Values:
    """Write made ground around a place; returns it in m."""
    draw = np.random.default_rng(0)
    row, column = np.mgrid[:SIDE, :SIDE]
    ground = np.full((SIDE, SIDE), 100.0)
    for _ in range(12):
        top = draw.uniform(0, SIDE, 2)
        width = draw.uniform(15, 40)
        ground += height * np.exp(-((row - top[0]) ** 2 + (column - top[1]) ** 2) / (2 * width**2))
    corner = longitude - SIDE / 2 * CELL, latitude + SIDE / 2 * CELL
    profile = {"driver": "GTiff", "count": 1, "height": SIDE, "width": SIDE, "dtype": "float32"}
    place = {"crs": "EPSG:4326", "transform": from_origin(*corner, CELL, CELL)}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(ground.astype(np.float32), 1)
    return ground


def by_sarsen(safe: Path, dem: Path) -> Ground:
    """Ask sarsen."""
    from sarsen import Sentinel1SarProduct, apps, orbit, radiometry, scene

    product = Sentinel1SarProduct(str(safe), measurement_group="IW/VV")
    earth = scene.convert_to_dem_ecef(scene.open_dem_raster(str(dem), chunks=None))
    flight = orbit.OrbitPolyfitInterpolator.from_position(product.state_vectors())
    wanted = {"slant_range_time", "azimuth_time", "gamma_area"}
    seen = apps.simulate_acquisition(earth, flight, wanted)
    ground = product.slant_range_time_to_ground_range(seen.azimuth_time, seen.slant_range_time)
    beta = radiometry.gamma_weights_bilinear(seen, **product.grid_parameters(GROUPED))
    in_order = {"y": slice(None, None, -1)} if earth.y[0] < earth.y[-1] else {}
    earth, seen, ground, beta = (one.isel(in_order) for one in (earth, seen, ground, beta))
    return Ground(
        earth.transpose("y", "x", "axis").values,
        seen.azimuth_time.transpose("y", "x").values,
        ground.transpose("y", "x").values,
        10 * np.log10(beta.transpose("y", "x").values),
    )


def slopes(ground: Values, geometry: RangeDoppler, flat: Values, latitude: float) -> Values:
    """Slope of each cell along the look in degrees: above 0 where it faces the radar."""
    metres = np.pi * 6_371_000 / 180 * CELL
    sides = metres, metres * np.cos(np.radians(latitude))
    _, pixel = geometry.image_of(flat)
    away = np.stack(np.gradient(pixel, *sides))
    away /= np.linalg.norm(away, axis=0)
    rise = (np.stack(np.gradient(ground, *sides)) * away).sum(axis=0)
    return np.degrees(np.arctan(rise))


def compared(archive: Path) -> dict[str, Any]:
    """Places and brightness by both, for one product."""
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(archive) as zipped:
        folder = Path(temporary)
        zipped.extractall(folder)
        safe = next(folder.glob("*.SAFE"))
        annotations = sorted(safe.glob("annotation/*.xml"))
        for annotation in annotations:
            _empty_image(annotation, safe / "measurement" / f"{annotation.stem}.tiff")
        text = annotations[-1].read_bytes()
        geometry = range_doppler_of(text, Given("sar_path", safe))
        points = _middle(text)
        files = folder / "hills.tif", folder / "flat.tif"
        heights = hills(*points, files[0], 500.0)
        hills(*points, files[1], 0.0)
        found, flat = (by_sarsen(safe, file) for file in files)
    line, pixel = geometry.image_of(found.place)
    start = np.datetime64(_said(text, "productFirstLineUtcTime"))
    seconds = (found.time - start) / np.timedelta64(1, "ns") * 1e-9
    spacing = float(_said(text, "azimuthPixelSpacing"))
    off = {
        "along_m": np.abs(seconds / geometry.line_time - line).max() * spacing,
        "across_m": np.abs(found.ground_range - pixel * geometry.pixel_spacing).max(),
    }
    steep = slopes(heights, geometry, flat.place, points[1])
    brighter = found.brightness - flat.brightness
    rows = {}
    for low, high in CLASSES:
        chosen = brighter[(steep >= low) & (steep < high)]
        ends = np.percentile(chosen, (5, 50, 95)).tolist()
        rows[f"{low} to {high}"] = {"cells": len(chosen), "db": [rounded(end) for end in ends]}
    return {"cells": steep.size} | {k: rounded(float(v)) for k, v in off.items()} | {"slopes": rows}


def _middle(text: bytes) -> tuple[float, float]:
    """Longitude and latitude in the middle of a product."""
    points = [_said(text, name, every=True) for name in ("longitude", "latitude")]
    longitude, latitude = (float(np.median(np.array(values, dtype=float))) for values in points)
    return longitude, latitude


def _said(text: bytes, name: str, *, every: bool = False) -> Any:
    found = [element.text for element in ElementTree.fromstring(text).iter(name)]
    return found if every else found[0]


def _empty_image(annotation: Path, path: Path) -> None:
    """An image of the size that an annotation tells, without pixels."""
    text = annotation.read_bytes()
    sides = {
        "width": int(_said(text, "numberOfSamples")),
        "height": int(_said(text, "numberOfLines")),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        kind = {"driver": "GTiff", "count": 1, "dtype": "uint16", "sparse_ok": True}
        rasterio.open(path, "w", **kind, **sides).close()


def main() -> None:
    """Compare, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    archives = sorted((Path(os.environ["FLORA_DATA"]) / "fixtures/safe").glob("*IW_GRDH*.zip"))
    products = {}
    for archive in archives:
        products[archive.stem] = compared(archive)
        print(archive.stem, products[archive.stem], flush=True)
    if asked.record:
        record = {
            "question": "Do sarsen and the library find the ground at the same places in a "
            "product, and how much brighter are its slopes?",
            "sarsen": version("sarsen"),
            "slopes": "degrees along the look, above 0 where they face the radar; brightness less "
            "that of level ground, 5, 50 and 95 % of the cells",
            "products": products,
            "cite": "Contains modified Copernicus Sentinel data 2015, 2021, 2026.",
        }
        write_record(asked.record, record)


if __name__ == "__main__":
    main()
