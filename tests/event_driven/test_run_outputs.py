"""Log lines about cameras while they are processed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slowfast.event_driven.activity import FrameActivity
from slowfast.event_driven.connection import Connection
from slowfast.event_driven.run_outputs import FEW, INTERVAL, LiveStatus
from tests.event_driven.synthetic_videos import SyntheticVideo, live_sources, video_run


def status_of(count: int, note: str = "") -> LiveStatus:
    """Return the status of cameras v0, v1, ... after 10 frames each, with 16 of 64 patches active."""
    sources = live_sources(*[SyntheticVideo(1, None) for _ in range(count)]).videos
    status = LiveStatus(sources, ["cat", "dog"], 64, note)
    active, ones = np.full((10, 4), 16), np.ones(10, np.int64)
    for source in sources:
        status.add(source, FrameActivity(active, ones, ones, None), np.full(10, 0.1 if source.record.index else 0.2))
    return status


def connections(count: int) -> dict[int, Connection]:
    """Return cameras that are connected."""
    found = {index: Connection(f"v{index}", 1.0) for index in range(count)}
    for connection in found.values():
        connection.arrived(1)
    return found


def test_one_camera_has_one_line() -> None:
    [line] = status_of(1).lines(connections(1), {0: 3}, 2.0)
    assert line == "v0: 5.0 frames/s, 3 dropped, latency p50 199 p95 199 p99 199 ms, 25 % of patches active, dog"


def test_few_cameras_have_a_line_each() -> None:
    all_lines = status_of(2, "untrained").lines(connections(2), {0: 3, 1: 4}, 2.0)
    assert all_lines[0].startswith("2 cameras: 10.0 frames/s, 7 dropped, latency p50 ") and "untrained" in all_lines[0]
    assert [line.partition(":")[0] for line in all_lines[1:]] == ["  v0", "  v1"]
    assert "p50 99 p95 199 p99 199 ms" in all_lines[0] and "p50 99 p95 99 p99 99 ms" in all_lines[2]


def test_many_cameras_have_one_line_that_names_the_lost_ones() -> None:
    count = FEW + 1
    found = connections(count)
    for index in (1, 2, 3, 5, 6, 7):
        found[index].lost("gone")
    found[4].end()
    [line] = status_of(count).lines(found, {}, 1.0)
    assert line.endswith("; no connection to v1, v2, v3, v4, v5 and 2 more")
    few = status_of(2).lines({0: found[1], 1: found[4]}, {}, 1.0)
    assert few[1:] == ["  v0: no frame for 0 s, 1 failed attempts", "  v1: ended"]


def test_lines_appear_without_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log the status of a camera that is never there."""
    monkeypatch.setattr("slowfast.event_driven.run_outputs.INTERVAL", 0.001)
    run = video_run(tmp_path, live_sources(SyntheticVideo(0, OSError("no route"))), "EVENT.RECONNECT", 0.05)
    logged: list[str] = []
    monkeypatch.setattr("slowfast.event_driven.run_outputs.get_logger", lambda: type("L", (), {"info": logged.append}))
    run.run(lambda: any("failed attempts" in line for line in logged))
    assert all(line.startswith("v0: ") and "untrained" in line for line in logged) and INTERVAL == 10


def test_intervals_are_counted_separately() -> None:
    status = status_of(1)
    status.poll({}, {})
    [first] = status.lines(connections(1), {}, 1.0)
    status._now = status._new_interval()
    [second] = status.lines(connections(1), {}, 1.0)
    assert "10.0 frames/s" in first and second == "v0: 0.0 frames/s, 0 dropped"
