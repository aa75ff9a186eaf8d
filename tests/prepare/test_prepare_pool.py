"""Work in processes of which one may crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from slowfast.prepare.pool import Crash, run_in_processes


def crash_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


def fail_on_three(number: int) -> int:
    if number == 3:
        raise OSError("disk full")
    return number


def test_a_process_that_dies_costs_one_input() -> None:
    results = dict(run_in_processes(crash_on_three, range(6), 2))
    assert isinstance(results.pop(3), Crash)
    assert results == {0: 0, 1: 10, 2: 20, 4: 40, 5: 50}
    with pytest.raises(OSError, match="disk full"):
        list(run_in_processes(fail_on_three, [3], 1))


SLOW = """
import sys, time
from pathlib import Path
from slowfast.prepare.pool import run_in_processes
from slowfast.runtime.command import exit_status

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
