"""Batch-wise augmentation of events, as in versions 2 and 3 of Event2Vec (arXiv 2504.15371).

Each transform is switched on for a whole batch at a time; its random numbers are drawn for each recording. Coordinates
stay real numbers between transforms. Events keep their places: those that leave the sensor or are erased or dropped
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
            (self.scale != (1.0, 1.0), self._scale),
            (self.rotate > 0, self._rotate),
            (self.shear > 0, self._shear),
            (self.flip_x, self._flip),
            (self.translate > 0, self._translate),
            (self.erase > 0, self._erase),
            (min(self.chunks) > 0, self._drop_chunks),
        )
        return [transform for enabled, transform in moves if enabled]

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
