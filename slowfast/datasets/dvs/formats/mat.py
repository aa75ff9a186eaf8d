"""MATLAB files (up to version 7.2) of ASL-DVS (Bi et al. 2019), ST-MNIST (See et al. 2020), and of TD structures.

* ASL-DVS: variables ``x``, ``y``, ``ts`` (microseconds) and ``pol``.
* ST-MNIST: ``spiketrain`` of 100 taxels and the time in seconds, one row each.
* ``TD``: a structure of ``x``, ``y``, ``p``, ``ts`` as the MATLAB programs for ATIS and N-MNIST use it: coordinates
  count from 1, polarities are 1 (OFF) and 2 (ON).

Notation: n events of a recording, s samples in time.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
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
    check_count,
)
from slowfast.datasets.dvs.formats.columns import UnpackedColumn
from slowfast.utils.imports import import_extra

ASL_SENSOR, ASL_KEYS = (180, 240), ("x", "y", "ts", "pol")
ST_SENSOR, ST_KEY = (10, 10), "spiketrain"
TD_KEY, TD_FIELDS = "TD", ("x", "y", "ts", "p")
# Byte orders by the version and the mark at the end of the header of versions 5 to 7.2, and the types of elements.
_BYTE_ORDERS = {b"\0\1IM": "<", b"\1\0MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_ELEMENT_TYPES = frozenset({*range(1, 8), 9, 12, 13, _MATRIX, _COMPRESSED, 16, 17, 18})
MAX_MAT_BYTES = 2**31  # maximum size of a file, which is read at once


@EVENT_READER_REGISTRY.register(name="mat")
class MatReader(EventReader):
    """Reader of .mat files, which are read at once."""

    suffixes, label = (".mat",), "a .mat file"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        size = path.stat().st_size
        if size > MAX_MAT_BYTES:
            raise DecodeError(f"the size of {size / 2**30:.1f} GiB exceeds the limit of {MAX_MAT_BYTES / 2**30:g} GiB")
        self.events, self.sensor = _read(path)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The only stream."""
        return (StreamInfo(sensor=self.sensor),)

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Yield the events in blocks."""
        for first in range(0, len(self.events.t), BLOCK_EVENTS):
            yield EventBlock(*(column[first : first + BLOCK_EVENTS] for column in self.events))

    def columns(self) -> Mapping[str, UnpackedColumn]:
        """Return the columns in memory."""
        return {key: UnpackedColumn(getattr(self.events, key)) for key in "xytp"}


def _read(path: Path) -> tuple[EventBlock, Sensor | None]:
    """Read the events of a file of any of the layouts, and the size of the sensor.

    Raises:
        DecodeError: If it has none of them.
        UserError: If SciPy is not installed.
    """
    scipy_io = import_extra("scipy.io", "events", ".mat")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _check_elements(data)
    layouts: list[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], tuple[EventBlock, Sensor | None]]]]
    layouts = [((TD_KEY,), _td), ((ST_KEY,), _st_mnist), (ASL_KEYS, _asl_dvs)]
    try:
        # From the headers, without decompression.
        sizes = {name: prod(shape) for name, shape, _ in scipy_io.whosmat(path)}
        keys, parse = next((layout for layout in layouts if layout[0][0] in sizes), layouts[-1])
        check_count(max((sizes.get(key, 0) for key in keys), default=0))
        content = scipy_io.loadmat(path, variable_names=keys)
    except DecodeError:
        raise
    except NotImplementedError as error:  # HDF5
        raise DecodeError(
            "MATLAB 7.3 files (HDF5) are not supported. Load it in MATLAB and run "
            "save(name, 'x', 'y', 'ts', 'pol', '-v7')"
        ) from error
    except Exception as error:  # SciPy raises various errors for damaged files
        raise DecodeError(f"not a readable .mat file: {error}") from error
    return parse(content)


def _check_elements(data: mmap.mmap) -> None:
    """Raise DecodeError if a file of version 5 to 7.2 has elements of invalid type or size, at which SciPy crashes.

    Compressed elements have a checksum of their own, and files of version 4 no elements.
    """
    order = _BYTE_ORDERS.get(data[124:128])
    if order is None:
        return
    parts = [(128, len(data))]  # of elements, one after the other
    while parts:
        at, end = parts.pop()
        while at < end:
            if end - at < 8:
                raise DecodeError("not a readable .mat file: it ends within an element")
            kind, size = struct.unpack_from(f"{order}II", data, at)
            if kind >> 16:  # a small element: its size is in the upper half, its content in the tag
                kind, size, content = kind & 0xFFFF, kind >> 16, at + 4
                at += 8
            else:
                content = at + 8
                at = content + (size if kind == _COMPRESSED else -(-size // 8) * 8)
            if kind not in _ELEMENT_TYPES or content + size > end:
                raise DecodeError(f"not a readable .mat file: an element of type {kind} and {size} bytes")
            if kind == _MATRIX:
                parts.append((content, content + size))


def _asl_dvs(content: Mapping[str, Any]) -> tuple[EventBlock, Sensor]:
    """Return the events of ASL-DVS.

    The recordings of the dataset are rotated by 180 degrees. They are rotated back (x' = 239 - x, y' = 179 - y), as in
    SpikingJelly's conversion, on which the published Event2Vec weights were trained.
    """
    missing = [key for key in ASL_KEYS if key not in content]
    if missing:
        raise DecodeError(
            f"missing {', '.join(missing)}. Expected a file of ASL-DVS with {', '.join(ASL_KEYS)}, of ST-MNIST with "
            f"{ST_KEY}, or with a structure {TD_KEY}"
        )
    x, y, t, p = _columns({key: content[key] for key in ASL_KEYS})
    height, width = ASL_SENSOR
    columns, rows = width - 1 - _pixels(x, width, "x"), height - 1 - _pixels(y, height, "y")
    return EventBlock(t, columns.astype(np.uint16), rows.astype(np.uint16), (p > 0).view(np.uint8)), ASL_SENSOR


def _st_mnist(content: Mapping[str, Any]) -> tuple[EventBlock, Sensor]:
    """Return the events of ST-MNIST: a taxel k at a time is the pixel (k % 10, k // 10)."""
    values = np.asarray(content[ST_KEY])
    if values.ndim != 2 or values.shape[0] != prod(ST_SENSOR) + 1 or values.dtype.kind not in "iufb":
        raise DecodeError(f"{ST_KEY} must have {prod(ST_SENSOR) + 1} rows: 100 taxels and the time")
    sample, taxel = np.nonzero(values[:-1].T)
    times = values[-1].astype(np.float64)
    if not np.isfinite(times).all():
        raise DecodeError("the times contain values that are not finite")
    # Decimal fractions of a second are not exact in binary.
    t = np.floor(times * 1e6 + 1e-3).astype(np.int64)[sample]
    x, y = taxel % ST_SENSOR[1], taxel // ST_SENSOR[1]
    p = values[taxel, sample] > 0
    return EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), p.view(np.uint8)), ST_SENSOR


def _td(content: Mapping[str, Any]) -> tuple[EventBlock, None]:
    """Return the events of a TD structure."""
    structure = np.asarray(content[TD_KEY])
    names = structure.dtype.names or ()
    missing = [name for name in TD_FIELDS if name not in names]
    if missing or structure.size != 1:
        raise DecodeError(f"{TD_KEY} must be one structure of {', '.join(TD_FIELDS)}, not of {', '.join(names)}")
    x, y, t, p = _columns({name: structure[name].item() for name in TD_FIELDS})
    if len(t) and not (np.isin(p, (1, 2)).all() or np.isin(p, (-1, 1)).all() or np.isin(p, (0, 1)).all()):
        raise DecodeError(f"p of {TD_KEY} must contain 1 and 2, or -1 and 1, or 0 and 1")
    on = p == 2 if len(p) and p.max() == 2 or len(p) and p.min() == 1 else p == 1
    first = min(int(x.min(initial=1)), int(y.min(initial=1)), 1)  # 0 if coordinates count from 0
    columns, rows = _pixels(x - first, 2**16, "x"), _pixels(y - first, 2**16, "y")
    return EventBlock(t, columns.astype(np.uint16), rows.astype(np.uint16), on.view(np.uint8)), None


def _columns(content: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Return four columns of a file, flat, with finite times."""
    columns = [np.asarray(column).ravel() for column in content.values()]
    names = ", ".join(content)
    if len({len(column) for column in columns}) > 1 or any(column.dtype.kind not in "iufb" for column in columns):
        raise DecodeError(f"{names} must be numeric and of equal length")
    x, y, t, p = columns
    if not np.isfinite(t).all():
        raise DecodeError("ts contains values that are not finite")
    return x, y, t.astype(np.float64) if t.dtype.kind == "f" else t.astype(np.int64), p


def _pixels(values: np.ndarray, size: int, name: str) -> np.ndarray:
    """Return coordinates as int64. Raises DecodeError if any is outside the sensor."""
    wrong = values[~((values >= 0) & (values < size) & (values == np.rint(values)))]
    if len(wrong):
        raise DecodeError(f"{name} contains {wrong[0]}; expected integers from 0 to {size - 1}")
    return values.astype(np.int64)
