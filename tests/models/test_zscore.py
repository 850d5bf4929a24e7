from __future__ import annotations

import numpy as np
import pytest
import torch

from flora.errors import FloraError
from flora.models.zscore import z_score
from flora.season import SENTINEL1_SEASON, season_statistics


def asked(before: list[list[float]], after: list[float], **thresholds) -> list[bool]:
    """What is called water of pixels in a row, VV 7 dB above VH; dates before, then the flood."""
    vh = np.asarray([*before, after], dtype=np.float32)[:, None, None]  # (N + 1, 1, 1, W)
    dates = np.concatenate([vh + 7, vh], axis=1)
    values = season_statistics(dates[:-1], dates[-1])
    seen = np.full(values.shape[1:], True)
    sar = torch.from_numpy(SENTINEL1_SEASON.normalise(values, seen))[None]
    water = z_score(**thresholds, median=1)(sar, torch.from_numpy(seen)[None], None).water
    return (water.flatten() > 0.5).tolist()


def test_what_fell_and_what_was_dark_is_water():
    fields, flooded, river, risen = -15.0, -15.0, -25.0, -24.0
    before = [[fields, flooded, river, risen]] * 3
    assert asked(before, [-15.0, -24.0, -25.0, -14.0]) == [False, True, True, True]
    assert asked(before, [-15.0, -24.0, -25.0, -14.0], dark=-30.0) == [False, True, False, False]
    assert not any(asked(before, [-15.0, -24.0, -25.0, -14.0], dark=-30.0, fallen=-20.0))


def test_a_restless_field_must_fall_further():
    calm, restless = [-15.0, -15.0, -15.0, -15.0], [-10.0, -20.0, -10.0, -20.0]
    before = np.stack([calm, restless], axis=1).tolist()
    assert asked(before, [-18.0, -18.0], dark=-30.0) == [True, False]


def test_other_images_are_refused():
    with pytest.raises(FloraError, match="statistics of several dates"):
        z_score()(torch.zeros(1, 4, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool), None)
