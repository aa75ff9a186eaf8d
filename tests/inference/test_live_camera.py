"""Live prediction with a local camera: OpenCV with the simulated Video4Linux driver."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, tiny_settings
from tests.event_driven.test_camera_device import CAMERA, camera, driver

pytestmark = pytest.mark.slow
__all__ = ["camera", "driver"]  # fixtures


def test_a_camera_is_classified_until_it_is_unplugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_FRAMES", "45")
    words = [CAMERA, "--window", "0.4", "--step", "0.3", *tiny_settings(tmp_path / "none", tmp_path)]
    line = [sys.executable, "-m", "slowfast", "predict", "--cfg", ROOT / "tests" / "empty.yaml", *words]
    done = subprocess.run(
        list(map(str, line)), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "the camera delivers no more frames" in done.stdout + done.stderr
    [video] = json.loads((tmp_path / "segments.json").read_text())["videos"]
    # A busy computer reads fewer than the 30 frames per second of the camera.
    assert video["path"] == CAMERA and 1 < video["fps"] < 36
    ends = [segment["end"] for segment in video["segments"]]
    assert ends and ends == sorted(set(ends))
    with (tmp_path / "failed.csv").open() as file:
        [failed] = csv.DictReader(file)
    assert (failed["path"], failed["lost"]) == (CAMERA, "no")
