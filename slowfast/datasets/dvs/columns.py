"""Columns of an event recording: read from where they lie in the file, or unpacked.

Files are read with `pread`, not mapped: a file that becomes shorter meanwhile then gives an error instead of SIGBUS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from slowfast.datasets.decode import DecodeError

# Limits of what is read or unpacked at once, so that a small file cannot fill the memory (see docs/EVENT_CAMERAS.md).
MOST_EVENTS = 2**26
MOST_BYTES = 2**31  # of all columns together
_PAGE = 4096  # bytes that the system reads at least
_TOO_SHORT = "the file ends before the last of its events"


class Column(Protocol):
    """One column of a recording: a value for each event."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def take(self, rows: np.ndarray | slice) -> np.ndarray: ...


@dataclass(frozen=True)
class StoredColumn:
    """A column that lies in a file as it is; nothing is read before `take`.

    Attributes:
        path: The file.
        offset: Byte of its first value.
        dtype: Type of its values.
        shape: Number of values; of one dimension, unless the recording is to be refused.
        step: Bytes from one value to the next, those of a structured array's record.
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    step: int

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Read the values of these events: all of them at once, single ones without what lies between them."""
        n = self.shape[0]
        if isinstance(rows, np.ndarray):
            return self._scattered(np.where(rows < 0, rows + n, rows)) if len(rows) else np.empty(0, self.dtype)
        first, last, stride = rows.indices(n)
        return self._block(first, last)[::stride].copy()

    def _block(self, first: int, last: int) -> np.ndarray:
        """Read the values of the events `first` to `last` - 1."""
        if last <= first:
            return np.empty(0, self.dtype)
        size = (last - first - 1) * self.step + self.dtype.itemsize
        with self.path.open("rb", buffering=0) as file:
            data = _read_range(file.fileno(), self.offset + first * self.step, size)
        return np.ndarray(last - first, self.dtype, data, strides=(self.step,))

    def _scattered(self, rows: np.ndarray) -> np.ndarray:
        first, last = int(rows.min()), int(rows.max())
        if (last - first) * self.step <= _PAGE * len(rows):  # as many pages either way
            return self._block(first, last + 1)[rows - first]
        starts, size = (self.offset + rows * self.step).tolist(), self.dtype.itemsize
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            data = b"".join([os.pread(descriptor, size, start) for start in starts])
        finally:
            os.close(descriptor)
        if len(data) < len(rows) * size:
            raise DecodeError(_TOO_SHORT)
        return np.frombuffer(data, self.dtype)


@dataclass(frozen=True)
class UnpackedColumn:
    """A column in memory."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return a copy of the values of these events."""
        return np.array(self.values[rows])


def _read_range(descriptor: int, start: int, size: int) -> bytes:
    """Read bytes of a file; DecodeError where it ends before."""
    data = os.pread(descriptor, size, start)
    while len(data) < size:  # one call reads 2 GiB at most
        more = os.pread(descriptor, size - len(data), start + len(data))
        if not more:
            raise DecodeError(_TOO_SHORT)
        data += more
    return data
