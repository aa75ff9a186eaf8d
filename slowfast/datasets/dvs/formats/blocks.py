"""Blocks of events: from the records of binary files, with counters that overflow, and joined in memory.

Notation: n events of a block or recording.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

import numpy as np

from slowfast.datasets.dvs.formats.base import EventBlock, EventReader, check_count, read_blocks

# Address space initially reserved for a column, based on the file size; memory is only used once written.
_EVENTS_PER_BYTE, _FIRST_BYTES, _MAX_FIRST_BYTES = 0.5, 2**16, 2**28


def read_records(reader: EventReader, kind: np.dtype, start: int, count: int) -> Iterator[np.ndarray]:
    """Yield the records of a file in blocks, which are valid until the next one; report an incomplete last record.

    Args:
        reader: Reader of the file.
        kind: Type of the records.
        start: Position of the first one.
        count: Records per block.
    """
    size = kind.itemsize
    space = bytearray(size * count)
    view, filled = memoryview(space), 0
    with reader.path.open("rb", buffering=0) as file:
        file.seek(start)
        while read := file.readinto(view[filled:]):
            filled += read
            whole = filled // size
            if whole:
                yield np.frombuffer(space, kind, whole)
            rest = filled - whole * size
            view[:rest] = view[filled - rest : filled]
            filled = rest
    if filled:
        reader.report(f"truncated: the file ends within an event, after {filled} of {size} bytes")


class TimeUnwrapper:
    """Unwrapping of a timestamp counter that overflows, block by block.

    A step back by more than half of the counter's range is an overflow, a similar step forward a late event from
    before one.

    Args:
        bits: Number of bits of the counter.
    """

    def __init__(self, bits: int) -> None:
        self.range = 1 << bits
        self._last: int | None = None
        self._overflows = 0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Unwrap the next values, unsigned integers (n,), to int64 (n,)."""
        t = values.astype(np.int64)
        if not len(t):
            return t
        steps = np.diff(t, prepend=t[0] if self._last is None else self._last)
        self._last = int(t[-1])
        half = self.range // 2
        if int(steps.min()) >= -half and int(steps.max()) <= half:
            return t + self._overflows * self.range if self._overflows else t
        turns = self._overflows + np.cumsum((steps < -half).astype(np.int64) - (steps > half))
        self._overflows = int(turns[-1])
        unwrapped: np.ndarray = t + turns * self.range
        return unwrapped


def read_stream(reader: EventReader, stream: int = 0) -> EventBlock:
    """Read all events of a stream.

    Raises:
        DecodeError: If it cannot be read or has more than MAX_EVENTS events.
    """
    expected = reader.path.stat().st_size * _EVENTS_PER_BYTE
    columns = [_GrowingColumn(values.dtype, expected) for values in EventBlock.empty()]
    reader.space = lambda events: EventBlock(*(column.space(events) for column in columns))
    try:
        count = 0
        for block in read_blocks(reader, stream):
            count += len(block.t)
            check_count(count)
            for column, values in zip(columns, block, strict=True):
                column.append(values)
    finally:
        reader.space = None
    return EventBlock(*(column.values() for column in columns))


class _GrowingColumn:
    """Array of unknown length that grows without copying.

    Args:
        dtype: Type of the values; the first ones and later promotions replace it.
        expected: Expected number of values.
    """

    def __init__(self, dtype: np.dtype, expected: float) -> None:
        self.dtype, self.count = dtype, 0
        size = min(max(int(expected * dtype.itemsize), _FIRST_BYTES), _MAX_FIRST_BYTES)
        self._memory = _anonymous(size)

    def space(self, count: int) -> np.ndarray:
        """Return space for the next values, at most `count`, to be written to and then appended."""
        size = self.dtype.itemsize
        needed = (self.count + count) * size
        if needed > len(self._memory):
            self._grow(max(2 * len(self._memory), needed))
        return np.frombuffer(self._memory, self.dtype, count, self.count * size)

    def append(self, values: np.ndarray) -> None:
        """Append values; values already written to the space are not copied."""
        if values.dtype != self.dtype:
            self._convert(values.dtype if not self.count else np.promote_types(self.dtype, values.dtype))
        space = self.space(len(values))
        if space.ctypes.data != values.ctypes.data:
            space[:] = values
        self.count += len(values)

    def values(self) -> np.ndarray:
        """Return all values; nothing can be appended afterwards."""
        return np.frombuffer(self._memory, self.dtype, self.count)

    def _convert(self, dtype: np.dtype) -> None:
        """Change the type of the values."""
        before = self.values()
        self.dtype, self._memory = dtype, _anonymous(max(len(before) * dtype.itemsize, len(self._memory)))
        np.frombuffer(self._memory, dtype, len(before))[:] = before

    def _grow(self, size: int) -> None:
        try:
            self._memory.resize(size)
        except (SystemError, ValueError, BufferError):  # unsupported by the system, or the last block is still in use
            before, self._memory = self._memory, _anonymous(size)
            self._memory[: len(before)] = before[:]


def _anonymous(size: int) -> mmap.mmap:
    """Return memory, in huge pages if available, which cause fewer page faults."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # the system's kernel may lack huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
