"""Records of binary files, read in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from slowfast.datasets.dvs.formats.base import EventReader


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
