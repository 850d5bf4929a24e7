import numpy as np
import pytest

from flora.errors import FloraError
from flora.figures.features import FeatureColours, show_features
from flora.figures.plots import figure


def three_waves():
    """Five channels made of three independent waves of amplitudes 4, 2 and 1 (64 x 64 px)."""
    rows, columns = np.mgrid[:64, :64] * (2 * np.pi / 64)
    waves = np.stack([np.sin(rows), np.sin(columns), np.sin(rows) * np.sin(columns)])
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0]
    mixed = directions @ (waves * [[[4.0]], [[2.0]], [[1.0]]]).reshape(3, -1)
    return mixed.reshape(5, 64, 64) + 10.0, waves


def test_components_are_found_in_the_order_of_their_variance():
    features, waves = three_waves()
    colours = FeatureColours.fit(features)
    image = colours(features)
    for channel, wave in zip(image, waves, strict=True):
        inside = (channel > 0) & (channel < 1)  # percentiles cut the rest
        assert inside.mean() > 0.9
        assert abs(np.corrcoef(channel[inside], wave[inside])[0, 1]) > 0.999
    assert colours.explained == pytest.approx(1.0)
    assert colours.axes @ colours.axes.T == pytest.approx(np.eye(3), abs=1e-9)


def test_explained_is_the_share_of_variance():
    # Four independent channels of variances 4, 3, 2, 1: three of them hold 9 of 10.
    values = np.random.default_rng(0).normal(size=(256, 4))
    values = np.linalg.qr(np.column_stack([np.ones(256), values]))[0][:, 1:]  # each of mean 0
    features = (values * np.sqrt([4.0, 3.0, 2.0, 1.0])).T.reshape(4, 16, 16)
    assert FeatureColours.fit(features).explained == pytest.approx(0.9)


def test_the_same_colours_serve_other_features():
    features, _ = three_waves()
    colours = FeatureColours.fit(features)
    assert (colours(features[:, :5, :7]) == colours(features)[:, :5, :7]).all()
    moved = features + 3.0 * colours.axes[0][:, None, None]
    assert colours(moved)[0].mean() > colours(features)[0].mean() + 0.1
    # Fitted anew, a shift of all features changes nothing.
    assert FeatureColours.fit(moved)(moved) == pytest.approx(colours(features), abs=1e-6)


def test_what_is_not_valid_has_no_say():
    features, _ = three_waves()
    valid = np.ones((64, 64), dtype=bool)
    valid[:8] = False
    spoiled = features.copy()
    spoiled[:, :8] = 1e4
    assert (
        FeatureColours.fit(spoiled, valid).axes == FeatureColours.fit(features, valid).axes
    ).all()
    assert (FeatureColours.fit(spoiled).axes != FeatureColours.fit(features).axes).any()


def test_cells_are_drawn_as_squares_and_unseen_ones_left_out():
    features, _ = three_waves()
    valid = np.ones((64, 64), dtype=bool)
    valid[0, 0] = False
    _, axes = figure()
    show_features(axes[0, 0], features, valid=valid, title="level 1")
    drawn = axes[0, 0].images[-1]
    assert drawn.get_interpolation() == "nearest"
    alpha = np.asarray(drawn.get_array())[..., 3]
    assert (alpha[0, 0], alpha[1, 1]) == (0.0, 1.0)


def test_wrong_input_is_refused():
    features, _ = three_waves()
    with pytest.raises(FloraError, match=r"expected \(channels, rows, columns\)"):
        FeatureColours.fit(features[0])
    with pytest.raises(FloraError, match="three or more"):
        FeatureColours.fit(features, np.zeros((64, 64), dtype=bool))
    with pytest.raises(FloraError, match="found on 5"):
        FeatureColours.fit(features)(features[:4])
