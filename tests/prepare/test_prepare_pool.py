"""Work in processes of which one may crash."""

from __future__ import annotations

import os
import signal

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
