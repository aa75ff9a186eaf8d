"""Runs of scripts in processes that have already imported PyTorch, which takes seconds per start.

A server process imports the modules once; every run is a fork of it, with arguments, environment, standard streams,
session and exit status of its own.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import psutil
import pytest

# torch._dynamo is imported by the first optimizer, matplotlib by the first plot.
_MODULES = ["torch", "torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg", "slowfast.cli.run"]


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # PyTorch reads it when it is imported
        forkserver.ensure_running()
    return context


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
    line, end = [str(script), *words], time.monotonic() + timeout
    ranks = _rank_variables(processes) if processes > 1 else [{}]
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder) / f"stdout{rank}", Path(folder) / f"stderr{rank}") for rank in range(processes)]
        started = [
            _context().Process(target=_run, args=(line, {**env, **variables}, os.getcwd(), *paths))
            for variables, paths in zip(ranks, files, strict=True)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(max(end - time.monotonic(), 0))
        late = [process for process in started if process.exitcode is None]
        for process in late:
            process.kill()
            process.join()
        out, err = ("".join(path.read_text() for path in paths) for paths in zip(*files, strict=True))
        if late:
            raise subprocess.TimeoutExpired(line, timeout, out, err)
    assert all(none_left(process.pid) for process in started if process.pid), "processes are left"
    status = next((process.exitcode for process in started if process.exitcode), 0)
    return subprocess.CompletedProcess(line, status, out, err)


def none_left(session: int, seconds: float = 10) -> bool:
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


def _rank_variables(processes: int) -> list[dict[str, str]]:
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
    sys.argv = line
    sys.path[0] = os.path.dirname(line[0])
    runpy.run_path(line[0], run_name="__main__")
