"""AEDAT files: version 3.1, the format of DVS Gesture with its label files, and version 4.0.

The format is iniVation's. Version 3.1 was tested on files that the tests encode, not on files of a camera.
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
class LabeledPart:
    """Labeled part of a recording."""

    label: int  # from 0
    start: float  # microseconds, inclusive
    end: float  # microseconds, exclusive


def read_aedat(path: Path) -> list[EventStream]:
    """Read an AEDAT file of version 3.1 or 4.0.

    Raises:
        DecodeError: If it is damaged or has another format.
        UserError: If the package for its compression is not installed.
    """
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    return read_aedat4(path) if start == MAGIC else read_aedat3(path)


def read_aedat3(path: Path) -> list[EventStream]:
    """Read the valid polarity events of an AEDAT 3.1 file; of a truncated file those before its end.

    Raises:
        DecodeError: If it is not such a file.
    """
    data = read_raw_bytes(path)
    if not data.startswith(b"#!AER-DAT3."):
        version = data[: len(MAGIC)].decode("latin-1").strip()
        raise DecodeError(f"not an AEDAT 3.1 or 4.0 file (starts with {version!r})")
    position = data.find(END_OF_HEADER)
    if position < 0:
        raise DecodeError("the header is incomplete")
    position += len(END_OF_HEADER)
    parts: list[np.ndarray] = []
    damage = None
    while position < len(data):
        packet = _packet(data, position)
        if packet is None:
            damage = f"damaged or truncated at byte {position} of {len(data)}; the events before were read"
            break
        words, position = packet
        parts.append(words)
    words = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
    address = words[:, 0]
    x, y, p = address >> 17 & 0x7FFF, address >> 2 & 0x7FFF, address >> 1 & 1
    return [EventStream(EventColumns(x, y, words[:, 1].astype(np.float64), p), damage=damage)]


def _packet(data: bytes, position: int) -> tuple[np.ndarray, int] | None:
    """Read the valid polarity events of a packet, int64 (n, 2) of address and time, and the position of the next one.

    Returns:
        None if the packet is incomplete or damaged.
    """
    if position + PACKET.itemsize > len(data):
        return None
    header = np.frombuffer(data, PACKET, 1, position)[0]
    position += PACKET.itemsize
    size, capacity, number = int(header["size"]), int(header["capacity"]), int(header["number"])
    if size <= 0 or not 0 <= number <= capacity or position + size * capacity > len(data):
        return None
    if header["type"] != POLARITY or size != POLARITY_SIZE:
        number = 0
    words = np.frombuffer(data, "<u4", 2 * number, position).reshape(-1, 2).astype(np.int64)
    words[:, 1] += int(header["overflow"]) << 31
    return words[words[:, 0] & 1 == 1], position + size * capacity


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
