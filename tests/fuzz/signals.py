"""Stop trainings with signals at random moments, resume them, and compare the weights with an undisturbed run."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.engine.checkpoints import find_last, read_checkpoint
from tests.conftest import command, environment, tiny_settings
from tests.fuzz.fuzz import CRASH, HANG, WRONG, Outcome
from tests.fuzz.kinds import USED

# Signal: the exit statuses that it may lead to. A finished run gives 0 whenever the signal came too late.
STATUSES = {
    signal.SIGTERM: {0, -signal.SIGTERM},
    signal.SIGHUP: {0, -signal.SIGHUP},
    signal.SIGINT: {0, 130, -signal.SIGINT},
    signal.SIGKILL: {0, -signal.SIGKILL},
}
TIME_LIMIT = 120.0  # seconds of a run
EXIT_LIMIT = 15.0  # seconds between a signal and the end


def stop_runs(count: int, seed: int) -> Outcome:
    """Stop `count` trainings, each resumed to its end."""
    outcome = Outcome("signals")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        build(folder / "data", DemoSettings(format="kinetics", train=16, val=8, test=8, size=32, frames=24), workers=1)
        start = time.perf_counter()
        wanted = _finish(folder, "whole")
        seconds = time.perf_counter() - start
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            column, text = _stop_and_resume(folder, f"run{number}", wanted, rng, seconds)
            outcome.counts[column] += 1
            if text:
                outcome.failures.append(f"signal {number}: {column}: {text}")
    return outcome


def _line(folder: Path, name: str) -> list[str]:
    settings = [*tiny_settings(folder / "data", folder / name), "SOLVER.MAX_EPOCH", 2, "TEST.ENABLE", False]
    return command(settings)


def _finish(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Train to the end, from wherever the run is; return the weights."""
    subprocess.run(_line(folder, name), env=environment(), timeout=TIME_LIMIT, check=True, capture_output=True)
    last = find_last(folder / name)
    assert last is not None
    state: dict[str, torch.Tensor] = read_checkpoint(last)["model_state"]
    return state


def _stop_and_resume(
    folder: Path, name: str, wanted: dict[str, torch.Tensor], rng: np.random.Generator, seconds: float
) -> tuple[str, str]:
    number = list(STATUSES)[int(rng.integers(len(STATUSES)))]
    process = subprocess.Popen(_line(folder, name), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(float(rng.uniform(0, seconds)))
    children = _children(process.pid)
    process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=EXIT_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return HANG, f"{number.name} did not end the run within {EXIT_LIMIT:g} s"
    if process.returncode not in STATUSES[number] or b"Traceback" in output:
        return CRASH, f"{number.name} led to exit status {process.returncode}: {output[-300:].decode(errors='replace')}"
    _, left = psutil.wait_procs(children, timeout=EXIT_LIMIT)
    if left:
        return HANG, f"{number.name} left {len(left)} processes"
    resumed = _finish(folder, name)
    if any(not torch.equal(resumed[key], value) for key, value in wanted.items()):
        return WRONG, f"{number.name}: the resumed run has other weights"
    return USED, ""


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
