"""Recordings in NumPy's files.

* ``.npz``: arrays ``x``, ``y``, ``t``, ``p``, one structured array, or one table of four columns; uncompressed arrays
  are read directly. ES-ImageNet (Lin et al. 2021): ``pos`` and ``neg``, each with the columns x, y, t.
* ``.npy``: one structured array with the fields ``x``, ``y``, ``t``, ``p``, or a table of four columns, such as
  tonic's files of DVS Gesture.

Notation: n events of a recording.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.columns import Column, UnpackedColumn
from slowfast.datasets.dvs.formats import base
from slowfast.datasets.dvs.formats.arrays import (
    NEEDED,
    StoredArray,
    check_numeric,
    choose_columns,
    data_offset,
)
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    Polarities,
    guarded,
    whole_pixels,
)
from slowfast.datasets.dvs.formats.unnamed import UNIT_NAMES, find_order, find_time_unit, to_microseconds

POSITIVE, NEGATIVE = "pos", "neg"  # arrays of ES-ImageNet
_SAMPLE = 2**14  # number of events used to infer order and unit


class ColumnsReader(EventReader):
    """Reader of a file with four columns of equal length.

    Attributes:
        found: The columns x, y, t, p of the file.
    """

    time_unit = None
    found: Mapping[str, Column]

    def _check(self) -> None:
        """Raise DecodeError unless the columns are numeric and of equal length."""
        for key, column in self.found.items():
            check_numeric(key, column.dtype)
        lengths = {key: column.shape for key, column in self.found.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            raise DecodeError(f"x, y, t and p must be one-dimensional and of equal length, not {lengths}")

    def columns(self) -> Mapping[str, Column]:
        """Return the columns of the file."""
        return self.found

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Yield the rows of the columns."""
        polarities = Polarities()
        for x, y, t, p in zip(*(_column_blocks(self.found[key]) for key in "xytp"), strict=True):
            yield EventBlock(finite_times(t), whole_pixels(x, "x"), whole_pixels(y, "y"), polarities(p))

    def _from_table(self, table: Mapping[str, Column]) -> None:
        """Infer the meaning of four unnamed columns, and the unit of the times."""
        if len(table) != 4:
            raise DecodeError(f"a table of {len(table)} columns without names. {NEEDED}")
        for name, column in table.items():
            check_numeric(f"column {name}", column.dtype)
        columns = list(table.values())
        sample = np.stack([column.take(slice(0, _SAMPLE)).astype(np.float64) for column in columns], 1)
        if not len(sample):
            raise DecodeError("the recording contains no events")
        order = find_order(sample)
        self.note(f"columns without names read as {', '.join(order)}")
        found = dict(zip(order, columns, strict=True))
        unit = find_time_unit(found["t"].take(slice(0, _SAMPLE)))
        if unit is not None:
            self.note(f"times read as {UNIT_NAMES[unit]}")
            self.time_unit, self.guessed_unit = base.MICROSECOND, unit
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


class ScaledTimes:
    """Column of times, converted to microseconds.

    Args:
        times: Column of the file.
        unit: Seconds per tick; None for microseconds.
        offset: Microseconds added to the times.
    """

    def __init__(self, times: Column, unit: float | None, offset: int = 0) -> None:
        self.times, self.unit, self.offset = times, unit, offset

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the column."""
        return self.times.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return np.dtype(np.int64 if self.unit is None else np.float64)

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Read the times of some events."""
        t = self.times.take(rows)
        return (finite_times(t) if self.unit is None else to_microseconds(t, self.unit)) + self.offset


def finite_times(values: np.ndarray) -> np.ndarray:
    """Return times as int64 or float64.

    Raises:
        DecodeError: If one is not finite.
    """
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    if not np.isfinite(values).all():
        raise DecodeError("t contains values that are not finite")
    return values.astype(np.float64)


@EVENT_READER_REGISTRY.register(name="npy")
class NpyReader(ColumnsReader):
    """Reader of .npy files."""

    suffixes, label = (".npy",), "a .npy file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            array = StoredArray(file, "the array")
            columns = array.stored(path, array.header_size, path.stat().st_size)
        if array.dtype.names is not None:
            self.found = {key: columns[name] for key, name in choose_columns(array.dtype.names).items()}
        elif "" in columns:
            raise DecodeError(f"an array {array.shape} of {array.dtype} has no named columns. {NEEDED}")
        else:
            self._from_table(columns)
        self._check()


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
        self._check()

    def columns(self) -> Mapping[str, Column]:
        """Return the columns of the file.

        Raises:
            DecodeError: If compressed columns are too large after decompression.
        """
        packed = [column for column in self.found.values() if isinstance(column, PackedColumn)]
        _check_unpacked([column.info for column in packed])
        base.check_count(max((column.shape[0] for column in packed), default=0))
        return self.found

    def _single(self, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        """Find the columns of the only array."""
        array, columns = self._member(file, info)
        if array.dtype.names is not None:
            self.found = {key: columns[name] for key, name in choose_columns(array.dtype.names).items()}
        elif "" in columns:
            choose_columns([info.filename.removesuffix(".npy")])
        else:
            self._from_table(columns)

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
                _check_unpacked([info])
                base.check_count(max(array.shape, default=0))
                return array, {name: UnpackedColumn(values) for name, values in array.unpacked(stream).items()}
        offset = data_offset(self.path, info) + array.header_size
        return array, array.stored(self.path, offset, self.path.stat().st_size)


def _check_unpacked(members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise DecodeError if compressed members are too large after decompression."""
    size = sum(info.file_size for info in members if info.compress_type != zipfile.ZIP_STORED)
    if size > base.MAX_BYTES:
        raise DecodeError(
            f"{size / 2**30:.1f} GiB after decompression exceed the limit of {base.MAX_BYTES / 2**30:g} GiB"
        )
