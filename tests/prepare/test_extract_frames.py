"""Extraction of frames: contents, atomic folders, damaged videos, and reading the frames."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slowfast.cli.main import main
from slowfast.datasets.decode import open_video
from slowfast.datasets.decode.image import FrameFolderReader
from slowfast.datasets.index.folder import scan
from slowfast.errors import DataError
from slowfast.prepare.frames import TEMPLATE, FrameSettings, extract
from tests.conftest import ROOT
from tests.video_files import picture, write_video

TOOL = ROOT / "tools" / "extract_frames.py"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_this_process")]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for name in ("up", "down"):
        (folder / name).mkdir(parents=True)
    write_video(folder / "up" / "a.mp4", frames=30, rate=30)
    write_video(folder / "down" / "b.webm", frames=10, codec="libvpx-vp9", rate=10)
    return folder


def dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def frames_in(folder: Path) -> np.ndarray:
    count = len(list(folder.iterdir()))
    decoded = FrameFolderReader(folder, TEMPLATE, count).read(np.arange(count))
    assert decoded.missing is None
    return decoded.frames


def test_frames_equal_the_video(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    result = extract(videos, out, FrameSettings(fps=None, quality=100), workers=1)
    assert (result.done, result.skipped, result.failed, result.damaged) == (2, 0, {}, {})
    for name, video in (("up/a", "up/a.mp4"), ("down/b", "down/b.webm")):
        with open_video(videos / video) as reader:
            expected = reader.read(np.arange(reader.num_frames)).frames
        found = frames_in(out / name)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 5  # JPEG halves the colors' resolution
    assert [(m.name, m.label, m.frames) for m in scan(out).samples] == [("down/b", 0, 10), ("up/a", 1, 30)]


def test_rate_and_size(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path / "frames", FrameSettings(short_side=32, fps=12), workers=1)
    found = frames_in(tmp_path / "frames" / "up" / "a")
    assert found.shape == (12, 32, 48, 3)  # one second
    for k, frame in enumerate(found):  # the frame shown at k / 12 s
        differences = [np.abs(frame.astype(int) - picture(n, 64, 96)[::2, ::2]).mean() for n in range(30)]
        assert abs(int(np.argmin(differences)) - k * 30 // 12) <= 1
    assert len(frames_in(tmp_path / "frames" / "down" / "b")) == 10


def test_existing_frames_are_kept_and_broken_videos_leave_nothing(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    (videos / "up" / "empty.mp4").touch()
    (videos / "up" / "text.mp4").write_text("no video")
    first = extract(videos, out, FrameSettings(), workers=2)
    assert first.done == 2 and set(first.failed) == {"up/empty.mp4", "up/text.mp4"}
    assert first.failed["up/empty.mp4"] == "the file is empty (0 bytes)"
    assert sorted(path.name for path in (out / "up").iterdir()) == ["a"]
    left = out / "up" / f".b.frames.{socket.gethostname()}-{dead_process()}.part"
    left.mkdir()
    (left / "00001.jpg").touch()
    again = extract(videos, out, FrameSettings(), workers=1)
    assert (again.done, again.skipped, len(again.failed)) == (0, 2, 2)
    assert not left.exists()


def test_no_readable_video(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    with pytest.raises(DataError, match="none of 1 videos could be read. First failure: a.mp4: the file is empty"):
        extract(tmp_path / "videos", tmp_path / "frames", FrameSettings(), workers=1)


def test_command_line(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [sys.executable, str(TOOL), "videos", "frames", "--fps", "all", "--workers", "1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 videos extracted" in done.stdout and len(frames_in(tmp_path / "frames" / "up" / "a")) == 30
    assert main(["extract-frames", str(videos), str(videos / "frames")]) == 2
    assert "outside of the source" in capsys.readouterr().err
