"""Records of binary files, read in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from slowfast.datasets.dvs.formats.base import EventReader


def read_records(reader: EventReader, kind: np.dtype, start: int, count: int) -> Iterator[np.ndarray]:
    """Yield the records of a file in blocks; an incomplete last one is reported as damage.

    Args:
        reader: Reader of the file.
        kind: Type of the records.
        start: Position of the first one.
        count: Records per block.
    """
    with reader.path.open("rb", buffering=0) as file:
        file.seek(start)
        rest = b""
        while True:
            data = file.read(kind.itemsize * count - len(rest))
            if not data:
                break
            data = rest + data if rest else data
            whole = len(data) // kind.itemsize
            rest = data[whole * kind.itemsize :]
            if whole:
                yield np.frombuffer(data, kind, whole)
    if rest:
        size = kind.itemsize
        reader.report(f"truncated: the file ends within an event, after {len(rest)} of {size} bytes")
