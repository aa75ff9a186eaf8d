"""Checks of worker processes, and commands that are killed with theirs."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

import psutil

from tests.conftest import environment


def no_workers() -> bool:
    """Check that no child process is left, except those of Python for shared memory and of tests.warm_start.

    Loaders that nobody uses any more end their workers.
    """
    gc.collect()
    servers = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    return all(any(server in line for server in servers) for line in lines)


def kill_once(line: Sequence[object], has_started: Callable[[], object]) -> None:
    """Start a command, and kill it with its workers once it has written something."""
    words = [str(word) for word in line]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 240
    while not has_started() and time.monotonic() < until:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
