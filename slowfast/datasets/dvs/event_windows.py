"""Windows of event streams, by time or by number of events.

The cost per event does not depend on the length of the windows. Windows of a recording start at its first event.
Windows of a live stream end when their time has passed, also without events: stream time is in microseconds since the
source was opened, and window k covers [k * step, k * step + length).

Notation: n events of a window or buffer.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from slowfast.datasets.dvs.sample import EventColumns

MAX_HELD = 2**24  # events of the latest windows in memory, about 220 MB; the oldest are dropped
_MIN_EVENTS = 2**12  # initial capacity of a buffer


def count_before(times: np.ndarray, time: float) -> int:
    """Return how many of ascending times (n,) are before a time."""
    # With a float, NumPy would convert all integers.
    return int(np.searchsorted(times, math.ceil(time) if times.dtype.kind in "iu" else time))


class EventBuffer:
    """Latest events of a stream, in ascending order of time.

    Events are appended at the end of arrays and forgotten from the front. When the arrays are full, the n events move
    to new ones with twice the room, so that each event is copied twice on average, whatever n is. The arrays are never
    written to twice: views stay valid, in other threads, too.
    """

    def __init__(self) -> None:
        self._columns: list[np.ndarray] = []  # x, y, t, p
        self._first = self._end = 0

    def __len__(self) -> int:
        return self._end - self._first

    @property
    def t(self) -> np.ndarray:
        """Times of the events, (n,)."""
        return self._columns[2][self._first : self._end] if self._columns else np.zeros(0)

    def append(self, events: EventColumns) -> None:
        """Append the next events.

        Raises:
            ValueError: If they are out of order.
        """
        count = len(events)
        if not count:
            return
        if (events.t[1:] < events.t[:-1]).any():
            raise ValueError("the stream is out of order: time decreases within a part")
        if len(self) and events.t[0] < self.t[-1]:
            raise ValueError(
                f"the stream is out of order: time decreases from {self.t[-1]:.0f} to {events.t[0]:.0f} microseconds"
            )
        given = [events.x, events.y, events.t, events.p]
        held = self._columns or [np.empty(0, values.dtype) for values in given]
        types = [np.promote_types(old.dtype, new.dtype) for old, new in zip(held, given, strict=True)]
        if self._end + count > len(held[0]) or types != [column.dtype for column in held]:
            self._move(2 * (len(self) + count), types)
        for column, values in zip(self._columns, given, strict=True):
            column[self._end : self._end + count] = values
        self._end += count

    def view(self, first: int, last: int) -> EventColumns:
        """Return the events from `first` to before `last`, counted from the oldest one, without a copy."""
        rows = slice(self._first + first, self._first + last)
        return EventColumns(*(column[rows] for column in self._columns or [np.zeros(0)] * 4))

    def before(self, time: float) -> int:
        """Return the number of events before a time."""
        return count_before(self.t, time)

    def between(self, start: float, end: float) -> EventColumns:
        """Return the events from `start` to before `end`, without a copy."""
        return self.view(self.before(start), self.before(end))

    def discard(self, count: int) -> None:
        """Forget the `count` oldest events."""
        self._first += min(count, len(self))

    def _move(self, room: int, types: list[np.dtype]) -> None:
        """Move the events to the front of new arrays."""
        kept = [column[self._first : self._end] for column in self._columns]
        self._columns = [np.empty(max(room, _MIN_EVENTS), kind) for kind in types]
        for column, values in zip(self._columns, kept, strict=False):
            column[: len(values)] = values
        self._first, self._end = 0, len(self)


@dataclass(frozen=True)
class EventWindow:
    """Window of a stream.

    Attributes:
        number: Number of the window, from 0.
        start: Start in microseconds of stream time.
        end: End in microseconds.
        events: Its events; views of the buffer, which stay valid.
    """

    number: int
    start: float
    end: float
    events: EventColumns


class LiveWindows(ABC):
    """Latest events of a stream, and the windows that are complete but were not taken yet.

    Args:
        max_held: Largest number of events in memory.

    Attributes:
        skipped: Number of complete windows that were left out for a newer one.
        late: Number of events that arrived after all of their windows were taken.
        lost: Number of events of a window that were dropped because `max_held` was reached.
    """

    def __init__(self, max_held: int = MAX_HELD) -> None:
        self.skipped = self.late = self.lost = 0
        self._held, self._max_held = EventBuffer(), max_held
        self._next = 0  # number of the next window

    def append(self, events: EventColumns) -> None:
        """Append the next events, in ascending order of time."""
        self._held.append(events)
        if (over := len(self._held) - self._max_held) > 0:
            self._held.discard(over)
            self.lost += over

    @abstractmethod
    def complete(self, watermark: float) -> int:
        """Return how many windows are complete.

        Args:
            watermark: Stream time in microseconds before which no events are expected any more.
        """

    @property
    def next_end(self) -> float:
        """End of the next window in microseconds; infinite if no time ends it."""
        return math.inf

    def rest(self) -> bool:
        """Make the last window complete, after the end of the stream; return False if it is dropped."""
        return False

    @abstractmethod
    def take(self, skip: int = 0) -> EventWindow:
        """Return the next window, or a later one.

        Args:
            skip: Number of complete windows to leave out.
        """


class TimeWindows(LiveWindows):
    """Windows by time.

    Args:
        length: Length of a window in microseconds.
        step: Time from one window to the next in microseconds.
        skip_silence: Leave out windows without events while they end with a later event: for recordings that are not
            played at their own speed.
        max_held: Largest number of events in memory.
    """

    def __init__(self, length: float, step: float, *, skip_silence: bool = False, max_held: int = MAX_HELD) -> None:
        super().__init__(max_held)
        self._length, self._step, self._skip_silence = length, step, skip_silence
        self._ended = False

    def append(self, events: EventColumns) -> None:
        """Append events; those of no window any more are left out."""
        start = self._next * self._step
        over, late = count_before(events.t, start), count_before(events.t, min(start, self._covered))
        self.late += late
        super().append(events.take(np.arange(over, len(events))) if over else events)

    @property
    def _covered(self) -> float:
        """End of the last window that was taken."""
        return (self._next - 1) * self._step + self._length if self._next else 0.0

    @property
    def next_end(self) -> float:
        """End of the next window."""
        return self._next * self._step + self._length

    def complete(self, watermark: float) -> int:
        """Return how many windows end before the newest event or the watermark."""
        newest = float(self._held.t[-1]) if len(self._held) else -1.0
        if self._ended:
            return 1 if newest >= self._next * self._step else 0
        if self._skip_silence and len(self._held):
            first = float(self._held.t[self._held.before(self._next * self._step) :][:1].sum())
            ahead = math.floor((first - self._length) / self._step) + 1  # the first window that contains it
            self._next = max(self._next, ahead)
        passed = max(newest, watermark) - self._length
        return max(math.floor(passed / self._step) + 1 - self._next, 0)

    def rest(self) -> bool:
        """Make the window of the last event complete unless it was taken."""
        self._ended = len(self._held) > 0 and float(self._held.t[-1]) >= max(self._covered, self._next * self._step)
        return self._ended

    def take(self, skip: int = 0) -> EventWindow:
        """Return a window; it may contain no events."""
        self._next += skip
        self.skipped += skip
        start, end = self._next * self._step, self.next_end
        window = EventWindow(self._next, start, end, self._held.between(start, end))
        self._next += 1
        self._held.discard(self._held.before(self._next * self._step))
        self._ended = False
        return window


class CountWindows(LiveWindows):
    """Windows by number of events; they end with their last event, so time does not matter.

    Args:
        count: Number of events of a window.
        step: Number of events from one window to the next.
        max_held: Largest number of events in memory, at least `count`.
    """

    def __init__(self, count: int, step: int, max_held: int = MAX_HELD) -> None:
        super().__init__(max(max_held, count))
        self._count, self._step = count, step
        self._gap = 0  # events to leave out before the next window

    def append(self, events: EventColumns) -> None:
        """Append events."""
        super().append(events)
        self._leave(0)

    def complete(self, watermark: float) -> int:
        """Return how many windows have all of their events."""
        spare = len(self._held) - self._gap - self._count
        return spare // self._step + 1 if spare >= 0 else 0

    def take(self, skip: int = 0) -> EventWindow:
        """Return a window, which starts with its first event and ends with its last one."""
        self._leave(skip * self._step)
        self.skipped += skip
        self._next += skip + 1
        events = self._held.view(0, self._count)
        self._leave(self._step)
        return EventWindow(self._next - 1, float(events.t[0]), float(events.t[-1]), events)

    def _leave(self, events: int) -> None:
        """Leave out events before the next window, also those that have not arrived."""
        self._gap += events
        there = min(self._gap, len(self._held))
        self._held.discard(there)
        self._gap -= there


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
    windows = CountWindows(count, step, max_held=sys.maxsize)
    for events in stream:
        windows.append(events)
        while windows.complete(0.0):
            yield windows.take().events


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
            if len(window := kept.between(start, start + duration)):
                yield window
            start = _next_start(kept.t, start, duration, step)
        # The last event shows when a gap between windows ends.
        kept.discard(min(kept.before(start), len(kept) - 1))
    while start is not None and kept.t[-1] >= start:
        if len(window := kept.between(start, start + duration)):
            yield window
        start = _next_start(kept.t, start, duration, step)


def _next_start(times: np.ndarray, start: float, duration: float, step: float) -> float:
    """Return the start of the next window that is not empty, for ascending times (n,)."""
    start += step
    first = count_before(times, start)
    ahead = float(times[first]) - start - duration if first < len(times) else -1.0
    return start + math.floor(ahead / step) * step if ahead >= step else start
