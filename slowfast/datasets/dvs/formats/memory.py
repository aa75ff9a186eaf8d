"""Reading of all events of a stream into memory, without repeated copies.

Notation: n events.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from slowfast.datasets.dvs.formats.base import EventBlock, EventReader, check_count, read_blocks

KINDS = tuple(np.dtype(kind) for kind in (np.int64, np.uint16, np.uint16, np.uint8))  # usual types of t, x, y, p
# Address space initially reserved for a column, based on the file size; memory is only used once written.
_EVENTS_PER_BYTE, _FIRST_BYTES, _MAX_FIRST_BYTES = 0.5, 2**16, 2**28


def read_stream(reader: EventReader, stream: int = 0) -> EventBlock:
    """Read all events of a stream.

    Raises:
        DecodeError: If it cannot be read or has more than MAX_EVENTS events.
    """
    expected = reader.path.stat().st_size * _EVENTS_PER_BYTE
    columns = [_GrowingColumn(kind, expected) for kind in KINDS]
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
