"""What the benchmarks count and conclude; their speeds are no test's matter."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from benchmarks import (
    area_interval,
    averaging,
    calibration,
    label_bound,
    real_threshold,
    released_bands,
    roofline,
    scenes,
    season,
    throughput,
    uncertainty,
)
from benchmarks.alignment import displacements, moved_by, offset_field, sampled, true_offsets
from benchmarks.likelihood import Areas
from benchmarks.other_products import OfProduct, changed, coarse, fewer_looks, gamma0
from benchmarks.roofline import bound, count_operations, count_traffic, take_turns
from benchmarks.speed import medians
from benchmarks.throughput import figures, prepare, waiting
from benchmarks.variants import Setup, Variant, build, left_out, native_precision, variants
from flora.datasets.base import Window
from flora.datasets.changes import moved
from flora.datasets.simulated import Simulated
from flora.datasets.wrapped import InMemory
from flora.models.calibration import Calibration
from flora.models.config import SIZES
from flora.models.network import Flora
from flora.predictors import Prediction
from flora.sensors import OpticalStack
from flora.training.config import TrainingConfig
from flora.training.fit import fit
from flora.training.tasks import StudentTask

CPU = torch.device("cpu")
SETUP = Setup("tiny", chip=32, crop=32, device="cpu")


# --- counting -----------------------------------------------------------------------------------


def test_operations_are_two_a_multiply_add():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert count_operations(lambda: left @ right) == 2 * 3 * 5 * 7
    convolution = nn.Conv2d(2, 4, 3, padding=1, bias=False)
    image = torch.ones(1, 2, 8, 6)
    assert count_operations(lambda: convolution(image)) == 2 * (8 * 6) * (3 * 3 * 2) * 4


def test_attention_counts_its_two_products():
    tokens = torch.ones(2, 3, 16, 8)
    attention = nn.functional.scaled_dot_product_attention
    with torch.inference_mode():
        counted = count_operations(lambda: attention(tokens, tokens, tokens))
    assert counted == 2 * (2 * 3) * (2 * 16 * 16 * 8)


def test_training_needs_about_three_times_the_operations_of_a_forward_pass():
    forward = count_operations(build("inference", Variant(1), SETUP))
    step = count_operations(build("training", Variant(1), SETUP))
    # Twice more for the way back; the frozen teacher has none, the input needs no gradient.
    assert 2 < step / forward < 3.5
    assert count_operations(build("inference", Variant(3), SETUP)) == 3 * forward


KILO = torch.ones(250)  # 1,000 bytes


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda: KILO + 1, 2000),  # read, written
        (lambda: torch.add(KILO, KILO.clone()), 5000),  # the copy's 2,000, two reads, one write
        (lambda: KILO * KILO, 2000),  # one tensor is read once
        (lambda: KILO.view(10, 25).t()[2:], 0),
        (lambda: KILO.view(1, 250).expand(100, 250).sum(), 1004),  # as it is stored
        (lambda: KILO.relu_(), 2000),
        (lambda: torch.empty(250), 0),
        (lambda: torch.zeros(250), 1000),
        (lambda: torch.zeros_like(KILO), 1000),
        (lambda: torch.empty(250).copy_(KILO), 2000),
        (lambda: torch.cat([KILO, KILO]), 3000),
    ],
    # Numbered: workers that run the tests in parallel must agree on the names.
    ids=map(str, range(11)),
)
def test_traffic_by_hand(run, expected):
    assert count_traffic(run) == expected


def test_traffic_is_the_same_in_inference_mode():
    image, convolution = torch.ones(1, 2, 8, 6), nn.Conv2d(2, 4, 3)

    def run() -> torch.Tensor:
        return nn.functional.softmax(convolution(image).flatten(2), -1)

    with torch.no_grad():
        known = count_traffic(run)
    assert known > 4 * image.numel()
    with torch.inference_mode():
        assert count_traffic(run) == known


def test_traffic_of_the_way_back_is_counted():
    weight = torch.ones(250, requires_grad=True)
    forward = count_traffic(lambda: (weight * 2).sum())
    assert forward == 2000 + 1004
    # A gradient of 1 for the sum, stretched as a view; then it times 2, written for each weight.
    assert count_traffic(lambda: (weight * 2).sum().backward()) == forward + 4 + (4 + 1000)


# --- conclusions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "traffic", "start"),
    [
        (0.7, 0.6, "the matrix rate: 70% "),
        (0.3, 0.5, "the copy bandwidth: 30% of the matrix rate, 50% "),
        (0.49, 0.49, "neither: "),
        (0.1, 1.4, "the copy bandwidth: "),
        (0.6, None, "the matrix rate: "),
        (0.2, None, "not the matrix rate: "),
    ],
)
def test_what_bounds_follows_the_rule(matrix, traffic, start):
    assert bound(matrix, traffic).startswith(start)


def test_figures_by_hand():
    """4 chips of 100 x 100 px in 2 s: 1 km2 each; rates of 100 operations and 50 bytes a second."""
    rates = {"float32_operations_per_s": 100.0, "copy_bytes_per_s": 50.0}
    row = {"batch": 4, "precision": "float32"}
    found = figures(row, 100, 2.0, (40, 80), rates)
    assert found["samples_per_s"] == 2
    assert found["km2_per_s"] == pytest.approx(2)
    assert (found["operations_per_sample"], found["bytes_per_sample"]) == (10, 20)
    assert found["matrix_share"] == pytest.approx(0.2)
    assert found["copy_share"] == pytest.approx(0.8)
    assert found["bound_by"].startswith("the copy bandwidth")
    assert figures(row, 100, 2.0, (40, None), rates)["copy_share"] is None


# --- clocks -------------------------------------------------------------------------------------


def test_clocks_take_turns_and_the_median_is_taken():
    order, readings = [], {"a": iter([3.0, 1.0, 9.0]), "b": iter([5.0, 5.0, 6.0])}

    def clock(name: str) -> float:
        order.append(name)
        return next(readings[name])

    assert medians({"a": lambda: clock("a"), "b": lambda: clock("b")}, 3) == {"a": 3, "b": 5}
    assert order == ["a", "b"] * 3


def test_a_short_function_is_repeated_and_its_time_shared_out(monkeypatch):
    """A clock that advances 10 ms a call: 10 calls fill a sample of 0.1 s."""
    now = [0.0]
    calls = [0]

    def run() -> None:
        calls[0] += 1
        now[0] += 0.01

    monkeypatch.setattr(roofline, "clock_name", lambda _: "wall time")
    monkeypatch.setattr("benchmarks.speed.time.perf_counter", lambda: now[0])
    assert take_turns({"short": run}, 3, CPU)["short"] == pytest.approx(0.01)
    assert calls[0] in (1 + 3 * 10, 1 + 3 * 11)


def test_a_gpu_is_timed_between_two_events_once_it_is_idle(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("record")

        def synchronize(self) -> None:
            done.append("wait for the event")

        def elapsed_time(self, end: Event) -> float:
            return 250.0  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: done.append("wait for all"))
    assert roofline.seconds(lambda: done.append("run"), torch.device("cuda")) == 0.25
    assert done == ["wait for all", "record", "run", "record", "wait for the event"]


@pytest.mark.parametrize(("threads", "name"), [(1, "processor time"), (2, "wall time")])
def test_processor_time_is_for_one_thread_only(threads, name, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert roofline.clock_name(CPU).startswith(name)
    assert roofline.clock_name(torch.device("cuda")) == "CUDA events"


def test_the_rate_of_matrix_products_leaves_torch_as_it_was():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        roofline.matrix_product("float32", CPU, 8)()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert count_operations(roofline.matrix_product("float32", CPU, 8)) == 2 * 8**3


def test_a_copy_moves_its_bytes_twice():
    assert count_traffic(roofline.copy(CPU, 4000)) == 2 * 4000


# --- variants -----------------------------------------------------------------------------------


def test_variants_change_one_thing_of_the_first():
    rows = list(variants("training", [4, 1], CPU).values())
    first, others = rows[0], rows[1:]
    assert first == Variant(4, "float32")
    fields = ("batch", "precision", "channels_last", "compiled")
    changes = [sum(getattr(row, f) != getattr(first, f) for f in fields) for row in others]
    assert changes == [1] * len(others)
    assert {row.compiled for row in rows} == {"no", "model", "graphs", "step"}


def test_variants_of_a_gpu_start_from_what_fit_chooses(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr("benchmarks.variants._precision", lambda _: "bf16")
    rows = variants("inference", [8, 32], cuda)
    assert next(iter(rows.values())) == Variant(8, "bf16")
    assert rows["float32"].precision == "float32"
    assert rows["channels_last, compiled, batch 32"] == Variant(32, "bf16", True, "model")
    assert [left_out(row, cuda, True) for row in rows.values()] == [None] * len(rows)
    assert native_precision(CPU) == "float32"
    monkeypatch.setattr("benchmarks.variants._precision", lambda _: "no")
    old = variants("inference", [8], cuda)
    assert next(iter(old.values())).precision == "float32"
    assert "bf16" in (left_out(old["bf16"], cuda, True) or "")


def test_what_is_left_out_says_why():
    assert left_out(Variant(1), CPU, False) is None
    assert "--compile" in (left_out(Variant(1, compiled="model"), CPU, False) or "")
    assert left_out(Variant(1, compiled="model"), CPU, True) is None
    assert "GPU" in (left_out(Variant(1, compiled="graphs"), CPU, True) or "")
    assert "bf16" in (left_out(Variant(1, "bf16"), CPU, True) or "")


@pytest.fixture
def compiled(monkeypatch) -> list[tuple[str, str | None]]:
    """Modules that are given to torch.compile, none of which is compiled."""
    given = []
    monkeypatch.setattr(
        nn.Module,
        "compile",
        lambda module, mode=None, dynamic=None: given.append((type(module).__name__, mode)),
    )
    return given


@pytest.mark.parametrize(
    ("kind", "choice", "expected"),
    [
        ("inference", "model", [("Flora", None)]),
        ("training", "model", [("Flora", None)]),
        ("training", "graphs", [("Flora", "reduce-overhead")]),
        ("training", "step", [("StudentTask", None)]),
        ("training", "no", []),
    ],
)
def test_what_is_compiled(kind, choice, expected, compiled):
    build(kind, Variant(1, compiled=choice), SETUP)
    assert compiled == expected


@pytest.mark.parametrize("variant", [Variant(2, channels_last=True), Variant(2, "bf16")])
def test_variants_compute_the_same(variant):
    plain = build("inference", Variant(2), SETUP)()
    other = build("inference", variant, SETUP)()
    torch.testing.assert_close(other.rgb, plain.rgb, atol=0.03, rtol=0)
    if variant.channels_last:
        assert other.fused[0].is_contiguous(memory_format=torch.channels_last)
    else:
        assert not torch.equal(other.rgb, plain.rgb)


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])
def test_a_failed_compilation_is_absent_with_its_reason(kind, monkeypatch, compiled):
    def fails(*_: object) -> None:
        raise kind("\nno C++ compiler here\n  and a long report")

    monkeypatch.setattr(Flora, "forward", fails)
    reason = prepare("inference", Variant(1, compiled="model"), SETUP)
    assert reason == f"torch.compile: {kind.__name__}: no C++ compiler here"
    with pytest.raises(kind, match="no C"):  # a defect of the model is none of compiling
        prepare("inference", Variant(1), SETUP)


def test_a_batch_beyond_memory_is_absent(monkeypatch):
    def fails(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(Flora, "forward", fails)
    assert prepare("inference", Variant(1), SETUP) == "out of memory"


def test_memory_on_a_gpu_is_the_peak_of_a_warm_run_above_what_was_there(monkeypatch):
    """2 GB are there before; the first run, which compiles, takes 9 GB more, the others 3 GB."""
    peak = [0]
    calls = [0]

    def run() -> None:
        calls[0] += 1
        peak[0] = max(peak[0], 11_000_000_000 if calls[0] == 1 else 5_000_000_000)

    monkeypatch.setattr(throughput, "build", lambda *_: run)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2_000_000_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: peak.__setitem__(0, 0))
    gpu = Setup("tiny", chip=32, crop=32, device="cuda")
    assert prepare("training", Variant(1, "bf16"), gpu) == (run, 3.0)


# --- training -----------------------------------------------------------------------------------


def test_a_step_is_that_of_fit(tmp_path, monkeypatch):
    """Five steps of the benchmark leave the weights that `fit` leaves."""
    chips = InMemory(Simulated("train", count=2, size=64))
    config = TrainingConfig(steps=5, batch=2, crop=32, warmup=0.0)
    monkeypatch.setattr(TrainingConfig, "learning_rate_at", lambda self, _: self.learning_rate)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Flora(SIZES["tiny"]))
    start = [parameter.clone() for parameter in models[0].parameters()]
    fit(StudentTask(models[0]), chips, config, tmp_path / "run", quiet=True)
    monkeypatch.setattr(throughput, "Flora", lambda _: models[1])
    torch.manual_seed(config.seed)  # as `fit` does
    waiting(SETUP, chips, batch=2, workers=0, steps=2)
    after = [list(model.parameters()) for model in models]
    assert not all(torch.equal(a, b) for a, b in zip(after[0], start, strict=True))
    for here, there in zip(*after, strict=True):
        torch.testing.assert_close(here, there)


def test_waiting_is_the_share_of_a_slow_loader(monkeypatch):
    """A clock on which a batch takes 3 s and a step 1 s."""
    now = [0.0]

    def batches(*_: object) -> object:
        for _ in range(10):
            now[0] += 3
            yield {}

    def step(_: object) -> None:
        now[0] += 1

    monkeypatch.setattr(throughput, "_loader", batches)
    monkeypatch.setattr(throughput, "trainer", lambda *_: step)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    found = waiting(SETUP, Simulated("train", count=1), batch=2, workers=0, steps=4)
    assert found == {
        "workers": 0,
        "step_s": 4.0,
        "wait_s": 3.0,
        "wait_share": 0.75,
        "samples_per_s": 0.5,
    }


# --- the whole ----------------------------------------------------------------------------------


def test_the_record_of_a_small_run(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "peak_memory", lambda *_: 0.5)  # a fresh process takes seconds
    monkeypatch.setitem(throughput.MATRIX_SIDE, "cpu", 64)
    monkeypatch.setitem(throughput.COPY_BYTES, "cpu", 1 << 16)
    monkeypatch.setattr(roofline, "SAMPLE_S", 0.0)
    monkeypatch.setattr(throughput, "write_sen1floods11", write_small)
    path = tmp_path / "record.json"
    small = "--size tiny --device cpu --chip 32 --crop 32 --batches 2 1 --rounds 1 --steps 1"
    command = ["throughput.py", *small.split(), "--workers", "0", "--record", str(path)]
    monkeypatch.setattr(sys, "argv", [*command, "--note", "nothing else"])
    throughput.main()
    record = json.loads(path.read_text())
    assert record["inference"]["batch 2"]["ratio_to_first"] == 1
    for kind in ("inference", "training"):
        for name, row in record[kind].items():
            assert ("absent" in row) != ("samples_per_s" in row), name
            if "absent" not in row:
                share = row["operations_per_sample"] * row["samples_per_s"]
                assert row["matrix_share"] == pytest.approx(
                    share / record["rates"]["float32_operations_per_s"]
                )
                assert row["peak_memory_gb"] == 0.5
    assert record["inference"]["compiled"]["absent"].startswith("not asked for")
    assert len(record["load_average"]["start"]) == len(record["load_average"]["end"]) == 3
    assert 0 < record["waiting"][0]["wait_share"] < 1
    assert record["note"] == "nothing else"
    assert {"commit", "hardware"} <= set(record["provenance"])


def write_small(seeds, root):
    from flora.simulate.scene import write_sen1floods11

    return write_sen1floods11({"train": [0]}, root, size=64)


@pytest.mark.parametrize("wrong", ["0", "-3"])
def test_counts_below_one_are_refused(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--batches", wrong])
    with pytest.raises(SystemExit):
        throughput.main()
    assert "expected 1 or more" in capsys.readouterr().err


# --- scenes -------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("terratorch") is not None, reason="terratorch is installed here")
def test_a_run_whose_package_is_missing_is_recorded_as_absent(tmp_path, monkeypatch):
    record = tmp_path / "scenes.json"
    runs = ["plain loop", "U-Net R34 in terratorch"]
    chosen = [argument for run in runs for argument in ("--only", run)]
    options = ["--size", "130", "150", "--seams", "0", "--record", str(record), *chosen]
    monkeypatch.setattr(sys, "argv", ["scenes.py", *options])
    monkeypatch.setattr(scenes, "BLOCK", 64)
    scenes.main()
    written = json.loads(record.read_text())
    ran, absent = (written["runs"][run] for run in runs)
    # 130 x 150 px of 10 m
    assert ran["km2_per_s"] * ran["wall_s"] == pytest.approx(1.95)
    assert absent == {"absent": "ModuleNotFoundError: No module named 'terratorch'"}
    assert written["processor_ratio_to_first"] == {"plain loop": 1.0}
    assert "terratorch" not in written and "seams" not in written


# --- what is measured of calibration, shifts and other products ---------------------------------

FOUR = (np.array([0.9, 0.8, 0.3, 0.05]), np.array([True, False, False, False]))


def test_calibration_by_hand():
    assert calibration.brier(FOUR) == pytest.approx((0.01 + 0.64 + 0.09 + 0.0025) / 4)
    assert calibration.calibration_error(FOUR) == pytest.approx((0.1 + 0.8 + 0.3 + 0.05) / 4)
    assert calibration.iou(FOUR) == 0.5
    assert calibration.selective(FOUR)["0.5"] == 1.0  # the surest two are 0.05 and 0.9
    assert calibration.area(FOUR)["expected"] == pytest.approx(2.05 / 4)
    assert calibration.covered([FOUR]) == {"chips": 1, "covered": 1.0}
    sure_of_too_much = (np.array([0.99, 0.99]), np.array([True, False]))
    assert calibration.covered([FOUR, sure_of_too_much])["covered"] == 0.5


def test_answers_are_turned_back_before_they_are_averaged():
    sar = torch.arange(2 * 16, dtype=torch.float32).reshape(2, 4, 4) / 32
    valid = torch.ones(4, 4, dtype=torch.bool)

    def pixelwise(sar, valid, guide):
        return Prediction(sar[:, :1])

    def left_column(sar, valid, guide):
        return Prediction(torch.zeros_like(sar[:, :1]).index_fill(-1, torch.tensor([0]), 1.0))

    assert torch.allclose(calibration.turned(pixelwise, sar, valid), sar[0])
    sides = calibration.turned(left_column, sar, valid)
    assert torch.allclose(sides, sides.T) and torch.allclose(sides, sides.flip(0))


def test_a_moved_image_is_valid_only_where_it_came_from():
    layer = torch.arange(12.0).reshape(1, 3, 4)
    valid = torch.ones(3, 4, dtype=torch.bool)
    stack = moved(OpticalStack(layer, layer, valid), 1, -2)
    assert stack.valid.tolist() == [[False] * 4, *[[True, True, False, False]] * 2]
    assert stack.image[0, 1, 0] == layer[0, 0, 2]
    back = moved(stack, -1, 2)
    assert torch.equal(back.image, layer)
    assert back.valid.tolist() == [*[[False, False, True, True]] * 2, [False] * 4]


def smooth_features(seed: int) -> torch.Tensor:
    """(8, 64, 64) that change over a few positions."""
    noise = torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(noise, 3, 1, 1)[0]


def test_a_displaced_image_is_read_back_by_the_true_offsets():
    layer = smooth_features(0)
    valid = torch.ones(64, 64, dtype=torch.bool)
    stack = OpticalStack(layer, layer[:1], valid)
    fields = dict(displacements(1, torch.linspace(0, 50, 64).expand(64, 64)))
    shift = fields["shift 4 px"]
    displaced, expected = moved_by(stack, -shift), moved(stack, 0, 4)
    assert torch.equal(displaced.valid, expected.valid)
    seen = expected.image * expected.valid
    assert torch.allclose(displaced.image, seen, atol=1e-4)
    relief = fields["relief up to 8 px"]
    assert relief[1, :, 0].abs().max() == 0 and relief[1, 0, -1] == 8
    middle = (..., slice(16, -16), slice(16, -16))
    for name in ("rotation 2 degrees", "relief up to 8 px"):
        field = fields[name]
        place = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij"))
        back = sampled(sampled(place.float(), -field), true_offsets(field))
        assert (back - place)[middle].abs().max() < 0.01
        assert (sampled(place.float(), -field) - place)[middle].abs().max() > 0.5


def test_features_tell_their_offsets_and_strangers_none():
    guess, there = smooth_features(1), torch.ones(1, 64, 64, dtype=torch.bool)
    found = offset_field(guess, guess.roll((2, -3), (1, 2)), there, stride=2)
    middle = found[:, 12:-12, 12:-12]
    assert (middle - torch.tensor([2.0, -3.0])[:, None, None]).abs().max() < 0.2
    assert offset_field(guess, guess, there, stride=2).abs().max() == 0
    strangers = offset_field(guess, smooth_features(2), there, stride=2)
    assert (strangers.norm(dim=0) == 0).float().mean() > 0.8


def test_products_of_another_kind():
    flat = np.full((2, 64, 64), -12.0, dtype=np.float32)
    seen = np.ones((64, 64), dtype=bool)
    assert gamma0(60)(flat, seen, 0) == pytest.approx(flat + 3.0103, abs=1e-4)
    pair = flat.copy()
    pair[:, ::2] = -10.0 * np.log10(2.0)  # power 0.5 and, below, 0.0631
    assert coarse(pair, seen, 0) == pytest.approx(10 * np.log10((0.5 + 10**-1.2) / 2), abs=1e-4)
    seen[0, 0] = False
    pair[:, 0, 0] = 60.0  # what was not measured takes no part
    assert coarse(pair, seen, 0)[0, 0, 0] == pytest.approx(
        10 * np.log10((0.5 + 2 * 10**-1.2) / 3), abs=1e-4
    )
    power = 10 ** (fewer_looks(2.0)(flat, seen, 3)[0] / 10)
    # Of 2 looks in all on 4.4: relative variance (1 + 1/2) / (1 + 1/4.4) - 1 = 0.222.
    assert power.var() / power.mean() ** 2 == pytest.approx(0.222, rel=0.25)
    chip = Simulated("test", count=1, size=64)[0]
    assert not torch.equal(changed(chip, gamma0(38), 0)["sar"], chip["sar"])


def test_scenes_of_a_product_are_cropped_after_the_change():
    chips = Simulated("train", count=1, size=64)
    product = OfProduct(chips, "20 m pixels")
    assert product.manifest() != chips.manifest()
    crop = Window(3, 5, 16, 16)  # between the blocks of 2 x 2 px
    whole = product.read(0)["sar"]
    assert not torch.equal(whole, chips.read(0)["sar"])
    assert torch.equal(product.read(0, crop)["sar"], whole[:, 3:19, 5:21])


def test_those_who_say_how_sure_they_are_are_compared_with_the_first():
    label = torch.tensor([[1, 0], [0, 255]])
    said = torch.tensor([[0.9, 0.2], [0.4, 0.9]])
    surer = torch.tensor([[1.0, 0.1], [0.2, 0.0]])
    other = torch.tensor([[0.9, 0.2], [0.6, 0.9]])
    valid = torch.ones(2, 2, dtype=torch.bool)
    chips = iter([("one", torch.zeros(2, 2, 2), valid, label)] * 2)
    answers = {"plain": said, "surer": surer, "other": other}
    found = uncertainty.measure(lambda sar, valid: answers, chips)
    assert found["same_map"] == ["surer"]
    brier = {"plain": (0.01 + 0.04 + 0.16) / 3, "surer": (0.01 + 0.04) / 3}
    assert found["pooled"]["surer"]["brier"] == pytest.approx(brier["surer"], abs=1e-5)
    less = found["less_plain"]["surer"]["brier"]
    assert less["difference"] == pytest.approx(brier["surer"] - brier["plain"], abs=1e-5)
    assert found["less_plain"]["other"]["brier"]["difference"] == pytest.approx(0.2 / 3, abs=1e-5)


# --- seasons ------------------------------------------------------------------------------------


def test_scores_of_seasons_are_pooled_paired_and_of_the_mean_seed():
    # Two seeds, three scenes: water in both, and in either.
    worse = np.array([[[1, 4], [2, 4], [3, 8]], [[1, 4], [2, 4], [5, 8]]])
    better = worse + np.array([2, 0])
    found = season.compare(
        {"own network": {0: worse, 1: better}, "any number": {1: worse}, "Otsu": {0: worse[:1]}}
    )
    own = found["scores"]["own network"]["0"]
    assert own["mean"] == pytest.approx((6 / 16 + 8 / 16) / 2)
    assert own["seeds"] == [6 / 16, 8 / 16]
    assert own["low"] <= own["mean"] <= own["high"]
    step = found["steps"]["own network"]["0 to 1"]
    assert step["mean"] == pytest.approx(6 / 16)
    # Small scenes gain most, so the interval has a width, and all of it is a gain.
    assert 0 < step["low"] < step["mean"] < step["high"]
    assert found["any_less_own"]["1"]["high"] < 0


def test_a_network_of_pixels_learns_what_dates_tell():
    rng = np.random.default_rng(0)
    before = rng.normal(-12.0, 1.0, (8, 2, 32, 32)).astype(np.float32)
    water = np.zeros((32, 32), dtype=bool)
    water[:, :16] = True
    after = np.where(water, -20.0, -12.0) + rng.normal(0.0, 1.0, (2, 32, 32))
    one = season.Season(before, after.astype(np.float32), water, np.full((32, 32), True))
    assert one.features(0).shape == (1024, 6) and one.features(4).shape == (1024, 30)
    networks = season.learned([one], [4], losses := [])
    assert len(networks) == len(losses) == len(season.SEEDS)
    assert losses[0][-1] < losses[0][0]
    counts = season.network_counts([networks], [one], 4)[0]
    assert counts.shape == (3, 1, 2)
    assert (counts[..., 0] / counts[..., 1] > 0.9).all()


# --- the interval of the area -------------------------------------------------------------------


def test_scenes_outside_their_interval_are_counted_on_either_side():
    calibration = Calibration(wet=1, dry=1, shift=0, less=1, more=2, coverage=0.9)
    # Expected .3 with .1 in doubt: from .2 to .5.
    true = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.25]
    said = area_interval.judged([Areas(one, 0.3, 0.1, 1.0) for one in true], calibration)
    assert (said["covered"], said["too_low"], said["too_high"]) == (5 / 8, 1, 2)
    # Clopper and Pearson: the tails of a binomial of 8 that hold 2.5 % each.
    low, high = said["interval"]
    assert binom.sf(4, 8, low) == pytest.approx(0.025, rel=1e-3)
    assert binom.cdf(5, 8, high) == pytest.approx(0.025, rel=1e-3)


def test_answers_that_are_kept_are_gone_on_from(tmp_path, monkeypatch):
    asked = []

    def answers(count, size, skip):
        asked.append(skip)
        yield from ({"1 sar": {"water": Areas(n, 0.3, 0.1, 1.0)}} for n in range(skip, count))

    monkeypatch.setattr(area_interval, "answers", answers)
    keep = tmp_path / "160.jsonl"
    for count in (2, 3):
        found = [one["1 sar"]["water"] for one in area_interval.continued(keep, count, 160)]
        assert found == [Areas(n, 0.3, 0.1, 1.0) for n in range(count)]
    assert asked == [0, 2]


def test_averages_are_of_the_steps_and_leave_the_batch_alone():
    model = torch.nn.Linear(1, 1, bias=False)
    averages, batch = averaging.Averages(model), {"sar": torch.ones(1)}
    for weight in (0.0, 1.0, 2.0):
        torch.nn.init.constant_(model.weight, weight)
        assert averages(batch) is batch
    # The first weights as they are, then a hundredth of what comes: .99 * (.01 * 1) + .01 * 2.
    assert averages.of[0.99].module.weight.item() == pytest.approx(0.0299)
    assert averages.of[0.998].module.weight.item() == pytest.approx(0.998 * 0.002 + 0.004)


def test_the_chip_left_out_does_not_choose_its_threshold():
    def curve(best, height, even):
        ious = np.zeros(len(real_threshold.STEPS))
        ious[[real_threshold.STEPS.index(at) for at in (best, 0.5)]] = height, even
        return ious

    # Taken alike, heights decide: 0.9 for 0.8 against 0.4 and 0.3 for 0.1.
    ious = {"a": curve(0.1, 0.4, 0.2), "b": curve(0.1, 0.3, 0.1), "c": curve(0.8, 0.9, 0.0)}
    assert real_threshold.STEPS[real_threshold.chosen(ious.values())] == 0.8
    rows, gains = real_threshold.left_out(ious)
    assert [row["threshold"] for row in rows.values()] == [0.8, 0.8, 0.1]
    assert gains == pytest.approx([-0.2, -0.1, 0.0])
    assert rows["a"]["water_iou_at_0.5"] == 0.2


# --- what bounds a map of OMBRIA ------------------------------------------------------------------


def test_own_and_shared_mistakes_by_hand():
    counts = np.zeros((2, 2, 2), dtype=np.int64)  # label, radar, optical
    counts[0] = [[40, 6], [4, 10]]  # dry: radar alone errs on 4, both on 10
    counts[1] = [[3, 12], [5, 20]]  # flood: both err on 3, radar alone on 12
    found = label_bound.row(counts)
    assert found["flood"] == pytest.approx(40 / 100)
    assert found["errors_of_radar"] == pytest.approx((4 + 10 + 3 + 12) / 100)
    assert found["errors_of_optical"] == pytest.approx((6 + 10 + 3 + 5) / 100)
    assert (found["both_say_flood"], found["both_say_dry"]) == (0.10, 0.03)
    assert found["shared"] == pytest.approx((10 + 3) / 29)
    assert found["radar_miou"] == pytest.approx((46 / (46 + 29) + 25 / (25 + 29)) / 2)
    assert found["optical_miou"] == pytest.approx((44 / (44 + 24) + 32 / (32 + 24)) / 2)
    # With the label changed where both contradict it, 16 errors of radar are left.
    believed = (49 / (49 + 16) + 35 / (35 + 16)) / 2
    assert found["radar_miou_if_both_are_right"] == pytest.approx(believed)


def test_networks_that_share_no_mistake_leave_the_label_as_it_is():
    counts = np.zeros((2, 2, 2), dtype=np.int64)
    counts[0] = [[50, 5], [7, 0]]
    counts[1] = [[0, 8], [2, 28]]
    found = label_bound.row(counts)
    assert found["shared"] == 0
    assert found["radar_miou_if_both_are_right"] == found["radar_miou"] < 1


def test_every_answer_of_two_networks_has_one_colour():
    cases = [case for _, *cases in label_bound.CLASSES.values() for case in cases]
    assert sorted(cases) == sorted(np.ndindex(2, 2, 2))


# --- what the release takes for linear power ------------------------------------------------------


def test_one_bright_pixel_wipes_out_a_band():
    land = np.full((10, 10), -9.0, dtype=np.float32)
    assert released_bands.look(land) == (False, 0, 1.0)
    land[0, :4] = 5.0
    assert released_bands.look(land) == (False, 0, 0.96)
    land[5, 5] = 5.1
    assert released_bands.look(land) == (True, 1, 0.95)


def test_missing_pixels_are_0_db_to_the_release():
    half = np.full((10, 10), -9.0, dtype=np.float32)
    half[:5] = np.nan
    assert released_bands.look(half).wiped_out is False  # median of -9 and 0
    half[5, 0] = np.nan
    assert released_bands.look(half) == (True, 0, 1.0)
    assert released_bands.look(np.full_like(half, np.nan)) is None
