"""Videos and plots of event recordings."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from event_files import SENSOR, write_recording
from PIL import Image

from slowfast.cli.main import main
from slowfast.datasets.dvs.frames import BACKGROUND, BRIGHTER, DARKER, accumulate


def test_events_are_accumulated_over_equal_times() -> None:
    x, y, t, p = np.array([1, 2, 3]), np.array([0, 1, 2]), np.array([0.0, 4.0, 10.0]), np.array([1, 0, 1])
    film = accumulate(x, y, t, p, (4, 5), frames=2)
    assert film.shape == (2, 4, 5, 3)
    assert tuple(film[0, 0, 1]) == BRIGHTER and tuple(film[0, 1, 2]) == DARKER and tuple(film[1, 2, 3]) == BRIGHTER
    assert (film != BACKGROUND).any(-1).sum() == 3


def test_films_and_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = tmp_path / "a.npz"
    write_recording(recording, 300, 0)
    sensor = ["--height", str(SENSOR[0]), "--width", str(SENSOR[1])]
    for name in ("a.gif", "a.mp4", "a.png"):
        assert main(["draw-dvs", str(recording), str(tmp_path / "out" / name), "--slower", "10", *sensor]) == 0
    assert "300 events" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "a.gif") as film:
        assert film.n_frames == 10 and film.size == (320, 240)  # 50 ms, ten times slower, at 20 frames per second
    with av.open(str(tmp_path / "out" / "a.mp4")) as film:
        assert film.streams.video[0].width == 320 and sum(1 for _ in film.decode(video=0)) == 10
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.gif", "a.mp4", "a.png"]


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = tmp_path / "a.npz"
    assert main(["draw-dvs", str(recording), str(tmp_path / "a.gif")]) == 2
    write_recording(recording, 30, 0)
    assert main(["draw-dvs", str(recording), str(tmp_path / "a.avi")]) == 2
    assert main(["draw-dvs", str(recording), str(tmp_path / "a.gif"), "--fps", "0"]) == 2
    error = capsys.readouterr().err
    assert "no such file" in error and "must end in .gif or .mp4 or .png" in error and "argument --fps: '0'" in error


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"y": np.array([1, np.nan, 2])}, "the coordinate nan is outside any known sensor. Give --height"),
        ({"x": np.array([1, 2, 2_000_000_000])}, "the coordinate 2e+09 is outside any known sensor. Give --width"),
        ({"t": np.array([0, 1, 10**15])}, "has more than 100000 frames. Lower --fps"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, np.ndarray], words: str
) -> None:
    events = {"x": np.arange(3), "y": np.arange(3), "t": np.arange(3), "p": np.array([0, 1, 0])} | changed
    np.savez(tmp_path / "a.npz", **events)
    assert main(["draw-dvs", str(tmp_path / "a.npz"), str(tmp_path / "a.mp4")]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1 and not (tmp_path / "a.mp4").exists()
