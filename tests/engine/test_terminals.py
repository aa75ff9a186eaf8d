"""Complete runs in minimal environments, such as a notebook, a container or a cron job."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import command, environment, tiny_settings

pytestmark = pytest.mark.slow


def test_a_run_without_home_display_or_unicode(kinetics_folder: Path, tmp_path: Path) -> None:
    options = ("SOLVER.MAX_EPOCH", 1, "TEST.NUM_ENSEMBLE_VIEWS", 1, "DATA_LOADER.NUM_WORKERS", 0)
    line = command([*tiny_settings(kinetics_folder, tmp_path / "out\u00e9"), *options])
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "1"}
    poor |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "XDG_CACHE_HOME": "/nowhere/at/all"}
    there = {name: value for name, value in environment().items() if name not in ("HOME", "DISPLAY", "MPLCONFIGDIR")}
    with_bytes = [os.fsencode(word) for word in line]
    done = subprocess.run(with_bytes, env=there | poor, capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert b"top-1" in done.stdout and done.stdout.isascii()
    files = {path.name for path in (tmp_path / "out\u00e9").iterdir()}
    assert {"curves.png", "confusion.png", "contact_sheet.png", "first_batch_test.png", "predictions.csv"} <= files
