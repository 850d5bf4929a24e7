from __future__ import annotations

import numpy as np
import pytest

from flora.errors import FloraError
from flora.season import (
    PRIOR_DATES,
    SENTINEL1_SEASON,
    SPECKLE_DB,
    STATISTICS,
    season_statistics,
)
from flora.sensors import SENTINEL1


def pixels(values, bands: int = 1) -> np.ndarray:
    """(N, C, 1, W) of N rows of W pixels, the same in all bands."""
    return np.repeat(np.asarray(values, dtype=np.float32)[:, None, None], bands, axis=1)


def statistics(before, after) -> dict[str, float]:
    values = season_statistics(pixels([[x] for x in before]), pixels([[after]])[0])
    return dict(zip(STATISTICS, values.ravel().tolist(), strict=True))


def test_values_worked_out_by_hand():
    found = statistics([-8.0, -12.0], -20.0)
    spread = np.sqrt((3 * 2.19**2 + 8) / 4)  # 8: twice 2 dB from the mean, squared
    assert found["mean"] == pytest.approx(-10.0)
    assert found["minimum"] == pytest.approx(-12.0)
    assert found["spread"] == pytest.approx(spread)
    assert found["z-score"] == pytest.approx(-10 / (spread * np.sqrt(1.5)))
    assert found["image after"] == -20.0


def test_one_date_has_the_spread_of_speckle_and_many_their_own():
    assert statistics([-9.0], -9.0)["spread"] == pytest.approx(SPECKLE_DB)
    values = np.random.default_rng(0).normal(-10.0, 5.0, 2000)
    assert statistics(values, -9.0)["spread"] == pytest.approx(5.0, abs=0.2)
    assert PRIOR_DATES < 10


def test_order_does_not_matter():
    rng = np.random.default_rng(1)
    before = rng.normal(-12.0, 3.0, (5, 2, 3, 4)).astype(np.float32)
    after = before[0] - 4
    shuffled = before[[3, 0, 4, 1, 2]]
    assert not np.array_equal(before, shuffled)
    np.testing.assert_allclose(
        season_statistics(before, after), season_statistics(shuffled, after), rtol=1e-5
    )


def test_a_date_that_lacks_a_pixel_leaves_it_to_the_others():
    before = pixels([[-8.0, -8.0, np.nan], [-12.0, np.nan, np.nan]], bands=2)
    after = pixels([[-9.0, -9.0, -9.0]], bands=2)[0]
    found = season_statistics(before, after)
    np.testing.assert_allclose(found[0, 0], [-10.0, -8.0, np.nan])
    alone = season_statistics(before[:1], after)
    np.testing.assert_array_equal(found[:, :, 1], alone[:, :, 1])
    assert np.isnan(found[:, :, 2]).all()  # no date measured it
    lacking = after.copy()
    lacking[1, 0, 0] = np.nan
    assert np.isnan(season_statistics(before, lacking)[:, :, 0]).all()


def test_channels_are_scaled_as_what_they_are():
    before, after = pixels([[-12.5], [-12.5]], bands=2), pixels([[-27.5]], bands=2)[0]
    before[:, 1], after[1] = -20.0, -20.0
    values = season_statistics(before, after)
    scaled = SENTINEL1_SEASON.normalise(values, np.full((1, 1), True)).ravel()
    assert len(SENTINEL1_SEASON.bands) == 10 == len(scaled)
    assert scaled[:2] == pytest.approx([0.0, 0.0])  # the mean is that of the sensor
    assert scaled[8:] == pytest.approx([-3.0, 0.0])
    assert SENTINEL1_SEASON.of_one_date().mean == SENTINEL1.mean
    assert SENTINEL1_SEASON.dates == len(STATISTICS)  # so that losses find the image after


@pytest.mark.parametrize("shape", [(0, 2, 4, 4), (2, 4, 4), (3, 1, 4, 4), (3, 2, 4, 5)])
def test_what_is_no_stack_of_dates_is_refused(shape):
    with pytest.raises(FloraError, match="dates, bands, rows, columns"):
        season_statistics(np.zeros(shape, np.float32), np.zeros((2, 4, 4), np.float32))
