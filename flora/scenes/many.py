"""Many scenes at once: one task a scene, on this computer or on a Dask cluster.

Every scene is mapped by `flora.map_scene` in a process of its own, so that what happens to
one (a damaged file, a killed process) does not touch the others. Needs the extra `dask`, except
without workers, where this process maps one scene after the other.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from flora.errors import NAME_ALONE, FloraError
from flora.predictors import Predictor
from flora.scenes.inputs import GDAL_ERRORS
from flora.scenes.mapping import map_scene
from flora.scenes.outputs import SceneOutputs, check_targets
from flora.scenes.reading import SceneReading
from flora.scenes.safe.folders import product_of
from flora.scenes.thresholds import SceneOtsu, fitted
from flora.scenes.tiles import Tiling
from flora.scenes.work import settle

if TYPE_CHECKING:
    from flora.models.predict import Precision

MakePredictor = Callable[[], Predictor | SceneOtsu]

CONNECT_TIMEOUT = 30.0  # s, for a scheduler to answer and to have a worker

# What a bad file, a full disk or a full memory raise; anything else is a defect of the library.
BREAKS = (*GDAL_ERRORS, ValueError, RuntimeError, MemoryError)


class SceneReport(NamedTuple):
    """How one scene went.

    Attributes:
        path: The scene.
        outputs: What was written; None after a failure.
        error: Why nothing was, `str(error)` in words; None after a success.
        seconds: From start to end.
    """

    path: Path
    outputs: SceneOutputs | None
    error: FloraError | None
    seconds: float


@dataclass(frozen=True)
class WeightsPredictor:
    """FLoRA from a weights file; loaded in each worker.

    Attributes:
        weights: The file, at the same path for every worker; None is the one of the package for
            so many dates.
        device: cpu, cuda, ...; None takes a GPU if the worker sees one.
        precision: See `flora.predictor`.
        dates: Radar dates of the scenes.
    """

    weights: Path | None = None
    device: str | None = None
    precision: Precision = "float32"
    dates: int = 1

    def __call__(self) -> Predictor:
        """Load the model."""
        from flora.models.predict import predictor
        from flora.models.weights import load_model
        from flora.training.evaluation import choose_device

        model = load_model(self.weights, self.dates)
        return predictor(model, choose_device(self.device), self.precision)


@dataclass(frozen=True)
class MapOptions:
    """How scenes are mapped, all of them alike; see `flora.map_scene`.

    Attributes:
        tiling: How a scene is cut.
        threshold: Probability from which a pixel is water; None takes the model's own, or 0.5.
        model_id: A text, or facts by name, that differ where the model does.
        overwrite: Replace existing maps.
    """

    tiling: Tiling = Tiling()
    threshold: float | None = None
    model_id: str | dict[str, str] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Workers:
    """The processes that map scenes; without any, it is this one.

    Attributes:
        count: Processes on this computer; 0 is this one, without Dask.
        address: Scheduler of a running cluster instead, e.g. `tcp://10.0.0.1:8786`. It and its
            workers need this package and whatever makes the model; the workers should have one
            thread each.
        gpus: One process for each of these GPUs, as CUDA_VISIBLE_DEVICES names them, instead of
            `count`. Processes on this computer see no GPU otherwise.
        threads: Threads of torch in each process. One is best with as many workers as cores.
        retries: How often a killed scene starts anew, in processes on this computer; a running
            cluster has its own setting (distributed.scheduler.allowed-failures).

    Raises:
        FloraError: If a number is too small, or more than one kind is asked for.
    """

    count: int = 0
    address: str | None = None
    gpus: Sequence[int | str] = ()
    threads: int = 1
    retries: int = 2

    def __post_init__(self) -> None:
        if self.count < 0 or self.threads < 1 or self.retries < 0:
            raise FloraError(
                f"workers {self.count}, threads {self.threads}, retries {self.retries}: expected "
                "at least 0, 1, 0"
            )
        if sum((self.count > 0, self.address is not None, len(self.gpus) > 0)) > 1:
            raise FloraError(
                f"workers {self.count}, address {self.address!r}, gpus {list(self.gpus)}: expected "
                "one of the three"
            )

    @property
    def here(self) -> bool:
        """Whether scenes are mapped in this process."""
        return self.address is None and not self.count and not self.gpus


def map_scenes(
    paths: Sequence[str | Path],
    folder: str | Path,
    make_predictor: MakePredictor,
    *,
    reading: SceneReading = SceneReading(),
    mapping: MapOptions = MapOptions(),
    workers: Workers = Workers(),
    done: Callable[[SceneReport], None] | None = None,
) -> list[SceneReport]:
    """Map scenes into one folder; a scene that fails is reported and does not stop the others.

    The maps are the same however many workers there are, bit for bit, as long as `threads` and
    the kind of device are: every scene is computed by one process, and sums of floating-point
    numbers depend on the number of threads alone.

    A scene whose process is killed (out of memory, say) starts anew in another one, after which
    its own maps are the only thing that took longer. It is given up when it has cost `retries` + 1
    processes.

    Memory: each worker holds one model and what `map_scene` needs, which depends on the tile, the
    batch and the width of the scene. On this computer a worker that exceeds its share (all
    memory / workers) is ended, and its scene counts as killed.

    With workers, call this below `if __name__ == "__main__":` in a script: each is a fresh Python
    process that imports it.

    Args:
        paths: The scenes. No two may have the same file name, which names the maps.
        folder: Where the maps go; on a cluster, a disk that all workers see at this path.
        make_predictor: Makes the model, or Otsu's method, once in each process; must be
            picklable.
        reading: How they are opened.
        mapping: How they are mapped.
        workers: Which processes map them.
        done: Called with the report of each scene when it has ended.

    Returns:
        One report a scene, in the order of `paths`.

    Raises:
        FloraError: If an argument is refused, two scenes would write the same maps, the cluster
            cannot be reached or has no workers, or Dask is missing.

    Example:
        >>> from pathlib import Path
        >>> from flora import map_scenes
        >>> from flora.scenes.many import WeightsPredictor
        >>> from flora.simulate.scene import write_sen1floods11
        >>> labels = write_sen1floods11({"test": [7]}, Path("chips"), size=64)
        >>> scenes = sorted(Path("chips").rglob("*_S1Hand.tif"))
        >>> reports = map_scenes([*scenes, "missing.tif"], "flood", WeightsPredictor())
        >>> [report.error is None for report in reports]
        [True, False]
    """
    scenes = [product_of(Path(path).absolute()) for path in paths]
    target = Path(folder).absolute()
    check_names(scenes)
    reports: dict[int, SceneReport] = {}

    def end(number: int, report: SceneReport) -> None:
        reports[number] = report
        if done is not None:
            done(report)

    jobs: dict[int, _Job] = {}
    run = uuid.uuid4().hex
    for number, path in enumerate(scenes):
        try:
            settle(target, path.stem)
            check_targets(target, path.stem, mapping.overwrite)
        except FloraError as error:
            end(number, SceneReport(path, None, error, 0.0))
            continue
        # Whether maps may be replaced is decided by now; what a killed process left behind, or
        # a scene that is computed twice because its result was lost, must not be in the way.
        again = replace(mapping, overwrite=True)
        jobs[number] = _Job(run, path, target, make_predictor, reading, again, workers.threads)
    ended: Iterator[tuple[int, SceneReport]]
    if workers.here:
        ended = ((number, _run(job)) for number, job in jobs.items())
    else:
        ended = _run_on_cluster(jobs, workers)
    for number, report in ended:
        end(number, report)
    return [reports[number] for number in range(len(scenes))]


class _Job(NamedTuple):
    """One scene, as it is sent to a worker. `run` tells the models of different calls apart."""

    run: str
    path: Path
    folder: Path
    make_predictor: MakePredictor
    reading: SceneReading
    mapping: MapOptions
    threads: int


_models: dict[str, Predictor | SceneOtsu] = {}  # at most one: that of this process's run
_models_lock = threading.Lock()


def _run(job: _Job) -> SceneReport:
    """Map one scene in this process."""
    start = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        with job.reading.opened(job.path) as (scene, before):
            model = fitted(_model(job), scene)
            outputs = map_scene(scene, job.folder, model, before=before, **vars(job.mapping))
    except BREAKS as error:
        said = (
            error
            if isinstance(error, FloraError)
            else FloraError(f"{type(error).__name__}: {error}")
        )
        return SceneReport(job.path, None, said, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return SceneReport(job.path, outputs, None, time.perf_counter() - start)


def _model(job: _Job) -> Predictor | SceneOtsu:
    with _models_lock:
        if job.run not in _models:
            _models.clear()
            _models[job.run] = job.make_predictor()
        return _models[job.run]


def _run_on_cluster(jobs: dict[int, _Job], workers: Workers) -> Iterator[tuple[int, SceneReport]]:
    """Reports as scenes end. A defect of the library is raised, as it is without a cluster."""
    with _cluster(workers) as client:
        from distributed import KilledWorker, as_completed

        numbers = {client.submit(_run, job, pure=False): number for number, job in jobs.items()}
        for future in as_completed(list(numbers)):  # type: ignore[no-untyped-call]
            number = numbers.pop(future)
            error = future.exception()
            if isinstance(error, KilledWorker):
                reason = FloraError(
                    f"killed with its process {workers.retries + 1} times over, most likely out of "
                    "memory",
                    remedy="use fewer {workers}, a smaller {batch} or a smaller {tile}",
                    workers=NAME_ALONE,
                    batch=NAME_ALONE,
                    tile=NAME_ALONE,
                )
                yield number, SceneReport(jobs[number].path, None, reason, 0.0)
            else:
                yield number, future.result()
            future.release()  # a result that stays on a worker would be lost with it


@contextmanager
def _cluster(workers: Workers) -> Iterator[Any]:
    """A Dask client, of a running cluster or of processes that end with it."""
    try:
        import dask
        from distributed import Client, Nanny, Scheduler, SpecCluster
        from distributed.system import MEMORY_LIMIT
    except ModuleNotFoundError as error:
        raise FloraError(
            f"many scenes at once need {error.name}, which is not installed: "
            'pip install "flora[dask]"; or map without workers'
        ) from error
    if workers.address is not None:
        with _connect(Client, workers.address) as client:
            yield client
        return
    devices = [str(gpu) for gpu in workers.gpus] or [""] * workers.count
    # Nobody outside is to see or send anything; port 0 is any that is free.
    shared = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    quiet = logging.CRITICAL  # what matters of a killed process is in the reports
    worker = {"nthreads": 1, "memory_limit": MEMORY_LIMIT // len(devices), "silence_logs": quiet}
    specification = {
        number: {
            "cls": Nanny,
            "options": {**shared, **worker, "env": {"CUDA_VISIBLE_DEVICES": device}},
        }
        for number, device in enumerate(devices)
    }
    scheduler = {"cls": Scheduler, "options": {**shared, "allowed_failures": workers.retries}}
    # A scene waits at the scheduler until a worker is free: queued at a worker, it would be blamed
    # for what another scene does to that worker.
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        SpecCluster(  # type: ignore[no-untyped-call]
            specification, scheduler, silence_logs=quiet
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


@contextmanager
def _connect(client_type: Any, address: str) -> Iterator[Any]:
    try:
        client = client_type(address, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError, TypeError) as error:
        raise FloraError(
            f"no Dask scheduler answers there ({error})",
            argument="address",
            value=repr(address),
            remedy="start one with `dask scheduler`, and give the address that it prints, e.g. "
            "tcp://10.0.0.1:8786",
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
        except TimeoutError as error:
            raise FloraError(
                "the scheduler has no worker",
                argument="address",
                value=repr(address),
                remedy=f"start some with `dask worker {address} --nthreads 1`",
            ) from error
        yield client


def check_names(scenes: Sequence[Path]) -> None:
    """Refuse scenes whose maps, which are named after them, would have the same name.

    Some disks do not tell capitals from small letters.

    Raises:
        FloraError: If there are such scenes, or none at all.
    """
    if not scenes:
        raise FloraError("no scene, expected one or more", argument="paths")
    first: dict[str, Path] = {}
    for path in scenes:
        other = first.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise FloraError(
                f"{other} and {path} would write maps of the same name",
                argument="paths",
                remedy="rename one, or map them into two folders",
            )
