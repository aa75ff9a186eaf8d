"""Crash watch: a crashed process leaves the names of the files that it was reading."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import os, signal, sys
from slowfast.event_driven.crash_watch import CrashWatch
with CrashWatch() as watch:
    for number, name in enumerate(("a.mp4", "b\\nc.mp4", "rtsp://me:secret@host/1", "é.mp4")):
        watch.begin(number, name)
    watch.end(0)
    end = sys.argv[1]
    if end == "closed":
        watch.end(1), watch.end(2), watch.end(3)
    if end == "killed companion":
        watch._companion.kill()
        watch._companion.wait()
        watch.begin(5, "d.mp4")
    if end in ("crash", "closed"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if end == "exception":
        raise ValueError("expected")
"""


@pytest.mark.parametrize("end", ["crash", "closed", "exception", "normal", "killed companion"])
def test_the_files_of_a_crash_are_named(end: str) -> None:
    line = [sys.executable, "-c", CODE, end]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, timeout=180)
    error = done.stderr.decode()
    if end == "crash":
        assert done.returncode == -signal.SIGSEGV
        assert error.startswith(
            "error: the process crashed or was killed while it was reading 'b\\nc.mp4', rtsp://***@"
        )
        assert "é.mp4. If that happens again" in error and "a.mp4" not in error and "secret" not in error
    else:
        assert "error: the process" not in error
        assert done.returncode == {"exception": 1, "closed": -signal.SIGSEGV}.get(end, 0)
