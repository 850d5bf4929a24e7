"""Likelihoods that come true, and intervals that hold as often as they promise."""

from __future__ import annotations

import numpy as np
import pytest

from flora.errors import FloraError
from flora.models.calibration import Calibration, conformal_quantile, fit_likelihood

HONEST = Calibration(wet=1, dry=1, shift=0, less=2, more=3, coverage=0.9)


def test_quantile_by_hand():
    scores = [0.3, 0.1, 0.2, 0.5, 0.4, 0.6, 0.9, 0.7, 0.8]  # nine: ranks of ten
    assert conformal_quantile(scores, 0.9) == 0.9
    assert conformal_quantile(scores, 0.8) == 0.8
    assert conformal_quantile(scores, 0.75) == 0.8  # the ceil(7.5)-th
    assert conformal_quantile([float(n) for n in range(1, 20)], 0.95) == 19


def test_too_few_scores_are_refused_with_how_many_would_do():
    with pytest.raises(FloraError, match="8 scenes, expected 9 or more"):
        conformal_quantile([0.0] * 8, 0.9)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_quantile_holds_for_the_next_score_as_often_as_it_promises(share):
    rng = np.random.default_rng(0)
    scores = rng.lognormal(size=(4000, 40))
    held = [one[-1] <= conformal_quantile(one[:-1].tolist(), share) for one in scores]
    assert share - 0.02 < np.mean(held) < share + 0.02 + 1 / 40


def test_honest_probabilities_stay_and_others_are_bent_back():
    rng = np.random.default_rng(0)
    truth = 1 / (1 + np.exp(-rng.normal(size=40_000, scale=2)))
    water = rng.random(truth.shape) < truth
    assert fit_likelihood(truth, water) == pytest.approx((1, 1, 0), abs=0.05)
    boast = 1 / (1 + np.exp(-(2 * np.log(truth / (1 - truth)) + 1)))  # twice as sure, and wet
    wet, dry, shift = fit_likelihood(boast, water)
    assert (wet, dry, shift) == pytest.approx((0.5, 0.5, -0.5), abs=0.06)
    bent = Calibration(wet, dry, shift, 0, 0, 0.9).likelihood(boast)
    assert np.abs(bent - truth).max() < 0.03


def test_likelihood_rises_with_the_probability_whatever_was_fitted():
    rng = np.random.default_rng(1)
    probability = rng.random(3000)
    fit = fit_likelihood(probability, rng.random(3000) < 1 - probability)  # a model that errs
    steps = np.linspace(0, 1, 1001)
    for parameters in (fit, (0.3, 2.0, 1.0), (0, 1, 0)):
        likely = Calibration(*parameters, 0, 0, 0.9).likelihood(steps)
        assert (np.diff(likely) >= 0).all() and likely.min() > 0 and likely.max() < 1
    assert np.isnan(HONEST.likelihood(np.array([np.nan]))).all()


def test_interval_is_of_areas_that_there_can_be():
    assert HONEST.interval(expected=10, doubtful=2, mapped=100)[:3] == (6, 10, 16)
    assert HONEST.interval(expected=1, doubtful=1, mapped=2)[:3] == (0, 1, 2)


@pytest.mark.parametrize(
    "wrong",
    [{"wet": -1}, {"dry": np.inf}, {"shift": np.nan}, {"less": -4}, {"coverage": 1}],
)
def test_what_is_no_calibration_is_refused(wrong):
    with pytest.raises(FloraError, match="fit it anew"):
        Calibration(**(vars(HONEST) | wrong))
