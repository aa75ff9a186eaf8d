"""Processes of the GPU check: one per part, with a share of the time.

A part that crashes is restarted without the case that crashed; a part that exceeds its time is terminated.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.report import FAILED, SKIPPED, add_error, append_row, read_rows

ROOT = Path(__file__).resolve().parents[2]
IN_PROGRESS = ".in_progress"  # part and case as JSON while a case runs
_MIN_SECONDS = 5.0  # minimum seconds to start a part
_MIN_SHARE = 15.0  # seconds; smaller shares are raised to this, because starting a process takes several seconds
_GRACE = 15.0  # seconds by which the last case of a part may exceed its share
_KILL_DELAY = 5.0  # seconds between SIGTERM and SIGKILL
_TAIL = 60  # lines of output kept of a crashed process


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        name: Name on the command line and in results.jsonl.
        title: Heading of its table.
        weight: Share of the remaining time, relative to the parts after it.
        function: `module:function` that runs the cases.
        with_table: List the cases that are done in the report.
    """

    name: str
    title: str
    weight: float
    function: str
    with_table: bool = True


@dataclass(frozen=True)
class Ended:
    """Exit status and output of a process; the status is None if it exceeded its time limit."""

    status: int | None
    output: str


Command = Callable[[Part, float], Sequence[str]]  # part and its seconds -> command line of the process that runs it


def share_of_time(parts: Sequence[Part], left: float) -> float:
    """Return the seconds for the first of the remaining parts, given the seconds left for all of them."""
    return max(left * parts[0].weight / sum(part.weight for part in parts), min(left, _MIN_SHARE))


def run_part(folder: Path, part: Part, seconds: float, left: float, command: Command) -> None:
    """Run a part. Crashes and timeouts are recorded in results.jsonl as well.

    Args:
        folder: Folder of the results.
        part: Part to run.
        seconds: Its share of the time.
        left: Seconds left for the whole check, a hard limit.
        command: Builds the command line of the process.
    """
    if seconds < _MIN_SECONDS:
        append_row(folder, {"part": part.name, "case": "all", "status": SKIPPED, "reason": "no time left"})
        return
    start = time.monotonic()
    while True:
        used = time.monotonic() - start
        rows = len(read_rows(folder, part.name))
        ended = run_limited(command(part, seconds - used), min(seconds + _GRACE, left) - used)
        if ended.status == 0:
            return
        case = _take_case_in_progress(folder, part)
        progressed = case is not None or len(read_rows(folder, part.name)) > rows
        if case is not None or ended.status is None or not progressed:
            _report_end(folder, part, case or "all", ended)
        if ended.status is None or not progressed or seconds - (time.monotonic() - start) < _MIN_SECONDS:
            return


def _report_end(folder: Path, part: Part, case: str, ended: Ended) -> None:
    """Write the row of the case that was running when a process ended."""
    if ended.status is None:
        status, reason = SKIPPED, "the time of the part was over; cases after it did not run"
    elif ended.status < 0:
        status, reason = FAILED, f"the process was killed by signal {-ended.status}"
    else:
        status, reason = FAILED, f"the process ended with status {ended.status}"
    add_error(folder, part.name, case, f"{reason}; its last output:\n{ended.output}")
    append_row(folder, {"part": part.name, "case": case, "status": status, "reason": reason})


def _take_case_in_progress(folder: Path, part: Part) -> str | None:
    path = folder / IN_PROGRESS
    try:
        owner, case = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    path.unlink()
    return case if owner == part.name else None


def run_limited(command: Sequence[str], seconds: float, own_group: bool = True) -> Ended:
    """Run a process in the root of the checkout and terminate it after a time limit.

    Args:
        command: Command line.
        seconds: Time limit.
        own_group: Start the process in a new process group, which is terminated as a whole. Processes of a part stay in
            the group of the part.

    Returns:
        Its exit status and the last lines of its output.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=own_group, cwd=ROOT
        )
        try:
            status: int | None = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process, own_group)
        output.seek(0)
        return Ended(status, "".join(output.readlines()[-_TAIL:]))


def _end(process: subprocess.Popen[bytes], group: bool) -> None:
    """Terminate a process, with SIGTERM first, so that torchrun ends its workers, which are in other groups."""
    if process.poll() is None:
        _send(process, signal.SIGTERM, group)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_DELAY)
    _send(process, signal.SIGKILL, group)
    process.wait()


def _send(process: subprocess.Popen[bytes], number: int, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


class ProcessFailed(RuntimeError):
    """Error of a process that a case started and that failed or timed out. The message ends with its last output."""


def run_or_raise(command: Sequence[str], seconds: float) -> None:
    """Run a process that a case needs.

    Args:
        command: Command line.
        seconds: Time limit.

    Raises:
        ProcessFailed: If it exceeds its time or its exit status is not 0.
    """
    ended = run_limited(command, seconds, own_group=False)
    if ended.status != 0:
        how = f"exceeded {seconds:.0f} s" if ended.status is None else f"ended with status {ended.status}"
        raise ProcessFailed(f"{' '.join(command[1:4])} ... {how}; its last output:\n{ended.output}")
