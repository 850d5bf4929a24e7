"""Sentinel-1 and Sentinel-2 acquisitions found by place and date at any STAC API.

STAC (stacspec.org) is the catalogue interface that archives of satellite images share. Pixels are
fetched by `flora.stac.fetch`. Needs the extra `stac`.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from flora.errors import FloraError, FloraWarning
from flora.stac.api import TIMEOUT, asking, needs_stac, open_client, read_json

Bbox = tuple[float, float, float, float]
Sensor = Literal["sar", "optical"]

PAGE = 100  # items asked for at once


@dataclass(frozen=True)
class Endpoint:
    """A STAC API, and what it calls the things that are searched for.

    Attributes:
        name: What `--endpoint` calls it.
        url: Its landing page.
        sar_collection: Collection of Sentinel-1 that is searched by default.
        optical_collection: Collection of Sentinel-2 that is searched by default.
        token_url: Where a public, short-lived token for links is given out, with the place of the
            collection as `{collection}`; None where links work as they are.
    """

    name: str
    url: str
    sar_collection: str = "sentinel-1-rtc"
    optical_collection: str = "sentinel-2-l2a"
    token_url: str | None = None

    def collection(self, sensor: Sensor) -> str:
        """The collection that is searched by default for a sensor."""
        return self.sar_collection if sensor == "sar" else self.optical_collection


# Terrain-corrected gamma0 and surface reflectance, both on UTM grids.
PLANETARY_COMPUTER = Endpoint(
    name="planetary-computer",
    url="https://planetarycomputer.microsoft.com/api/stac/v1",
    token_url="https://planetarycomputer.microsoft.com/api/sas/v1/token/{collection}",
)
# Its Sentinel-1 is uncalibrated: it can be searched, not mapped. Of its two collections of
# Sentinel-2 this is the one whose metadata can be relied on for the offset of baseline 04.00.
EARTH_SEARCH = Endpoint(
    name="earth-search",
    url="https://earth-search.aws.element84.com/v1",
    sar_collection="sentinel-1-grd",
    optical_collection="sentinel-2-c1-l2a",
)
ENDPOINTS = {endpoint.name: endpoint for endpoint in (PLANETARY_COMPUTER, EARTH_SEARCH)}


@dataclass(frozen=True, repr=False)
class StacItem:
    """One acquisition in a catalogue.

    Attributes:
        record: The item as the API gave it (JSON); links are unsigned.
        endpoint: Where it was found.
    """

    record: Mapping[str, Any]
    endpoint: Endpoint

    def __repr__(self) -> str:
        return f"StacItem({self.id!r}, {self.time:%Y-%m-%d %H:%M})"

    @property
    def id(self) -> str:
        """Its name in the catalogue."""
        return str(self.record["id"])

    @property
    def collection(self) -> str:
        """The collection that it belongs to."""
        return str(self.record.get("collection") or "")

    @property
    def properties(self) -> Mapping[str, Any]:
        """Its metadata."""
        properties: Mapping[str, Any] = self.record["properties"]
        return properties

    @property
    def time(self) -> datetime:
        """When it was taken, in UTC."""
        text = self.properties.get("datetime") or self.properties["start_datetime"]
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)

    @property
    def cloud_cover(self) -> float | None:
        """Share of the whole image under cloud, in per cent; None for radar."""
        cover = self.properties.get("eo:cloud_cover")
        return None if cover is None else float(cover)

    @property
    def orbit(self) -> str:
        """Direction and number of the orbit, e.g. "descending 110"; empty where not given."""
        words = (self.properties.get(f"sat:{name}") for name in ("orbit_state", "relative_orbit"))
        return " ".join(str(word) for word in words if word is not None)

    @property
    def bbox(self) -> Bbox:
        """West, south, east, north in degrees."""
        box = self.record["bbox"]
        middle = len(box) // 2  # some give heights too
        return (box[0], box[1], box[middle], box[middle + 1])

    @property
    def href(self) -> str | None:
        """The address at which the item can be read anew."""
        links = self.record.get("links", ())
        return next((link["href"] for link in links if link.get("rel") == "self"), None)


def endpoint_at(name: str) -> Endpoint:
    """The endpoint of a preset's name, or of the address of any STAC API.

    Raises:
        FloraError: If it is neither.
    """
    if name in ENDPOINTS:
        return ENDPOINTS[name]
    if not name.startswith(("http://", "https://")):
        raise FloraError(
            f"endpoint {name!r}: expected {', '.join(ENDPOINTS)}, or the address of a STAC API "
            "(http:// or https://)"
        )
    known = (endpoint for endpoint in ENDPOINTS.values() if name.startswith(endpoint.url))
    return next(known, Endpoint(name=name, url=name))


def search(
    bbox: Sequence[float],
    dates: str | date | tuple[date, date],
    *,
    sensor: Sensor = "sar",
    endpoint: str | Endpoint = PLANETARY_COMPUTER,
    collection: str | None = None,
    max_cloud: float | None = None,
    limit: int = 500,
    timeout: float = TIMEOUT,
) -> list[StacItem]:
    """Find the acquisitions that touch an area, the earliest first.

    Radar without both VV and VH is left out.

    Args:
        bbox: West, south, east, north in degrees.
        dates: A day, or the first and last day: "2019-09-13", "2019-09-10/2019-09-20", or dates.
        sensor: "sar" (Sentinel-1) or "optical" (Sentinel-2).
        endpoint: A preset, its name, or the address of a STAC API.
        collection: Collection to search; default is the endpoint's own for the sensor.
        max_cloud: Leave out images with a larger share of cloud, in per cent.
        limit: Items read at most; a warning says so if there are more.
        timeout: Seconds without an answer before the server is given up.

    Raises:
        FloraError: If an argument is refused, the endpoint cannot be reached, answers with an
            error or is not a STAC API, it has no such collection, or nothing was found.

    Example:
        >>> from flora.stac.search import search
        >>> plain = (-1.0, 38.0, -0.6, 38.2)
        >>> scenes = search(plain, "2019-09-10/2019-09-20")  # doctest: +SKIP
    """
    box, (first, last) = check_bbox(bbox), check_dates(dates)
    place = endpoint_at(endpoint) if isinstance(endpoint, str) else endpoint
    name = collection or place.collection(sensor)
    if limit < 1:
        raise FloraError(f"limit {limit}: expected 1 or more")
    client = open_client(place.url, timeout)
    with asking(f"endpoint {place.url}"):
        asked = client.search(
            method="GET",  # the one that every API has
            collections=[name],
            bbox=box,
            datetime=f"{first}/{last}",
            limit=min(PAGE, limit),
            max_items=limit + 1,
        )
        records = list(asked.items_as_dicts())
    if not records:
        _check_collection(client, place, name)
    if len(records) > limit:
        warnings.warn(
            f"limit {limit}: {place.name} has more items than that; ask for fewer days or a "
            "smaller bbox, or raise the limit",
            FloraWarning,
            stacklevel=2,
        )
    found = [_item(record, place, f"endpoint {place.url}") for record in records[:limit]]
    usable = [item for item in found if _usable(item, sensor, max_cloud)]
    if not usable:
        _report_nothing(place, name, (first, last), box, found, max_cloud)
    return sorted(usable, key=lambda item: (item.time, item.id))


def find_before(
    sar: StacItem,
    bbox: Sequence[float] | None = None,
    *,
    days: int = 60,
    gap: int = 1,
    max_cloud: float = 20.0,
    endpoint: str | Endpoint | None = None,
    collection: str | None = None,
    timeout: float = TIMEOUT,
) -> list[StacItem]:
    """Find the clearest Sentinel-2 pass from before a radar acquisition.

    Of the passes (images of one day) it is the one that probably shows most of the area:
    coverage of the area x (1 - mean cloud cover). Among equals, the latest.

    Args:
        sar: The radar acquisition.
        bbox: West, south, east, north in degrees; default is the whole acquisition.
        days: How long before the radar an image may have been taken.
        gap: How long before it must have been; more than the flood had lasted by then.
        max_cloud: Images with a larger share of cloud, in per cent, are left out.
        endpoint: Where to search; default is where the radar was found.
        collection: See `search`.
        timeout: See `search`.

    Returns:
        The images of that pass, to be given to `flora.stac.fetch.fetch_scene`.

    Raises:
        FloraError: See `search`.

    Example:
        >>> from flora.stac.search import find_before, search
        >>> plain = (-1.0, 38.0, -0.6, 38.2)
        >>> scenes = search(plain, "2019-09-10/2019-09-20")  # doctest: +SKIP
        >>> clear = find_before(scenes[0], plain)  # doctest: +SKIP
    """
    if not 0 <= gap <= days:
        raise FloraError(f"gap {gap}, days {days}: expected 0 <= gap <= days")
    box = check_bbox(bbox if bbox is not None else sar.bbox)
    day = sar.time.date()
    found = search(
        box,
        (day - timedelta(days=days), day - timedelta(days=gap)),
        sensor="optical",
        endpoint=endpoint or sar.endpoint,
        collection=collection,
        max_cloud=max_cloud,
        timeout=timeout,
    )
    passes: dict[date, list[StacItem]] = defaultdict(list)
    for item in found:
        passes[item.time.date()].append(item)
    best = max(passes, key=lambda taken: (_visible(passes[taken], box), taken))
    return passes[best]


def read_item(href: str, endpoint: str | Endpoint | None = None) -> StacItem:
    """Read one item by its address, or from a JSON file.

    Args:
        href: Its own address (the link "self"), or a path.
        endpoint: Where it belongs; default is the preset whose address `href` starts with.

    Raises:
        FloraError: If it cannot be read, or is no STAC item.
    """
    if endpoint is None:
        known = (place for place in ENDPOINTS.values() if href.startswith(place.url))
        endpoint = next(known, Endpoint(name=href, url=href))
    place = endpoint_at(endpoint) if isinstance(endpoint, str) else endpoint
    with asking(f"item {href}"):
        record = read_json(href)
    return _item(record, place, f"item {href}")


def check_bbox(bbox: Sequence[float]) -> Bbox:
    """Refuse anything but west, south, east, north in degrees.

    Raises:
        FloraError: If it is something else.
    """
    given = f"bbox {','.join(f'{value:g}' for value in bbox)}: "
    if len(bbox) != 4 or not all(math.isfinite(value) for value in bbox):
        raise FloraError(f"{given}expected four numbers: west, south, east, north in degrees")
    west, south, east, north = (float(value) for value in bbox)
    if max(abs(west), abs(east)) > 180 or max(abs(south), abs(north)) > 90:
        raise FloraError(
            f"{given}expected longitudes within 180 and latitudes within 90 degrees; convert "
            "projected coordinates to WGS 84 first"
        )
    if not (west < east and south < north):
        raise FloraError(
            f"{given}expected west < east and south < north; an area across the antimeridian is "
            "searched in two halves"
        )
    return west, south, east, north


def check_dates(dates: str | date | tuple[date, date]) -> tuple[date, date]:
    """The first and last day that were asked for.

    Raises:
        FloraError: If they cannot be read or are in the wrong order.
    """
    if isinstance(dates, str):
        try:
            days = [date.fromisoformat(part.strip()) for part in dates.split("/")]
        except ValueError as error:
            raise FloraError(
                f"dates {dates!r}: {error}; expected 2019-09-13 or 2019-09-10/2019-09-20"
            ) from error
    else:
        days = [dates] if isinstance(dates, date) else list(dates)
    if len(days) > 2 or days[0] > days[-1]:
        raise FloraError(
            f"dates {dates!r}: expected one day, or the first and the last, in this order"
        )
    return days[0], days[-1]


def _item(record: Mapping[str, Any], place: Endpoint, subject: str) -> StacItem:
    properties = record.get("properties") or {}
    dated = isinstance(properties.get("datetime") or properties.get("start_datetime"), str)
    if not (record.get("type") == "Feature" and {"id", "assets"} <= record.keys() and dated):
        raise FloraError(
            f"{subject}: what it gives is no STAC item (a Feature with id, date and assets); give "
            "the address of one item, as `flora search` prints it"
        )
    return StacItem(record, place)


def _usable(item: StacItem, sensor: Sensor, max_cloud: float | None) -> bool:
    if sensor == "sar":
        return {"vv", "vh"} <= {name.lower() for name in item.record["assets"]}
    return max_cloud is None or item.cloud_cover is None or item.cloud_cover <= max_cloud


def _visible(items: list[StacItem], box: Bbox) -> float:
    """The share of an area that is covered by images and probably not by cloud."""
    with needs_stac():
        from odc.geo import geom
    area = geom.box(*box, "EPSG:4326")
    shapes = [
        geom.Geometry(item.record["geometry"], "EPSG:4326")
        if item.record.get("geometry")
        else geom.box(*item.bbox, "EPSG:4326")
        for item in items
    ]
    union = geom.unary_union(shapes)
    covered = 0.0 if union is None else (union & area).area / area.area
    clouds = [item.cloud_cover or 0.0 for item in items]
    return float(round(covered * (1 - sum(clouds) / len(clouds) / 100), 6))


def _report_nothing(
    place: Endpoint,
    collection: str,
    days: tuple[date, date],
    box: Bbox,
    found: list[StacItem],
    max_cloud: float | None,
) -> None:
    sides = ",".join(f"{side:.6g}" for side in box)
    where = f"{place.name} {collection}, {days[0]} to {days[1]}, bbox {sides}"
    if not found:
        raise FloraError(
            f"nothing found: {where}; ask for more days (a place is passed over every 6 to 12 "
            "days), and check that the bbox is west, south, east, north"
        )
    if max_cloud is not None:
        clearest = min(item.cloud_cover or 0.0 for item in found)
        raise FloraError(
            f"nothing found with at most {max_cloud:g} % cloud: {where}; the clearest of "
            f"{len(found)} images has {clearest:.0f} %: allow more cloud or more days"
        )
    raise FloraError(
        f"nothing found with both VV and VH: {where}; {len(found)} items have other "
        "polarisations, ask for other days"
    )


def _check_collection(client: Any, place: Endpoint, name: str) -> None:
    """Say so where nothing was found because there is no such collection."""
    with asking(f"endpoint {place.url}"):
        names = [collection.id for collection in client.get_collections()]
    if names and name not in names:
        alike = [other for other in names if "sentinel" in other.lower()] or names
        raise FloraError(
            f"collection {name!r}: {place.name} has none of this name; choose one of "
            f"{', '.join(sorted(alike)[:12])}"
        )
