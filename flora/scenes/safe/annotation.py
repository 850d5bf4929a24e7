"""What the annotation of a Sentinel-1 product says of its geometry.

Layout after the Sentinel-1 Product Specification (S1-RS-MDA-52-7441).
"""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from flora.errors import FloraError, Given
from flora.grid import unwrapped
from flora.scenes.viewing import Viewing


def viewing_of(annotation: bytes | None, source: Given) -> Viewing | None:
    """How a product was looked at; None where its annotation does not say.

    Args:
        annotation: Text of a product annotation.
        source: What messages call it.

    Raises:
        FloraError: If it is damaged.
    """
    if annotation is None:
        return None
    try:
        tree = ElementTree.fromstring(annotation)
        flight = tree.findtext(".//productInformation/pass", "").strip().lower()
        points = tree.findall(".//geolocationGridPoint")
        if flight not in ("ascending", "descending") or not points:
            return None
        names = ("line", "longitude", "latitude", "incidenceAngle")
        table = np.array([[float(point.findtext(name, "")) for name in names] for point in points])
        lines = len(np.unique(table[:, 0]))
        longitude, latitude, incidence = table[:, 1:].reshape(lines, -1, 3).transpose(2, 0, 1)
    except (ElementTree.ParseError, ValueError) as error:
        raise FloraError(
            f"damaged geolocation grid in its annotation ({error})",
            argument=source,
            remedy="unpack the product again",
        ) from error
    east = unwrapped(longitude.ravel()).reshape(longitude.shape)
    return Viewing(
        "ascending" if flight == "ascending" else "descending", east, latitude, incidence
    )
