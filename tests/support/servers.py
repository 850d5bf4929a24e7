"""Servers on 127.0.0.1 that hold a publisher's files in its layout, and misbehave on request."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from flora.datasets.fetch.transfer import Transfer

with warnings.catch_warnings():  # of Python 3.11, that later ones lack asyncore
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import DTPHandler, FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer


def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are on this computer, whatever its environment says of proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def impatient_transfer() -> Transfer:
    """A transfer that gives up within a second or two."""
    return Transfer(timeout=1, attempts=3, backoff=0.01, slowest=1000)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the fields that are set apply together."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body, then the connection closes
    claimed: int | None = None  # Content-Length that is not the body's
    body: bytes | None = None  # another body, with its own length
    no_length: bool = False  # no Content-Length: the end of the connection ends the body
    chunked: bool = False
    pause: float = 0.0  # seconds between single bytes of the body
    silent: float = 0.0  # seconds before anything is sent
    wrong_range: bool = False  # a 206 from another byte than asked for


@dataclass(frozen=True)
class Request:
    """A request as it arrived; `target` is a whole address where this server is the proxy."""

    target: str
    path: str
    range: str | None
    query: Mapping[str, str]


class Site:
    """Files and listings by path; `faults` of a path are used up one a request, in order."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.ranges = True
        self.files: dict[str, bytes] = {}
        self.listings: dict[str, Callable[[Mapping[str, str]], Any]] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    def asked(self, path: str) -> list[Request]:
        """Requests for one path, in order."""
        return [request for request in self.requests if request.path == path]

    def take_fault(self, path: str) -> Fault:
        with self.lock:
            waiting = self.faults.get(path)
            return waiting.pop(0) if waiting else self.always.get(path, Fault())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it delays every answer of two writes by 40 ms
    site: Site

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query))
        asked = self.headers.get("Range")
        self.site.requests.append(Request(self.path, path, asked, query))
        fault = self.site.take_fault(path)
        time.sleep(fault.silent)
        body = self.site.files.get(path)
        if path in self.site.listings:
            body = json.dumps(self.site.listings[path](query)).encode()
        if fault.body is not None:
            body = fault.body
        status = fault.status if body is not None else 404
        headers = dict(fault.headers)
        body = (body or b"") if status == 200 else b"trouble"
        if status == 200 and asked and self.site.ranges:
            total, first = len(body), int(asked.removeprefix("bytes=").rstrip("-"))
            if first >= total:
                status, body = 416, b""
            else:
                first = max(0, first - 1) if fault.wrong_range else first
                status, body = 206, body[first:]
                headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        self._answer(status, headers, body, fault)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body, b""))
        elif not fault.no_length:
            length = len(body) if fault.claimed is None else fault.claimed
            self.send_header("Content-Length", str(length))
        self.end_headers()
        sent = body if fault.cut_after is None else body[: fault.cut_after]
        try:
            if fault.pause:
                for number in range(len(sent)):
                    self.wfile.write(sent[number : number + 1])
                    time.sleep(fault.pause)
            else:
                self.wfile.write(sent)
        except OSError:  # the client has had enough
            self.close_connection = True
        if len(sent) < len(body) or fault.no_length or fault.claimed is not None:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *arguments: object) -> None:
        """A client that went away is no error here."""


@contextmanager
def http_server() -> Iterator[Site]:
    """A web server in a thread."""
    handler = type("Handler", (_Handler,), {})
    with _HTTPServer(("127.0.0.1", 0), handler) as server:
        site = Site(f"http://127.0.0.1:{server.server_address[1]}")
        handler.site = site  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


# --- publishers' listings -----------------------------------------------------------------------


def below(root: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path in the folder."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def serve_bucket(site: Site, files: Mapping[str, bytes], per_page: int = 4) -> None:
    """Google Cloud Storage's bucket `sen1floods11`: its JSON listing in pages, and its objects."""
    names = sorted(files)
    for name in names:
        site.files[f"/sen1floods11/{name}"] = files[name]

    def listing(query: Mapping[str, str]) -> Any:
        matching = [name for name in names if name.startswith(query.get("prefix", ""))]
        first = int(query.get("pageToken", "0"))
        page: dict[str, Any] = {
            "items": [
                {
                    "name": name,
                    "size": str(len(files[name])),
                    "md5Hash": base64.b64encode(bytes.fromhex(md5(files[name]))).decode(),
                }
                for name in matching[first : first + per_page]
            ]
        }
        if not page["items"]:
            return {}
        if first + per_page < len(matching):
            page["nextPageToken"] = str(first + per_page)
        return page

    site.listings["/storage/v1/b/sen1floods11/o"] = listing


def serve_figshare(site: Site, files: Mapping[str, bytes], per_page: int = 2) -> None:
    """Figshare's article of DeepFlood: the article, its files in pages, and the files."""
    entries = []
    for number, (name, content) in enumerate(sorted(files.items())):
        site.files[f"/files/{number}"] = content
        entries.append(
            {
                "id": number,
                "name": name,
                "size": len(content),
                "is_link_only": False,
                "computed_md5": md5(content),
                "supplied_md5": md5(content),
                "download_url": f"{site.base}/files/{number}",
            }
        )
    licence = {"value": 1, "name": "CC BY 4.0", "url": "https://example.org/by/4.0"}
    article = "/v2/articles/26791243"
    site.listings[article] = lambda query: {"license": licence, "files": entries[:1]}

    def page(query: Mapping[str, str]) -> Any:
        first = (int(query["page"]) - 1) * per_page
        return entries[first : first + per_page]

    site.listings[f"{article}/files"] = page


def serve_github(site: Site, files: Mapping[str, bytes], archive: bytes, commit: str) -> None:
    """GitHub's interface and archive of OMBRIA's repository at one commit."""
    tree = [
        {
            "path": name,
            "type": "blob",
            "size": len(content),
            "sha": hashlib.sha1(
                b"blob %d\0" % len(content) + content, usedforsecurity=False
            ).hexdigest(),
        }
        for name, content in files.items()
    ]
    tree.append({"path": "OmbriaS1", "type": "tree", "sha": "0" * 40})
    repository = "/repos/geodrak/OMBRIA"
    site.listings[f"{repository}/commits/{commit[:7]}"] = lambda query: {"sha": commit}
    site.listings[f"{repository}/git/trees/{commit}"] = lambda query: {
        "sha": commit,
        "tree": tree,
        "truncated": False,
    }
    site.files[f"/geodrak/OMBRIA/zip/{commit}"] = archive
    # GitHub makes archives while it sends.
    site.always[f"/geodrak/OMBRIA/zip/{commit}"] = Fault(chunked=True)


def make_zip(path: Path, members: Mapping[str, bytes], link: str = "") -> Path:
    """A zip; `link` names a symbolic link in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc")
    return path


def make_tar(path: Path, members: Mapping[str, bytes], *odd: tarfile.TarInfo) -> Path:
    """A gzipped tar; `odd` are members without content."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in odd:
            archive.addfile(info)
    return path


# --- FTP ----------------------------------------------------------------------------------------


@dataclass
class FtpSite:
    """An FTP server; `cuts` are numbers of bytes after which a transfer breaks off, in order."""

    base: str
    cuts: list[int] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    retrieved: list[str] = field(default_factory=list)


@contextmanager
def ftp_server(folder: Path, resumes: bool = True) -> Iterator[FtpSite]:
    """An FTP server in a thread, with SEN12MS's user and password."""
    user = "m1474000"
    site = FtpSite("")

    class Data(DTPHandler):
        def use_sendfile(self) -> bool:
            return False  # it would bypass `send`

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.left = site.cuts.pop(0) if site.cuts else None

        def send(self, data: bytes) -> int:
            if self.left is None:
                return int(super().send(data))
            sent = int(super().send(data[: self.left])) if self.left else 0
            self.left -= sent
            if self.left == 0:
                self.close()
            return sent

    class Handler(FTPHandler):
        dtp_handler = Data
        auth_failed_timeout = 0

        def ftp_REST(self, line: str) -> None:
            if not resumes:
                self.respond("502 Not implemented.")
                return
            if line != "0":  # which only asks whether it can
                site.restarts.append(int(line))
            super().ftp_REST(line)

        def ftp_RETR(self, file: str) -> Any:
            site.retrieved.append(Path(file).name)
            return super().ftp_RETR(file)

    Handler.authorizer = DummyAuthorizer()
    Handler.authorizer.add_user(user, user, str(folder), perm="elr")
    loop = IOLoop()
    server = FTPServer(("127.0.0.1", 0), Handler, ioloop=loop)
    site.base = f"ftp://{user}:{user}@127.0.0.1:{server.address[1]}"
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            loop.loop(timeout=0.02, blocking=False)
        server.close_all()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield site
    finally:
        stop.set()
        thread.join()
