"""Timing of re-encoded videos: which source frames they show, and when.

Notation: n frames of the source, m frames of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Ticks per second for videos with a variable frame rate.
VARIABLE_RATE_TICKS = 90_000


@dataclass(frozen=True)
class Timing:
    """Timing of a video: output frame k shows source frame ``source[k]`` from ``ticks[k] * time_base`` seconds on."""

    rate: Fraction  # nominal frames/s
    time_base: Fraction
    source: np.ndarray  # int64 (m,), non-descending
    ticks: np.ndarray  # int64 (m,), strictly ascending


def choose_timing(times: np.ndarray, fps: float, max_fps: float | None) -> Timing:
    """Choose the timing of a re-encoded video.

    A video above the maximum frame rate is resampled to it: each output frame is the source frame shown at that time.
    Otherwise every frame is kept, at a constant rate if that shifts no frame by more than half a frame.

    Args:
        times: Display times of the source frames in seconds, (n,).
        fps: Frame rate of the source in frames/s.
        max_fps: Largest frame rate in frames/s; None for no limit.
    """
    rate = _simple(fps)
    if max_fps is not None and fps > max_fps:
        return _resampled(times, rate, _simple(max_fps))
    order = np.arange(len(times))
    if np.abs(times - order / fps).max(initial=0) <= 0.5 / fps:
        return Timing(rate, 1 / rate, order, order)
    ticks = np.round(times * VARIABLE_RATE_TICKS).astype(np.int64)
    ticks = np.maximum.accumulate(ticks - order) + order  # strictly ascending
    return Timing(rate, Fraction(1, VARIABLE_RATE_TICKS), order, ticks)


def _simple(rate: float) -> Fraction:
    """Approximate a positive rate by a fraction of small numbers: 30000/1001, 1/3600."""
    return Fraction(rate).limit_denominator(1001) if rate >= 1 else 1 / Fraction(1 / rate).limit_denominator(1001)


def _resampled(times: np.ndarray, rate: Fraction, target: Fraction) -> Timing:
    duration = float(times[-1]) + 1 / float(rate)
    ticks = np.arange(max(round(duration * float(target)), 1))
    instants = ticks / float(target) + 1e-6  # timestamps are rounded
    source = np.searchsorted(times, instants, side="right") - 1
    return Timing(target, 1 / target, np.maximum(source, 0), ticks)
