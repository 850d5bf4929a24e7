import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flora.datasets.base import Sample
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.errors import FloraError
from flora.models.checkpoints import load_state
from flora.models.config import FloraConfig
from flora.models.network import Flora
from flora.models.unet import UNet
from flora.models.weights import load_any, load_model
from flora.training.config import TrainingConfig
from flora.training.fit import fit
from flora.training.objective import LossWeights
from flora.training.pix2pix import Pix2PixTask
from flora.training.progress import read_log
from flora.training.recipes import Lesson, train
from flora.training.task import Learner
from flora.training.tasks import StudentTask, TeacherTask, UNetTask

SHAPE = FloraConfig(widths=(8, 16), attention_levels=(1,), window_sizes=(4,), heads=2)
SHORT = TrainingConfig(
    steps=12, batch=2, crop=32, checkpoint_every=3, validate_every=4, mixed_precision="no"
)


@pytest.fixture(scope="module")
def data() -> InMemory:
    return InMemory(Simulated("train", count=3, size=64))


def student() -> StudentTask:
    torch.manual_seed(0)
    return StudentTask(Flora(SHAPE))


def test_teacher_and_student_are_two_calls_of_one_loop(data: InMemory, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Flora(SHAPE)
    start = [p.clone() for p in model.teacher.parameters()]
    config = replace(SHORT, steps=30, learning_rate=5e-3)
    fit(TeacherTask(model), data, config, tmp_path / "teacher", quiet=True)
    taught = [p.clone() for p in model.teacher.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(start, taught, strict=True))
    result = fit(StudentTask(model), data, config, tmp_path / "student", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(taught, model.teacher.parameters(), strict=True))
    losses = [row["total"] for row in read_log(tmp_path / "student")]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert result.best == result.last and result.score is None


def test_weights_rebuild_the_model(data: InMemory, tmp_path: Path) -> None:
    task = student()
    result = fit(task, data, SHORT, tmp_path, valid=data, quiet=True)
    sar = data[0]["sar"][None]
    last = load_model(result.last)
    torch.testing.assert_close(last(sar).rgb, task.model.eval()(sar).rgb, atol=0, rtol=0)
    assert result.score == max(
        row["valid_miou"] for row in read_log(tmp_path) if "valid_miou" in row
    )
    torch.manual_seed(0)
    unet = fit(UNetTask(UNet(2, (8, 16))), data, SHORT, tmp_path / "unet", quiet=True)
    assert isinstance(load_any(unet.last), UNet)
    with pytest.raises(FloraError, match="expected those of FLoRA"):
        load_model(unet.last)


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from tests.training.test_fit import SHORT, student
from flora.datasets.wrapped import InMemory
from flora.datasets.simulated import Simulated
from flora.training.fit import fit
print("ready", flush=True)
data = InMemory(Simulated("train", count=3, size=64))
fit(student(), data, SHORT, Path(sys.argv[1]), valid=data, quiet=True)
"""


def start_run(folder: Path) -> subprocess.Popen[str]:
    script = RUN.format(tests=str(Path(__file__).resolve().parents[2]))
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def saved_step(folder: Path) -> int:
    path = folder / "state.pt"
    return int(load_state(path)["step"]) if path.exists() else 0


def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start_run(whole))
    # Killed as soon as a further state is seen on disk: somewhere in the steps after it.
    reached = [0]
    for _ in range(2):
        process = start_run(killed)
        while saved_step(killed) == reached[-1] and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached.append(saved_step(killed))
    assert 0 < reached[1] < SHORT.steps
    finish(start_run(killed))
    for name in ("last", "best"):
        a = load_file(whole / f"{name}.safetensors")
        b = load_file(killed / f"{name}.safetensors")
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert read_log(whole) == read_log(killed)


@pytest.mark.parametrize("stop", [3, 6, 7, 11])
def test_a_run_stopped_after_any_step_resumes_exactly(
    data: InMemory, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(student(), data, SHORT, tmp_path / "whole", valid=data, quiet=True)
    task = student()
    calls = 0
    forward = StudentTask.forward

    def interrupted(self: StudentTask, batch: object) -> object:
        nonlocal calls
        if calls == stop:
            raise KeyboardInterrupt
        calls += 1
        return forward(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StudentTask, "forward", interrupted)
        fit(task, data, SHORT, tmp_path / "stopped", valid=data, quiet=True)
    resumed = fit(student(), data, SHORT, tmp_path / "stopped", valid=data, quiet=True)
    a, b = load_file(whole.last), load_file(resumed.last)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.score == resumed.score


def test_another_seed_gives_other_weights(data: InMemory, tmp_path: Path) -> None:
    a = fit(student(), data, SHORT, tmp_path / "a", quiet=True)
    b = fit(student(), data, replace(SHORT, seed=1), tmp_path / "b", quiet=True)
    first, second = load_file(a.last), load_file(b.last)
    assert any(not torch.equal(first[k], second[k]) for k in first)


def test_a_folder_with_another_run_is_refused(data: InMemory, tmp_path: Path) -> None:
    fit(student(), data, SHORT, tmp_path, quiet=True)
    with pytest.raises(FloraError, match="another config"):
        fit(student(), data, replace(SHORT, learning_rate=1e-4), tmp_path, quiet=True)
    with pytest.raises(FloraError, match="another data"):
        fit(student(), Simulated("train", count=2, size=64), SHORT, tmp_path, quiet=True)
    with pytest.raises(FloraError, match="another validation"):
        fit(student(), data, SHORT, tmp_path, valid=data, quiet=True)
    other = StudentTask(student().model, LossWeights(dice=5.0))
    with pytest.raises(FloraError, match="another model"):
        fit(other, data, SHORT, tmp_path, quiet=True)
    torch.manual_seed(9)
    with pytest.raises(FloraError, match="another starting weights"):
        fit(StudentTask(Flora(SHAPE)), data, SHORT, tmp_path, quiet=True)


def test_a_finished_run_is_not_trained_again(data: InMemory, tmp_path: Path) -> None:
    first = fit(student(), data, SHORT, tmp_path, quiet=True)
    stamp = first.last.stat().st_mtime_ns
    again = fit(student(), data, SHORT, tmp_path, quiet=True)
    assert again.last.stat().st_mtime_ns == stamp


def test_weights_of_another_size_are_refused(data: InMemory, tmp_path: Path) -> None:
    from flora.models.checkpoints import load_weights

    result = fit(student(), data, SHORT, tmp_path, quiet=True)
    wider = Flora(replace(SHAPE, widths=(16, 16)))
    with pytest.raises(FloraError, match="tensors differ from the model"):
        load_weights(wider, result.last)
    for bad in (b"", b"not a safetensors file"):
        broken = tmp_path / "broken.safetensors"
        broken.write_bytes(bad)
        with pytest.raises(FloraError, match="not a readable safetensors file"):
            load_model(broken)
    with pytest.raises(FloraError, match="no such file"):
        load_model(tmp_path / "absent.safetensors")


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"step": Harmful()}, tmp_path / "state.pt")
    with pytest.raises(FloraError, match="is damaged, or not a training state"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "executed").exists()


def test_divergence_stops_with_an_error(data: InMemory, tmp_path: Path) -> None:
    task = student()
    for parameter in task.model.water_decoder.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(
        FloraError, match="the loss is not finite at step 0: lower the learning rate"
    ):
        fit(task, data, SHORT, tmp_path, quiet=True)
    assert not (tmp_path / "last.safetensors").exists()


def test_a_gradient_that_is_not_finite_stops_before_it_is_used(
    data: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = student()
    weight = task.model.water_decoder.head[0].weight
    weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloraError, match="gradient is not finite at step 0"):
        fit(task, data, SHORT, tmp_path, quiet=True)
    assert weight.isfinite().all() and not (tmp_path / "last.safetensors").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch": 0}, {"seed": -1}, {"checkpoint_every": 0},
        {"learning_rate": -1.0}, {"learning_rate": float("nan")}, {"warmup": 2.0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(FloraError, match=f"{next(iter(wrong))} .*expected"):
        replace(SHORT, **wrong)  # type: ignore[arg-type]


def test_a_validation_split_of_one_class_is_refused(data: InMemory, tmp_path: Path) -> None:
    class Unlabelled(InMemory):
        def read(self, index: int, window: object = None) -> Sample:
            sample = Sample(**self.dataset.read(index))
            sample["water"] = torch.full_like(sample["water"], 255)
            return sample

    with pytest.raises(FloraError, match="no two-class mIoU"):
        fit(student(), data, SHORT, tmp_path, valid=Unlabelled(data.dataset), quiet=True)


def test_a_teacher_is_no_model_to_deploy(data: InMemory, tmp_path: Path) -> None:
    result = fit(TeacherTask(student().model), data, SHORT, tmp_path, quiet=True)
    with pytest.raises(FloraError, match="pre-trained teacher"):
        load_model(result.last)


def test_crop_larger_than_the_chip_is_refused(data: InMemory, tmp_path: Path) -> None:
    with pytest.raises(FloraError, match="crop 128 is larger than chip"):
        fit(student(), data, replace(SHORT, crop=128), tmp_path, quiet=True)


def test_unwritable_folder_is_refused_and_nothing_is_left(data: InMemory, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(FloraError, match="cannot make the folder"):
        fit(student(), data, SHORT, blocked / "run", quiet=True)


def test_a_chip_that_cannot_be_read_leaves_no_folder(data: InMemory, tmp_path: Path) -> None:
    def broken(batch: object) -> object:
        raise FloraError("damaged")

    (tmp_path / "there").mkdir()
    for folder in ("new/run/teacher", "there"):
        with pytest.raises(FloraError, match="damaged"):
            fit(student(), data, SHORT, tmp_path / folder, quiet=True, change=broken)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_full_disk_leaves_the_state_before(
    data: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    save = torch.save

    def fill_up(state: object, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    with monkeypatch.context() as patch, pytest.raises(FloraError, match="No space left"):
        patch.setattr(torch, "save", fill_up)
        fit(student(), data, SHORT, tmp_path / "full", quiet=True)
    names = {path.name for path in (tmp_path / "full").iterdir()}
    assert names == {"state.pt", "log.jsonl"}
    resumed = fit(student(), data, SHORT, tmp_path / "full", quiet=True)
    whole = fit(student(), data, SHORT, tmp_path / "whole", quiet=True)
    a, b = load_file(resumed.last), load_file(whole.last)
    assert all(torch.equal(a[k], b[k]) for k in a)


SHARE = """
import json, os, sys
from pathlib import Path
from accelerate import Accelerator
from flora.datasets.simulated import Simulated
from flora.training.config import TrainingConfig
from flora.training.fit import _loader
config = TrainingConfig(steps=2, batch=2, crop=32)
loader = _loader(Simulated("train", count=8, size=64), config, 0, Accelerator())
ids = [meta["id"] for batch in loader for meta in batch["meta"]]
Path(sys.argv[1], os.environ["RANK"]).write_text(json.dumps(ids))
"""


def two_processes(script: Path, argument: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*command, "--standalone", str(script), str(argument)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr


def test_two_processes_see_different_crops(tmp_path: Path) -> None:
    script = tmp_path / "share.py"
    script.write_text(SHARE)
    two_processes(script, tmp_path)
    first, second = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    # Two steps of two crops for each of two processes are one epoch of the eight scenes.
    assert len(first) == len(second) == 4
    assert set(first) | set(second) == set(Simulated("train", count=8, size=64).manifest())


def test_two_processes_share_one_training(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(RUN.format(tests=str(Path(__file__).resolve().parents[2])))
    for _ in range(2):  # the second call finds a finished run of two processes
        two_processes(script, tmp_path / "run")
    assert [row["step"] for row in read_log(tmp_path / "run")] == list(range(1, 13))
    data = InMemory(Simulated("train", count=3, size=64))
    with pytest.raises(FloraError, match="another processes"):
        fit(student(), data, SHORT, tmp_path / "run", valid=data)


def test_the_learning_rate_rises_and_falls() -> None:
    config = TrainingConfig(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.01


def test_the_log_is_plain_json_lines(data: InMemory, tmp_path: Path) -> None:
    fit(student(), data, SHORT, tmp_path, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert {"total", "lr", "dice", "bce", "hydrology", "distill_prior"} <= rows[0].keys()


def test_only_matrices_and_kernels_decay() -> None:
    model = Flora(SHAPE)
    decayed, kept = Learner(model).groups(learning_rate=1e-3, weight_decay=0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {id(p) for group in (decayed, kept) for p in group["params"]} == set(names)
    spared = {names[id(p)].rsplit(".", 1)[-1] for p in kept["params"]}
    assert {"bias", "weight"} <= spared  # those of norms
    assert any("position_bias" in names[id(p)] for p in kept["params"])
    assert all(p.ndim > 1 and "position_bias" not in names[id(p)] for p in decayed["params"])


def test_learners_have_their_own_rate_and_clipping(data: InMemory, tmp_path: Path) -> None:
    task = Pix2PixTask(UNet(2, (8, 16), optical_channels=3), 3)
    generator, discriminator = (
        learner.groups(SHORT.learning_rate, 0.0)[0] for learner in task.learners()
    )
    assert generator["peak"] == discriminator["peak"] == 2e-4
    assert generator["betas"] == discriminator["betas"] == (0.5, 0.999)
    # A step of Adam moves a weight by at most about its learning rate: the paper's, not the run's.
    before = [p.detach().clone() for p in task.model.parameters()]
    fit(task, data, replace(SHORT, steps=1, learning_rate=1.0, warmup=0), tmp_path, quiet=True)
    moved = max((a - b).abs().max() for a, b in zip(before, task.model.parameters(), strict=True))
    assert 0 < moved < 1e-3


def test_the_teachers_training_knows_no_ablated_loss(data: InMemory, tmp_path: Path) -> None:
    runs = [
        train(SHAPE, data, tmp_path / name, student=SHORT, teacher=SHORT, lesson=lesson, quiet=True)
        for name, lesson in (("whole", None), ("no-dice", Lesson(LossWeights(dice=0.0))))
    ]
    teachers = [load_file(run.folder.parent / "teacher" / "last.safetensors") for run in runs]
    assert all(torch.equal(teachers[0][name], teachers[1][name]) for name in teachers[0])
    students = [load_file(run.last) for run in runs]
    assert any(not torch.equal(students[0][name], students[1][name]) for name in students[0])
