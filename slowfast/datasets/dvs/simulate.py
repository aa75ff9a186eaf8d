"""Events out of frames: what an event camera would see, by the change of each pixel's log intensity.

The model of ESIM (Rebecq et al., CoRL 2018): a pixel fires each time its log intensity has moved by a threshold from
where it last fired; between two frames log intensity is taken to be linear in time.

H height, W width, n events.
"""

from __future__ import annotations

import numpy as np

from slowfast.datasets.dvs.sample import EventColumns

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R G B
DARK = 10.0  # added to the intensity, of 255, before the logarithm: dark pixels are not infinitely sensitive
NO_EVENTS = EventColumns(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))


class EventSimulator:
    """Turns frames, given in the order of their times, into the events between them."""

    def __init__(
        self,
        rng: np.random.Generator,
        threshold: tuple[float, float] = (0.2, 0.2),
        refractory: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        """threshold: of log intensity for brighter and darker; refractory: microseconds in which a pixel that has fired
        stays silent; noise: events a pixel and second that nothing causes. Raises ValueError for impossible values.
        """
        if min(threshold) <= 0 or refractory < 0 or noise < 0:
            raise ValueError("thresholds must be above 0, the refractory time and the noise at least 0")
        self.rng, self.threshold, self.refractory, self.noise = rng, threshold, refractory, noise
        self._before: np.ndarray | None = None  # log intensity of the last frame (H, W)
        self._level = np.empty(0)  # log intensity at which each pixel last fired (H, W)
        self._fired = np.empty(0)  # time of it, microseconds (H, W)
        self._time = 0.0

    def feed(self, frame: np.ndarray, time: float) -> EventColumns:
        """The events since the frame before; of the first frame none. frame: (H, W, 3) R G B or (H, W), 0 to 255.

        time: microseconds. Raises ValueError where it does not grow.
        """
        grey = frame.astype(np.float32) @ LUMA if frame.ndim == 3 else frame.astype(np.float32)
        now = np.log(grey + DARK).astype(np.float64)
        before, start = self._before, self._time
        self._before, self._time = now, time
        if before is None:
            self._level, self._fired = now.copy(), np.full(now.shape, -np.inf)
            return NO_EVENTS
        if time <= start:
            raise ValueError(f"frames must come in the order of their times: {time} after {start}")
        events = self._crossings(before, now, start, time)
        return EventColumns.join(events, self._background(now.shape, start, time)) if self.noise else events

    def _crossings(self, before: np.ndarray, now: np.ndarray, start: float, end: float) -> EventColumns:
        """All pixels' firing, threshold by threshold: a pixel's events come in the order of their times."""
        found: list[tuple[np.ndarray, ...]] = []
        for sign, step in ((1, self.threshold[0]), (-1, self.threshold[1])):
            count = np.floor(sign * (now - self._level) / step + 1e-9).clip(min=0).astype(np.int64)
            for k in range(1, int(count.max(initial=0)) + 1):
                y, x = np.nonzero(count >= k)
                change = now[y, x] - before[y, x]
                way = self._level[y, x] + sign * k * step - before[y, x]
                share = np.where(change == 0, 1.0, way / np.where(change == 0, 1.0, change)).clip(0, 1)
                found.append(self._rested(x, y, start + share * (end - start), sign))
            self._level += sign * count * step
        if not found:
            return NO_EVENTS
        x, y, t, p = (np.concatenate(columns) for columns in zip(*found, strict=True))
        return EventColumns(x, y, t, p).at(t)

    def _rested(self, x: np.ndarray, y: np.ndarray, t: np.ndarray, sign: int) -> tuple[np.ndarray, ...]:
        """The events of different pixels, of those that have not fired within the refractory time."""
        kept = t - self._fired[y, x] >= self.refractory
        x, y, t = x[kept], y[kept], t[kept]
        self._fired[y, x] = t
        return x, y, t, np.full(len(x), int(sign > 0), np.int64)

    def _background(self, shape: tuple[int, ...], start: float, end: float) -> EventColumns:
        """Events of noise, anywhere and at any time."""
        count = int(self.rng.poisson(self.noise * shape[0] * shape[1] * (end - start) * 1e-6))
        x, y, p = (self.rng.integers(0, limit, count) for limit in (shape[1], shape[0], 2))
        t = self.rng.uniform(start, end, count)
        return EventColumns(x, y, t, p).at(t)


def join_events(parts: list[EventColumns]) -> EventColumns:
    """Events of intervals that follow one another."""
    return EventColumns(*(np.concatenate([getattr(part, key) for part in parts]) for key in "xytp"))
