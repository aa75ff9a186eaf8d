"""Tests marked gpu, each as a case of the GPU check."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401 - tests/conftest.py needs it
import pytest

from benchmarks.gpu.cases import OUT_OF_TIME, Cases, DeviceLost, check_device
from benchmarks.gpu.processes import ROOT
from benchmarks.gpu.report import DONE, FAILED, SKIPPED, add_error

MARK = "gpu"
_LOST = 3  # exit status of pytest after the GPU was lost


def run_marked(cases: Cases, root: Path = ROOT) -> None:
    """Run the part.

    Args:
        cases: Runner of the part.
        root: Checkout whose tests are run.

    Raises:
        DeviceLost: If a test left the GPU unusable.
    """
    files = marked_files(root / "tests")
    if not files:
        cases.skip("all", f"no file of tests contains pytest.mark.{MARK}")
        return
    options = ["-m", MARK, "-q", "-p", "no:cacheprovider", "--rootdir", str(root)]
    status = pytest.main([*options, *map(str, files)], plugins=[_Recorder(cases)])
    if status == _LOST:
        raise DeviceLost("a test left the GPU unusable")
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with status {status}; its output is above")


def marked_files(tests: Path) -> list[Path]:
    """Return the test files that contain the mark: collecting all tests would take longer than running these."""
    return sorted(path for path in tests.rglob("test_*.py") if f"mark.{MARK}" in path.read_text(encoding="utf-8"))


class _Recorder:
    """pytest plugin that writes a row per test and skips tests that an earlier process has finished."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        self.started = 0.0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.cases.finished]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.started = time.monotonic()
        self.cases.start(nodeid)

    def pytest_runtest_setup(self) -> None:
        if not self.cases.seconds_left():
            pytest.skip(OUT_OF_TIME)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.cases.finished:
            return
        if report.failed:
            self.cases.write(report.nodeid, {"status": FAILED, "reason": _last_line(report.longreprtext)})
            add_error(self.cases.folder, self.cases.part, report.nodeid, report.longreprtext)
        elif report.skipped:
            self.cases.write(report.nodeid, {"status": SKIPPED, "reason": _skip_reason(report.longrepr)})
        elif report.when == "teardown":
            self.cases.write(report.nodeid, {"status": DONE, "s": time.monotonic() - self.started})

    def pytest_runtest_logfinish(self) -> None:
        if self.cases.on_gpu:
            try:
                check_device()
            except DeviceLost as error:
                pytest.exit(str(error), returncode=_LOST)


def _last_line(text: str) -> str:
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E")]
    return (errors or text.splitlines() or ["no message"])[0][:300]


def _skip_reason(longrepr: Any) -> str:
    """Return the reason of a skipped test from pytest's (file, line, reason)."""
    reason = longrepr[2] if isinstance(longrepr, Sequence) and len(longrepr) == 3 else str(longrepr)
    return str(reason).removeprefix("Skipped: ")
