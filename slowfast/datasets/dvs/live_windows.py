"""Sliding windows over a live event stream, which end when their time has passed, also without events.

Stream time is in microseconds since the source was opened; window k covers [k * step, k * step + length). A window is
complete when an event after it has arrived, or when the clock of the source says that its time has passed.

Notation: n events of a window.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from slowfast.datasets.dvs.event_buffer import EventBuffer, count_before
from slowfast.datasets.dvs.sample import EventColumns

MAX_HELD = 2**24  # events of the latest windows in memory, about 220 MB; the oldest are dropped


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

    @abstractmethod
    def rest(self) -> bool:
        """Make the last window complete, after the end of the stream; return False if there is none."""

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
        number, start = self._next, self._next * self._step
        first, last = self._held.before(start), self._held.before(start + self._length)
        window = EventWindow(number, start, start + self._length, self._held.view(first, last))
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

    def rest(self) -> bool:
        """Return False: an incomplete window is dropped."""
        return False

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
