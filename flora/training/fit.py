"""The training loop: the same one for the teacher, the student and every baseline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Subset

from flora.datasets.base import Batch, FloodDataset, collate
from flora.datasets.crops import RandomCrops
from flora.errors import FloraError
from flora.files import alone, folder_for
from flora.models.checkpoints import load_state, save_weights
from flora.training.config import BatchChange, TrainingConfig
from flora.training.evaluation import evaluate, mean_image
from flora.training.progress import RunState, restore_run, run_settings, save_run
from flora.training.task import Learner, Task

# Steps between two looks at the losses: each look makes a GPU wait for the processor.
LOOK_EVERY = 20


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


def fit(
    task: Task,
    dataset: FloodDataset,
    config: TrainingConfig,
    folder: Path,
    valid: FloodDataset | None = None,
    quiet: bool = False,
    change: BatchChange | None = None,
) -> FitResult:
    """Train a task; continue the run in `folder` if there is one.

    A run that was killed and is started again ends with the weights it would have had: crops
    depend on seed and step alone, and the saved state holds weights, optimiser and random state.
    On a CPU that is so bit for bit; a GPU may add in another order.

    Args:
        task: What is trained, see `flora.training.task.Task`.
        dataset: Chips to crop from.
        config: Length, batch, schedule, seed.
        folder: Where `last.safetensors`, `best.safetensors`, `log.jsonl` and `state.pt` go.
        valid: Chips that choose the best weights; None keeps the last.
        quiet: Hide the progress bar.
        change: A random change of every training batch, see `BatchChange`.

    Raises:
        FloraError: If the folder holds a run with other settings, the loss stops being finite,
            the crop does not fit, another process trains there, or the disk refuses.

    Example:
        >>> from pathlib import Path
        >>> from flora import Flora, TrainingConfig, fit, named_config, open_dataset
        >>> from flora.training.tasks import StudentTask
        >>> from flora.training.progress import read_log
        >>> chips = open_dataset("simulated", None, "train", count=1, size=64)
        >>> task = StudentTask(Flora(named_config("tiny")))
        >>> config = TrainingConfig(steps=2, batch=1, crop=32)
        >>> result = fit(task, chips, config, Path("runs/example"), quiet=True)
        >>> result.best.name, [row["step"] for row in read_log(result.folder)]
        ('last.safetensors', [1, 2])
    """
    # Of processes that train together, the first one holds the lock.
    first = os.environ.get("RANK", "0") == "0"
    lock = alone(folder / ".lock", "folder", "training") if first else nullcontext()
    with folder_for(folder), lock:
        return _fit(task, dataset, config, folder, valid, quiet, change)


def _fit(
    task: Task,
    dataset: FloodDataset,
    config: TrainingConfig,
    folder: Path,
    valid: FloodDataset | None,
    quiet: bool,
    change: BatchChange | None,
) -> FitResult:
    if valid is not None and len(valid) == 0:
        raise FloraError(f"{valid.name}: the validation split is empty; leave it out or choose one")
    # Without this, a second call in one session could not choose another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=_precision(config.mixed_precision))
    set_seed(config.seed)
    learners = list(task.learners())
    optimizer = torch.optim.AdamW(
        [g for one in learners for g in one.groups(config.learning_rate, config.weight_decay)]
    )
    settings = run_settings(task, dataset, valid, config, accelerator.num_processes, change)
    progress = RunState()
    if (folder / "state.pt").exists():
        progress = restore_run(load_state(folder / "state.pt"), settings, task, optimizer, folder)
    run = _Run(task, config, folder, valid, accelerator, progress, settings)
    batches = iter(_loader(dataset, config, progress.step, accelerator))
    metadata = _metadata(task, dataset, config, change)
    model, optimizer = accelerator.prepare(task, optimizer)

    with _bar(quiet or not accelerator.is_main_process) as bar:
        shown = bar.add_task("train", total=config.steps, completed=progress.step, terms="")
        while progress.step < config.steps:
            batch = next(batches)
            run.step(model, optimizer, learners, batch if change is None else change(batch))
            run.validate(metadata)
            run.checkpoint(optimizer, metadata)
            text = _terms_text(progress.rows[-1]) if progress.rows else ""
            bar.update(shown, completed=progress.step, terms=text)
    best = run.best if run.best.exists() else run.last
    return FitResult(folder, run.last, best, progress.best_score)


@dataclass
class _Run:
    """What one call of `fit` does at each step."""

    task: Task
    config: TrainingConfig
    folder: Path
    valid: FloodDataset | None
    accelerator: Accelerator
    progress: RunState
    settings: Mapping[str, Any]

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    def step(self, model: Any, optimizer: Any, learners: list[Learner], batch: Batch) -> None:
        """One step of the optimiser."""
        progress, config = self.progress, self.config
        share = config.learning_rate_at(progress.step) / config.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak"]
        model.train()
        with self.accelerator.autocast():
            total, terms = model(batch)
        self.accelerator.backward(total)
        norms = [
            torch.as_tensor(
                self.accelerator.clip_grad_norm_(one.module.parameters(), config.gradient_clip)
            )
            for one in learners
        ]
        progress.add(total, norms, terms)
        if self.accelerator.device.type == "cpu" or progress.step % LOOK_EVERY == 0:
            progress.read(config, self.folder)  # before a step that is not finite is taken
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def validate(self, metadata: Mapping[str, Any]) -> None:
        """Score the weights, and keep them if they are the best, where it is time to."""
        progress, config = self.progress, self.config
        finished = progress.step == config.steps
        if self.valid is None or not (finished or progress.step % config.validate_every == 0):
            return
        progress.read(config, self.folder)
        score = _validate(self.task, self.valid, self.accelerator)
        progress.rows[-1]["valid_miou"] = score
        if progress.best_score is None or score > progress.best_score:
            progress.best_score = score
            if self.accelerator.is_main_process:
                found = {"step": progress.step, "score": score}
                save_weights(self.task.model, self.best, {**metadata, **found})

    def checkpoint(self, optimizer: Any, metadata: Mapping[str, Any]) -> None:
        """Save the run, where it is time to."""
        progress, config = self.progress, self.config
        finished = progress.step == config.steps
        if not (finished or progress.step % config.checkpoint_every == 0):
            return
        progress.read(config, self.folder)
        if self.accelerator.is_main_process:
            if finished:
                save_weights(self.task.model, self.last, {**metadata, "step": progress.step})
            save_run(progress, self.settings, self.task, optimizer, self.folder)
        self.accelerator.wait_for_everyone()


def _precision(choice: str) -> str:
    choices = ("auto", "no", "bf16")
    if choice not in choices:
        raise FloraError(f"mixed_precision {choice!r}: expected one of {', '.join(choices)}")
    if choice != "auto":
        return choice
    # From compute capability 8 on; older cards emulate bf16, more slowly than float32.
    capable = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return "bf16" if capable else "no"


def _metadata(
    task: Task, dataset: FloodDataset, config: TrainingConfig, change: BatchChange | None
) -> dict[str, Any]:
    changed = {} if change is None else {"change": repr(change)}
    return {
        **task.describe(),
        **changed,
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


def _validate(task: Task, valid: FloodDataset, accelerator: Accelerator) -> float:
    """Two-class mean IoU of water on the validation chips."""
    task.eval()
    with accelerator.autocast():
        scores = evaluate(task.predictor(), valid, task.mode, accelerator.device)
    if "miou" not in scores["all"]:
        raise FloraError(
            f"{valid.name}: no two-class mIoU on the validation chips, where only one class is "
            "labelled and predicted; choose a split with both water and land, or validate on none"
        )
    return float(scores["all"]["miou"])


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
