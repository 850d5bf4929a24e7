"""How the command line spells the library's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flora.errors import NAME_ALONE, FloraError, FloraWarning

# Arguments that the command line calls otherwise than --kebab-case.
OPTIONS = {
    "address": "--dask",
    "before_path": "--before",
    "classes": "--out",
    "dates": "--date",
    "folder": "--out",
    "output": "--out",
    "output_folder": "--out",
    "path": "--html",
    "paths": "SAR",
    "probability": "--out",
    "trust": "--out",
    "remove_noise": "--keep-noise",
    "sar_path": "SAR",
    "water_mask": "--out",
}


def in_shell(name: str, value: Any) -> str:
    """An argument as the shell writes it; a truth value makes the bare flag.

    Example:
        >>> from flora.cli.spelling import in_shell
        >>> in_shell("units", "linear"), in_shell("overwrite", True), in_shell("sar_path", "a.tif")
        ('--units linear', '--overwrite', 'SAR a.tif')
        >>> in_shell("sar_path", ("VV.tif", "VH.tif"))
        'VV.tif --vh VH.tif'
    """
    option = OPTIONS.get(name) or f"--{name.replace('_', '-')}"
    if value is NAME_ALONE or isinstance(value, bool):
        return option
    if name == "sar_path" and isinstance(value, tuple):
        return " --vh ".join(value)
    return f"{option} {value}"


def in_one_line(message: Exception | str) -> str:
    """An error or a warning in the words of the command line, its notes after it.

    Example:
        >>> from flora import FloraError
        >>> from flora.cli.spelling import in_one_line
        >>> error = FloraError("values are negative", argument="sar_path", value="a.tif",
        ...                    remedy="pass {units}, or {overwrite}", units="db", overwrite=True)
        >>> in_one_line(error)
        'SAR a.tif: values are negative; pass --units db, or --overwrite'
    """
    text = str(message)
    if isinstance(message, FloraError | FloraWarning):
        text = message.spelled(in_shell)
    return "; ".join((text, *getattr(message, "__notes__", ())))


def area_words(pixels: int, km2: float | None) -> str:
    """An area in km2, or in pixels where nothing says how large these are."""
    return f"{pixels} px" if km2 is None else f"{km2:.4g} km2"


def offset_words(tags: Mapping[str, str]) -> str:
    """How the image from before the flood lies on the radar, of the tags of a map.

    Example:
        >>> from flora.cli.spelling import offset_words
        >>> tags = {"ROWS": "0", "COLUMNS": "-3", "CONFIDENCE": "9.1"}
        >>> tags = {f"FLORA_BEFORE_OFFSET_{name}": value for name, value in tags.items()}
        >>> offset_words(tags | {"FLORA_BEFORE_ALIGNED": "yes"})
        'Image from before: 0 px down, 3 px left of the radar (peak 9.1, clear from 6); moved back'
    """
    from flora.scenes.align import LEAST_CONFIDENCE
    from flora.scenes.before import ALIGNED_TAG, OFFSET_TAGS

    if OFFSET_TAGS[0] not in tags:
        return "Image from before: too little is seen to tell how it lies on the radar"
    rows, columns, confidence = (float(tags[tag]) for tag in OFFSET_TAGS)
    lies = f"{abs(rows):g} px {'up' if rows < 0 else 'down'}"
    lies += f", {abs(columns):g} px {'left' if columns < 0 else 'right'} of the radar"
    peak = f"peak {confidence:g}, clear from {LEAST_CONFIDENCE:g}"
    done = "moved back" if tags[ALIGNED_TAG] == "yes" else "left as it is"
    return f"Image from before: {lies} ({peak}); {done}"
