"""What radar images of any number of dates say together: statistics that know no order.

A model that reads them takes one earlier date or twenty with the same weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flora.errors import FloraError
from flora.sensors import SENTINEL1, FloatArray, SarScaling

STATISTICS = ("mean", "spread", "minimum", "z-score", "image after")
"""What `season_statistics` gives, each for every band; the image of the flood comes last."""

# Standard deviation of the logarithm of speckle with 4.4 looks (IW GRD, product specification):
# 10 / ln 10 * sqrt(trigamma(4.4)), in dB. It is what one date says of the spread.
SPECKLE_DB = 2.19
# How many dates that prior knowledge is worth.
PRIOR_DATES = 3.0


def season_statistics(before: FloatArray, after: FloatArray) -> FloatArray:
    """Statistics of the dates before a flood, and how far the image of the flood lies off.

    For each band and pixel, over the n dates that measured it::

        mean, minimum
        spread^2 = (k s^2 + sum (x - mean)^2) / (k + n - 1)
        z-score  = (after - mean) / (spread sqrt(1 + 1 / n))

    with the spread s of speckle alone, 2.19 dB, weighed as k = 3 dates: one date
    gives s, and two dates that happen to agree give no enormous z-score. Such a prior for
    variances of few repeats is that of Smyth (2004), with a set in place of an estimated one; the
    z-score over dates maps floods in DeVries et al. (2020).

    Args:
        before: (N, C, H, W) backscatter in dB, N >= 1, in any order; NaN where not measured.
        after: (C, H, W), the same of the flood.

    Returns:
        (5 C, H, W) float32: the means of all bands, then their spreads, minima and z-scores, last
        the image of the flood; NaN where it, or every date before it, was not measured.

    Raises:
        FloraError: If there is no date before, or shapes differ.

    Example:
        >>> import numpy as np
        >>> from flora.season import season_statistics
        >>> before = np.array([-8.0, -10.0, -9.0], dtype=np.float32).reshape(3, 1, 1, 1)
        >>> after = np.full((1, 1, 1), -19.0, dtype=np.float32)
        >>> print(*(f"{value:.2f}" for value in season_statistics(before, after).ravel()))
        -9.00 1.81 -10.00 -4.78 -19.00
    """
    if before.ndim != 4 or before.shape[0] < 1 or before.shape[1:] != after.shape:
        raise FloraError(
            f"expected (dates, bands, rows, columns) with one date or more and {after.shape} each",
            argument="before",
            value=before.shape,
        )
    seen = np.isfinite(before)
    count = seen.sum(axis=0, dtype=np.float32)
    known = np.maximum(count, 1.0)
    mean = np.where(seen, before, 0.0).sum(axis=0, dtype=np.float32) / known
    squares = np.square(np.where(seen, before - mean, 0.0)).sum(axis=0, dtype=np.float32)
    spread = np.sqrt((PRIOR_DATES * SPECKLE_DB**2 + squares) / (PRIOR_DATES + known - 1.0))
    minimum = np.where(seen, before, np.inf).min(axis=0)
    z_score = (after - mean) / (spread * np.sqrt(1.0 + 1.0 / known))
    stacked = np.concatenate([mean, spread, minimum, z_score, after])
    measured = ((count > 0) & np.isfinite(after)).all(axis=0)
    return np.where(measured, stacked, np.nan).astype(np.float32)


def season_scaling(scaling: SarScaling) -> SarScaling:
    """How `season_statistics` of a sensor's images are put on the model's scale.

    Args:
        scaling: That of one image, in dB.

    Example:
        >>> from flora.season import season_scaling
        >>> from flora.sensors import SENTINEL1
        >>> scaling = season_scaling(SENTINEL1)
        >>> scaling.mean[:2] == SENTINEL1.mean, len(scaling.bands)
        (True, 10)
    """
    bands = len(scaling.bands)
    return replace(
        scaling,
        name=f"{scaling.name}, statistics of dates",
        bands=scaling.bands * len(STATISTICS),
        mean=scaling.mean + (SPECKLE_DB,) * bands + scaling.mean + (0.0,) * bands + scaling.mean,
        std=scaling.std + (1.0,) * bands + scaling.std + (3.0,) * bands + scaling.std,
    )


SENTINEL1_SEASON = season_scaling(SENTINEL1)
