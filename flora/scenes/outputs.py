"""Maps of a scene: how they are stored, and files that appear all at once."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from flora.cog import write_cog
from flora.errors import FloraError, FloraWarning, Given
from flora.files import check_outputs, writing
from flora.scenes.inputs import GDAL_ERRORS, SarScene
from flora.sensors import IGNORE, BoolArray, FloatArray

# What matplotlib raises over its settings, fonts and backends.
DRAWING_FAILS = (AttributeError, ImportError, LookupError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class MapFormat:
    """How one map is stored; `resampling` makes its overviews."""

    dtype: str
    bands: tuple[str, ...]
    nodata: float | None
    resampling: Literal["AVERAGE", "MODE"]


# Black is a colour of the image, so alpha marks its nodata: 255 seen, 0 not. A mode keeps
# the mask's three codes; an average would invent others.
LAYERS = {
    "water_probability": MapFormat("float32", ("water probability",), math.nan, "AVERAGE"),
    "water_mask": MapFormat("uint8", ("0 dry, 1 water, 255 nodata",), 255, "MODE"),
    "rgb": MapFormat("uint8", ("red", "green", "blue", "alpha"), None, "AVERAGE"),
}


@dataclass(frozen=True)
class SceneOutputs:
    """What `map_scene` wrote, and the areas it found.

    Attributes:
        water_probability: GeoTIFF, float32 in [0, 1], NaN in nodata.
        water_mask: GeoTIFF, uint8: 0 dry, 1 water, 255 nodata.
        rgb: GeoTIFF, uint8: red, green, blue, alpha (0 in nodata); None if the model makes none.
        quicklook: PNG, all of it at a glance; None if it could not be drawn.
        water_pixels: Pixels mapped as water.
        valid_pixels: Pixels that were mapped at all.
        water_km2: Area of the water; None without a CRS.
        valid_km2: Area that was mapped; None without a CRS.
    """

    water_probability: Path
    water_mask: Path
    rgb: Path | None
    quicklook: Path | None
    water_pixels: int
    valid_pixels: int
    water_km2: float | None
    valid_km2: float | None


def check_targets(
    folder: Path, stem: str, overwrite: bool, inputs: Iterable[Given] = ()
) -> dict[str, Path]:
    """Where each result goes.

    Args:
        folder: Of the results.
        stem: Name of the scene.
        overwrite: Whether results that exist may be replaced.
        inputs: Files that are read.

    Raises:
        FloraError: If a result is a folder or an input, or exists and must not be overwritten.
    """
    names = {name: f"{stem}_{name}.tif" for name in LAYERS} | {"quicklook": f"{stem}_quicklook.png"}
    targets = {name: folder / file for name, file in names.items()}
    with writing("output_folder", folder, GDAL_ERRORS):
        check_outputs([Given("output_folder", path) for path in targets.values()], inputs)
        present = [path.name for path in targets.values() if path.exists()]
    if present and not overwrite:
        raise FloraError(
            f"already holds {', '.join(present)}",
            argument="output_folder",
            value=folder,
            remedy="choose another folder, or pass {overwrite}",
            overwrite=True,
        )
    return targets


def layers_of(
    probability: FloatArray, water: BoolArray, rgb: NDArray[np.uint8] | None, valid: BoolArray
) -> Iterator[tuple[str, NDArray[Any]]]:
    """What is stored of each layer, (bands, h, w) in the type and with the nodata of `LAYERS`.

    One after the other: each is as large as the rows themselves.

    Args:
        probability: (h, w) in [0, 1].
        water: (h, w).
        rgb: (3, h, w) uint8, or None.
        valid: (h, w); elsewhere is nodata.
    """
    yield "water_probability", np.where(valid, probability, np.float32("nan"))[None]
    yield "water_mask", np.where(valid, water, np.uint8(IGNORE))[None]
    if rgb is not None:
        image = np.empty((4, *valid.shape), dtype=np.uint8)
        for stored, band in zip(image, rgb, strict=False):
            np.multiply(band, valid, out=stored)
        np.multiply(valid, np.uint8(255), out=image[3])
        yield "rgb", image


def encode_rows(name: str, values: NDArray[Any]) -> bytes:
    """Rows (bands, height, columns) of a layer as the bytes of a GeoTIFF without georeference.

    In memory, because GDAL says nothing when a disk is full on closing a file.
    """
    profile = {"driver": "GTiff", "dtype": LAYERS[name].dtype, "count": len(values)}
    profile |= {"height": values.shape[1], "width": values.shape[2]}
    profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"}
    profile |= {"predictor": 3 if values.dtype == "f4" else 2, **row_compression()}
    with warnings.catch_warnings(), rasterio.MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(**profile) as file:
            file.write(values)
        return bytes(memory.getbuffer())


@cache
def row_compression() -> dict[str, Any]:
    """How rows are packed until the maps are written: fast, where this GDAL can."""
    zstandard = {"compress": "zstd", "zstd_level": 1}  # a third of the time of deflate
    one = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 1, "width": 1}
    with warnings.catch_warnings(), rasterio.MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            memory.open(**one, **zstandard).close()
        except GDAL_ERRORS:
            return {"compress": "deflate", "zlevel": 1}
    return zstandard


def mosaic(
    name: str, scene: SarScene, tags: Mapping[str, str], parts: Sequence[tuple[int, int, str]]
) -> str:
    """A GDAL virtual raster (VRT) of files of rows on the scene's grid, as XML.

    Args:
        name: The layer.
        scene: Whose grid and CRS it has.
        tags: Metadata.
        parts: First row, height and name of each file; rows without one are nodata.
    """
    layer, (rows, columns) = LAYERS[name], scene.shape
    root = Element("VRTDataset", rasterXSize=str(columns), rasterYSize=str(rows))
    if scene.crs is not None:
        SubElement(root, "SRS").text = scene.crs.to_wkt()
    SubElement(root, "GeoTransform").text = ", ".join(map(repr, scene.transform.to_gdal()))
    metadata = SubElement(root, "Metadata")
    for key, value in tags.items():
        SubElement(metadata, "MDI", key=key).text = value
    for number, description in enumerate(layer.bands, 1):
        kind = {"float32": "Float32", "uint8": "Byte"}[layer.dtype]
        band = SubElement(root, "VRTRasterBand", dataType=kind, band=str(number))
        SubElement(band, "Description").text = description
        if layer.nodata is not None:
            SubElement(band, "NoDataValue").text = str(layer.nodata)
        colour = description.title() if name == "rgb" else "Gray"
        SubElement(band, "ColorInterp").text = colour
        for row, height, file in parts:
            source = SubElement(band, "SimpleSource")
            SubElement(source, "SourceFilename", relativeToVRT="1").text = file
            SubElement(source, "SourceBand").text = str(number)
            size = {"xSize": str(columns), "ySize": str(height)}
            SubElement(source, "SrcRect", size, xOff="0", yOff="0")
            SubElement(source, "DstRect", size, xOff="0", yOff=str(row))
    return tostring(root, encoding="unicode")


def finish_map(name: str, rows: Path, target: Path, seen: int) -> None:
    """Write a layer as a Cloud Optimized GeoTIFF: tiled, compressed, with overviews.

    Args:
        name: The layer.
        rows: What GDAL reads its rows from.
        target: The file to write.
        seen: How many of its pixels are not nodata.

    Raises:
        FloraError: If the disk refuses.
    """
    with writing("output_folder", target.parent.parent, GDAL_ERRORS):
        write_cog(rows, target, LAYERS[name].resampling, partial(count_seen, name), seen)


def draw_quicklook(
    maps: Mapping[str, Path], scene: SarScene, target: Path, title: str
) -> dict[str, Path]:
    """Write a PNG of the finished maps and the SAR scene, reduced to about a thousand pixels.

    Returns:
        The file as "quicklook"; nothing, after a warning, if it cannot be drawn: hours of mapping
        are not to be lost for a wrong setting of matplotlib.

    Raises:
        FloraError: If the disk refuses.
    """
    try:
        picture = _quicklook(maps, scene, title)
    except DRAWING_FAILS as error:
        warnings.warn(
            FloraWarning(
                f"the quicklook of {scene.stem} cannot be drawn ({type(error).__name__}: {error}); "
                "the maps are whole",
                remedy="check matplotlib and its matplotlibrc",
            ),
            stacklevel=2,
        )
        return {}
    with writing("output_folder", target.parent.parent):
        target.write_bytes(picture)
    return {"quicklook": target}


def _quicklook(maps: Mapping[str, Path], scene: SarScene, title: str) -> bytes:
    # matplotlib is loaded when something is drawn
    from flora.figures.plots import SCREEN_DPI
    from flora.figures.sheets import quicklook

    rows, columns = scene.sample.shape[1:]

    def reduced(name: str) -> NDArray[Any]:
        with rasterio.open(maps[name]) as file:
            return np.asarray(file.read(out_shape=(file.count, rows, columns)))

    metres = scene.grid.pixel_metres()
    step = scene.sample_step
    drawn = quicklook(
        scene.sample[scene.shown],
        reduced("water_mask")[0],
        reduced("rgb")[:3] / 255 if "rgb" in maps else None,
        band=scene.scaling.bands[scene.shown],
        unit=scene.scaling.unit,
        pixel_metres=metres and (metres[0] * step, metres[1] * step),
        title=title,
    )
    picture = io.BytesIO()
    drawn.savefig(picture, format="png", bbox_inches="tight", dpi=1.5 * SCREEN_DPI)
    return picture.getvalue()


def count_seen(name: str, values: NDArray[Any]) -> int:
    """Number of pixels of (bands, h, w) that are not nodata."""
    nodata = LAYERS[name].nodata
    if nodata is None:  # alpha, the last band
        return int(np.count_nonzero(values[-1]))
    return int(np.count_nonzero(~np.isnan(values) if math.isnan(nodata) else values != nodata))
