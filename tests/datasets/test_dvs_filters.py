"""Event filters against loops over single events, for any split of the stream into blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.filters import BackgroundFilter, Box, RefractoryFilter, crop_events, downsample_events
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.statistics import hot_pixels

SENSOR = (5, 4)


@st.composite
def streams(draw: st.DrawFn) -> tuple[EventColumns, list[int]]:
    """Draw events on a small sensor, many of them at equal times, and where to cut them into blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(0, 80))
    t = np.sort(rng.integers(0, draw(st.integers(1, 300)), n)).astype(np.float64) + draw(
        st.sampled_from([-500, 0, 2**51])
    )
    y, x, p = (rng.integers(0, limit, n) for limit in (*SENSOR, 2))
    return EventColumns(x, y, t, p), sorted(draw(st.lists(st.integers(0, n), max_size=4)))


def in_blocks(keep: Callable[[EventColumns], np.ndarray], events: EventColumns, cuts: list[int]) -> list[bool]:
    kept = [keep(events.take(rows)) for rows in np.split(np.arange(len(events)), cuts)]
    return np.concatenate(kept).tolist()


@settings(deadline=None, max_examples=60)
@given(stream=streams(), duration=st.integers(0, 40))
def test_background_filter(stream: tuple[EventColumns, list[int]], duration: int) -> None:
    events, cuts = stream
    last: dict[tuple[int, int], float] = {}
    want = []
    for x, y, t in zip(events.x.tolist(), events.y.tolist(), events.t.tolist(), strict=True):
        near = [last[i, j] for i in (x - 1, x, x + 1) for j in (y - 1, y, y + 1) if (i, j) != (x, y) and (i, j) in last]
        want.append(any(t - time <= duration for time in near))
        last[x, y] = t
    assert in_blocks(BackgroundFilter(SENSOR, duration), events, cuts) == want


@settings(deadline=None, max_examples=60)
@given(stream=streams(), period=st.integers(1, 100))
def test_refractory_filter(stream: tuple[EventColumns, list[int]], period: int) -> None:
    events, cuts = stream
    fired: dict[tuple[int, int], float] = {}
    want = []
    for x, y, t in zip(events.x.tolist(), events.y.tolist(), events.t.tolist(), strict=True):
        want.append((x, y) not in fired or t - fired[x, y] >= period)
        if want[-1]:
            fired[x, y] = t
    assert in_blocks(RefractoryFilter(SENSOR, period), events, cuts) == want


@settings(deadline=None, max_examples=30)
@given(
    stream=streams(),
    box=st.builds(Box, st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6)),
    factor=st.integers(1, 5),
)
def test_crop_and_downsample(stream: tuple[EventColumns, list[int]], box: Box, factor: int) -> None:
    events = stream[0]
    rows = list(zip(events.x.tolist(), events.y.tolist(), events.t.tolist(), events.p.tolist(), strict=True))
    want = [
        ((x - box.x) // factor, (y - box.y) // factor, t, p)
        for x, y, t, p in rows
        if box.x <= x < box.x + box.width and box.y <= y < box.y + box.height
    ]
    found = downsample_events(crop_events(events, box), factor)
    assert list(zip(found.x.tolist(), found.y.tolist(), found.t.tolist(), found.p.tolist(), strict=True)) == want


def test_hot_pixels() -> None:
    counts = np.random.default_rng(0).poisson(20, (30, 40))
    counts[7, 9], counts[20, 3], counts[5, 5] = 2000, 3000, 60
    active = [int(count) for count in counts.ravel() if count]
    mean = sum(active) / len(active)
    deviation = (sum((count - mean) ** 2 for count in active) / len(active)) ** 0.5
    limit = max(mean + 5 * deviation, 10 * sorted(active)[len(active) // 2])
    want = {(y, x) for y in range(30) for x in range(40) if counts[y, x] > limit}
    assert set(zip(*(axis.tolist() for axis in np.nonzero(hot_pixels(counts))), strict=True)) == want
    assert want == {(7, 9), (20, 3)} and not hot_pixels(np.zeros((2, 2), np.int64)).any()
