"""Live event streams: windows against a plain reference, decoders whatever the pieces."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_recordings import Event, aedat4, evt2, evt3, evt3_words, rows, some_events

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.event_windows import CountWindows, EventBuffer, LiveWindows, TimeWindows
from slowfast.datasets.dvs.formats import open_events, read_stream
from slowfast.datasets.dvs.formats.base import EventBlock
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.stream_decoders import DetectingDecoder, StreamDecoder, decoder_of
from slowfast.errors import UserError

WRITTEN_BY_DV = sorted((Path(__file__).parents[1] / "recordings").glob("*.aedat4"))


def columns(times: np.ndarray) -> EventColumns:
    return EventColumns(np.arange(len(times), dtype=np.uint16), np.zeros(len(times), np.uint16), times, times % 2)


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Times of a stream, and where it is cut."""
    times = np.sort(np.array(draw(st.lists(st.integers(0, 300), max_size=40)), np.int64))
    return times, sorted(draw(st.lists(st.integers(0, len(times)), max_size=5)))


def pieces(times: np.ndarray, cuts: list[int]) -> list[EventColumns]:
    whole = columns(times)
    bounds = [0, *cuts, len(times)]
    return [whole.take(np.arange(a, b)) for a, b in zip(bounds, bounds[1:], strict=False)]


def taken(windows: LiveWindows, watermark: float) -> list[tuple[int, list[int]]]:
    found = []
    while windows.complete(watermark):
        window = windows.take()
        found.append((window.number, window.events.t.tolist()))
    return found


@settings(deadline=None, max_examples=40)
@given(stream=streams(), length=st.integers(5, 120), step=st.integers(5, 120), silent=st.booleans())
def test_windows_by_time(stream: tuple[np.ndarray, list[int]], length: int, step: int, silent: bool) -> None:
    times, cuts = stream
    windows, found = TimeWindows(length, step, skip_silence=not silent), []
    for piece in pieces(times, cuts):
        windows.append(piece)
        found += taken(windows, -1.0)
    if silent:
        found += taken(windows, 400.0)  # the camera is silent, but its time passes
        last = (400 - length) // step
    else:
        while windows.rest():
            found += taken(windows, -1.0)
        last = 400
    want = [(k, times[(times >= k * step) & (times < k * step + length)].tolist()) for k in range(last + 1)]
    if silent:
        assert found == want and windows.late == windows.skipped == 0
        return
    want = [window for window in want if window[1]]
    covered = [number for number, events in want if events[-1] == times[-1]]
    assert [one for one in found if one[1]] == [one for one in want if one[0] <= min(covered, default=400)]


@settings(deadline=None, max_examples=40)
@given(stream=streams(), count=st.integers(1, 9), step=st.integers(1, 12))
def test_windows_by_count(stream: tuple[np.ndarray, list[int]], count: int, step: int) -> None:
    times, cuts = stream
    windows, found = CountWindows(count, step), []
    for piece in pieces(times, cuts):
        windows.append(piece)
        found += taken(windows, 0.0)
    starts = range(0, len(times) - count + 1, step)
    assert found == [(number, times[at : at + count].tolist()) for number, at in enumerate(starts)]


def test_the_newest_window_wins_and_the_others_are_counted() -> None:
    windows = TimeWindows(100.0, 10.0, max_held=80)
    windows.append(columns(np.arange(0, 300, 2)))
    assert windows.lost == 70 and windows.complete(-1.0) == 20  # up to [190, 290)
    window = windows.take(19)
    assert (window.number, window.start, window.end) == (19, 190.0, 290.0) and windows.skipped == 19
    assert window.events.t.tolist() == list(range(190, 290, 2))
    windows.append(columns(np.array([298, 299])))
    assert windows.complete(1000.0) == 71 and windows.take(70).number == 90
    windows.append(columns(np.array([950, 2000])))  # the first one is of [900, 1000), which was taken
    assert windows.late == 0 and windows.take().events.t.tolist() == [950]
    late = TimeWindows(100.0, 100.0)
    assert late.complete(250.0) == 2 and not len(late.take().events) and not len(late.take().events)
    late.append(columns(np.array([150, 199, 200])))
    assert late.late == 2 and late.complete(300.0) == 1 and late.take().events.t.tolist() == [200]


def test_views_stay_valid_and_room_is_bounded() -> None:
    buffer, kept = EventBuffer(), []
    for first in range(0, 200_000, 500):
        buffer.append(columns(np.arange(first, first + 500)))
        kept.append(buffer.view(len(buffer) - 100, len(buffer)))
        buffer.discard(max(len(buffer) - 700, 0))
    assert all(view.t.tolist() == list(range(500 * k + 400, 500 * k + 500)) for k, view in enumerate(kept))
    assert len(buffer) == 700 and len(buffer._columns[0]) <= 2**13


def records(events: list[Event]) -> bytes:
    return b"".join(struct.pack("<qHHBxxx", t, x, y, p) for x, y, t, p in events)


def decoded(decoder: StreamDecoder, data: bytes, cuts: list[int]) -> list[Event]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    blocks = [block for a, b in zip(bounds, bounds[1:], strict=False) for block in decoder.feed(data[a:b])]
    assert decoder.end() is None
    return [row for block in blocks for row in rows(block)]


EVENTS = some_events(120)
STREAMS = {
    "records": (records(EVENTS), None),
    "aedat4": (aedat4([EVENTS], closed=False)[14:], (200, 300)),
    "evt2": (evt2(EVENTS), None),
    "evt3": (evt3(EVENTS), (720, 1280)),
}


@settings(deadline=None, max_examples=15)
@given(name=st.sampled_from(sorted(STREAMS)), cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_decoders_whatever_the_pieces(name: str, cuts: list[int]) -> None:
    data, sensor = STREAMS[name]
    for decoder in (DetectingDecoder(), decoder_of(name)):
        assert decoded(decoder, data, cuts) == EVENTS
        assert decoder.sensor == sensor
    words = b"".join(struct.pack("<H", word) for word in evt3_words(EVENTS))
    assert decoded(decoder_of("evt3"), words, cuts) == EVENTS  # without a header


@pytest.mark.parametrize("file", WRITTEN_BY_DV, ids=lambda file: str(file.stem))
def test_packets_of_dv_processing(file: Path) -> None:
    """Its NetworkWriter sends the bytes of a file, from the header to the table at the end."""
    reader = open_events(file)
    data = file.read_bytes()[14 : reader.header.end]  # type: ignore[attr-defined]
    assert decoded(DetectingDecoder(), data, [100, 1500, 1501]) == rows(read_stream(reader))


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("aedat4", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2, "not a stream of AEDAT 4 packets .starts with b'HTTP"),
        ("aedat4", aedat4([], closed=False, types=["FRME"])[14:], "contains no event stream, only FRME"),
        ("aedat4", aedat4([EVENTS], closed=False)[14:] + b"\x07\0\0\0\1\0\0\0", "a packet of stream 7 with 1 bytes"),
        ("records", b"SSH-2.0-OpenSSH_9.2p1\r\n" * 2, "not a stream of records of 16 bytes .starts with b'SSH"),
        ("evt3", b"% format EVT9\n% end\nxx", "unsupported encoding EVT9"),
    ],
)
def test_wrong_protocols(kind: str, data: bytes, message: str) -> None:
    with pytest.raises((DecodeError, UserError), match=message):
        list(decoder_of(kind).feed(data))


def test_a_stream_that_ends_within_an_event() -> None:
    decoder = DetectingDecoder()
    blocks: list[EventBlock] = list(decoder.feed(records(EVENTS)[:-3]))
    assert sum(len(block.t) for block in blocks) == len(EVENTS) - 1
    assert decoder.end() == "the stream ended within an event or packet (13 bytes)"
