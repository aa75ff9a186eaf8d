"""Columns of event recordings that are read on demand.

Notation: n events of a recording.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from slowfast.datasets.decode import DecodeError

_PAGE = 4096  # minimum number of bytes that the operating system reads
_TOO_SHORT = "the file ends before its last event"


class Column(Protocol):
    """Column of a recording, with one value per event."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def take(self, rows: np.ndarray | slice) -> np.ndarray: ...


@dataclass(frozen=True)
class StoredColumn:
    """Uncompressed column in a file, read by :meth:`take` only.

    Attributes:
        path: The file.
        offset: Byte offset of the first value.
        dtype: Type of the values.
        shape: Shape of the column; valid recordings have one dimension.
        step: Distance between values in bytes: the record size of a structured array.
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    step: int

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Read the values of a slice, or of single events without the values between them."""
        n = self.shape[0]
        if isinstance(rows, np.ndarray):
            return self._scattered(np.where(rows < 0, rows + n, rows)) if len(rows) else np.empty(0, self.dtype)
        first, last, stride = rows.indices(n)
        return self._block(first, last)[::stride].copy()

    def _block(self, first: int, last: int) -> np.ndarray:
        """Read the values first .. last - 1."""
        if last <= first:
            return np.empty(0, self.dtype)
        size = (last - first - 1) * self.step + self.dtype.itemsize
        with self.path.open("rb", buffering=0) as file:
            data = _read_range(file.fileno(), self.offset + first * self.step, size)
        return np.ndarray(last - first, self.dtype, data, strides=(self.step,))

    def _scattered(self, rows: np.ndarray) -> np.ndarray:
        first, last = int(rows.min()), int(rows.max())
        if (last - first) * self.step <= _PAGE * len(rows):  # does not read more pages than single reads would
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
    """Column in memory."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return a copy of the values of some events."""
        return np.array(self.values[rows])


def _read_range(descriptor: int, start: int, size: int) -> bytes:
    """Read bytes of a file.

    Raises:
        DecodeError: If the file is too short.
    """
    data = os.pread(descriptor, size, start)
    while len(data) < size:  # one call reads at most 2 GiB
        more = os.pread(descriptor, size - len(data), start + len(data))
        if not more:
            raise DecodeError(_TOO_SHORT)
        data += more
    return data
