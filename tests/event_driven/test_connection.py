"""Connections to live sources: losses, delays between attempts to reconnect, percentiles of latencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.event_driven.connection import LONGEST_DELAY, Connection, LatencyHistogram


class Clock:
    """Clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def deliver(connection: Connection, clock: Clock, frames: int, rate: float = 25) -> None:
    """Let frames arrive at a frame rate."""
    connection.rate = rate
    for number in range(frames):
        clock.now += 1 / rate if number else 0
        connection.arrived(1)


@pytest.mark.parametrize("first", [0.5, 7, 60, 100])
def test_delays_double_up_to_the_bound(first: float) -> None:
    clock = Clock()
    connection = Connection("door", first, clock)
    deliver(connection, clock, 10_000)
    expected = first
    for _ in range(12):
        delay = connection.lost("gone")
        assert delay == expected
        clock.now += delay
        expected = min(2 * expected, max(LONGEST_DELAY, first))


def test_one_message_when_lost_and_one_when_restored(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    connection = Connection("door", 2, clock)
    with caplog.at_level("INFO", "slowfast"):
        deliver(connection, clock, 100)
        for _ in range(3):
            clock.now += connection.lost("no data")
        assert connection.absence == 2 + 4 + 8
        clock.now += 1
        deliver(connection, clock, 50)
    assert caplog.messages == [
        "door: connected, 25 frames/s",
        "door: no data. Reconnecting in 2 s; later attempts at up to 60 s",
        "door: back after 15.0 s, 3 attempts; about 375 frames missed, 100 received before",
    ]
    assert (connection.reconnects, connection.frames, connection.absence) == (1, 150, None)
    assert connection.seconds_away == 15


def test_camera_that_is_not_there_at_first(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    connection = Connection("door", 1, clock)
    with caplog.at_level("INFO", "slowfast"):
        clock.now += connection.lost("cannot be opened")
        deliver(connection, clock, 1)
    assert caplog.messages[1] == "door: connected after 1.0 s, 1 attempt, 25 frames/s"
    assert connection.reconnects == 0 and connection.seconds_away == 1


def test_delay_keeps_growing_while_a_camera_fails_over_and_over() -> None:
    clock = Clock()
    connection = Connection("door", 1, clock)
    delays = []
    for frames in (100, 3, 3, 3, 1000, 3):  # 4 s, 0.08 s and 40 s at 25 frames/s
        deliver(connection, clock, frames)
        delays.append(connection.lost("gone"))
        clock.now += delays[-1]
    assert delays == [1, 2, 4, 8, 1, 2]


def test_time_away_ends_with_the_source() -> None:
    clock = Clock()
    connection = Connection("door", 0, clock)
    assert not connection.reconnects_after_loss
    clock.now += 3
    connection.end()
    clock.now += 100
    assert (connection.seconds_away, connection.absence, connection.ended) == (3, None, True)


LATENCIES = st.lists(st.lists(st.floats(1e-4, 1e3), max_size=20), min_size=1, max_size=4)


@given(LATENCIES, st.sampled_from([0, 1, 50, 95, 99, 100]))
def test_percentiles_are_those_of_all_sources(sources: list[list[float]], percent: float) -> None:
    parts = []
    for seconds in sources:
        parts.append(LatencyHistogram())
        parts[-1].add(np.array(seconds))
    total, everything = LatencyHistogram.total(parts), sum(sources, [])
    assert len(total) == len(everything)
    found = total.percentile(percent)
    if everything:
        expected = np.quantile(everything, percent / 100, method="inverted_cdf")
        assert abs(found / expected - 1) < 0.0101
    else:
        assert math.isnan(found)


def test_extreme_latencies_are_counted() -> None:
    histogram = LatencyHistogram()
    histogram.add(np.array([-1.0, 0.0, 1e9]))
    assert len(histogram) == 3 and histogram.percentile(50) < 1.1e-4 and histogram.percentile(100) > 9e3
