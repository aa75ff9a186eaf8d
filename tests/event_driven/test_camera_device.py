"""Local cameras: OpenCV with a simulated Video4Linux driver (camera_device.c)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_cold
from tests.event_driven.settings import on_videos

pytestmark = pytest.mark.slow

CAMERA = "7"  # camera_device.c's number


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile camera_device.c."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if sys.platform != "linux" or compiler is None or Path(f"/dev/video{CAMERA}").exists():
        pytest.skip(f"needs Linux, a C compiler, and no camera {CAMERA}")
    library = tmp_path_factory.mktemp("driver") / "camera_device.so"
    source = Path(__file__).with_name("camera_device.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    return library


@pytest.fixture(autouse=True)
def camera(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preload the driver in all processes of a test."""
    monkeypatch.setenv("LD_PRELOAD", str(driver))


def results_of(output: Path) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Return the metrics of the only video and the failures."""
    results = json.loads((output / "event_results.json").read_text())
    [video] = results["videos"]
    return video, results["failed"]


def test_camera_frames_are_in_order_and_in_color() -> None:
    look = f"""
import json
from slowfast.event_driven.video_frames import CameraFrames
frames = CameraFrames({CAMERA})
seen = [(number, image.shape, image.mean((0, 1)).tolist()) for (number, image), _ in zip(frames, range(6))]
frames.close()
print(json.dumps([str(frames.rate), seen]))
"""
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    rate, frames = json.loads(done.stdout)
    assert rate == "30" and [number for number, _, _ in frames] == list(range(6))
    assert all(shape == [48, 64, 3] and green == blue == 0 for _, shape, (_, green, blue) in frames)
    reds = [red for _, _, (red, _, _) in frames]
    assert 200 < reds[0] < reds[-1] and reds == sorted(reds)


def test_run_on_a_camera(tmp_path: Path) -> None:
    done = run_cold([*on_videos(CAMERA, tmp_path), "EVENT.CHUNK", 2, "EVENT.MAX_FRAMES", 20])
    assert done.returncode == 0, done.stderr
    video, failed = results_of(tmp_path)
    assert (video["path"], video["frames"] + video["dropped"], failed) == (CAMERA, 20, [])


def test_unplugged_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_FRAMES", "9")
    done = run_cold([*on_videos(CAMERA, tmp_path), "EVENT.CHUNK", 2])
    assert done.returncode == 0, done.stderr
    video, [failed] = results_of(tmp_path)
    assert 0 < video["frames"] + video["dropped"] <= 9
    assert (failed["path"], failed["reason"]) == (CAMERA, "the camera delivers no more frames")


def test_reconnected_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_FRAMES", "9")
    done = run_cold([*on_videos(CAMERA, tmp_path), "EVENT.CHUNK", 2, "EVENT.MAX_FRAMES", 20, "EVENT.RECONNECT", 0.1])
    assert done.returncode == 0, done.stderr
    video, failed = results_of(tmp_path)
    assert (video["frames"] + video["dropped"], failed) == (20, [])
    assert "the camera delivers no more frames. Reconnecting in 0.1 s" in done.stdout + done.stderr
