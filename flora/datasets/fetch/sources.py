"""Where each dataset's publisher keeps its files, and what they list about them."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import quote

from flora.datasets.deepflood import DeepFlood
from flora.datasets.fetch.archives import Member, Unpacking, is_archive, unpacked_before
from flora.datasets.fetch.transfer import BadFile, Checksum, Remote, Transfer, relative_path
from flora.datasets.ombria import Ombria
from flora.datasets.sen1floods11 import Sen1Floods11
from flora.datasets.sen12ms import Sen12MS
from flora.errors import FloraError


@dataclass(frozen=True)
class Item:
    """A file to fetch and, if it is an archive, how to unpack it."""

    remote: Remote
    unpacking: Unpacking | None = None


class Source(ABC):
    """A dataset at its publisher.

    Attributes:
        name: The library's name of the dataset.
        page: Where a person finds it.
        citation: What its authors ask to be cited.
        licence: Its terms, as far as they are stated.
        by_hand: What to do where the server cannot be reached from here.
        note: What else to know before downloading; "" for nothing.
        connections: How many files at once the publisher's server is asked for.
    """

    name: ClassVar[str]
    page: ClassVar[str]
    citation: ClassVar[str]
    licence: str
    by_hand: ClassVar[str]
    note: str = ""
    connections: ClassVar[int] = 8

    @property
    def opened_as(self) -> tuple[str, ...]:
        """Names by which the library opens what comes of it."""
        return (self.name,)

    @abstractmethod
    def items(self, transfer: Transfer, root: Path) -> list[Item]:
        """Ask the publisher what there is.

        Args:
            transfer: How to ask.
            root: The dataset's folder; what lies there already need not be asked for.

        Raises:
            FloraError: If the publisher does not answer, or answers something unexpected.
        """


class Sen1Floods11Source(Source):
    """Sen1Floods11 in its public Google Cloud Storage bucket, which lists size and MD5.

    Args:
        parts: "hand" (about 1.8 GB), "weak" and "perm" (about 14 GB all three).
        places: Flood events, e.g. "Bolivia"; empty takes all. Split lists always come whole.
        base: Address of Google Cloud Storage.

    Raises:
        FloraError: If a part is unknown.
    """

    name = "sen1floods11"
    page = "https://github.com/cloudtostreet/Sen1Floods11"
    citation = Sen1Floods11.citation
    licence = "none stated by its authors"
    by_hand = "copy gs://sen1floods11/v1.1 with Google's gcloud or gsutil into ROOT/v1.1"
    folders: ClassVar[Mapping[str, str]] = {
        "hand": "v1.1/data/flood_events/HandLabeled/",
        "weak": "v1.1/data/flood_events/WeaklyLabeled/",
        "perm": "v1.1/data/perm_water/",
    }
    shared: ClassVar[tuple[str, ...]] = ("v1.1/splits/", "v1.1/Sen1Floods11_Metadata.geojson")
    renamed: ClassVar[Mapping[str, str]] = {"cambodia": "mekong"}  # metadata to file names

    def __init__(
        self,
        parts: Sequence[str] = ("hand",),
        places: Sequence[str] = (),
        base: str = "https://storage.googleapis.com",
    ) -> None:
        unknown = sorted(set(parts) - set(self.folders))
        if unknown or not parts:
            raise FloraError(
                f"{self.name}: no part {', '.join(unknown)!r}; choose {', '.join(self.folders)}"
            )
        self.parts = tuple(dict.fromkeys(parts))
        self.places = tuple(places)
        self.base = base
        if places:
            self.note = (
                "The official splits hold chips of all places. Open those of one place as split "
                "only-PLACE; flora check will name the rest as missing."
            )

    @property
    def opened_as(self) -> tuple[str, ...]:
        """See `Source.opened_as`; permanent water has no loader."""
        names = {"hand": "sen1floods11", "weak": "sen1floods11-weak"}
        return tuple(names[part] for part in self.parts if part in names)

    def items(self, transfer: Transfer, root: Path) -> list[Item]:
        """See `Source.items`."""
        chips = [r for part in self.parts for r in self._listed(transfer, self.folders[part])]
        lists = [remote for prefix in self.shared for remote in self._listed(transfer, prefix)]
        return [Item(remote) for remote in (*self._of_places(chips), *lists)]

    def _listed(self, transfer: Transfer, prefix: str) -> list[Remote]:
        remotes: list[Remote] = []
        parameters = {
            "prefix": prefix,
            "fields": "items(name,size,md5Hash),nextPageToken",
            "maxResults": "1000",
        }
        while True:
            page = transfer.json(f"{self.base}/storage/v1/b/sen1floods11/o", parameters=parameters)
            for entry in _field(page, "items", list, self.page) if "items" in page else ():
                remotes += self._remote(entry)
            if not page.get("nextPageToken"):
                break
            parameters["pageToken"] = page["nextPageToken"]
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
        size = _field(entry, "size", str, self.page)
        md5 = entry.get("md5Hash")  # absent for objects composed of several
        yield Remote(
            url=f"{self.base}/sen1floods11/{quote(name)}",
            path=relative_path(name, self.base),
            size=int(size),
            checksum=Checksum("md5", base64.b64decode(md5).hex()) if md5 else None,
        )

    def _of_places(self, chips: list[Remote]) -> list[Remote]:
        """The chips of the chosen events; chips are named EVENT_CHIPID_LAYER.tif."""
        if not self.places:
            return chips
        events = {chip.path.name.split("_")[0] for chip in chips}
        names = {event.lower(): event for event in events}
        wanted = set()
        for place in self.places:
            name = self.renamed.get(place.lower(), place.lower())
            if name not in names:
                raise FloraError(
                    f"{self.name}: no place {place!r} in {', '.join(self.parts)}; choose "
                    f"{', '.join(sorted(events))}"
                )
            wanted.add(names[name])
        return [chip for chip in chips if chip.path.name.split("_")[0] in wanted]


class Sen12MSSource(Source):
    """SEN12MS on its university's FTP server: three archives a season.

    The server gives sizes. The MD5 sums are those that torchgeo (MIT licence) records for these
    files and for the split lists, at a fixed commit of the authors' repository.

    Args:
        seasons: "spring", "summer", "fall", "winter"; empty takes all.
        ftp: Address of the server, user and password (both public) included.
        lists: Folder with the split lists.
        checksums: MD5 of every file, by name.

    Raises:
        FloraError: If a season is unknown.
    """

    name = "sen12ms"
    page = "https://mediatum.ub.tum.de/1474000"
    citation = Sen12MS.citation
    licence = "believed to be CC BY 4.0; its page has the last word"
    by_hand = (
        "FTP passes few proxies: open https://dataserv.ub.tum.de/s/m1474000 in a browser, put the "
        "archives ROIs..._s1.tar.gz, _s2 and _lc of the season into ROOT as they are, and run this "
        "command again: it verifies and unpacks them"
    )
    note = "A season is 100 GB or more when unpacked. There is no flood in it."
    connections = 2
    folders: ClassVar[Mapping[str, str]] = {
        "spring": "ROIs1158_spring",
        "summer": "ROIs1868_summer",
        "fall": "ROIs1970_fall",
        "winter": "ROIs2017_winter",
    }
    # Unpacked size over archive size: measured with gzip on one patch of Sentinel-1 and -2,
    # and rounded up; land cover is a few large blocks, and its figure a guess.
    growth: ClassVar[Mapping[str, float]] = {"s1": 1.3, "s2": 1.6, "lc": 50.0}
    checksums: ClassVar[Mapping[str, str]] = {
        "ROIs1158_spring_lc.tar.gz": "6e2e8fa8b8cba77ddab49fd20ff5c37b",
        "ROIs1158_spring_s1.tar.gz": "fba019bb27a08c1db96b31f718c34d79",
        "ROIs1158_spring_s2.tar.gz": "d58af2c15a16f376eb3308dc9b685af2",
        "ROIs1868_summer_lc.tar.gz": "2c5bd80244440b6f9d54957c6b1f23d4",
        "ROIs1868_summer_s1.tar.gz": "01044b7f58d33570c6b57fec28a3d449",
        "ROIs1868_summer_s2.tar.gz": "4dbaf72ecb704a4794036fe691427ff3",
        "ROIs1970_fall_lc.tar.gz": "9b126a68b0e3af260071b3139cb57cee",
        "ROIs1970_fall_s1.tar.gz": "19132e0aab9d4d6862fd42e8e6760847",
        "ROIs1970_fall_s2.tar.gz": "b8f117818878da86b5f5e06400eb1866",
        "ROIs2017_winter_lc.tar.gz": "0fa0420ef7bcfe4387c7e6fe226dc728",
        "ROIs2017_winter_s1.tar.gz": "bb8cbfc16b95a4f054a3d5380e0130ed",
        "ROIs2017_winter_s2.tar.gz": "3807545661288dcca312c9c538537b63",
        "train_list.txt": "0a68d4e1eb24f128fccdb930000b2546",
        "test_list.txt": "c7faad064001e646445c4c634169484d",
    }

    def __init__(
        self,
        seasons: Sequence[str] = (),
        ftp: str = "ftp://m1474000:m1474000@dataserv.ub.tum.de",
        lists: str = (
            "https://raw.githubusercontent.com/schmitt-muc/SEN12MS/"
            "3a41236a28d08d253ebe2fa1a081e5e32aa7eab4/splits"
        ),
        checksums: Mapping[str, str] | None = None,
    ) -> None:
        unknown = sorted(set(seasons) - set(self.folders))
        if unknown:
            raise FloraError(
                f"{self.name}: no season {unknown[0]!r}; choose {', '.join(self.folders)}"
            )
        self.seasons = tuple(dict.fromkeys(seasons)) or tuple(self.folders)
        self.ftp = ftp
        self.lists = lists
        self._md5 = self.checksums if checksums is None else checksums

    def items(self, transfer: Transfer, root: Path) -> list[Item]:
        """See `Source.items`; the FTP server is asked only about archives not there yet."""
        items = []
        for name in ("train_list.txt", "test_list.txt"):
            checksum = Checksum("md5", self._md5[name])
            remote = Remote(f"{self.lists}/{name}", PurePosixPath(name), None, checksum)
            items.append(Item(remote))
        for season in self.seasons:
            for layer, growth in self.growth.items():
                folder = self.folders[season]
                name = f"{folder}_{layer}.tar.gz"
                url = f"{self.ftp}/{name}"
                if (root / name).is_file():
                    size: int | None = (root / name).stat().st_size
                elif unpacked_before(name, root, Unpacking(0)):
                    size = None
                else:
                    size = transfer.size(url)
                checksum = Checksum("md5", self._md5[name])
                unpacking = Unpacking(
                    estimate=int((size or 0) * growth),
                    layout=f"{layer}_*/{folder}_{layer}_*_p*.tif",
                )
                items.append(Item(Remote(url, PurePosixPath(name), size, checksum), unpacking))
        return items


class DeepFloodSource(Source):
    """DeepFlood on figshare, whose interface lists size and MD5 of every file.

    Args:
        api: Address of figshare's interface, version 2.
    """

    name = "deepflood"
    page = "https://doi.org/10.6084/m9.figshare.26791243"
    citation = DeepFlood.citation
    by_hand = (
        "open https://doi.org/10.6084/m9.figshare.26791243 in a browser, download its files into "
        "ROOT as they are and run this command again: it verifies and unpacks them. Without any "
        "connection, unpack them yourself"
    )
    note = "Nobody of this library could see a file of it yet: its layout is as published."
    article: ClassVar[int] = 26791243

    def __init__(self, api: str = "https://api.figshare.com/v2") -> None:
        self.api = api
        self.licence = "see its page"

    def items(self, transfer: Transfer, root: Path) -> list[Item]:
        """See `Source.items`; `licence` becomes what figshare states."""
        address = f"{self.api}/articles/{self.article}"
        stated = transfer.json(address).get("license") or {}
        self.licence = " ".join(str(stated[key]) for key in ("name", "url") if stated.get(key))
        self.licence = self.licence or "none stated on its page"
        entries: list[Any] = []
        # The article itself names only its first files; the list comes in pages.
        for number in range(1, 1000):
            parameters = {"page": str(number), "page_size": "100"}
            page = transfer.json(f"{address}/files", list, parameters)
            if not page:
                break
            entries += page
        if not entries:
            raise FloraError(f"{self.name}: figshare lists no file: see {self.page}")
        return [self._item(entry) for entry in entries]

    def _item(self, entry: Any) -> Item:
        name = _field(entry, "name", str, self.page)
        if entry.get("is_link_only"):
            raise FloraError(
                f"{self.name}: {name} is not on figshare, only linked there: download it by hand "
                f"from {entry.get('download_url') or self.page}"
            )
        size = _field(entry, "size", int, self.page)
        md5 = entry.get("computed_md5") or entry.get("supplied_md5")
        remote = Remote(
            url=_field(entry, "download_url", str, self.page),
            path=relative_path(name, self.api),
            size=size,
            checksum=Checksum("md5", md5) if md5 else None,
        )
        # Pictures hardly compress: a tenth more than the archive is an estimate, not a bound.
        return Item(remote, Unpacking(estimate=int(size * 1.1)) if is_archive(name) else None)


class OmbriaSource(Source):
    """OMBRIA in its authors' GitHub repository, at a fixed commit.

    The pictures come as one archive of the commit; each is then verified against the SHA-1 by
    which git itself identifies it.

    Args:
        api: Address of the repository in GitHub's interface.
        archives: Address of its zip archives.
    """

    name = "ombria"
    page = "https://github.com/geodrak/OMBRIA"
    citation = Ombria.citation
    licence = "none stated: for your own use, not to be passed on"
    by_hand = (
        "download https://github.com/geodrak/OMBRIA/archive/38a4903.zip with a browser and unpack "
        "it so that ROOT holds OmbriaS1, OmbriaS2 and 2021"
    )
    connections = 1
    commit: ClassVar[str] = "38a4903"
    folders: ClassVar[tuple[str, ...]] = ("OmbriaS1", "OmbriaS2", "2021")

    def __init__(
        self,
        api: str = "https://api.github.com/repos/geodrak/OMBRIA",
        archives: str = "https://codeload.github.com/geodrak/OMBRIA/zip",
    ) -> None:
        self.api = api
        self.archives = archives

    def items(self, transfer: Transfer, root: Path) -> list[Item]:
        """See `Source.items`."""
        commit = transfer.json(f"{self.api}/commits/{self.commit}")
        identity = _field(commit, "sha", str, self.page)
        if not identity.startswith(self.commit):
            raise BadFile(f"{self.api} gives commit {identity} where {self.commit} was asked for")
        listing = transfer.json(f"{self.api}/git/trees/{identity}", parameters={"recursive": "1"})
        members = {
            relative_path(entry["path"], self.api): Member(
                _field(entry, "size", int, self.page),
                Checksum("git", _field(entry, "sha", str, self.page)),
            )
            for entry in _field(listing, "tree", list, self.page)
            if entry.get("type") == "blob"
            and str(entry.get("path")).split("/")[0] in self.folders
            and str(entry.get("path")).endswith(".png")
        }
        if not members or listing.get("truncated"):
            raise FloraError(
                f"{self.name}: GitHub lists {len(members)} pictures"
                f"{' and leaves some out' if listing.get('truncated') else ''}: {self.by_hand}"
            )
        unpacking = Unpacking(sum(m.size for m in members.values()), strip=1, members=members)
        name = PurePosixPath(f"OMBRIA-{self.commit}.zip")
        return [Item(Remote(f"{self.archives}/{identity}", name), unpacking)]


def _field(entry: Any, key: str, kind: type[Any], page: str) -> Any:
    """A field of a publisher's listing, of the expected type."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise FloraError(
            f"a listing holds {key}={value!r} where {kind.__name__} was expected: the publisher "
            f"has changed its interface; download by hand from {page}, and report it"
        )
    return value
