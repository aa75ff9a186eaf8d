"""The torchcodec reader: equal to PyAV if available, else a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError, open_video, require_backend
from slowfast.errors import ConfigError
from tests.video_files import plain_frames, write_video


def torchcodec_error() -> str | None:
    """Return why torchcodec cannot be used, or None."""
    try:
        require_backend("torchcodec")
    except ConfigError as error:
        return str(error)
    return None


ERROR = torchcodec_error()
needs_torchcodec = pytest.mark.skipif(ERROR is not None, reason=str(ERROR))


def test_missing_package_is_a_config_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "slowfast.datasets.decode.torchcodec", raising=False)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ConfigError, match=r"slowfast\[torchcodec\].*pyav") as caught:
        open_video(tmp_path / "a.mp4", "torchcodec")
    assert "\n" not in str(caught.value)


@needs_torchcodec
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "rotated.mp4"])
def test_frames_equal_pyav(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, options={"g": "20", "bf": "3"}, rotation=90 if "rotated" in name else 0)
    indices = np.array([[5, 3], [59, 3]])
    with open_video(path, "torchcodec") as ours, open_video(path) as reference:
        assert (ours.num_frames, ours.height, ours.width) == (60, reference.height, reference.width)
        assert ours.fps == pytest.approx(reference.fps)
        mine, theirs = ours.read(indices), reference.read(indices)
    assert mine.missing is None
    np.testing.assert_array_equal(mine.rows, theirs.rows)
    # The color conversion may come from another version of FFmpeg.
    assert np.abs(mine.frames.astype(int) - theirs.frames).max() <= 2


@needs_torchcodec
def test_requested_frames_equal_sequential_decoding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", options={"g": "20", "bf": "3"})
    with open_video(path, "torchcodec") as video:
        every = video.read(np.arange(60)).frames
        np.testing.assert_array_equal(video.read([7, 33]).frames, every[[7, 33]])
    assert len(plain_frames(path)) == len(every)


@needs_torchcodec
def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    for name, reason in {"empty.mp4": "0 bytes", "text.mp4": "torchcodec", "none.mp4": "no such file"}.items():
        with pytest.raises(DecodeError, match=reason):
            open_video(tmp_path / name, "torchcodec")
