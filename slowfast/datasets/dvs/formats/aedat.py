"""Files of iniVation's cameras up to version 3.1: AEDAT 1.0 and 2.0 of jAER, AEDAT 3.0 and 3.1 of cAER.

Versions 1.0 and 2.0 (DVS128, such as CIFAR10-DVS and MNIST-DVS, and DAVIS cameras) follow iniVation's documentation:
pairs of address and time in microseconds, big-endian, of 32 bits each (version 1.0: addresses of 16 bits). The meaning
of an address depends on the camera, which the header names if jAER wrote it; otherwise the addresses tell.

* DVS128: x in bits 8 to 14, y in bits 1 to 7, polarity in bit 0, as the readers of CIFAR10-DVS have it.
* DAVIS: polarity in bit 11, x in bits 12 to 21, y in bits 22 to 30. jAER counts both from the lower right corner; here
  they count from the upper left one.

Versions 3.0 and 3.1 are the format of DVS Gesture, with its label files. They were tested on files that the tests
encode, not on files of a camera.

Notation: n events of a block.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    CAMERAS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    Sensor,
    StreamInfo,
    sensor_of_camera,
)
from slowfast.datasets.dvs.formats.blocks import TimeUnwrapper, read_records

# Record type of each version, by the start of the file.
RECORDS = {
    b"#!AER-DAT2.": np.dtype([("address", ">u4"), ("t", ">u4")]),
    b"#!AER-DAT1.": np.dtype([("address", ">u2"), ("t", ">u4")]),
}
TIME_BITS = 32
DVS128 = CAMERAS["dvs128"]
# Addresses of DVS128 have 15 bits; bit 15 marks signals at the synchronization input.
DVS128_SIGNAL = 1 << 15
# DAVIS: frames and motion sensor (bit 31), signals at an input (bit 10).
DAVIS_OTHERS = 1 << 31 | 1 << 10
MAX_HEADER = 2**20  # bytes of a line; headers contain the preferences of the camera
MAGIC, VERSION_0 = b"#!AER-DAT3.", b"#!AER-DAT3.0"
END_OF_HEADER = b"#!END-HEADER\r\n"
PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)
POLARITY, POLARITY_SIZE = 1, 8
OVERFLOW_BITS = 31


@EVENT_READER_REGISTRY.register(name="aedat-2")
class Aedat2Reader(EventReader):
    """Reader of .aedat files of version 2.0."""

    suffixes, label = (".aedat",), "an AEDAT 2.0 file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        lines, self.start = read_lines(path)
        with path.open("rb") as file:
            self.record = RECORDS[file.read(len(next(iter(RECORDS))))]
        chip = next((line for line in lines if "aechip" in line.lower()), "")
        named = sensor_of_camera(chip) or sensor_of_camera(
            " ".join(line for line in lines if "interface" in line.lower())
        )
        self.sensor = self._guessed() if named is None else named

    @classmethod
    def accepts(cls, path: Path, head: bytes) -> bool:
        """Return whether the file states the version."""
        return head.startswith(tuple(RECORDS))

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The only stream."""
        return (StreamInfo(sensor=self.sensor),)

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Read the polarity events; the overflow of their 32-bit time is undone."""
        unwrap = TimeUnwrapper(TIME_BITS)
        for records in read_records(self, self.record, self.start, BLOCK_EVENTS):
            t, address = unwrap(records["t"]), records["address"].astype(np.uint32)
            yield self._dvs128(t, address) if self.sensor == DVS128 else self._davis(t, address)

    def _dvs128(self, t: np.ndarray, address: np.ndarray) -> EventBlock:
        signals = address & DVS128_SIGNAL != 0
        if signals.any():
            t, address = t[~signals], address[~signals]
        x, y, p = address >> 8 & 0x7F, address >> 1 & 0x7F, address & 1
        return EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))

    def _davis(self, t: np.ndarray, address: np.ndarray) -> EventBlock:
        events = address & DAVIS_OTHERS == 0
        if not events.all():
            t, address = t[events], address[events]
        height, width = self.sensor
        # Values outside of the sensor stay outside after the flip.
        x, y = (width - 1 - (address >> 12 & 0x3FF)) & 0xFFFF, (height - 1 - (address >> 22 & 0x1FF)) & 0xFFFF
        return EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), (address >> 11 & 1).astype(np.uint8))

    def _guessed(self) -> Sensor:
        """Return the sensor inferred from the addresses: the smallest camera that contains all of them.

        Raises:
            DecodeError: If there is none.
        """
        highest_x = highest_y = highest = 0
        for records in read_records(self, self.record, self.start, BLOCK_EVENTS):
            address = records["address"].astype(np.uint32)
            highest = max(highest, int(address.max()))
            events = address[address & DAVIS_OTHERS == 0]
            highest_x = max(highest_x, int((events >> 12 & 0x3FF).max(initial=0)))
            highest_y = max(highest_y, int((events >> 22).max(initial=0)))
        if highest < 2 * DVS128_SIGNAL:
            return DVS128
        sizes = [CAMERAS[name] for name in ("davis240", "davis346", "davis640")]
        found = next((size for size in sizes if highest_y < size[0] and highest_x < size[1]), None)
        if found is None:
            raise DecodeError(
                f"the header names no camera, and x up to {highest_x}, y up to {highest_y} do not fit any DAVIS"
            )
        self.note(f"read as DAVIS of {found[0]} x {found[1]} pixels; the header names no camera")
        return found


def read_lines(path: Path) -> tuple[list[str], int]:
    """Read the lines of a header, which start with #, and the position after them.

    Raises:
        DecodeError: If the header has no end.
    """
    lines: list[str] = []
    with path.open("rb") as file:
        while True:
            position = file.tell()
            if file.read(1) != b"#":
                return lines, position
            line = file.readline(MAX_HEADER)
            if not line.endswith(b"\n"):
                raise DecodeError("the header is incomplete")
            lines.append(line.decode("latin-1").strip())


@dataclass(frozen=True)
class LabeledPart:
    """Labeled part of a recording."""

    label: int  # from 0
    start: float  # microseconds, inclusive
    end: float  # microseconds, exclusive


@EVENT_READER_REGISTRY.register(name="aedat-3")
class Aedat3Reader(EventReader):
    """Reader of .aedat files of version 3."""

    suffixes, label = (".aedat",), "an AEDAT 3.1 file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            head = file.read(2**20)
        version_0 = head.startswith(VERSION_0)
        end = head.find(END_OF_HEADER)
        if end >= 0:
            self.start = end + len(END_OF_HEADER)
            lines = head[:end].decode("latin-1").splitlines()
        elif version_0:  # may have no end
            lines, self.start = read_lines(path)
        else:
            raise DecodeError("the header is incomplete")
        # DVS Gesture names its camera, too.
        sources = " ".join(line for line in lines if line.lower().startswith(("#source", "source")))
        self.sensor = sensor_of_camera(sources)
        if version_0 and self.sensor is None:
            raise DecodeError("version 3.0 counts rows from the bottom, and the header names no known camera")
        # Number of the row that is the first one of the file, if it counts from the bottom.
        self.bottom = self.sensor[0] - 1 if version_0 and self.sensor else None

    @classmethod
    def accepts(cls, path: Path, head: bytes) -> bool:
        """Return whether the file states the version."""
        return head.startswith(MAGIC)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The only stream."""
        return (StreamInfo(sensor=self.sensor),)

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Read the valid polarity events of each packet; from a truncated file, those of the complete packets."""
        size = os.path.getsize(self.path)
        position = self.start
        with self.path.open("rb") as file:
            file.seek(position)
            while position < size:
                header = file.read(PACKET.itemsize)
                packet = np.frombuffer(header, PACKET)[0] if len(header) == PACKET.itemsize else None
                length = -1 if packet is None else int(packet["size"]) * int(packet["capacity"])
                position += PACKET.itemsize
                if packet is None or not _is_valid(packet) or position + length > size:
                    at = position - PACKET.itemsize
                    self.report(f"damaged or truncated at byte {at} of {size}; the events before were read")
                    return
                if packet["type"] == POLARITY and packet["size"] == POLARITY_SIZE:
                    yield from self._packet(file, int(packet["number"]), int(packet["overflow"]))
                position += length
                file.seek(position)

    def _packet(self, file: BinaryIO, number: int, overflow: int) -> Iterator[EventBlock]:
        """Yield the valid events of a packet, whose first `number` ones are read."""
        for first in range(0, number, BLOCK_EVENTS):
            data = file.read(min(number - first, BLOCK_EVENTS) * POLARITY_SIZE)
            address, time = np.frombuffer(data, "<u4").reshape(-1, 2).T
            valid = address & 1 == 1
            address, t = address[valid], time[valid].astype(np.int64) + (overflow << OVERFLOW_BITS)
            x, y, p = address >> 17 & 0x7FFF, address >> 2 & 0x7FFF, address >> 1 & 1
            if self.bottom is not None:
                y = (self.bottom - y.astype(np.int64)) & 0xFFFF
            yield EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))


def _is_valid(packet: np.void) -> bool:
    return bool(packet["size"] > 0 and 0 <= packet["number"] <= packet["capacity"])


def read_gesture_labels(path: Path) -> list[LabeledPart]:
    """Read a label file of DVS Gesture: lines class,startTime_usec,endTime_usec with classes from 1.

    Raises:
        DecodeError: If it is not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return [LabeledPart(int(r["class"]) - 1, float(r["startTime_usec"]), float(r["endTime_usec"])) for r in rows]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DecodeError(f"{path.name} is not a list of class,startTime_usec,endTime_usec: {error}") from error
