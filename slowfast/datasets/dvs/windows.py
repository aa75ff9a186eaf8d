"""Windows of event streams by time or by count; the cost per event does not depend on the length of the windows.

Notation: n events of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from slowfast.datasets.dvs.event_buffer import EventBuffer, count_before
from slowfast.datasets.dvs.sample import EventColumns


def windows_by_count(stream: Iterable[EventColumns], count: int, step: int | None = None) -> Iterator[EventColumns]:
    """Yield windows of a fixed number of events as soon as they are complete; an incomplete last window is dropped.

    Args:
        stream: Parts of the stream in ascending order of time.
        count: Number of events per window.
        step: Number of events from one window to the next (default: `count`).

    Raises:
        ValueError: If a number is less than 1 or the stream is out of order.
    """
    step = count if step is None else step
    if count < 1 or step < 1:
        raise ValueError(f"count ({count}) and step ({step}) of the windows must be at least 1")
    kept = EventBuffer()
    skipped = 0  # events to skip if there are gaps between windows
    for events in stream:
        kept.append(events)
        while True:
            leave = min(skipped, len(kept))
            kept.discard(leave)
            skipped -= leave
            if skipped or len(kept) < count:
                break
            yield kept.view(0, count)
            skipped = step


def windows_by_time(
    stream: Iterable[EventColumns], duration: float, step: float | None = None
) -> Iterator[EventColumns]:
    """Yield windows of a fixed duration, starting at the first event.

    A window is yielded once an event after it has arrived, the last ones at the end of the stream. Empty windows are
    skipped.

    Args:
        stream: Parts of the stream in ascending order of time.
        duration: Duration of a window in microseconds.
        step: Time from one window to the next in microseconds (default: `duration`).

    Raises:
        ValueError: If a duration is not positive or the stream is out of order.
    """
    step = duration if step is None else step
    if duration <= 0 or step <= 0:
        raise ValueError(f"duration ({duration}) and step ({step}) of the windows must be positive")
    kept = EventBuffer()
    start: float | None = None
    for events in stream:
        kept.append(events)
        if not len(kept):
            continue
        start = float(kept.t[0]) if start is None else start
        while kept.t[-1] >= start + duration:
            yield from _between(kept, start, start + duration)
            start = _next_start(kept.t, start, duration, step)
        # The last event shows when a gap between windows ends.
        kept.discard(min(kept.before(start), len(kept) - 1))
    while start is not None and kept.t[-1] >= start:
        yield from _between(kept, start, start + duration)
        start = _next_start(kept.t, start, duration, step)


def _next_start(times: np.ndarray, start: float, duration: float, step: float) -> float:
    """Return the start of the next window that is not empty, for ascending times (n,)."""
    start += step
    first = count_before(times, start)
    ahead = float(times[first]) - start - duration if first < len(times) else -1.0
    return start + math.floor(ahead / step) * step if ahead >= step else start


def _between(events: EventBuffer, start: float, end: float) -> Iterator[EventColumns]:
    first, last = events.before(start), events.before(end)
    if first < last:
        yield events.view(first, last)
