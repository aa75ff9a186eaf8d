"""Live prediction: real streams over the loopback interface, played files, missing cameras, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from video_files import picture, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets.decode import open_video
from slowfast.datasets.types import Record
from slowfast.event_driven.sources import Source
from slowfast.inference.live import LivePredictor, live_to_files
from slowfast.inference.live_sources import TICKS, TickClock, find_live
from slowfast.inference.predictor import Predictor
from slowfast.inference.segments import WindowScores
from slowfast.inference.windows import Length, WindowOptions
from tests.csv_files import read_rows
from tests.inference.tiny_predictions import predict, settings

SIZE = (32, 48)  # not scaled down before the view, as live frames are by another scaler
LOSSLESS = {"qp": "0"}


class Camera(threading.Thread):
    """Network camera: serves frames at 50 frames/s as MPEG-TS over TCP to one client."""

    def __init__(self, frames: int) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.frames = frames
        self.start()

    def write(self, data: bytes) -> int:
        """Send a part of the stream."""
        self._client.sendall(data)
        return len(data)

    def run(self) -> None:
        self._client, _ = self._listening.accept()
        try:
            with av.open(self, "w", format="mpegts", options={"flush_packets": "1"}) as out:
                stream = out.add_stream("mpeg4", rate=50)
                stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
                for number in range(self.frames):
                    frame = av.VideoFrame.from_ndarray(picture(number, 48, 64), format="rgb24")
                    out.mux(stream.encode(frame.reformat(format="yuv420p")))
                    time.sleep(0.02)
                out.mux(stream.encode(None))
        except (av.FFmpegError, OSError):
            pass  # the client has left
        finally:
            self._client.close()
            self._listening.close()


def test_a_stream_is_classified_until_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    camera = Camera(70)
    status, out = predict(tmp_path, camera.address, "--window", 0.4, "--step", 0.2, "--annotate")
    assert status == 0
    rows = read_rows(out / "segments.csv")
    assert rows and all(row["path"] == camera.address for row in rows)
    for row in rows:
        assert float(row["end"]) - float(row["start"]) == pytest.approx(0.4, abs=1e-3)
        assert 0 < float(row["latency_ms"]) < 60_000
    [video] = json.loads((out / "segments.json").read_text())["videos"]
    assert len(video["segments"]) == len(rows) and video["fps"] == 50
    assert video["segments"][-1]["end"] == pytest.approx(video["seconds"])
    [annotated] = (out / "annotated").iterdir()
    with open_video(annotated) as drawn:
        assert drawn.num_frames == round(50 * video["seconds"])
    shown = capsys.readouterr().out
    assert "latency p50" in shown and "ms)" in shown


def test_ctrl_c_ends_well(tmp_path: Path) -> None:
    camera = Camera(10_000)
    out = tmp_path / "out" / "segments.csv"

    def interrupt() -> None:
        while not out.exists() or len(out.read_text().splitlines()) < 4:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert predict(tmp_path, camera.address, "--step", 0.1)[0] == 0
    [video] = json.loads((tmp_path / "out" / "segments.json").read_text())["videos"]
    assert video["seconds"] < 190  # of 200
    assert len(video["segments"]) == len(read_rows(out)) >= 3
    assert (tmp_path / "out" / "subtitles").is_dir()


def test_windows_have_the_logits_of_cut_files(tmp_path: Path) -> None:
    """Two files are played at once; their windows share batches."""
    cfg = get_cfg()
    cfg.merge_from_list(settings(tmp_path))
    files = [
        write_video(tmp_path / "a.mp4", 30, size=SIZE, options=LOSSLESS),
        write_video(tmp_path / "b.mp4", 30, size=SIZE, options=LOSSLESS, first=100),
    ]
    sources = find_live([str(file) for file in files], 1, play=True)
    assert sources is not None and [source.record.index for source in sources] == [0, 1]
    found: list[WindowScores] = []
    live = LivePredictor.from_config(cfg, WindowOptions(Length(0.4), Length(0.2)))
    start = time.monotonic()
    streams = live.run(sources, lambda *_: None, lambda done: found.append(done.window_scores), lambda: False)
    assert time.monotonic() - start > 1.1  # at their own speed
    assert sum(stream.windows for stream in streams) == len(found)
    # Five and one more at the end; a busy machine takes several frames at a time.
    assert all(0 < stream.windows and stream.windows + stream.skipped <= 6 for stream in streams)
    one = Predictor.from_config(cfg)
    for window in [*found[:2], *found[-2:]]:
        first = round(window.start * 25) + 100 * window.record.index
        scores = one(write_video(tmp_path / "cut.mp4", 10, size=SIZE, options=LOSSLESS, first=first)).scores
        assert scores is not None
        torch.testing.assert_close(window.scores, scores, rtol=0, atol=1e-6)


def test_what_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "a.mp4", 10)
    for words, answer in (
        (("98",), "98: camera 98 cannot be opened: it is not connected"),
        (("tcp://127.0.0.1:9",), "tcp://127.0.0.1:9: the stream cannot be opened"),
        (("98", "99"), "none of 2 sources can be read. The first one: 98:"),
        (("98", video), "is a file, but 98 is live"),
        (("--live", tmp_path / "gone.mp4"), "gone.mp4: does not exist"),
        (("--live", video, "--window", "3"), "it ended after 0.4 s, before the first window of 3 s was complete"),
    ):
        status, out = predict(tmp_path, *words)
        error = capsys.readouterr().err
        assert status == 2 and answer in error and error.count("\n") == 1
        assert not out.exists()


def test_a_broken_source_does_not_stop_the_others(tmp_path: Path) -> None:
    camera = Camera(40)
    assert predict(tmp_path, "98", camera.address, "--step", 0.2, "--merge")[0] == 0
    [failed] = read_rows(tmp_path / "out" / "failed.csv")
    assert (failed["path"], failed["lost"]) == ("98", "yes")
    assert {row["path"] for row in read_rows(tmp_path / "out" / "segments.csv")} == {camera.address}


class ChangedCamera:
    """Camera whose resolution is changed after half of its frames."""

    rate, time_base, missing = Fraction(25), Fraction(1, 25), None
    pixel_aspect, arrived = 1.0, 0.0

    def __init__(self, folder: Path) -> None:
        self.list = folder / "segments.csv"

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for number in range(40):
            while number == 20 and not (self.list.exists() and len(self.list.read_text().splitlines()) > 1):
                time.sleep(0.02)  # a window before the change
            yield number, picture(number, 32 if number < 20 else 40, 48)
            time.sleep(0.02)

    def close(self) -> None:
        """Do nothing."""


def test_a_camera_may_change_its_resolution(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(settings(tmp_path))
    source = Source(Record(0, Path("cam"), "cam", -1), lambda: ChangedCamera(tmp_path / "out"), live=True)
    options = WindowOptions(Length(0.4), Length(0.2))
    assert live_to_files(cfg, [source], tmp_path / "out", options, annotate=True) == 0
    ends = [float(row["end"]) for row in read_rows(tmp_path / "out" / "segments.csv")]
    assert min(ends) < 0.8 and max(ends) == pytest.approx(1.6)  # before and after the change
    with open_video(tmp_path / "out" / "annotated" / "cam.mp4") as drawn:
        assert drawn.num_frames == 40


def test_clock_of_a_stream() -> None:
    clock = TickClock(0.04)
    times = [None, None, 5.0, 5.04, 1e6, 1e6 + 0.02, 3.0, None, 3.1]
    ticks = [clock(seconds) for seconds in times]
    steps = [0.04, 5.0 - 0.08, 0.04, 0.04, 0.02, 0.04, 0.04, 0.06]
    assert ticks[0] == 0
    assert np.diff(ticks) / TICKS == pytest.approx(steps, abs=1e-4)
