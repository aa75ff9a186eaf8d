"""Decoders of event streams that arrive in pieces of any size, as from a socket.

* Records of 16 bytes, little-endian: int64 time in microseconds, uint16 x, uint16 y, uint8 polarity (0 or 1), and 3
  bytes 0.
* Packets of AEDAT 4, as served by NetworkWriter of iniVation's dv-processing: those of a file, after its header.
* Words of Prophesee's EVT 2.0, 2.1 and 3.0, also after the header of a .raw file.

Notation: n events of a block.
"""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.aedat4 import (
    EVENT_BYTES,
    HEADER,
    MAGIC,
    MAX_HEADER,
    Header,
    event_blocks,
    read_header,
    read_packet,
)
from slowfast.datasets.dvs.formats.base import BLOCK_EVENTS, EventBlock, Sensor
from slowfast.datasets.dvs.formats.evt import MIN_BYTES, EvtDecoder
from slowfast.datasets.dvs.formats.prophesee import ENCODINGS, encoding_of, sensor_of
from slowfast.datasets.dvs.formats.prophesee import read_header as read_text_header

RECORDS, AEDAT4 = "records", "aedat4"
_PROPHESEE = {name.lower(): name for name in ENCODINGS}
STREAM_FORMATS = (RECORDS, AEDAT4, *_PROPHESEE)
_MAX_PACKET = 2**24  # bytes of a packet of AEDAT 4, a million events without compression
_HEAD = 12  # bytes by which a stream is detected: the identifier of an AEDAT 4 header is at 8


class StreamDecoder(ABC):
    """Decoder with the state of a stream.

    Attributes:
        sensor: Sensor height and width in pixels, once the stream has stated them.
    """

    sensor: Sensor | None = None

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[EventBlock]:
        """Decode the next bytes.

        Raises:
            DecodeError: If the stream has another format.
        """
        data = self._rest + data
        decoded = 0
        for block, position in self._decode(data):
            decoded = position
            if len(block.t):
                yield block
        self._rest = data[decoded:]

    def end(self) -> str | None:
        """Return what is missing at the end of the stream; None if it is complete."""
        return f"the stream ended within an event or packet ({len(self._rest)} bytes)" if self._rest else None

    @abstractmethod
    def _decode(self, data: bytes) -> Iterator[tuple[EventBlock, int]]:
        """Yield blocks and the number of bytes that are decoded with them."""


class RecordDecoder(StreamDecoder):
    """Decoder of records, which are laid out as the events in AEDAT 4."""

    def _decode(self, data: bytes) -> Iterator[tuple[EventBlock, int]]:
        whole = len(data) // EVENT_BYTES * EVENT_BYTES
        tails = np.frombuffer(data, "<u4", whole // 4).reshape(-1, 4)[:, 3]  # polarity and zeros
        if (tails > 1).any():
            raise DecodeError(f"not a stream of records of 16 bytes (starts with {data[:EVENT_BYTES]!r})")
        used = 0
        for block in event_blocks([memoryview(data)[:whole]]):
            used += len(block.t) * EVENT_BYTES
            # x and y are unsigned here.
            yield block._replace(x=block.x.view(np.uint16), y=block.y.view(np.uint16)), used


class PacketDecoder(StreamDecoder):
    """Decoder of AEDAT 4 packets."""

    def __init__(self) -> None:
        super().__init__()
        self._header: Header | None = None
        self._number = -1  # number of the event stream that is read

    def _decode(self, data: bytes) -> Iterator[tuple[EventBlock, int]]:
        position = 0
        if self._header is None:
            position = self._read_header(data)
        while self._header is not None and position + 8 <= len(data):
            stream, size = struct.unpack_from("<ii", data, position)
            if stream not in self._header.streams or not 0 <= size <= _MAX_PACKET:
                raise DecodeError(f"damaged: a packet of stream {stream} with {size} bytes")
            if position + 8 + size > len(data):
                break
            body = data[position + 8 : position + 8 + size]
            position += 8 + size
            blocks = event_blocks([read_packet(self._header, body)]) if stream == self._number else iter(())
            yield from ((block, position) for block in blocks)
        yield EventBlock.empty(), position

    def _read_header(self, data: bytes) -> int:
        """Read the header if it is there; return the number of bytes."""
        begin = len(MAGIC) if data.startswith(MAGIC) else 0
        if len(data) < begin + _HEAD:
            return 0
        (size,) = struct.unpack_from("<I", data, begin)
        if data[begin + 8 : begin + _HEAD] != HEADER or size > MAX_HEADER:
            raise DecodeError(f"not a stream of AEDAT 4 packets (starts with {data[:_HEAD]!r})")
        if len(data) < begin + 4 + size:
            return 0
        self._header = read_header(data, begin)
        self._number = min(self._header.sensors)
        self.sensor = self._header.sensors[self._number]
        return begin + 4 + size


class WordDecoder(StreamDecoder):
    """Decoder of Prophesee's words.

    Args:
        encoding: Key of `ENCODINGS`, unless a header states another; None if a header must.
    """

    def __init__(self, encoding: str | None) -> None:
        super().__init__()
        self._encoding = encoding
        self._words: EvtDecoder | None = None

    def _decode(self, data: bytes) -> Iterator[tuple[EventBlock, int]]:
        start = 0
        if self._words is None and data:
            start = self._start(data)
        if self._words is None:
            return
        word = self._words.word
        whole = (len(data) - start) // word.itemsize
        words = np.frombuffer(data, word, whole, start)
        for first in range(0, whole, BLOCK_EVENTS):
            block = self._words(words[first : first + BLOCK_EVENTS])
            yield block, start + min(first + BLOCK_EVENTS, whole) * word.itemsize
        yield EventBlock.empty(), start + whole * word.itemsize

    def _start(self, data: bytes) -> int:
        """Create the decoder as soon as the header, if there is one, is complete; return the size of the header."""
        fields = {}
        file = io.BytesIO(data)
        if data[:2] in (b"% ", b"%"):
            if len(data) > MAX_HEADER:
                raise DecodeError("the header is incomplete")
            if not data.endswith(b"\n") and b"\n" not in data:
                return 0
            try:
                fields = dict(read_text_header(file))
            except DecodeError:
                return 0  # a line is not complete
            if file.tell() == len(data) and not data.endswith(b"% end\n"):
                return 0
            self._encoding = encoding_of(fields)
        if self._encoding is None:
            raise DecodeError(f"not a stream with the header of a .raw file (starts with {data[:_HEAD]!r})")
        self._words = ENCODINGS[self._encoding](fields, MIN_BYTES, None)
        self.sensor = sensor_of(fields)
        return file.tell()


def decoder_of(kind: str) -> StreamDecoder:
    """Return a decoder of one of STREAM_FORMATS."""
    if kind == RECORDS:
        return RecordDecoder()
    return PacketDecoder() if kind == AEDAT4 else WordDecoder(_PROPHESEE[kind])


class DetectingDecoder(StreamDecoder):
    """Decoder of records, unless the first bytes are the header of another format."""

    def __init__(self) -> None:
        super().__init__()
        self._chosen: StreamDecoder | None = None

    def feed(self, data: bytes) -> Iterator[EventBlock]:
        """Decode the next bytes; nothing before there are enough to detect the format."""
        if self._chosen is None:
            data, self._rest = self._rest + data, b""
            if len(data) < _HEAD + len(MAGIC):
                self._rest = data
                return
            self._chosen = self._detect(data)
        for block in self._chosen.feed(data):
            self.sensor = self._chosen.sensor
            yield block
        self.sensor = self._chosen.sensor

    def end(self) -> str | None:
        """Return what is missing at the end of the stream."""
        return super().end() if self._chosen is None else self._chosen.end()

    @staticmethod
    def _detect(data: bytes) -> StreamDecoder:
        if data[8:_HEAD] == HEADER or data.startswith(MAGIC):
            return PacketDecoder()
        return WordDecoder(None) if data.startswith(b"% ") else RecordDecoder()

    def _decode(self, data: bytes) -> Iterator[tuple[EventBlock, int]]:
        yield from ()
