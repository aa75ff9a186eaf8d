"""Statistics of an event stream, computed block by block in constant memory.

Notation: n events, H x W pixels of the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import EventBlock

# A pixel is hot if its count is above the mean of the active pixels by this many standard deviations, and a multiple of
# their median.
HOT_DEVIATIONS, HOT_FACTOR = 5.0, 10.0
GAP = 100_000.0  # microseconds without events that count as a gap
RATE_WINDOW = 10_000.0  # microseconds over which the peak rate is measured
MAX_SIDE = 2**13  # largest number of pixels, because each needs a counter
_SHOWN = 10  # maximum number of hot pixels and gaps listed


@dataclass(frozen=True)
class HotPixel:
    """Pixel with implausibly many events."""

    x: int
    y: int
    events: int
    share: float  # fraction of all events


@dataclass(frozen=True)
class Gap:
    """Time without events, in microseconds."""

    start: float
    duration: float


@dataclass(frozen=True)
class StreamStatistics:
    """Statistics of a stream; times are microseconds, rates events per second."""

    events: int
    start: float
    end: float
    duration: float
    rate: float
    peak_rate: float
    on_share: float
    extent: tuple[int, int]  # height and width that contain all events
    outside: int  # events outside the sensor stated by the recording
    active_pixels: int
    hot_pixels: int
    hot_events: int
    hottest: tuple[HotPixel, ...]
    gaps: int
    longest_gaps: tuple[Gap, ...]
    backward_steps: int
    largest_backward_step: float


def hot_pixels(counts: np.ndarray) -> np.ndarray:
    """Return the mask of hot pixels, bool (H, W).

    Args:
        counts: Number of events of each pixel, int64 (H, W).
    """
    active = counts[counts > 0]
    if not len(active):
        return np.zeros(counts.shape, np.bool_)
    limit = max(float(active.mean() + HOT_DEVIATIONS * active.std()), HOT_FACTOR * float(np.median(active)))
    mask: np.ndarray = counts > limit
    return mask


class StatisticsCollector:
    """Collector of the statistics of a stream.

    Args:
        sensor: Sensor height and width in pixels stated by the recording, if any.
        tick: Microseconds per tick of the times.
    """

    def __init__(self, sensor: tuple[int, int] | None, tick: float) -> None:
        self.sensor, self.tick = sensor, tick
        self.events = self.on = self.outside = 0
        self.start = self.end = self.last = 0.0
        self.backward, self.largest_backward = 0, 0.0
        self.gap_count, self.gaps = 0, list[Gap]()
        self._counts = np.zeros((1, 1), np.int64)
        self._window, self._in_window, self._peak = 0, 0, 0

    def add(self, block: EventBlock) -> None:
        """Add the next events.

        Raises:
            DecodeError: If a coordinate is negative or larger than any sensor.
        """
        t = block.t * self.tick if self.tick != 1.0 else block.t
        first = not self.events
        self.start = min(self.start, float(t.min())) if not first else float(t.min())
        self.end = max(self.end, float(t.max())) if not first else float(t.max())
        self._observe_steps(np.diff(t, prepend=t[0] if first else t.dtype.type(self.last)), t)
        self._observe_rate(t)
        self.last = float(t[-1])
        self.events += len(t)
        self.on += int(np.count_nonzero(block.p))
        self._count(block.x, block.y)

    def _observe_steps(self, steps: np.ndarray, t: np.ndarray) -> None:
        back = steps < 0
        if back.any():
            self.backward += int(np.count_nonzero(back))
            self.largest_backward = max(self.largest_backward, -float(steps.min()))
        long = np.flatnonzero(steps > GAP)
        if len(long):
            self.gap_count += len(long)
            longest = long[np.argsort(-steps[long], kind="stable")[:_SHOWN]]
            found = [Gap(float(t[at] - steps[at]), float(steps[at])) for at in longest]
            self.gaps = sorted(self.gaps + found, key=lambda gap: -gap.duration)[:_SHOWN]

    def _observe_rate(self, t: np.ndarray) -> None:
        """Count events per window of fixed duration; late events count for the current window."""
        window = (t // RATE_WINDOW).astype(np.int64)
        changes = np.flatnonzero(np.diff(window, prepend=self._window if self.events else window[0]))
        edges = np.concatenate(([0], changes, [len(t)]))
        counts = np.diff(edges)
        counts[0] += self._in_window
        self._peak = max(self._peak, int(counts.max()))
        self._in_window, self._window = int(counts[-1]), int(window[-1])

    def _count(self, x: np.ndarray, y: np.ndarray) -> None:
        low, high = min(int(x.min()), int(y.min())), max(int(x.max()), int(y.max()))
        if low < 0 or high >= MAX_SIDE:
            raise DecodeError(f"some events have invalid coordinates (from {low} to {high})")
        if self.sensor is not None:
            self.outside += int(np.count_nonzero((x >= self.sensor[1]) | (y >= self.sensor[0])))
        height, width = self._counts.shape
        if int(y.max()) >= height or int(x.max()) >= width:
            grown = np.zeros((max(height, int(y.max()) + 1), max(width, int(x.max()) + 1)), np.int64)
            grown[:height, :width] = self._counts
            self._counts = grown
        pixel = y.astype(np.int64) * self._counts.shape[1] + x
        self._counts += np.bincount(pixel, minlength=self._counts.size).reshape(self._counts.shape)

    def result(self) -> StreamStatistics:
        """Return the statistics of all events so far, at least one."""
        duration = self.end - self.start
        hot = hot_pixels(self._counts)
        order = np.argsort(-self._counts[hot], kind="stable")[:_SHOWN]
        rows, columns = np.nonzero(hot)
        hottest = tuple(
            HotPixel(
                int(columns[k]),
                int(rows[k]),
                int(self._counts[rows[k], columns[k]]),
                float(self._counts[rows[k], columns[k]] / self.events),
            )
            for k in order
        )
        seconds = duration * 1e-6
        return StreamStatistics(
            events=self.events,
            start=self.start,
            end=self.end,
            duration=duration,
            rate=self.events / seconds if seconds > 0 else 0.0,
            peak_rate=self._peak / min(RATE_WINDOW, max(duration, 1.0)) * 1e6,
            on_share=self.on / self.events,
            extent=(self._counts.shape[0], self._counts.shape[1]),
            outside=self.outside,
            active_pixels=int(np.count_nonzero(self._counts)),
            hot_pixels=int(np.count_nonzero(hot)),
            hot_events=int(self._counts[hot].sum()),
            hottest=hottest,
            gaps=self.gap_count,
            longest_gaps=tuple(self.gaps),
            backward_steps=self.backward,
            largest_backward_step=self.largest_backward,
        )
