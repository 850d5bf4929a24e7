"""Tables of losses and maps of gradients show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pytest

from flora import FloraError
from flora.figures import plots
from flora.figures.training import show_gradient, show_penalties


@pytest.fixture
def ax():
    return plots.figure()[1][0, 0]


def test_each_column_is_shaded_by_its_own_largest_value(ax):
    show_penalties(ax, [[0.0, 50.0], [0.02, 100.0]], ["blurred", "darker"], ["edge", "bce"])
    shades = ax.images[0].get_array()
    np.testing.assert_allclose(shades.filled(0.0), [[0.0, 0.5], [1.0, 1.0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["blurred", "darker"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["edge", "bce"]


def test_values_stand_in_their_cells_and_what_rounds_to_zero_is_blank(ax):
    show_penalties(ax, [[0.004, 0.5], [0.25, 0.0]], ["a", "b"], ["x", "y"])
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written == {(1, 0): ".50", (0, 1): ".25"}  # (column, row)


def test_text_is_legible_on_its_shade(ax):
    show_penalties(ax, [[1.0], [0.1]], ["a", "b"], ["x"])
    assert [text.get_color() for text in ax.texts] == ["white", "black"]


def test_column_of_zeros_is_blank(ax):
    show_penalties(ax, [[0.0], [0.0]], ["a", "b"], ["x"])
    assert ax.images[0].get_array().mask.all()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([[1.0, 2.0]], "one row for each of 2"),
        ([[1.0], [-0.1]], "finite losses of 0 or more"),
        ([[1.0], [np.nan]], "finite losses of 0 or more"),
    ],
)
def test_refuses_what_is_no_table_of_losses(ax, values, complaint):
    with pytest.raises(FloraError, match=complaint):
        show_penalties(ax, values, ["a", "b"], ["x"])


def test_zero_gradient_lies_in_the_middle_of_the_colours(ax):
    show_gradient(ax, [[-1.0, 0.0], [0.0, 3.0]], title="edge")
    low, high = ax.images[0].get_clim()
    assert low == -high
    assert ax.images[0].norm(0.0) == 0.5
    red, green, blue, _ = ax.images[0].to_rgba(0.0)
    assert min(red, green, blue) > 0.95


def test_lengths_begin_at_white(ax):
    show_gradient(ax, [[0.0, 1.0], [2.0, 3.0]], title="distill", signed=False)
    assert ax.images[0].get_clim()[0] == 0.0
    assert min(ax.images[0].to_rgba(0.0)) > 0.95


def test_one_outlier_does_not_set_the_scale_and_zeros_do_not_count(ax):
    values = np.zeros((100, 100))
    values[:10, :10] = 1.0
    values[0, 0] = 1000.0
    show_gradient(ax, values, title="bce")
    assert 1.0 <= ax.images[0].get_clim()[1] < 20.0


def test_limit_can_be_shared_among_panels(ax):
    show_gradient(ax, [[5.0, -1.0]], title="bce", limit=2.0)
    assert ax.images[0].get_clim() == (-2.0, 2.0)


def test_a_map_without_gradient_can_be_drawn(ax):
    show_gradient(ax, np.zeros((4, 4)), title="dice")
    assert ax.images[0].get_clim() == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "limit", "complaint"),
    [
        (np.zeros((1, 2, 2)), None, r"expected \(rows, columns\)"),
        ([[np.nan, 1.0]], None, "finite numbers"),
        ([[1.0]], 0.0, "limit 0.0"),
    ],
)
def test_refuses_what_is_no_map(ax, values, limit, complaint):
    with pytest.raises(FloraError, match=complaint):
        show_gradient(ax, values, title="x", limit=limit)
