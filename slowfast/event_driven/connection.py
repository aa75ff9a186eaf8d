"""Connection to a live source: its thread, losses, attempts to reconnect, and percentiles of latencies."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import numpy as np
import torch

from slowfast.datasets.types import failure_of, log_traceback
from slowfast.utils.logging import get_logger

LONGEST_DELAY = 60.0  # seconds between attempts to reconnect, unless EVENT.RECONNECT is longer
_SHORTEST, _LONGEST = 1e-4, 1e4  # seconds; shorter and longer latencies are clamped
_RATIO = 1.02  # ratio between the edges of a bin
_BINS = math.ceil(math.log(_LONGEST / _SHORTEST) / math.log(_RATIO))


class Connection:
    """State of the connection to a camera or stream; logs once when it is established, lost, and restored.

    The delay doubles from attempt to attempt. It starts again only after frames have arrived for longer than the last
    delay, so that a source that fails repeatedly is not reopened constantly.

    Args:
        name: Name of the source, for messages.
        first_delay: Delay in seconds before the first attempt (EVENT.RECONNECT); 0 if the source is not reopened.
        clock: Monotonic clock in seconds.
        unit: What the source delivers, for messages.

    Attributes:
        rate: Nominal frames/s; 0 for events.
        frames: Number of frames or events that have arrived.
        reconnects: Number of times that the connection was lost and restored.
        attempts: Number of failed attempts since the last frame.
        ended: True once the source will no longer be read.
    """

    def __init__(
        self, name: str, first_delay: float, clock: Callable[[], float] = time.monotonic, unit: str = "frames"
    ) -> None:
        self.name, self.unit, self.rate = name, unit, 0.0
        self.frames = self.reconnects = self.attempts = 0
        self.ended = False
        self._first, self._delay, self._clock = first_delay, 0.0, clock
        self._connected = False  # whether it was ever connected
        self._away, self._before = True, 0.0  # whether it is disconnected; total seconds of past interruptions
        self._since = self._last_frame = clock()  # beginning of the current state

    @property
    def reconnects_after_loss(self) -> bool:
        """True if the source is reopened after it was lost."""
        return self._first > 0

    @property
    def seconds_away(self) -> float:
        """Seconds without connection since the source was first opened."""
        return self._before + (self._clock() - self._since if self._away else 0.0)

    @property
    def absence(self) -> float | None:
        """Seconds since the last frame if the source is disconnected; None while it is connected."""
        return self._clock() - self._since if self._away else None

    def arrived(self, count: int) -> None:
        """Count frames or events; none if only the connection is there."""
        now = self._clock()
        if self._away:
            self._restore(now)
        self._last_frame = now
        self.frames += count

    def lost(self, reason: str) -> float:
        """Record that the source has ended or cannot be opened.

        Args:
            reason: Reason, for the message about the first failure since the last frame.

        Returns:
            Seconds to wait before the next attempt.
        """
        if not self._away:
            if self._last_frame - self._since > self._delay:
                self._delay = 0.0
            self._away, self._since = True, self._last_frame
        self._delay = min(max(2 * self._delay, self._first), max(LONGEST_DELAY, self._first))
        if not self.attempts:
            growing = f"; later attempts at up to {LONGEST_DELAY:g} s" if self._first < LONGEST_DELAY else ""
            get_logger().warning(f"{self.name}: {reason}. Reconnecting in {self._delay:g} s{growing}")
        self.attempts += 1
        return self._delay

    def end(self) -> None:
        """Record that the source will no longer be read."""
        self._before = self.seconds_away
        self._away, self.ended = False, True

    def _restore(self, now: float) -> None:
        """Log the first frame, and the first one after an interruption."""
        away = now - self._since
        tries = f" after {away:.1f} s, {self.attempts} attempt{'s' * (self.attempts > 1)}" if self.attempts else ""
        if self._connected:
            missed = f"about {away * self.rate:.0f} {self.unit} missed, {self.frames}"
            counts = missed if self.rate else f"{self.frames} {self.unit}"
            get_logger().info(f"{self.name}: back{tries}; {counts} received before")
            self.reconnects += 1
        else:
            rate = f", {self.rate:g} {self.unit}/s" if self.rate else ""
            get_logger().info(f"{self.name}: connected{tries}{rate}")
        self._connected = True
        self._before += away
        self._away, self._since, self.attempts = False, now, 0


class LatencyHistogram:
    """Histogram of latencies with logarithmic bins: percentiles are within 1 % of exact ones."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, seconds: np.ndarray) -> None:
        """Add latencies (K,) in seconds."""
        bins = np.log(np.clip(seconds, _SHORTEST, _LONGEST) / _SHORTEST) / math.log(_RATIO)
        np.add.at(self._counts, np.minimum(bins.astype(np.int64), _BINS - 1), 1)

    @classmethod
    def total(cls, parts: Iterable[LatencyHistogram]) -> LatencyHistogram:
        """Return the combined histogram of several sources."""
        total = cls()
        for part in parts:
            total._counts += part._counts
        return total

    def percentile(self, percent: float) -> float:
        """Return the latency in seconds that `percent` % of the frames do not exceed (nearest rank); NaN if empty."""
        count = len(self)
        if not count:
            return math.nan
        rank = max(math.ceil(percent / 100 * count), 1)
        chosen = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(_SHORTEST * _RATIO ** (chosen + 0.5))


class SourceThread(ABC):
    """Reader of a live source in a thread.

    Args:
        index: Index of the source.
        name: Its name.
        connection: Connection to it; it is reopened after it has ended for any reason if there is a delay.
        arrived: Event to set when anything has happened.

    Attributes:
        error: Reason of the failure, once the source has ended.
        fatal: Error unrelated to the source, raised by the consumer.
        ran_out: Whether the source has ended before it was stopped.
    """

    def __init__(self, index: int, name: str, connection: Connection, arrived: threading.Event) -> None:
        self.connection, self._arrived = connection, arrived
        self.error: str | None = None
        self.fatal: BaseException | None = None
        self.ran_out = False
        self._index, self._name = index, name
        self._stop, self._done = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"reading {name}")

    @abstractmethod
    def read_once(self) -> None:
        """Open the source and read it until it ends; set `error` if it failed. Raises errors that are fatal."""

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._stop.set()

    def close(self, wait: float) -> None:
        """Stop and wait up to `wait` seconds for the thread, which may be waiting for data."""
        self.stop()
        self._thread.join(wait)

    @property
    def opens_again(self) -> bool:
        """True if the source is opened again after it has ended."""
        return self.connection.reconnects_after_loss

    def reason(self, error: Exception) -> str:
        """Return why the source cannot be read; log the traceback of an unexpected error."""
        failure = failure_of(self._index, self._name, error)
        log_traceback(failure)
        return failure.reason

    def _run(self) -> None:
        torch.set_num_threads(1)  # limits this thread; live sources share the cores
        try:
            self.read_once()
            while self.opens_again and not self._stop.is_set():
                if not self._stop.wait(self.connection.lost(self.error or "the stream ended")):
                    self.read_once()
        except BaseException as error:  # for example a UserError, which the consumer raises
            self.fatal = error
        finally:
            self.ran_out, self._done = not self._stop.is_set(), True
            self._arrived.set()
