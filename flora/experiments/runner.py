"""Named experiments: the same data, crops and steps for every competitor, and a record of it all.

What is compared is in `flora.experiments.competitors`. A record in `results/` is built up trial
by trial (one competitor, one seed); what it holds already is not run again, and a trial that was
interrupted continues from its last checkpoint.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from flora.datasets import open_dataset
from flora.datasets.base import FloodDataset
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.experiments.competitors import Competitor, prepared
from flora.experiments.makers import Job, Setting
from flora.experiments.provenance import provenance, write_record
from flora.experiments.records import METRICS
from flora.files import write_text
from flora.models.network import Flora, parameter_count
from flora.models.norms import Norm
from flora.models.predict import predictor
from flora.models.unet import LateFusion, UNet
from flora.models.weights import load_any
from flora.training.config import TrainingConfig
from flora.training.evaluation import choose_device, evaluate, mean_image
from flora.training.teaching import teacher_scores


class Source(NamedTuple):
    """Where chips come from: a dataset, a split of it, and further options."""

    dataset: str
    split: str
    options: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Experiment:
    """A question, and the runs that answer it.

    Attributes:
        question: What is asked, in a sentence.
        train: Chips that all competitors are trained on.
        tests: Chips that they are scored on, by name; what each holds out is said in `holds_out`.
        holds_out: What the tests hold out of training.
        competitors: What is compared, by name.
        training: Length and schedule, the same for all; its seed is replaced by `seeds`.
        teacher_steps: Steps of FLoRA's teacher before that.
        size: Named size of FLoRA.
        norm: Normalisation of FLoRA where a competitor names none. Group normalisation in what
            was recorded before version 0.2 made layer normalisation the default.
        seeds: Seeds of initial weights and crops.
        cite: Attribution of the data.
        pairs: Chips whose images, never whose labels, may be trained on.

    Example:
        >>> from flora import TrainingConfig
        >>> from flora.experiments.competitors import Competitor
        >>> from flora.experiments.rules import Otsu
        >>> from flora.experiments.runner import Experiment, Source
        >>> experiment = Experiment(
        ...     question="Is a median filter worth its blur?",
        ...     train=Source("simulated", "train", {"count": 2, "size": 64}),
        ...     tests={"test": Source("simulated", "test", {"count": 2, "size": 64})},
        ...     holds_out="Other scenes of the same simulator.",
        ...     competitors={
        ...         "otsu": Competitor("Otsu", Otsu(band=1), "baseline"),
        ...         "median": Competitor("Otsu, 9 px", Otsu(band=1, median=9), "baseline"),
        ...     },
        ...     training=TrainingConfig(),
        ... )
        >>> len(experiment.competitors)
        2
    """

    question: str
    train: Source
    tests: Mapping[str, Source]
    holds_out: str
    competitors: Mapping[str, Competitor]
    training: TrainingConfig
    teacher_steps: int = 300
    size: str = "tiny"
    norm: Norm = "layer"
    seeds: tuple[int, ...] = (0, 1, 2)
    cite: str = ""
    pairs: Source | None = None


@dataclass
class Trial:
    """One competitor and one seed.

    Attributes:
        competitor: Name in the experiment.
        seed: Seed of weights and crops; None for what learns nothing.
    """

    competitor: str
    seed: int | None

    @property
    def name(self) -> str:
        """Its key in the record and the name of its folder."""
        return self.competitor if self.seed is None else f"{self.competitor}-{self.seed}"


@dataclass
class Runner:
    """Runs the trials of one experiment and keeps its record.

    Args:
        name: Name of the experiment, and of the record.
        experiment: What is asked.
        root: Folder that holds one folder a dataset; None if all chips are simulated.
        runs: Where weights, logs and checkpoints go.
        results: Where the record goes.
        lpips: A module from `flora.training.metrics.load_lpips`, or None to leave LPIPS out.
        quiet: Hide the progress bars.

    Example:
        >>> from dataclasses import replace
        >>> from pathlib import Path
        >>> from flora import load_record
        >>> from flora.experiments import named_experiment
        >>> from flora.experiments.competitors import Competitor
        >>> from flora.experiments.rules import Otsu
        >>> from flora.experiments.runner import Runner, Source
        >>> chips = {"count": 2, "size": 64}
        >>> otsu = replace(
        ...     named_experiment("simulated"),
        ...     train=Source("simulated", "train", chips),
        ...     tests={"test": Source("simulated", "test", chips)},
        ...     competitors={"otsu": Competitor("Otsu on VH", Otsu(band=1), "baseline")},
        ... )
        >>> record = Runner("otsu", otsu, None, Path("runs"), Path("results")).run()
        >>> load_record("otsu", folder=Path("results"))["trials_done"]
        1
    """

    name: str
    experiment: Experiment
    root: Path | None
    runs: Path
    results: Path
    lpips: nn.Module | None = None
    quiet: bool = False
    _open: dict[str, FloodDataset] = field(default_factory=dict, init=False, repr=False)

    def trials(self) -> Iterator[Trial]:
        """All trials, every competitor with the first seed before any with the second."""
        competitors = self.experiment.competitors
        for seed in self.experiment.seeds:
            for name, competitor in competitors.items():
                if competitor.learns:
                    yield Trial(name, seed)
                elif seed == self.experiment.seeds[0]:
                    yield Trial(name, None)

    def run(self, only: Iterable[str] = (), seeds: Iterable[int] = ()) -> Path:
        """Run what is asked for and not yet recorded.

        Args:
            only: Names of competitors; all if empty.
            seeds: Some of the experiment's seeds; all if empty.

        Returns:
            The record.

        Raises:
            FloraError: If a name or seed is unknown, files are missing, or a training fails.
        """
        unknown = sorted(set(only) - set(self.experiment.competitors))
        if unknown:
            raise FloraError(
                f"competitors {', '.join(unknown)}: {self.name} has "
                f"{', '.join(self.experiment.competitors)}"
            )
        strange = sorted(set(seeds) - set(self.experiment.seeds))
        if strange:
            raise FloraError(
                f"seeds {', '.join(map(str, strange))}: {self.name} is defined for "
                f"{', '.join(map(str, self.experiment.seeds))}"
            )
        for trial in self.trials():
            asked = not only or trial.competitor in only
            asked = asked and (trial.seed is None or not seeds or trial.seed in seeds)
            if asked and trial.name not in self._finished():
                outcome = self.runs / self.name / trial.name / "trial.json"
                write_text(outcome, json.dumps(self._run(trial)))
                self.write()
        return self.write()

    def write(self) -> Path:
        """Write the record of all finished trials, with means and spreads over seeds."""
        finished = self._finished()
        order = [trial.name for trial in self.trials() if trial.name in finished]
        experiment = self.experiment
        record = {
            "experiment": self.name,
            "question": experiment.question,
            "holds_out": experiment.holds_out,
            "size": experiment.size,
            "teacher_steps": experiment.teacher_steps,
            "training": asdict(experiment.training),
            "train": self._manifest(experiment.train),
            "tests": {name: self._manifest(test) for name, test in experiment.tests.items()},
            "cite": experiment.cite,
            "trials_planned": len(list(self.trials())),
            "trials_done": len(order),
            "competitors": {
                name: {
                    "says": competitor.says,
                    "group": competitor.group,
                    "needs_optical": competitor.modes[0] != "sar",
                    "scores": summary(
                        finished[trial.name]["scores"]
                        for trial in self.trials()
                        if trial.competitor == name and trial.name in finished
                    ),
                }
                for name, competitor in experiment.competitors.items()
            },
            "trials": {name: finished[name] for name in order},
        }
        path = self.results / f"{self.name}.json"
        write_record(path, record)
        return path

    def _run(self, trial: Trial) -> dict[str, Any]:
        experiment = self.experiment
        competitor = experiment.competitors[trial.competitor]
        folder = self.runs / self.name / trial.name
        chips = self._prepared(experiment.train, competitor)
        tests = {
            name: self._prepared(test, competitor, test=True)
            for name, test in experiment.tests.items()
        }
        _check_modes(trial.competitor, competitor, tests)
        started, resumed = time.monotonic(), folder.exists()
        device = choose_device()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        model: Flora | UNet | LateFusion | None = None
        described: dict[str, Any] = {"model": competitor.by.kind}
        if trial.seed is not None:
            training = replace(experiment.training, seed=trial.seed)
            pairs = experiment.pairs
            setting = Setting(
                experiment.size,
                experiment.teacher_steps,
                experiment.norm,
                None if pairs is None else self._prepared(pairs, competitor),
                self.lpips,
            )
            job = Job(chips, training, folder, setting, self.quiet)
            made = competitor.by.make(job)  # type: ignore[union-attr]
            model = load_any(made.weights).to(device)
            described |= {"parameters": parameter_count(model), **made.notes}
            if made.teacher is not None:
                described["teacher"] = {
                    name: rounded(teacher_scores(made.teacher, data))
                    for name, data in tests.items()
                }
        trained = time.monotonic()
        constant = mean_image(chips)
        scores: dict[str, Any] = {}
        for name, data in tests.items():
            scores[name] = {}
            for mode in competitor.modes:
                predict = competitor.by.predictor() if model is None else predictor(model)  # type: ignore[union-attr]
                score = evaluate(predict, data, mode, device, self.lpips, mean_image=constant)
                scores[name][mode] = rounded(score)
        return {
            "competitor": trial.competitor,
            "seed": trial.seed,
            **described,
            "wall_s": {
                "training": round(trained - started, 1),
                "evaluation": round(time.monotonic() - trained, 1),
                "training_was_resumed": resumed,
            },
            "peak_memory_mb": _peak_memory_mb(device),
            "scores": scores,
            "provenance": provenance(),
        }

    def _prepared(self, source: Source, competitor: Competitor, test: bool = False) -> FloodDataset:
        """The chips of a source as a competitor sees them, kept in memory between trials."""
        options = {**source.options, **competitor.options}
        key = json.dumps([source.dataset, source.split, options], default=str)
        if key not in self._open:
            root = None
            if source.dataset != "simulated":
                if self.root is None:
                    raise FloraError(
                        f"{self.name} reads {source.dataset}: pass the folder that holds "
                        f"{source.dataset}/ as --root"
                    )
                root = self.root / source.dataset
            self._open[key] = InMemory(open_dataset(source.dataset, root, source.split, **options))
        return prepared(self._open[key], competitor, test)

    def _manifest(self, source: Source) -> dict[str, Any]:
        plain = Competitor("as it is")
        chips = self._prepared(source, plain)
        return {
            "dataset": source.dataset,
            "split": source.split,
            "options": {k: v for k, v in source.options.items()},
            "chips": len(chips),
            "sha256": chips.manifest_hash(),
            "ids": _abbreviated(chips.manifest()),
        }

    def _finished(self) -> dict[str, dict[str, Any]]:
        """Trials of the record, and those that other processes have written beside it since."""
        finished = recorded_trials(self.results / f"{self.name}.json")
        for path in sorted((self.runs / self.name).glob("*/trial.json")):
            finished[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
        return finished


def _check_modes(name: str, competitor: Competitor, tests: Mapping[str, FloodDataset]) -> None:
    """Refuse, before hours of training, what no test could score."""
    lacking = [test for test, chips in tests.items() if "before" not in chips[0]]
    if "before" in competitor.modes and lacking:
        raise FloraError(
            f'competitor {name}: is scored in mode "before", but the chips of {", ".join(lacking)} '
            "have no optical image from before the flood; leave the mode out of its modes"
        )


def summary(trials: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds, per test, mode and metric.

    Returns:
        test -> mode -> metric -> {"mean", "sd" (None for one trial), "n"}; metrics that a trial
        lacks are left out.
    """
    gathered: dict[tuple[str, str, str], list[float]] = {}
    for scores in trials:
        for test, modes in scores.items():
            for mode, score in modes.items():
                for metric in METRICS:
                    if metric in score["all"]:
                        gathered.setdefault((test, mode, metric), []).append(score["all"][metric])
    result: dict[str, Any] = {}
    for (test, mode, metric), values in gathered.items():
        result.setdefault(test, {}).setdefault(mode, {})[metric] = {
            "mean": round(statistics.mean(values), 5),
            "sd": round(statistics.stdev(values), 5) if len(values) > 1 else None,
            "n": len(values),
        }
    return result


def rounded(values: Any, digits: int = 5) -> Any:
    """Nested plain values with all floats rounded."""
    if isinstance(values, dict):
        return {key: rounded(value, digits) for key, value in values.items()}
    return round(values, digits) if isinstance(values, float) else values


def recorded_trials(path: Path) -> dict[str, dict[str, Any]]:
    """The finished trials of a record by name; none where there is no record."""
    if not path.exists():
        return {}
    trials: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
    return trials


def _abbreviated(names: list[str], most: int = 800) -> list[str]:
    """The ids of a split; of a larger one the first and last, the hash stands for the rest."""
    return names if len(names) <= most else [*names[:3], "...", *names[-3:]]


def _peak_memory_mb(device: torch.device) -> int:
    """Peak memory of the GPU since the trial began, or of the process since it began."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
