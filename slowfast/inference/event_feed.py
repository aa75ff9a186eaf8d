"""Thread that reads a source of live events, checks them, and gives them times of a common clock.

Stream time is in microseconds since the source was first opened; it goes on when a source is reopened or its clock
jumps.

Notation: n events of a block.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np

from slowfast.datasets.dvs.formats.base import EventBlock, Sensor
from slowfast.datasets.dvs.recording import MAX_STRAY
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.errors import UserError
from slowfast.event_driven.connection import Connection, SourceThread
from slowfast.inference.event_sources import EventSource, OpenEvents
from slowfast.utils.logging import get_logger

QUEUED = 2**21  # events that wait to be taken, about 27 MB; the oldest of a live source are dropped
_FEW = 100  # events from which on a wrong sensor size is recognized
_JUMP = 10.0  # seconds that a clock may be ahead of ours, more than before
_BACK = 1e6  # microseconds; a larger step back is a new start of the clock
_SPAN = 10.0  # seconds for which a delay of the source is remembered
_ROOM = 0.05  # seconds between checks for room


class StreamClock:
    """Maps the times of a source to stream time, and stream time to perf_counter().

    Args:
        speed: Seconds of stream time per second; None if the source does not follow a clock.
        live: Whether events may lag behind and clocks may jump.
        began: perf_counter() at stream time 0.
    """

    def __init__(self, speed: float | None, live: bool, began: float) -> None:
        self.speed, self._live, self._began = speed, live, began
        self._base: int | None = None  # source time of stream time 0
        self.last = 0.0  # stream time of the last event
        self._arrived = began  # perf_counter() of its arrival
        self._lags: deque[tuple[float, float]] = deque()  # (perf_counter(), lag in seconds), ascending lags

    def restart(self) -> None:
        """Expect another time of the source: it was reopened."""
        self._base = None

    def stream_times(self, t: np.ndarray, arrived: float) -> tuple[np.ndarray, str]:
        """Map ascending times of the source (n,) that arrived at perf_counter().

        Returns:
            Stream times, int64 (n,), and a description of a jump of the clock; "" without one.
        """
        jump, expected = "", self._expected(arrived)
        if self._base is not None and self._live:
            ahead = (float(t[0]) - self._base - max(self.last, expected)) / 1e6
            behind = self.last - (float(t[0]) - self._base)
            if ahead > _JUMP or behind > _BACK:
                jump = f"the clock of the source jumped by {ahead:+.1f} s" if ahead > 0 else "its clock started again"
                self._base = None
        elif self._base is not None and self.last - (float(t[0]) - self._base) > _BACK:
            jump, self._base = "the times of the recording start again", None
        if self._base is None:
            self._base = int(t[0]) - round(max(expected, self.last))
            self._lags.clear()
        times = t - self._base
        self._note(float(times[-1]), arrived)
        return times, jump

    def wall(self, stream_time: float) -> float:
        """Return the perf_counter() at which events of a stream time arrive at the earliest."""
        if self.speed is None:
            raise ValueError("the source follows no clock")
        lag = self._lags[0][1] if self._lags else 0.0
        return self._began + stream_time / 1e6 / self.speed + lag

    def watermark(self, now: float, patience: float) -> float:
        """Return the stream time before which no events are expected any more at perf_counter() `now`.

        Args:
            now: perf_counter().
            patience: Seconds that events may be late.
        """
        if self.speed is None:
            return -1.0
        return self.last + (now - self._arrived - patience) * 1e6 * self.speed

    def _expected(self, now: float) -> float:
        return 0.0 if self.speed is None else max((now - self._began) * 1e6 * self.speed, 0.0)

    def _note(self, last: float, arrived: float) -> None:
        """Remember the last event, and the smallest lag of the latest seconds: clocks drift."""
        self.last, self._arrived = max(self.last, last), arrived
        if self.speed is None:
            return
        lag = arrived - self._began - last / 1e6 / self.speed
        while self._lags and self._lags[-1][1] >= lag:
            self._lags.pop()
        self._lags.append((arrived, lag))
        while self._lags[0][0] < arrived - _SPAN:
            self._lags.popleft()


class EventFeed(SourceThread):
    """Reader of a source of live events.

    A live source that was connected once is reopened after it has ended. One that cannot be connected at first, or that
    sends something else than events, is a failure.

    Args:
        source: The source.
        sensor: Sensor height and width of the network in pixels.
        connection: Connection to it.
        arrived: Event set after every change of state.
        queued: Largest number of events that wait to be taken.

    Attributes:
        events: Number of events that arrived.
        dropped: Number of those that were dropped because they were not taken in time.
        stray: Number of those outside of the sensor, which are dropped.
        disordered: Number of those with a time before that of an earlier one, which are dropped.
    """

    def __init__(
        self,
        source: EventSource,
        sensor: Sensor,
        connection: Connection,
        arrived: threading.Event,
        queued: int = QUEUED,
    ) -> None:
        super().__init__(source.record.index, source.record.name, connection, arrived)
        self.source, self._sensor, self._queued = source, sensor, queued
        self.events = self.dropped = self.stray = self.disordered = 0
        self.clock: StreamClock | None = None
        self._connected = self._sized = False
        self._blocks: deque[EventColumns] = deque()
        self._waiting, self._lock = 0, threading.Lock()
        self.start()

    @property
    def real_time(self) -> bool:
        """True if the events arrive at their own speed."""
        return self.clock is None or self.clock.speed is not None

    @property
    def opens_again(self) -> bool:
        """True if it is live and was connected once."""
        return self.source.live and self._connected and super().opens_again

    @property
    def ended(self) -> bool:
        """True if no more events will arrive and all were taken."""
        return self._done and not self._blocks

    def take(self) -> list[EventColumns]:
        """Return the events that have arrived since the last call. Raises errors that are fatal."""
        if self.fatal is not None:
            raise self.fatal
        with self._lock:
            taken = list(self._blocks)
            self._blocks.clear()
            self._waiting = 0
        return taken

    def watermark(self, patience: float) -> float:
        """Return the stream time before which no events are expected any more; -1 if only events tell."""
        if self.clock is None or self._done:
            return -1.0
        return self.clock.watermark(time.perf_counter(), patience)

    def read_once(self) -> None:
        """Open the source and read it until it ends."""
        self.error = None
        try:
            opened = self.source.open()
        except UserError:
            raise
        except Exception as error:
            self.error = self.reason(error)
            return
        try:
            self._read(opened)
            self.error = opened.missing
        except UserError:
            raise
        except Exception as error:
            if not self._stop.is_set():
                self.error = self.reason(error)
                self._connected = self.events > 0  # otherwise the server speaks another protocol
        finally:
            opened.close()

    def _read(self, opened: OpenEvents) -> None:
        if self.clock is None and self.source.live:
            self.clock = StreamClock(opened.speed, True, time.perf_counter())
        elif self.clock is not None:
            self.clock.restart()
        self._connected = True
        if self.source.live:
            self.connection.arrived(0)
        for block in opened.blocks(self._stop.is_set):
            if self._stop.is_set():
                return
            if not self._sized and opened.sensor is not None:
                self._check_size(opened.sensor)
            if block is None:
                continue
            now = time.perf_counter()
            if self.clock is None:
                self.clock = StreamClock(opened.speed, False, now)  # starts with the first event
            if self.source.live:
                self.connection.arrived(len(block.t))
            self.events += len(block.t)
            events = self._checked(block, self.clock, now)
            if len(events):
                self._append(events, opened.speed is not None)

    def _check_size(self, stated: Sensor) -> None:
        """Raise UserError if the source states a larger sensor than that of the network; warn of a smaller one."""
        self._sized = True
        if stated == self._sensor:
            return
        text = (
            f"{self._name}: the sensor has {stated[0]} x {stated[1]} pixels (height x width), but DVS.SENSOR_SIZE is "
            f"{self._sensor[0]} x {self._sensor[1]}"
        )
        if stated[0] > self._sensor[0] or stated[1] > self._sensor[1]:
            raise UserError(f"{text}. Use a network that was trained for this sensor, or set the key")
        get_logger().warning(text)

    def _checked(self, block: EventBlock, clock: StreamClock, now: float) -> EventColumns:
        """Return the valid events of a block, in stream time and in ascending order."""
        t, x, y, p = block
        if (t[1:] < t[:-1]).any():
            order = np.argsort(t, kind="stable")
            t, x, y, p = (column[order] for column in block)
        before = clock.last
        times, jump = clock.stream_times(t, now)
        if jump:
            get_logger().warning(f"{self._name}: {jump}")
        outside = (x >= self._sensor[1]) | (y >= self._sensor[0]) | (x < 0) | (y < 0)
        early = times < before
        if outside.any():
            self._count_stray(x, y, outside)
        self.disordered += int(early.sum())
        events = EventColumns(x, y, times, p)
        bad = outside | early
        return events.take(~bad) if bad.any() else events

    def _count_stray(self, x: np.ndarray, y: np.ndarray, outside: np.ndarray) -> None:
        if not self.stray:
            get_logger().warning(f"{self._name}: dropping events outside of the sensor")
        self.stray += int(outside.sum())
        if self.events >= _FEW and self.stray > MAX_STRAY * self.events:
            raise UserError(
                f"{self._name}: {self.stray} of {self.events} events are outside of the sensor of {self._sensor[0]} x "
                f"{self._sensor[1]} pixels (x up to {x.max()}, y up to {y.max()}). Check DVS.SENSOR_SIZE"
            )

    def _append(self, events: EventColumns, real_time: bool) -> None:
        """Queue events; a source in real time never waits for room."""
        while not real_time and self._waiting >= self._queued and not self._stop.wait(_ROOM):
            self._arrived.set()
        with self._lock:
            self._blocks.append(events)
            self._waiting += len(events)
            while real_time and self._waiting > self._queued and len(self._blocks) > 1:
                oldest = self._blocks.popleft()
                self._waiting -= len(oldest)
                self.dropped += len(oldest)
        self._arrived.set()
