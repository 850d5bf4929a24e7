"""Draw what `flora map --example` writes, for the page "Map your flood".

    python -m tools.example_picture

The picture is the quicklook of the command itself, made by the weights that come with the package.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from flora.cli.main import app
from flora.scenes.example import example_scene
from tools.build_book import ROOT

TARGET = ROOT / "book" / "images" / "example.webp"


def main() -> None:
    """Map the example, and keep its quicklook."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["map", "--example", "--out", folder, "--quiet"]
        app(command, standalone_mode=False)
        picture = Path(folder) / f"{example_scene().stem}_quicklook.png"
        Image.open(picture).convert("RGB").save(TARGET, quality=80, method=6)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
