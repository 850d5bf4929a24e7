"""Offsets between radar and optical images, on fields drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flora.errors import FloraError
from flora.scenes.align import find_offset


def fields(seed: int = 0) -> np.ndarray:
    """(128, 128) of fields 8 px wide, each of one value in [0, 1]."""
    return np.kron(np.random.default_rng(seed).random((16, 16)), np.ones((8, 8)))


def radar(ground: np.ndarray) -> np.ndarray:
    """VV and VH of a ground, dark where it is bright, under speckle of four looks."""
    speckle = np.random.default_rng(9).gamma(4.0, 0.25, (2, *ground.shape))
    return -15.0 - 10.0 * ground + 10.0 * np.log10(speckle)


def moved(ground: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The ground as an image that lies `rows` down and `columns` to the right; NaN beside it."""
    image = np.full(ground.shape, np.nan)
    height, width = ground.shape
    image[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = ground[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return image[None]


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (5, -3), (-8, 0), (0, 11), (-16, 16)])
def test_a_known_offset_is_found(rows: int, columns: int):
    found = find_offset(radar(fields()), moved(fields(), rows, columns))
    assert found is not None
    assert (found.rows, found.columns) == (rows, columns)


def test_brightness_does_not_matter():
    ground = fields()
    stretched = 3000.0 * (1.0 - ground) + 200.0
    found = find_offset(radar(ground), moved(stretched, 4, 2))
    assert found is not None and found[:2] == (4, 2)


@pytest.mark.parametrize("other", [fields(1), np.zeros((128, 128))], ids=["elsewhere", "blank"])
def test_no_guess_where_the_images_share_no_edge(other: np.ndarray):
    assert find_offset(radar(fields()), other[None]) is None


def test_no_guess_from_a_sliver():
    optical = moved(fields(), 0, 0)
    assert find_offset(radar(fields()), optical) is not None
    optical[:, :, 16:] = np.nan
    assert find_offset(radar(fields()), optical) is None


def test_cloud_leaves_enough_to_tell():
    optical = moved(fields(), -3, 6)
    optical[:, 20:70, 10:90] = np.nan
    found = find_offset(radar(fields()), optical)
    assert found is not None and found[:2] == (-3, 6)


def test_other_sizes_are_refused():
    with pytest.raises(FloraError, match="128 x 128"):
        find_offset(radar(fields()), np.zeros((1, 64, 128)))
    with pytest.raises(FloraError, match="64 px or more"):
        find_offset(radar(fields())[:, :32], np.zeros((1, 32, 128)))
