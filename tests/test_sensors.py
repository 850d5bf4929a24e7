from __future__ import annotations

import numpy as np
import pytest

from flora.errors import FloraError
from flora.sensors import (
    OMBRIA_S1,
    SENTINEL1,
    SENTINEL2_BANDS,
    SENTINEL2_RGB,
    normalised_difference,
)

VALID = np.ones((1, 2), bool)


def test_mean_and_spread_become_zero_and_one():
    values = np.array([[[-12.5, -7.5]], [[-20.0, -26.0]]], np.float32)
    scaled = SENTINEL1.normalise(values, VALID)
    np.testing.assert_allclose(scaled, [[[0, 1]], [[0, -1]]], atol=1e-6)
    assert scaled.dtype == np.float32


def test_same_backscatter_gives_same_input_whatever_else_is_in_the_chip():
    alone = np.full((2, 1, 2), -18.0, np.float32)
    beside_a_city = alone.copy()
    beside_a_city[:, 0, 1] = 10.0
    first, second = (SENTINEL1.normalise(chip, VALID) for chip in (alone, beside_a_city))
    assert (first[:, 0, 1] != second[:, 0, 1]).all()
    np.testing.assert_array_equal(first[:, 0, 0], second[:, 0, 0])


def test_nodata_becomes_the_mean_not_zero_decibel():
    values = np.array([[[np.nan, 0.0]], [[np.nan, 0.0]]], np.float32)
    scaled = SENTINEL1.normalise(values, np.array([[False, True]]))
    np.testing.assert_array_equal(scaled[:, 0, 0], 0)
    assert (scaled[:, 0, 1] > 2).all()


def test_restore_inverts_normalise_inside_the_clip_and_clips_outside():
    values = np.array([[[-30.0, 40.0]], [[-45.0, -90.0]]], np.float32)
    restored = SENTINEL1.restore(SENTINEL1.normalise(values, VALID))
    np.testing.assert_allclose(restored, [[[-30, 15]], [[-45, -50]]], atol=1e-4)


def test_dark_water_stays_below_the_clip_of_the_usual_stretch():
    # VH over calm water lies below -25 dB; it must not be one value.
    values = np.array([[[-26.0, -32.0]], [[-26.0, -32.0]]], np.float32)
    scaled = SENTINEL1.normalise(values, VALID)
    assert (scaled[..., 0] > scaled[..., 1]).all()


def test_repeat_stacks_dates():
    twice = OMBRIA_S1.repeat(2)
    assert twice.bands == ("VV", "VV") and len(twice.mean) == len(twice.std) == 2
    with pytest.raises(FloraError, match="with 2 bands"):
        twice.normalise(np.zeros((1, 1, 2), np.float32), VALID)


def test_optical_is_in_zero_to_one_and_black_where_invalid():
    values = np.array([1500, 6000])[None, None].repeat(3, axis=0)
    image = SENTINEL2_RGB.normalise(values, VALID)
    np.testing.assert_allclose(image[:, 0], [[0.5, 1.0]] * 3)
    assert not SENTINEL2_RGB.normalise(values, ~VALID).any()
    assert SENTINEL2_RGB.scaling == "B4/B3/B2, stored value / 3000"


def test_band_order_of_level_1c():
    assert len(SENTINEL2_BANDS) == 13
    order = {"B2": 1, "B3": 2, "B4": 3, "B8": 7, "B8A": 8, "B10": 10, "B11": 11}
    assert {name: SENTINEL2_BANDS.index(name) for name in order} == order


def test_normalised_difference_by_hand():
    first = np.array([3.0, 0.0, 1.0, 0.0], np.float32)
    second = np.array([1.0, 2.0, 1.0, 0.0], np.float32)
    np.testing.assert_allclose(normalised_difference(first, second), [0.5, -1, 0, 0])
