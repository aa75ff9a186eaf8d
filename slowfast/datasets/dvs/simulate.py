"""Simulation of an event camera from video frames.

The model of ESIM (Rebecq et al., CoRL 2018): a pixel fires whenever its log intensity has changed by a threshold since
it last fired. Between two frames log intensity is interpolated linearly.

Notation: H x W pixels of a frame, n events.
"""

from __future__ import annotations

import numpy as np

from slowfast.datasets.dvs.sample import EventColumns

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB
DARK = 10.0  # added to the intensity (0 to 255) before the logarithm, which limits the sensitivity of dark pixels
NO_EVENTS = EventColumns(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))


class EventSimulator:
    """Converts frames in ascending order of time into the events between them.

    Args:
        rng: Generator of the noise.
        threshold: Change of log intensity that fires an ON and an OFF event.
        refractory: Time in microseconds in which a pixel that has fired stays silent.
        noise: Rate of noise events per pixel and second.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        threshold: tuple[float, float] = (0.2, 0.2),
        refractory: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        if min(threshold) <= 0 or refractory < 0 or noise < 0:
            raise ValueError("thresholds must be positive, refractory time and noise at least 0")
        self.rng, self.threshold, self.refractory, self.noise = rng, threshold, refractory, noise
        self._previous: np.ndarray | None = None  # log intensity of the last frame (H, W)
        self._level = np.empty(0)  # log intensity at which each pixel last fired (H, W)
        self._fired = np.empty(0)  # time of that event in microseconds (H, W)
        self._time = 0.0

    def feed(self, frame: np.ndarray, time: float) -> EventColumns:
        """Return the events since the previous frame; none for the first frame.

        Args:
            frame: RGB frame (H, W, 3) or grayscale frame (H, W), 0 to 255.
            time: Time in microseconds.

        Raises:
            ValueError: If the time does not increase.
        """
        gray = frame.astype(np.float32) @ LUMA if frame.ndim == 3 else frame.astype(np.float32)
        now = np.log(gray + DARK).astype(np.float64)
        previous, start = self._previous, self._time
        self._previous, self._time = now, time
        if previous is None:
            self._level, self._fired = now.copy(), np.full(now.shape, -np.inf)
            return NO_EVENTS
        if time <= start:
            raise ValueError(f"frames must be in ascending order of time: got {time} after {start}")
        events = self._crossings(previous, now, start, time)
        return EventColumns.join(events, self._background(now.shape, start, time)) if self.noise else events

    def _crossings(self, previous: np.ndarray, now: np.ndarray, start: float, end: float) -> EventColumns:
        """Return all threshold crossings; the events of a pixel are in ascending order of time."""
        found: list[tuple[np.ndarray, ...]] = []
        for sign, step in ((1, self.threshold[0]), (-1, self.threshold[1])):
            count = np.floor(sign * (now - self._level) / step + 1e-9).clip(min=0).astype(np.int64)
            for k in range(1, int(count.max(initial=0)) + 1):
                y, x = np.nonzero(count >= k)
                change = now[y, x] - previous[y, x]
                way = self._level[y, x] + sign * k * step - previous[y, x]
                share = np.where(change == 0, 1.0, way / np.where(change == 0, 1.0, change)).clip(0, 1)
                found.append(self._without_refractory(x, y, start + share * (end - start), sign))
            self._level += sign * count * step
        if not found:
            return NO_EVENTS
        x, y, t, p = (np.concatenate(columns) for columns in zip(*found, strict=True))
        return EventColumns(x, y, t, p).at(t)

    def _without_refractory(self, x: np.ndarray, y: np.ndarray, t: np.ndarray, sign: int) -> tuple[np.ndarray, ...]:
        """Drop events, one per pixel, within the refractory time after the previous one."""
        kept = t - self._fired[y, x] >= self.refractory
        x, y, t = x[kept], y[kept], t[kept]
        self._fired[y, x] = t
        return x, y, t, np.full(len(x), int(sign > 0), np.int64)

    def _background(self, shape: tuple[int, ...], start: float, end: float) -> EventColumns:
        """Return noise events, uniform in space and time."""
        count = int(self.rng.poisson(self.noise * shape[0] * shape[1] * (end - start) * 1e-6))
        x, y, p = (self.rng.integers(0, limit, count) for limit in (shape[1], shape[0], 2))
        t = self.rng.uniform(start, end, count)
        return EventColumns(x, y, t, p).at(t)


def join_events(parts: list[EventColumns]) -> EventColumns:
    """Concatenate the events of consecutive intervals."""
    return EventColumns(*(np.concatenate([getattr(part, key) for part in parts]) for key in "xytp"))
