"""Events, and the choice of the events of a sample."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from slowfast.errors import ConfigError
from slowfast.utils.suggest import unknown_value


@dataclass(frozen=True)
class EventColumns:
    """Events in the order of their times; every array (n,)."""

    x: np.ndarray  # int64, columns of the sensor
    y: np.ndarray  # int64, lines
    t: np.ndarray  # float64, microseconds
    p: np.ndarray  # int64, 0 (darker) or 1 (brighter)

    def __len__(self) -> int:
        return len(self.t)

    def take(self, rows: np.ndarray) -> EventColumns:
        """The events of these numbers, or where a mask is True."""
        return EventColumns(self.x[rows], self.y[rows], self.t[rows], self.p[rows])

    def at(self, t: np.ndarray) -> EventColumns:
        """The same events at other times, in their order."""
        return replace(self, t=t).take(np.argsort(t, kind="stable"))

    @staticmethod
    def join(one: EventColumns, other: EventColumns) -> EventColumns:
        """Both, in the order of their times."""
        columns = [np.concatenate((getattr(one, key), getattr(other, key))) for key in "xytp"]
        return EventColumns(*columns).at(columns[2])


NONE, SAMPLE, DATASET = "none", "sample", "dataset"
TIME_NORMS = (NONE, SAMPLE, DATASET)


def normalize_time(t: np.ndarray, norm: str, longest: float) -> np.ndarray:
    """Ascending times (microseconds) from the first on: float32, in units of the norm.

    longest: of the data set, microseconds, above 0; used by "dataset".
    """
    t = t - t[0]
    if norm == SAMPLE:
        t = t / t[-1] if t[-1] > 0 else t
    elif norm == DATASET:
        t = t / longest
    return t.astype(np.float32)


Sampler = Callable[[int, int, np.random.Generator], np.ndarray]  # of n, k and a generator


def random_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """k different events, all equally likely."""
    return np.sort(rng.choice(n, k, replace=False))


def random_chunk_sample(n: int, k: int, rng: np.random.Generator, chunk: int) -> np.ndarray:
    """Chunks of neighbouring events that start anywhere and may overlap; of the last as many as k leaves over."""
    chunk = min(chunk, k)
    starts = np.sort(rng.choice(n - chunk + 1, -(-k // chunk), replace=False))
    return np.sort((starts[:, None] + np.arange(chunk)).ravel()[:k])


def uniform_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """k events that may be the same, all equally likely."""
    return np.sort(rng.integers(0, n, k))


def deterministic_uniform_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly from the first to the last."""
    return np.linspace(0, n - 1, k).astype(np.int64)


def gaussian_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """About the middle, with a standard deviation of n / 4."""
    return np.sort(np.clip(rng.normal(n / 2, n / 4, k), 0, n - 1)).astype(np.int64)


def multivariate_gaussian_sample(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """One about the start of each of k equal intervals, with a standard deviation of a quarter of it, as published."""
    return np.sort(np.clip(rng.normal(np.arange(k) * (n / k), n / k / 4), 0, n - 1)).astype(np.int64)


SAMPLERS: dict[str, Sampler] = {
    "random_sample": random_sample,
    "uniform_sample": uniform_sample,
    "deterministic_uniform_sample": deterministic_uniform_sample,
    "gaussian_sample": gaussian_sample,
    "multivariate_gaussian_sample": multivariate_gaussian_sample,
}
CHUNKS = "random_chunk_sample"


def get_sampler(name: str) -> Sampler:
    """Return the sampler of a published name, such as random_chunk_sample_16; ConfigError for any other."""
    if name in SAMPLERS:
        return SAMPLERS[name]
    match = re.fullmatch(rf"{CHUNKS}_([1-9][0-9]{{0,8}})", name)
    if match is None:
        names = [*SAMPLERS, f"{CHUNKS}_n"]
        raise ConfigError(f"{unknown_value('DVS.SAMPLER', name, names)} (n: events per chunk)")
    return functools.partial(random_chunk_sample, chunk=int(match[1]))


def choose(sampler: Sampler, n: int, k: int, rng: np.random.Generator) -> np.ndarray | slice:
    """The sampler's choice; all events where there are no more than k, or k is 0."""
    return sampler(n, k, rng) if 0 < k < n else slice(None)
