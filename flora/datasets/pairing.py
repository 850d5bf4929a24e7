"""Which chips of a split are on disk whole, and splits that hold out a place."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast

from flora.errors import FloraError

# What the files of a chip are called after its name.
_LAYER_ENDS = re.compile(
    r"(?i)_(S1Hand|S2Hand|LabelHand|S1Weak|S2IndexLabelWeak|S1OtsuLabelWeak"
    r"|sar|s1|vv|vh|optical|s2|before|label)$"
)

HeldOutPart = Literal["train", "valid", "only"]
Name = TypeVar("Name", bound=str)

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


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """Files of a folder by name, without hidden ones: macOS puts one named `._NAME` beside each."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if not path.name.startswith("."))


def read_lines(path: Path) -> list[str]:
    """Lines of a list of files that are not empty: UTF-8, or UTF-16 as Windows writes it.

    Raises:
        FloraError: If it cannot be read, is in another encoding, or has no line.
    """
    try:
        stored = path.read_bytes()
        wide = stored[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = stored.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FloraError(
            f"cannot read the list {path} ({error}): expected a text file in UTF-8; save it as "
            "such, or download it again"
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise FloraError(f"the list {path} is empty: download it again")
    return lines


def how_to_exclude(path: Path) -> str:
    """What to pass to leave out the chip that a file belongs to.

    Example:
        >>> from pathlib import Path
        >>> from flora.datasets.pairing import how_to_exclude
        >>> how_to_exclude(Path("S1Hand/Spain_7370579_S1Hand.tif"))
        'exclude="Spain_7370579", on the command line --option exclude=Spain_7370579'
    """
    chip = re.sub(r"_(s1|s2|lc)(?=_\d+_p\d+$)", "", path.stem)
    chip = re.sub(_LAYER_ENDS, "", chip)
    return f'exclude="{chip}", on the command line --option exclude={chip}'


def several(names: Sequence[Name]) -> tuple[Name, ...]:
    """Names as they were given; one alone, as the command line gives it, is one name."""
    return (cast(Name, names),) if isinstance(names, str) else tuple(names)


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
