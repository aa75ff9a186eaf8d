"""Training augmentation of events: the published changes (Event2Vec, arXiv 2504.15371) and a few more.

n events. Every draw takes the generator that is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.sample import EventColumns


@dataclass(frozen=True)
class EventAugment:
    """Changes events; each change that is on is made with probability `prob`.

    What leaves the sensor is lost. Where a change would leave no event, it is not made.
    """

    sensor: tuple[int, int]  # height, width
    prob: float = 0.5
    flip_x: bool = False
    flip_y: bool = False
    flip_polarity: bool = False
    translate: int = 0  # largest shift, pixels
    rotate: float = 0.0  # largest turn, degrees
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    time_jitter: float = 0.0  # standard deviation, share of the duration
    drop: float = 0.0  # largest share
    noise: float = 0.0  # largest share
    erase: int = 0  # largest side, pixels

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EventAugment:
        """As DVS says."""
        dvs = cfg.DVS
        return cls(
            sensor=tuple(dvs.SENSOR_SIZE),
            prob=dvs.AUG_PROB,
            flip_x=dvs.FLIP_X,
            flip_y=dvs.FLIP_Y,
            flip_polarity=dvs.FLIP_POLARITY,
            translate=dvs.TRANSLATE,
            rotate=dvs.ROTATE,
            shear=dvs.SHEAR,
            scale=tuple(dvs.SCALE),
            time_jitter=dvs.TIME_JITTER,
            drop=dvs.DROP,
            noise=dvs.NOISE,
            erase=dvs.ERASE,
        )

    def __call__(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """Other events, in the order of their times, at least one."""
        for change in (self._move, self._flip, self._jitter, self._drop, self._erase, self._add_noise):
            changed = change(events, rng)
            events = changed if len(changed) else events
        return events

    def _on(self, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self.prob)

    def _move(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """One affine map about the sensor's middle: scale, turn, shear, shift."""
        matrix = np.eye(2)  # of (x, y)
        if self.scale != (1.0, 1.0) and self._on(rng):
            matrix = np.diag(rng.uniform(*self.scale, 2)) @ matrix
        if self.rotate and self._on(rng):
            angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
            matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ matrix
        if self.shear and self._on(rng):
            matrix = np.array([[1.0, rng.uniform(-self.shear, self.shear)], [0.0, 1.0]]) @ matrix
        shift = np.zeros(2)
        if self.translate and self._on(rng):
            shift = rng.integers(-self.translate, self.translate, 2, endpoint=True).astype(float)
        if (matrix == np.eye(2)).all() and not shift.any():
            return events
        height, width = self.sensor
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        moved = (np.stack([events.x, events.y], 1) - middle) @ matrix.T + middle + shift
        x, y = np.rint(moved).astype(np.int64).T
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        return replace(events, x=x, y=y).take(inside)

    def _flip(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        height, width = self.sensor
        if self.flip_x and self._on(rng):
            events = replace(events, x=width - 1 - events.x)
        if self.flip_y and self._on(rng):
            events = replace(events, y=height - 1 - events.y)
        if self.flip_polarity and self._on(rng):
            events = replace(events, p=1 - events.p)
        return events

    def _jitter(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        if not self.time_jitter or not self._on(rng):
            return events
        duration = events.t[-1] - events.t[0]
        return events.at(events.t + rng.normal(0.0, self.time_jitter * duration, len(events)))

    def _drop(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        if not self.drop or not self._on(rng):
            return events
        return events.take(rng.random(len(events)) >= rng.uniform(0.0, self.drop))

    def _erase(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """Those in a square anywhere on the sensor."""
        if not self.erase or not self._on(rng):
            return events
        side = int(rng.integers(1, self.erase, endpoint=True))
        top, left = (int(rng.integers(0, max(length - side, 0), endpoint=True)) for length in self.sensor)
        lines, columns = events.y - top, events.x - left
        return events.take(~((lines >= 0) & (lines < side) & (columns >= 0) & (columns < side)))

    def _add_noise(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """Events anywhere, at any time of the sample."""
        count = int(rng.uniform(0.0, self.noise) * len(events)) if self.noise and self._on(rng) else 0
        if not count:
            return events
        height, width = self.sensor
        x, y, p = (rng.integers(0, limit, count) for limit in (width, height, 2))
        return EventColumns.join(events, EventColumns(x, y, rng.uniform(events.t[0], events.t[-1], count), p))
