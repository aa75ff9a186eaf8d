"""`slowfast events info`: statistics of files, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slowfast.cli.main import main
from slowfast.datasets.dvs.formats import EventBlock
from slowfast.datasets.dvs.statistics import GAP, StatisticsCollector
from tests.raw_recordings import aedat4, dat, some_events

HOT = (7, 5)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording with a hot pixel, a gap of 0.5 s and two steps back in time."""
    events = some_events(2000, width=60, height=40)
    events += [(x, y, t + 600_000, 1) for x, y, t, _ in events]
    for k in range(400):
        events.insert(10 * k, (*HOT, events[10 * k][2], 1))
    events[100] = (*events[100][:2], events[100][2] + 300, events[100][3])
    events[3000] = (*events[3000][:2], events[3000][2] + 900, events[3000][3])
    (tmp_path / "a.dat").write_bytes(dat(events))
    return tmp_path / "a.dat"


def test_statistics_as_json(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "info", str(recording), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    t = np.fromfile(recording, "<u4", offset=recording.stat().st_size - 8 * 4400)[::2].astype(np.int64)
    p = np.fromfile(recording, "<u4", offset=recording.stat().st_size - 8 * 4400)[1::2] >> 28 & 1
    steps = np.diff(t)
    assert (row["events"], row["start"], row["end"], row["duration"]) == (4400, t.min(), t.max(), np.ptp(t))
    assert row["rate"] == pytest.approx(4400 / np.ptp(t) * 1e6) and row["on_share"] == pytest.approx(p.mean())
    assert row["peak_rate"] == np.bincount(t // 10_000).max() * 100 >= row["rate"]
    assert (row["sensor"], row["extent"], row["outside"]) == ([240, 304], [40, 60], 0)
    assert row["hot_pixels"] == 1 and row["hot_events"] == row["hottest"][0]["events"] >= 400
    assert (row["hottest"][0]["x"], row["hottest"][0]["y"]) == HOT
    assert row["gaps"] == (steps > GAP).sum() == 1 and row["longest_gaps"][0]["duration"] == steps.max()
    assert (row["backward_steps"], row["largest_backward_step"]) == ((steps < 0).sum(), -steps.min())
    assert row["backward_steps"] == 2 and row["damage"] == row["notes"] == []


def test_blocks_do_not_change_the_statistics() -> None:
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 3_000_000, 500))
    t[100:110] = t[100:110][::-1]
    columns = EventBlock(t, rng.integers(0, 50, 500), rng.integers(0, 40, 500), rng.integers(0, 2, 500, np.uint8))
    results = []
    for size in (1, 7, 500):
        collector = StatisticsCollector((30, 50), 1.0)
        for at in range(0, 500, size):
            collector.add(EventBlock(*(column[at : at + size] for column in columns)))
        results.append(collector.result())
    assert results[0] == results[1] == results[2] and results[0].outside == (columns.y >= 30).sum()


def test_table_streams_and_unreadable_files(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.aedat4").write_bytes(aedat4([some_events(), some_events(70), []])[:-30])
    (tmp_path / "b.csv").write_text("remarks\n")
    files = [recording, tmp_path / "two.aedat4", tmp_path / "b.csv", tmp_path / "none.raw"]
    assert main(["events", "info", *map(str, files)]) == 2
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    for part in (
        "events 4,400 duration",
        "sensor 240 x 304 pixels; events within 40 x 60 (height x width)",
        "of the events; (7, 5): 40",
        "gaps 1 of more than 0.1 s: 0.",
        "steps back 2, the largest",
        "two.aedat4: stream0 format AEDAT 4.0 file events 50",
        "steps back none damage damaged or truncated at byte",
    ):
        assert part in shown, part
    assert said.err.splitlines() == [
        f"error: {tmp_path / 'b.csv'}: line 1: 'remarks' is not an event. Expected lines of four numbers, or names "
        "with x, y, t, p in the first line",
        f"error: {tmp_path / 'none.raw'}: no such file or directory",
    ]


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events"]) == 2 and main(["events", "inof"]) == 2
    assert "unknown command inof. Did you mean info?" in capsys.readouterr().err
