"""Event Stream files against the test encoder."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events
from tests.raw_recordings import EVENTS, event_stream, events_of, read, rows


@pytest.mark.parametrize("kind", [1, 2])
def test_events(tmp_path: Path, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.es").write_bytes(event_stream(EVENTS, 30, kind))
    assert events_of(tmp_path / "a.es") == EVENTS
    monkeypatch.setattr("slowfast.datasets.dvs.formats.event_stream.BLOCK_BYTES", 7)
    (stream,) = read(tmp_path / "a.es")
    assert (rows(stream.events), stream.sensor, stream.damage) == (EVENTS, (30, 34), None)


def test_reset_truncation_and_exposure(tmp_path: Path) -> None:
    head = event_stream([], 30)
    event = struct.pack("<BHH", 5 << 1 | 1, 3, 29)
    (tmp_path / "a.es").write_bytes(head + b"\xfe\xfe" + event + b"\xff" + event + event[:3])
    (stream,) = read(tmp_path / "a.es")
    assert rows(stream.events) == [(3, 0, 5, 1), (3, 0, 137, 1)]
    assert stream.damage == "truncated: the file ends within an event, after 3 of 5 bytes"
    exposure = struct.pack("<BHH", 5 << 2 | 1, 3, 29)
    change = struct.pack("<BHH", 5 << 2 | 2, 3, 29)
    (tmp_path / "b.es").write_bytes(event_stream([], 30, 2) + exposure + change)
    assert rows(read(tmp_path / "b.es")[0].events) == [(3, 0, 10, 1)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Event Stream\2\0", "the header is incomplete"),
        (b"Event Stream\3\0\0\1" + bytes(4), "unsupported version 3"),
        (b"Event Stream\2\0\0\4" + bytes(4), "contains color events"),
        (b"Event stream" + bytes(8), "not an Event Stream file"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.es").write_bytes(data)
    with pytest.raises(DecodeError, match=message):
        open_events(tmp_path / "a.es")
