"""What an optical file says of itself: where its bands are, and what its values mean.

Sentinel-2 stores reflectance x 10000 and, since processing baseline 04.00, 1000 more (Sentinel-2
Products Specification Document, 14.9).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import open_raster, read_bands
from flora.sensors import COLOUR_BANDS, BoolArray, FloatArray, sentinel2_bands

QUANTIFICATION = 10_000  # stored value of a reflectance of 1
BASELINE_OFFSET = 1000  # what is stored for a reflectance of 0
OFFSET_SINCE = 4.0  # processing baseline
CLOUD = 2000  # in red, green and blue: land is darker, cloud and snow are not
CLOUDY = 0.9  # of an image: more cloud than that is warned of
OFFSET_TAKEN_OFF = 0.1  # of pixels whose red is below 900: with the offset there, none is

# N0509 of S2A_MSIL1C_20230906T102601_N0509_R108_T32TMT_20230906T142124
_BASELINE = re.compile(r"(?<![A-Za-z0-9])N(0[2-9])(\d\d)(?![A-Za-z0-9])")
_DATE = re.compile(r"(?<!\d)(20\d\d)-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])(?!\d)")
_PRODUCT_BAND = re.compile(r"(?:^|/)IMG_DATA/(?:R10m/)?[^/]*_B0([2348])(?:_10m)?\.jp2$", re.I)
_METADATA = re.compile(r"(?:^|/)MTD_MSIL\w+\.xml$|(?:^|/)S2[A-D]_\w*MTD_SAFL\w+\.xml$", re.I)
_SAID_BASELINE = re.compile(
    r"processing[_:](?:baseline|version)\W+(\d+(?:\.\d+)?)\s*$", re.I | re.M
)
_BASELINE_TAG = re.compile(r"<PROCESSING_BASELINE>\s*([\d.]+)\s*</PROCESSING_BASELINE>")


@dataclass(frozen=True)
class OpticalSource:
    """An optical image, as its file holds it.

    Attributes:
        path: The file or product, as given.
        connection: What GDAL opens, where that is not the file itself.
        bands: Numbers (from 1) of red, green, blue and near infrared.
        scale: Of each of them: stored value times scale plus offset is reflectance x 10000.
        offset: See `scale`.
        kind: Type of the stored values.
        tags: What the tags of maps made with it say of it.
    """

    path: Path
    connection: str | None
    bands: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    kind: str
    tags: Mapping[str, str]

    def reflectance(self, stored: Any) -> FloatArray:
        """Stored values (4, h, w) as reflectance x 10000, not below 1."""
        values = np.asarray(stored, dtype=np.float32)
        if any(offset != 0 for offset in self.offset) or any(scale != 1 for scale in self.scale):
            scale, offset = (
                np.array(constants, dtype=np.float32)[:, None, None]
                for constants in (self.scale, self.offset)
            )
            values = np.where(np.isfinite(values), np.maximum(values * scale + offset, 1), values)
        return values


def find_optical(path: Path) -> OpticalSource:
    """Find out what an optical file or a Sentinel-2 product holds.

    Raises:
        FloraError: If it is missing, damaged, complex, or its bands are not clear.

    Warns:
        FloraWarning: If the bands' order is taken for granted, or the offset of baseline 04.00 is
            taken off.
    """
    source = Given("before_path", path)
    connection = product_raster(path)
    with open_raster(path, "before_path", connection) as dataset:
        if any(np.dtype(kind).kind == "c" for kind in dataset.dtypes):
            raise FloraError(
                "complex values, expected reflectance x 10000",
                argument=source,
                remedy="choose an optical image",
            )
        names = sentinel2_bands(_descriptions(dataset, source), source)
        bands = tuple(names.index(band) + 1 for band in COLOUR_BANDS)
        scale, offset = _declared(dataset, bands)
        if connection is None and not any(offset):
            offset = _baseline_offset(dataset, names, path, scale, source)
        elif any(offset) and connection is not None:
            _say_offset(source, "its metadata say")
        return OpticalSource(
            path, connection, bands, scale, offset, dataset.dtypes[0], _tags(path, dataset.tags())
        )


def product_raster(path: Path) -> str | None:
    """The bands of 10 m of a Sentinel-2 product as a virtual dataset of GDAL's; else None.

    It declares the offset that the product's metadata say.

    Args:
        path: NAME.SAFE, its metadata file, or a zip of it.

    Raises:
        FloraError: If it is a zip or a folder that holds no such product, or several granules.
    """
    metadata = path.suffix == ".xml" and _METADATA.search(path.name) is not None
    folder = path.parent if metadata else path
    if not (metadata or path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file())):
        return None
    source = Given("before_path", path)
    prefix, members, texts = _members(folder, source)
    files: dict[str, list[str]] = {}
    for name in members:
        match = _PRODUCT_BAND.search(name)
        if match:
            files.setdefault(f"B{match[1]}", []).append(f"{prefix}{name}")
    if not files:
        raise FloraError(
            f"a {'folder' if path.is_dir() else 'zip'}, expected a raster file, or a Sentinel-2 "
            "product with its JPEG 2000 files",
            argument=source,
            remedy="name the file",
        )
    for band in COLOUR_BANDS:
        found = len(files.get(band, ()))
        if found != 1:
            raise FloraError(
                f"{found} files of {band} at 10 m in the product, expected one",
                argument=source,
                remedy="stack the bands of one granule into a GeoTIFF (gdalbuildvrt -separate)",
            )
    with rasterio.Env() as environment:
        if not any(name.startswith("JP2") for name in environment.drivers()):
            raise FloraError(
                "its bands are JPEG 2000 files, which the GDAL of this rasterio does not read",
                argument=source,
                remedy="install rasterio from its wheel or from conda-forge (with "
                "libgdal-jp2openjpeg), or convert the bands to GeoTIFF elsewhere",
            )
    baseline = next((float(m[1]) for text in texts if (m := _BASELINE_TAG.search(text))), None)
    baseline = baseline_in(folder.name) if baseline is None else baseline
    offset = -BASELINE_OFFSET if baseline is not None and baseline >= OFFSET_SINCE else 0
    return _stacked([files[band][0] for band in COLOUR_BANDS], offset, source)


def bands_raster(
    dataset: Any, sources: Sequence[tuple[str, int]], nodata: float, names: Sequence[str] = (),
    offset: float = 0.0,
) -> str:  # fmt: skip
    """A virtual dataset of some bands (file, number) on the grid of an open one."""
    forward = ",".join(repr(float(value)) for value in dataset.transform.to_gdal())
    layers = "".join(
        f'<VRTRasterBand dataType="Float32" band="{number}">'
        f"<NoDataValue>{nodata!r}</NoDataValue><Offset>{offset!r}</Offset>"
        f"<Description>{escape(name)}</Description><SimpleSource>"
        f"<SourceFilename>{escape(file)}</SourceFilename><SourceBand>{band}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for number, ((file, band), name) in enumerate(
            zip(sources, names or [""] * len(sources), strict=True), start=1
        )
    )
    return (
        f'<VRTDataset rasterXSize="{dataset.width}" rasterYSize="{dataset.height}">'
        f"<SRS>{escape(dataset.crs.to_wkt())}</SRS><GeoTransform>{forward}</GeoTransform>"
        f"{layers}</VRTDataset>"
    )


def _stacked(files: Sequence[str], offset: float, source: Given) -> str:
    """The four bands of a product, one file each, as one raster."""
    with open_raster(Path(str(source.value)), source.argument, files[0]) as first:
        return bands_raster(first, [(file, 1) for file in files], 0.0, COLOUR_BANDS, offset)


def _members(folder: Path, source: Given) -> tuple[str, list[str], list[str]]:
    """Where GDAL finds a product's files, their names, and the text of its metadata."""
    if folder.is_dir():
        files = [file for file in folder.rglob("*") if file.is_file()]
        names = [file.relative_to(folder).as_posix() for file in files]
        wanted = [folder / name for name in names if _METADATA.search(name)]
        return f"{folder}/", names, [f.read_text("utf-8", "replace") for f in wanted]
    try:
        with zipfile.ZipFile(folder) as archive:
            names = archive.namelist()
            wanted_names = [name for name in names if _METADATA.search(name)]
            texts = [archive.read(name).decode("utf-8", "replace") for name in wanted_names]
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise FloraError(
            f"cannot be read as a zip file ({error})",
            argument=source,
            remedy="download it again, or unpack it and name the folder",
        ) from error
    return f"/vsizip/{folder.absolute()}/", names, texts


def _descriptions(dataset: Any, source: Given) -> list[str | None]:
    """The bands' descriptions; of four bands without, the colours that they are marked as."""
    described = list(dataset.descriptions)
    if dataset.count != 4:
        return described
    if ColorInterp.alpha in dataset.colorinterp:
        raise FloraError(
            "three colours and transparency, expected near infrared as well",
            argument=source,
            remedy="choose a file of B4, B3, B2 and B8",
        )
    if any(described):
        return described
    colours = {"red", "green", "blue", "nir"}
    return [c.name if c.name in colours else None for c in dataset.colorinterp]


def _declared(dataset: Any, bands: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and offset that the file declares, to reflectance x 10000.

    A scale other than 1 leads to reflectance; an offset alone is one of stored values.
    """
    scales = [float(dataset.scales[band - 1]) for band in bands]
    offsets = [float(dataset.offsets[band - 1]) for band in bands]
    unit = [QUANTIFICATION if scale != 1 else 1 for scale in scales]
    return (
        tuple(scale * factor for scale, factor in zip(scales, unit, strict=True)),
        tuple(offset * factor for offset, factor in zip(offsets, unit, strict=True)),
    )


def _baseline_offset(
    dataset: Any, names: Sequence[str | None], path: Path, scale: tuple[float, ...], source: Given
) -> tuple[float, ...]:
    """The offset of processing baseline 04.00, where a name or a tag says that it is there."""
    none = (0.0,) * len(scale)
    tags = dataset.tags()
    if "FLORA_ITEMS" in tags:  # fetched: it was taken off then
        return none
    # GDAL takes a colon in a name for the end of it.
    lines = "\n".join(f"{key}={value}" for key, value in tags.items())
    said = _SAID_BASELINE.search(lines)
    baseline = float(said[1]) if said is not None else baseline_in(path.name)
    if baseline is None:
        _check_cirrus(dataset, names, source)
    if baseline is None or baseline < OFFSET_SINCE or not np.allclose(scale, 1):
        return none
    where = "its tags say" if said is not None else "its name says"
    seen = _reduced(dataset, names.index("B4") + 1, source)
    if seen.size and (seen < BASELINE_OFFSET - 100).mean() > OFFSET_TAKEN_OFF:
        warnings.warn(
            FloraWarning(
                f"processing baseline {baseline:05.2f}, {where}, but its values lie below "
                f"{BASELINE_OFFSET}: the offset was taken off already, they are taken as they are",
                argument=source,
            ),
            stacklevel=6,
        )
        return none
    _say_offset(source, f"processing baseline {baseline:05.2f}, {where}")
    return (-float(BASELINE_OFFSET),) * len(scale)


def _check_cirrus(dataset: Any, names: Sequence[str | None], source: Given) -> None:
    """Warn of an offset that no metadata state: cirrus (B10) is black where the sky is clear."""
    if "B10" not in names:
        return
    seen = _reduced(dataset, names.index("B10") + 1, source)
    least = float(np.percentile(seen, 1)) if seen.size else 0.0
    if least >= BASELINE_OFFSET - 100:
        warnings.warn(
            FloraWarning(
                f"cirrus (B10) is at least {least:.0f}, expected about 10: the "
                f"offset of {BASELINE_OFFSET} since processing baseline 04.00 is probably there",
                argument=source,
                remedy="subtract it, or tell the baseline in the name (N0400) or in a tag "
                "(PROCESSING_BASELINE)",
            ),
            stacklevel=7,
        )


def _reduced(dataset: Any, band: int, source: Given) -> Any:
    """Stored values (n,) of a band, every so many pixels, without nodata."""
    step = max(1, max(dataset.shape) // 512)
    shape = tuple(-(-side // step) for side in dataset.shape)
    values = read_bands(dataset, source=source, indexes=band, out_shape=shape)
    return values[np.isfinite(values) & (values != 0) & (values != (dataset.nodata or 0))]


def _say_offset(source: Given, why: str) -> None:
    warnings.warn(
        FloraWarning(
            f"{why}: the offset of {BASELINE_OFFSET} that is stored since 04.00 is taken off",
            argument=source,
        ),
        stacklevel=7,
    )


def baseline_in(name: str) -> float | None:
    """The processing baseline in a product's name, e.g. 5.09 of N0509; None without."""
    match = _BASELINE.search(name)
    return None if match is None else float(f"{match[1]}.{match[2]}")


def is_cloud(values: NDArray[Any]) -> BoolArray:
    """Which pixels of reflectance x 10000, B4, B3, B2 first along axis 0, are cloud or snow."""
    return np.asarray((values[:3] >= CLOUD).all(axis=0))


def _tags(path: Path, tags: Mapping[str, str]) -> dict[str, str]:
    """Name, items and date of the image, as far as they are known."""
    said = {"FLORA_BEFORE": path.name}
    date = _DATE.search(path.name) if "MSIL" in path.name else None
    if "FLORA_DATES" in tags:
        said["FLORA_BEFORE_DATES"] = tags["FLORA_DATES"]
    elif date is not None:
        said["FLORA_BEFORE_DATES"] = "-".join(date.groups())
    if "FLORA_ITEMS" in tags:
        said["FLORA_BEFORE_ITEMS"] = tags["FLORA_ITEMS"]
    return said
