"""Validation and repair of event columns.

Notation: n events of a recording.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.sample import EventColumns

# Events outside the sensor are dropped. A larger fraction means that the sensor size is wrong.
MAX_STRAY = 0.1
# Descriptions of the repairs.
STRAY = "dropped events outside of the sensor"
UNSORTED = "sorted events by time"
OVERFLOW = "unwrapped the overflow of the timestamps"
REPAIRS = (STRAY, UNSORTED, OVERFLOW)
# Ranges of timestamp counters that overflow.
COUNTERS = (2**31, 2**32)

Raw = Mapping[str, np.ndarray]
Size = tuple[int, int]  # height, width


def as_events(raw: Raw, sensor: Size, time_unit: float) -> EventColumns | None:
    """Validate raw event columns.

    Args:
        raw: Columns ``x``, ``y``, ``t``, ``p`` of shape (n,).
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.

    Returns:
        The events, or None if they have to be repaired.

    Raises:
        DecodeError: If a column contains invalid values.
    """
    x, y, t, p = _pixels(raw["x"], "x"), _pixels(raw["y"], "y"), _times(raw["t"]), _polarities(raw["p"])
    if _outside(x, y, sensor).any() or (np.diff(t) < 0).any():
        return None
    return EventColumns(x, y, t * (time_unit / 1e-6), p)


def repair(raw: Raw, sensor: Size, time_unit: float) -> tuple[EventColumns, list[str]]:
    """Validate raw event columns and repair unambiguous defects.

    Drops events outside of the sensor (at most MAX_STRAY), sorts unordered timestamps and unwraps 31- and 32-bit
    counter overflow.

    Args:
        raw: Columns ``x``, ``y``, ``t``, ``p`` of shape (n,), of a complete recording.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.

    Returns:
        The repaired events and a description of each repair, in REPAIRS.

    Raises:
        DecodeError: If a defect has no unambiguous repair.
    """
    x, y, t, p = _pixels(raw["x"], "x"), _pixels(raw["y"], "y"), _times(raw["t"]), _polarities(raw["p"])
    done = []
    outside = _outside(x, y, sensor)
    if outside.mean() > MAX_STRAY:
        raise DecodeError(
            f"{outside.sum()} of {len(outside)} events are outside of the sensor of {sensor[0]} x {sensor[1]} pixels "
            f"(x up to {x.max()}, y up to {y.max()}). Check DVS.SENSOR_SIZE"
        )
    if outside.any():
        x, y, t, p = (column[~outside] for column in (x, y, t, p))
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


def clean_events(raw: Raw, sensor: Size, time_unit: float) -> tuple[EventColumns, list[str]]:
    """Validate the raw columns of a complete recording and repair them if necessary; see :func:`repair`."""
    events = as_events(raw, sensor, time_unit)
    return repair(raw, sensor, time_unit) if events is None else (events, [])


def undo_overflow(t: np.ndarray) -> np.ndarray | None:
    """Unwrap the overflow of a timestamp counter.

    A step back by more than half of the counter's range is an overflow, because events are never that far out of order.

    Args:
        t: Timestamps (n,).

    Returns:
        Unwrapped timestamps, float64 (n,), or None if there is no overflow.
    """
    back = np.diff(t) < -COUNTERS[0] / 2
    if not back.any():
        return None
    counter = COUNTERS[0] if t.min() >= 0 and t.max() < COUNTERS[0] else COUNTERS[1]
    forth = np.diff(t) > counter / 2  # a late event from before the overflow
    overflows = np.concatenate(([0], np.cumsum(back.astype(np.int64) - forth.astype(np.int64))))
    return t + overflows * float(counter)


def _outside(x: np.ndarray, y: np.ndarray, sensor: Size) -> np.ndarray:
    return (x < 0) | (y < 0) | (x >= sensor[1]) | (y >= sensor[0])


def _pixels(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind == "f" and not (valid := np.isfinite(values) & (values == np.rint(values))).all():
        raise DecodeError(f"{name} contains values that are not pixels, such as {values[~valid][0]}")
    return values.astype(np.int64)


def _times(values: np.ndarray) -> np.ndarray:
    times = values.astype(np.float64)
    if not np.isfinite(times).all():
        raise DecodeError("t contains values that are not finite")
    return times


def _polarities(values: np.ndarray) -> np.ndarray:
    """Map {0, 1}, {False, True} or {-1, 1} to {0, 1}."""
    known = (values == 0) | (values == 1) | ((values == -1) if values.dtype.kind in "if" else False)
    if not known.all():
        raise DecodeError(f"p contains {values[~known][0]}; polarities are 0 and 1, or -1 and 1")
    if values.dtype.kind in "if" and (values == -1).any() and (values == 0).any():
        raise DecodeError("p contains -1, 0 and 1, which is ambiguous; polarities are 0 and 1, or -1 and 1")
    return (values == 1).astype(np.int64)
