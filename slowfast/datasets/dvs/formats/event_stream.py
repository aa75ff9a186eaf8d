"""Event Stream files (.es, Marcireau et al.), versions 2.x, of DVS and ATIS events.

The format was checked against faery's reader and writer. The row 0 of the files is at the bottom.

Notation: n bytes of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    StreamInfo,
)

MAGIC = b"Event Stream"
HEADER = 20  # bytes: the magic, 3 of the version, the type, width, height
GENERIC, DVS, ATIS, COLOR = 0, 1, 2, 4
NAMES = {GENERIC: "generic", COLOR: "color"}
BLOCK_BYTES = 2**18
_LENGTH = 5  # bytes of an event: time and polarity, x, y


@EVENT_READER_REGISTRY.register(name="event-stream")
class EventStreamReader(EventReader):
    """Reader of .es files."""

    suffixes, label = (".es",), "an Event Stream file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            header = file.read(HEADER)
        if len(header) < HEADER:
            raise DecodeError("the header is incomplete")
        version, self.kind = header[12], header[15]
        if version != 2:
            raise DecodeError(f"unsupported version {version} of the Event Stream format. Supported: 2")
        if self.kind not in (DVS, ATIS):
            name = NAMES.get(self.kind, f"type {self.kind}")
            raise DecodeError(f"the file contains {name} events. Supported: DVS and ATIS events")
        self.width, self.height = (int.from_bytes(header[at : at + 2], "little") for at in (16, 18))

    @classmethod
    def accepts(cls, path: Path, head: bytes) -> bool:
        """Return whether the file starts with the name of the format."""
        return head.startswith(MAGIC)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The only stream."""
        return (StreamInfo(sensor=(self.height, self.width)),)

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Decode the bytes of the file, a block at a time."""
        time, rest = 0, b""
        with self.path.open("rb", buffering=0) as file:
            file.seek(HEADER)
            while data := file.read(BLOCK_BYTES):
                values = np.frombuffer(rest + data, np.uint8)
                first, steps, starts, end = self._split(values)
                rest = values[end:].tobytes()
                # Time after each first byte.
                times = time + np.cumsum(steps)
                time = int(times[-1]) if len(times) else time
                yield self._events(values, first[starts], times[starts])
        if rest:
            self.report(f"truncated: the file ends within an event, after {len(rest)} of {_LENGTH} bytes")

    def _split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Find the bytes that start an event, an overflow or a reset.

        Returns:
            Their positions, their time steps, the mask of those that start an event, and the position of the first
            incomplete event.
        """
        single = self._single()
        # Distance from each byte to the next item, if an item begins there.
        first = _chain(np.where(single[values], 1, _LENGTH))
        if len(first) and not single[values[first[-1]]] and first[-1] + _LENGTH > len(values):
            first, end = first[:-1], int(first[-1])
        else:
            end = len(values)
        head = values[first]
        starts = ~single[head]
        if self.kind == DVS:
            steps = np.where(starts, head >> 1, np.where(head == 0xFF, 127, 0))
        else:
            steps = np.where(starts, head >> 2, (head & 3).astype(np.int64) * 63)
        return first, steps.astype(np.int64), starts, end

    def _single(self) -> np.ndarray:
        """Return which bytes are overflows or resets, bool (256,)."""
        value = np.arange(256)
        mask: np.ndarray = value >= (0xFE if self.kind == DVS else 0xFC)
        return mask

    def _events(self, values: np.ndarray, first: np.ndarray, t: np.ndarray) -> EventBlock:
        head = values[first]
        if self.kind == ATIS:  # without the events of exposure measurement
            change = head & 1 == 0
            first, t, head = first[change], t[change], head[change]
        p = head & 1 if self.kind == DVS else head >> 1 & 1
        x, y = (
            values[first + at].astype(np.uint16) | values[first + at + 1].astype(np.uint16) << np.uint16(8)
            for at in (1, 3)
        )
        # Rows outside of the sensor stay outside after the flip.
        return EventBlock(t, x, (self.height - 1 - y.astype(np.int32)) & 0xFFFF, p)


def _chain(steps: np.ndarray) -> np.ndarray:
    """Return the positions 0, 0 + steps[0], ... up to the end of the array: int64 (m,).

    Steps are 1 or _LENGTH bytes. Runs of steps of _LENGTH are found with NumPy; the Python loop is over runs.
    """
    found: list[np.ndarray] = []
    position, end = 0, len(steps)
    # Jumps of _LENGTH visit every fifth byte: find, for each residue, the next byte with a jump of 1.
    one = steps == 1
    breaks = [np.flatnonzero(one[residue::_LENGTH]) * _LENGTH + residue for residue in range(_LENGTH)]
    while position < end:
        if one[position]:
            found.append(np.array([position]))
            position += 1
            continue
        candidates = breaks[position % _LENGTH]
        at = int(np.searchsorted(candidates, position))
        stop = int(candidates[at]) if at < len(candidates) else end
        run = np.arange(position, stop, _LENGTH)
        found.append(run)
        position = int(run[-1]) + _LENGTH
    return np.concatenate(found) if found else np.empty(0, np.int64)
