"""Job runner: workers that crash, stall and are interrupted."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.errors import DataError, UserError
from slowfast.prepare.files import VIDEOS, Job, find_jobs, target_exists
from slowfast.prepare.jobs import JobResults, run_in_processes, run_jobs
from slowfast.utils.worker_pool import LostTask
from tests.worker_processes import no_workers

pytestmark = pytest.mark.slow


def crash_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


def hang_on_three(number: int) -> int:
    if number == 3:
        ctypes.PyDLL(None).sleep(600)  # in C, holding the interpreter
    return number


def fail_on_three(number: int) -> int:
    if number == 3:
        raise UserError("disk full")
    time.sleep(600)
    return number


def test_killed_worker_loses_one_input() -> None:
    results = dict(run_in_processes(crash_on_three, range(6), 2))
    lost = results.pop(3)
    assert isinstance(lost, LostTask) and lost.reason == "the worker reading it was killed by SIGKILL"
    assert results == {0: 0, 1: 10, 2: 20, 4: 40, 5: 50}
    assert no_workers()


def test_stalled_worker_loses_one_input() -> None:
    results = dict(run_in_processes(hang_on_three, range(5), 1, stall_limit=3))
    lost = results.pop(3)
    assert isinstance(lost, LostTask) and lost.reason == "reading made no progress for 3 s"
    assert results == {0: 0, 1: 1, 2: 2, 4: 4}


def test_user_error_stops_all_workers_at_once() -> None:
    with pytest.raises(UserError, match="disk full"):
        list(run_in_processes(fail_on_three, [1, 3], 2))
    assert no_workers()


SLOW = """
import sys, time
from pathlib import Path
from slowfast.prepare.jobs import run_in_processes
from slowfast.cli.command import exit_status

def work(place):
    Path(place).touch()
    time.sleep(600)

if __name__ == "__main__":
    sys.exit(exit_status(lambda: list(run_in_processes(work, [sys.argv[1]], 1)) and None))
"""


def test_signal_ends_the_workers(tmp_path: Path) -> None:
    script, mark = tmp_path / "slow.py", tmp_path / "mark"
    script.write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, script, mark], env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 240
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.endswith("Received SIGTERM, stopping. Files that were written are complete\n") and "Trace" not in err
    assert workers and not psutil.wait_procs(workers, timeout=120)[1]


def copy(job: Job) -> str:
    """Copy a file in upper case, unless it contains an error."""
    text = job.source.read_text()
    if text == "damaged":
        raise DecodeError("no video")
    if text == "user error":
        raise UserError("disk full")
    job.target.write_text(text.upper())
    return text


def run_copy(source: Path, target: Path, seen: list[str] | None = None) -> JobResults[str]:
    jobs, on_output = find_jobs(source, target), None if seen is None else seen.append
    return run_jobs(copy, jobs, target, 1, is_done=target_exists, on_output=on_output)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, text in {"a": "one", "b": "damaged", "c": "", "d": "two"}.items():
        (folder / f"{name}.avi").write_text(text)
    return folder


def test_failures_do_not_stop_the_run_and_finished_jobs_are_skipped(
    source: Path, tmp_path: Path, in_this_process: None
) -> None:
    target, seen = tmp_path / "target", list[str]()
    first = run_copy(source, target, seen)
    assert first.outputs == {"a.avi": "one", "d.avi": "two"} and first.skipped == 0 and seen == ["one", "two"]
    assert first.failed == {"b.avi": "no video", "c.avi": "the file is empty (0 bytes)"}
    assert (target / "a.mp4").read_text() == "ONE"
    (target / "d.mp4").unlink()
    (source / "b.avi").write_text("three")
    again = run_copy(source, target)
    assert again.outputs == {"b.avi": "three", "d.avi": "two"} and again.skipped == 1 and set(again.failed) == {"c.avi"}


def test_user_error_of_a_job_stops_the_run(source: Path, tmp_path: Path, in_this_process: None) -> None:
    (source / "b.avi").write_text("user error")
    with pytest.raises(UserError, match="disk full"):
        run_copy(source, tmp_path / "target")


def test_all_jobs_failed(source: Path, tmp_path: Path, in_this_process: None) -> None:
    for path in source.iterdir():
        path.write_text("damaged")
    results = run_copy(source, tmp_path / "target")
    with pytest.raises(DataError, match="none of 4 videos could be read. First failure: a.avi: no video. Full list: "):
        results.require_one(VIDEOS, tmp_path / "target")
