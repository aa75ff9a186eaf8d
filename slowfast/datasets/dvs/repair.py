"""Columns as they lie in a file to events: checked, and repaired where the meaning is certain.

n events.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.sample import EventColumns

# Stray events off the sensor are left out; more than this share of them means another sensor.
MAX_STRAY = 0.1
# What was repaired.
STRAY = "events off the sensor are left out"
UNSORTED = "events are put in the order of their times"
OVERFLOW = "the time counter's overflow is undone"
REPAIRS = (STRAY, UNSORTED, OVERFLOW)
# Ranges of counters that overflow.
_COUNTERS = (2**31, 2**32)

Raw = Mapping[str, np.ndarray]
Size = tuple[int, int]  # height, width


def as_events(raw: Raw, sensor: Size, time_unit: float) -> EventColumns | None:
    """The events, where nothing has to be repaired; else None. time_unit: seconds.

    Raises DecodeError for values that mean nothing.
    """
    x, y, t, p = _whole(raw["x"], "x"), _whole(raw["y"], "y"), _times(raw["t"]), _polarities(raw["p"])
    if _off(x, y, sensor).any() or (np.diff(t) < 0).any():
        return None
    return EventColumns(x, y, t * (time_unit / 1e-6), p)


def repair(raw: Raw, sensor: Size, time_unit: float) -> tuple[EventColumns, list[str]]:
    """All events of a recording and what was done to them, of REPAIRS. Raises DecodeError where that is not certain."""
    x, y, t, p = _whole(raw["x"], "x"), _whole(raw["y"], "y"), _times(raw["t"]), _polarities(raw["p"])
    done = []
    off = _off(x, y, sensor)
    if off.mean() > MAX_STRAY:
        raise DecodeError(
            f"{off.sum()} of {len(off)} events lie off the sensor of {sensor[0]} x {sensor[1]} pixels (x up to "
            f"{x.max()}, y up to {y.max()}); is DVS.SENSOR_SIZE right?"
        )
    if off.any():
        x, y, t, p = (column[~off] for column in (x, y, t, p))
        done.append(STRAY)
    unwrapped = undo_overflow(t)
    if unwrapped is not None:
        t = unwrapped
        done.append(OVERFLOW)
    events = EventColumns(x, y, t * (time_unit / 1e-6), p)
    if (np.diff(t) < 0).any():
        events = events.at(events.t)
        done.append(UNSORTED)
    return events, done


def whole(raw: Raw, sensor: Size, time_unit: float) -> tuple[EventColumns, list[str]]:
    """All events of a recording, repaired where they have to be, and what was done. Raises DecodeError."""
    events = as_events(raw, sensor, time_unit)
    return repair(raw, sensor, time_unit) if events is None else (events, [])


def undo_overflow(t: np.ndarray) -> np.ndarray | None:
    """Times of a counter that began anew, going on; None where it did not.

    A step back by more than half a counter's range is its overflow: no disorder of a sensor's events is so large.
    """
    back = np.diff(t) < -_COUNTERS[0] / 2
    if not back.any():
        return None
    counter = _COUNTERS[0] if t.min() >= 0 and t.max() < _COUNTERS[0] else _COUNTERS[1]
    forth = np.diff(t) > counter / 2  # an event of before, after the first of the new range
    turns = np.concatenate(([0], np.cumsum(back.astype(np.int64) - forth.astype(np.int64))))
    return t + turns * float(counter)


def _off(x: np.ndarray, y: np.ndarray, sensor: Size) -> np.ndarray:
    return (x < 0) | (y < 0) | (x >= sensor[1]) | (y >= sensor[0])


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind == "f" and not (pixels := np.isfinite(values) & (values == np.rint(values))).all():
        raise DecodeError(f"{name} holds values that are no pixels, such as {values[~pixels][0]}")
    return values.astype(np.int64)


def _times(values: np.ndarray) -> np.ndarray:
    times = values.astype(np.float64)
    if not np.isfinite(times).all():
        raise DecodeError("t holds values that are no times")
    return times


def _polarities(values: np.ndarray) -> np.ndarray:
    """0 and 1, out of these, of False and True, or of -1 and 1."""
    known = (values == 0) | (values == 1) | ((values == -1) if values.dtype.kind in "if" else False)
    if not known.all():
        raise DecodeError(f"p holds {values[~known][0]}: polarities are 0 and 1, or -1 and 1")
    if values.dtype.kind in "if" and (values == -1).any() and (values == 0).any():
        raise DecodeError("p holds -1, 0 and 1: which of them are polarities is not certain")
    return (values == 1).astype(np.int64)
