"""Clocks: interleaved runs whose first is discarded, their medians and ratios, and shares of a call's time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from slowfast.runtime.device import synchronize


@dataclass(frozen=True)
class Timings:
    """Seconds of each case, one value a run; the runs of a place in the lists followed one another directly."""

    seconds: dict[str, list[float]]

    def summed(self, count: int) -> Timings:
        """Runs of so many consecutive ones each."""
        parts = {
            case: [sum(seconds[start : start + count]) for start in range(0, len(seconds), count)]
            for case, seconds in self.seconds.items()
        }
        return Timings(parts)

    def median(self, case: str) -> float:
        """The median over runs, seconds."""
        return median(self.seconds[case])

    def ratio(self, case: str, other: str) -> float:
        """The median over runs of `case` / `other`: what slows the machine for a while slows both."""
        pairs = zip(self.seconds[case], self.seconds[other], strict=True)
        return median(one / two for one, two in pairs)


def time_interleaved(
    cases: Mapping[str, Callable[[], object]], runs: int, device: torch.device, warm_up: int = 1
) -> Timings:
    """Run all cases one after another, `warm_up` times untimed and then `runs` times. A GPU's work is waited for."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for run in range(warm_up + runs):
        for name, case in cases.items():
            synchronize(device)
            start = time.perf_counter()
            case()
            synchronize(device)
            if run >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return Timings(seconds)


class Stopwatch:
    """Seconds spent in each of several named pieces of code; time in a piece inside another counts for it alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]  # seconds spent in pieces inside those now open, outermost first

    @contextmanager
    def measure(self, piece: str) -> Iterator[None]:
        """Add the time of the block to `piece`."""
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[piece] += spent - self._inner.pop()
            self._inner[-1] += spent
