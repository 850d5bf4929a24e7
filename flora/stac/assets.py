"""What an item's assets are: which one a band is, what its values mean, and its pixels."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import rasterio

from flora.errors import FloraError, FloraWarning, Given
from flora.grid import GDAL_ERRORS, Grid, check_georeference
from flora.scenes.optical import BASELINE_OFFSET, OFFSET_SINCE, QUANTIFICATION, baseline_in
from flora.sensors import BoolArray, FloatArray
from flora.stac.search import RETRIES, asking, read_item, remedy_for, time_of

if TYPE_CHECKING:
    from pystac import Asset, Item

# What catalogues call the bands, in lower case.
SAR_BANDS = {"VV": ("vv",), "VH": ("vh",)}
OPTICAL_BANDS = {
    "B4": ("b04", "b4", "red"),
    "B3": ("b03", "b3", "green"),
    "B2": ("b02", "b2", "blue"),
    "B8": ("b08", "b8", "nir"),
}
PROJECTION = "https://stac-extensions.github.io/projection/v1.1.0/schema.json"

Result = TypeVar("Result")


def gdal_options(timeout: float) -> dict[str, Any]:
    """How GDAL is to read over a network: no listing of folders, retries, no endless waiting."""
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_HTTP_MAX_RETRY": RETRIES,
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_CONNECTTIMEOUT": max(1, round(timeout)),
        # Below this many bytes a second for this long, a transfer counts as stuck.
        "GDAL_HTTP_LOW_SPEED_LIMIT": 512,
        "GDAL_HTTP_LOW_SPEED_TIME": max(1, round(timeout)),
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http",  # it would cache a failure, too
    }


class ItemBands:
    """Some bands of one item; used inside `rasterio.Env(**gdal_options(...))`.

    Args:
        item: The item.
        names: What the assets of each band may be called, in the order of the bands.
        timeout: Seconds without an answer before a server is given up.

    Attributes:
        grid: The pixels of the first band's file.
        scale: (C, 1, 1), with `offset` what turns stored values into measured ones.
        offset: (C, 1, 1).

    Raises:
        FloraError: If a band has no asset, or its file cannot be read or has no map grid.
    """

    def __init__(self, item: Item, names: Mapping[str, Sequence[str]], timeout: float) -> None:
        self.item, self.names, self._timeout = item, names, timeout
        with asking(f"item {item.id}"):
            files = self._renewing(self._describe)
        self.grid: Grid = files[0][0]
        scales = np.array([meaning for _, meaning in files]).T
        self.scale, self.offset = scales[:, :, None, None]

    def read(
        self, grid: Grid, resampling: Literal["bilinear", "nearest"] = "bilinear"
    ) -> tuple[FloatArray, BoolArray]:
        """Stored values (C, h, w) on a grid, and where there are any (h, w)."""
        import odc.stac
        from odc.geo.geobox import GeoBox

        def load() -> FloatArray:
            loaded = odc.stac.load(
                [self._plain_item()],
                bands=list(self.names),
                geobox=GeoBox(grid.shape, grid.transform, str(grid.crs)),
                dtype="float32",
                resampling=resampling,
                pool=len(self.names),
                patch_url=partial(sign, timeout=self._timeout),
                # 0 is the border wherever a file has no nodata value of its own.
                stac_cfg={"*": {"assets": {"*": {"nodata": 0, "data_type": "float32"}}}},
            )
            return np.stack([np.asarray(loaded[band])[0] for band in self.names])

        stored = self._renewing(load)
        return stored, np.isfinite(stored).all(axis=0) & (stored != 0).any(axis=0)

    def _assets(self) -> list[Asset]:
        return [find_asset(self.item, band, names) for band, names in self.names.items()]

    def _describe(self) -> list[tuple[Grid, tuple[float, float]]]:
        files = []
        for band, asset in zip(self.names, self._assets(), strict=True):
            with rasterio.open(sign(str(asset.get_absolute_href()), self._timeout)) as file:
                if file.crs is None:
                    raise FloraError(
                        f"item {self.item.id}: its image has no map grid, as ground range (GRD) "
                        "products have none, and is not calibrated; choose a terrain-corrected "
                        "collection (sentinel-1-rtc of planetary-computer), or correct the product "
                        "with ESA's SNAP"
                    )
                source = Given("", f"item {self.item.id}, {band}")
                check_georeference(Grid.of(file), source, resampled=True)
                filed, optical = (file.scales[0], file.offsets[0]), band in OPTICAL_BANDS
                files.append((Grid.of(file), scale_and_offset(self.item, asset, filed, optical)))
        return files

    def _plain_item(self) -> Item:
        """The item as odc-stac needs it: assets named after bands, and where the pixels lie."""
        from pystac import Asset, Item

        where = {
            "proj:wkt2": str(self.grid.crs),
            "proj:shape": list(self.grid.shape),
            "proj:transform": list(self.grid.transform[:6]),
        }
        time, extensions = time_of(self.item), [PROJECTION]
        item = Item(self.item.id, None, None, time, where, stac_extensions=extensions)
        for band, asset in zip(self.names, self._assets(), strict=True):
            item.add_asset(band, Asset(str(asset.get_absolute_href()), roles=["data"]))
        return item

    def _renewing(self, read: Callable[[], Result], renew: bool = True) -> Result:
        """Read; where that fails once more, with the links of the item read anew."""
        log = logging.getLogger("odc.loader._rio")
        log.disabled = True  # it prints links, and a signature is a secret while it lasts
        try:
            return read()
        except GDAL_ERRORS as error:
            if renew and self._renew():
                return self._renewing(read, renew=False)
            raise FloraError(self._trouble(error)) from error
        finally:
            log.disabled = False

    def _renew(self) -> bool:
        with contextlib.suppress(FloraError):
            self.item = read_item(self.item.get_self_href() or "", self._timeout)
            return True
        return False

    def _trouble(self, error: Exception) -> str:
        said = re.sub(r"\?[^\s']*", "", str(error)).replace("HTTP response code:", "HTTP")
        what, code = f"item {self.item.id}: cannot be read ({said})", re.search(r"HTTP (\d+)", said)
        if code and int(code[1]) in (401, 403, 410):  # what stores answer to an old signature
            return (
                f"{what}, not even with new links: an account is required, or the archive has "
                "withdrawn it; search again, or choose another endpoint"
            )
        if code or "CURL" in said:
            return f"{what}; {remedy_for(int(code[1]) if code else None)}"
        return f"{what}: damaged, or no raster; try again, or choose another item"


def sign(link: str, timeout: float) -> str:
    """A link that its archive answers: one to Planetary Computer gets a token, others stay.

    Raises:
        FloraError: If no token is given out.
    """
    with asking("token of planetary-computer"), ThreadPool(1) as pool:
        from planetary_computer import sign_url

        try:  # the package itself would wait for a silent server for ever
            return str(pool.apply_async(sign_url, [link]).get(timeout))
        except multiprocessing.TimeoutError as error:
            raise TimeoutError(f"no answer within {timeout:g} s") from error


def find_asset(item: Item, band: str, names: Sequence[str]) -> Asset:
    """A band's asset, by its own name or by the name of its only band.

    Raises:
        FloraError: If there is none.
    """
    for name in names:
        for key, asset in item.assets.items():
            said = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands") or []
            only = said[0] if isinstance(said, list) and len(said) == 1 else None
            inside = only if isinstance(only, dict) else {}
            labels = (key, inside.get("name"), inside.get("common_name"))
            if name in [str(label).lower() for label in labels]:
                return asset
    raise FloraError(
        f"item {item.id}: no asset for band {band} among {', '.join(sorted(item.assets))[:300]}; "
        "choose another collection"
    )


def scale_and_offset(
    item: Item, asset: Asset, filed: tuple[float, float] = (1.0, 0.0), optical: bool = True
) -> tuple[float, float]:
    """What turns stored values into measured ones: scale x stored + offset, each applied once.

    What the asset says itself (`raster:bands`, or `bands` since STAC 1.1) comes before what its
    file declares; where both do and differ, a warning says which is applied. Earth Search says of
    some items that the offset was taken off the pixels already; that comes before anything
    else. Where nothing is stated, radar is taken as it is stored, and Sentinel-2's processing
    baseline decides.

    Args:
        item: The item.
        asset: One of its assets.
        filed: Scale and offset that the file declares; (1, 0) is none.
        optical: Whether it is reflectance of Sentinel-2.

    Raises:
        FloraError: If nothing says whether an offset is there, or what is said is no number.

    Warns:
        FloraWarning: If the item contradicts its file.
    """
    said = [_said_number(item, asset, name) for name in ("scale", "offset")]
    taken_off = item.properties.get("earthsearch:boa_offset_applied") is True
    if taken_off:
        said[1] = 0.0
    differ = [
        f"{name} {told:g}, its file {inside:g}"
        for name, told, inside, none in zip(("scale", "offset"), said, filed, (1, 0), strict=True)
        if told is not None and inside != none and not math.isclose(told, inside, rel_tol=1e-6)
    ]
    if differ:
        warnings.warn(
            FloraWarning(
                f"item {item.id}: says {' and '.join(differ)}; the item is believed",
                remedy="if the picture of the image comes out black, white or negative, fetch the "
                "item's files yourself and map them as a raster, whose own scale is then applied",
            ),
            stacklevel=2,
        )
    scale, offset = said
    if scale is None:
        scale = filed[0] if filed[0] != 1 or not optical else 1 / QUANTIFICATION
    if offset is None and (filed[1] != 0 or not optical):
        # A file's offset without a scale is one of stored values.
        offset = filed[1] * scale if optical and filed[0] == 1 else filed[1]
    if offset is None:
        offset = -BASELINE_OFFSET / QUANTIFICATION if _baseline(item) >= OFFSET_SINCE else 0.0
    return scale, offset


def _said_number(item: Item, asset: Asset, name: str) -> float | None:
    """A number that an asset says of its first band; None where it says none."""
    bands = asset.extra_fields.get("raster:bands") or asset.extra_fields.get("bands") or [{}]
    band = bands[0] if isinstance(bands, list) else None
    if not isinstance(band, dict):
        raise FloraError(
            f"item {item.id}: its bands are {str(bands)[:80]!a}, expected a list of objects",
            remedy="choose another item, or another endpoint",
        )
    value = band.get(name, band.get(f"raster:{name}"))
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (name == "scale" and value == 0):
        raise FloraError(
            f"item {item.id}: its {name} is {str(value)[:80]!a}, expected a number",
            remedy="choose another item, or another endpoint",
        )
    return float(value)


def _baseline(item: Item) -> float:
    """The processing baseline of Sentinel-2 that an item, or its name, tells of."""
    version = item.properties.get("processing:version")
    told = item.properties.get("s2:processing_baseline", version)
    if told is None:
        names = (item.id, str(item.properties.get("s2:product_uri", "")))
        told = next((found for found in map(baseline_in, names) if found is not None), None)
    text = str(told).strip().removeprefix("N")
    if re.fullmatch(r"0\d{3}", text):  # as in names: 0509
        return int(text) / 100
    if re.fullmatch(r"\d{1,2}(\.\d+)?", text):
        return float(text)
    raise FloraError(
        f"item {item.id}: says neither its offset (raster:bands) nor a processing baseline "
        f"(s2:processing_baseline is {str(told)[:80]!a}), so reflectance cannot be known",
        remedy="choose another collection",
    )
