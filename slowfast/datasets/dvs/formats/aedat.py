"""AEDAT files: 3.1, as DVS Gesture comes in with its label files, and 4.0.

The format is iniVation's. No 3.1 file of a camera was at hand: it was tested on files that its tests encode.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.aedat4 import MAGIC, read_aedat4
from slowfast.datasets.dvs.formats.streams import EventStream, read_raw_bytes
from slowfast.datasets.dvs.sample import EventColumns

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


def read_aedat(path: Path) -> list[EventStream]:
    """A file of AEDAT 3.1 or 4.0, whichever it says it is. Raises DecodeError, and UserError as read_aedat4 does."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    return read_aedat4(path) if start == MAGIC else read_aedat3(path)


def read_aedat3(path: Path) -> list[EventStream]:
    """The valid polarity events of an AEDAT 3.1 file, in its order; those before a tear with it as damage.

    Raises DecodeError.
    """
    data = read_raw_bytes(path)
    if not data.startswith(b"#!AER-DAT3."):
        version = data[: len(MAGIC)].decode("latin-1").strip()
        raise DecodeError(f"it is no AEDAT 3.1 or 4.0 file (it begins with {version!r})")
    place = data.find(END_OF_HEADER)
    if place < 0:
        raise DecodeError("its header does not end")
    place += len(END_OF_HEADER)
    parts: list[np.ndarray] = []
    damage = None
    while place < len(data):
        packet = _packet(data, place)
        if packet is None:
            damage = f"it is damaged or torn at byte {place} of {len(data)}: the events before it were taken"
            break
        words, place = packet
        parts.append(words)
    words = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
    place_bits = words[:, 0]
    x, y, p = place_bits >> 17 & 0x7FFF, place_bits >> 2 & 0x7FFF, place_bits >> 1 & 1
    return [EventStream(EventColumns(x, y, words[:, 1].astype(np.float64), p), damage=damage)]


def _packet(data: bytes, place: int) -> tuple[np.ndarray, int] | None:
    """The valid polarity events of a packet, int64 (n, 2) of place bits and time, and where the next one begins.

    None where no whole packet is.
    """
    if place + PACKET.itemsize > len(data):
        return None
    header = np.frombuffer(data, PACKET, 1, place)[0]
    place += PACKET.itemsize
    size, capacity, number = int(header["size"]), int(header["capacity"]), int(header["number"])
    if size <= 0 or not 0 <= number <= capacity or place + size * capacity > len(data):
        return None
    if header["type"] != POLARITY or size != POLARITY_SIZE:
        number = 0
    words = np.frombuffer(data, "<u4", 2 * number, place).reshape(-1, 2).astype(np.int64)
    words[:, 1] += int(header["overflow"]) << 31
    return words[words[:, 0] & 1 == 1], place + size * capacity


def read_gesture_labels(path: Path) -> list[Labelled]:
    """The lines class,startTime_usec,endTime_usec of DVS Gesture's label files, classes from 1. Raises DecodeError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return [Labelled(int(r["class"]) - 1, float(r["startTime_usec"]), float(r["endTime_usec"])) for r in rows]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DecodeError(f"{path.name} is no list of class,startTime_usec,endTime_usec ({error})") from error
