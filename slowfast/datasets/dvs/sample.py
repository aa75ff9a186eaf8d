"""Events and event samplers.

Notation: n events of a recording, k events of a sample.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from slowfast.config.defaults import check_value

NONE, SAMPLE, DATASET = "none", "sample", "dataset"
TIME_NORMS = (NONE, SAMPLE, DATASET)
Sampler = Callable[[int, int, np.random.Generator], np.ndarray]  # n, k, generator -> indices int64 (k,)


@dataclass(frozen=True)
class EventColumns:
    """Events in ascending order of time; every array has shape (n,)."""

    x: np.ndarray  # int64, column of the pixel; float64 for clusters and during augmentation
    y: np.ndarray  # int64, row of the pixel; float64 like x
    t: np.ndarray  # float64, microseconds
    p: np.ndarray  # int64, 0 (darker) or 1 (brighter)
    intensity: np.ndarray | None = None  # float64, number of events of each cluster; None for single events

    def __len__(self) -> int:
        return len(self.t)

    def take(self, rows: np.ndarray) -> EventColumns:
        """Select events by index or mask."""
        intensity = None if self.intensity is None else self.intensity[rows]
        return EventColumns(self.x[rows], self.y[rows], self.t[rows], self.p[rows], intensity)

    def at(self, t: np.ndarray) -> EventColumns:
        """Replace the timestamps and sort the events by them."""
        return replace(self, t=t).take(np.argsort(t, kind="stable"))

    @staticmethod
    def join(one: EventColumns, other: EventColumns) -> EventColumns:
        """Merge two sets of events, sorted by time."""
        columns = [np.concatenate((getattr(one, key), getattr(other, key))) for key in "xytp"]
        return EventColumns(*columns).at(columns[2])


def normalize_time(t: np.ndarray, norm: str, longest: float) -> np.ndarray:
    """Normalize timestamps; the first one becomes 0.

    Args:
        t: Timestamps in microseconds, (n,).
        norm: ``none`` for microseconds, ``sample`` to divide by the duration of the sample, ``dataset`` to divide by
            `longest`.
        longest: Duration of the longest recording of the dataset in microseconds.

    Returns:
        Timestamps, float32 (n,).
    """
    t = t - t[0]
    if norm == SAMPLE:
        t = t / t.max() if t.max() > 0 else t
    elif norm == DATASET:
        t = t / longest
    return t.astype(np.float32)


def random_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw k events uniformly without replacement."""
    return np.sort(rng.choice(n, k, replace=False))


def random_chunk_sample(n: int, k: int, rng: np.random.Generator, chunk: int) -> np.ndarray:
    """Draw chunks of consecutive events at random, possibly overlapping; the last one is truncated to k in total."""
    chunk = min(chunk, k)
    starts = np.sort(rng.choice(n - chunk + 1, -(-k // chunk), replace=False))
    return np.sort((starts[:, None] + np.arange(chunk)).ravel()[:k])


def random_part(n: int, k: int, rng: np.random.Generator, part: int) -> np.ndarray:
    """Return a part of a random division of the events into ceil(n / k) parts of k events.

    The last part is filled up with events of the one before.

    Args:
        n: Number of events, more than k.
        k: Number of events of a part.
        rng: Generator, in the same state for all parts of a division.
        part: Number of the part; larger numbers than there are parts return the last one.
    """
    start = min(part * k, n - k)
    return np.sort(rng.permutation(n)[start : start + k])


def uniform_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw k events uniformly with replacement."""
    return np.sort(rng.integers(0, n, k))


def deterministic_uniform_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Select evenly spaced events from the first to the last."""
    return np.linspace(0, n - 1, k).astype(np.int64)


def gaussian_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw from a normal distribution around the middle with standard deviation n / 4."""
    return np.sort(np.clip(rng.normal(n / 2, n / 4, k), 0, n - 1)).astype(np.int64)


def multivariate_gaussian_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one event around the start of each of k equal intervals, with a quarter interval as standard deviation."""
    return np.sort(np.clip(rng.normal(np.arange(k) * (n / k), n / k / 4), 0, n - 1)).astype(np.int64)


SAMPLERS: dict[str, Sampler] = {
    "random_sample": random_sample,
    "uniform_sample": uniform_sample,
    "deterministic_uniform_sample": deterministic_uniform_sample,
    "gaussian_sample": gaussian_sample,
    "multivariate_gaussian_sample": multivariate_gaussian_sample,
}


def get_sampler(name: str) -> Sampler:
    """Return the sampler of a published name, such as ``random_chunk_sample_16``.

    Raises:
        ConfigError: If the name is unknown.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    check_value("DVS.SAMPLER", name)
    return functools.partial(random_chunk_sample, chunk=int(name.rpartition("_")[2]))


def choose(sampler: Sampler, n: int, k: int, rng: np.random.Generator) -> np.ndarray | slice:
    """Choose k of n events; all of them if n <= k or k is 0."""
    return sampler(n, k, rng) if 0 < k < n else slice(None)
