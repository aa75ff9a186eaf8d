"""Failures of videos, disks and networks during event-driven inference."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from slowfast.cli.setup import load_config
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.types import Record
from slowfast.errors import DataError, UserError
from slowfast.event_driven.activity import summarize
from slowfast.event_driven.crash_watch import CrashWatch
from slowfast.event_driven.readers import LiveReader
from slowfast.event_driven.sources import Source, Sources, find_sources
from slowfast.event_driven.video_frames import StreamFrames
from slowfast.event_driven.videos import run_on_videos
from slowfast.models.build import build_model
from tests.event_driven.settings import EMPTY, on_videos
from tests.event_driven.synthetic_videos import (
    CPU,
    SyntheticVideo,
    by_name,
    frame_rows,
    live_sources,
    synthetic_sources,
    video_run,
)
from tests.video_files import picture, write_video

pytestmark = pytest.mark.slow

SMALL = (48, 64)


def test_unwritable_annotated_video_does_not_stop_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", 9, size=SMALL)
    (tmp_path / "out" / "annotated" / "a.mp4").mkdir(parents=True)  # in its way
    with caplog.at_level("WARNING", "slowfast"):
        run_on_videos(load_config(EMPTY, [*on_videos(tmp_path, tmp_path / "out"), "EVENT.ANNOTATE", True]), CPU)
    assert set(by_name(tmp_path / "out")) == {"a.mp4", "b.mp4"}
    assert [line for line in caplog.messages if "annotated video of" in line and "a.mp4" in line]
    with av.open(str(tmp_path / "out" / "annotated" / "b.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 9


class ComesBack(SyntheticVideo):
    """Video with five frames every time it is opened."""

    def __init__(self) -> None:
        super().__init__(5, None)

    def close(self) -> None:
        """Allow reopening."""


def test_annotated_video_of_a_reconnected_camera_continues(tmp_path: Path) -> None:
    camera = ComesBack()
    change = ("EVENT.RECONNECT", 0.05, "EVENT.ANNOTATE", True, "EVENT.MAX_FRAMES", 17, "EVENT.CHUNK", 2)
    run = video_run(tmp_path, live_sources(camera), *change)
    report = run.run(lambda: False)
    assert report.videos[0].frames == 17 and not report.failures
    with av.open(str(tmp_path / "annotated" / "v0.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 17


def test_limit_counts_processed_frames(tmp_path: Path) -> None:
    run = video_run(tmp_path, live_sources(SyntheticVideo(10**9, None)), "EVENT.MAX_FRAMES", 50, "EVENT.CHUNK", 2)
    report = run.run(lambda: False)
    assert report.videos[0].frames == len(frame_rows(tmp_path)) == 50


def test_stream_continues_after_corrupt_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 20, codec="mjpeg", pix_fmt="yuvj420p", size=SMALL)
    data = bytearray(path.read_bytes())
    offsets = [offset for offset in range(len(data) - 2) if data[offset : offset + 3] == b"\xff\xd8\xff"]
    for offset in offsets[7:9]:
        data[offset : offset + 300] = bytes(300)
    path.write_bytes(data)
    stream = StreamFrames(f"file://{path}")
    assert [number for number, _ in stream] == list(range(18))
    assert stream.missing is not None and stream.missing.startswith("2 packets cannot be decoded: ")
    cfg = load_config(EMPTY, [*on_videos(f"file://{path}", tmp_path / "out"), "EVENT.CHUNK", 100])
    run_on_videos(cfg, CPU)
    results = json.loads((tmp_path / "out" / "event_results.json").read_text())
    assert results["all"]["frames"] == 18 and "2 packets" in results["failed"][0]["reason"]


class Damaged(SyntheticVideo):
    """Damaged video that fails after ten frames."""

    missing = "3 packets cannot be decoded"


@pytest.mark.parametrize(("limit", "reason"), [(5, ""), (0, "unplugged; ")])
def test_errors_after_the_limit_are_ignored(tmp_path: Path, limit: int, reason: str) -> None:
    run = video_run(tmp_path, live_sources(Damaged(10, DecodeError("unplugged"))), "EVENT.MAX_FRAMES", limit)
    report = run.run(lambda: False)
    [failure] = report.failures
    assert (failure.reason, failure.lost) == (f"{reason}3 packets cannot be decoded", False)


def test_undecodable_stream_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 1100, codec="mjpeg", pix_fmt="yuvj420p", size=(16, 16))
    data = bytearray(path.read_bytes())
    offset = 0
    while (offset := data.find(b"\xff\xd8\xff", offset)) >= 0:
        data[offset : offset + 300] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="1000 consecutive packets cannot be decoded"):
        list(StreamFrames(f"file://{path}"))


def test_camera_without_frames_is_listed_when_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = video_run(
        *(tmp_path, live_sources(SyntheticVideo(0, OSError("not there")), SyntheticVideo(10**9, None))),
        *("EVENT.STREAMS", 2, "EVENT.RECONNECT", 0.05),
    )
    with caplog.at_level("WARNING", "slowfast"):
        report = run.run(lambda: run.batches > 3 and any("not there" in message for message in caplog.messages))
    assert [(failure.index, failure.reason, failure.lost) for failure in report.failures] == [(0, "not there", True)]


def test_user_error_is_never_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the error between reading frames and checking for the end."""
    fill = LiveReader.fill

    def fill_then_wait(self: LiveReader, count: int) -> None:
        fill(self, count)
        self._thread.join(120)

    monkeypatch.setattr(LiveReader, "fill", fill_then_wait)
    with pytest.raises(UserError, match="a mistake"):
        video_run(tmp_path, live_sources(SyntheticVideo(0, UserError("a mistake")))).run(lambda: False)


class Slow(SyntheticVideo):
    """Slow file."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for frame in super().__iter__():
            time.sleep(0.1)
            yield frame


def test_elapsed_time_includes_opening(tmp_path: Path) -> None:
    run = video_run(tmp_path, Sources([Source(Record(0, Path("v"), "v", -1), lambda: Slow(5, None))], []))
    report = run.run(lambda: False)
    assert report.videos[0].elapsed >= 0.5 and summarize([report.videos[0]]).end_to_end_fps <= 10


def test_a_crash_would_name_the_files_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    monkeypatch.setattr(CrashWatch, "begin", lambda _, number, name: reads.append((number, name)))
    monkeypatch.setattr(CrashWatch, "end", lambda _, number: reads.append(number))
    for name in "ac":
        write_video(tmp_path / f"{name}.mp4", 5, size=SMALL)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    run_on_videos(load_config(EMPTY, on_videos(tmp_path, tmp_path / "out")), CPU)
    a, b, c = (str(tmp_path / f"{name}.mp4") for name in "abc")
    assert reads == [(0, a), 0, (1, b), 1, (2, c), 2]


def test_thumbnail_does_not_keep_its_batch_alive(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 40, size=SMALL)
    run = video_run(tmp_path, find_sources(str(tmp_path), 1))
    run.run(lambda: False)
    assert run.thumbnails[0].untyped_storage().nbytes() == run.thumbnails[0].numel()


def test_nan_logits_give_valid_files(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 9, size=SMALL)
    cfg = load_config(EMPTY, on_videos(tmp_path / "a.mp4", tmp_path / "out"))
    weights = {name: torch.full_like(tensor, torch.nan) for name, tensor in build_model(cfg).state_dict().items()}
    torch.save(weights, tmp_path / "nan.pth")
    run_on_videos(
        load_config(
            EMPTY,
            [
                *on_videos(tmp_path / "a.mp4", tmp_path / "out"),
                *("TEST.CHECKPOINT_FILE_PATH", str(tmp_path / "nan.pth")),
            ],
        ),
        CPU,
    )

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "out" / "event_results.json").read_text()
    results = json.loads(text, parse_constant=no_constant)
    assert results["all"]["top1_agreement"] == 0 and results["all"]["logit_error_mean"] is None


@pytest.mark.parametrize("name", [b"\xe9" * 3 + b".mp4", b"x" * 251 + b".mp4"])
def test_undecodable_and_long_file_names(tmp_path: Path, name: bytes) -> None:
    write_video(tmp_path / "a.mp4", 9, size=SMALL)
    (tmp_path / "a.mp4").rename(tmp_path / os.fsdecode(name))
    run_on_videos(load_config(EMPTY, [*on_videos(tmp_path, tmp_path / "out"), "EVENT.ANNOTATE", True]), CPU)
    for folder in ("activity", "annotated"):
        assert len(list((tmp_path / "out" / folder).iterdir())) == 1


def test_annotated_video_of_one_frame_per_hour(tmp_path: Path) -> None:
    write_video(tmp_path / "slow.mkv", 5, size=SMALL, pts=[0, 3600, 7200, 10800, 14400], time_base=Fraction(1))
    run_on_videos(load_config(EMPTY, [*on_videos(tmp_path, tmp_path / "out"), "EVENT.ANNOTATE", True]), CPU)
    assert [float(row["seconds"]) for row in frame_rows(tmp_path / "out")] == [0, 3600, 7200, 10800, 14400]


def test_frame_log_of_an_earlier_run_is_removed(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 9, size=SMALL)
    for log in (True, False):
        run_on_videos(load_config(EMPTY, [*on_videos(tmp_path, tmp_path / "out"), "EVENT.FRAME_LOG", log]), CPU)
        assert (tmp_path / "out" / "event_frames.csv").exists() is log


def test_unreadable_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def closed(path: object) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", closed)
    found = find_sources(str(tmp_path), 1)
    assert "cannot be listed (permission denied)" in found.refused[0].reason
    with pytest.raises(DataError, match="permission denied"):
        run_on_videos(load_config(EMPTY, on_videos(tmp_path, tmp_path / "out")), CPU)


def test_unopened_file_of_a_stopped_run_is_not_a_failure(tmp_path: Path) -> None:
    sources = live_sources(Slow(10**9, None), SyntheticVideo(10**9, None))
    files = [Source(source.record, source.open) for source in sources.videos]
    run = video_run(tmp_path, Sources(files, []), "EVENT.STREAMS", 2, "EVENT.CHUNK", 1)
    report = run.run(lambda: 1 in run.activity and run.activity[1].frames > 0)
    assert not report.failures


def test_silent_camera_is_listed_when_stopped(tmp_path: Path) -> None:
    class Silent(SyntheticVideo):
        """Open video without a frame for a while."""

        def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
            time.sleep(600)
            return super().__iter__()

    run = video_run(tmp_path, live_sources(Silent(3, None), SyntheticVideo(10**9, None)), "EVENT.STREAMS", 2)
    report = run.run(lambda: 1 in run.activity and run.activity[1].frames > 20)
    [failure] = report.failures
    assert failure.index == 0 and failure.lost and "no frame had arrived" in failure.reason


class Hangs(SyntheticVideo):
    """Video that hangs after three frames."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for number in range(3):
            yield number, picture(number, 32, 32)
        time.sleep(600)


class HangsAtOnce(SyntheticVideo):
    """Video that hangs while it is opened."""

    def __init__(self) -> None:
        time.sleep(600)


@pytest.mark.parametrize(("streams", "kind"), [(1, Hangs), (3, HangsAtOnce)])
def test_hanging_file_does_not_affect_others(tmp_path: Path, streams: int, kind: type[SyntheticVideo]) -> None:
    records = [Record(index, Path(f"v{index}"), f"v{index}", -1) for index in range(5)]
    intact = [lambda n=n: SyntheticVideo(n, None) for n in (9, 0, 12, 7, 11)]
    opens = [*intact[:1], HangsAtOnce if kind is HangsAtOnce else lambda: Hangs(0, None), *intact[2:]]
    sources = Sources([Source(record, open_) for record, open_ in zip(records, opens, strict=True)], [])
    change = ("EVENT.STREAMS", streams, "EVENT.CHUNK", 4, "DATA_LOADER.TIMEOUT", 3)
    report = video_run(tmp_path, sources, *change).run(lambda: False)
    assert {index: video.frames for index, video in report.videos.items()} == {0: 9, 2: 12, 3: 7, 4: 11}
    (failure,) = report.failures
    assert (failure.name, failure.reason) == ("v1", "reading took longer than 3 s (DATA_LOADER.TIMEOUT)")


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("too deep"), UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "x")]
)
def test_any_error_is_a_failure_of_the_video(tmp_path: Path, error: Exception) -> None:
    report = video_run(tmp_path, synthetic_sources((9, None), (4, error), (0, error), (7, None))).run(lambda: False)
    assert {index: video.frames for index, video in report.videos.items()} == {0: 9, 1: 4, 3: 7}
    assert [(failure.name, failure.lost) for failure in report.failures] == [("v1", False), ("v2", True)]
    assert all(failure.reason.startswith(type(error).__name__) for failure in report.failures)
