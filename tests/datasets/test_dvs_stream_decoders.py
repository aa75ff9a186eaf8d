"""Decoders of event streams, whatever the pieces."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_recordings import Event, aedat4, evt2, evt3, evt3_words, rows, some_events

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events, read_stream
from slowfast.datasets.dvs.formats.base import EventBlock
from slowfast.datasets.dvs.stream_decoders import DetectingDecoder, StreamDecoder, decoder_of
from slowfast.errors import UserError

WRITTEN_BY_DV = sorted((Path(__file__).parents[1] / "recordings").glob("*.aedat4"))


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
