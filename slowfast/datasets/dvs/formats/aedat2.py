"""AEDAT 1.0 and 2.0 files of jAER: DVS128 (such as CIFAR10-DVS and MNIST-DVS) and DAVIS cameras.

The format follows iniVation's documentation: pairs of address and time in microseconds, big-endian, of 32 bits each
(version 1.0: addresses of 16 bits). The meaning of an address depends on the camera, which the header names if jAER
wrote it; otherwise it is inferred from the addresses.

* DVS128: x in bits 8 to 14, y in bits 1 to 7, polarity in bit 0, as the readers of CIFAR10-DVS have it.
* DAVIS: polarity in bit 11, x in bits 12 to 21, y in bits 22 to 30. jAER counts both from the lower right corner; here
  they count from the upper left one.

Notation: n events of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    Sensor,
    StreamInfo,
    TimeUnwrapper,
)
from slowfast.datasets.dvs.formats.binary import read_records
from slowfast.datasets.dvs.formats.inivation import CAMERAS, DVS128, sensor_of_camera

# Record type of each version, by the start of the file.
RECORDS = {
    b"#!AER-DAT2.": np.dtype([("address", ">u4"), ("t", ">u4")]),
    b"#!AER-DAT1.": np.dtype([("address", ">u2"), ("t", ">u4")]),
}
TIME_BITS = 32
# Addresses of DVS128 have 15 bits; bit 15 marks signals at the synchronization input.
DVS128_SIGNAL = 1 << 15
# DAVIS: frames and motion sensor (bit 31), signals at an input (bit 10).
DAVIS_OTHERS = 1 << 31 | 1 << 10
MAX_HEADER = 2**20  # bytes of a line; headers contain the preferences of the camera


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
