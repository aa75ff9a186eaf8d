"""Training augmentation of events, by sample or by whole batches (Event2Vec, arXiv 2504.15371).

`EventAugment` has the published transforms of version 1 and some more. `BatchAugment` follows versions 2 and 3: each
transform is switched on for a whole batch at a time; its random numbers are drawn for each recording. Coordinates then
stay real numbers between transforms, and events keep their places: those that leave the sensor or are erased or dropped
become invalid.

Notation: n events of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.sample import EventColumns

Transform = Callable[[EventColumns, np.ndarray, np.random.Generator], tuple[EventColumns, np.ndarray]]


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


@dataclass(frozen=True)
class BatchAugment:
    """Random augmentation whose transforms are switched on for whole batches, each with probability ``prob``."""

    sensor: tuple[int, int]  # height, width
    length: int  # events of a sample with its padding; 0 for no padding
    prob: float = 0.5
    flip_x: bool = False  # flip half of the recordings
    translate: int = 0  # largest shift in pixels
    rotate: float = 0.0  # largest rotation in degrees
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    erase: int = 0  # largest height and width of the erased rectangle in pixels
    erase_prob: float = 1.0  # fraction of the recordings that are erased
    chunks: tuple[int, int] = (0, 0)  # number of dropped chunks and their largest length in events
    warped: tuple[int, int] = (0, 0)  # number of chunks whose times are scaled, and their largest length in events
    warp_scale: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> BatchAugment:
        """Build from the DVS settings."""
        dvs = cfg.DVS
        return cls(
            sensor=tuple(dvs.SENSOR_SIZE),
            length=dvs.NUM_EVENTS,
            prob=dvs.AUG_PROB,
            flip_x=dvs.FLIP_X,
            translate=dvs.TRANSLATE,
            rotate=dvs.ROTATE,
            shear=dvs.SHEAR,
            scale=tuple(dvs.SCALE),
            erase=dvs.ERASE,
            erase_prob=dvs.ERASE_PROB,
            chunks=tuple(dvs.DROP_CHUNKS),
            warped=tuple(dvs.WARP_CHUNKS),
            warp_scale=tuple(dvs.WARP_SCALE),
        )

    def __call__(
        self, events: EventColumns, batch: np.random.Generator, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        """Augment the events of a recording.

        Args:
            events: Events of the sample.
            batch: Generator of the switches, in the same state for all recordings of a batch.
            rng: Generator of the recording.

        Returns:
            The events, rounded to pixels, and their validity, bool (n,).
        """
        events, valid = replace(events, x=events.x.astype(float), y=events.y.astype(float)), np.ones(len(events), bool)
        for transform in self._transforms():
            # All random numbers are always drawn, so that those of a recording do not depend on the switches.
            own = np.random.default_rng(rng.integers(2**63, size=2))
            if batch.random() < self.prob:
                events, valid = transform(events, valid, own)
        events = replace(events, x=np.rint(events.x).astype(np.int64), y=np.rint(events.y).astype(np.int64))
        height, width = self.sensor
        return events, valid & (events.x >= 0) & (events.y >= 0) & (events.x < width) & (events.y < height)

    def _transforms(self) -> list[Transform]:
        """Return the enabled transforms in the published order."""
        moves = (
            (min(self.warped) > 0, self._warp_chunks),
            (self.scale != (1.0, 1.0), self._scale),
            (self.rotate > 0, self._rotate),
            (self.shear > 0, self._shear),
            (self.flip_x, self._flip),
            (self.translate > 0, self._translate),
            (self.erase > 0, self._erase),
            (min(self.chunks) > 0, self._drop_chunks),
        )
        return [transform for enabled, transform in moves if enabled]

    def _warp_chunks(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        """Scale the time of each event of some chunks since the first event; the order of the events stays."""
        # As published, chunks are as long in samples with padding.
        length = max(self.length, len(events))
        chosen = chunk_mask(len(events), length, length, self.warped, rng)
        scaled = events.t[0] + (events.t - events.t[0]) * rng.uniform(*self.warp_scale, len(events))
        return replace(events, t=np.where(chosen, scaled, events.t)), valid

    def _scale(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        """Scale about the corner (0, 0)."""
        y, x = rng.uniform(*self.scale, 2)
        return replace(events, x=events.x * x, y=events.y * y), valid

    def _rotate(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        """Rotate about the center."""
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        middle_y, middle_x = ((length - 1) / 2 for length in self.sensor)
        x, y, cos, sin = events.x - middle_x, events.y - middle_y, np.cos(angle), np.sin(angle)
        return replace(events, x=x * cos - y * sin + middle_x, y=x * sin + y * cos + middle_y), valid

    def _shear(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        """Shear both axes about the corner (0, 0)."""
        y, x = rng.uniform(-self.shear, self.shear, 2)
        return replace(events, x=events.x + x * events.y, y=events.y + y * events.x), valid

    def _flip(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        return (replace(events, x=self.sensor[1] - 1 - events.x) if rng.random() < 0.5 else events), valid

    def _translate(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        y, x = rng.uniform(-self.translate, self.translate, 2)
        return replace(events, x=events.x + x, y=events.y + y), valid

    def _erase(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        """Erase a rectangle around a point of the sensor."""
        if rng.random() >= self.erase_prob:
            return events, valid
        y, x = rng.random(2) * (np.array(self.sensor) - 1)
        half_y, half_x = rng.random(2) * (self.erase / 2)
        return events, valid & ~((np.abs(events.y - y) <= half_y) & (np.abs(events.x - x) <= half_x))

    def _drop_chunks(
        self, events: EventColumns, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[EventColumns, np.ndarray]:
        return events, valid & ~chunk_mask(len(events), int(valid.sum()), self.length, self.chunks, rng)


def chunk_mask(n: int, valid: int, length: int, chunks: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw chunks of consecutive events; they are shorter for recordings with padding.

    Args:
        n: Number of events.
        valid: Number of valid events.
        length: Number of events with padding; 0 for none.
        chunks: Number of chunks, and their largest length in a sample without padding.
        rng: Generator of the draw.

    Returns:
        True for events of a chunk, bool (n,).
    """
    count, longest = chunks
    length = max(length, n)
    lengths = rng.integers(1, longest, count, endpoint=True) * valid / length
    starts = rng.integers(0, length, count)
    places = np.arange(n)[:, None]
    return np.asarray(((places >= starts) & (places < starts + lengths)).any(1))
