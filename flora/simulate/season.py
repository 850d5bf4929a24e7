"""Earlier radar dates of a simulated place: what a season changes, and what it leaves.

Plants, soil moisture, wind and speckle differ by date. Ground and standing water are those before
the flood at all of them, and what land is dark as water (wet snow, smooth fields) stays so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from flora.simulate.radar import SarParameters

REPEAT_DAYS = 12  # of one Sentinel-1 satellite over a place, from one orbit


def another_day(rng: Generator, radar: SarParameters) -> SarParameters:
    """The same radar in other weather, at both dates: wind as drawn, soil as in the season.

    Soil moisture lies about that before the flood with a standard deviation of 0.2, set by eye:
    showers come and dry off between two passes.

    Args:
        rng: Source of randomness.
        radar: That of the scene.
    """
    wind = float(1.0 + rng.gamma(1.6, 1.4))
    moisture = float(np.clip(rng.normal(radar.moisture[0], 0.2), 0.0, 1.0))
    return replace(radar, wind=(wind, wind), moisture=(moisture, moisture))
