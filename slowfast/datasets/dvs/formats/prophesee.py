"""Files of Prophesee's sensors: .raw in the encodings EVT 2.0, 2.1 and 3.0, .dat of versions 1 and 2, .bin of N-MNIST.

The formats of .raw and .dat follow docs.prophesee.ai ("File Formats"); version 1 of .dat follows Prophesee's
load_atis_data.m. N-MNIST and N-Caltech101 (Orchard et al. 2015) were recorded with an ATIS sensor; their events of 40
bits follow Read_Ndataset.m of the authors: x, y, then 1 bit of polarity and 23 bits of time, big-endian.

Notation: n events of a block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    Sensor,
    Space,
    StreamInfo,
)
from slowfast.datasets.dvs.formats.blocks import TimeUnwrapper, read_records
from slowfast.datasets.dvs.formats.columns import Column, StoredColumn
from slowfast.datasets.dvs.formats.evt import Evt2Decoder, Evt3Decoder, Evt21Decoder, EvtDecoder, compiled

DAT_EVENT = np.dtype([("t", "<u4"), ("address", "<u4")])
# Number of bits of x and y in the second word of an event, below the polarity, by the version of the .dat format.
# Version 1 is that of ATIS sensors, whose headers need not contain it.
DAT_LAYOUTS = {"1": (9, 8), "2": (14, 14)}
DAT_TIME_BITS = 32
MAX_HEADER = 2**20  # bytes

Fields = Mapping[str, str]
# Decoder factories: header fields, file size in bytes and memory for the events -> decoder.
ENCODINGS: dict[str, Callable[[Fields, int, Space | None], EvtDecoder]] = {
    "EVT2": lambda fields, size, space: compiled(Evt2Decoder(), "decode_evt2", size, space),
    "EVT21": lambda fields, size, space: Evt21Decoder(fields.get("endianness")),
    "EVT3": lambda fields, size, space: compiled(Evt3Decoder(), "decode_evt3", size, space, 12),
}
_ALIASES = {"EVT 2.0": "EVT2", "EVT 2.1": "EVT21", "EVT2.1": "EVT21", "EVT 3.0": "EVT3"}
EVENT = np.dtype([("x", "u1"), ("y", "u1"), ("time", "u1", (3,))])
# Row that marks an overflow of the sensor's counter, and the time that it adds.
OVERFLOW_ROW, OVERFLOW = 240, 2**13
_MAX_BACK = 0.2  # maximum fraction of backward steps in time; the suffix alone is not conclusive


class _HeaderReader(EventReader):
    """Reader of a file that starts with lines of text."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            self.fields = read_header(file)
            self.start = file.tell()

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The only stream."""
        return (StreamInfo(sensor=sensor_of(self.fields)),)


@EVENT_READER_REGISTRY.register(name="prophesee-raw")
class RawReader(_HeaderReader):
    """Reader of .raw files."""

    suffixes, label = (".raw",), "a .raw file of Prophesee"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._decoder = ENCODINGS[encoding_of(self.fields)]
        self._decoder(self.fields, 0, None)  # checks the fields

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Decode the words of the file, a block at a time."""
        decode = self._decoder(self.fields, self.path.stat().st_size, self.space)
        for words in read_records(self, decode.word, self.start, BLOCK_EVENTS):
            yield decode(words)


@EVENT_READER_REGISTRY.register(name="prophesee-dat")
class DatReader(_HeaderReader):
    """Reader of .dat files of two-dimensional events."""

    suffixes, label = (".dat",), "a .dat file of Prophesee"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        version = self.fields.get("version", "2")
        if version not in DAT_LAYOUTS:
            raise DecodeError(f"unsupported version {version} of the .dat format. Supported: 1, 2")
        self.layout = DAT_LAYOUTS[version]
        with path.open("rb") as file:
            file.seek(self.start)
            kind = file.read(2)  # type and size of the events
        if len(kind) < 2 or kind[1] != DAT_EVENT.itemsize:
            raise DecodeError("not a .dat file with events of 8 bytes")
        self.start += 2

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Read the events; the overflow of their 32-bit time is undone."""
        size = self.path.stat().st_size
        decode = compiled(DatDecoder(self.layout), "decode_dat", size, self.space, layout=self.layout)
        yield from map(decode, read_records(self, DAT_EVENT, self.start, BLOCK_EVENTS))

    def columns(self) -> Mapping[str, Column]:
        """Return the columns of the events; times are as in the file."""
        count = (self.path.stat().st_size - self.start) // DAT_EVENT.itemsize
        t, address = (
            StoredColumn(self.path, self.start + offset, np.dtype("<u4"), (count,), DAT_EVENT.itemsize)
            for offset in (0, 4)
        )
        return {"t": t} | {key: BitColumn(address, *bits) for key, bits in _bit_ranges(self.layout).items()}


class DatDecoder:
    """Decoder of the events of .dat files.

    Args:
        layout: Number of bits of x and y.
    """

    word = DAT_EVENT

    def __init__(self, layout: tuple[int, int]) -> None:
        self.bits, self.unwrap = _bit_ranges(layout), TimeUnwrapper(DAT_TIME_BITS)

    def __call__(self, words: np.ndarray) -> EventBlock:
        """Decode events (n,)."""
        x, y, p = (take_bits(words["address"], *self.bits[key]) for key in "xyp")
        return EventBlock(self.unwrap(words["t"]), x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))


def _bit_ranges(layout: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Return the lowest bit and the number of bits of x, y and p in the second word of an event."""
    x, y = layout
    return {"x": (0, x), "y": (x, y), "p": (x + y, 1)}


@dataclass(frozen=True)
class BitColumn:
    """Column of some bits of another column.

    Attributes:
        words: Column of unsigned integers.
        first: Number of the lowest bit.
        bits: Number of bits.
    """

    words: Column
    first: int
    bits: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the column."""
        return self.words.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.words.dtype

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Read the values of some events."""
        return take_bits(self.words.take(rows), self.first, self.bits)


def take_bits(words: np.ndarray, first: int, bits: int) -> np.ndarray:
    """Return some bits of words (n,)."""
    result: np.ndarray = words >> first & (1 << bits) - 1
    return result


def encoding_of(fields: Fields) -> str:
    """Return the key of ENCODINGS that the fields of a header state. Raises DecodeError if it is none of them."""
    encoding = fields.get("format", "").partition(";")[0].upper() or f"EVT {fields.get('evt', 'unknown')}"
    name = _ALIASES.get(encoding, encoding)
    if name not in ENCODINGS:
        raise DecodeError(f"unsupported encoding {encoding}. Supported: EVT 2.0, EVT 2.1, EVT 3.0")
    return name


def sensor_of(fields: Fields) -> Sensor | None:
    """Return the sensor height and width, if the header contains them."""
    width, height = fields.get("width", ""), fields.get("height", "")
    geometry = re.fullmatch(r"(\d+)x(\d+)", fields.get("geometry", ""))
    if geometry:
        width, height = geometry[1], geometry[2]
    return (int(height), int(width)) if width.isdecimal() and height.isdecimal() else None


def read_header(file: BinaryIO) -> Fields:
    """Read the header, lines that start with "% ", up to the data.

    The options of a format line such as ``EVT3;height=720;width=1280`` become separate fields.

    Returns:
        The fields by keyword in lower case.

    Raises:
        DecodeError: If the header has no end.
    """
    fields: dict[str, str] = {}
    while True:
        position = file.tell()
        if file.read(1) != b"%":
            file.seek(position)
            return fields
        rest = file.readline(MAX_HEADER)
        if not rest.endswith(b"\n"):
            raise DecodeError("the header is incomplete")
        # Binary data may begin with a percent sign.
        if not rest.startswith(b" ") and rest.strip():
            file.seek(position)
            return fields
        keyword, _, value = rest.decode("latin-1").lower().strip().partition(" ")
        if keyword == "end":
            return fields
        fields[keyword] = value.strip()
        if keyword == "format":
            options = (option.partition("=") for option in value.strip().split(";")[1:])
            fields |= {name.strip(): given.strip() for name, _, given in options}


@EVENT_READER_REGISTRY.register(name="n-mnist")
class NMnistReader(EventReader):
    """Reader of .bin files."""

    suffixes, label = (".bin",), "a .bin file of N-MNIST or N-Caltech101"

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Read the events, adding the time of preceding overflows."""
        overflows, first = 0, True
        for records in read_records(self, EVENT, 0, BLOCK_EVENTS):
            high, middle, low = (records["time"][:, byte].astype(np.int64) for byte in range(3))
            t = (high & 0x7F) << 16 | middle << 8 | low
            if first and int(np.count_nonzero(np.diff(t) < 0)) > _MAX_BACK * len(t):
                raise DecodeError("not a file of N-MNIST: the times are not ascending")
            first = False
            x, y, p = records["x"], records["y"], (high >> 7).astype(np.uint8)
            is_overflow = y == OVERFLOW_ROW
            if is_overflow.any():
                count = overflows + np.cumsum(is_overflow)
                overflows = int(count[-1])
                events = ~is_overflow
                t = t[events] + count[events] * OVERFLOW
                x, y, p = x[events], y[events], p[events]
            else:
                t += overflows * OVERFLOW
            yield EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), p)
