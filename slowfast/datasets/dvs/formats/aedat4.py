"""AEDAT 4.0 files, as iniVation's DV software and cameras (DAVIS, DVXplorer) write them.

The format is iniVation's: a FlatBuffer with the compression and an XML text that names the streams, then packets of
one stream each, then a table of them. Tested on files that iniVation's own dv-processing wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.streams import EventStream, read_raw_bytes
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.errors import UserError

MAGIC = b"#!AER-DAT4.0\r\n"
HEADER, EVENTS = b"IOHE", b"EVTS"  # FlatBuffers' identifiers; the second is also a stream's type
EVENT = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
NONE, LZ4, LZ4_HIGH, ZSTD, ZSTD_HIGH = range(5)  # compressions
MOST_UNPACKED = 2**28  # bytes of a packet, which holds the events of some milliseconds
_ZSTD_STEP = 1024  # bytes unpacked at once: at most 32 MiB come of them
NOT_CLOSED = -1  # in the place of the table of packets

Unpack = Callable[[bytes], bytes]


@dataclass(frozen=True)
class _Header:
    unpack: Unpack
    start: int  # byte of the first packet
    end: int  # byte behind the last one, or NOT_CLOSED
    streams: frozenset[int]
    sensors: dict[int, tuple[int, int] | None]  # height, width, of the streams of events


def read_aedat4(path: Path) -> list[EventStream]:
    """The streams of polarity events of a file, each in its order.

    What was read before a tear, and beside packets that cannot be unpacked, is given with that as damage. Raises
    DecodeError, and UserError where what unpacks it is not installed.
    """
    data = read_raw_bytes(path)
    header = _read_header(data)
    parts: dict[int, list[np.ndarray]] = {stream: [] for stream in header.sensors}
    broken: list[str] = []
    damage: list[str] = []
    try:
        for stream, body in _packets(data, header):
            if stream not in parts:
                continue
            try:
                parts[stream].append(_packet_events(_unpacked(header.unpack, body)))
            except DecodeError as error:
                broken.append(str(error))
    except DecodeError as error:
        damage.append(str(error))
    if broken:
        damage.append(f"{len(broken)} packets of events are lost ({broken[0]})")
    lost = "; ".join(damage) or None
    several = len(parts) > 1
    return [
        EventStream(_columns(parts[stream]), header.sensors[stream], lost, f"stream{stream}" if several else "")
        for stream in sorted(parts)
    ]


def _packets(data: bytes, header: _Header) -> Iterator[tuple[int, bytes]]:
    """Stream and content of all packets; DecodeError where the file is torn."""
    closed = header.end != NOT_CLOSED
    place, end = header.start, min(header.end, len(data)) if closed else len(data)
    while place < end:
        stream, size = struct.unpack_from("<ii", data, place) if place + 8 <= end else (0, -1)
        if size < 0 or stream not in header.streams or place + 8 + size > end:
            raise DecodeError(f"it is torn at byte {place} of {len(data)}: the events before it were taken")
        yield stream, data[place + 8 : place + 8 + size]
        place += 8 + size
    if not closed:
        raise DecodeError("its recording was not ended properly: the last events may be missing")
    if header.end > len(data):
        raise DecodeError(f"it is torn: {len(data)} of more than {header.end} bytes are there; their events were taken")


def _read_header(data: bytes) -> _Header:
    if not data.startswith(MAGIC):
        raise DecodeError("it is no AEDAT 4.0 file")
    try:
        table = _root(data, len(MAGIC), HEADER)
        (size,) = struct.unpack_from("<I", data, len(MAGIC))
        start = len(MAGIC) + 4 + size
        compression, end = _number(data, table, 0, "<i", NONE), _number(data, table, 1, "<q", NOT_CLOSED)
        info = _text(data, table, 2)
    except (struct.error, UnicodeDecodeError) as error:
        raise DecodeError(f"its header is cut short or damaged ({error})") from error
    types, sensors = _streams(info)
    if not sensors:
        raise DecodeError(f"it has no stream of events, only {', '.join(sorted(set(types.values()))) or 'nothing'}")
    return _Header(_get_unpack(compression), start, end if end >= start else NOT_CLOSED, frozenset(types), sensors)


def _streams(info: str) -> tuple[dict[int, str], dict[int, tuple[int, int] | None]]:
    """The streams' types by their number, and the sensors' sizes of those of events."""
    try:
        root = ElementTree.fromstring(info)
        types, sensors = {}, {}
        for node in root.findall("node[@name='outInfo']/node"):
            attributes = {attribute.get("key"): attribute.text or "" for attribute in node.iter("attr")}
            number = int(node.get("name", ""))
            types[number] = attributes.get("typeIdentifier", "")
            if types[number] == EVENTS.decode():
                size = (attributes.get("sizeY"), attributes.get("sizeX"))
                sensors[number] = (int(size[0]), int(size[1])) if size[0] and size[1] else None
    except (ElementTree.ParseError, ValueError) as error:
        raise DecodeError(f"its header's list of streams cannot be read ({error})") from error
    return types, sensors


def _get_unpack(compression: int) -> Unpack:
    """What unpacks a packet. Raises UserError without its package, DecodeError for a compression unknown here."""
    package = {LZ4: "lz4", LZ4_HIGH: "lz4", ZSTD: "zstandard", ZSTD_HIGH: "zstandard"}.get(compression, "")
    try:
        if package == "lz4":
            import lz4.frame

            return lambda body: _lz4_frame(lz4.frame.LZ4FrameDecompressor(), body)
        if package == "zstandard":
            import zstandard

            return lambda body: _zstd_frame(zstandard.ZstdDecompressor().decompressobj(), body)
    except ImportError as error:
        raise UserError(
            f'.aedat4 files compressed like this need {package} ({error}): pip install "slowfast[events]"'
        ) from error
    if compression != NONE:
        raise DecodeError(f"its compression, number {compression}, is not known")
    return bytes


def _lz4_frame(decompressor: Any, body: bytes) -> bytes:
    content: bytes = decompressor.decompress(body, max_length=MOST_UNPACKED + 1)
    _check_unpacked(len(content), decompressor.eof)
    return content


def _zstd_frame(decompressor: Any, body: bytes) -> bytes:
    parts: list[bytes] = []
    size = 0
    for start in range(0, len(body), _ZSTD_STEP):
        parts.append(decompressor.decompress(body[start : start + _ZSTD_STEP]))
        size += len(parts[-1])
        if size > MOST_UNPACKED or decompressor.eof:
            break
    _check_unpacked(size, decompressor.eof)
    return b"".join(parts)


def _check_unpacked(size: int, ended: bool) -> None:
    if size > MOST_UNPACKED:
        raise ValueError(f"unpacked it has more than {MOST_UNPACKED / 2**20:g} MiB")
    if not ended:
        raise ValueError("it is cut short")


def _unpacked(unpack: Unpack, body: bytes) -> bytes:
    try:
        return unpack(body)
    except Exception as error:  # each package has kinds of its own
        raise DecodeError(f"a packet cannot be unpacked: {error}") from error


def _packet_events(packet: bytes) -> np.ndarray:
    """The events of a packet, EVENT (n,)."""
    try:
        table = _root(packet, 0, EVENTS)
        place = _place(packet, table, 0)
        if place is None:
            return np.empty(0, EVENT)
        place += int(struct.unpack_from("<I", packet, place)[0])
        (count,) = struct.unpack_from("<I", packet, place)
        return np.frombuffer(packet, EVENT, count, place + 4)
    except (struct.error, ValueError) as error:
        raise DecodeError(f"a packet is damaged: {error}") from error


def _columns(parts: list[np.ndarray]) -> EventColumns:
    events = np.concatenate(parts) if parts else np.empty(0, EVENT)
    x, y, p = (events[key].astype(np.int64) for key in "xyp")
    return EventColumns(x, y, events["t"].astype(np.float64), (p != 0).astype(np.int64))


def _root(data: bytes, start: int, identifier: bytes) -> int:
    """Where the root table of a FlatBuffer begins that has its size before it; struct.error where there is none."""
    if data[start + 8 : start + 12] != identifier:
        raise struct.error(f"no {identifier.decode()} is here")
    return start + 4 + int(struct.unpack_from("<I", data, start + 4)[0])


def _place(data: bytes, table: int, field: int) -> int | None:
    """Where a field of a FlatBuffer's table lies; None where it has its default."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    entry = 4 + 2 * field
    if entry >= struct.unpack_from("<H", data, fields)[0]:
        return None
    offset = int(struct.unpack_from("<H", data, fields + entry)[0])
    return table + offset if offset else None


def _number(data: bytes, table: int, field: int, kind: str, default: int) -> int:
    place = _place(data, table, field)
    return default if place is None else int(struct.unpack_from(kind, data, place)[0])


def _text(data: bytes, table: int, field: int) -> str:
    place = _place(data, table, field)
    if place is None:
        return ""
    place += int(struct.unpack_from("<I", data, place)[0])
    (size,) = struct.unpack_from("<I", data, place)
    if place + 4 + size > len(data):
        raise struct.error("the list of streams is cut short")
    return data[place + 4 : place + 4 + size].decode()
