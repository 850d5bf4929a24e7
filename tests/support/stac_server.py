"""A STAC API on 127.0.0.1 that serves files with signed links, and misbehaves on request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import rasterio
from rasterio.warp import transform_bounds, transform_geom

CONFORMS = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]


@dataclass
class StacSite:
    """What the server holds; change it between requests.

    Attributes:
        base: Its address.
        items: Items by id; an asset's href is the name of a file.
        files: Contents by name.
        signature: What a link to a file must carry; changing it makes older links expire.
        in_links: Whether links carry the signature; else a token has to be asked for.
        lasts: Seconds for which a token is said to hold.
        silent: Whether paths with a status get no answer in its place.
        page: Items on a page.
        status: Answer with this status to paths that begin so.
        bodies: Answer with this to a path.
        requests: Paths with queries, in order.
    """

    base: str
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    signature: str = "first"
    in_links: bool = True
    lasts: float = 3600.0
    silent: bool = False
    page: int = 2
    status: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def asked(self, path: str) -> list[str]:
        return [request for request in self.requests if request.startswith(path)]

    def add(
        self,
        identity: str,
        collection: str,
        taken: str,
        files: dict[str, Path],
        properties: dict[str, Any] | None = None,
        assets: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Add an item whose assets are files; its footprint is that of the first."""
        with rasterio.open(next(iter(files.values()))) as file:
            box = file.bounds
            bbox = list(transform_bounds(file.crs, "EPSG:4326", *box))
            left, bottom, right, top = box
            ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
            shape = {"type": "Polygon", "coordinates": [ring]}
            geometry = transform_geom(file.crs, "EPSG:4326", shape)
        for key, path in files.items():
            self.files[f"{identity}/{key}.tif"] = path.read_bytes()
        self.items[identity] = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": identity,
            "collection": collection,
            "bbox": bbox,
            "geometry": json.loads(json.dumps(geometry)),
            "properties": {"datetime": taken, **(properties or {})},
            "assets": {
                key: {"href": f"{identity}/{key}.tif", **(assets or {}).get(key, {})}
                for key in files
            },
            "links": [],
        }

    # --- answers --------------------------------------------------------------------------------

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        for start, status in self.status.items():
            if path.startswith(start):
                time.sleep(6.0 if self.silent else 0.0)
                return status, b"trouble\nwith details"
        if path in self.bodies:
            return 200, self.bodies[path]
        head, _, rest = path.lstrip("/").partition("/")
        if head == "files":
            if query.get("sig") != self.signature:
                return 403, b"the signature has expired"
            return (200, self.files[rest]) if rest in self.files else (404, b"no such file")
        if head == "token":
            until = datetime.now(UTC) + timedelta(seconds=self.lasts)
            token = {"token": f"sig={self.signature}", "msft:expiry": until.isoformat()}
            return 200, json.dumps(token).encode()
        document = self._document(head, rest, query)
        return (404, b"nothing here") if document is None else (200, json.dumps(document).encode())

    def _document(self, head: str, rest: str, query: dict[str, str]) -> dict[str, Any] | None:
        root = {"rel": "root", "href": f"{self.base}/", "type": "application/json"}
        if not head:
            links = [{"rel": "search", "href": f"{self.base}/search", "type": "application/json"}]
            links += [{"rel": "data", "href": f"{self.base}/collections"}]
            return {
                "type": "Catalog",
                "stac_version": "1.0.0",
                "id": "test",
                "description": "files of a test",
                "conformsTo": [*CONFORMS, "https://api.stacspec.org/v1.0.0/collections"],
                "links": [root, *links],
            }
        if head == "search":
            return self._search(query)
        if head == "collections" and not rest:
            return {"collections": [self._collection(name) for name in self._names()], "links": []}
        if head == "collections" and rest.count("/") == 2 and rest.split("/")[2] in self.items:
            return self._item(rest.split("/")[2])
        return None

    def _names(self) -> list[str]:
        return sorted({item["collection"] for item in self.items.values()})

    def _collection(self, name: str) -> dict[str, Any]:
        space, time = {"bbox": [[-180, -90, 180, 90]]}, {"interval": [[None, None]]}
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "other",
            "extent": {"spatial": space, "temporal": time},
            "links": [],
        }

    def _item(self, identity: str) -> dict[str, Any]:
        item = json.loads(json.dumps(self.items[identity]))
        here = f"{self.base}/collections/{item['collection']}/items/{identity}"
        item["links"] = [{"rel": "self", "href": here}]
        for asset in item["assets"].values():
            signed = f"?sig={self.signature}" if self.in_links else ""
            asset["href"] = f"{self.base}/files/{asset['href']}{signed}"
        return item

    def _search(self, query: dict[str, str]) -> dict[str, Any]:
        west, south, east, north = (float(side) for side in query["bbox"].split(","))
        days = query.get("datetime", "1900-01-01T00:00:00Z/2100-01-01T00:00:00Z")
        first, last = map(datetime.fromisoformat, days.split("/"))
        found = [
            identity
            for identity, item in sorted(self.items.items())
            if item["collection"] in query["collections"].split(",")
            and first <= datetime.fromisoformat(item["properties"]["datetime"]) <= last
            and item["bbox"][0] <= east
            and item["bbox"][2] >= west
            and item["bbox"][1] <= north
            and item["bbox"][3] >= south
        ]
        start = int(query.get("start", 0))
        size = min(self.page, int(query["limit"]))
        links = []
        if start + size < len(found):
            following = urlencode({**query, "start": start + size})
            links = [{"rel": "next", "href": f"{self.base}/search?{following}", "method": "GET"}]
        features = [self._item(identity) for identity in found[start : start + size]]
        return {"type": "FeatureCollection", "features": features, "links": links}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    site: StacSite

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.site.requests.append(self.path)
        status, body = self.site.answer(parts.path, dict(parse_qsl(parts.query)))
        asked, total = self.headers.get("Range"), len(body)
        first = 0
        if status == 200 and asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or total), total - 1)
            status, body = (206, body[first : last + 1]) if first < total else (416, b"")
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{total}")
        kind = "image/tiff" if parts.path.endswith(".tif") else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(total if self.command == "HEAD" else len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_stac() -> Iterator[StacSite]:
    """Run a server until the block ends."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    handler.site = StacSite(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield handler.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
