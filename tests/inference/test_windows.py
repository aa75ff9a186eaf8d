"""Arithmetic of sliding windows, compared with plain loops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.sampling import SegmentSampling, SpanSampling
from slowfast.errors import UserError
from slowfast.inference.windows import (
    Length,
    WindowLayout,
    WindowOptions,
    WindowPlan,
    at_constant_rate,
    window_starts,
)

SPAN = SpanSampling(16, 4, 30, True)


def plain_starts(frames: int, length: int, step: Fraction) -> list[int]:
    """Collect the starts one by one."""
    starts: list[int] = []
    number = 0
    while (start := math.floor(number * step + Fraction(1, 2))) + length <= frames:
        starts.append(start)
        number += 1
    covered = starts[-1] + length
    if covered < frames and start < frames:  # the next window begins in the video, but does not end in it
        starts.append(frames - length)
    return starts


@given(
    length=st.integers(1, 40),
    more=st.integers(0, 200),
    step=st.fractions(1, 60, max_denominator=8),
)
def test_starts_of_windows(length: int, more: int, step: Fraction) -> None:
    frames = length + more
    found = window_starts(frames, length, float(step)).tolist()
    assert found == plain_starts(frames, length, step)
    assert found[0] == 0 and all(a < b for a, b in zip(found, found[1:], strict=False))
    if step <= length:  # every frame is in a window
        assert {frame for start in found for frame in range(start, start + length)} == set(range(frames))


@given(gaps=st.lists(st.integers(1, 12), min_size=1, max_size=60), fps=st.sampled_from([5, 10, 25]))
def test_frames_at_a_constant_rate_are_those_on_the_screen(gaps: list[int], fps: int) -> None:
    times = np.cumsum([0, *gaps]) / 50
    source = at_constant_rate(times, fps)
    if len(source) == len(times) and (source == np.arange(len(times))).all():
        return
    for number, shown in enumerate(source.tolist()):
        middle = (number + 0.5) / fps
        assert shown == max(place for place, time in enumerate(times) if time <= middle)


def test_a_constant_rate_keeps_every_frame_in_spite_of_rounding() -> None:
    times = np.round(np.arange(5000) * 1001 / 30000, 3)  # milliseconds, as in Matroska
    assert at_constant_rate(times, 30000 / 1001).tolist() == list(range(5000))
    with pytest.raises(DecodeError, match="timestamps span"):
        at_constant_rate(np.array([0.0, 1e9]), 30.0)


@given(
    length=st.integers(1, 30),
    more=st.integers(0, 90),
    step=st.floats(1, 40),
    rows=st.lists(st.integers(0, 29), min_size=1, max_size=8),
)
def test_needed_and_held_frames(length: int, more: int, step: float, rows: list[int]) -> None:
    frames = length + more
    plan = WindowPlan(np.arange(frames), window_starts(frames, length, step), length, 25.0)
    shown = np.array([row % length for row in rows])
    windows = [set(plan.frames(number, shown).tolist()) for number in range(len(plan))]
    assert set(np.flatnonzero(plan.needed(shown)).tolist()) == set.union(*windows)
    # A frame is held from when it is decoded to the last window that may show it, as by read_windows.
    for number, window in enumerate(windows):
        decoded = {frame for other in windows for frame in other if frame <= max(window)}
        held = {frame for frame in decoded if frame >= min(window)}
        assert len(held) <= plan.most_held(shown), number


def test_lengths_in_seconds_and_clips() -> None:
    clip = 64 / 30
    layout = WindowLayout.from_options(WindowOptions(), SPAN)
    assert (layout.window, layout.step) == pytest.approx((clip, clip))
    layout = WindowLayout.from_options(WindowOptions(Length(2, clips=True), Length(0.5)), SPAN)
    assert (layout.window, layout.step) == pytest.approx((2 * clip, 0.5))
    with pytest.raises(UserError, match="Give --window and --step in seconds"):
        WindowLayout.from_options(WindowOptions(), SegmentSampling(8))


def test_plan_of_a_video() -> None:
    plan = WindowLayout(2.0, 1.5).plan(np.arange(100) / 25, 25.0)
    assert [plan.seconds(number) for number in range(len(plan))] == [(0.0, 2.0), (1.52, 3.52), (2.0, 4.0)]
    with pytest.raises(DecodeError, match=r"a window of 5 s is longer than the video, which has 4 s"):
        WindowLayout(5.0, 1.0).plan(np.arange(100) / 25, 25.0)
