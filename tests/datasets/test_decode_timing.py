"""Timing of re-encoded videos."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.decode.container import VARIABLE_RATE_TICKS, choose_timing


def test_constant_rate_survives_rounded_times() -> None:
    times = np.round(np.arange(100) / 29.97, 3)
    timing = choose_timing(times, 29.97, None)
    assert timing.rate == Fraction(2997, 100) and timing.time_base == 1 / timing.rate
    assert timing.source.tolist() == timing.ticks.tolist() == list(range(100))


@given(st.lists(st.integers(0, 400), min_size=1, max_size=50), st.none() | st.sampled_from([5.0, 12.5, 24.0]))
def test_variable_rates(gaps: list[int], most_fps: float | None) -> None:
    times = np.cumsum([0, *gaps]) / 1000  # milliseconds, repeats too
    fps = len(gaps) / max(times[-1], 0.001)
    timing = choose_timing(times, fps, most_fps)
    assert (np.diff(timing.ticks) > 0).all() and (np.diff(timing.source) >= 0).all()
    shown = timing.ticks * float(timing.time_base)
    if most_fps is not None and fps > most_fps:
        assert timing.rate == Fraction(most_fps)
        for instant, source in zip(shown, timing.source, strict=True):  # the last frame begun by then
            assert times[source] <= instant + 1e-5
            assert source + 1 == len(times) or times[source + 1] > instant
    else:
        assert timing.source.tolist() == list(range(len(times)))
        tolerance = max(0.5 / fps, len(times) / VARIABLE_RATE_TICKS)
        assert np.abs(shown - times).max() <= tolerance + 1e-6


def test_half_the_rate_is_every_other_frame() -> None:
    timing = choose_timing(np.arange(60) / 60, 60, 30)
    assert timing.source.tolist() == list(range(0, 60, 2))
    assert choose_timing(np.arange(60) / 25, 25, 30).source.tolist() == list(range(60))
