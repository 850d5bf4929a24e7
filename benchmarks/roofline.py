"""What bounds a computation: the device's measured rates, and what the computation asks of it.

The roofline model of Williams, Waterman and Patterson (CACM 52(4), 2009), with both ceilings
measured on the device instead of read from its data sheet.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import medians, wall_time

Run = Callable[[], object]

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}  # beyond any cache
PROCESSOR_TIME = "processor time of one thread"
SAMPLE_S = 0.1  # a timed sample is repeated until it takes about so long

RULE = (
    "The matrix share is the time that the counted operations of convolutions and matrix products "
    "(two a multiply-add) would take at the measured matrix rate, over the time taken. The copy "
    "share is the time that the bytes would take at the measured copy bandwidth, over the time "
    "taken; every operation counts as reading its inputs and writing its outputs once, so it can "
    "exceed 1 where caches hold them. The larger share is what bounds, if it is one half or more. "
    "Otherwise neither does: the time goes to starting many small operations, or to operations "
    "that run below both rates."
)


class TrafficCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations read and write, each by itself, as without a cache.

    A view moves nothing; an input counts once, a stretched one as it is stored.

    Attributes:
        bytes: Counted so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation and count it."""
        kwargs = dict(kwargs or {})
        # In inference mode, operations that are made of others arrive whole.
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        self.bytes += _moved(func, args, kwargs, result)
        return result


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    name = func.overloadpacket.__name__
    if name.startswith(("empty", "new_empty")):
        return 0
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    changed = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    written = _tensors([named.get(key) for key in changed])
    inputs = _tensors([args, kwargs])
    stored = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    fresh = [t for t in _tensors(result) if t.untyped_storage().data_ptr() not in stored]
    if not fresh and not written:
        return 0  # a view
    if name in ("copy_", "fill_", "zero_"):  # what was there before is not read
        overwritten = {id(tensor) for tensor in written}
        inputs = [tensor for tensor in inputs if id(tensor) not in overwritten]
    elif name.startswith("new_") or name.endswith("_like"):  # a shape is taken, no value
        inputs = []
    return sum(_bytes(tensor) for tensor in [*inputs, *written, *fresh])


def _tensors(tree: Any) -> list[Tensor]:
    """The distinct tensors of nested arguments."""
    leaves = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return list({id(leaf): leaf for leaf in leaves}.values())


def _bytes(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def count_traffic(run: Run) -> int:
    """Bytes that a function's operations read and write, see `TrafficCounter`."""
    with TrafficCounter() as counter:
        run()
    moved: int = counter.bytes
    return moved


def count_operations(run: Run) -> int:
    """Operations of a function's convolutions and matrix products, two a multiply-add."""
    # Fused attention computes parts twice on its way back; the plain one counts what is needed.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def clock_name(device: torch.device) -> str:
    """What `seconds` reads: where one thread does the work, other programs do not count."""
    if device.type == "cuda":
        return "CUDA events"
    return PROCESSOR_TIME if torch.get_num_threads() == 1 else "wall time"


def seconds(run: Run, device: torch.device) -> float:
    """Seconds from the start of a function's work on the device to its end, by `clock_name`."""
    if clock_name(device) == PROCESSOR_TIME:
        before = time.process_time()
        run()
        return time.process_time() - before
    if device.type != "cuda":
        return wall_time(run)
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def take_turns(runs: Mapping[str, Run], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each warm function; the functions take turns."""
    times = {
        name: max(1, min(100, math.ceil(SAMPLE_S / seconds(run, device))))
        for name, run in runs.items()
    }

    def clock(name: str) -> float:
        def repeated() -> None:
            for _ in range(times[name]):
                runs[name]()

        return seconds(repeated, device) / times[name]

    return medians({name: partial(clock, name) for name in runs}, rounds)


def matrix_product(precision: str, device: torch.device, side: int) -> Run:
    """A product of two square matrices, 2 * side**3 operations, in a precision of `DTYPES`."""
    left, right = torch.randn(2, side, side, device=device).to(DTYPES[precision])

    def run() -> None:
        # cuDNN's convolutions in float32 use the TF32 units unless told not to, as here.
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
        torch.mm(left, right)
        torch.set_float32_matmul_precision(before)

    return run


def copy(device: torch.device, size: int) -> Run:
    """A copy of so many bytes, which are read once and written once."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def bound(matrix: float, traffic: float | None) -> str:
    """What bounds, in words, by `RULE`.

    Args:
        matrix: Share of the measured matrix rate.
        traffic: Share of the measured copy bandwidth; None where compilation fuses operations,
            so that the traffic is not known.
    """
    if traffic is None:
        said = f"{matrix:.0%} of the matrix rate; the traffic of fused operations is not counted"
        return f"the matrix rate: {said}" if matrix >= 0.5 else f"not the matrix rate: {said}"
    said = f"{matrix:.0%} of the matrix rate, {traffic:.0%} of the copy bandwidth"
    if max(matrix, traffic) < 0.5:
        return f"neither: {said}"
    name = "the matrix rate" if matrix >= traffic else "the copy bandwidth"
    return f"{name}: {said}"
