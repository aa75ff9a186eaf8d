"""Readers of live event streams: bounded memory, clocks, addresses."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from event_files import SENSOR

from slowfast.event_driven.connection import Connection
from slowfast.inference.event_feed import EventFeed, StreamClock
from slowfast.inference.event_sources import StreamAddress
from tests.inference.event_servers import Blocks, block, some, source


def test_memory_is_bounded_and_losses_are_counted() -> None:
    blocks = [block(some(100, 1000 * k, 1000 * k + 900)) for k in range(20)]
    feed = EventFeed(source(Blocks(list(blocks))), SENSOR, Connection("camera", 0.0), threading.Event(), queued=500)
    while not feed._done:
        time.sleep(0.01)
    assert sum(map(len, feed.take())) == 500 and feed.dropped == 1500 and feed.ended
    # A recording that is read as fast as possible waits instead.
    waiting = source(Blocks(list(blocks), None), live=False)
    feed = EventFeed(waiting, SENSOR, Connection("camera", 0.0), threading.Event(), queued=500)
    total = 0
    while not feed.ended:
        taken = sum(map(len, feed.take()))
        assert taken <= 600
        total += taken
        time.sleep(0.01)
    assert total == 2000 and not feed.dropped


def test_clock_of_a_stream() -> None:
    clock = StreamClock(1.0, True, began=100.0)
    assert clock.watermark(100.5, 0.1) == pytest.approx(0.4e6)  # no event yet
    times, jump = clock.stream_times(np.array([5_000_000, 5_010_000]), 101.0)
    assert times.tolist() == [1_000_000, 1_010_000] and not jump
    clock.stream_times(np.array([5_500_000]), 101.7)  # 0.2 s late
    assert clock.wall(1_600_000) == pytest.approx(100 + 1.6 - 0.01)  # by the earliest
    assert clock.watermark(102.0, 0.1) == pytest.approx(1_500_000 + 200_000)
    times, jump = clock.stream_times(np.array([4_900_000]), 101.8)
    assert times.tolist() == [900_000] and not jump  # an event out of order
    times, jump = clock.stream_times(np.array([10**15]), 102.0)
    assert "jumped by" in jump and times.tolist() == [2_000_000]
    times, jump = clock.stream_times(np.array([7]), 102.5)
    assert "started again" in jump and times.tolist() == [2_500_000]
    clock.restart()
    times, jump = clock.stream_times(np.array([8]), 110.0)
    assert not jump and times.tolist() == [10_000_000]


def test_addresses() -> None:
    parse = StreamAddress.parse
    assert parse("dv://camera.local:7777") == StreamAddress("camera.local", 7777, "", "aedat4")
    assert parse("TCP://[::1]:5?format=evt3") == StreamAddress("::1", 5, "", "evt3")
    assert parse("dv:///run/dv.sock") == StreamAddress("", 0, "/run/dv.sock", "aedat4")
    assert parse("unix:///run/a.sock") == StreamAddress("", 0, "/run/a.sock", None)
