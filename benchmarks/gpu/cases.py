"""Runner of the cases of one part of the GPU check; a case that fails or runs out of memory does not end the others.

Each case appends one JSON line to results.jsonl when it is done; tracebacks go to errors.txt.
"""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.processes import IN_PROGRESS
from benchmarks.gpu.report import DONE, FAILED, SKIPPED, add_error, append_row, finished_cases

OUT_OF_TIME = "no time left"
Values = Mapping[str, Any]


class CannotRunHere(Exception):
    """Error of a case that needs something that this machine lacks."""


class DeviceLost(RuntimeError):
    """Error of a GPU that rejects all further work of this process, for example after an illegal memory access."""


class Cases:
    """Runner of the cases of a part.

    Cases that already have a row in results.jsonl are not run again, so a part can be restarted after a crash.

    Args:
        folder: Folder of results.jsonl and errors.txt.
        part: Name of the part, written to each row.
        device: Device to run on; on a CPU the parts choose small sizes.
        seconds: Time limit; cases that would start later are skipped.
    """

    def __init__(self, folder: Path, part: str, device: torch.device, seconds: float) -> None:
        self.folder, self.part, self.device = folder, part, device
        self.finished = finished_cases(folder, part)
        self._until = time.monotonic() + seconds

    @property
    def on_gpu(self) -> bool:
        """True if the cases run on a GPU."""
        return self.device.type == "cuda"

    @property
    def runs(self) -> int:
        """Number of timed runs."""
        return 5 if self.on_gpu else 1

    def seconds_left(self) -> float:
        """Return the time until the limit in seconds, at least 0."""
        return max(0.0, self._until - time.monotonic())

    def run(self, case: str, function: Callable[[], Values]) -> None:
        """Run a case and write its row.

        Args:
            case: Name, unique within the part.
            function: Runs the case and returns the values of its row.

        Raises:
            DeviceLost: If the device is unusable after the case.
        """
        if case in self.finished:
            return
        if not self.seconds_left():
            self.skip(case, OUT_OF_TIME)
            return
        self.start(case)
        try:
            values: Values = {"status": DONE, **function()}
        except CannotRunHere as error:
            values = {"status": SKIPPED, "reason": str(error)}
        except ModuleNotFoundError as error:
            values = {"status": SKIPPED, "reason": f"needs the package {error.name}, which is not installed"}
        except Exception as error:  # reported; the other cases still run
            values = {"status": FAILED, "reason": first_line(error)}
            add_error(self.folder, self.part, case, traceback.format_exc())
        self.write(case, values)
        self._clean_up()

    def skip(self, case: str, reason: str) -> None:
        """Write the row of a case that is not run."""
        if case not in self.finished:
            self.write(case, {"status": SKIPPED, "reason": reason})

    def start(self, case: str) -> None:
        """Record which case is running, for the report of a crash."""
        (self.folder / IN_PROGRESS).write_text(json.dumps([self.part, case]))

    def write(self, case: str, values: Values) -> None:
        """Write the row of a case and mark it as finished."""
        append_row(self.folder, {"part": self.part, "case": case, **values})
        self.finished.add(case)
        (self.folder / IN_PROGRESS).unlink(missing_ok=True)

    def _clean_up(self) -> None:
        gc.collect()  # tracebacks and compiled graphs keep tensors in reference cycles
        if self.on_gpu:
            check_device()
            torch.cuda.empty_cache()


def check_device() -> None:
    """Raise DeviceLost unless the GPU still accepts work from this process."""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise DeviceLost(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """Return the type and the first line of the message of an exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
