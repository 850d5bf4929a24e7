"""The kinds of places where publishers keep datasets, and what each lists about its files.

A dataset's class says in its `publisher` which kind, where, and what of it.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flora.datasets.fetch.archives import unpacked_before
from flora.datasets.fetch.remote import (
    ARCHIVES,
    BadFile,
    Checksum,
    Known,
    Remote,
    Unpacking,
    relative_path,
)
from flora.errors import FloraError

if TYPE_CHECKING:
    from flora.datasets.fetch.transfer import Transfer

PAGES = 1000  # of a listing: a server that has more to say never ends


@dataclass(frozen=True, kw_only=True)
class Publisher(ABC):
    """Where a dataset comes from.

    Attributes:
        name: The library's name of the dataset.
        page: Where a person finds it.
        by_hand: What to do where the server cannot be reached from here.
        licence: Its terms, as far as they are stated.
        note: What else to know before downloading; "" for nothing.
        connections: How many files at once the server is asked for.
    """

    name: str
    page: str
    by_hand: str
    licence: str
    note: str = ""
    connections: int = 8

    @property
    def opened_as(self) -> tuple[str, ...]:
        """Names by which the library opens what comes of it."""
        return (self.name,)

    @abstractmethod
    def files(self, transfer: Transfer, root: Path) -> list[Remote]:
        """Ask the publisher what there is.

        Args:
            transfer: How to ask.
            root: The dataset's folder; what lies there already need not be asked for.

        Raises:
            FloraError: If the publisher does not answer, or answers something unexpected.
        """

    def terms(self, transfer: Transfer) -> str:
        """The licence, asked for where the publisher's interface states it."""
        return self.licence


@dataclass(frozen=True, kw_only=True)
class Bucket(Publisher):
    """A public bucket of Google Cloud Storage, which lists size and MD5.

    Attributes:
        bucket: Its name.
        folders: Where each part is, in the bucket; its files are named PLACE_....
        shared: What comes with any part.
        loaders: Parts that the library opens, and by which name.
        renamed: Places that are called otherwise in file names, in lower case.
        parts: Those wanted.
        places: Those wanted; empty takes all.
        base: Address of Google Cloud Storage.
    """

    bucket: str
    folders: Mapping[str, str]
    shared: tuple[str, ...]
    loaders: Mapping[str, str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...]
    places: tuple[str, ...] = ()
    base: str = "https://storage.googleapis.com"

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts or ("",) if part not in self.folders]
        _refuse_unknown(self.name, "part", unknown, self.folders)

    @property
    def opened_as(self) -> tuple[str, ...]:
        """See `Publisher.opened_as`."""
        return tuple(self.loaders[part] for part in self.parts if part in self.loaders)

    def files(self, transfer: Transfer, root: Path) -> list[Remote]:
        """See `Publisher.files`."""
        chips = [r for part in self.parts for r in self._listed(transfer, self.folders[part])]
        lists = [remote for prefix in self.shared for remote in self._listed(transfer, prefix)]
        return [*self._of_places(chips), *lists]

    def _listed(self, transfer: Transfer, prefix: str) -> list[Remote]:
        url = f"{self.base}/storage/v1/b/{self.bucket}/o"
        fields = "items(name,size,md5Hash),nextPageToken"
        parameters = {"prefix": prefix, "fields": fields, "maxResults": "1000"}
        remotes: list[Remote] = []
        tokens: list[str] = []
        while len(tokens) < PAGES:
            page = transfer.json(url, parameters=parameters)
            for entry in _field(page, "items", list, self.page) if "items" in page else ():
                remotes += self._remote(entry)
            token = str(page.get("nextPageToken") or "")
            if not token:
                break
            if token in tokens:
                raise _endless(url)
            tokens.append(token)
            parameters["pageToken"] = token
        else:
            raise _endless(url)
        if not remotes:
            raise FloraError(
                f"{self.name}: the bucket lists nothing under {prefix}: see {self.page} for where "
                "its authors keep it now"
            )
        return remotes

    def _remote(self, entry: Any) -> Iterator[Remote]:
        name = _field(entry, "name", str, self.page)
        if name.endswith("/"):  # a folder made in a browser
            return
        md5 = entry.get("md5Hash")  # absent for objects composed of several
        try:
            checksum = Checksum("md5", base64.b64decode(md5, validate=True).hex()) if md5 else None
        except (TypeError, ValueError) as error:
            raise _strange(f"md5Hash {md5!r} of {name}", self.page) from error
        yield Remote(
            relative_path(name, self.base),
            _size(entry, self.page),
            checksum,
            url=f"{self.base}/{self.bucket}/{quote(name)}",
        )

    def _of_places(self, chips: list[Remote]) -> list[Remote]:
        if not self.places:
            return chips
        events = {event.lower(): event for event in map(_event, chips)}
        wanted = [self.renamed.get(place.lower(), place.lower()) for place in self.places]
        unknown = [p for p, name in zip(self.places, wanted, strict=True) if name not in events]
        _refuse_unknown(self.name, "place", unknown, sorted(events.values()))
        return [chip for chip in chips if _event(chip).lower() in wanted]


@dataclass(frozen=True, kw_only=True)
class FtpArchives(Publisher):
    """Archives GROUP_LAYER.tar.gz on an FTP server that gives sizes, with lists beside them.

    Attributes:
        groups: The first part of an archive's name, by what the group is called.
        growth: Layers, and how many times larger than its archive each is unpacked.
        checksums: MD5 of every file, by name.
        ftp: Address of the server, user and password (both public) included.
        lists: Address of the folder of the lists.
        chosen: Groups wanted; empty takes all.
    """

    groups: Mapping[str, str]
    growth: Mapping[str, float]
    checksums: Mapping[str, str]
    ftp: str
    lists: str
    chosen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [season for season in self.chosen if season not in self.groups]
        _refuse_unknown(self.name, "season", unknown, self.groups)

    def files(self, transfer: Transfer, root: Path) -> list[Remote]:
        """See `Publisher.files`; the FTP server is asked only about archives not there yet."""
        lists = [name for name in self.checksums if name.endswith(".txt")]
        remotes = [self._remote(name, f"{self.lists}/{name}") for name in lists]
        for group in self.chosen or self.groups:
            for layer, growth in self.growth.items():
                folder = self.groups[group]
                name = f"{folder}_{layer}.tar.gz"
                url, size = f"{self.ftp}/{name}", None
                if (root / name).is_file():
                    size = (root / name).stat().st_size
                elif not unpacked_before(name, root, Unpacking(0)):
                    size = transfer.size(url)
                layout = f"{layer}_*/{folder}_{layer}_*_p*.tif"
                unpacking = Unpacking(int((size or 0) * growth), layout=layout)
                remotes.append(self._remote(name, url, size, unpacking))
        return remotes

    def _remote(
        self, name: str, url: str, size: int | None = None, unpacking: Unpacking | None = None
    ) -> Remote:
        checksum = Checksum("md5", self.checksums[name])
        return Remote(PurePosixPath(name), size, checksum, url=url, unpacking=unpacking)


@dataclass(frozen=True, kw_only=True)
class Figshare(Publisher):
    """An article of figshare, whose interface lists size and MD5 of every file.

    Attributes:
        article: Its number.
        api: Address of figshare's interface, version 2.
    """

    article: int
    api: str = "https://api.figshare.com/v2"

    @property
    def _address(self) -> str:
        return f"{self.api}/articles/{self.article}"

    def terms(self, transfer: Transfer) -> str:
        """See `Publisher.terms`."""
        stated = transfer.json(self._address).get("license")
        stated = stated if isinstance(stated, dict) else {}
        words = (str(stated[key]) for key in ("name", "url") if stated.get(key))
        return " ".join(words) or "none stated on its page"

    def files(self, transfer: Transfer, root: Path) -> list[Remote]:
        """See `Publisher.files`."""
        # The article itself names only its first files; the list comes in pages.
        url, entries = f"{self._address}/files", []
        for number in range(1, PAGES + 1):
            page = transfer.json(url, list, {"page": str(number), "page_size": "100"})
            if not page:
                break
            if page[0] in entries:
                raise _endless(url)
            entries += page
        else:
            raise _endless(url)
        if not entries:
            raise FloraError(f"{self.name}: figshare lists no file: see {self.page}")
        return [self._remote(entry) for entry in entries]

    def _remote(self, entry: Any) -> Remote:
        name = _field(entry, "name", str, self.page)
        if entry.get("is_link_only"):
            raise FloraError(
                f"{self.name}: {name} is not on figshare, only linked there: download it by hand "
                f"from {entry.get('download_url') or self.page}"
            )
        size = _size(entry, self.page)
        md5 = entry.get("computed_md5") or entry.get("supplied_md5")
        # Pictures hardly compress: a tenth more than the archive is an estimate, not a bound.
        unpacking = Unpacking(int(size * 1.1)) if name.lower().endswith(ARCHIVES) else None
        return Remote(
            relative_path(name, self.api),
            size,
            Checksum("md5", str(md5)) if md5 else None,
            url=_field(entry, "download_url", str, self.page),
            unpacking=unpacking,
        )


@dataclass(frozen=True, kw_only=True)
class GitCommit(Publisher):
    """Files of a GitHub repository at a fixed commit.

    They come as one archive of the commit; each is then verified against the SHA-1 by which git
    itself identifies it.

    Attributes:
        repository: OWNER/NAME.
        commit: The first seven digits or more.
        folders: Those wanted.
        suffix: End of the names of the files wanted.
        api: Address of GitHub's interface.
        archives: Address of GitHub's archives.
    """

    repository: str
    commit: str
    folders: tuple[str, ...]
    suffix: str
    api: str = "https://api.github.com"
    archives: str = "https://codeload.github.com"

    def files(self, transfer: Transfer, root: Path) -> list[Remote]:
        """See `Publisher.files`."""
        url = f"{self.api}/repos/{self.repository}"
        commit = transfer.json(f"{url}/commits/{self.commit}")
        identity = _field(commit, "sha", str, self.page)
        if not identity.startswith(self.commit):
            raise BadFile(f"{self.api} gives commit {identity} where {self.commit} was asked for")
        listing = transfer.json(f"{url}/git/trees/{identity}", parameters={"recursive": "1"})
        members = tuple(
            Known(
                relative_path(entry["path"], self.api),
                _size(entry, self.page),
                Checksum("git", _field(entry, "sha", str, self.page)),
            )
            for entry in _field(listing, "tree", list, self.page)
            if _field(entry, "type", str, self.page) == "blob"
            and _field(entry, "path", str, self.page).split("/")[0] in self.folders
            and entry["path"].endswith(self.suffix)
        )
        if not members or listing.get("truncated"):
            raise FloraError(
                f"{self.name}: GitHub lists {len(members)} files"
                f"{' and leaves some out' if listing.get('truncated') else ''}: {self.by_hand}"
            )
        total = sum(member.size or 0 for member in members)
        name = f"{self.repository.partition('/')[2]}-{self.commit}.zip"
        archive = f"{self.archives}/{self.repository}/zip/{identity}"
        unpacking = Unpacking(total, strip=1, members=members)
        return [Remote(PurePosixPath(name), url=archive, unpacking=unpacking)]


def _event(chip: Remote) -> str:
    return chip.path.name.split("_")[0]


def _field(entry: Any, key: str, kind: type[Any], page: str) -> Any:
    """A field of a publisher's listing, of the expected type."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise _strange(f"{key}={value!r} where {kind.__name__} was expected", page)
    return value


def _size(entry: Any, page: str) -> int:
    """Bytes, which some interfaces write as text."""
    value = str(entry.get("size")) if isinstance(entry, dict) else ""
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise _strange(f"size={value} where a number of bytes was expected", page)
    return int(value)


def _refuse_unknown(name: str, kind: str, unknown: list[str], known: Iterable[str]) -> None:
    if unknown:
        choices = ", ".join(known)
        raise FloraError(f"{name}: no {kind} {', '.join(unknown)!r}; choose {choices}")


def _strange(what: str, page: str) -> FloraError:
    return FloraError(
        f"a listing holds {what}: the publisher has changed its interface; download by hand from "
        f"{page}, and report it"
    )


def _endless(url: str) -> FloraError:
    return FloraError(
        f"{url}: its listing does not end: the server, or a proxy on the way, repeats itself; run "
        "again later"
    )
