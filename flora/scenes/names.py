"""What the names of radar files and bands say: polarisation and quantity."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from datetime import date
from pathlib import Path

from flora.errors import FloraError, FloraWarning
from flora.grid import open_raster

POLARISATIONS = frozenset({"VV", "VH", "HH", "HV"})
IW_INCIDENCE = (29.1, 46.0)  # degrees, interferometric wide swath: near and far range
MIDDLE_INCIDENCE = 38.8  # degrees: `incidenceAngleMidSwath` of products
INCIDENCE_LIMITS = (15.0, 60.0)  # degrees: of all modes of Sentinel-1, and some more

# Tags of fetched files, of maps that were made of another quantity, and of a sample of pixels.
BACKSCATTER_TAG, INCIDENCE_TAG = "FLORA_BACKSCATTER", "FLORA_INCIDENCE_DEGREES"
SIGMA0_TAG = "FLORA_SIGMA0_FROM"
PIXELS_TAG = "FLORA_PIXELS_SHA256"

# Sigma0 divided by each, from the incidence angle.
SIGMA0_OF = {"gamma0": math.cos, "beta0": math.sin}

# ASF's terrain-corrected products say in one word what they hold: gamma0 or sigma0; power, dB or
# amplitude; then masking, filtering, extent and matching.
HYP3_WORD = re.compile(r"(?P<quantity>[gs])(?P<scale>[pda])[uw][nf][ec][dm]")


# A day of this century, as the names of products and of most people's files write it.
DATE_IN_NAME = re.compile(r"(?<!\d)(20\d\d)-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])(?!\d)")
FIRST_YEAR = 2014  # of Sentinel-1


def date_in_name(path: Path) -> date | None:
    """The first date in a file's name, as of every Sentinel-1 product; else None.

    Example:
        >>> from pathlib import Path
        >>> from flora.scenes.names import date_in_name
        >>> date_in_name(Path("S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812.SAFE"))
        datetime.date(2018, 7, 16)
        >>> date_in_name(Path("tile_20180231.tif")) is None  # no such day
        True
    """
    for year, month, day in DATE_IN_NAME.findall(path.name):
        with contextlib.suppress(ValueError):
            found = date(int(year), int(month), int(day))
            if found.year >= FIRST_YEAR:
                return found
    return None


def polarisation(text: str) -> str | None:
    """The one polarisation that a band's description or a file's name holds as a word, or None."""
    words = {word for word in re.split(r"[^A-Z0-9]+", text.upper()) if word in POLARISATIONS}
    return words.pop() if len(words) == 1 else None


def bands_by_name(path: Path, wanted: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers of the wanted bands in one file: by their descriptions, else in order.

    Raises:
        FloraError: If there are too few or too many, or they are described as something else.
    """
    with open_raster(path, "sar_path") as dataset:
        names = [polarisation(text or "") for text in dataset.descriptions]
    unique = POLARISATIONS.issuperset(wanted) and len(set(wanted)) == len(wanted)
    if unique and all(names.count(band) == 1 for band in wanted):
        return tuple(names.index(band) + 1 for band in wanted)
    if len(names) != len(wanted):
        raise FloraError(
            f"{len(names)} bands, expected {len(wanted)} in the order {', '.join(wanted)}",
            argument="sar_path",
            value=path,
            remedy="name both one-band files, as {sar_path}, or stack them into one file "
            "(gdalbuildvrt -separate)",
            sar_path=tuple(f"{band}.tif" for band in wanted),
        )
    if unique and any(name not in (None, band) for name, band in zip(names, wanted, strict=True)):
        raise FloraError(
            f"its bands are described as {', '.join(map(str, names))}, expected "
            f"{', '.join(wanted)}",
            argument="sar_path",
            value=path,
            remedy="choose another scene, or correct the descriptions",
        )
    return tuple(range(1, len(wanted) + 1))


def in_order(paths: tuple[Path, ...], wanted: tuple[str, ...]) -> list[Path]:
    """One-band files in the order of the bands: by description or file name, else as given.

    Raises:
        FloraError: If a file has more bands, or polarisations are not clear.
    """
    found: list[str | None] = []
    for path in paths:
        with open_raster(path, "sar_path") as dataset:
            if dataset.count != 1:
                raise FloraError(
                    f"{dataset.count} bands in one of {len(paths)} files, expected one band in "
                    "each",
                    argument="sar_path",
                    value=path,
                    remedy="name one file, or one for each polarisation",
                )
            described = polarisation(dataset.descriptions[0] or "")
        named = polarisation(path.name)
        if described and named and described != named:
            raise FloraError(
                f"{named} in its name, {described} in its band's description: expected one "
                "polarisation",
                argument="sar_path",
                value=path,
                remedy="correct the one that is wrong",
            )
        found.append(described or named)
    _check_dates(paths)
    if not any(found):
        return list(paths)
    if sorted(map(str, found)) != sorted(wanted):
        said = ", ".join(f"{path.name}: {band}" for path, band in zip(paths, found, strict=True))
        raise FloraError(
            f"polarisations are not clear ({said}), expected one file for each of "
            f"{', '.join(wanted)}",
            argument="sar_path",
            remedy="put them into the names (_VV.tif, _VH.tif)",
        )
    return [paths[found.index(band)] for band in wanted]


def _check_dates(paths: tuple[Path, ...]) -> None:
    """Warn of files that are of different days by their names."""
    days = [date_in_name(path) for path in paths]
    if None not in days and len(set(days)) > 1:
        said = ", ".join(f"{path.name}: {day}" for path, day in zip(paths, days, strict=True))
        warnings.warn(
            FloraWarning(
                f"polarisations of different days ({said}), expected one pass",
                argument="sar_path",
                remedy="take both from one product",
            ),
            stacklevel=5,
        )


def sigma0_share(
    paths: tuple[Path, ...], incidence: float | None = None
) -> tuple[float, dict[str, str]]:
    """What turns the power in files into sigma0, and the tags that say so; 1 where it is sigma0.

    sigma0 = gamma0 cos(incidence angle) = beta0 sin(incidence angle), on level ground, where the
    name of a file or of its bands, or the tags of a fetched one, say gamma0 or beta0.

    Args:
        paths: Files of a scene.
        incidence: Angle in degrees, 0 to leave values as they are; default is that in a file's
            tags, else that of the middle of the swath, and a `FloraWarning` says by how much it
            may be wrong.

    Raises:
        FloraError: If a name says amplitude, or no radar looks at that angle.
    """
    low, high = INCIDENCE_LIMITS
    if incidence and not low <= incidence <= high:
        raise FloraError(
            f"expected {low:g} to {high:g} degrees from the vertical, or 0 to leave values as they "
            "are",
            argument="incidence",
            value=incidence,
        )
    for path in paths:
        _refuse_amplitude(path)
    found = next(((path, what) for path in paths if (what := _quantity(path))), None)
    if found is None or incidence == 0:
        return 1.0, {}
    path, what = found
    tagged = _tags(path).get(INCIDENCE_TAG)
    angle = incidence or (float(tagged) if tagged else MIDDLE_INCIDENCE)
    share = SIGMA0_OF[what]
    if incidence is None and tagged is None:
        near, far = (
            10 * math.log10(share(math.radians(angle)) / share(math.radians(at)))
            for at in IW_INCIDENCE
        )
        warnings.warn(
            FloraWarning(
                f"{what}, as its name says, read as sigma0 = {what} {share.__name__}({angle:g} "
                f"degrees), the middle of the swath: {near:+.1f} dB off in near range, {far:+.1f} "
                "dB in far range",
                argument="sar_path",
                value=path,
                remedy="pass the angle of incidence at the place if you know it, {incidence}",
                incidence=round(angle, 1),
            ),
            stacklevel=4,
        )
    return share(math.radians(angle)), {SIGMA0_TAG: f"{what} at {angle:.1f} degrees"}


def _refuse_amplitude(path: Path) -> None:
    words = _words(path.name)
    said = next((match for word in words if (match := HYP3_WORD.fullmatch(word))), None)
    described = _described(path)
    amplitude = said[0] if said and said["scale"] == "a" else ""
    if not amplitude and any("amplitude" in _words(text) for text in described):
        amplitude = ", ".join(described)
    if amplitude:
        raise FloraError(
            f"amplitude, as its name says ({amplitude}), expected power or dB",
            argument="sar_path",
            value=path,
            remedy="square it and pass {units}, or order the product in power",
            units="linear",
        )


def _quantity(path: Path) -> str:
    """What a file holds by its tags, its bands' descriptions or its name; "" for sigma0."""
    inside = [word for text in _described(path) for word in _words(text)]
    tagged = _words(_tags(path).get(BACKSCATTER_TAG, ""))
    for words in (tagged, inside, _words(path.name)):
        if any(word.startswith("beta") for word in words):
            return "beta0"
        if any(word.startswith("gamma") for word in words):
            return "gamma0"
        if any(word.startswith("sigma") for word in words):
            return ""
    said = next((match for word in words if (match := HYP3_WORD.fullmatch(word))), None)
    if said is not None:
        return "" if said["quantity"] == "s" else "gamma0"
    return "gamma0" if any(word.startswith("rtc") for word in words) else ""


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]


def _described(path: Path) -> list[str]:
    with open_raster(path, "sar_path") as dataset:
        return [text for text in dataset.descriptions if text]


def _tags(path: Path) -> dict[str, str]:
    with open_raster(path, "sar_path") as dataset:
        return dict(dataset.tags())
