"""The ways in which `throughput.py` runs the model: what is timed, and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.roofline import Run
from flora.datasets.base import Batch, collate, map_layers
from flora.datasets.simulated import Simulated
from flora.models.config import SIZES
from flora.models.network import Flora

# The very choice of precision of `fit`: this runs what it does.
from flora.training.config import TrainingConfig
from flora.training.evaluation import to_device
from flora.training.fit import _precision
from flora.training.task import Learner
from flora.training.tasks import StudentTask

Compiled = Literal["no", "model", "graphs", "step"]


@dataclass(frozen=True)
class Variant:
    """One way to run the model.

    Attributes:
        batch: Chips or crops at a time.
        precision: "float32", or "bf16" for autocast.
        channels_last: Whether tensors lie in memory pixel by pixel.
        compiled: What torch.compile is given: "no" for nothing, the "model", the model with CUDA
            "graphs", or the training "step" with the loss.
    """

    batch: int
    precision: str = "float32"
    channels_last: bool = False
    compiled: Compiled = "no"


@dataclass(frozen=True)
class Setup:
    """What all variants share: the model's size, the sides in pixels, and the device."""

    size: str
    chip: int
    crop: int
    device: str

    @property
    def on(self) -> torch.device:
        """The device."""
        return torch.device(self.device)

    def side(self, kind: str) -> int:
        """Side of the images of a kind of run."""
        return self.chip if kind == "inference" else self.crop


def native_precision(device: torch.device) -> str:
    """The precision that `fit` chooses on a device: "bf16" where it computes in it."""
    capable = device.type == "cuda" and _precision("auto") == "bf16"
    return "bf16" if capable else "float32"


def variants(kind: str, batches: Sequence[int], device: torch.device) -> dict[str, Variant]:
    """The variants of a kind of run; the first is what the others are compared with."""
    base = Variant(batches[0], native_precision(device))
    other = "float32" if base.precision == "bf16" else "bf16"
    rows = {f"batch {size}": replace(base, batch=size) for size in batches}
    rows[other] = replace(base, precision=other)
    rows["channels_last"] = replace(base, channels_last=True)
    rows["compiled"] = replace(base, compiled="model")
    rows["compiled, CUDA graphs"] = replace(base, compiled="graphs")
    if kind == "training":
        rows["compiled with its loss"] = replace(base, compiled="step")
    if device.type == "cuda":
        most = replace(base, batch=max(batches), channels_last=True)
        rows[f"channels_last, batch {most.batch}"] = most
        rows[f"channels_last, compiled, batch {most.batch}"] = replace(most, compiled="model")
    return rows


def left_out(variant: Variant, device: torch.device, compiling: bool) -> str | None:
    """Why a variant is not even tried, or None."""
    if variant.precision == "bf16" and native_precision(device) != "bf16":
        return "`fit` does not choose bf16 on this device"
    if variant.compiled == "graphs" and device.type != "cuda":
        return "CUDA graphs need a GPU"
    if variant.compiled != "no" and not compiling:
        return "not asked for; --compile measures it"
    return None


def build(kind: str, variant: Variant, setup: Setup) -> Run:
    """A function that maps one batch or makes one training step."""
    torch.manual_seed(0)
    model = Flora(SIZES[setup.size]).to(setup.on)
    if variant.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if variant.compiled != "no":
        from torch._dynamo import config  # slow to import

        config.cache_size_limit = 64  # of one function, beyond which it would run uncompiled
    if variant.compiled in ("model", "graphs"):
        mode = "reduce-overhead" if variant.compiled == "graphs" else None
        model.compile(mode=mode, dynamic=False)
    if kind == "inference":
        return inference(model.eval(), variant, setup)
    task = StudentTask(model)
    if variant.compiled == "step":
        task.compile(dynamic=False)
    sample = Simulated("train", count=1, size=setup.crop)[0]
    batch = to_device(collate([sample] * variant.batch), setup.on)
    return partial(trainer(task, variant, setup.on), batch)


def inference(model: nn.Module, variant: Variant, setup: Setup) -> Run:
    """A function that maps one batch of chips."""
    sar = torch.randn(variant.batch, 2, setup.chip, setup.chip, device=setup.on)
    if variant.channels_last:
        sar = sar.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> object:
        if variant.compiled == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with autocast(variant, setup.on):
            return model(sar)

    return run


def trainer(task: nn.Module, variant: Variant, device: torch.device) -> Callable[[Batch], None]:
    """A function that makes one training step with a batch on the device, as `fit` does."""
    config = TrainingConfig()
    parameters = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(Learner(task).groups(config.learning_rate, config.weight_decay))
    task.train()

    def step(batch: Batch) -> None:
        if variant.channels_last:
            batch = channels_last(batch)
        if variant.compiled == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with autocast(variant, device):
            total, terms = task(batch)
        total.backward()
        nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for value in (total, *terms.values()):
            value.item()

    return step


def autocast(variant: Variant, device: torch.device) -> torch.autocast:
    """The precision of a variant."""
    return torch.autocast(device.type, torch.bfloat16, enabled=variant.precision == "bf16")


def channels_last(batch: Batch) -> Batch:
    """The same batch with its images pixel by pixel in memory."""

    def moved(layer: Tensor) -> Tensor:
        images = layer.ndim == 4
        return layer.contiguous(memory_format=torch.channels_last) if images else layer

    return map_layers(batch, moved)
