"""Prophesee's files of events: .dat, and .raw in the encodings EVT 2.0 and EVT 3.0.

The formats are Prophesee's. No file of a camera was at hand: it was tested on files that its tests
encode.

n words of a file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.events import EventColumns

# Types of EVT 2.0's words.
OFF, ON, TIME_HIGH_2 = 0x0, 0x1, 0x8
# Types of EVT 3.0's words.
ADDRESS_Y, ADDRESS_X, BASE_X, VECTOR_12, VECTOR_8, TIME_LOW, TIME_HIGH = 0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8


def read_dat(path: Path) -> EventColumns:
    """A .dat file of events of two dimensions. Raises DecodeError."""
    _, data = _split_header(path)
    if len(data) < 2 or data[1] != 8:
        raise DecodeError("it is no .dat file of events of 8 bytes")
    words = np.frombuffer(data, "<u4", (len(data) - 2) // 8 * 2, 2).reshape(-1, 2)
    time, place = words[:, 0], words[:, 1]
    return _columns(place & 0x3FFF, place >> 14 & 0x3FFF, time, place >> 28 & 1)


def read_raw(path: Path) -> EventColumns:
    """A .raw file in EVT 2.0 or 3.0. Raises DecodeError."""
    header, data = _split_header(path)
    text = header.lower()
    if "evt 3.0" in text or "format evt3" in text:
        return decode_evt3(np.frombuffer(data, "<u2", len(data) // 2))
    if "evt 2.0" in text or "format evt2;" in text or "format evt2\n" in text:
        return decode_evt2(np.frombuffer(data, "<u4", len(data) // 4))
    raise DecodeError("its header names neither EVT 2.0 nor EVT 3.0, the encodings that are read")


def decode_evt2(words: np.ndarray) -> EventColumns:
    """Words of 32 bits, uint32 (n,)."""
    kind = words >> 28
    high = _last(words & 0x0FFFFFFF, kind == TIME_HIGH_2)
    is_event = ((kind == OFF) | (kind == ON)) & (high >= 0)
    events = words[is_event]
    time = (high[is_event] << 6) + (events >> 22 & 0x3F)
    return _columns(events >> 11 & 0x7FF, events & 0x7FF, time, kind[is_event])


def decode_evt3(words: np.ndarray) -> EventColumns:
    """Words of 16 bits, uint16 (n,): each sets a part of the state, or is one event or the mask of several."""
    kind, value = words >> 12, words & 0xFFF
    time, y = _evt3_times(kind, value), _last(value & 0x7FF, kind == ADDRESS_Y)
    single = (kind == ADDRESS_X) & (y >= 0) & (time >= 0)
    found = [(value[single] & 0x7FF, y[single], time[single], value[single] >> 11, np.flatnonzero(single))]
    # A mask's events lie beside the base and beside the masks since.
    wide = np.where(kind == VECTOR_12, 12, np.where(kind == VECTOR_8, 8, 0))
    before = np.cumsum(wide) - wide
    base = _last(value, kind == BASE_X)
    left = (base & 0x7FF) + before - _last(before, kind == BASE_X)
    masks = (wide > 0) & (base >= 0) & (y >= 0) & (time >= 0)
    for bit in range(12):
        hit = masks & (bit < wide) & ((value >> bit & 1) == 1)
        found.append((left[hit] + bit, y[hit], time[hit], base[hit] >> 11, np.flatnonzero(hit)))
    x, lines, t, p, order = (np.concatenate(columns) for columns in zip(*found, strict=True))
    rows = np.argsort(order, kind="stable")
    return _columns(x[rows], lines[rows], t[rows], p[rows])


def _evt3_times(kind: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Microseconds at each word, int64 (n,), -1 before the first; the 24 bits' overflows undone.

    The low bits begin at 0 where the high ones change.
    """
    at = np.flatnonzero(kind == TIME_HIGH)
    highs = value[at].astype(np.int64)
    turns = np.zeros(len(at), np.int64)
    turns[1:] = np.cumsum(np.diff(highs) < -(1 << 11))
    high = np.full(len(kind), -1, np.int64)
    high[at] = highs + (turns << 12)
    high = _last(high, kind == TIME_HIGH)
    changed = np.diff(high, prepend=-2) != 0
    place = np.arange(len(kind))
    low_at, changed_at = _last(place, kind == TIME_LOW), _last(place, changed)
    low = np.where(low_at > changed_at, _last(value, kind == TIME_LOW), 0)
    return np.where(high < 0, -1, (high << 12) + low)


def _last(values: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """At each word the value of the last marked one: int64 (n,), -1 before the first."""
    place = np.maximum.accumulate(np.where(marked, np.arange(len(values)), -1))
    return np.where(place < 0, -1, values.astype(np.int64)[place])


def _columns(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> EventColumns:
    return EventColumns(x.astype(np.int64), y.astype(np.int64), t.astype(np.float64), p.astype(np.int64))


def _split_header(path: Path) -> tuple[str, bytes]:
    """Its first lines, which begin with %, and what follows them."""
    data = path.read_bytes()
    end = 0
    while data[end : end + 1] == b"%":
        line_end = data.find(b"\n", end)
        if line_end < 0:
            raise DecodeError("its header does not end")
        line, end = data[end:line_end], line_end + 1
        if line.strip() == b"% end":
            break
    return data[:end].decode("latin-1"), data[end:]
