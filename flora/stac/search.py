"""Sentinel-1 and Sentinel-2 acquisitions found by place and date at any STAC API (stacspec.org).

Pixels are fetched by `flora.stac.fetch`. Needs the extra `stac`.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from socket import gaierror
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape

from flora.errors import FloraError, FloraWarning

if TYPE_CHECKING:
    from pystac import Item

ENDPOINTS = {
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
    "earth-search": "https://earth-search.aws.element84.com/v1",
}
# Terrain-corrected gamma0 and surface reflectance, both on UTM grids.
COLLECTIONS = {"sar": "sentinel-1-rtc", "optical": "sentinel-2-l2a"}
# Earth Search's Sentinel-1 is uncalibrated: it can be searched, not mapped. Of its two collections
# of Sentinel-2, this one's metadata can be relied on for the offset of baseline 04.00.
EARTH_SEARCH_COLLECTIONS = {"sar": "sentinel-1-grd", "optical": "sentinel-2-c1-l2a"}
TIMEOUT = 30.0  # s without an answer before a server counts as silent
RETRIES = 3  # after the first attempt; also for a server that is busy
COLLECTIONS_READ = 1000  # at most, to name those that there are
BUSY = (429, 500, 502, 503, 504)
GAP = 10  # days from an optical image to the radar: the flood may have begun before the radar came


def search(
    bbox: Sequence[float],
    dates: str | date | tuple[date, date],
    *,
    sensor: Literal["sar", "optical"] = "sar",
    endpoint: str = "planetary-computer",
    collection: str | None = None,
    max_cloud: float | None = None,
    limit: int = 500,
    timeout: float = TIMEOUT,
) -> list[Item]:
    """Find the acquisitions that touch an area, the earliest first, each a `pystac.Item`.

    Radar without both VV and VH is left out.

    Args:
        bbox: West, south, east, north in degrees.
        dates: A day, or the first and last day: "2019-09-13", "2019-09-10/2019-09-20", or dates.
        sensor: "sar" (Sentinel-1) or "optical" (Sentinel-2).
        endpoint: "planetary-computer", "earth-search", or the address of a STAC API.
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
    box, (first, last), url = check_bbox(bbox), check_dates(dates), address_of(endpoint)
    own = EARTH_SEARCH_COLLECTIONS if url == ENDPOINTS["earth-search"] else COLLECTIONS
    name = collection or own[sensor]
    where = f"{url}, {name}, {first} to {last}, bbox {','.join(f'{side:.6g}' for side in box)}"
    asked = Asked(url, name, box, f"{first}/{last}", limit, timeout)
    read, found = asked.answers()
    if not found:
        remedy = "ask for more days (a place is passed over every 6 to 12 days), and check the bbox"
        raise FloraError(f"nothing found: {where}", remedy=remedy)
    if read > limit:
        text = f"limit {limit}: there are more: {where}; ask for fewer days, or raise the limit"
        warnings.warn(text, FloraWarning, stacklevel=2)
    items = sorted(found[:limit], key=lambda item: (time_of(item), item.id))
    if sensor == "sar":
        items = [item for item in items if {"vv", "vh"} <= {name.lower() for name in item.assets}]
        if not items:
            raise FloraError(f"nothing found with both VV and VH: {where}; ask for other days")
    elif max_cloud is not None:
        clearest = min(cloud_of(item) or 0.0 for item in items)
        items = [item for item in items if (cloud_of(item) or 0.0) <= max_cloud]
        if not items:
            raise FloraError(
                f"nothing found with at most {max_cloud:g} % cloud: {where}; the clearest of "
                f"{len(found)} images has {clearest:.0f} %: allow more cloud or more days"
            )
    return items


class Asked(NamedTuple):
    """What an endpoint is asked for.

    Attributes:
        url: Its landing page.
        collection: Name of the collection.
        bbox: West, south, east, north in degrees.
        datetime: Days; None for all of them.
        limit: Items read at most, and one more.
        timeout: Seconds without an answer before the server is given up.
    """

    url: str
    collection: str
    bbox: tuple[float, float, float, float]
    datetime: str | None
    limit: int
    timeout: float

    def answers(self) -> tuple[int, list[Item]]:
        """How many items were read, and each of them once.

        Raises:
            FloraError: If the endpoint cannot be reached, is no STAC API, or lacks the collection.
        """
        with asking(f"endpoint {self.url}"):
            from pystac_client import Client

            client = Client.open(self.url, stac_io=_io(self.timeout), timeout=self.timeout)
            asked = client.search(
                method="GET",  # the one that every API has
                collections=[self.collection],
                bbox=self.bbox,
                datetime=self.datetime,
                limit=min(100, self.limit),  # a page
                max_items=self.limit + 1,
            )
            read = [_checked(record) for record in asked.items_as_dicts()]
            found = list({item.id: item for item in read}.values())  # pages may overlap
            # Some lists of collections never end.
            named = () if found else islice(client.get_collections(), COLLECTIONS_READ)
            names = sorted({known.id for known in named})
        if names and self.collection not in names:
            remedy = f"choose one of {', '.join(names)[:500]}"
            expected = f"{self.url} has none of this name"
            name = repr(self.collection)
            raise FloraError(expected, argument="collection", value=name, remedy=remedy)
        return len(read), found


def find_before(
    sar: Item,
    bbox: Sequence[float] | None = None,
    *,
    days: int = 60,
    gap: int = GAP,
    max_cloud: float = 20.0,
    endpoint: str | None = None,
    **options: Any,
) -> list[Item]:
    """Find the clearest Sentinel-2 pass from before a radar acquisition.

    Of the passes (images of one day) it is the one that probably shows most of the area:
    coverage of the area x (1 - mean cloud cover). Among equals, the latest.

    Args:
        sar: The radar acquisition.
        bbox: West, south, east, north in degrees; default is the whole acquisition.
        days: How long before the radar an image may have been taken.
        gap: How long before it must have been; more than the flood had lasted by then. The default
            is 10.
        max_cloud: Images with a larger share of cloud, in per cent, are left out.
        endpoint: Where to search; default is where the radar was found.
        options: Passed to `search`.

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
    box, day = check_bbox(bbox if bbox is not None else _box(sar)), time_of(sar).date()
    passes: dict[date, list[Item]] = defaultdict(list)
    for item in search(
        box,
        (day - timedelta(days=days), day - timedelta(days=gap)),
        sensor="optical",
        endpoint=endpoint or endpoint_of(sar),
        max_cloud=max_cloud,
        **options,
    ):
        passes[time_of(item).date()].append(item)

    return passes[max(passes, key=lambda taken: (visible(passes[taken], box), taken))]


def visible(images: Sequence[Item], bbox: Sequence[float]) -> float:
    """What images probably show of an area, as a share: coverage x (1 - mean cloud cover)."""
    area = shapely.box(*bbox)
    covered = shapely.union_all([outline_of(item) for item in images]).intersection(area).area
    cloud = sum(cloud_of(item) or 0.0 for item in images) / len(images)
    return round(float(covered / area.area) * (1 - cloud / 100), 6)


def read_item(href: str, timeout: float = TIMEOUT) -> Item:
    """Read one item by its address (its link "self"), or from a JSON file.

    Raises:
        FloraError: If it cannot be read, or is no STAC item.
    """
    with asking(f"item {href}"):
        web = href.startswith(("http://", "https://"))
        text = _io(timeout).read_text(href) if web else Path(href).read_text(encoding="utf-8")
        item = _checked(json.loads(text))
        if item.get_self_href() is None:
            item.set_self_href(href)
    return item


def time_of(item: Item) -> datetime:
    """When an item was taken, in UTC; the beginning where it is a span."""
    time: datetime = item.datetime or item.common_metadata.start_datetime  # type: ignore[assignment]
    return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)


def cloud_of(item: Item) -> float | None:
    """Share of a whole image under cloud, in per cent; None for radar."""
    cover = item.properties.get("eo:cloud_cover")
    return None if cover is None else float(cover)


def orbit_of(item: Item) -> str:
    """Direction and number of the orbit, e.g. "descending 110"; empty where not given."""
    words = (item.properties.get(f"sat:{name}") for name in ("orbit_state", "relative_orbit"))
    return " ".join(str(word) for word in words if word is not None)


def endpoint_of(item: Item) -> str:
    """The landing page of the API that an item was found at; empty where it does not say."""
    href = item.get_self_href() or ""
    return href.partition("/collections/")[0] if "/collections/" in href else ""


def same_pass(first: Item, second: Item) -> bool:
    """Whether two items are slices of one overflight: the same orbit, within ten minutes."""
    apart = abs(time_of(first) - time_of(second))
    return apart < timedelta(minutes=10) and orbit_of(first) == orbit_of(second)


def address_of(endpoint: str) -> str:
    """The landing page of an endpoint, given its name or address; anything else is refused."""
    address = ENDPOINTS.get(endpoint, endpoint)
    if not address.startswith(("http://", "https://")):
        expected = f"expected {', '.join(ENDPOINTS)}, or the address of a STAC API (http, https)"
        raise FloraError(expected, argument="endpoint", value=repr(endpoint))
    return address.rstrip("/")


def check_bbox(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """Refuse anything but west, south, east, north in degrees."""
    if len(bbox) == 4:
        west, south, east, north = (float(side) for side in bbox)
        if -180 <= west < east <= 180 and -90 <= south < north <= 90:
            return west, south, east, north
    raise FloraError(
        "expected four numbers in degrees, west < east and south < north",
        argument="bbox",
        value=",".join(f"{side:g}" for side in bbox),
        remedy="convert projected coordinates to WGS 84, halve an area at the antimeridian",
    )


def check_dates(dates: str | date | tuple[date, date]) -> tuple[date, date]:
    """The first and last day that were asked for; what cannot be read is refused."""
    given = (dates,) if isinstance(dates, date) else dates
    text = given if isinstance(given, str) else "/".join(f"{day:%Y-%m-%d}" for day in given)
    try:
        days = [date.fromisoformat(part.strip()) for part in text.split("/")]
    except ValueError:
        days = []
    if len(days) not in (1, 2) or days[0] > days[-1]:
        expected = "expected 2019-09-13 or 2019-09-10/2019-09-20, the first and last in this order"
        raise FloraError(expected, argument="dates", value=repr(text))
    return days[0], days[-1]


@contextmanager
def asking(subject: str) -> Iterator[None]:
    """Turn what can go wrong with a server or a document into one line that begins with `subject`.

    Raises:
        FloraError: If the extra is not installed, or the server cannot be reached, refuses, or
            is not a STAC API.
    """
    try:
        from pystac import STACError, STACTypeError
        from pystac_client.errors import ClientTypeError
        from pystac_client.exceptions import APIError
        from pystac_client.warnings import DoesNotConformTo, NoConformsTo

        strange = (STACError, STACTypeError, ClientTypeError, DoesNotConformTo, ShapelyError)
        malformed = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
        with warnings.catch_warnings():
            # An API without conformance classes is refused below, with a remedy.
            warnings.simplefilter("ignore", NoConformsTo)
            yield
    except FloraError:
        raise
    except ModuleNotFoundError as error:
        text = f'STAC needs {error.name}, which is not installed: pip install "flora[stac]"'
        raise FloraError(text) from error
    except (APIError, OSError) as error:
        answer = getattr(error, "response", error)  # of requests, or the error of pystac-client
        status = getattr(answer, "status_code", None)
        said = first_line(_origin(error) if status is None else error)
        reason = f"cannot be reached ({said})" if status is None else f"HTTP {status} ({said})"
        raise FloraError(f"{subject}: {reason}; {remedy_for(status)}") from error
    except (*strange, *malformed) as error:
        raise FloraError(
            f"{subject}: not a STAC API that can be searched, or no STAC item "
            f"({type(error).__name__}: {first_line(error)}); give the address of a landing page, "
            "or of one item as `flora search` prints it"
        ) from error


def _origin(error: BaseException) -> BaseException:
    """The system's own error, which libraries wrap in what each of them was about to do."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, (TimeoutError, ConnectionError, gaierror)):
        found = found.__cause__ or found.__context__
    return error if found is None else found


def first_line(error: BaseException) -> str:
    """The first line of a message; some servers send whole pages."""
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def remedy_for(status: int | None) -> str:
    """What to do about an answer with this status; None where there was no answer."""
    if status is None:
        return "check the address or path, the network and the proxy, or choose another endpoint"
    if status in BUSY or status > 500:
        return "the server is busy or broken: try again later"
    if status in (401, 403):
        return "an account is required: sign in at its provider, or choose another endpoint"
    return "check the address" if status == 404 else "check what was asked for"


def _io(timeout: float) -> Any:
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    # Without raise_on_status: the last answer says more than "too many retries".
    retry = Retry(RETRIES, backoff_factor=0.3, status_forcelist=BUSY, raise_on_status=False)
    return StacApiIO(timeout=timeout, max_retries=retry)


def _checked(record: Any) -> Item:
    """A record as an item whose id, time, cloud and place can be relied on."""
    from pystac import Item

    item = Item.from_dict(record)
    if not isinstance(item.id, str) or not item.id or not item.id.isprintable():
        raise TypeError(f"id {str(item.id)[:80]!a}")
    time_of(item), cloud_of(item), outline_of(item)
    if item.bbox is not None and len(_box(item)) != 4:
        raise ValueError(f"bbox {str(item.bbox)[:80]}")
    item.to_dict(transform_hrefs=False)  # what cannot be written again was no item
    return item


def _box(item: Item) -> list[float]:
    box = [float(side) for side in item.bbox or ()]
    return box if len(box) != 6 else [*box[:2], *box[3:5]]  # some give heights too


def outline_of(item: Item) -> Any:
    """The ground that an item shows, a shape in degrees."""
    return shapely.make_valid(shape(item.geometry)) if item.geometry else shapely.box(*_box(item))
