"""Conversion of videos to events: moving objects, atomic files, failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo_data import formats
from slowfast.cli.main import main
from slowfast.datasets.dvs.formats.columns import StoredColumn
from slowfast.datasets.dvs.recording import Recording
from slowfast.errors import DataError
from slowfast.prepare.video_to_dvs import EventSettings, fit, interpolate_frames, videos_to_events

SMALL = EventSettings(height=24, width=32, interpolate=2)
pytestmark = pytest.mark.usefixtures("in_this_process")


def bar(frames: int = 8, speed: int = 3) -> np.ndarray:
    """Return a white bar that moves to the right over black, uint8 (T, 48, 64, 3)."""
    clip = np.zeros((frames, 48, 64, 3), np.uint8)
    for t in range(frames):
        clip[t, :, 8 + speed * t : 16 + speed * t] = 255
    return clip


def write_video(path: Path, clip: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    formats.write_video(path, clip)


def test_moving_bar_fires_at_its_edges(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "right" / "a.mp4", bar())
    result = videos_to_events(tmp_path / "videos", tmp_path / "events", SMALL, workers=1)
    assert (result.done, result.failed, result.damaged) == (1, {}, {})
    recording = Recording(tmp_path / "events" / "right" / "a.npz")
    events = recording.take(slice(None))
    assert all(isinstance(column, StoredColumn) for column in recording.columns.values())
    assert (np.diff(events["t"]) >= 0).all() and 0 <= events["t"].min() and events["t"].max() <= 7e6 / 30 + 1
    assert events["x"].max() < 32 and events["y"].max() < 24 and set(events["p"]) == {0, 1}
    brighter, darker = (events["x"][events["p"] == p].mean() for p in (1, 0))
    assert brighter > darker + 2  # brighter at its front, darker at its back
    early, late = (events["x"][part].mean() for part in np.array_split(np.arange(recording.n), 2))
    assert late > early + 2


def test_still_and_broken_videos_are_listed(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "a.mp4", bar())
    write_video(videos / "still.mp4", np.full((5, 48, 64, 3), 90, np.uint8))
    (videos / "text.mp4").write_text("no video")
    result = videos_to_events(videos, tmp_path / "events", SMALL, workers=1)
    assert result.done == 1 and "nothing in the video changes" in result.failed["still.mp4"]
    assert set(result.failed) == {"still.mp4", "text.mp4"}
    assert sorted(path.name for path in (tmp_path / "events").iterdir()) == ["a.npz", "failed.csv"]


def test_second_run_keeps_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "videos" / "a.mp4", bar())
    line = [str(tmp_path / "videos"), str(tmp_path / "events"), "--height", "24", "--width", "32", "--workers", "1"]
    assert main(["video-to-dvs", *line]) == 0
    (made,) = (tmp_path / "events").iterdir()
    before = made.stat().st_mtime_ns
    assert main(["video-to-dvs", *line]) == 0 and made.stat().st_mtime_ns == before
    assert "1 converted before" in capsys.readouterr().out


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["video-to-dvs", str(tmp_path / "none"), str(tmp_path / "events")]) == 2
    assert main(["video-to-dvs", str(tmp_path), str(tmp_path / "events"), "--threshold-on", "0"]) == 2
    assert "--threshold-on: '0' is not a number from 0.01 to 5" in capsys.readouterr().err
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="none of 1 videos"):
        videos_to_events(tmp_path / "videos", tmp_path / "events", SMALL, workers=1)


@pytest.mark.parametrize("size", [(48, 64), (48, 80), (90, 40), (10, 200)])
def test_frames_of_any_shape_fill_the_sensor(size: tuple[int, int]) -> None:
    gray = fit(np.full((*size, 3), 100, np.uint8), SMALL)
    assert gray.shape == (24, 32) and np.allclose(gray, 100, atol=0.5)


def test_interpolated_frames_move() -> None:
    frames = [(1e5 * at, clip @ np.float32([1 / 3] * 3)) for at, clip in enumerate(bar(2, 4).astype(np.float32))]
    found = list(interpolate_frames(iter(frames), 4))
    assert [time for time, _ in found] == [0.0, 25e3, 50e3, 75e3, 1e5]
    middles = [float((image.sum(0) * np.arange(64)).sum() / image.sum()) for _, image in found]
    np.testing.assert_allclose(np.diff(middles), 1.0, atol=0.5)
    gap = [(0.0, frames[0][1]), (0.0, frames[1][1]), (2e6, frames[1][1])]
    assert [time for time, _ in interpolate_frames(iter(gap), 4)] == [0.0, 2e6], "over a gap nothing moves"
