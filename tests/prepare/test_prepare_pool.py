"""Work in processes of which one may crash."""

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

from slowfast.errors import UserError
from slowfast.prepare.jobs import run_in_processes
from slowfast.utils.worker_pool import Lost
from tests.worker_processes import no_workers


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


def test_a_process_that_dies_costs_one_input() -> None:
    results = dict(run_in_processes(crash_on_three, range(6), 2))
    lost = results.pop(3)
    assert isinstance(lost, Lost) and lost.reason == "the worker reading it was killed by SIGKILL"
    assert results == {0: 0, 1: 10, 2: 20, 4: 40, 5: 50}
    assert no_workers()


def test_a_process_that_gets_no_further_costs_one_input() -> None:
    results = dict(run_in_processes(hang_on_three, range(5), 1, stall_limit=3))
    lost = results.pop(3)
    assert isinstance(lost, Lost) and lost.reason == "reading made no progress for 3 s"
    assert results == {0: 0, 1: 1, 2: 2, 4: 4}


def test_an_error_that_is_not_the_files_ends_all_processes_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match="disk full"):
        list(run_in_processes(fail_on_three, [1, 3], 2))
    assert time.monotonic() - start < 60
    assert no_workers()


SLOW = """
import sys, time
from pathlib import Path
from slowfast.prepare.jobs import run_in_processes
from slowfast.cli.command import exit_status

def work(place):
    Path(place).touch()
    time.sleep(300)

if __name__ == "__main__":
    sys.exit(exit_status(lambda: list(run_in_processes(work, [sys.argv[1]], 1)) and None))
"""


def test_a_signal_ends_the_processes(tmp_path: Path) -> None:
    script, mark = tmp_path / "slow.py", tmp_path / "mark"
    script.write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, script, mark], env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "Received SIGTERM, stopping. Files that were written are complete\n"
    assert workers and not psutil.wait_procs(workers, timeout=10)[1]
