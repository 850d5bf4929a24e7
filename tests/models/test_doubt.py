from __future__ import annotations

import math

import pytest
import torch

from flora.datasets.base import collate
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.models.checkpoints import shipped_weights
from flora.models.config import FloraConfig
from flora.models.doubt import ErrorHead, doubting, error_loss, load_error_head
from flora.models.network import Flora
from flora.models.predict import predictor
from flora.training.config import TrainingConfig
from flora.training.doubting import DoubtTask
from flora.training.fit import fit

SHAPE = FloraConfig(widths=(8, 16), attention_levels=(1,), window_sizes=(4,), heads=2)


@pytest.fixture
def model() -> Flora:
    torch.manual_seed(0)
    return Flora(SHAPE).eval()


@pytest.mark.parametrize("size", [(32, 32), (33, 50)])
def test_a_fresh_head_repeats_the_network(model, size):
    sar, valid = 3 * torch.randn(2, 2, *size), torch.ones(2, *size, dtype=torch.bool)
    own, doubted = (
        predict(sar, valid, None).water
        for predict in (predictor(model), doubting(model, ErrorHead(8)))
    )
    assert own.std() > 0
    assert torch.allclose(own, doubted, atol=2e-3)


def test_the_map_never_changes_but_its_certainty_does(model):
    head = ErrorHead(8)
    torch.nn.init.normal_(head.layers[-1].weight, std=3.0)
    sar, valid = 3 * torch.randn(1, 2, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    own = predictor(model)(sar, valid, None).water
    doubted = doubting(model, head)(sar, valid, None).water
    assert not torch.allclose(own, doubted, atol=0.05)
    assert torch.equal(own >= 0.5, doubted >= 0.5)


def test_the_loss_worked_out_by_hand():
    # Two errors in three scored pixels, each expected with probability 1/4: sigmoid(0) / 2.
    logits = torch.tensor([[[[2.0, 2.0, -1.0, 5.0]]]])
    water = torch.tensor([[[1, 0, 1, 255]]])
    scored = water < 2
    loss = error_loss(torch.zeros(1, 1, 1, 4), logits, water, scored)
    assert loss.item() == pytest.approx(-(math.log(0.75) + 2 * math.log(0.25)) / 3)
    wild = error_loss(torch.tensor([[[[-200.0, 200.0, 200.0, 0.0]]]]), logits, water, scored)
    assert wild.item() == pytest.approx(2 * math.log(2) / 3)
    with pytest.raises(FloraError, match="a label somewhere"):
        error_loss(torch.zeros(1, 1, 1, 4), logits, water, scored & False)


def test_a_head_learns_where_the_network_errs_and_leaves_it_alone(model, tmp_path):
    chips = InMemory(Simulated("valid", count=2, size=64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = DoubtTask(model, ErrorHead(8))
    batch = collate([chips[0], chips[1]])
    untaught = task(batch)[0].item()
    config = TrainingConfig(steps=20, batch=2, crop=32, learning_rate=1e-2, mixed_precision="no")
    result = fit(task, chips, config, tmp_path, quiet=True)
    head = load_error_head(result.last)
    assert DoubtTask(model, head)(batch)[0].item() < untaught
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_weights_are_refused():
    with pytest.raises(FloraError, match="error head"):
        load_error_head(shipped_weights())
