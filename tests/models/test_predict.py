from __future__ import annotations

import pytest
import torch

from flora.datasets.base import collate
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.models.predict import predictor
from flora.models.unet import UNet
from flora.models.weights import load_model
from flora.predictors import MODES
from flora.training.evaluation import answer


@pytest.mark.parametrize("mode", MODES)
def test_half_the_digits_move_probabilities_by_less_than_a_hundredth_on_average(mode):
    batch = collate([Simulated("test", count=1, size=128)[0]])
    model = load_model()
    whole = answer(predictor(model), batch, mode)
    half = answer(predictor(model, precision="bfloat16"), batch, mode)
    assert half.water.dtype == half.rgb.dtype == torch.float32
    moved = (whole.water - half.water).abs()
    assert 0 < moved.mean() < 0.01
    assert ((whole.water >= 0.5) != (half.water >= 0.5)).float().mean() < 0.01
    assert (whole.rgb - half.rgb).abs().mean() < 0.01
    assert next(model.parameters()).dtype == torch.float32  # the model is not changed


def test_an_unknown_precision_is_refused():
    with pytest.raises(FloraError, match="precision 'float8': expected one of float32, bfloat16"):
        predictor(load_model(), precision="float8")


def test_a_baseline_is_asked_in_its_mode_only():
    batch = collate([Simulated("test", count=1, size=64)[0]])
    with pytest.raises(FloraError, match=r"trained for mode"):
        answer(predictor(UNet(2, (8, 16))), batch, "oracle")
