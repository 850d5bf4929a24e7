"""The state of a training run, and how it is continued."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flora.datasets.base import FloodDataset
from flora.errors import FloraError
from flora.files import write_text
from flora.models.checkpoints import save_state
from flora.training.config import BatchChange, TrainingConfig
from flora.training.task import Task

STATE_KEYS = {"settings", "step", "best_score", "task", "optimizer", "random"}


@dataclass
class RunState:
    """The part of a run's state that is neither weights nor optimiser."""

    step: int = 0
    best_score: float | None = None
    rows: list[dict[str, float]] = field(default_factory=list)
    unread: list[tuple[list[str], Tensor]] = field(default_factory=list)

    def add(self, total: Tensor, norms: list[Tensor], terms: Mapping[str, Tensor]) -> None:
        """Keep the values of a step on their device until they are read."""
        names = ["total", "gradient", *terms]
        values = [total.detach(), torch.stack(norms).max(), *terms.values()]
        self.unread.append((names, torch.stack([value.float() for value in values])))
        self.step += 1

    def read(self, config: TrainingConfig, folder: Path) -> None:
        """Fetch what was kept.

        Raises:
            FloraError: If a loss or gradient was not finite.
        """
        if not self.unread:
            return
        # One transfer from the device, whatever was kept.
        values = iter(torch.cat([kept for _, kept in self.unread]).tolist())
        for names, _ in self.unread:
            step, row = len(self.rows), {name: next(values) for name in names}
            for name, said in (("total", "loss"), ("gradient", "gradient")):
                if not math.isfinite(row[name]):
                    raise FloraError(
                        f"the {said} is not finite at step {step}: lower the learning rate (now "
                        f"{config.learning_rate}); {folder} keeps the state of the last checkpoint"
                    )
            self.rows.append({"step": step + 1, "lr": config.learning_rate_at(step), **row})
        self.unread.clear()


def read_log(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's log: step, learning rate, total loss, its terms, validation score."""
    path = folder / "log.jsonl"
    if not path.exists():
        raise FloraError(f"no training log {path}: expected the folder of a run of `flora train`")
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if row["step"] >= 0]
    except (ValueError, TypeError, KeyError) as error:
        raise FloraError(
            f"training log {path} is damaged ({error}): cut its last lines, or delete the run"
        ) from error


def run_settings(
    task: Task,
    dataset: FloodDataset,
    valid: FloodDataset | None,
    config: TrainingConfig,
    processes: int,
    change: BatchChange | None,
) -> dict[str, Any]:
    """What must be the same for a run to be continued."""
    start = hashlib.sha256()
    for name, tensor in task.state_dict().items():
        start.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    settings = {
        "config": asdict(config),
        "model": task.describe(),
        "data": dataset.manifest_hash(),
        "validation": None if valid is None else valid.manifest_hash(),
        "sensors": [asdict(dataset.sar_scaling), asdict(dataset.optical_scaling)],
        "starting weights": start.hexdigest(),
        "processes": processes,
        "change": None if change is None else repr(change),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def save_run(
    progress: RunState,
    settings: Mapping[str, Any],
    task: Task,
    optimizer: torch.optim.Optimizer,
    folder: Path,
) -> None:
    """Write log and state of a run into its folder, each whole or not at all."""
    lines = "".join(json.dumps(row) + "\n" for row in progress.rows)
    write_text(folder / "log.jsonl", lines)
    state = {
        "settings": settings,
        "step": progress.step,
        "best_score": progress.best_score,
        "task": task.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    save_state(state, folder / "state.pt")


def restore_run(
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    task: Task,
    optimizer: torch.optim.Optimizer,
    folder: Path,
) -> RunState:
    """Put a saved state back into a task and its optimiser.

    Raises:
        FloraError: If it is that of a run with other settings.
    """
    if not (state.keys() >= STATE_KEYS and isinstance(state["settings"], dict)):
        raise FloraError(f"{folder}/state.pt is no state of a run of this version: delete the run")
    if state["settings"] != settings:
        differing = [
            _difference(key, state["settings"].get(key), settings[key]) for key in settings
        ]
        raise FloraError(
            f"{folder} holds a run with another {', '.join(d for d in differing if d)}: choose "
            "another folder, or delete this one to start anew"
        )
    task.load_state_dict(state["task"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    rows = [row for row in read_log(folder) if row["step"] <= state["step"]]
    return RunState(state["step"], state["best_score"], rows)


def _difference(name: str, then: Any, now: Any) -> str | None:
    """What differs between the settings of two runs, None if nothing does."""
    if then == now:
        return None
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in now if then.get(key) != now[key]]
        return f"{name} ({', '.join(f'{key} {then.get(key)}, now {now[key]}' for key in keys)})"
    return name
