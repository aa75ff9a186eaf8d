"""Percentiles of latencies in constant memory, for cameras that run forever."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

_SHORTEST, _LONGEST = 1e-4, 1e4  # seconds; shorter and longer latencies are clamped
_RATIO = 1.02  # ratio between the edges of a bin
_BINS = math.ceil(math.log(_LONGEST / _SHORTEST) / math.log(_RATIO))


class LatencyHistogram:
    """Histogram of latencies with logarithmic bins: percentiles are within 1 % of exact ones."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, seconds: np.ndarray) -> None:
        """Add latencies (K,) in seconds."""
        bins = np.log(np.clip(seconds, _SHORTEST, _LONGEST) / _SHORTEST) / math.log(_RATIO)
        np.add.at(self._counts, np.minimum(bins.astype(np.int64), _BINS - 1), 1)

    @classmethod
    def total(cls, parts: Iterable[LatencyHistogram]) -> LatencyHistogram:
        """Return the combined histogram of several sources."""
        total = cls()
        for part in parts:
            total._counts += part._counts
        return total

    def percentile(self, percent: float) -> float:
        """Return the latency in seconds that `percent` % of the frames do not exceed (nearest rank); NaN if empty."""
        count = len(self)
        if not count:
            return math.nan
        rank = max(math.ceil(percent / 100 * count), 1)
        chosen = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(_SHORTEST * _RATIO ** (chosen + 0.5))
