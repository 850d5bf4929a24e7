"""What the weights that ship promise: an answer that depends on its neighbourhood only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flora.models.predict import predictor
from flora.models.weights import load_model
from flora.sensors import SENTINEL1, FloatArray
from flora.simulate.radar import speckle

SIDE, CENTRE, RADIUS = 512, 256, 40
LAND, LAKE = (-10.0, -16.0), (-17.0, -24.0)
SURROUNDINGS = {
    "calm sea": (-22.0, -28.0),
    "town": (-3.0, -10.0),
    "border of -100 dB": (-100.0, -100.0),
    "border of -35 dB": (-35.0, -35.0),
    "water": LAKE,
    "land": LAND,
}


def sigma0(level: tuple[float, float], seed: int) -> FloatArray:
    """A homogeneous surface (2, H, W) in dB, with the speckle of a ground range product."""
    rng = np.random.default_rng(seed)
    bands = [
        np.float32(decibel) + 10 * np.log10(speckle(rng, (SIDE, SIDE), 4.4, 1.2))
        for decibel in level
    ]
    return np.stack(bands).astype(np.float32)


def with_lake() -> FloatArray:
    rows, columns = np.mgrid[:SIDE, :SIDE] - CENTRE
    lake = rows**2 + columns**2 < RADIUS**2
    return np.where(lake, sigma0(LAKE, 1), sigma0(LAND, 2))


def found(image: FloatArray) -> np.ndarray:
    """Probability of water (H, W)."""
    valid = np.ones((SIDE, SIDE), dtype=np.bool_)
    sar = torch.from_numpy(SENTINEL1.normalise(image, valid))[None]
    predict = predictor(load_model())
    return predict(sar, torch.from_numpy(valid)[None], None).water[0, 0].numpy()


INSIDE = np.hypot(*(np.mgrid[:SIDE, :SIDE] - CENTRE)) < RADIUS - 4


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_lies_beyond_reach_changes_no_bit_of_a_lake(name):
    reach = load_model().config.reach
    margin = CENTRE - RADIUS - reach
    assert margin > 20
    image = with_lake()
    around = image.copy()
    other = sigma0(SURROUNDINGS[name], 3)
    far = np.ones((SIDE, SIDE), dtype=np.bool_)
    far[margin:-margin, margin:-margin] = False
    around[:, far] = other[:, far]
    assert np.array_equal(found(around)[INSIDE], found(image)[INSIDE])


@pytest.mark.parametrize("name", ["calm sea", "town", "border of -100 dB", "border of -35 dB"])
def test_a_lake_is_found_whatever_lies_beside_it(name):
    image = with_lake()
    shore = CENTRE + RADIUS + 30
    image[:, :, shore:] = sigma0(SURROUNDINGS[name], 3)[:, :, shore:]
    assert (found(image)[INSIDE] >= 0.5).mean() > 0.95


def test_land_alone_holds_no_water_and_water_alone_no_land():
    assert (found(sigma0(LAND, 5)) >= 0.5).mean() < 0.01
    assert (found(sigma0(LAKE, 5)) >= 0.5).mean() > 0.95
