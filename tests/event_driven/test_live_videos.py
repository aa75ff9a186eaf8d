"""Event-driven inference on live sources that stall, end and reconnect."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from slowfast.cli.setup import load_config
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.types import Record
from slowfast.errors import ConfigError, DataError, UserError
from slowfast.event_driven.activity import summarize
from slowfast.event_driven.report import report_table
from slowfast.event_driven.sources import Source, Sources, find_sources
from slowfast.event_driven.videos import run_on_videos
from tests.conftest import run_net
from tests.event_driven.settings import EMPTY, on_videos
from tests.event_driven.synthetic_videos import CPU, SyntheticVideo, frame_rows, live_sources, video_run, write_still
from tests.video_files import picture, write_video

pytestmark = pytest.mark.slow


def test_missing_cameras_and_streams_are_reported(tmp_path: Path) -> None:
    for address, words in (
        ("98", "camera 98 cannot be opened"),
        ("http://127.0.0.1:9/x", "the stream cannot be opened"),
    ):
        cfg = load_config(EMPTY, on_videos(address, tmp_path))
        with pytest.raises(DataError, match=words):
            run_on_videos(cfg, CPU)


def test_folder_named_as_a_number_is_not_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    write_still(tmp_path / "0" / "a.mkv")
    assert [source.live for source in find_sources("0", 1).videos] == [False]
    assert [source.live for source in find_sources("1", 1).videos] == [True]


def test_interim_report_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowfast.event_driven.videos._REPORT_INTERVAL", 0.0)
    run = video_run(tmp_path, live_sources(SyntheticVideo(10**9, None)), "EVENT.CHUNK", 2)
    results = tmp_path / "event_results.json"
    seen: list[tuple[int, int]] = []  # frames in the figures and lines, while it runs

    def look() -> bool:
        if results.exists():
            figures = json.loads(results.read_text())
            assert figures["finished"] is False
            seen.append((figures["all"]["frames"], len(frame_rows(tmp_path))))
        return len(seen) >= 3

    before = time.time()
    run.run(look)
    assert 0 < seen[0][0] < seen[-1][0]
    assert all(lines == frames for frames, lines in seen)
    assert all(before <= float(row["seconds"]) <= time.time() for row in frame_rows(tmp_path))


class Stalled(SyntheticVideo):
    """Video that waits before each frame."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for frame in super().__iter__():
            time.sleep(1.0)
            yield frame


def test_stalled_video_does_not_delay_the_end(tmp_path: Path) -> None:
    sources = Sources([Source(Record(0, Path("v"), "v", -1), lambda: Stalled(10**9, None), live=True)], [])
    run = video_run(tmp_path, sources)
    start = time.monotonic()
    report = run.run(lambda: time.monotonic() > start + 0.5)  # a chunk of 16 frames would take 16 s
    assert time.monotonic() - start < 10 and not report.videos


def test_silent_camera_does_not_delay_others(tmp_path: Path) -> None:
    sources = live_sources(
        Stalled(10**9, None), SyntheticVideo(50, DecodeError("unplugged")), SyntheticVideo(0, OSError("no"))
    )
    run = video_run(tmp_path, sources, "EVENT.STREAMS", 3, "EVENT.CHUNK", 100)
    start = time.monotonic()
    report = run.run(lambda: len(run.ledger.all) == 2 and run.activity[0].frames > 0)
    assert time.monotonic() - start < 20
    assert report.videos[1].frames == 50 and 0 < report.videos[0].frames < 20
    assert sorted((failure.index, failure.reason, failure.lost) for failure in report.failures) == [
        (1, "unplugged", False),
        (2, "no", True),
    ]


def test_frames_that_arrive_too_fast_are_dropped_and_counted(tmp_path: Path) -> None:
    run = video_run(tmp_path, live_sources(SyntheticVideo(500, None)), "EVENT.CHUNK", 2)
    report = run.run(lambda: False)
    video = report.videos[0]
    assert video.frames + video.dropped == 500 and video.frames > 0
    assert not video.dropped or f"{video.dropped} frames dropped" in report_table(report)
    assert summarize([video]).dropped == video.dropped


def test_user_error_of_a_camera_is_raised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a mistake"):
        video_run(tmp_path, live_sources(SyntheticVideo(3, UserError("a mistake")))).run(lambda: False)


def serve(port: int, frames: int) -> None:
    """Serve some frames as MPEG-TS over TCP at 50 frames/s to the first client."""
    with av.open(f"tcp://127.0.0.1:{port}?listen=1", "w", format="mpegts") as out:
        stream = out.add_stream("mpeg4", rate=50)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, 48, 64), format="rgb24")
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
            time.sleep(0.02)
        out.mux(stream.encode(None))


def test_list_of_streams_and_files(tmp_path: Path) -> None:
    moving = write_video(tmp_path / "moving.mp4", 37, size=(48, 64))
    ports = [free_port(), free_port()]
    cameras = [multiprocessing.get_context("spawn").Process(target=serve, args=(port, 30)) for port in ports]
    for camera in cameras:
        camera.start()
    sources_listed = [*(f"tcp://127.0.0.1:{port}" for port in ports), "http://127.0.0.1:9/x", str(moving)]
    listed = tmp_path / "cameras.txt"
    listed.write_text("# the doors\n" + "\n".join(sources_listed) + "\n\n")
    for port in ports:
        wait_for_listener(port)
    done = run_net([*on_videos(listed, tmp_path / "out"), "EVENT.STREAMS", 4])
    for camera in cameras:
        camera.join(20)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "event_results.json").read_text())
    frames = {video["path"]: video["frames"] + video["dropped"] for video in results["videos"]}
    assert frames == {sources_listed[0]: 30, sources_listed[1]: 30, sources_listed[3]: 37}
    [failed] = results["failed"]
    assert failed["path"] == sources_listed[2] and "cannot be opened" in failed["reason"]


def test_reconnected_stream_continues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    spawn = multiprocessing.get_context("spawn").Process
    cameras = [spawn(target=serve, args=(port, frames)) for frames in (10, 40)]
    cfg = load_config(
        EMPTY,
        [*on_videos(f"tcp://127.0.0.1:{port}", tmp_path), "EVENT.MAX_FRAMES", 30, "EVENT.RECONNECT", 0.2],
    )

    def serve_both() -> None:
        for camera in cameras:
            camera.start()
            camera.join(30)

    serving = threading.Thread(target=serve_both)
    serving.start()
    with caplog.at_level("WARNING", "slowfast"):
        run_on_videos(cfg, CPU)  # not there yet at first, then breaks off after 10 frames
    for camera in cameras:
        camera.kill()
    serving.join(30)
    results = json.loads((tmp_path / "event_results.json").read_text())
    [video] = results["videos"]
    assert video["frames"] + video["dropped"] == 30 and not results["failed"]
    assert sum("Reconnecting in 0.2 s" in message for message in caplog.messages) >= 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_listener(port: int) -> None:
    """Wait for a listening socket without connecting, which would consume the stream."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    until = time.monotonic() + 30
    while wanted not in Path("/proc/net/tcp").read_text():
        assert time.monotonic() < until, f"nobody listens at port {port}"
        time.sleep(0.05)


def test_invalid_lists_are_errors(tmp_path: Path) -> None:
    listed = tmp_path / "cameras.txt"
    for text, words in (("", "contains no video"), ("\n0\nnowhere.mp4\n", "line 3: nowhere.mp4 is not a file")):
        listed.write_text(text)
        with pytest.raises(DataError, match=words):
            find_sources(str(listed), 1)
    listed.write_text("0\n1\n")
    with pytest.raises(ConfigError, match="for the 2 sources of .* Set EVENT.STREAMS to 2"):
        run_on_videos(load_config(EMPTY, on_videos(listed, tmp_path)), CPU)
