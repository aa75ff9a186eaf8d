"""Columns of events, read on demand or in blocks: of files, .npy arrays and .npz archives, with or without names.

Notation: n events of a recording, k columns.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.lib import format as npy

from slowfast.datasets.decode import DecodeError

_PAGE = 4096  # minimum number of bytes that the operating system reads
_TOO_SHORT = "the file ends before its last event"
# Names of the columns in public datasets.
NAMES = {
    "x": ("x", "xs", "x_coordinate", "col", "column"),
    "y": ("y", "ys", "y_coordinate", "row", "line"),
    "t": ("t", "ts", "timestamp", "timestamps", "time", "times"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
NEEDED = "Required: x, y, t, p"
_LOCAL_HEADER = 30  # bytes of the local header of a zip member before its name
_SHOWN = 12  # maximum number of array names in a message
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0, (3, 0): npy.read_array_header_2_0}
MILLISECOND, SECOND, NANOSECOND = 1e-3, 1.0, 1e-9
UNIT_NAMES = {MILLISECOND: "milliseconds", SECOND: "seconds", NANOSECOND: "nanoseconds"}
# Column orders used by public datasets and programs, the most common one first.
ORDERS = ("txyp", "xytp", "xypt", "pxyt", "ptxy", "pyxt", "xypt", "tpxy")
MAX_COORDINATE = 2**16
# Larger integers cannot be microseconds: they would correspond to the year 5000.
_NANOSECONDS_FROM = 10**17
# More events per second than any sensor has.
_IMPOSSIBLE_RATE = 1e8
_SMALLEST_TICK = 1e-2  # deviation from an integer that counts as rounding


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


def choose_columns(names: Sequence[str]) -> dict[str, str]:
    """Assign names to the columns x, y, t, p.

    Raises:
        DecodeError: If a column is missing.
    """
    lower = {name.lower(): name for name in names}
    found = {key: next((lower[name] for name in known if name in lower), None) for key, known in NAMES.items()}
    missing = [key for key, name in found.items() if name is None]
    if missing:
        found_names = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise DecodeError(f"missing {', '.join(missing)}; found {found_names or 'nothing'}. {NEEDED}")
    return {key: name for key, name in found.items() if name is not None}


def check_numeric(name: str, dtype: np.dtype) -> None:
    """Raise DecodeError unless a column contains numbers."""
    if dtype.hasobject:
        raise DecodeError(f"{name} contains Python objects, which are never loaded")
    if dtype.kind not in "iufb":
        raise DecodeError(f"{name} contains {dtype}, not numbers")


class StoredArray:
    """Array in the .npy format, in a file or an archive.

    Args:
        stream: Stream at the beginning of the array; it is advanced to its values.
        name: Name for messages.

    Raises:
        DecodeError: If the array contains Python objects or its header is invalid.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            raise DecodeError(f"{name} has an unknown version of the .npy format: {version}")
        self.name = name
        self.shape, self.in_columns, self.dtype = _HEADERS[version](stream)
        self.header_size = stream.tell()
        if self.dtype.hasobject:
            raise DecodeError(f"{name} contains Python objects, which are never loaded")
        if any(length < 0 for length in self.shape) or not self.dtype.itemsize:
            raise DecodeError(f"{name} has an invalid header: an array {self.shape} of {self.dtype}")

    @property
    def size(self) -> int:
        """Size of the values in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def stored(self, path: Path, offset: int, end: int) -> dict[str, Column]:
        """Return the columns of an uncompressed array in a file of `end` bytes.

        A plain array is named ""; the columns of a table (n, k) or (k, n), whose shorter side has the columns, are
        named 0, 1, ...
        """
        if offset + self.size > end:
            raise DecodeError(f"the file ends before the last value of {self.name}")
        step = self.dtype.itemsize
        if self.dtype.names is not None:
            return {
                name: StoredColumn(path, offset + int(at), dtype, self.shape, step)
                for name, (dtype, at, *_) in (self.dtype.fields or {}).items()
            }
        if len(self.shape) != 2:
            return {"": StoredColumn(path, offset, self.dtype, self.shape, step)}
        events, count = self.shape
        contiguous = self.in_columns  # whether the values of a column are contiguous
        if events < count and events in TABLE_WIDTHS:
            events, count, contiguous = count, events, not contiguous
        between = step if contiguous else count * step
        return {
            str(number): StoredColumn(
                path, offset + number * (events * step if contiguous else step), self.dtype, (events,), between
            )
            for number in range(count)
        }

    def unpacked(self, stream: IO[bytes]) -> dict[str, np.ndarray]:
        """Read the columns of a compressed array, named as in :meth:`stored`."""
        data = stream.read(self.size)
        if len(data) < self.size:
            raise DecodeError(f"the file ends before the last value of {self.name}")
        values = np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.in_columns else "C")
        if self.dtype.names is not None:
            return {name: values[name] for name in self.dtype.names}
        if values.ndim != 2:
            return {"": values}
        if values.shape[0] < values.shape[1] and values.shape[0] in TABLE_WIDTHS:
            values = values.T
        return {str(number): values[:, number] for number in range(values.shape[1])}


TABLE_WIDTHS = (3, 4)  # columns of tables without names


def data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the offset of an uncompressed member: after its local header, which has a variable length."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack("<HH", header[26:])
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)


def find_order(values: np.ndarray) -> str:
    """Find the order of four columns.

    The polarity has two values, x and y are coordinates, and the time does not decrease; a decimal fraction is a time.

    Args:
        values: The first events, numbers of shape (n, 4).

    Returns:
        A permutation of ``txyp``: the meaning of each column.

    Raises:
        DecodeError: If no order agrees with the values.
    """
    columns = [values[:, number] for number in range(4)]
    polarity = [bool(np.isin(c, (0, 1)).all() or np.isin(c, (-1, 1)).all()) for c in columns]
    pixels = [bool((c == np.rint(c)).all() and c.min() >= 0 and c.max() < MAX_COORDINATE) for c in columns]
    fitting = [
        order
        for order in dict.fromkeys(ORDERS)
        if polarity[order.index("p")] and pixels[order.index("x")] and pixels[order.index("y")]
    ]
    if not fitting or (len(values) > 1 and bool((values == values[0]).all())):
        raise DecodeError(
            "the table has no named columns, and its values do not show which contain polarities (0 and 1, or "
            "-1 and 1), coordinates and times. Name the columns x, y, t, p"
        )
    return max(fitting, key=lambda order: _as_time(columns[order.index("t")]))


def _as_time(column: np.ndarray) -> tuple[float, float]:
    """Return how much a column resembles the time: the fraction of steps that are not backward, then the range."""
    steps = np.diff(column)
    forward = float((steps >= 0).mean()) if len(steps) else 1.0
    changes = float((steps != 0).mean()) if len(steps) else 0.0
    # A constant column never decreases, but it is not a time.
    return forward if changes else 0.5, float(column.max() - column.min())


def find_time_unit(t: np.ndarray) -> float | None:
    """Infer the unit of times from the grid of microseconds.

    Args:
        t: The first times (n,).

    Returns:
        Seconds per tick; None for times that may be microseconds: integers, or fractions on no grid.
    """
    if not len(t):
        return None
    if t.dtype.kind != "f" or bool((t == np.rint(t)).all()):
        return NANOSECOND if abs(float(t[0])) >= _NANOSECONDS_FROM else None
    duration = float(t.max() - t.min())
    for unit in (MILLISECOND, SECOND):
        too_fast = len(t) > _IMPOSSIBLE_RATE * duration * unit and len(t) > 1
        if _on_grid(t, unit / 1e-6) and not (unit == MILLISECOND and too_fast):
            return unit
    return SECOND if _on_grid(t, SECOND / NANOSECOND) else None


def _on_grid(t: np.ndarray, scale: float) -> bool:
    """Return whether times multiplied by a factor are integers up to rounding."""
    scaled = t * scale
    allowed = np.minimum(np.maximum(_SMALLEST_TICK, 2 * np.spacing(np.abs(t)) * scale), 0.5)
    return bool((np.abs(scaled - np.rint(scaled)) <= allowed).all())


def to_microseconds(t: np.ndarray, unit: float) -> np.ndarray:
    """Convert times to microseconds, float64 (n,); rounding errors of decimal fractions are removed."""
    if t.dtype.kind != "f" and unit == NANOSECOND:
        return t.astype(np.int64) / 1000  # exact for whole microseconds
    scaled: np.ndarray = t.astype(np.float64) * (unit / 1e-6)
    whole = np.rint(scaled)
    error = np.maximum(_SMALLEST_TICK, 2 * np.spacing(np.abs(t)).astype(np.float64) * (unit / 1e-6))
    return np.where(np.abs(scaled - whole) <= error, whole, scaled)
