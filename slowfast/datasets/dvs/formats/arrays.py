"""Arrays of .npy files and .npz archives, read on demand or in blocks.

Notation: n events of a recording.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.columns import Column, StoredColumn

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
