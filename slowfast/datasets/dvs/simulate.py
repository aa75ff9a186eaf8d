"""Simulation of an event camera from video frames.

The model of ESIM (Rebecq et al., CoRL 2018): a pixel fires whenever its log intensity has changed by a threshold since
it last fired. Between two frames log intensity is interpolated linearly. The imperfections of pixels are those of v2e
(Hu, Liu and Delbruck, "v2e: from video frames to realistic DVS events", CVPR workshops 2021).

Notation: H x W pixels of a frame, n events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from slowfast.datasets.dvs.filters import RefractoryFilter
from slowfast.datasets.dvs.sample import EventColumns

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB
DARK = 10.0  # added to the intensity (0 to 255) before the logarithm, which limits the sensitivity of dark pixels
NO_EVENTS = EventColumns(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
MIN_THRESHOLD = 0.01  # lower limit of the threshold of a pixel, as in v2e
BRIGHTNESS_FLOOR = 20.0  # intensity added to the bandwidth of pixels, so that dark pixels react too, as in v2e
BRIGHT_SHOT_NOISE = 0.25  # rate of shot noise at intensity 255, relative to that at 0, as in v2e


@dataclass(frozen=True)
class PixelNoise:
    """Imperfections of pixels as in v2e; 0 disables each.

    Attributes:
        threshold_sigma: Standard deviation of the thresholds of log intensity over the pixels.
        leak: Rate of ON events per pixel and second by leakage: the level at which a pixel last fired decays.
        shot: Rate of shot noise per pixel and second in the dark, half of it ON events. It falls linearly with the
            intensity to a quarter, and is inverse to the threshold of a pixel.
        hot_pixels: Fraction of pixels that leak at `hot_rate`.
        hot_rate: Rate of ON events of a hot pixel per second.
        cutoff: Cutoff frequency in Hz of the low-pass filter that a pixel is at full intensity. It is of first order,
            and proportional to the intensity: dark pixels react late and miss fast changes.
        leak_jitter: Standard deviation of the leakage from frame to frame, relative to its rate.

    Raises:
        ValueError: If a value is out of range.
    """

    threshold_sigma: float = 0.0
    leak: float = 0.0
    shot: float = 0.0
    hot_pixels: float = 0.0
    hot_rate: float = 100.0
    cutoff: float = 0.0
    leak_jitter: float = 0.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0 or self.hot_pixels > 1:
            raise ValueError(f"noise of pixels must be at least 0, and the fraction of hot pixels at most 1: {self}")

    def thresholds(
        self, rng: np.random.Generator, threshold: tuple[float, float], shape: tuple[int, ...]
    ) -> np.ndarray:
        """Draw the ON and OFF threshold of each pixel, float64 (2, H, W)."""
        nominal = np.repeat(threshold, math.prod(shape)).reshape(2, *shape)
        if not self.threshold_sigma:
            return nominal
        drawn: np.ndarray = rng.normal(nominal, self.threshold_sigma).clip(min=MIN_THRESHOLD)
        return drawn

    def leak_rates(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the rate of leak events of each pixel per second, float64 (H, W)."""
        rates = np.full(shape, self.leak)
        if self.hot_pixels:
            rates[rng.random(shape) < self.hot_pixels] = self.hot_rate
        return rates

    def low_passed(self, passed: np.ndarray, now: np.ndarray, gray: np.ndarray, seconds: float) -> np.ndarray:
        """Return log intensity after the low-pass filter of the pixels, float64 (H, W).

        Args:
            passed: What the filter gave for the previous frame (H, W).
            now: Log intensity of this frame (H, W).
            gray: Its intensity, 0 to 255 (H, W).
            seconds: Time between both.
        """
        if not self.cutoff:
            return now
        relative = (gray.astype(np.float64) + BRIGHTNESS_FLOOR) / (255 + BRIGHTNESS_FLOOR)
        share = np.minimum(2 * math.pi * self.cutoff * seconds * relative, 1.0)
        return passed + share * (now - passed)


class EventSimulator:
    """Converter of frames in ascending order of time to the events between them.

    Args:
        rng: Generator of the noise.
        threshold: Change of log intensity that fires an ON and an OFF event.
        refractory: Time in microseconds in which a pixel that has fired stays silent, for any cause of the event. Above
            0, times are whole microseconds.
        noise: Rate of noise events per pixel and second, independent of the intensity.
        pixel_noise: Imperfections of the pixels.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        threshold: tuple[float, float] = (0.2, 0.2),
        refractory: float = 0.0,
        noise: float = 0.0,
        pixel_noise: PixelNoise = PixelNoise(),
    ) -> None:
        if min(threshold) <= 0 or refractory < 0 or noise < 0:
            raise ValueError("thresholds must be positive, refractory time and noise at least 0")
        self.rng, self.threshold, self.refractory, self.noise = rng, threshold, refractory, noise
        self.pixel_noise = pixel_noise
        self._previous: np.ndarray | None = None  # log intensity of the last frame, leakage added (H, W)
        # Low-passed log intensity, and leakage with jitter (H, W).
        self._passed = self._drift = np.empty(0)
        self._level = np.empty(0)  # log intensity at which each pixel last fired (H, W)
        self._thresholds = self._leak = np.empty(0)  # per pixel; leakage in log intensity per second
        self._silence: RefractoryFilter | None = None
        self._start = self._time = 0.0

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
        if previous is None:
            self._begin(now, time)
            return NO_EVENTS
        if time <= start:
            raise ValueError(f"frames must be in ascending order of time: got {time} after {start}")
        now = self._passed = self.pixel_noise.low_passed(self._passed, now, gray, (time - start) * 1e-6)
        # To a pixel, leakage looks like increasing brightness.
        now = now + self._leaked(time)
        self._previous, self._time = now, time
        events = self._crossings(previous, now, start, time)
        if self.noise:
            events = EventColumns.join(events, self._background(now.shape, start, time))
        if self.pixel_noise.shot:
            events = EventColumns.join(events, self._shot_noise(gray, start, time))
        if self._silence is not None:
            events = replace(events, t=np.rint(events.t))
            events = events.take(self._silence(events))
        return events

    def _begin(self, now: np.ndarray, time: float) -> None:
        """Process the first frame, and draw the properties of the pixels."""
        self._previous, self._start, self._time = now, time, time
        self._passed, self._drift = now, np.zeros(now.shape)
        self._thresholds = self.pixel_noise.thresholds(self.rng, self.threshold, now.shape)
        rates = self.pixel_noise.leak_rates(self.rng, now.shape)
        self._leak, self._level = rates * self._thresholds[0], now.copy()
        if rates.any():
            # Without a random phase, all pixels would leak at the same times.
            self._level -= np.where(rates > 0, self.rng.random(now.shape) * self._thresholds[0], 0.0)
        if self.refractory:
            self._silence = RefractoryFilter((now.shape[0], now.shape[1]), math.ceil(self.refractory))

    def _leaked(self, time: float) -> np.ndarray:
        """Return the log intensity that has leaked since the first frame, float64 (H, W)."""
        jitter = self.pixel_noise.leak_jitter
        if not jitter or not self._leak.any():
            return self._leak * (time - self._start) * 1e-6
        self._drift += (
            self._leak * (time - self._time) * 1e-6 * (1 - jitter * self.rng.standard_normal(self._leak.shape))
        )
        return self._drift

    def _crossings(self, previous: np.ndarray, now: np.ndarray, start: float, end: float) -> EventColumns:
        """Return all threshold crossings; the events of a pixel are in ascending order of time."""
        found: list[tuple[np.ndarray, ...]] = []
        for sign, step in ((1, self._thresholds[0]), (-1, self._thresholds[1])):
            count = np.floor(sign * (now - self._level) / step + 1e-9).clip(min=0).astype(np.int64)
            for k in range(1, int(count.max(initial=0)) + 1):
                y, x = np.nonzero(count >= k)
                change = now[y, x] - previous[y, x]
                way = self._level[y, x] + sign * k * step[y, x] - previous[y, x]
                share = np.where(change == 0, 1.0, way / np.where(change == 0, 1.0, change)).clip(0, 1)
                polarity = np.full(len(x), int(sign > 0), np.int64)
                found.append((x, y, start + share * (end - start), polarity))
            self._level += sign * count * step
        if not found:
            return NO_EVENTS
        x, y, t, p = (np.concatenate(columns) for columns in zip(*found, strict=True))
        return EventColumns(x, y, t, p).at(t)

    def _shot_noise(self, gray: np.ndarray, start: float, end: float) -> EventColumns:
        """Return shot noise, uniform in time: more of it in the dark and from pixels with low thresholds."""
        relative = 1 - (1 - BRIGHT_SHOT_NOISE) * gray.astype(np.float64) / 255
        sensitivity = np.reshape(self.threshold, (2, 1, 1)) / self._thresholds
        seconds = (end - start) * 1e-6
        count = self.rng.poisson(self.pixel_noise.shot / 2 * relative * sensitivity * seconds)  # ON, OFF
        off, y, x = (np.repeat(axis, count[count > 0]) for axis in np.nonzero(count))
        t = self.rng.uniform(start, end, len(x))
        return EventColumns(x, y, t, 1 - off).at(t)

    def _background(self, shape: tuple[int, ...], start: float, end: float) -> EventColumns:
        """Return noise events, uniform in space and time."""
        count = int(self.rng.poisson(self.noise * shape[0] * shape[1] * (end - start) * 1e-6))
        x, y, p = (self.rng.integers(0, limit, count) for limit in (shape[1], shape[0], 2))
        t = self.rng.uniform(start, end, count)
        return EventColumns(x, y, t, p).at(t)
