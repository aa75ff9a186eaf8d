"""Buffer of the latest events of a stream.

Notation: n events in the buffer.
"""

from __future__ import annotations

import math

import numpy as np

from slowfast.datasets.dvs.sample import EventColumns

_MIN_EVENTS = 2**12  # room at first


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
        types = [np.promote_types(*pair) for pair in zip(self._types(given), (v.dtype for v in given), strict=True)]
        if not self._columns or self._end + count > len(self._columns[0]) or types != self._types(given):
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

    def discard(self, count: int) -> None:
        """Forget the `count` oldest events."""
        self._first += min(count, len(self))

    def _types(self, given: list[np.ndarray]) -> list[np.dtype]:
        return [column.dtype for column in self._columns or given]

    def _move(self, room: int, types: list[np.dtype]) -> None:
        """Move the events to the front of new arrays."""
        kept = [column[self._first : self._end] for column in self._columns]
        self._columns = [np.empty(max(room, _MIN_EVENTS), kind) for kind in types]
        for column, values in zip(self._columns, kept, strict=False):
            column[: len(values)] = values
        self._first, self._end = 0, len(self)
