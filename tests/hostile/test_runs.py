"""Folders of training runs that hold what no run of this library left; each case a line."""

from __future__ import annotations

import errno

import pytest
import torch
from typer.testing import CliRunner

from flora.cli.main import app
from flora.datasets.simulated import Simulated
from flora.errors import FloraError
from flora.models.config import FloraConfig
from flora.models.network import Flora
from flora.training.config import TrainingConfig
from flora.training.fit import fit
from flora.training.progress import read_log
from flora.training.tasks import StudentTask

SHAPE = FloraConfig(widths=(8, 16), attention_levels=(1,), window_sizes=(4,), heads=2)
SHORT = TrainingConfig(steps=1, batch=1, crop=32, mixed_precision="no")
WHOLE = {"settings": {}, "step": 1, "best_score": None, "task": {}, "optimizer": {}, "random": 0}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"", "damaged, or not a training state"),
        (b"PK\x03\x04", "damaged, or not a training state"),
        ([1, 2], "of another program"),
        (torch.zeros(3), "of another program"),
        ({}, "no state of a run of this version"),
        ({"state_dict": {}, "epoch": 3}, "no state of a run of this version"),
        (WHOLE | {"settings": [1]}, "no state of a run of this version"),
        (WHOLE, "holds a run with another config"),
    ],
)
def test_a_foreign_state_is_refused(tmp_path, state, message):
    path = tmp_path / "state.pt"
    if isinstance(state, bytes):
        path.write_bytes(state)
    else:
        torch.save(state, path)
    stored = path.read_bytes()
    chips = Simulated("train", count=1, size=64)
    with pytest.raises(FloraError, match=message):
        fit(StudentTask(Flora(SHAPE)), chips, SHORT, tmp_path, quiet=True)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    assert path.read_bytes() == stored


@pytest.mark.parametrize(
    "log",
    [b'{"step": 1}\n{"st', b"\xff\xfe", b"[1]\n", b'"step"\n', b'{"loss": 1}\n', b'{"step": "a"}'],
)
def test_a_cut_log_is_refused(tmp_path, log):
    (tmp_path / "log.jsonl").write_bytes(log)
    with pytest.raises(FloraError, match=r"is damaged .*cut its last"):
        read_log(tmp_path)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(FloraError, match=r"^seed -?[0-9]+: expected"):
        TrainingConfig(seed=seed)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError("Unable to allocate 9. TiB for an array"), "9. TiB"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes\nat a.cpp"), "9 bytes)"),
        (RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"), "Tried to allocate 9 GiB"),
        (RuntimeError("shapes differ"), None),
        (OSError(errno.EIO, "Input/output error"), None),
    ],
    ids=str,
)
def test_a_full_memory_is_said_in_one_line(monkeypatch, tmp_path, error, says):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("flora.datasets.check.check_dataset", full)
    result = CliRunner().invoke(app, ["check", "folder", str(tmp_path)])
    assert result.exit_code == 1
    if says is None:  # a defect keeps its traceback
        assert result.exception is error
        return
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: the memory is full (") and says in line and "--tile" in line


def test_the_largest_seed_trains(tmp_path):
    chips = Simulated("train", count=1, size=64)
    config = TrainingConfig(steps=1, batch=1, crop=32, mixed_precision="no", seed=2**32 - 1)
    result = fit(StudentTask(Flora(SHAPE)), chips, config, tmp_path, quiet=True)
    assert result.last.is_file()
