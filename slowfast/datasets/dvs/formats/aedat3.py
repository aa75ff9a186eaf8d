"""AEDAT 3.0 and 3.1 files: the format of DVS Gesture, with its label files.

The format is iniVation's. It was tested on files that the tests encode, not on files of a camera.
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
from slowfast.datasets.dvs.formats.aedat2 import read_lines
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    Sensor,
    StreamInfo,
)
from slowfast.datasets.dvs.formats.inivation import sensor_of_camera

MAGIC, VERSION_0 = b"#!AER-DAT3.", b"#!AER-DAT3.0"
END_OF_HEADER = b"#!END-HEADER\r\n"
PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)
POLARITY, POLARITY_SIZE = 1, 8
OVERFLOW_BITS = 31


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
        self.from_bottom = head.startswith(VERSION_0)
        end = head.find(END_OF_HEADER)
        if end >= 0:
            self.start = end + len(END_OF_HEADER)
            lines = head[:end].decode("latin-1").splitlines()
        elif self.from_bottom:  # may have no end
            lines, self.start = read_lines(path)
        else:
            raise DecodeError("the header is incomplete")
        # DVS Gesture names its camera, too.
        sources = " ".join(line for line in lines if line.lower().startswith(("#source", "source")))
        self.sensor = sensor_of_camera(sources)
        if self.from_bottom and self.sensor is None:
            raise DecodeError("version 3.0 counts rows from the bottom, and the header names no known camera")

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
            if self.from_bottom:
                y = (_height(self.sensor) - 1 - y.astype(np.int64)) & 0xFFFF
            yield EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))


def _height(sensor: Sensor | None) -> int:
    assert sensor is not None
    return sensor[0]


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
