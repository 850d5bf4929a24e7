"""Packages of the npm registry, pinned by hash, fetched by the npm client into `_build/npm`."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / "_build" / "npm"


class NpmError(Exception):
    """A package cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Package:
    """One published package.

    Attributes:
        name: Its name in the registry.
        version: The one version that is used.
        integrity: SHA-512 of its archive, as the registry states it.
        parts: What a page loads of it: files and folders, by their path in the package.
    """

    name: str
    version: str
    integrity: str
    parts: tuple[str, ...]


PACKAGES = {
    package.name: package
    for package in (
        Package(
            "mathjax",
            "3.2.2",
            "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
            (
                "es5/tex-mml-chtml.js",
                "es5/output/chtml/fonts/woff-v2",
                "es5/input/tex/extensions",  # loaded when a formula uses one
                "es5/a11y",  # formulas read aloud, and explored by keyboard
                "es5/sre",
            ),
        ),
        Package(
            "requirejs",
            "2.3.8",
            "sha512-7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
            ("require.js",),
        ),
        Package(
            "@jupyter-widgets/html-manager",
            "1.0.15",
            "sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
            ("dist/embed-amd.js",),
        ),
        Package(
            "jupyter-leaflet",
            "0.20.0",
            "sha512-qyJIG2s7g49lQ4aIt5+tavGNwEHojmOhDjQ7OXY/GC/7+phhgvjIi/p3PheFhBlPdVn0mmrT2PIBhA1Lald91g==",
            ("dist",),
        ),
        # Not for pages: what tests/book/test_pages.py checks their accessibility with.
        Package(
            "axe-core",
            "4.14.1",
            "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
            ("axe.min.js",),
        ),
    )
}


def unpacked(package: Package) -> Path:
    """The folder with the package's files; fetched once, then taken from `_build/npm`.

    Raises:
        NpmError: If npm is missing, the registry cannot be reached, or the archive is not the
            one whose hash is pinned.
    """
    # The hash is in the folder's name, so what lies there is what was checked.
    digest = hashlib.sha256(package.integrity.encode()).hexdigest()[:12]
    folder = CACHE / f"{package.name.replace('/', '-')}-{package.version}-{digest}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            archive = _pack(package, Path(temporary))
            _check(package, archive.read_bytes())
            with tarfile.open(archive) as opened:
                opened.extractall(Path(temporary) / "files", filter="data")
            # npm's archives hold one folder, `package`. A test run beside may have been faster.
            if not folder.is_dir():
                (Path(temporary) / "files" / "package").rename(folder)
    return folder


def _pack(package: Package, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise NpmError(
            "npm is not on PATH, and an offline book takes its scripts from it: install Node.js "
            "(apt install npm, brew install node), or build without OFFLINE=1"
        )
    command = [npm, "pack", f"{package.name}@{package.version}", "--silent", "--ignore-scripts"]
    # In its own folder: npm would read a package.json or .npmrc of the one it runs in.
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tgz"))
    if finished.returncode != 0 or len(archives) != 1:
        raise NpmError(
            f"npm pack {package.name}@{package.version} failed; is there a connection to the "
            f"registry?\n{finished.stderr[-1000:]}"
        )
    return archives[0]


def _check(package: Package, archive: bytes) -> None:
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode("ascii")
    if found != package.integrity:
        raise NpmError(
            f"{package.name}@{package.version} has the hash {found}, and {package.integrity} is "
            "pinned in tools/npm.py: the registry or the way to it changed the package"
        )
