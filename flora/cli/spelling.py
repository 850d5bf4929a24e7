"""How the command line spells the library's messages."""

from __future__ import annotations

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
