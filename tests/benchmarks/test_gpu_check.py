"""GPU check on the CPU with small sizes: every part gives results, and no failure ends the others."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu import ddp, event_driven, networks, processes, training
from benchmarks.gpu.cases import OUT_OF_TIME, Cases, Values
from benchmarks.gpu.marked_tests import run_marked
from benchmarks.gpu.networks import COMPILED, FORWARD, TASKS, TRAIN
from benchmarks.gpu.processes import IN_PROGRESS, ROOT, Part, ProcessFailed, run_or_raise, run_part, share_of_time
from benchmarks.gpu.profiles import profile_work
from benchmarks.gpu.report import DONE, FAILED, SKIPPED, Row, append_row, part_report, read_rows
from benchmarks.gpu_check import PARTS, main, parse
from slowfast.cli.main import main as slowfast
from slowfast.cli.model_table import published_configs
from tests.benchmarks.test_networks import SETTING

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PART = Part("one", "One part", 1, "nowhere:nothing")


@pytest.fixture
def cases(tmp_path: Path) -> Cases:
    """A runner without a time limit."""
    return Cases(tmp_path, PART.name, CPU, math.inf)


def rows_of(cases: Cases) -> dict[str, Row]:
    return {row["case"]: row for row in read_rows(cases.folder)}


@pytest.mark.extensive
def test_the_command_names_the_machine_first_and_reports_each_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), "--seconds", "300", "--parts", "tests", "machine"]) == 0
    output = capsys.readouterr().out
    assert f"torch {torch.__version__}" in output.splitlines()[0] and "matmul fp32" in output.splitlines()[0]
    assert (tmp_path / "out" / "report.txt").read_text() == output
    rows = read_rows(tmp_path / "out", "tests")
    assert len(rows) > 20 and all("test_event_driven_cuda.py::" in row["case"] for row in rows)
    if not torch.cuda.is_available():
        assert all(row["status"] == SKIPPED for row in rows) and "skipped (needs a GPU): " in output
    with pytest.raises(SystemExit):
        parse(["--out", str(tmp_path / "out")])
    assert "Choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["", "--out d --parts nothing", "--out d --seconds 0", "--out d --seconds nan"])
def test_a_wrong_command_line_ends_with_status_2(line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())
    assert ended.value.code == 2


def test_time_that_a_part_leaves_goes_to_the_parts_after_it() -> None:
    parts = list(PARTS.values())
    assert parts[0].name == "machine" and parts[1].name == "tests"
    assert 80 < share_of_time(parts[1:], 490) < 120
    assert share_of_time(parts[-1:], 77) == 77
    assert share_of_time(parts, 30) == 15 and share_of_time(parts, 9) == 9  # a shorter part would measure nothing


def test_a_failing_case_does_not_end_the_others(cases: Cases) -> None:
    def fail() -> Values:
        raise RuntimeError("first line\nsecond line")

    def need() -> Values:
        import package_that_does_not_exist  # noqa: F401

        return {}

    cases.run("bad", fail)
    cases.run("lacking", need)
    cases.run("good", lambda: {"ms": 2.0})
    rows = rows_of(cases)
    assert rows["bad"] | {"status": FAILED, "reason": "RuntimeError: first line"} == rows["bad"]
    assert "second line" in (cases.folder / "errors.txt").read_text()
    assert rows["lacking"]["status"] == SKIPPED and "package_that_does_not_exist" in rows["lacking"]["reason"]
    assert rows["good"]["status"] == DONE and rows["good"]["ms"] == 2.0


def test_finished_cases_are_not_repeated_and_late_ones_are_skipped(cases: Cases) -> None:
    def must_not_run() -> Values:
        raise AssertionError

    cases.run("a", dict)
    Cases(cases.folder, PART.name, CPU, math.inf).run("a", must_not_run)
    Cases(cases.folder, PART.name, CPU, 0).run("b", must_not_run)
    assert [row["status"] for row in read_rows(cases.folder)] == [DONE, SKIPPED]
    assert rows_of(cases)["b"]["reason"] == OUT_OF_TIME


# A part whose second case kills the process, unless it has a row already; the first argument is the folder.
CRASHING = """
import os, signal, sys, time
from pathlib import Path
from typing import Any
from benchmarks.gpu.processes import IN_PROGRESS
from benchmarks.gpu.report import append_row, finished_cases
folder = Path(sys.argv[1])
for case in ("first", "second", "third"):
    if case in finished_cases(folder, "one"):
        continue
    (folder / IN_PROGRESS).write_text('["one", "%s"]' % case)
    if case == "second":
        print("last line of the output", flush=True)
        {act}
    append_row(folder, {{"part": "one", "case": case, "status": "done"}})
    (folder / IN_PROGRESS).unlink()
"""


def run_script(folder: Path, act: str, seconds: float) -> list[tuple[str, str]]:
    """Run a part whose second case ends the process; return cases and statuses."""
    command = [sys.executable, "-c", CRASHING.format(act=act), str(folder)]
    run_part(folder, PART, seconds, seconds, lambda part, left: command)
    return [(row["case"], row["status"]) for row in read_rows(folder)]


def test_a_crash_costs_the_case_that_was_running(tmp_path: Path) -> None:
    rows = run_script(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)", 60)
    assert rows == [("first", DONE), ("second", FAILED), ("third", DONE)]
    assert "signal 11" in read_rows(tmp_path)[1]["reason"]
    assert "last line of the output" in (tmp_path / "errors.txt").read_text()


def test_a_part_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MIN_SECONDS", 0.1)
    assert run_script(tmp_path, "time.sleep(600)", 3) == [("first", DONE), ("second", SKIPPED)]
    assert "time of the part was over" in read_rows(tmp_path)[1]["reason"]


def test_a_part_that_cannot_start_is_a_failure(tmp_path: Path) -> None:
    run_part(tmp_path, PART, 60, 60, lambda part, left: [sys.executable, "-c", "raise SystemExit(3)"])
    run_part(tmp_path, PART, 1, 1, lambda part, left: ["must not be started"])
    assert [(row["status"], row["reason"]) for row in read_rows(tmp_path)] == [
        (FAILED, "the process ended with status 3"),
        (SKIPPED, "no time left"),
    ]


def test_ending_the_check_ends_its_processes(tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "out"), "--parts", "morphmlp"]
    check = subprocess.Popen([sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), *options])
    while check.poll() is None and not (tmp_path / "out" / IN_PROGRESS).exists():
        time.sleep(0.05)
    parts = psutil.Process(check.pid).children()
    check.send_signal(signal.SIGTERM)
    assert check.wait(30) == 128 + signal.SIGTERM
    assert parts and not any(part.is_running() for part in parts)


def test_a_failed_process_tells_its_last_output() -> None:
    with pytest.raises(ProcessFailed, match=r"(?s)status 4.*a reason"):
        run_or_raise([sys.executable, "-c", "print('a reason'); raise SystemExit(4)"], 60)
    with pytest.raises(ProcessFailed, match="exceeded 1 s"):
        run_or_raise([sys.executable, "-c", "import time; time.sleep(600)"], 1)


def test_the_report_lists_what_failed_and_counts_what_was_skipped(tmp_path: Path) -> None:
    append_row(tmp_path, {"part": "one", "case": "a", "status": DONE, "ms": 1.23456, "text": "more about it"})
    append_row(tmp_path, {"part": "one", "case": "b", "status": FAILED, "reason": "broken"})
    for number in range(9):
        append_row(tmp_path, {"part": "one", "case": f"s{number}", "status": SKIPPED, "reason": "no GPU"})
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"part": "one", "ca')  # the process was killed while writing
    report = part_report("One part", read_rows(tmp_path, "one"), 3.2)
    assert "One part (1 done, 1 failed, 9 skipped; 3 s)" in report
    assert "1.235" in report and "more about it" in report and "failed: b: broken" in report
    assert "skipped (no GPU): s0; s1; s2; s3; s4; s5 and 3 more" in report


@pytest.mark.parametrize(("share", "verdict"), [(50.0, "met"), (49.9, "NOT MET")])
def test_goals_are_judged(share: float, verdict: str) -> None:
    row = {"part": "one", "case": "K400_MLP_S16x4 train bf16", "status": DONE, "% of bf16 matmul": share}
    assert part_report("One part", [row], 1).endswith(f"% of bf16 matmul at least 50, measured {share:g}: {verdict}")
    failed = {"part": "one", "case": "K400_MLP_S16x4 train bf16", "status": FAILED, "reason": "broken"}
    assert "goal" not in part_report("One part", [failed], 1)


def test_every_network_is_measured_first_in_one_config() -> None:
    first, others = networks.order_configs([networks.main_config(True), *published_configs()])
    assert first[0].stem == "K400_MLP_S16x4" and not set(first) & set(others)
    assert {*first, *others} == set(published_configs())
    names = [networks._load(path).MODEL.MODEL_NAME for path in first]
    every = {networks._load(path).MODEL.MODEL_NAME for path in published_configs()}
    assert len(names) == len(set(names)) and {*names, "MorphMLP_32"} == every | {"MorphMLP_32"}


def test_batches_of_a_gpu() -> None:
    paths = {path.stem: path for path in published_configs()}
    chosen = ("K400_MLP_S16x4", "K400_MLP_S32x4", "EVMLP", "ASLDVS_EVENT2VEC")
    sizes = [networks.batch_size(networks._load(paths[name]), on_gpu=True) for name in chosen]
    assert sizes == [32, 16, 128, 128]


@pytest.mark.extensive
def test_tasks_of_a_network(cases: Cases, tmp_path: Path) -> None:
    path = tmp_path / "SMALL.yaml"
    path.write_text(SETTING)
    networks.measure_config(cases, path, [*TASKS, (TRAIN, COMPILED), (FORWARD, COMPILED)])
    rows = rows_of(cases)
    assert len(rows) == len(TASKS) + 2
    done = {name.removeprefix("SMALL "): row for name, row in rows.items() if row["status"] == DONE}
    assert {"train fp32", "forward fp32"} <= done.keys()
    for name, row in done.items():
        assert row["batch"] == 2 and row["clips/s"] == pytest.approx(2000 / row["ms"]) and row["GiB"] > 0
        # dropout and drop path draw the same numbers in all variants but the compiled one
        expected = pytest.approx(done["train fp32"]["loss"], rel=0.02) if name.startswith(TRAIN) else None
        assert row["loss"] == expected or "compiled" in name
    assert all("fast matrix multiplication" in row["reason"] for row in rows.values() if row["status"] != DONE)
    if "train fp16" in done:
        assert done["train fp16"]["loss scale"] >= 1


def test_a_batch_that_does_not_fit_is_halved(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*arguments: object) -> Values:
        tried.append(arguments[-1])
        if tried[-1] != 1:
            raise torch.OutOfMemoryError("no room")
        return {"batch": 1}

    tried: list[object] = []
    monkeypatch.setattr(networks, "measure", measure)
    networks.measure_config(cases, networks.main_config(False), [(TRAIN, networks.Variant("fp32"))])
    assert tried == [2, 1] and [row["batch"] for row in read_rows(cases.folder)] == [1]


def test_profile_of_a_step() -> None:
    layer = torch.nn.Linear(256, 256)
    values = profile_work(lambda: layer(torch.ones(512, 256)), CPU)
    assert values["busy, %"] > 0 and "addmm" in values["text"]


def test_event_driven_against_dense(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_driven, "STREAMS", {"cpu": (2,)})
    monkeypatch.setattr(event_driven, "PRECISIONS", ("float32",))
    monkeypatch.setattr(event_driven, "ACTIVE", (5, 100))
    event_driven.measure(cases)
    rows = rows_of(cases)
    for active, computed in {5: 6.25, 100: 100.0}.items():
        row = rows[f"2 streams, float32, {active} %"]
        assert row["active %"] == computed and row["error"] < 1e-4  # whole patches of a grid of 16 x 16
        assert row["frames/s"] > 0 and row["speed-up"] > 0 and row["dense, ms"] > 0 and row["event, waits"] is None
    assert "aten::" in rows["2 streams, float32, 5 %, profile"]["text"]


def test_waits_for_a_gpu_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        for message in ("called a synchronizing CUDA operation", "synchronization debug mode is a prototype"):
            warnings.warn(message, stacklevel=1)
        for _ in range(2):
            torch.cuda.Event.synchronize(event)

    event: Any = object()
    modes: list[str] = []
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda.Event, "synchronize", waited.append)
    assert event_driven.count_host_waits(work, torch.device("cuda")) == 3 and len(waited) == 2
    assert modes == ["warn", "default"]
    assert event_driven.count_host_waits(work, CPU) is None


def test_training_step_under_ddp(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], seconds: float) -> None:
        """Join the group in this process: starting torchrun and its process takes longer than everything else."""
        assert command[1:-1] == [*ddp.TORCHRUN, "-m", ddp.__name__] and seconds == math.inf
        ddp.main(Path(command[-1]))

    monkeypatch.setattr(ddp, "run_or_raise", run)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    ddp.measure(cases)
    row = rows_of(cases)["training step over Gloo"]
    assert row["status"] == DONE and row["DDP, ms"] > 0 and row["gradient difference"] < 1e-3


SMALLER = [
    *("DATA_LOADER.NUM_WORKERS", "0", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"),
    *("MORPH.LAYERS", "[1,1,1,1]", "MORPH.EMBED_DIMS", "[16,16,16,16]", "MORPH.SEGMENT_DIM", "[8,4,2,1]"),
]


@pytest.mark.extensive
def test_training_from_files_to_weights(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], seconds: float) -> None:
        """Train a smaller network in this process: starting processes takes longer than the training."""
        assert command[1] == "tools/run_net.py" and seconds == math.inf
        assert slowfast(["run", *command[2:], *SMALLER]) == 0

    monkeypatch.setattr(training, "run_or_raise", run)
    training.measure(cases)
    rows = rows_of(cases)
    demo = rows["demo, workers: 1"]
    assert demo["status"] == DONE and 0 <= demo["waiting for data, %"] < 100 and math.isfinite(demo["loss"])
    assert "not implemented" in rows["augmentation on the GPU"]["reason"]


def test_time_shares_leave_out_the_start() -> None:
    def row(data: float, compute: float, split: str = "train") -> Row:
        return {"split": split, "data_s": data, "compute_s": compute, "memory_gib": 1.0, "loss": 2.0}

    rows = [row(9, 9), row(0.1, 0.3), row(7, 7, "val"), row(0.3, 0.3)]
    values = training.time_shares(rows, 16)
    assert values["waiting for data, %"] == pytest.approx(40) and values["clips/s"] == pytest.approx(32)


MARKED = """
import pytest
pytestmark = pytest.mark.gpu
def test_passes(): pass
def test_fails(): assert 1 == 2, "not equal"
@pytest.mark.skip(reason="no such GPU")
def test_skips(): pass
def test_passed_before(): assert False
"""


def test_marked_tests_are_cases(cases: Cases, tmp_path: Path) -> None:
    folder: Callable[[str], str] = "tests/test_marked_by_gpu_check.py::{}".format
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_marked_by_gpu_check.py").write_text(MARKED)
    (tmp_path / "tests" / "test_others.py").write_text("raise AssertionError('must not be collected')")
    cases.write(folder("test_passed_before"), {"status": DONE})
    run_marked(cases, tmp_path)
    rows = rows_of(cases)
    assert {name: row["status"] for name, row in rows.items()} == {
        folder("test_passed_before"): DONE,
        folder("test_passes"): DONE,
        folder("test_fails"): FAILED,
        folder("test_skips"): SKIPPED,
    }
    assert "not equal" in rows[folder("test_fails")]["reason"]
    assert rows[folder("test_skips")]["reason"] == "no such GPU"
    assert "assert 1 == 2" in (tmp_path / "errors.txt").read_text()
