"""Prophesee's event files: .dat, and .raw in the encodings EVT 2.0, EVT 2.1 and EVT 3.0.

The formats follow docs.prophesee.ai ("Data Encoding Formats", "File Formats") and, for the two word orders of EVT 2.1,
evt21_event_types.h of OpenEB. Tested on files that the tests encode, not on files of a camera.

Notation: n words of a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.streams import EventStream, read_raw_bytes
from slowfast.datasets.dvs.sample import EventColumns

# Word types of EVT 2.0 and EVT 2.1.
OFF, ON, TIME_HIGH_2 = 0x0, 0x1, 0x8
TIME_HIGH_BITS_2 = 28
# Word types of EVT 3.0.
ADDRESS_Y, ADDRESS_X, BASE_X, VECTOR_12, VECTOR_8, TIME_LOW, TIME_HIGH = 0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8
TIME_HIGH_BITS_3 = 12
# Word order of EVT 2.1: low half first, or high half first (IMX636 and older sensors).
LITTLE, LEGACY = "little", "legacy"
DAT_EVENT = 8  # bytes

Fields = Mapping[str, str]


# Versions of the .dat format: offset and number of bits of x, y and p in the second word of an event. Version 1 is that
# of ATIS sensors (Prophesee's load_atis_data.m), whose headers need not contain it.
DAT_LAYOUTS = {"1": ((0, 9), (9, 8), (17, 1)), "2": ((0, 14), (14, 14), (28, 1))}

# Bytes per word and decoder of each encoding, and the names in headers that differ from the key.
ENCODINGS: dict[str, tuple[int, Callable[[bytes, Fields], EventColumns]]] = {
    "EVT2": (4, lambda data, fields: decode_evt2(np.frombuffer(data, "<u4"))),
    "EVT21": (8, lambda data, fields: decode_evt21(evt21_words(data, fields.get("endianness")))),
    "EVT3": (2, lambda data, fields: decode_evt3(np.frombuffer(data, "<u2"))),
}
_ALIASES = {"EVT 2.0": "EVT2", "EVT 2.1": "EVT21", "EVT 3.0": "EVT3"}


def read_dat(path: Path) -> list[EventStream]:
    """Read a .dat file of two-dimensional events, version 1 or 2.

    Raises:
        DecodeError: If it is not such a file or has another version.
    """
    fields, data = _split_header(path)
    version = fields.get("version", "2")
    if version not in DAT_LAYOUTS:
        raise DecodeError(f"unsupported version {version} of the .dat format. Supported: 1, 2")
    if len(data) < 2 or data[1] != DAT_EVENT:
        raise DecodeError("not a .dat file with events of 8 bytes")
    words = np.frombuffer(data, "<u4", (len(data) - 2) // DAT_EVENT * 2, 2).reshape(-1, 2)
    time, address = words[:, 0], words[:, 1]
    x, y, p = (address >> first & (1 << bits) - 1 for first, bits in DAT_LAYOUTS[version])
    events = _columns(x, y, time, p)
    return [EventStream(events, _size(fields), _truncation(len(data) - 2, DAT_EVENT))]


def read_raw(path: Path) -> list[EventStream]:
    """Read a .raw file in the encoding EVT 2.0, EVT 2.1 or EVT 3.0.

    Raises:
        DecodeError: If it is not such a file.
    """
    fields, data = _split_header(path)
    encoding = fields.get("format", "").partition(";")[0].upper() or f"EVT {fields.get('evt', 'unknown')}"
    name = _ALIASES.get(encoding, encoding)
    if name not in ENCODINGS:
        raise DecodeError(f"unsupported encoding {encoding}. Supported: EVT 2.0, EVT 2.1, EVT 3.0")
    size, decode = ENCODINGS[name]
    complete = data[: len(data) // size * size]
    return [EventStream(decode(complete, fields), _size(fields), _truncation(len(data), size))]


def _truncation(length: int, size: int) -> str | None:
    """Describe the damage of a file that does not end with a complete word of `size` bytes."""
    rest = length % size
    return f"truncated: the file ends within an event, after {rest} of {size} bytes" if rest else None


def decode_evt2(words: np.ndarray) -> EventColumns:
    """Decode 32-bit words, uint32 (n,)."""
    kind = words >> 28
    high = _high_times(words & 0x0FFFFFFF, kind == TIME_HIGH_2, TIME_HIGH_BITS_2)
    is_event = ((kind == OFF) | (kind == ON)) & (high >= 0)
    events = words[is_event]
    time = (high[is_event] << 6) + (events >> 22 & 0x3F)
    return _columns(events >> 11 & 0x7FF, events & 0x7FF, time, kind[is_event])


def decode_evt21(words: np.ndarray) -> EventColumns:
    """Decode 64-bit words with the type in the highest bits, uint64 (n,): one event per set bit of the lower 32."""
    upper, mask = (words >> 32).astype(np.uint32), words.astype(np.uint32)
    kind = upper >> 28
    high = _high_times(upper & 0x0FFFFFFF, kind == TIME_HIGH_2, TIME_HIGH_BITS_2)
    is_vector = ((kind == OFF) | (kind == ON)) & (high >= 0)
    upper = upper[is_vector]
    time = (high[is_vector] << 6) + (upper >> 22 & 0x3F)
    bits = np.unpackbits(mask[is_vector].astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    vector, bit = np.nonzero(bits)  # of (vectors, 32): vector by vector
    return _columns((upper >> 11 & 0x7FF)[vector] + bit, (upper & 0x7FF)[vector], time[vector], (upper >> 28)[vector])


def evt21_words(data: bytes, order: str | None) -> np.ndarray:
    """Return the words of EVT 2.1 with the type in the highest bits, uint64 (n,).

    Args:
        data: Data after the header.
        order: LITTLE or LEGACY; None to detect it from the time words, one half of which is 0.

    Raises:
        DecodeError: If the order is unknown.
    """
    little = np.frombuffer(data, "<u8")
    legacy = little << 32 | little >> 32
    if order is None:
        times = [int(((words >> 60 == TIME_HIGH_2) & (words & 0xFFFFFFFF == 0)).sum()) for words in (little, legacy)]
        return little if times[0] >= times[1] else legacy
    if order not in (LITTLE, LEGACY):
        raise DecodeError(f"unsupported word order {order}. Supported: {LITTLE}, {LEGACY}")
    return little if order == LITTLE else legacy


def decode_evt3(words: np.ndarray) -> EventColumns:
    """Decode 16-bit words, uint16 (n,): each updates the state, or is an event or a mask of several events."""
    kind, value = words >> 12, words & 0xFFF
    time, y = _evt3_times(kind, value), _last(value & 0x7FF, kind == ADDRESS_Y)
    single = (kind == ADDRESS_X) & (y >= 0) & (time >= 0)
    found = [(value[single] & 0x7FF, y[single], time[single], value[single] >> 11, np.flatnonzero(single))]
    # The events of a mask follow those of the base and of the masks since.
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
    """Return the time in microseconds at each word, int64 (n,), -1 before the first; unwraps the 24-bit overflow.

    The low bits are reset when the high bits change.
    """
    high = _high_times(value, kind == TIME_HIGH, TIME_HIGH_BITS_3)
    changed = np.diff(high, prepend=-2) != 0
    position = np.arange(len(kind))
    low_at, changed_at = _last(position, kind == TIME_LOW), _last(position, changed)
    low = np.where(low_at > changed_at, _last(value, kind == TIME_LOW), 0)
    return np.where(high < 0, -1, (high << 12) + low)


def _high_times(values: np.ndarray, marked: np.ndarray, bits: int) -> np.ndarray:
    """Return the high bits of the time at each word, from the last marked word: int64 (n,), -1 before the first.

    A step back by more than half of the range is an overflow, which is unwrapped.
    """
    at = np.flatnonzero(marked)
    highs = values[at].astype(np.int64)
    overflows = np.zeros(len(at), np.int64)
    overflows[1:] = np.cumsum(np.diff(highs) < -(1 << bits - 1))
    high = np.full(len(values), -1, np.int64)
    high[at] = highs + (overflows << bits)
    return _last(high, marked)


def _last(values: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Return the value of the last marked word at each word: int64 (n,), -1 before the first."""
    position = np.maximum.accumulate(np.where(marked, np.arange(len(values)), -1))
    return np.where(position < 0, -1, values.astype(np.int64)[position])


def _columns(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> EventColumns:
    return EventColumns(x.astype(np.int64), y.astype(np.int64), t.astype(np.float64), p.astype(np.int64))


def _size(fields: Fields) -> tuple[int, int] | None:
    """Return the sensor height and width, if the header contains them."""
    width, height = fields.get("width", ""), fields.get("height", "")
    geometry = re.fullmatch(r"(\d+)x(\d+)", fields.get("geometry", ""))
    if geometry:
        width, height = geometry[1], geometry[2]
    return (int(height), int(width)) if width.isdecimal() and height.isdecimal() else None


def _split_header(path: Path) -> tuple[dict[str, str], bytes]:
    """Split a file into the fields of its header, lines that start with "% ", and the data.

    The options of a format line such as ``EVT3;height=720;width=1280`` become separate fields.

    Reoverflows:
        The fields by keyword in lower case, and the data.
    """
    data = read_raw_bytes(path)
    end = 0
    fields: dict[str, str] = {}
    while data[end : end + 2] == b"% ":
        line_end = data.find(b"\n", end)
        if line_end < 0:
            raise DecodeError("the header is incomplete")
        line, end = data[end:line_end].decode("latin-1").lower(), line_end + 1
        keyword, _, value = line[1:].strip().partition(" ")
        if keyword == "end":
            break
        fields[keyword] = value.strip()
        if keyword == "format":
            options = (option.partition("=") for option in value.strip().split(";")[1:])
            fields |= {name.strip(): given.strip() for name, _, given in options}
    return fields, data[end:]
