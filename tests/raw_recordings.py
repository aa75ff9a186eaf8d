"""Encoders of camera formats for tests, and random events."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slowfast.datasets.dvs.formats import EventBlock, open_events, read_stream
from slowfast.datasets.dvs.recording import Recording

Event = tuple[int, int, int, int]  # x, y, t, p


def some_events(n: int = 50, seed: int = 0, longest: int = 100_000, width: int = 300, height: int = 200) -> list[Event]:
    """Return n random events in ascending order of time."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, longest, n))
    x, y, p = (rng.integers(0, limit, n) for limit in (width, height, 2))
    return [tuple(int(v) for v in row) for row in zip(x, y, t, p, strict=True)]


def rows(events: object) -> list[Event]:
    """Return the columns x, y, t, p, attributes or items, as tuples of events."""
    columns = [events[key] if isinstance(events, dict) else getattr(events, key) for key in "xytp"]
    return [tuple(int(v) for v in row) for row in zip(*columns, strict=True)]


# Events that every format can hold.
EVENTS = some_events(300, width=34, height=30)
COLUMNS = dict(zip("xytp", np.array(EVENTS).T, strict=True))


def dat(events: list[Event], version: int = 2) -> bytes:
    y_bit, p_bit = (9, 17) if version == 1 else (14, 28)
    body = b"".join(struct.pack("<II", t, x | y << y_bit | p << p_bit) for x, y, t, p in events)
    header = f"% Data file containing CD events.\n% Version {version}\n% Height 240\n% Width 304\n"
    return header.encode() + bytes([0, 8]) + body


def evt2_words(events: list[Event]) -> list[int]:
    words, high = [], -1
    for x, y, t, p in events:
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 0x3F) << 22 | x << 11 | y)
    return words


def evt2(events: list[Event]) -> bytes:
    words = evt2_words(events)
    return b"% evt 2.0\n% end\n" + struct.pack(f"<{len(words)}I", *words)


def evt21_words(events: list[Event]) -> list[int]:
    """Merge consecutive events with the same time, row and polarity and ascending x into one word."""
    words, high, at = [], -1, (-1, -1, -1, -1, 32)
    for x, y, t, p in events:
        if t >> 6 != high:
            high, at = t >> 6, (-1, -1, -1, -1, 32)
            words += [(0x8 << 28 | high & 0xFFFFFFF) << 32, (0xE << 28 | 5) << 32 | 77]  # time, then some monitoring
        if (x // 32, y, t, p) == at[:4] and x % 32 > at[4]:
            words[-1] |= 1 << x % 32
        else:
            words.append((p << 28 | (t & 0x3F) << 22 | x // 32 * 32 << 11 | y) << 32 | 1 << x % 32)
        at = (x // 32, y, t, p, x % 32)
    return words


def evt21(events: list[Event], header: bytes = b"% format EVT21;height=240;width=320;endianness=little\n") -> bytes:
    """Encode EVT 2.1; `legacy` puts the high half of each word first."""
    order = (lambda word: word << 32 & (1 << 64) - 1 | word >> 32) if b"legacy" in header else int
    return header + b"% end\n" + b"".join(struct.pack("<Q", order(word)) for word in evt21_words(events))


def evt3_words(events: list[Event]) -> list[int]:
    words, state = [], {"high": -1, "low": -1, "y": -1}
    for x, y, t, p in events:
        high, low = t >> 12 & 0xFFF, t & 0xFFF
        if high != state["high"]:
            state |= {"high": high, "low": 0}
            words.append(0x8 << 12 | high)
        if low != state["low"]:
            state["low"] = low
            words.append(0x6 << 12 | low)
        if y != state["y"]:
            state["y"] = y
            words.append(y)
        words.append(0x2 << 12 | p << 11 | x)
    return words


def evt3(events: list[Event]) -> bytes:
    words = evt3_words(events)
    return b"% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n" + struct.pack(f"<{len(words)}H", *words)


def aedat(events: list[Event], overflow: int = 0) -> bytes:
    """Encode AEDAT 3.1 with 20 events per packet."""
    body = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for start in range(0, len(events), 20):
        packet = events[start : start + 20]
        body += struct.pack("<hhiiiiii", 1, 0, 8, 4, overflow, len(packet) + 1, len(packet) + 1, len(packet))
        words = [(x << 17 | y << 2 | p << 1 | 1, t) for x, y, t, p in packet]
        body += b"".join(struct.pack("<Ii", *word) for word in [*words, (5 << 17, 0)])  # the last is not valid
        body += struct.pack("<hhiiiiii", 3, 0, 8, 4, 0, 1, 1, 1) + b"\0" * 8  # another type
    return body


def aedat4(
    streams: Sequence[list[Event]],
    compression: int = 0,
    pack: Callable[[bytes], bytes] = bytes,
    closed: bool = True,
    types: Sequence[str] = (),
    sizes: bool = True,
) -> bytes:
    """Encode AEDAT 4.0 with 20 events per packet and alternating streams, then a packet for each stream of `types`."""
    kinds = ["EVTS"] * len(streams) + list(types)
    nodes = ""
    for number, kind in enumerate(kinds):
        size = "<attr key='sizeX' type='int'>300</attr><attr key='sizeY' type='int'>200</attr>" if sizes else ""
        nodes += f"<node name='{number}'><attr key='typeIdentifier' type='string'>{kind}</attr>"
        nodes += f"<node name='info'>{size}</node></node>"
    info = f"<dv version='2.0'><node name='outInfo'>{nodes}</node></dv>".encode()
    packets = b""
    for start in range(0, max(map(len, streams), default=0), 20):
        for number, events in enumerate(streams):
            if events[start : start + 20]:
                packets += _packet(number, pack(_event_packet(events[start : start + 20])))
    for number, kind in enumerate(types):
        packets += _packet(len(streams) + number, pack(kind.encode() * 5))
    start = 14 + len(_io_header(compression, 0, info))
    header = _io_header(compression, start + len(packets) if closed else -1, info)
    return b"#!AER-DAT4.0\r\n" + header + packets + (pack(b"the table of packets") if closed else b"")


def _packet(stream: int, body: bytes) -> bytes:
    return struct.pack("<ii", stream, len(body)) + body


def _event_packet(events: list[Event]) -> bytes:
    """Encode a size-prefixed FlatBuffer: field offsets, the table, its only field, a vector of structs."""
    vector = struct.pack("<I", len(events)) + b"".join(struct.pack("<qhhBxxx", t, x, y, p) for x, y, t, p in events)
    table = struct.pack("<HHHxxiI", 6, 8, 4, 8, 4)  # at 8, its fields' places at 0
    return _sized(b"EVTS", table + vector)


def _io_header(compression: int, end: int, info: bytes) -> bytes:
    fields = struct.pack("<HHHHH", 10, 20, 4, 8, 16)
    table = struct.pack("<iiqI", len(fields) + 2, compression, end, 4)
    return _sized(b"IOHE", fields + b"\0\0" + table + struct.pack("<I", len(info)) + info + b"\0", root=12)


def _sized(identifier: bytes, content: bytes, root: int = 8) -> bytes:
    buffer = struct.pack("<I", 8 + root) + identifier + content
    return struct.pack("<I", len(buffer)) + buffer


def nmnist(events: Sequence[Event]) -> bytes:
    """Encode a .bin file of N-MNIST."""
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 0xFF, t & 0xFF]) for x, y, t, p in events)


def aedat2(words: Sequence[tuple[int, int]], header: str = "", version: int = 2) -> bytes:
    """Encode words of address and time as AEDAT 1.0 or 2.0."""
    lines = f"#!AER-DAT{version}.0\r\n# This is a raw AE data file - do not edit\r\n{header}"
    kind = ">II" if version == 2 else ">HI"
    return lines.encode() + b"".join(struct.pack(kind, address, t) for address, t in words)


def davis(events: Sequence[Event], width: int, height: int) -> list[tuple[int, int]]:
    """Return the words of a DAVIS, which counts from the lower right corner."""
    return [((height - 1 - y) << 22 | (width - 1 - x) << 12 | p << 11, t) for x, y, t, p in events]


def event_stream(events: Sequence[Event], height: int, kind: int = 1) -> bytes:
    """Encode an Event Stream file of DVS (1) or ATIS (2) events, counted from the lower left corner."""
    body, last = bytearray(), 0
    for x, y, t, p in events:
        step, last = t - last, t
        while step >= (127 if kind == 1 else 63):
            if kind == 1:
                body.append(0xFF)
                step -= 127
            else:
                turns = min(step // 63, 3)
                body.append(0xFC | turns)
                step -= 63 * turns
        body += struct.pack("<BHH", step << 1 | p if kind == 1 else step << 2 | p << 1, x, height - 1 - y)
    return b"Event Stream" + bytes([2, 0, 0, kind]) + struct.pack("<HH", 34, height) + body


@dataclass(frozen=True)
class Stream:
    """Stream of a recording, read as a whole."""

    events: EventBlock
    sensor: tuple[int, int] | None
    damage: str | None
    name: str


def read(path: Path) -> list[Stream]:
    """Read all streams of a recording."""
    reader = open_events(path)
    found = []
    for number, info in enumerate(reader.streams):
        events = read_stream(reader, number)
        found.append(Stream(events, info.sensor, "; ".join(reader.damage) or None, info.name))
    return found


def events_of(path: Path) -> list[Event]:
    """Read 300 events, as training does and in blocks, which must agree."""
    reader = open_events(path)
    tick = 1.0 if reader.time_unit is None else reader.time_unit / 1e-6
    (stream,) = read(path)
    found = rows({**stream.events._asdict(), "t": stream.events.t * tick})
    recording = Recording(path)
    taken = recording.take(slice(None))
    picked = recording.take(np.array([5, 299, 17]))
    assert [int(t) for t in taken["t"]] == [int(t) for t in stream.events.t]
    for key in "xyt":
        assert np.array_equal(picked[key], taken[key][[5, 299, 17]]), key
    assert [(int(x), int(y)) for x, y in zip(taken["x"], taken["y"], strict=True)] == [e[:2] for e in found]
    return found
