"""Runs of scripts in processes that have already imported PyTorch, which takes seconds per start.

A server process imports the modules once; every run is a fork of it, with arguments, environment, standard streams,
session and exit status of its own.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import psutil
import pytest

from slowfast.utils import screen

# torch._dynamo is imported by the first optimizer, matplotlib by the first plot.
_MODULES = ["torch", "torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg", "slowfast.cli.run"]
SILENCE = 3600.0  # seconds until "still working" is printed: not in tests, however slow the machine is


@functools.cache
def warm_context() -> ForkServerContext:
    """Return the context whose processes are forks of the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # PyTorch reads it when it is imported
        forkserver.ensure_running()
    return context


class Run:
    """Running script.

    Args:
        script: The script.
        words: Its arguments.
        env: Its environment; PyTorch uses one thread whatever it says.
        folder: Existing folder for its output.
        name: Name of its files in it.
    """

    def __init__(
        self, script: Path, words: Sequence[str], env: Mapping[str, str], folder: Path, name: str = "run"
    ) -> None:
        self.out, self.err = folder / f"{name}.stdout", folder / f"{name}.stderr"
        line = [str(script), *words]
        self._process = warm_context().Process(target=_run, args=(line, dict(env), os.getcwd(), self.out, self.err))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        atexit.register(self._end)  # if the test fails

    @property
    def returncode(self) -> int | None:
        """Exit status; None while it runs, and -n after signal n."""
        return self._process.exitcode

    def output(self) -> tuple[str, str]:
        """Return what it has printed so far, on the standard output and as errors."""
        return self.out.read_text() if self.out.exists() else "", self.err.read_text() if self.err.exists() else ""

    def wait_for(self, ready: Callable[[], bool], seconds: float = 240) -> None:
        """Wait until something is true that the script does before it ends."""
        until = time.monotonic() + seconds
        while not ready():
            assert self.returncode is None, f"it ended with {self.returncode}: {self.output()}"
            assert time.monotonic() < until, f"it did not come to it: {self.output()}"
            time.sleep(0.01)

    def wait(self, seconds: float = 240) -> int:
        """Wait for its end and return the exit status; a script that takes longer is killed.

        Raises:
            subprocess.TimeoutExpired: If it takes longer.
        """
        self._process.join(max(seconds, 0))
        status = self.returncode
        self._end()
        if status is None:
            raise subprocess.TimeoutExpired(str(self.out), seconds, *self.output())
        return status

    def _end(self) -> None:
        atexit.unregister(self._end)
        if self.returncode is None:
            self._process.kill()
            self._process.join()


def run_script(
    script: Path, words: Sequence[str], env: Mapping[str, str], timeout: float, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run a Python script to its end; none of its processes may be left.

    Args:
        script: The script.
        words: Its arguments.
        env: Its environment; PyTorch uses one thread whatever it says.
        timeout: Time limit in seconds.
        processes: Number of processes, which get the variables that torchrun sets.

    Returns:
        The output of all processes, one after the other, and the first exit status other than 0.

    Raises:
        subprocess.TimeoutExpired: If they take longer, in all.
    """
    end = time.monotonic() + timeout
    ranks = rank_variables(processes) if processes > 1 else [{}]
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run(script, words, {**env, **more}, Path(folder), str(rank)) for rank, more in enumerate(ranks)]
        statuses, late = [], None
        for run in runs:
            try:
                statuses.append(run.wait(end - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                late = error
        out, err = ("".join(texts) for texts in zip(*(run.output() for run in runs), strict=True))
        if late is not None:
            raise subprocess.TimeoutExpired([str(script), *words], timeout, out, err)
    assert all(none_left(run.pid) for run in runs), "processes are left"
    return subprocess.CompletedProcess([str(script), *words], next(filter(None, statuses), 0), out, err)


def run_ranks(work: Callable[..., None], *args: object, processes: int = 2, timeout: float = 240) -> None:
    """Run a function of a test module in several processes, which get their number as the first argument."""
    started = [warm_context().Process(target=work, args=(rank, *args)) for rank in range(processes)]
    for process in started:
        process.start()
    until = time.monotonic() + timeout
    for process in started:
        process.join(max(until - time.monotonic(), 0))
    statuses = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert statuses == [0] * processes


def none_left(session: int, seconds: float = 60) -> bool:
    """Check that no process of a session is left, or soon is not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not session_processes(session):
            return True
        time.sleep(0.05)
    return False


def session_processes(session: int) -> list[psutil.Process]:
    """Return the processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def rank_variables(processes: int) -> list[dict[str, str]]:
    """Return the variables that torchrun sets, for each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    return [common | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) for rank in range(processes)]


def _run(line: list[str], env: dict[str, str], folder: str, out: Path, err: Path) -> None:
    """Become the script: runs in the forked process."""
    os.setsid()
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv, sys.orig_argv = line, [sys.executable, *line]  # the launcher of several processes repeats the latter
    sys.path[0] = os.path.dirname(line[0])
    screen.SILENCE = SILENCE
    runpy.run_path(line[0], run_name="__main__")
