"""AEDAT 3.1 files, as DVS Gesture comes in, and its label files.

The format is iniVation's AEDAT 3.1. No file of a camera was at hand: it was tested on files that its tests encode.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.events import EventColumns

END_OF_HEADER = b"#!END-HEADER\r\n"
PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)
POLARITY, POLARITY_SIZE = 1, 8


@dataclass(frozen=True)
class Labelled:
    """A part of a recording."""

    label: int  # from 0
    start: float  # microseconds, of the first event that belongs to it
    end: float  # of the first that does not


def read_aedat3(path: Path) -> EventColumns:
    """The valid polarity events of an AEDAT 3.1 file, in its order. Raises DecodeError."""
    data = path.read_bytes()
    if not data.startswith(b"#!AER-DAT3."):
        version = data[:14].decode("latin-1").strip()
        raise DecodeError(f"it is no AEDAT 3 file (it begins with {version!r}); AEDAT 4 is not read")
    place = data.find(END_OF_HEADER)
    if place < 0:
        raise DecodeError("its header does not end")
    place += len(END_OF_HEADER)
    parts: list[np.ndarray] = []
    while place < len(data):
        if place + PACKET.itemsize > len(data):
            raise DecodeError("it ends inside a packet's header")
        header = np.frombuffer(data, PACKET, 1, place)[0]
        place += PACKET.itemsize
        size, capacity, number = int(header["size"]), int(header["capacity"]), int(header["number"])
        if size <= 0 or not 0 <= number <= capacity or place + size * capacity > len(data):
            raise DecodeError("a packet is damaged, or the file ends inside it")
        if header["type"] == POLARITY and size == POLARITY_SIZE:
            words = np.frombuffer(data, "<u4", 2 * number, place).reshape(-1, 2).astype(np.int64)
            words[:, 1] += int(header["overflow"]) << 31
            parts.append(words[words[:, 0] & 1 == 1])
        place += size * capacity
    words = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
    place_bits = words[:, 0]
    x, y, p = place_bits >> 17 & 0x7FFF, place_bits >> 2 & 0x7FFF, place_bits >> 1 & 1
    return EventColumns(x, y, words[:, 1].astype(np.float64), p)


def read_gesture_labels(path: Path) -> list[Labelled]:
    """The lines class,startTime_usec,endTime_usec of DVS Gesture's label files, classes from 1. Raises DecodeError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return [Labelled(int(r["class"]) - 1, float(r["startTime_usec"]), float(r["endTime_usec"])) for r in rows]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DecodeError(f"{path.name} is no list of class,startTime_usec,endTime_usec ({error})") from error
