"""Filters of event streams, block by block in constant memory.

A filter is called with consecutive blocks of a stream and keeps what it needs of the earlier ones, so the result does
not depend on how the stream is cut into blocks. Times are whole microseconds in ascending order.

Notation: n events of a block, H x W pixels of the sensor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from slowfast.datasets.dvs.sample import EventColumns

# Offsets (column, row) from a pixel to its neighbors.
NEIGHBORS = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))


class Box(NamedTuple):
    """Rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int


class BackgroundFilter:
    """Background-activity filter: keeps events near an earlier event.

    An event is kept if one of the 8 neighbors of its pixel fired at most `duration` before it, whether or not that
    event was kept itself. The pixel itself does not count, so isolated hot pixels are removed, too (Delbruck,
    "Frame-free dynamic digital vision", 2008).

    Args:
        sensor: Sensor height and width in pixels.
        duration: Time within which events support each other, in microseconds.
    """

    def __init__(self, sensor: tuple[int, int], duration: int) -> None:
        self.duration = duration
        # With a border, neighbors need no bounds check.
        self._height, self._width = sensor[0] + 2, sensor[1] + 2
        self._last = np.empty(0, np.int64)  # time of the last event of each pixel
        self._never = 0  # time of pixels without an event yet

    def __call__(self, events: EventColumns) -> np.ndarray:
        """Return a mask of the kept events of the next block, bool (n,)."""
        n, t = len(events), events.t.astype(np.int64)
        if not n:
            return np.zeros(0, np.bool_)
        if not len(self._last):
            self._never = int(t[0]) - self.duration - 1
            self._last = np.full(self._height * self._width, self._never)
        pixel = (events.y + 1) * self._width + events.x + 1
        order = np.argsort(pixel, kind="stable")
        pixel, t = pixel[order], t[order]
        keys = pixel * n + order  # ascending: by pixel, then by the order of the stream
        latest = np.full(n, self._never)
        for column, row in NEIGHBORS:
            offset = row * self._width + column
            before = np.searchsorted(keys, keys + offset * n) - 1  # last event of the neighbor in this block
            in_block = (before >= 0) & (pixel[before] == pixel + offset)
            np.maximum(latest, np.where(in_block, t[before], self._last[pixel + offset]), out=latest)
        self._last[pixel] = t  # for repeated pixels the last value counts
        kept = np.empty(n, np.bool_)
        kept[order] = t - latest <= self.duration
        return kept


class RefractoryFilter:
    """Refractory period: a pixel that has fired stays silent for some time.

    An event is kept if the last kept event of its pixel, of either polarity, is at least `period` before it.

    Args:
        sensor: Sensor height and width in pixels.
        period: Refractory period in microseconds, at least 1.
    """

    def __init__(self, sensor: tuple[int, int], period: int) -> None:
        self.period = period
        self._height, self._width = sensor
        self._fired = np.empty(0, np.int64)  # time of the last kept event of each pixel

    def __call__(self, events: EventColumns) -> np.ndarray:
        """Return a mask of the kept events of the next block, bool (n,)."""
        n, t = len(events), events.t.astype(np.int64)
        if not n:
            return np.zeros(0, np.bool_)
        if not len(self._fired):
            self._fired = np.full(self._height * self._width, t[0] - self.period)
        pixel = events.y * self._width + events.x
        order = np.argsort(pixel, kind="stable")
        pixel, t = pixel[order], t[order]
        begins = np.flatnonzero(np.diff(pixel, prepend=-1))  # first event of each pixel
        kept = np.empty(n, np.bool_)
        kept[order] = reached = self._reached(t, begins, t[begins] - self._fired[pixel[begins]])
        self._fired[pixel[reached]] = t[reached]
        return kept

    def _reached(self, t: np.ndarray, begins: np.ndarray, since: np.ndarray) -> np.ndarray:
        """Return the kept events, bool (n,): those reached by following the links from the first one.

        Args:
            t: Times by pixel, then ascending, (n,).
            begins: Index of the first event of each pixel.
            since: Time from the last kept event of earlier blocks to it.
        """
        n = len(t)
        gaps = np.diff(t, prepend=t[0]).clip(max=self.period)  # longer times are equivalent
        gaps[begins] = self.period
        times = np.cumsum(gaps)  # ascending over all pixels
        ends = np.append(begins[1:], n)
        following = np.searchsorted(times, times + self.period)  # n if there is none
        following = np.append(np.where(following < np.repeat(ends, ends - begins), following, n), n)
        first = np.searchsorted(times, times[begins] + self.period - since.clip(max=self.period))
        reached = np.zeros(n + 1, np.bool_)
        reached[np.where(first < ends, first, n)] = True
        while True:
            # Events at most 2^k - 1 steps from the first are reached after k rounds.
            ahead = following[np.flatnonzero(reached)]
            if (ahead == n).all():
                return reached[:n]
            reached[ahead] = True
            following = following[following]


def crop_events(events: EventColumns, box: Box) -> EventColumns:
    """Return the events inside a box, with coordinates relative to its upper left corner."""
    inside = (events.x >= box.x) & (events.x < box.x + box.width)
    inside &= (events.y >= box.y) & (events.y < box.y + box.height)
    cropped = events.take(inside)
    return replace(cropped, x=cropped.x - box.x, y=cropped.y - box.y)


def downsample_events(events: EventColumns, factor: int) -> EventColumns:
    """Return all events with coordinates divided by a factor and rounded down."""
    return replace(events, x=events.x // factor, y=events.y // factor)
