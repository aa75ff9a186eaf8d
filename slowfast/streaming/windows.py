"""Streams of events cut into windows by time or by count.

n events of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from slowfast.datasets.dvs.events import EventColumns


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
    out. Raises ValueError for durations that are not above 0.
    """
    step = duration if step is None else step
    if duration <= 0 or step <= 0:
        raise ValueError(f"windows of {duration} microseconds every {step}: both must be above 0")
    kept: EventColumns | None = None
    start = 0.0
    for events in stream:
        if not len(events):
            continue
        if kept is None:
            start = float(events.t[0])
        kept = events if kept is None else _follow(kept, events)
        while kept.t[-1] >= start + duration:
            yield from _between(kept, start, start + duration)
            start += step
            kept = kept.take(kept.t >= start) if (kept.t >= start).any() else kept.take(np.array([len(kept) - 1]))
    while kept is not None and len(kept) and kept.t[-1] >= start:
        yield from _between(kept, start, start + duration)
        start += step


def _between(events: EventColumns, start: float, end: float) -> Iterator[EventColumns]:
    inside = (events.t >= start) & (events.t < end)
    if inside.any():
        yield events.take(inside)


def _follow(before: EventColumns, after: EventColumns) -> EventColumns:
    """Both parts of a stream; ValueError where the second goes back in time."""
    if len(before) and len(after) and after.t[0] < before.t[-1]:
        raise ValueError(f"the stream goes back in time, from {before.t[-1]:.0f} to {after.t[0]:.0f} microseconds")
    return EventColumns(*(np.concatenate((getattr(before, key), getattr(after, key))) for key in "xytp"))
