"""Streams of events cut into windows by time or by count.

n events of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from slowfast.datasets.dvs.sample import EventColumns


def windows_by_count(stream: Iterable[EventColumns], count: int, step: int | None = None) -> Iterator[EventColumns]:
    """Windows of `count` events, one every `step` events (default: count), as soon as they are whole.

    What is left over at the stream's end is too short for a window. Raises ValueError for numbers below 1.
    """
    step = count if step is None else step
    if count < 1 or step < 1:
        raise ValueError(f"a window of {count} events every {step}: both must be at least 1")
    kept: EventColumns | None = None
    skipped = 0  # events still to leave out, where windows lie apart
    for events in stream:
        kept = events if kept is None else _follow(kept, events)
        while True:
            leave = min(skipped, len(kept))
            kept, skipped = kept.take(np.arange(leave, len(kept))), skipped - leave
            if skipped or len(kept) < count:
                break
            yield kept.take(np.arange(count))
            skipped = step


def windows_by_time(
    stream: Iterable[EventColumns], duration: float, step: float | None = None
) -> Iterator[EventColumns]:
    """Windows of `duration` microseconds from the first event on, one every `step` (default: duration).

    A window is given as soon as an event after it has come, the last ones when the stream ends; empty windows are left
    out. Raises ValueError for durations that are not above 0, and where the stream goes back in time.
    """
    step = duration if step is None else step
    if duration <= 0 or step <= 0:
        raise ValueError(f"windows of {duration} microseconds every {step}: both must be above 0")
    kept: EventColumns | None = None
    start = 0.0
    for events in stream:
        if not len(events):
            continue
        if (np.diff(events.t) < 0).any():
            raise ValueError("the stream goes back in time inside one of its parts")
        if kept is None:
            start = float(events.t[0])
        kept = events if kept is None else _follow(kept, events)
        while kept.t[-1] >= start + duration:
            yield from _between(kept, start, start + duration)
            start = _next_start(kept.t, start, duration, step)
        if over := int(np.searchsorted(kept.t, start)):
            kept = kept.take(np.arange(min(over, len(kept) - 1), len(kept)))
    while kept is not None and len(kept) and kept.t[-1] >= start:
        yield from _between(kept, start, start + duration)
        start = _next_start(kept.t, start, duration, step)


def _next_start(times: np.ndarray, start: float, duration: float, step: float) -> float:
    """Where the next window begins that an event after this one's start can be in: (n,) times, ascending."""
    start += step
    first = int(np.searchsorted(times, start))
    ahead = float(times[first]) - start - duration if first < len(times) else -1.0
    return start + math.floor(ahead / step) * step if ahead >= step else start


def _between(events: EventColumns, start: float, end: float) -> Iterator[EventColumns]:
    first, last = np.searchsorted(events.t, (start, end))
    if first < last:
        yield events.take(np.arange(first, last))


def _follow(before: EventColumns, after: EventColumns) -> EventColumns:
    """Both parts of a stream; ValueError where the second goes back in time."""
    if len(before) and len(after) and after.t[0] < before.t[-1]:
        raise ValueError(f"the stream goes back in time, from {before.t[-1]:.0f} to {after.t[0]:.0f} microseconds")
    return EventColumns(*(np.concatenate((getattr(before, key), getattr(after, key))) for key in "xytp"))
