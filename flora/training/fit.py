"""The training loop: the same one for the teacher, the student and every baseline."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from flora.datasets.base import Batch, FloodDataset, collate
from flora.datasets.crops import RandomCrops
from flora.errors import FloraError
from flora.files import make_folder, write_text
from flora.models.checkpoints import load_state, save_state, save_weights
from flora.predictors import Mode, Predictor
from flora.training.evaluation import evaluate, mean_image

STATE_KEYS = {"settings", "step", "best_score", "task", "optimizer", "random"}


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how a task is trained.

    Attributes:
        steps: Optimiser steps.
        batch: Crops a step and process.
        crop: Side of a crop in pixels.
        learning_rate: Peak of the schedule: linear warm-up, then a cosine down to zero.
        weight_decay: AdamW's decoupled weight decay.
        warmup: Share of the steps that the learning rate takes to rise.
        gradient_clip: Largest norm of the gradient.
        seed: Seed of initial random draws and of the crops.
        checkpoint_every: Steps between two saved states.
        validate_every: Steps between two validations; the last step is always validated.
        workers: Processes that read crops; 0 reads in the training process.
        mixed_precision: "bf16", "no", or "auto": bf16 on a GPU that computes in it, else "no".

    Raises:
        FloraError: If a number is out of range.

    Example:
        >>> from flora import TrainingConfig
        >>> config = TrainingConfig(steps=100, warmup=0.1, learning_rate=1e-3)
        >>> [round(config.learning_rate_at(step), 6) for step in (0, 9, 10, 55)]
        [0.0001, 0.001, 0.001, 0.0005]
    """

    steps: int = 1500
    batch: int = 8
    crop: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    gradient_clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 100
    validate_every: int = 250
    workers: int = 0
    mixed_precision: str = "auto"

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "crop", "checkpoint_every", "validate_every")
        least = dict.fromkeys(counts, 1) | {"seed": 0, "workers": 0, "weight_decay": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise FloraError(f"{name} {getattr(self, name)}: expected {smallest} or more")
        if self.seed >= 2**32:  # NumPy's generators take no larger one
            raise FloraError(f"seed {self.seed}: expected a number below 2^32")
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise FloraError(f"{name} {value}: expected a finite number above 0")
        if not 0 <= self.warmup <= 1:
            raise FloraError(f"warmup {self.warmup}: expected a share of the steps, 0 to 1")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step counted from 0."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        progress = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Task(Protocol):
    """What `fit` trains: a module whose forward gives a loss, and that can predict."""

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its unweighted terms, all scalars."""
        ...

    @property
    def weights(self) -> nn.Module:
        """The module whose weights are saved."""
        ...

    @property
    def mode(self) -> Mode:
        """What it may look at when it is validated."""
        ...

    def predictor(self) -> Predictor:
        """How the task is validated."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values that rebuild the model; saved with its weights."""
        ...


@dataclass
class FitResult:
    """What a training run left.

    Attributes:
        folder: Its folder.
        last: Weights after the last step.
        best: Weights with the best validation score, or the last ones without validation.
        score: That score, or None without validation.
    """

    folder: Path
    last: Path
    best: Path
    score: float | None


@dataclass
class _Progress:
    """The part of a run's state that is neither weights nor optimiser."""

    step: int = 0
    best_score: float | None = None
    rows: list[dict[str, float]] = field(default_factory=list)


def fit(
    task: nn.Module,
    dataset: FloodDataset,
    config: TrainingConfig,
    folder: Path,
    valid: FloodDataset | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train a task; continue the run in `folder` if there is one.

    A run that was killed and is started again ends with the weights it would have had: crops
    depend on seed and step alone, and the saved state holds weights, optimiser and random state.
    On a CPU that is so bit for bit; a GPU may add in another order.

    Args:
        task: A module that satisfies `Task`.
        dataset: Chips to crop from.
        config: Length, batch, schedule, seed.
        folder: Where `last.safetensors`, `best.safetensors`, `log.jsonl` and `state.pt` go.
        valid: Chips that choose the best weights; None keeps the last.
        quiet: Hide the progress bar.

    Raises:
        FloraError: If the folder holds a run with other settings, the loss stops being finite,
            the crop does not fit, or the disk refuses.

    Example:
        >>> from pathlib import Path
        >>> from flora import Flora, TrainingConfig, fit, named_config, open_dataset
        >>> from flora.training.tasks import StudentTask
        >>> from flora.training.fit import read_log
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> task = StudentTask(Flora(named_config("tiny")))
        >>> config = TrainingConfig(steps=2, batch=1, crop=32)
        >>> result = fit(task, chips, config, Path("runs/example"), quiet=True)
        >>> result.best.name, [row["step"] for row in read_log(result.folder)]
        ('last.safetensors', [1, 2])
    """
    make_folder(folder)
    if valid is not None and len(valid) == 0:
        raise FloraError(f"{valid.name}: the validation split is empty; leave it out or choose one")
    # Without this, a second call in one session could not choose another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=_precision(config.mixed_precision))
    set_seed(config.seed)
    model: nn.Module = task
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    settings = _settings(model, dataset, valid, config, accelerator.num_processes)
    state_path = folder / "state.pt"
    progress = _Progress()
    if state_path.exists():
        progress = _restore(load_state(state_path), settings, model, optimizer, folder)
    model, optimizer = accelerator.prepare(model, optimizer)
    batches = iter(_loader(dataset, config, progress.step, accelerator))
    best = folder / "best.safetensors"
    last = folder / "last.safetensors"
    metadata = _metadata(task, dataset, config)

    with _bar(quiet or not accelerator.is_main_process) as bar:
        row_text = bar.add_task("train", total=config.steps, completed=progress.step, terms="")
        for step in range(progress.step, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step)
            model.train()
            with accelerator.autocast():
                total, terms = model(next(batches))
            if not torch.isfinite(total):
                raise FloraError(
                    f"the loss is {total.item()} at step {step}: lower the learning rate "
                    f"(now {config.learning_rate}); {folder} keeps the state of the last checkpoint"
                )
            accelerator.backward(total)
            norm = accelerator.clip_grad_norm_(model.parameters(), config.gradient_clip)
            if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
                raise FloraError(
                    f"the gradient is not finite at step {step}: lower the learning rate "
                    f"(now {config.learning_rate}); {folder} keeps the state of the last checkpoint"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            done = step + 1
            row = {"step": done, "lr": config.learning_rate_at(step), "total": total.item()}
            row |= {name: value.item() for name, value in terms.items()}
            progress.step = done
            progress.rows.append(row)
            bar.update(row_text, completed=done, terms=_terms_text(row))
            finished = done == config.steps
            if valid is not None and (finished or done % config.validate_every == 0):
                score = _validate(task, valid, accelerator)
                row["valid_miou"] = score
                if progress.best_score is None or score > progress.best_score:
                    progress.best_score = score
                    if accelerator.is_main_process:
                        save_weights(task.weights, best, metadata | {"step": done, "score": score})  # type: ignore[arg-type]
            if finished or done % config.checkpoint_every == 0:
                if accelerator.is_main_process:
                    if finished:
                        save_weights(task.weights, last, metadata | {"step": done})  # type: ignore[arg-type]
                    _save(progress, settings, task, optimizer, folder)
                accelerator.wait_for_everyone()

    return FitResult(folder, last, best if best.exists() else last, progress.best_score)


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


def _precision(choice: str) -> str:
    choices = ("auto", "no", "bf16")
    if choice not in choices:
        raise FloraError(f"mixed_precision {choice!r}: expected one of {', '.join(choices)}")
    if choice != "auto":
        return choice
    # From compute capability 8 on; older cards emulate bf16, more slowly than float32.
    capable = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return "bf16" if capable else "no"


def _settings(
    task: nn.Module,
    dataset: FloodDataset,
    valid: FloodDataset | None,
    config: TrainingConfig,
    processes: int,
) -> dict[str, Any]:
    """What must be the same for a run to be continued."""
    start = hashlib.sha256()
    for name, tensor in task.state_dict().items():
        start.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    settings = {
        "config": asdict(config),
        "model": task.describe(),  # type: ignore[operator]
        "data": dataset.manifest_hash(),
        "validation": None if valid is None else valid.manifest_hash(),
        "sensors": [asdict(dataset.sar_scaling), asdict(dataset.optical_scaling)],
        "starting weights": start.hexdigest(),
        "processes": processes,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _metadata(task: nn.Module, dataset: FloodDataset, config: TrainingConfig) -> dict[str, Any]:
    return {
        **task.describe(),  # type: ignore[operator]
        "dataset": dataset.name,
        "data_sha256": dataset.manifest_hash(),
        "sar_scaling": asdict(dataset.sar_scaling),
        "optical_scaling": asdict(dataset.optical_scaling),
        "optical_mean": mean_image(dataset).tolist(),
        "training": asdict(config),
    }


def _loader(
    dataset: FloodDataset, config: TrainingConfig, start: int, accelerator: Accelerator
) -> DataLoader[Any]:
    """Batches of the steps from `start` on, shared out among the processes."""
    if config.workers:
        dataset.preload(config.workers)  # before there are workers, who then share it
    per_step = config.batch * accelerator.num_processes
    crops = RandomCrops(dataset, config.crop, config.steps * per_step, config.seed)
    loader: DataLoader[Any] = DataLoader(
        Subset(crops, range(start * per_step, config.steps * per_step)),
        batch_size=config.batch,
        collate_fn=collate,
        num_workers=config.workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=config.workers > 0,
        generator=torch.Generator(),  # else each epoch draws from the global random state
    )
    return accelerator.prepare(loader)  # type: ignore[no-any-return]


def _validate(task: nn.Module, valid: FloodDataset, accelerator: Accelerator) -> float:
    """Two-class mean IoU of water on the validation chips."""
    task.eval()
    with accelerator.autocast():
        scores = evaluate(task.predictor(), valid, task.mode, accelerator.device)  # type: ignore[arg-type, operator]
    if "miou" not in scores["all"]:
        raise FloraError(
            f"{valid.name}: no two-class mIoU on the validation chips, where only one class is "
            "labelled and predicted; choose a split with both water and land, or validate on none"
        )
    return float(scores["all"]["miou"])


def _save(
    progress: _Progress,
    settings: Mapping[str, Any],
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
) -> None:
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


def _restore(
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
) -> _Progress:
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
    return _Progress(state["step"], state["best_score"], rows)


def _difference(name: str, then: Any, now: Any) -> str | None:
    """What differs between the settings of two runs, None if nothing does."""
    if then == now:
        return None
    if isinstance(then, dict) and isinstance(now, dict):
        keys = [key for key in now if then.get(key) != now[key]]
        return f"{name} ({', '.join(f'{key} {then.get(key)}, now {now[key]}' for key in keys)})"
    return name


def _bar(hidden: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"),
        disable=hidden,
    )


def _terms_text(row: Mapping[str, float]) -> str:
    return "  ".join(f"{k} {v:.3f}" for k, v in row.items() if k not in ("step", "lr"))
