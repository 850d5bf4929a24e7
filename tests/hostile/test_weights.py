"""Weights that no training of this library left; each case a line."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from flora.errors import FloraError
from flora.models.checkpoints import FORMAT, read_metadata, shipped_weights
from flora.models.weights import load_model, sensor_of


def tensors():
    with safe_open(shipped_weights(), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write(path, change=lambda tensor: tensor, **metadata):
    header = {"format": FORMAT, "flora": json.dumps(read_metadata(shipped_weights()) | metadata)}
    save_file({name: change(tensor) for name, tensor in tensors().items()}, path, header)
    return path


VALUES = {
    "zeros": (torch.zeros_like, "all of them are 0"),
    "whole numbers": (lambda tensor: tensor.to(torch.int8), "is torch.int8"),
    "NaN": (lambda tensor: tensor * torch.nan, "NaN or infinity"),
    "infinity": (lambda tensor: tensor + torch.inf, "NaN or infinity"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_that_no_training_leaves_are_refused(tmp_path, case):
    change, said = VALUES[case]
    with pytest.raises(FloraError, match=said):
        load_model(write(tmp_path / "x.safetensors", change))


METADATA = {
    "another model": {"model": "resnet"},
    "no model": {"model": None},
    "an unknown option": {"config": {"wings": 2}},
    "no options": {"config": None},
    "options of another kind": {"config": {"widths": "wide"}},
    "too large": {"config": {"widths": [1 << 40] * 4}},
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_no_model_is_refused(tmp_path, case):
    with pytest.raises(FloraError, match=r"is unknown to|does not describe a model of this"):
        load_model(write(tmp_path / "x.safetensors", **METADATA[case]))


@pytest.mark.parametrize("said", [{}, {"flora": "{"}, {"flora": "7"}])
def test_metadata_that_is_missing_or_damaged_is_refused(tmp_path, said):
    save_file(tensors(), tmp_path / "x.safetensors", {"format": FORMAT, **said})
    with pytest.raises(FloraError, match="its metadata is damaged"):
        load_model(tmp_path / "x.safetensors")


def test_a_sensor_that_is_not_described_is_refused(tmp_path):
    path = write(tmp_path / "x.safetensors", sar_scaling={"name": "Sentinel-1"})
    with pytest.raises(FloraError, match="does not describe"):
        sensor_of(path)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(FloraError, match="no such file"):
        load_model(tmp_path / "x.safetensors")
