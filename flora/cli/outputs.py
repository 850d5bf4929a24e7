"""Files that a command writes, refused before anything is computed where they are in the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flora.errors import NAME_ALONE, FloraError, Given


def check_outputs(outputs: Iterable[Given], inputs: Iterable[Given]) -> None:
    """Refuse to write where a folder, an input or another output is, even if it may be replaced.

    Args:
        outputs: Files that are to be written, with the arguments that lead to their names.
        inputs: Files and folders that are read; None as value is left out.

    Raises:
        FloraError: If an output is one of them.

    Example:
        >>> from flora.cli.outputs import check_outputs
        >>> from flora.errors import FloraError, Given
        >>> try:
        ...     check_outputs([Given("html", "S1.tif")], [Given("sar_path", "S1.tif")])
        ... except FloraError as error:
        ...     print(error)
        html S1.tif: would replace what sar_path names; choose another name
    """
    taken = {_place(given.value): given.argument for given in inputs if given.value is not None}
    for output in outputs:
        path = Path(str(output.value))
        if path.is_dir():
            raise FloraError(
                "is a folder, expected the name of a file",
                argument=output,
                remedy="choose another name",
            )
        for place in (path, *path.absolute().parents):
            if _place(place) in taken:
                other = taken[_place(place)]
                raise FloraError(
                    f"would replace what {{{other}}} names",
                    argument=output,
                    remedy="choose another name",
                    **{other: NAME_ALONE},
                )
        taken[_place(path)] = output.argument


def _place(path: object) -> object:
    """The same for two paths of one file or folder, whichever links lead there."""
    resolved = Path(str(path)).resolve()
    if not resolved.exists():
        return resolved
    status = resolved.stat()
    return status.st_dev, status.st_ino
