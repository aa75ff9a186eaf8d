"""HDF5 files: Metavision (Prophesee), DSEC, MVSEC, M3ED, TUM-VIE, RPG's simulators and SHD.

Events are found anywhere in the file by their layout:

* groups with four arrays x, y, t, p (DSEC, TUM-VIE, M3ED, RPG);
* arrays of records with these fields (Metavision's CD/events);
* arrays named events with four columns (MVSEC, v2e);
* spikes/times, spikes/units and labels (SHD, SSC; see shd.py): each sample becomes a stream.

DSEC's t_offset is added to the times. Rectification maps are not applied.

Notation: n events of a stream.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    Sensor,
    StreamInfo,
)
from slowfast.datasets.dvs.formats.columns import (
    SAMPLE,
    UNIT_NAMES,
    Column,
    Polarities,
    ScaledTimes,
    check_columns,
    check_numeric,
    choose_columns,
    find_order,
    find_time_unit,
    finite_times,
    whole_pixels,
)
from slowfast.datasets.dvs.formats.shd import find_samples, has_samples
from slowfast.utils.imports import import_extra

MAGIC = b"\x89HDF\r\n\x1a\n"
_CHUNK = 2**15  # number of events read around a single event
_ECF = 0x8ECF
# Registered filters that event recordings use, and where to get them.
FILTERS = {
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
    _ECF: "ECF",
}
_INSTALL = "Run pip install hdf5plugin"
_INSTALL_ECF = "Install Prophesee's plugin (hdf5_ecf) and set HDF5_PLUGIN_PATH to its folder"
# Sensors of datasets whose files do not state them.
MVSEC_SENSOR, DSEC_SENSOR = (260, 346), (480, 640)


@dataclass(frozen=True)
class _Found:
    """Events of one sensor in a file."""

    columns: Mapping[str, Column]
    info: StreamInfo
    offset: int = 0  # microseconds added to the times
    unit: float | None = None  # seconds per tick; None for microseconds


@EVENT_READER_REGISTRY.register(name="hdf5")
class Hdf5Reader(EventReader):
    """Reader of HDF5 files."""

    suffixes, label = (".h5", ".hdf5", ".hdf"), "an HDF5 file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        h5py = import_extra("h5py", "events", "HDF5")
        _register_filters()
        self.file = h5py.File(path, "r")
        if has_samples(self.file):
            self.found = [_Found(columns, info) for columns, info in find_samples(self.file)]
        else:
            self.found = self._events()
        if not self.found:
            raise DecodeError(
                f"no events found, only {', '.join(_arrays(self.file)[:8]) or 'no arrays'}. Expected x, y, t and p in "
                "a group, as fields of an array, or as columns of an array named events"
            )

    @classmethod
    def accepts(cls, path: Path, head: bytes) -> bool:
        """Return whether the file is an HDF5 file."""
        return head.startswith(MAGIC)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Streams in the order of their names."""
        return [found.info for found in self.found]

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Read the rows of a stream."""
        found, polarities = self.found[stream], Polarities()
        count = found.columns["t"].shape[0]
        for first in range(0, count, BLOCK_EVENTS):
            rows = slice(first, min(first + BLOCK_EVENTS, count))
            x, y, t, p = (found.columns[key].take(rows) for key in "xytp")
            yield EventBlock(finite_times(t), whole_pixels(x, "x"), whole_pixels(y, "y"), polarities(p))

    def columns(self) -> Mapping[str, Column] | None:
        """Return the columns of the only stream; None if there are several."""
        return self.found[0].columns if len(self.found) == 1 else None

    def _events(self) -> list[_Found]:
        """Find the events of all sensors."""
        found: list[tuple[str, Mapping[str, Column]]] = []

        def visit(name: str, item: Any) -> None:
            columns = self._group(item) if hasattr(item, "keys") else self._array(name, item)
            if columns is not None:
                found.append((name, columns))

        visit("", self.file)
        self.file.visititems(visit)
        names = _short_names([name for name, _ in found])
        return [
            self._found(name, short if len(found) > 1 else "", columns)
            for (name, columns), short in zip(found, names, strict=True)
        ]

    def _group(self, group: Any) -> Mapping[str, Column] | None:
        """Return the columns of a group that has x, y, t and p."""
        arrays = [name for name in group if hasattr(group.get(name), "shape")]
        try:
            chosen = choose_columns(arrays)
        except DecodeError:
            return None
        return {key: H5Column(group[name]) for key, name in chosen.items()}

    def _array(self, name: str, array: Any) -> Mapping[str, Column] | None:
        """Return the columns of an array of records or, if it is named events, of four columns."""
        if array.dtype.names is not None:
            try:
                chosen = choose_columns(array.dtype.names)
            except DecodeError:
                return None
            return {key: H5Column(array, field=field) for key, field in chosen.items()} if array.ndim == 1 else None
        if not name.rpartition("/")[2].lower().startswith("event") or array.ndim != 2 or 4 not in array.shape:
            return None
        check_numeric(name, array.dtype)
        axis = 1 if array.shape[1] == 4 else 0
        columns = [H5Column(array, number=number, axis=axis) for number in range(4)]
        sample = np.stack([column.take(slice(0, SAMPLE)).astype(np.float64) for column in columns], 1)
        order = find_order(sample) if len(sample) else "xytp"
        self.note(f"{name}: columns without names read as {', '.join(order)}")
        return dict(zip(order, columns, strict=True))

    def _found(self, name: str, short: str, columns: Mapping[str, Column]) -> _Found:
        """Add the unit of the times, the offset, and the sensor size to the columns that were found."""
        check_columns(columns)
        offset = self._offset(name)
        times = columns["t"].take(slice(0, SAMPLE))
        unit = find_time_unit(times)
        if unit is not None:
            self.note(f"times read as {UNIT_NAMES[unit]}")
            self.guessed_unit = unit
        if offset:
            self.note("t_offset added to the times")
        if unit is not None or offset:
            columns = {**columns, "t": ScaledTimes(columns["t"], unit, offset)}
        return _Found(columns, StreamInfo(short, self._sensor(name)))

    def _offset(self, name: str) -> int:
        """Return DSEC's offset of the times in microseconds."""
        parent = self.file[name].parent if name else self.file
        for place in (parent, self.file):
            if "t_offset" in place and place["t_offset"].shape == ():
                return int(place["t_offset"][()])
        return 0

    def _sensor(self, name: str) -> Sensor | None:
        """Return the sensor height and width from attributes, the calibration or the dataset's layout."""
        place = self.file[name] if name else self.file
        while True:
            sensor = _stated_sensor(place)
            if sensor is not None:
                return sensor
            if place.name == "/":
                break
            place = place.parent
        if name.startswith("davis/"):
            return MVSEC_SENSOR
        if "t_offset" in self.file and "ms_to_idx" in self.file:
            return DSEC_SENSOR
        return None


class H5Column:
    """Column of an HDF5 array.

    Args:
        array: The array.
        field: Field of its records, if any.
        number: Number of the column of a table, if it is one.
        axis: Axis of the table along which the columns are.
    """

    def __init__(self, array: Any, field: str | None = None, number: int | None = None, axis: int = 1) -> None:
        self.array, self.field, self.number, self.axis = array, field, number, axis
        self._last: tuple[int, np.ndarray] | None = None  # chunk that was read last

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the column."""
        shape: tuple[int, ...] = self.array.shape
        return shape if self.number is None else (shape[1 - self.axis],)

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        kind: np.dtype = self.array.dtype
        return kind if self.field is None else kind[self.field]

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Read the values of some events: those of a slice, or the chunks around single events."""
        if isinstance(rows, slice):
            first, last, step = rows.indices(self.shape[0])
            return self._range(first, max(first, last))[::step]
        rows = np.where(rows < 0, rows + self.shape[0], rows)
        values = np.empty(len(rows), self.dtype)
        chunk = rows // _CHUNK
        for number in np.unique(chunk):
            mine = chunk == number
            first = int(number) * _CHUNK + int((rows[mine] % _CHUNK).min())
            values[mine] = self._range(first, int(rows[mine].max()) + 1)[rows[mine] - first]
        return values

    def _range(self, first: int, last: int) -> np.ndarray:
        try:
            if self.number is not None:
                table = self.array[first:last, self.number] if self.axis == 1 else self.array[self.number, first:last]
                return np.asarray(table)
            source = self.array if self.field is None else self.array.fields(self.field)
            return np.asarray(source[first:last])
        except OSError as error:
            raise DecodeError(_why_not_read(self.array, error)) from error


def _why_not_read(array: Any, error: OSError) -> str:
    """Return the reason why an array cannot be read: a missing compression filter, or the message of HDF5."""
    import h5py

    properties = array.id.get_create_plist()
    for position in range(properties.get_nfilters()):
        number, _, _, name = properties.get_filter(position)
        if not h5py.h5z.filter_avail(number):
            known = FILTERS.get(number) or name.decode("latin-1") or "an unknown filter"
            return (
                f"compressed with {known} (HDF5 filter {number}), which is not installed. "
                f"{_INSTALL_ECF if number == _ECF else _INSTALL}"
            )
    return f"{array.name} cannot be read: {error}"


def _register_filters() -> None:
    """Register the filters of hdf5plugin with HDF5, if it is installed."""
    try:
        importlib.import_module("hdf5plugin")
    except ImportError:
        pass


def _arrays(file: Any) -> list[str]:
    """Return the names of the arrays of a file."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def _short_names(names: Sequence[str]) -> list[str]:
    """Return names for files: the paths without their common parts, joined by underscores."""
    parts = [name.split("/") for name in names]
    common = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    return ["_".join(part for part in path if part not in common) or f"stream{i}" for i, path in enumerate(parts)]


def _stated_sensor(place: Any) -> Sensor | None:
    """Return the sensor height and width from the attributes or the calibration of a group."""
    attributes = place.attrs
    geometry = attributes.get("geometry")
    if geometry is not None:
        text = geometry.decode() if isinstance(geometry, bytes) else str(geometry)
        sides = text.split("x")
        if len(sides) == 2 and all(side.isdecimal() for side in sides):
            return int(sides[1]), int(sides[0])
    resolution = attributes.get("sensor_resolution")  # height first
    if resolution is not None and np.size(resolution) >= 2:
        return int(np.ravel(resolution)[0]), int(np.ravel(resolution)[1])
    if "width" in attributes and "height" in attributes:
        return int(attributes["height"]), int(attributes["width"])
    if hasattr(place, "keys") and "calib/resolution" in place:  # width first
        width, height = (int(value) for value in np.ravel(place["calib/resolution"][()])[:2])
        return height, width
    return None
