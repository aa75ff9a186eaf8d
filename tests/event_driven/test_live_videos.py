"""Event-driven inference on live sources that stall, end and reconnect."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slowfast.cli.setup import load_config
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.types import Record
from slowfast.errors import ConfigError, DataError, UserError
from slowfast.event_driven.activity import summarize
from slowfast.event_driven.report import report_table
from slowfast.event_driven.sources import Source, Sources, find_sources
from slowfast.event_driven.video_frames import StreamFrames
from slowfast.event_driven.videos import run_on_videos
from tests.conftest import run_net
from tests.event_driven.network_cameras import NetworkCamera, encoded
from tests.event_driven.settings import EMPTY, on_videos
from tests.event_driven.synthetic_videos import (
    CPU,
    SyntheticVideo,
    frame_rows,
    live_sources,
    synthetic_sources,
    video_run,
    write_still,
)
from tests.report_content import report_content
from tests.video_files import write_video

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
    seen: list[tuple[int, int]] = []  # frames in the metrics and log lines while it runs

    def look() -> bool:
        if results.exists():
            figures = json.loads(results.read_text())
            assert figures["finished"] is False
            page = report_content(tmp_path / "report.html")
            assert page["run"]["state"] == "running" and page["activity"]["videos"][0]["frames"] > 0
            seen.append((figures["all"]["frames"], len(frame_rows(tmp_path))))
        return len(seen) >= 3

    before = time.time()
    run.run(look)
    assert 0 < seen[0][0] < seen[-1][0]
    assert all(lines == frames for frames, lines in seen)
    assert all(before <= float(row["seconds"]) <= time.time() for row in frame_rows(tmp_path))


class Stalled(SyntheticVideo):
    """Video without a frame after the first one."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for frame in super().__iter__():
            yield frame
            time.sleep(600)


def test_stalled_video_does_not_delay_the_end(tmp_path: Path) -> None:
    sources = Sources([Source(Record(0, Path("v"), "v", -1), lambda: Stalled(10**9, None), live=True)], [])
    run = video_run(tmp_path, sources)
    start = time.monotonic()
    report = run.run(lambda: time.monotonic() > start + 0.5)  # a chunk of 16 frames would never be complete
    assert sum(video.frames for video in report.videos.values()) <= 1


def test_silent_camera_does_not_delay_others(tmp_path: Path) -> None:
    sources = live_sources(
        Stalled(10**9, None), SyntheticVideo(50, DecodeError("unplugged")), SyntheticVideo(0, OSError("no"))
    )
    run = video_run(tmp_path, sources, "EVENT.STREAMS", 3, "EVENT.CHUNK", 100)
    report = run.run(lambda: len(run.ledger.all) == 2 and run.activity[0].frames > 0)
    assert report.videos[1].frames == 50 and report.videos[0].frames == 1
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


def test_list_of_named_cameras_and_files(tmp_path: Path) -> None:
    moving = write_video(tmp_path / "moving.mp4", 37, size=(48, 64))
    with NetworkCamera(encoded(30)) as door, NetworkCamera(encoded(30)) as gate:
        listed = tmp_path / "cameras.txt"
        lines = [f"gate 2.b = {gate.address}", "gone = http://127.0.0.1:9/x", door.address, f"film={moving}"]
        listed.write_text("# the doors\n" + "\n".join(lines) + "\n\n")
        done = run_net([*on_videos(listed, tmp_path / "out"), "EVENT.STREAMS", 4, "EVENT.ANNOTATE", True])
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "event_results.json").read_text())
    frames = [(video["name"], video["path"], video["frames"] + video["dropped"]) for video in results["videos"]]
    assert frames == [
        ("gate 2.b", gate.address, 30),
        (door.address, door.address, 30),
        ("film", str(moving), 37),
    ]  # in the order of the list
    assert [video.get("reconnects") for video in results["videos"]] == [0, 0, None]
    assert all(0 < video["latency_p50_ms"] <= video["latency_p99_ms"] < 60_000 for video in results["videos"][:2])
    [failed] = results["failed"]
    assert (failed["name"], failed["path"]) == ("gone", "http://127.0.0.1:9/x")
    assert "cannot be opened" in failed["reason"]
    for folder, suffix in (("activity", ".png"), ("annotated", ".mp4")):
        assert {"gate 2.b" + suffix, "film" + suffix} < {file.name for file in (tmp_path / "out" / folder).iterdir()}
    with (tmp_path / "out" / "event_videos.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["path"], row["weights"]) for row in rows] == [
        (name, path, "random") for name, path, _ in frames
    ]
    assert {row["path"] for row in frame_rows(tmp_path / "out")} == {name for name, _, _ in frames}
    assert "gate 2.b: connected" in done.stdout and "camera " in done.stdout
    assert done.stdout.index("\ngate 2.b") < done.stdout.index("\nfilm")


def test_reconnected_stream_continues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with NetworkCamera([], encoded(10), [], encoded(40)) as camera:  # nothing at first, then breaks off twice
        change = ("EVENT.MAX_FRAMES", 30, "EVENT.RECONNECT", 0.1)
        cfg = load_config(EMPTY, [*on_videos(camera.address, tmp_path), *change])
        with caplog.at_level("INFO", "slowfast"):
            run_on_videos(cfg, CPU)
    results = json.loads((tmp_path / "event_results.json").read_text())
    [video] = results["videos"]
    assert video["frames"] + video["dropped"] >= 30 and not results["failed"]
    assert video["reconnects"] == 1 and video["seconds_away"] > 0.1
    about = [line.removeprefix(f"{camera.address}: ") for line in caplog.messages if line.startswith(camera.address)]
    assert [re.sub(r"[\d.]+", "N", line.partition(". ")[2] or line) for line in about] == [
        "Reconnecting in N s; later attempts at up to N s",
        "connected after N s, N attempt, N frames/s",
        "Reconnecting in N s; later attempts at up to N s",
        "back after N s, N attempts; about N frames missed, N received before",
    ]  # one message each, though two attempts failed in a row


def test_frames_that_change_their_size(tmp_path: Path) -> None:
    parts = [*encoded(15, (48, 64)), *encoded(15, (96, 64))]
    with NetworkCamera(parts, interval=0.005) as camera:
        change = ("EVENT.RESIZE", "letterbox", "EVENT.ANNOTATE", True, "EVENT.CHUNK", 1)
        run_on_videos(load_config(EMPTY, [*on_videos(camera.address, tmp_path), *change]), CPU)
    with NetworkCamera(parts) as same:
        sizes = [image.shape[:2] for _, image in StreamFrames(same.address)]
    assert set(sizes) == {(48, 64), (96, 64)} and len(sizes) >= 29  # the decoder may lose one
    [video] = json.loads((tmp_path / "event_results.json").read_text())["videos"]
    assert video["frames"] + video["dropped"] >= 29


def test_silent_network_camera_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowfast.event_driven.video_frames._TIMEOUT", 2.0)
    with NetworkCamera([], stays=True) as silent, NetworkCamera(encoded(20), stays=True) as stalled:
        for camera, reason in ((silent, "cannot be opened"), (stalled, "was interrupted")):
            run = video_run(tmp_path, find_sources(camera.address, 1))
            report = run.run(lambda: False)
            [failure] = report.failures
            assert failure.reason == f"the stream {reason}: no data for 2 seconds"
            assert bool(report.videos) is not failure.lost


class Camera(SyntheticVideo):
    """Video of 50 frames/s."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for frame in super().__iter__():
            time.sleep(0.02)
            yield frame


def test_dead_cameras_do_not_delay_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Read 16 cameras, three of which are never there, until all others have shown 20 frames."""
    dead = (0, 7, 15)
    videos = [Camera(0, OSError("no route to host")) if n in dead else Camera(10**9, None) for n in range(16)]
    run = video_run(tmp_path, live_sources(*videos), "EVENT.STREAMS", 16, "EVENT.RECONNECT", 0.05, "EVENT.CHUNK", 1)
    with caplog.at_level("WARNING", "slowfast"):
        report = run.run(lambda: sum(video.frames >= 20 for video in run.activity.values()) == 13)
    assert list(report.videos) == [n for n in range(16) if n not in dead]
    assert [(failure.index, failure.lost) for failure in report.failures] == [(n, True) for n in dead]
    for n in dead:
        assert sum(message.startswith(f"v{n}: no route") for message in caplog.messages) == 1


def test_live_sources_are_compared_on_a_sample(tmp_path: Path) -> None:
    run = video_run(tmp_path, live_sources(Camera(10**9, None)), "EVENT.CHUNK", 2)
    compared: list[int] = []
    run.on_batch = lambda batch: compared.append(batch.frames.shape[0] if run.batches % 32 == 0 else 0)
    report = run.run(lambda: run.batches >= 70)
    of = summarize([report.videos[0]])
    assert of.compared == sum(compared) > 0 and sum(map(bool, compared)) == 2
    rows = frame_rows(tmp_path)
    assert sum(row["same_class"] != "" for row in rows) == of.compared < len(rows) == of.frames
    assert f"{of.compared} of {of.frames} frames, every 32 batches" in report_table(report)
    assert of.speed_up is not None and of.whole_fps is not None


@pytest.mark.parametrize(("every", "compared"), [(0, 20), (1, 20), (3, 4), (6, 0)])
def test_comparison_of_files(tmp_path: Path, every: int, compared: int) -> None:
    """Compare all of 5 batches of 4 frames, every third one, or none because the video is too short."""
    run = video_run(tmp_path, synthetic_sources((20, None)), "EVENT.CHUNK", 4, "EVENT.COMPARE_EVERY", every)
    report = run.run(lambda: False)
    video = report.videos[0]
    assert video.compared == compared
    assert 0 <= video.compared_event_seconds <= video.event_seconds
    of = summarize([video])
    if compared:
        assert of.speed_up == pytest.approx(video.dense_seconds / video.compared_event_seconds)
    else:
        assert of.speed_up is None and "no frame was compared with dense inference" in report_table(report)


def test_rows_are_in_the_order_of_the_list(tmp_path: Path) -> None:
    class Late(SyntheticVideo):
        """Video that opens late."""

        def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
            time.sleep(0.5)
            return super().__iter__()

    run = video_run(tmp_path, live_sources(Late(5, None), SyntheticVideo(5, None)), "EVENT.STREAMS", 2)
    opened = run.run(lambda: False)
    assert list(opened.videos) == [0, 1]


def test_invalid_lists_are_errors(tmp_path: Path) -> None:
    listed = tmp_path / "cameras.txt"
    for text, words in (("", "contains no video"), ("\n0\nnowhere.mp4\n", "line 3: nowhere.mp4 is not a file")):
        listed.write_text(text)
        with pytest.raises(DataError, match=words):
            find_sources(str(listed), 1)
    listed.write_text("0\n1\n")
    with pytest.raises(ConfigError, match="for the 2 sources of .* Set EVENT.STREAMS to 2"):
        run_on_videos(load_config(EMPTY, on_videos(listed, tmp_path)), CPU)
    for place in (listed, "0", "tcp://user:secret@127.0.0.1:9"):
        with pytest.raises(ConfigError, match="ENGINE ray: .* names a camera or stream. Set ENGINE local") as refused:
            run_on_videos(load_config(EMPTY, [*on_videos(str(place), tmp_path), "ENGINE", "ray"]), CPU)
        assert "secret" not in str(refused.value)
