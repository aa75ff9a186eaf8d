"""Windows of event streams, live and of recordings, against plain references."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.event_windows import (
    CountWindows,
    EventBuffer,
    LiveWindows,
    TimeWindows,
    windows_by_count,
    windows_by_time,
)
from slowfast.datasets.dvs.sample import EventColumns


def columns(times: np.ndarray) -> EventColumns:
    return EventColumns(np.arange(len(times), dtype=np.uint16), np.zeros(len(times), np.uint16), times, times % 2)


def events(n: int, seed: int = 0) -> EventColumns:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n) for limit in (16, 12, 2))
    return EventColumns(x, y, np.sort(rng.integers(0, 1000, n)).astype(float), p)


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Times of a stream, and where it is cut."""
    times = np.sort(np.array(draw(st.lists(st.integers(0, 300), max_size=40)), np.int64))
    return times, sorted(draw(st.lists(st.integers(0, len(times)), max_size=5)))


def pieces(whole: EventColumns, cuts: list[int]) -> list[EventColumns]:
    bounds = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole.take(np.arange(a, b)) for a, b in zip(bounds, bounds[1:], strict=False)]


def taken(windows: LiveWindows, watermark: float) -> list[tuple[int, list[int]]]:
    found = []
    while windows.complete(watermark):
        window = windows.take()
        found.append((window.number, window.events.t.tolist()))
    return found


@settings(deadline=None, max_examples=40)
@given(stream=streams(), length=st.integers(5, 120), step=st.integers(5, 120), silent=st.booleans())
def test_live_windows_by_time(stream: tuple[np.ndarray, list[int]], length: int, step: int, silent: bool) -> None:
    times, cuts = stream
    windows, found = TimeWindows(length, step, skip_silence=not silent), []
    for piece in pieces(columns(times), cuts):
        windows.append(piece)
        found += taken(windows, -1.0)
    if silent:
        found += taken(windows, 400.0)  # the camera is silent, but its time passes
        last = (400 - length) // step
    else:
        while windows.rest():
            found += taken(windows, -1.0)
        last = 400
    want = [(k, times[(times >= k * step) & (times < k * step + length)].tolist()) for k in range(last + 1)]
    if silent:
        assert found == want and windows.late == windows.skipped == 0
        return
    want = [window for window in want if window[1]]
    covered = [number for number, events in want if events[-1] == times[-1]]
    assert [one for one in found if one[1]] == [one for one in want if one[0] <= min(covered, default=400)]


@settings(deadline=None, max_examples=40)
@given(stream=streams(), count=st.integers(1, 9), step=st.integers(1, 12))
def test_live_windows_by_count(stream: tuple[np.ndarray, list[int]], count: int, step: int) -> None:
    times, cuts = stream
    windows, found = CountWindows(count, step), []
    for piece in pieces(columns(times), cuts):
        windows.append(piece)
        found += taken(windows, 0.0)
    starts = range(0, len(times) - count + 1, step)
    assert found == [(number, times[at : at + count].tolist()) for number, at in enumerate(starts)]


def test_the_newest_window_wins_and_the_others_are_counted() -> None:
    windows = TimeWindows(100.0, 10.0, max_held=80)
    windows.append(columns(np.arange(0, 300, 2)))
    assert windows.lost == 70 and windows.complete(-1.0) == 20  # up to [190, 290)
    window = windows.take(19)
    assert (window.number, window.start, window.end) == (19, 190.0, 290.0) and windows.skipped == 19
    assert window.events.t.tolist() == list(range(190, 290, 2))
    windows.append(columns(np.array([298, 299])))
    assert windows.complete(1000.0) == 71 and windows.take(70).number == 90
    windows.append(columns(np.array([950, 2000])))  # the first one is of [900, 1000), which was taken
    assert windows.late == 0 and windows.take().events.t.tolist() == [950]
    late = TimeWindows(100.0, 100.0)
    assert late.complete(250.0) == 2 and not len(late.take().events) and not len(late.take().events)
    late.append(columns(np.array([150, 199, 200])))
    assert late.late == 2 and late.complete(300.0) == 1 and late.take().events.t.tolist() == [200]


def test_views_stay_valid_and_room_is_bounded() -> None:
    buffer, kept = EventBuffer(), []
    for first in range(0, 200_000, 500):
        buffer.append(columns(np.arange(first, first + 500)))
        kept.append(buffer.view(len(buffer) - 100, len(buffer)))
        buffer.discard(max(len(buffer) - 700, 0))
    assert all(view.t.tolist() == list(range(500 * k + 400, 500 * k + 500)) for k, view in enumerate(kept))
    assert len(buffer) == 700 and len(buffer._columns[0]) <= 2**13


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    count=st.integers(1, 9),
    step=st.integers(1, 12),
)
def test_windows_of_a_recording_by_count(n: int, cuts: list[int], count: int, step: int) -> None:
    whole = events(n)
    found = [window.t.tolist() for window in windows_by_count(pieces(whole, cuts), count, step)]
    assert found == [whole.t[at : at + count].tolist() for at in range(0, n - count + 1, step)]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    duration=st.integers(20, 600),
    step=st.integers(20, 600),
)
def test_windows_of_a_recording_by_time(n: int, cuts: list[int], duration: int, step: int) -> None:
    whole = events(n)
    found = [window.t.tolist() for window in windows_by_time(pieces(whole, cuts), duration, step)]
    starts = np.arange(whole.t[0], whole.t[-1] + 1, step)
    want = [whole.t[(whole.t >= start) & (whole.t < start + duration)].tolist() for start in starts]
    assert found == [window for window in want if window]


def test_windows_come_as_soon_as_they_are_whole() -> None:
    taken = []

    def stream() -> Iterator[EventColumns]:
        for number in range(4):
            taken.append(number)
            yield EventColumns(*(np.zeros(5, int),) * 2, np.arange(5) + 10.0 * number, np.zeros(5, int))

    next(windows_by_count(stream(), 5))
    assert taken == [0]
    taken.clear()
    next(windows_by_time(stream(), 10))
    assert taken == [0, 1]


@pytest.mark.parametrize("step", [50.0, 20.0, 70.0])
def test_a_gap_between_events_takes_no_time(step: float) -> None:
    times = np.array([0, 10, 1e12, 1e12 + 30, 1e12 + 200, 3e15])
    zeros = np.zeros(len(times), np.int64)
    stream = EventColumns(zeros, zeros, times, zeros)
    for parts in ([stream], [stream.take(np.array([place])) for place in range(len(times))]):
        windows = [window.t.tolist() for window in windows_by_time(parts, 50.0, step)]
        assert windows[0] == [0, 10] and all(windows) and windows[-1][-1] in (3e15, 1e12 + 200, 1e12 + 30)
        for window in windows:
            start = window[0] - window[0] % step  # windows begin at multiples of the step
            assert window[-1] < start + 50 + step


def test_invalid_windows_and_streams_out_of_order() -> None:
    back = EventColumns(*(np.zeros(3),) * 2, np.array([0.0, 2.0, 1.0]), np.zeros(3))
    with pytest.raises(ValueError, match="time decreases"):
        list(windows_by_time([back], 5))
    for windows in (windows_by_count([], 0), windows_by_time([], 0.0), windows_by_count([], 3, 0)):
        with pytest.raises(ValueError, match="must be"):
            next(windows)
    with pytest.raises(ValueError, match="time decreases"):
        list(windows_by_count([events(9), events(9, 1)], 30))
