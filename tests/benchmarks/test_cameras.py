"""Simulated cameras of the benchmark: their streams, and the measurements of a short run."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch

from benchmarks.camera import CameraStream, cameras, measure_cameras
from slowfast.cli.setup import load_config
from slowfast.errors import DataError
from tests.benchmarks.test_event_driven_figures import CONFIGS, SMALL
from tests.video_files import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> CameraStream:
    return CameraStream.from_video(write_video(tmp_path_factory.mktemp("camera") / "a.mp4", frames=90))


def test_a_camera_sends_every_frame_from_a_key_frame_on(recording: CameraStream) -> None:
    assert len(recording.parts) == 90 and recording.keys[0] == 0 and len(recording.keys) >= 3
    with cameras(recording, 2) as served:
        shown = []
        for address in served.addresses:
            with av.open(address, timeout=10) as container:
                frames = container.decode(video=0)
                shown.append([next(frames) for _ in range(10)])
    key = recording.keys[len(recording.keys) // 2]
    assert all(begun > 0 for begun in served.started)
    assert shown[0][0].key_frame and shown[1][0].key_frame
    assert round((shown[1][0].pts - shown[0][0].pts) * shown[0][0].time_base * 25) == key
    assert [frame.pts - shown[0][0].pts for frame in shown[0]] == [3600 * k for k in range(10)]  # of 90 kHz


def test_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.camera._WARM_UP", 1.0)
    monkeypatch.setattr("benchmarks.camera._WINDOW", 1.0)
    cfg = load_config(CONFIGS / "ImageNet" / "EVMLP.yaml", [*SMALL, "OUTPUT_DIR", tmp_path, "EVENT.STREAMS", 2])
    video = write_video(tmp_path / "a.mp4", frames=60)
    measurements = {
        measurement.name: measurement for measurement in measure_cameras(cfg, torch.device("cpu"), 2, video, tmp_path)
    }
    looked, left = measurements["frames processed"], measurements["frames dropped"]
    assert 0 < looked.value < 200 and 0 <= left.value < 100 and looked.runs == 2  # 50 frames per second are sent
    assert 0 < measurements["latency p50"].value <= measurements["latency p99"].value
    assert 0 < measurements["CPU cores in use"].value < 64


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("nothing")
    with pytest.raises(DataError, match=r"text\.mp4 cannot be encoded"):
        CameraStream.from_video(text)
