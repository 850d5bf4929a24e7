"""Which chips of a split are on disk whole, and splits that hold out a place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from flora.errors import FloraError

HeldOutPart = Literal["train", "valid", "only"]

HELD_OUT = ("train-without-PLACE", "valid-without-PLACE", "only-PLACE")


class MissingFilesError(FloraError):
    """Files of a split are not there.

    Attributes:
        missing: The missing files of each incomplete chip.
        absent: The chips among them of which nothing is there.
    """

    def __init__(self, message: str, missing: dict[str, list[Path]], absent: set[str]) -> None:
        super().__init__(message)
        self.missing = missing
        self.absent = absent


class EmptySplitError(FloraError):
    """The folder holds no chip of a split."""


def complete_chips(
    missing: Mapping[str, Sequence[Path]], layers: int, where: str, require_all: bool | None = None
) -> list[str]:
    """The chips that are on disk whole; one that is half there is an error.

    Args:
        missing: The files that each chip lacks, none where it is whole.
        layers: Number of files of a whole chip.
        where: What the message calls the split, e.g. "sen1floods11, split 'test'".
        require_all: If true, a chip of which nothing is there is an error too; if false, it is
            left out. None where chips are known from their files alone, so that none is absent.

    Raises:
        MissingFilesError: See above.
        EmptySplitError: If no chip is left.
    """
    lacking = {chip: list(paths) for chip, paths in missing.items() if paths}
    absent = {chip for chip, paths in lacking.items() if len(paths) == layers}
    counted = {chip for chip in lacking if require_all or chip not in absent}
    lost = [path for chip, paths in lacking.items() if chip in counted for path in paths]
    if lost:
        whole = ", or pass require_all=False to use only the chips there"
        raise MissingFilesError(
            f"{where} of {len(missing)} chips: {lost[0]} is missing, one of {len(lost)} files; "
            f"complete the download{whole if require_all and absent else ''}",
            lacking,
            absent,
        )
    present = [chip for chip in missing if chip not in lacking]
    if not present:
        raise EmptySplitError(
            f"{where}: none of the {len(missing)} chips is there: download them or choose "
            "another split"
        )
    return present


def excluded(exclude: Sequence[str]) -> set[str]:
    """Ids to leave out; one id alone, as the command line gives it, is one id."""
    return {exclude} if isinstance(exclude, str) else set(exclude)


def held_out(split: str) -> tuple[HeldOutPart, str] | None:
    """What a split that holds out a place takes, and the place.

    ("train", "Spain") of "train-without-Spain", ("only", "Spain") of "only-Spain", else None.
    """
    match = re.fullmatch(r"(train|valid)-without-(.+)|(only)-(.+)", split)
    if match is None:
        return None
    return cast(HeldOutPart, match[1] or match[3]), match[2] or match[4]


def require_split(dataset: str, split: str, splits: Sequence[str], places: Sequence[str]) -> None:
    """Refuse a split that is neither one of `splits` nor holds out one of `places`.

    Raises:
        FloraError: See above.
    """
    part = held_out(split)
    if split in splits or (part is not None and part[1] in places):
        return
    raise FloraError(
        f"{dataset}: no split {split!r}; choose {', '.join((*splits, *HELD_OUT))}, where PLACE is "
        f"one of {', '.join(places)}"
    )
