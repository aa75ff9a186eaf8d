"""Training augmentation of events: the published transforms (Event2Vec, arXiv 2504.15371) and others.

Notation: n events of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.batch_augment import chunk_mask
from slowfast.datasets.dvs.sample import EventColumns


@dataclass(frozen=True)
class EventAugment:
    """Random augmentation of events; each enabled transform is applied with probability ``prob``.

    Events that leave the sensor are dropped. A transform that would leave no event is not applied.
    """

    sensor: tuple[int, int]  # height, width
    prob: float = 0.5
    flip_x: bool = False
    flip_y: bool = False
    flip_polarity: bool = False
    translate: int = 0  # largest shift in pixels
    rotate: float = 0.0  # largest rotation in degrees
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    time_jitter: float = 0.0  # standard deviation relative to the duration
    drop: float = 0.0  # maximum fraction of dropped events
    noise: float = 0.0  # maximum fraction of noise events
    erase: int = 0  # largest side of the erased square in pixels
    erase_prob: float = 1.0  # probability of erasing if the transform is applied
    chunks: tuple[int, int] = (0, 0)  # number of dropped chunks and their largest length in events

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EventAugment:
        """Build from the DVS settings."""
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
            erase_prob=dvs.ERASE_PROB,
            chunks=tuple(dvs.DROP_CHUNKS),
        )

    def __call__(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """Return the augmented events, at least one."""
        for change in (
            self._move,
            self._flip,
            self._jitter,
            self._drop,
            self._drop_chunks,
            self._erase,
            self._add_noise,
        ):
            changed = change(events, rng)
            events = changed if len(changed) else events
        return events

    def _applies(self, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self.prob)

    def _move(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """Apply an affine map around the center of the sensor: scale, rotation, shear and translation."""
        matrix = np.eye(2)  # of (x, y)
        if self.scale != (1.0, 1.0) and self._applies(rng):
            matrix = np.diag(rng.uniform(*self.scale, 2)) @ matrix
        if self.rotate and self._applies(rng):
            angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
            matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ matrix
        if self.shear and self._applies(rng):
            matrix = np.array([[1.0, rng.uniform(-self.shear, self.shear)], [0.0, 1.0]]) @ matrix
        shift = np.zeros(2)
        if self.translate and self._applies(rng):
            shift = rng.integers(-self.translate, self.translate, 2, endpoint=True).astype(float)
        if (matrix == np.eye(2)).all() and not shift.any():
            return events
        height, width = self.sensor
        center = np.array([(width - 1) / 2, (height - 1) / 2])
        moved = (np.stack([events.x, events.y], 1) - center) @ matrix.T + center + shift
        x, y = np.rint(moved).astype(np.int64).T
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        return replace(events, x=x, y=y).take(inside)

    def _flip(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        height, width = self.sensor
        if self.flip_x and self._applies(rng):
            events = replace(events, x=width - 1 - events.x)
        if self.flip_y and self._applies(rng):
            events = replace(events, y=height - 1 - events.y)
        if self.flip_polarity and self._applies(rng):
            events = replace(events, p=1 - events.p)
        return events

    def _jitter(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        if not self.time_jitter or not self._applies(rng):
            return events
        duration = events.t[-1] - events.t[0]
        return events.at(events.t + rng.normal(0.0, self.time_jitter * duration, len(events)))

    def _drop(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        if not self.drop or not self._applies(rng):
            return events
        return events.take(rng.random(len(events)) >= rng.uniform(0.0, self.drop))

    def _drop_chunks(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        if min(self.chunks) <= 0 or not self._applies(rng):
            return events
        return events.take(~chunk_mask(len(events), len(events), 0, self.chunks, rng))

    def _erase(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """Drop the events in a random square."""
        if not self.erase or not self._applies(rng) or (self.erase_prob < 1 and rng.random() >= self.erase_prob):
            return events
        side = int(rng.integers(1, self.erase, endpoint=True))
        top, left = (int(rng.integers(0, max(length - side, 0), endpoint=True)) for length in self.sensor)
        rows, columns = events.y - top, events.x - left
        return events.take(~((rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)))

    def _add_noise(self, events: EventColumns, rng: np.random.Generator) -> EventColumns:
        """Add noise events, uniform in space and time."""
        count = int(rng.uniform(0.0, self.noise) * len(events)) if self.noise and self._applies(rng) else 0
        if not count:
            return events
        height, width = self.sensor
        x, y, p = (rng.integers(0, limit, count) for limit in (width, height, 2))
        return EventColumns.join(events, EventColumns(x, y, rng.uniform(events.t[0], events.t[-1], count), p))
