"""The pixels of one catalogue item, read through links that are renewed when they have expired."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin

import numpy as np
import rasterio
import rasterio.windows
import requests
from rasterio.transform import Affine
from rasterio.windows import Window

from flora.errors import FloraError
from flora.scenes.inputs import GDAL_ERRORS
from flora.sensors import FloatArray
from flora.stac.api import BUSY, RETRIES, asking, needs_stac, read_json
from flora.stac.search import StacItem

EXPIRED = (401, 403, 410)  # what stores answer to a link whose signature is too old

# What catalogues call the bands, in lower case.
SAR_KEYS = {"VV": ("vv",), "VH": ("vh",)}
OPTICAL_KEYS = {
    "B4": ("b04", "b4", "red"),
    "B3": ("b03", "b3", "green"),
    "B2": ("b02", "b2", "blue"),
    "B8": ("b08", "b8", "nir"),
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Grid:
    """Where pixels lie: `transform` leads from (column, row) to coordinates in `crs`."""

    crs: Any
    transform: Affine
    shape: tuple[int, int]


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
    }


class Source:
    """Some bands of one item. To be used inside `rasterio.Env(**gdal_options(...))`.

    Args:
        item: The item.
        keys: What the assets of each band may be called, in the order of the bands.
        timeout: Seconds without an answer before a server is given up.

    Raises:
        FloraError: If a band has no asset, or no token for the links is given out.
    """

    def __init__(self, item: StacItem, keys: Mapping[str, Sequence[str]], timeout: float) -> None:
        self.item = item
        self._bands = keys
        self._timeout = timeout
        self._sign()

    @property
    def assets(self) -> list[Mapping[str, Any]]:
        """The assets of the bands, in their order."""
        return [self._assets[key] for key in self.keys]

    def grid(self) -> Grid:
        """The grid of the first band's file."""

        def read() -> Grid:
            with rasterio.open(self._links()[0]) as file:
                if file.crs is None:
                    raise FloraError(
                        f"item {self.item.id}: its image has no map grid, as ground range (GRD) "
                        "products have none, and is not calibrated; choose a terrain-corrected "
                        "collection (sentinel-1-rtc of planetary-computer), or correct the product "
                        "with ESA's SNAP"
                    )
                return Grid(file.crs, file.transform, file.shape)

        return self._renewing(read)

    def read(self, grid: Grid, window: Window) -> FloatArray:
        """The bands (C, h, w) on a window of a grid, NaN in nodata."""
        with needs_stac():
            import odc.stac
            import pystac
            from odc.geo.geobox import GeoBox
        place = Affine(*rasterio.windows.transform(window, grid.transform)[:6])
        box = GeoBox((window.height, window.width), place, str(grid.crs))

        def read() -> FloatArray:
            with _silent("odc.loader._rio"):
                loaded = odc.stac.load(
                    [pystac.Item.from_dict(self._record())],
                    bands=self.keys,
                    geobox=box,
                    dtype="float32",
                    resampling="bilinear",
                    pool=len(self.keys),
                    # 0 is the border wherever a file has no nodata value of its own.
                    stac_cfg={"*": {"assets": {"*": {"nodata": 0, "data_type": "float32"}}}},
                )
            return np.stack([np.asarray(loaded[key])[0] for key in self.keys])

        return self._renewing(read)

    def _renewing(self, read: Callable[[], Result]) -> Result:
        """Read, and where a link has expired read again with new ones."""
        try:
            return read()
        except GDAL_ERRORS as error:
            status = self._status()
            if status not in EXPIRED:
                raise FloraError(self._trouble(status, error)) from error
        self._renew()
        try:
            return read()
        except GDAL_ERRORS as error:
            raise FloraError(self._trouble(self._status(), error)) from error

    def _trouble(self, status: int | None, error: Exception) -> str:
        # A signature is a secret while it lasts.
        link, reason = (re.sub(r"\?[^\s']*", "", text) for text in (self._links()[0], str(error)))
        what = f"item {self.item.id}: {link} cannot be read"
        if status in EXPIRED:
            return (
                f"{what} (HTTP {status}), not even with new links: it wants an account, or the "
                "archive has withdrawn it; search again, or choose another endpoint"
            )
        if status is None:
            return f"{what} ({reason}); check the network and the proxy, then start again"
        if status in BUSY:
            return f"{what} (HTTP {status}): the archive is busy or broken; try again later"
        if status >= 400:
            return f"{what} (HTTP {status}); search again, the archive may have moved it"
        return f"{what}: it is damaged, or no raster ({reason}); choose another item"

    def _status(self) -> int | None:
        """The first answer to the links that is not success; None without any answer."""
        status = None
        for link in self._links():
            if not link.startswith(("http://", "https://")):
                continue
            try:
                with requests.get(
                    link, headers={"Range": "bytes=0-0"}, stream=True, timeout=self._timeout
                ) as answer:
                    status = answer.status_code
            except requests.RequestException:
                return None
            if status >= 400:
                return status
        return status

    def _renew(self) -> None:
        """Read the item anew, for fresh links, and sign them."""
        if self.item.href is not None:
            with asking(f"item {self.item.id}, read again because its links have expired"):
                record = read_json(self.item.href, self._timeout)
            self.item = StacItem(record, self.item.endpoint)
        self._sign()

    def _sign(self) -> None:
        self._assets: Mapping[str, Any] = self.item.record["assets"]
        self.keys = [_find_asset(self.item, band, self._bands[band]) for band in self._bands]
        self._token = ""
        if self.item.endpoint.token_url is not None:
            url = self.item.endpoint.token_url.format(collection=self.item.collection)
            with asking(f"token for {self.item.collection}"):
                self._token = str(read_json(url, self._timeout)["token"])

    def _links(self) -> list[str]:
        return [self._signed(str(self._assets[key]["href"])) for key in self.keys]

    def _signed(self, link: str) -> str:
        if self.item.href is not None:
            link = urljoin(self.item.href, link)
        if not self._token:
            return link
        return f"{link}{'&' if '?' in link else '?'}{self._token}"

    def _record(self) -> dict[str, Any]:
        """The item with the bands' assets only, their links signed."""
        assets = {
            key: {"href": link, "roles": ["data"]}
            for key, link in zip(self.keys, self._links(), strict=True)
        }
        kept = ("type", "stac_version", "id", "geometry", "bbox")
        record = {key: self.item.record.get(key) for key in kept}
        time = self.item.time.isoformat()
        return record | {"properties": {"datetime": time}, "assets": assets, "links": []}


def _find_asset(item: StacItem, band: str, names: Sequence[str]) -> str:
    """The key of a band's asset, by its own name or by the name of its only band."""
    assets: Mapping[str, Any] = item.record["assets"]
    for name in names:
        for key, asset in assets.items():
            said = asset.get("eo:bands") or asset.get("bands") or []
            inside = [said[0].get("name"), said[0].get("common_name")] if len(said) == 1 else []
            if name in [str(label).lower() for label in (key, *inside)]:
                return key
    raise FloraError(
        f"item {item.id}: no asset for band {band} among {', '.join(sorted(assets))[:300]}; "
        "choose another collection"
    )


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Keep a library from printing links with their signatures; the error itself is raised."""
    library = logging.getLogger(logger)
    before = library.disabled
    library.disabled = True
    try:
        yield
    finally:
        library.disabled = before
