"""Columns of events: access to their values, and what the values mean in columns with and without names.

Notation: n events of a recording, k columns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

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
_SHOWN = 12  # maximum number of array names in a message
MILLISECOND, SECOND, NANOSECOND = 1e-3, 1.0, 1e-9
UNIT_NAMES = {MILLISECOND: "milliseconds", SECOND: "seconds", NANOSECOND: "nanoseconds"}
# Column orders used by public datasets and programs, the most common one first.
ORDERS = ("txyp", "xytp", "xypt", "pxyt", "ptxy", "pyxt", "tpxy")
SAMPLE = 2**14  # number of events used to infer order and unit
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


def check_columns(columns: Mapping[str, Column]) -> None:
    """Raise DecodeError unless columns are numeric, one-dimensional and of equal length."""
    for key, column in columns.items():
        check_numeric(key, column.dtype)
    lengths = {key: column.shape for key, column in columns.items()}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
        raise DecodeError(f"x, y, t and p must be one-dimensional and of equal length, not {lengths}")


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
        for order in ORDERS
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


class Polarities:
    """Mapping of polarities {0, 1}, {False, True} or {-1, 1} to {0, 1}, block by block; others are rejected."""

    def __init__(self) -> None:
        self._zero = self._negative = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map the next values (n,) to uint8 (n,).

        Raises:
            DecodeError: If there are other values, or both 0 and -1.
        """
        if values.dtype == np.bool_:
            return values.view(np.uint8)
        on, zero = values == 1, values == 0
        others = ~(on | zero)
        if others.any():
            negative = values == -1 if values.dtype.kind in "if" else np.zeros(len(values), np.bool_)
            wrong = others & ~negative
            if wrong.any():
                raise DecodeError(f"p contains {values[wrong][0]}; polarities are 0 and 1, or -1 and 1")
            self._negative = True
        self._zero = self._zero or bool(zero.any())
        if self._zero and self._negative:
            raise DecodeError("p contains -1, 0 and 1, which is ambiguous; polarities are 0 and 1, or -1 and 1")
        return on.view(np.uint8)


def whole_pixels(values: np.ndarray, name: str) -> np.ndarray:
    """Return coordinates as integers.

    Raises:
        DecodeError: If a value is not an integer.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind != "f":
        return values
    valid = np.isfinite(values) & (values == np.rint(values)) & (np.abs(values) < 2**31)
    if not valid.all():
        raise DecodeError(f"{name} contains values that are not pixels, such as {values[~valid][0]}")
    return values.astype(np.int32)
