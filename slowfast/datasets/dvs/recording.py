"""Event recordings in .npz and .npy files, read on demand.

* ``.npz``: arrays ``x``, ``y``, ``t``, ``p``, or one structured array. Uncompressed arrays are read directly.
* ``.npy``: one structured array with the fields ``x``, ``y``, ``t``, ``p``.

Notation: n events of a recording.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.dvs.columns import Column, StoredColumn, UnpackedColumn
from slowfast.errors import UserError

SUFFIXES = (".npz", ".npy")
# Names of the columns in public datasets.
NAMES = {
    "x": ("x",),
    "y": ("y",),
    "t": ("t", "ts", "timestamp", "timestamps", "time"),
    "p": ("p", "pol", "polarity", "polarities"),
}
NEEDED = "Required: x, y, t, p"
# Limits of what is read or decompressed at once, so that a small file cannot exhaust the memory. docs/EVENT_CAMERAS.md
# states them.
MAX_EVENTS = 2**26
MAX_BYTES = 2**31  # all columns together
_LOCAL_HEADER = 30  # bytes of the local header of a zip member before its name
_SHOWN = 12  # array names in a message
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0, (3, 0): npy.read_array_header_2_0}


class Recording:
    """Columns x, y, t, p of a file, of any numeric type; uncompressed ones are read by :meth:`take` only.

    Args:
        path: Path of a .npz or .npy file.

    Raises:
        DecodeError: If the file is missing, damaged, not a regular file, too large, or lacks a column.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        try:
            columns = _open_npz(path) if path.suffix.lower() == ".npz" else _open_npy(path)
        except (DecodeError, UserError):
            raise
        except Exception as error:  # NumPy and zipfile raise various errors for damaged files
            raise DecodeError(f"not a readable {path.suffix} file: {_first_line(error)}") from error
        self.columns = columns
        lengths = {key: column.shape for key, column in self.columns.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            raise DecodeError(f"x, y, t and p must be one-dimensional and of equal length, not {lengths}")
        self.n = self.columns["t"].shape[0]
        if self.n == 0:
            raise DecodeError("the recording contains no events")

    def take(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Read the columns of some events.

        Args:
            rows: Indices of single events, which are read without those between them, or a slice.

        Raises:
            DecodeError: If the file has been truncated, or a slice of a recording with more than MAX_EVENTS is read.
        """
        if isinstance(rows, slice):
            check_count(self.n)
        return {key: column.take(rows) for key, column in self.columns.items()}


def check_count(events: int) -> None:
    """Raise DecodeError if a recording has too many events to be read at once."""
    if events > MAX_EVENTS:
        raise DecodeError(f"{events} events exceed the limit of {MAX_EVENTS} that are read at once")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _choose(names: Sequence[str]) -> dict[str, str]:
    """Assign the array names of a file to the columns x, y, t, p."""
    lower = {name.lower(): name for name in names}
    found = {key: next((lower[name] for name in known if name in lower), None) for key, known in NAMES.items()}
    missing = [key for key, name in found.items() if name is None]
    if missing:
        found_names = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise DecodeError(f"missing {', '.join(missing)}; found {found_names or 'nothing'}. {NEEDED}")
    return {key: name for key, name in found.items() if name is not None}


def _check_type(name: str, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise DecodeError(f"{name} contains Python objects, which are never loaded")
    if dtype.kind not in "iufb":
        raise DecodeError(f"{name} contains {dtype}, not numbers")


class _Array:
    """Header of an array in the .npy format.

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
        """Return the columns of an uncompressed array in a file of `end` bytes; a plain array is named ""."""
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
        """Read the columns of a compressed array; a plain array is named ""."""
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
        raise DecodeError(f"an array {array.shape} of {array.dtype} has no named columns. {NEEDED}")
    return _checked({key: columns[name] for key, name in _choose(array.dtype.names).items()})


def _checked(columns: dict[str, Column]) -> dict[str, Column]:
    """Raise DecodeError unless all columns are numeric."""
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
            raise DecodeError(f"{key} contains records, not numbers")
    return _checked({key: columns[""] for key, columns in found.items()})


def _check_unpacked(members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise DecodeError if compressed members are too large after decompression."""
    size = sum(info.file_size for info in members if info.compress_type != zipfile.ZIP_STORED)
    if size > MAX_BYTES:
        raise DecodeError(f"{size / 2**30:.1f} GiB after decompression exceed the limit of {MAX_BYTES / 2**30:g} GiB")


def _member(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[_Array, dict[str, Column]]:
    """Open an array of a .npz file: uncompressed ones are read on demand, compressed ones now."""
    _check_unpacked([info])
    with file.open(info) as stream:
        array = _Array(stream, info.filename)
        if array.header_size + array.size != info.file_size:
            raise DecodeError(f"{info.filename} is damaged: its header does not match its size")
        if info.compress_type != zipfile.ZIP_STORED:
            check_count(max(array.shape, default=0))
            return array, array.unpacked(stream)
    return array, array.stored(path, _data_offset(path, info) + array.header_size, path.stat().st_size)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the offset of an uncompressed member: after its local header, which has a variable length."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack("<HH", header[26:])
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)
