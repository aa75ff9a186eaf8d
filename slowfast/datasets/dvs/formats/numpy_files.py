"""Recordings in NumPy's files.

* ``.npz``: arrays ``x``, ``y``, ``t``, ``p``, one structured array, or one table of four columns; uncompressed arrays
  are read directly. ES-ImageNet (Lin et al. 2021): ``pos`` and ``neg``, each with the columns x, y, t.
* ``.npy``: one structured array with the fields ``x``, ``y``, ``t``, ``p``, or a table of four columns, such as
  tonic's files of DVS Gesture.

Notation: n events of a recording.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    MICROSECOND,
    EventBlock,
    EventReader,
    check_count,
    check_unpacked_size,
    guarded,
)
from slowfast.datasets.dvs.formats.columns import (
    NEEDED,
    SAMPLE,
    UNIT_NAMES,
    Column,
    Polarities,
    ScaledTimes,
    StoredColumn,
    UnpackedColumn,
    check_columns,
    check_numeric,
    choose_columns,
    find_order,
    find_time_unit,
    finite_times,
    whole_pixels,
)

POSITIVE, NEGATIVE = "pos", "neg"  # arrays of ES-ImageNet
TABLE_WIDTHS = (3, 4)  # columns of tables without names
_LOCAL_HEADER = 30  # bytes of the local header of a zip member before its name
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0, (3, 0): npy.read_array_header_2_0}


class ColumnsReader(EventReader):
    """Reader of a file with four columns of equal length.

    Attributes:
        found: The columns x, y, t, p of the file.
    """

    time_unit = None
    found: Mapping[str, Column]

    def columns(self) -> Mapping[str, Column]:
        """Return the columns of the file."""
        return self.found

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Yield the rows of the columns."""
        polarities = Polarities()
        for x, y, t, p in zip(*(_column_blocks(self.found[key]) for key in "xytp"), strict=True):
            yield EventBlock(finite_times(t), whole_pixels(x, "x"), whole_pixels(y, "y"), polarities(p))

    def _from_array(self, array: StoredArray, columns: Mapping[str, Column]) -> None:
        """Find the columns of a structured array or a table."""
        if array.dtype.names is not None:
            self.found = {key: columns[name] for key, name in choose_columns(array.dtype.names).items()}
        elif "" in columns:
            raise DecodeError(f"an array {array.shape} of {array.dtype} has no named columns. {NEEDED}")
        else:
            self._from_table(columns)

    def _from_table(self, table: Mapping[str, Column]) -> None:
        """Infer the meaning of four unnamed columns, and the unit of the times."""
        if len(table) != 4:
            raise DecodeError(f"a table of {len(table)} columns without names. {NEEDED}")
        for name, column in table.items():
            check_numeric(f"column {name}", column.dtype)
        columns = list(table.values())
        sample = np.stack([column.take(slice(0, SAMPLE)).astype(np.float64) for column in columns], 1)
        if not len(sample):
            raise DecodeError("the recording contains no events")
        order = find_order(sample)
        self.note(f"columns without names read as {', '.join(order)}")
        found = dict(zip(order, columns, strict=True))
        unit = find_time_unit(found["t"].take(slice(0, SAMPLE)))
        if unit is not None:
            self.note(f"times read as {UNIT_NAMES[unit]}")
            self.time_unit, self.guessed_unit = MICROSECOND, unit
            found["t"] = ScaledTimes(found["t"], unit)
        self.found = {key: found[key] for key in "xytp"}


def _column_blocks(column: Column) -> Iterator[np.ndarray]:
    """Yield the values of a column in blocks of BLOCK_EVENTS."""
    if isinstance(column, PackedColumn):
        yield from column.blocks()
        return
    events = column.shape[0]
    for first in range(0, events, BLOCK_EVENTS):
        yield column.take(slice(first, min(first + BLOCK_EVENTS, events)))


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


def data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the offset of an uncompressed member: after its local header, which has a variable length."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack("<HH", header[26:])
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)


class PackedColumn:
    """Compressed array of an archive, decompressed as a whole for random access, or in blocks.

    Args:
        path: The archive.
        info: Member of the archive.
        array: Header of the array, which has one dimension.
    """

    def __init__(self, path: Path, info: zipfile.ZipInfo, array: StoredArray) -> None:
        self.path, self.info, self.array = path, info, array
        self._values: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the column."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.array.dtype

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return a copy of the values of some events; DecodeError if the archive is damaged."""
        if self._values is None:
            with guarded(self.path), zipfile.ZipFile(self.path) as file, file.open(self.info) as stream:
                self._values = StoredArray(stream, self.info.filename).unpacked(stream)[""]
        return np.array(self._values[rows])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the values in blocks of BLOCK_EVENTS."""
        if self._values is not None:
            yield from _column_blocks(UnpackedColumn(self._values))
            return
        with zipfile.ZipFile(self.path) as file, file.open(self.info) as stream:
            StoredArray(stream, self.info.filename)  # skips the header
            events = self.shape[0]
            for first in range(0, events, BLOCK_EVENTS):
                count = min(BLOCK_EVENTS, events - first)
                data = stream.read(count * self.dtype.itemsize)
                if len(data) < count * self.dtype.itemsize:
                    raise DecodeError(f"the file ends before the last value of {self.info.filename}")
                yield np.frombuffer(data, self.dtype)


@EVENT_READER_REGISTRY.register(name="npy")
class NpyReader(ColumnsReader):
    """Reader of .npy files."""

    suffixes, label = (".npy",), "a .npy file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            array = StoredArray(file, "the array")
            columns = array.stored(path, array.header_size, path.stat().st_size)
        self._from_array(array, columns)
        check_columns(self.found)


@EVENT_READER_REGISTRY.register(name="npz")
class NpzReader(ColumnsReader):
    """Reader of .npz files."""

    suffixes, label = (".npz",), "a .npz file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with zipfile.ZipFile(path) as file:
            members = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
            if set(members) >= {POSITIVE, NEGATIVE}:
                self.found = self._by_polarity(file, members)
            elif len(members) == 1:
                self._single(file, next(iter(members.values())))
            else:
                self.found = self._named(file, members)
        check_columns(self.found)

    def columns(self) -> Mapping[str, Column]:
        """Return the columns of the file.

        Raises:
            DecodeError: If compressed columns are too large after decompression.
        """
        packed = [column for column in self.found.values() if isinstance(column, PackedColumn)]
        check_unpacked_size(sum(column.info.file_size for column in packed))
        check_count(max((column.shape[0] for column in packed), default=0))
        return self.found

    def _single(self, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        """Find the columns of the only array."""
        array, columns = self._member(file, info)
        if "" in columns:
            choose_columns([info.filename.removesuffix(".npy")])  # names the missing columns
        self._from_array(array, columns)

    def _named(self, file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> dict[str, Column]:
        found = {key: self._member(file, members[name])[1] for key, name in choose_columns(list(members)).items()}
        for key, columns in found.items():
            if any(not name.isdecimal() for name in columns if name):
                raise DecodeError(f"{key} contains records, not numbers")
            if "" not in columns:
                raise DecodeError(f"x, y, t and p must be one-dimensional and of equal length; {key} is a table")
        return {key: columns[""] for key, columns in found.items()}

    def _by_polarity(self, file: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> dict[str, Column]:
        """Join the tables of ON and OFF events, x, y, t each, in the order of their times.

        ES-ImageNet's times are the numbers 1 to 8 of the steps of its simulation.
        """
        parts = []
        for name, polarity in ((POSITIVE, 1), (NEGATIVE, 0)):
            columns = self._member(file, members[name])[1]
            if len(columns) != 3 or "0" not in columns:
                raise DecodeError(f"{name} has no columns x, y, t")
            x, y, t = (columns[str(number)].take(slice(None)) for number in range(3))
            parts.append((x, y, t, np.full(len(t), polarity, np.uint8)))
        joined = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
        order = np.argsort(joined[2], kind="stable")
        self.note("times are the steps of ES-ImageNet's simulation")
        return {key: UnpackedColumn(values[order]) for key, values in zip("xytp", joined, strict=True)}

    def _member(self, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[StoredArray, Mapping[str, Column]]:
        """Open an array of the archive."""
        with file.open(info) as stream:
            array = StoredArray(stream, info.filename)
            if array.header_size + array.size != info.file_size:
                raise DecodeError(f"{info.filename} is damaged: its header does not match its size")
            if info.compress_type != zipfile.ZIP_STORED:
                if array.dtype.names is None and len(array.shape) == 1:
                    return array, {"": PackedColumn(self.path, info, array)}
                check_unpacked_size(info.file_size)
                check_count(max(array.shape, default=0))
                return array, {name: UnpackedColumn(values) for name, values in array.unpacked(stream).items()}
        offset = data_offset(self.path, info) + array.header_size
        return array, array.stored(self.path, offset, self.path.stat().st_size)
