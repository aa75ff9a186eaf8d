"""AEDAT 4.0 files of iniVation's DV software and cameras (DAVIS, DVXplorer).

A file consists of a FlatBuffer with the compression and an XML description of the streams, packets of one stream each,
and a table of the packets. Tested on files written by iniVation's dv-processing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    StreamInfo,
)
from slowfast.utils.imports import import_extra

MAGIC = b"#!AER-DAT4.0\r\n"
HEADER, EVENTS = b"IOHE", b"EVTS"  # identifiers of FlatBuffers; the second is also a type of stream
EVENT_BYTES = 16  # int64 time, int16 x and y, uint8 polarity, padding
NONE, LZ4, LZ4_HIGH, ZSTD, ZSTD_HIGH = range(5)  # compression types
MAX_UNPACKED = 2**28  # bytes of a decompressed packet, which contains the events of some milliseconds
_LZ4_STEP = 2**20  # initial size of the decompression buffer in bytes
_ZSTD_STEP = 1024  # bytes decompressed at a time, to at most 32 MiB
MAX_HEADER = 2**24  # bytes read for the header
NOT_CLOSED = -1  # position of the packet table in a file that was not closed

Decompress = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Header:
    """Header of a file or stream."""

    decompress: Decompress
    start: int  # position of the first packet
    end: int  # position after the last packet, or NOT_CLOSED
    streams: frozenset[int]
    sensors: dict[int, tuple[int, int] | None]  # height and width per event stream


@EVENT_READER_REGISTRY.register(name="aedat-4")
class Aedat4Reader(EventReader):
    """Reader of the streams of polarity events of a file; packets that are lost are damage."""

    suffixes, label = (".aedat4", ".aedat"), "an AEDAT 4.0 file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.size = os.path.getsize(path)
        with path.open("rb") as file:
            data = file.read(MAX_HEADER)
        self.header = read_header(data)

    @classmethod
    def accepts(cls, path: Path, head: bytes) -> bool:
        """Return whether the file states the version."""
        return head.startswith(MAGIC)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Event streams in ascending order of their numbers."""
        sensors = self.header.sensors
        several = len(sensors) > 1
        return [StreamInfo(f"stream{number}" if several else "", sensors[number]) for number in sorted(sensors)]

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Decode the packets of a stream; small ones are joined."""
        number = sorted(self.header.sensors)[stream]
        parts: list[memoryview] = []
        count, broken = 0, list[str]()
        with self.path.open("rb") as file:
            for body in self._packets(file, number):
                try:
                    parts.append(read_packet(self.header, body))
                except DecodeError as error:
                    broken.append(str(error))
                    continue
                count += len(parts[-1]) // EVENT_BYTES
                if count >= BLOCK_EVENTS:
                    yield from event_blocks(parts)
                    parts, count = [], 0
        yield from event_blocks(parts)
        if broken:
            self.report(f"{len(broken)} event packets were lost: {broken[0]}")

    def _packets(self, file: BinaryIO, number: int) -> Iterator[bytes]:
        """Yield the content of the packets of a stream; report a file that is truncated or was not closed."""
        header, size = self.header, self.size
        closed = header.end != NOT_CLOSED
        position, end = header.start, min(header.end, size) if closed else size
        file.seek(position)
        while position < end:
            head = file.read(8)
            stream, length = struct.unpack("<ii", head) if len(head) == 8 and position + 8 <= end else (0, -1)
            if not 0 <= length <= MAX_UNPACKED or stream not in header.streams or position + 8 + length > end:
                self.report(f"damaged or truncated at byte {position} of {size}; the events before were read")
                return
            if stream == number:
                yield file.read(length)
            else:
                file.seek(length, os.SEEK_CUR)
            position += 8 + length
        if not closed:
            self.report("the recording was not closed properly; the last events may be missing")
        elif header.end > size:
            self.report(f"truncated: {size} of at least {header.end} bytes; their events were read")


def read_header(data: bytes, begin: int = len(MAGIC)) -> Header:
    """Read the header of a file, or of a stream of packets.

    Args:
        data: Bytes that contain it.
        begin: Position of its size.

    Raises:
        DecodeError: If it is damaged or describes no event stream.
        UserError: If a package for the compression is not installed.
    """
    try:
        table = _root(data, begin, HEADER)
        (size,) = struct.unpack_from("<I", data, begin)
        start = begin + 4 + size
        compression, end = _number(data, table, 0, "<i", NONE), _number(data, table, 1, "<q", NOT_CLOSED)
        info = _text(data, table, 2)
    except (struct.error, UnicodeDecodeError) as error:
        raise DecodeError(f"the header is truncated or damaged: {error}") from error
    types, sensors = _streams(info)
    if not sensors:
        raise DecodeError(f"contains no event stream, only {', '.join(sorted(set(types.values()))) or 'nothing'}")
    return Header(_get_decompress(compression), start, end if end >= start else NOT_CLOSED, frozenset(types), sensors)


def _streams(info: str) -> tuple[dict[int, str], dict[int, tuple[int, int] | None]]:
    """Return the type of each stream and the sensor size of each event stream, by number."""
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
        raise DecodeError(f"the description of the streams is damaged: {error}") from error
    return types, sensors


def _get_decompress(compression: int) -> Decompress:
    """Return the decompression function.

    Raises:
        UserError: If its package is not installed.
        DecodeError: If the compression is unknown.
    """
    package = {LZ4: "lz4", LZ4_HIGH: "lz4", ZSTD: "zstandard", ZSTD_HIGH: "zstandard"}.get(compression, "")
    if package == "lz4":
        frame = import_extra("lz4.frame", "events", "this .aedat4 file")
        return lambda body: _lz4_frame(frame.LZ4FrameDecompressor(), body)
    if package == "zstandard":
        zstandard = import_extra("zstandard", "events", "this .aedat4 file")
        return lambda body: _zstd_frame(zstandard.ZstdDecompressor().decompressobj(), body)
    if compression != NONE:
        raise DecodeError(f"unknown compression type {compression}")
    return bytes


def _lz4_frame(decompressor: Any, body: bytes) -> bytes:
    # The buffer grows on demand, because allocating the limit at once would cost more than the decompression.
    content: bytes = decompressor.decompress(body, max_length=_LZ4_STEP)
    if not decompressor.eof and len(content) == _LZ4_STEP:
        content += decompressor.decompress(b"", max_length=MAX_UNPACKED + 1 - _LZ4_STEP)
    _check_decompress(len(content), decompressor.eof)
    return content


def _zstd_frame(decompressor: Any, body: bytes) -> bytes:
    parts: list[bytes] = []
    size = 0
    for start in range(0, len(body), _ZSTD_STEP):
        parts.append(decompressor.decompress(body[start : start + _ZSTD_STEP]))
        size += len(parts[-1])
        if size > MAX_UNPACKED or decompressor.eof:
            break
    _check_decompress(size, decompressor.eof)
    return b"".join(parts)


def _check_decompress(size: int, ended: bool) -> None:
    if size > MAX_UNPACKED:
        raise ValueError(f"more than {MAX_UNPACKED / 2**20:g} MiB after decompression")
    if not ended:
        raise ValueError("truncated")


def read_packet(header: Header, body: bytes) -> memoryview:
    """Return the events of a packet, structures of EVENT_BYTES. Raises DecodeError if it is damaged."""
    try:
        packet = header.decompress(body)
    except Exception as error:  # each package has its own error classes
        raise DecodeError(f"a packet cannot be decompressed: {error}") from error
    try:
        table = _root(packet, 0, EVENTS)
        position = _position(packet, table, 0)
        if position is None:
            return memoryview(b"")
        position += int(struct.unpack_from("<I", packet, position)[0])
        (count,) = struct.unpack_from("<I", packet, position)
    except (struct.error, ValueError) as error:
        raise DecodeError(f"a packet is damaged: {error}") from error
    events = memoryview(packet)[position + 4 : position + 4 + count * EVENT_BYTES]
    if len(events) < count * EVENT_BYTES:
        raise DecodeError(f"a packet is damaged: it ends before the last of {count} events")
    return events


def event_blocks(parts: list[memoryview]) -> Iterator[EventBlock]:
    """Yield structures of EVENT_BYTES, one part after the other, in blocks of at most BLOCK_EVENTS."""
    data = b"".join(parts)  # also aligns it
    for first in range(0, len(data), BLOCK_EVENTS * EVENT_BYTES):
        count = min(BLOCK_EVENTS, (len(data) - first) // EVENT_BYTES)
        t, x, p = (
            np.frombuffer(data, kind, count * EVENT_BYTES // np.dtype(kind).itemsize, first).reshape(count, -1)
            for kind in ("<i8", "<i2", "u1")
        )
        yield EventBlock(t[:, 0].copy(), x[:, 4].copy(), x[:, 5].copy(), (p[:, 12] != 0).view(np.uint8))


def _root(data: bytes, start: int, identifier: bytes) -> int:
    """Return the position of the root table of a size-prefixed FlatBuffer; raise struct.error if it is not one."""
    if data[start + 8 : start + 12] != identifier:
        raise struct.error(f"no {identifier.decode()} table")
    return start + 4 + int(struct.unpack_from("<I", data, start + 4)[0])


def _position(data: bytes, table: int, field: int) -> int | None:
    """Return the position of a field of a FlatBuffer table; None if it has its default value."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    entry = 4 + 2 * field
    if entry >= struct.unpack_from("<H", data, fields)[0]:
        return None
    offset = int(struct.unpack_from("<H", data, fields + entry)[0])
    return table + offset if offset else None


def _number(data: bytes, table: int, field: int, kind: str, default: int) -> int:
    position = _position(data, table, field)
    return default if position is None else int(struct.unpack_from(kind, data, position)[0])


def _text(data: bytes, table: int, field: int) -> str:
    position = _position(data, table, field)
    if position is None:
        return ""
    position += int(struct.unpack_from("<I", data, position)[0])
    (size,) = struct.unpack_from("<I", data, position)
    if position + 4 + size > len(data):
        raise struct.error("the description of the streams is truncated")
    return data[position + 4 : position + 4 + size].decode()
