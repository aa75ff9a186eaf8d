"""Opening .npz and .npy files of events without reading what is not asked for.

.npz     arrays x, y, t, p (or one structured array); stored without compression they are read where they lie
.npy     one structured array with fields x, y, t, p

n events of a recording.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.lib import format as npy

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.reader import check_file
from slowfast.errors import UserError

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


SUFFIXES = (".npz", ".npy")
# Other names that a column has in public data sets.
NAMES = {
    "x": ("x",),
    "y": ("y",),
    "t": ("t", "ts", "timestamp", "timestamps", "time"),
    "p": ("p", "pol", "polarity", "polarities"),
}
NEEDED = "x, y, t, p are needed"
_LOCAL_HEADER = 30  # bytes of a member's own header in a zip file, before its name
_SHOWN = 12  # names of arrays in a message
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0, (3, 0): npy.read_array_header_2_0}


class Recording:
    """Columns x, y, t, p of a file as they lie there, of any numeric type; stored ones are not read before `take`.

    Args:
        path: A .npz or .npy file.

    Raises:
        DecodeError: If the file is missing, damaged, no regular file, too large unpacked, or holds no such columns.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        try:
            columns = _open_npz(path) if path.suffix.lower() == ".npz" else _open_npy(path)
        except (DecodeError, UserError):
            raise
        except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
            raise DecodeError(f"the file cannot be read as {path.suffix} ({_first_line(error)})") from error
        self.columns = columns
        lengths = {key: column.shape for key, column in self.columns.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            raise DecodeError(f"x, y, t and p must be of one dimension and equally long, not {lengths}")
        self.n = self.columns["t"].shape[0]
        if self.n == 0:
            raise DecodeError("it holds no events")

    def take(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Read the columns of these events: all of them in one go, single ones without what lies beside them.

        Raises:
            DecodeError: If the file has become shorter, or all events are too many to be read at once.
        """
        if isinstance(rows, slice):
            check_count(self.n)
        return {key: column.take(rows) for key, column in self.columns.items()}


def check_count(events: int) -> None:
    """Raise DecodeError if a recording has too many events to be read whole."""
    if events > MOST_EVENTS:
        raise DecodeError(f"it has {events} events; at most {MOST_EVENTS} are read at once")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _choose(names: Sequence[str]) -> dict[str, str]:
    """Return which of the names found in a file is that of each column x, y, t, p."""
    lower = {name.lower(): name for name in names}
    found = {key: next((lower[name] for name in known if name in lower), None) for key, known in NAMES.items()}
    missing = [key for key, name in found.items() if name is None]
    if missing:
        there = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise DecodeError(f"it has no {', '.join(missing)}, only {there or 'nothing'}; {NEEDED}")
    return {key: name for key, name in found.items() if name is not None}


def _check_type(name: str, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise DecodeError(f"{name} holds Python objects, which are never read")
    if dtype.kind not in "iufb":
        raise DecodeError(f"{name} holds {dtype}, not numbers")


# ------------------------------------------------------------------ arrays
class _Array:
    """Header of an array in the .npy format.

    Args:
        stream: Where the array begins; it is left where its values do.

    Raises:
        DecodeError: If it holds Python objects or its header makes no sense.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
            raise DecodeError(f"{name} is of an unknown version of the .npy format, {version}")
        self.name = name
        self.shape, self.in_columns, self.dtype = _HEADERS[version](stream)
        self.header_size = stream.tell()
        if self.dtype.hasobject:
            raise DecodeError(f"{name} holds Python objects, which are never read")
        if any(length < 0 for length in self.shape) or not self.dtype.itemsize:
            raise DecodeError(f"{name} has an impossible header: an array {self.shape} of {self.dtype}")

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return prod(self.shape) * self.dtype.itemsize

    def stored(self, path: Path, offset: int, end: int) -> dict[str, Column]:
        """Return the columns of an array whose values lie in a file, between two bytes; one is named ""."""
        if offset + self.size > end:
            raise DecodeError(f"the file ends before the last value of {self.name}")
        step = self.dtype.itemsize
        if self.dtype.names is None:
            return {"": StoredColumn(path, offset, self.dtype, self.shape, step)}
        return {
            name: StoredColumn(path, offset + int(at), dtype, self.shape, step)
            for name, (dtype, at, *_) in (self.dtype.fields or {}).items()
        }

    def unpacked(self, stream: IO[bytes]) -> dict[str, Column]:
        """Read the columns of a compressed array; one is named ""."""
        data = stream.read(self.size)
        if len(data) < self.size:
            raise DecodeError(f"the file ends before the last value of {self.name}")
        values = np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.in_columns else "C")
        if self.dtype.names is None:
            return {"": UnpackedColumn(values)}
        return {name: UnpackedColumn(values[name]) for name in self.dtype.names}


def _fields(array: _Array, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Return the columns x, y, t, p of a structured array."""
    if array.dtype.names is None:
        raise DecodeError(f"an array {array.shape} of {array.dtype} has no names for its columns; {NEEDED}")
    return _checked({key: columns[name] for key, name in _choose(array.dtype.names).items()})


def _checked(columns: dict[str, Column]) -> dict[str, Column]:
    """Raise DecodeError unless all columns hold numbers."""
    for key, column in columns.items():
        _check_type(key, column.dtype)
    return columns


def _open_npy(path: Path) -> dict[str, Column]:
    with path.open("rb") as file:
        array = _Array(file, "the array")
        return _fields(array, array.stored(path, array.header_size, path.stat().st_size))


def _open_npz(path: Path) -> dict[str, Column]:
    with zipfile.ZipFile(path) as file:
        members = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
        if len(members) == 1:
            array, columns = _member(path, file, next(iter(members.values())))
            if array.dtype.names is not None:
                return _fields(array, columns)
        chosen = _choose(list(members))
        _check_unpacked([members[name] for name in chosen.values()])
        found = {key: _member(path, file, members[name])[1] for key, name in chosen.items()}
    for key, columns in found.items():
        if "" not in columns:
            raise DecodeError(f"{key} holds records, not numbers")
    return _checked({key: columns[""] for key, columns in found.items()})


def _check_unpacked(members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise DecodeError if compressed members are too large once unpacked."""
    size = sum(info.file_size for info in members if info.compress_type != zipfile.ZIP_STORED)
    if size > MOST_BYTES:
        raise DecodeError(f"unpacked it has {size / 2**30:.1f} GiB; at most {MOST_BYTES / 2**30:g} GiB are unpacked")


def _member(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[_Array, dict[str, Column]]:
    """Open one array of a .npz file: read later if it is stored as it is, else unpacked now."""
    _check_unpacked([info])
    with file.open(info) as stream:
        array = _Array(stream, info.filename)
        if array.header_size + array.size != info.file_size:
            raise DecodeError(f"{info.filename} is damaged: its header does not fit its size")
        if info.compress_type != zipfile.ZIP_STORED:
            check_count(max(array.shape, default=0))
            return array, array.unpacked(stream)
    return array, array.stored(path, _data_offset(path, info) + array.header_size, path.stat().st_size)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where a stored member's bytes begin: after its own header, whose lengths only it tells."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack("<HH", header[26:])
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)
