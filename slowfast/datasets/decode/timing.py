"""Which frames a prepared video has and when it shows them: pure functions.

n frames of the source, m of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Ticks a second of videos with a variable rate.
VARIABLE_RATE_TICKS = 90_000


@dataclass(frozen=True)
class Timing:
    """Output frame k shows source frame `source[k]` from `ticks[k]` x `time_base` seconds on."""

    rate: Fraction  # frames a second, nominal
    time_base: Fraction
    source: np.ndarray  # int64 (m,) not descending
    ticks: np.ndarray  # int64 (m,) ascending


def choose_timing(times: np.ndarray, fps: float, most_fps: float | None) -> Timing:
    """Timing for frames shown at `times` (n,), seconds, of a video of `fps` frames a second.

    Above `most_fps` (None: no limit) the video is resampled to it: at each instant the frame then on show. Else every
    frame is kept, at a constant rate where none is shown more than half a frame early or late.
    """
    rate = _simple(fps)
    if most_fps is not None and fps > most_fps:
        return _resampled(times, rate, _simple(most_fps))
    order = np.arange(len(times))
    if np.abs(times - order / fps).max(initial=0) <= 0.5 / fps:
        return Timing(rate, 1 / rate, order, order)
    ticks = np.round(times * VARIABLE_RATE_TICKS).astype(np.int64)
    ticks = np.maximum.accumulate(ticks - order) + order  # strictly ascending
    return Timing(rate, Fraction(1, VARIABLE_RATE_TICKS), order, ticks)


def _simple(rate: float) -> Fraction:
    """A rate above 0 as a fraction of small numbers: 30000/1001, 1/3600."""
    return Fraction(rate).limit_denominator(1001) if rate >= 1 else 1 / Fraction(1 / rate).limit_denominator(1001)


def _resampled(times: np.ndarray, rate: Fraction, target: Fraction) -> Timing:
    duration = float(times[-1]) + 1 / float(rate)
    ticks = np.arange(max(round(duration * float(target)), 1))
    instants = ticks / float(target) + 1e-6  # timestamps are rounded
    source = np.searchsorted(times, instants, side="right") - 1
    return Timing(target, 1 / target, np.maximum(source, 0), ticks)
