"""Predictions for live event streams: the latest window of each source is classified.

Notation: n events of a window, K classes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.event_windows import CountWindows, EventWindow, LiveWindows, TimeWindows
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.types import EvalSample, Failure
from slowfast.event_driven.connection import Connection
from slowfast.inference.event_feed import EventFeed
from slowfast.inference.event_sources import EventSource
from slowfast.inference.live_loop import (
    POLL,
    Classified,
    LiveStream,
    classify_samples,
    run_live,
)
from slowfast.inference.predictor import Predictor
from slowfast.inference.stream import WindowViews, window_views

_SOON = 1e-3  # seconds: the shortest wait for the end of a window
_RATE_SPAN = 2.0  # seconds over which the rate of events is measured


@dataclass(frozen=True)
class EventWindowOptions:
    """Windows of live event streams.

    Attributes:
        length: Length of a window in seconds, or events.
        step: Distance of the starts of two windows, in the same unit.
        by_count: Whether the unit is events.
        patience: Seconds that a window waits for late events after its time has passed.
        min_events: Windows with fewer events are not classified.
        reconnect: Seconds until a lost connection is opened again for the first time; 0 for never.
    """

    length: float = 1.0
    step: float = 1.0
    by_count: bool = False
    patience: float = 0.1
    min_events: int = 1
    reconnect: float = 1.0

    def windows(self, real_time: bool) -> LiveWindows:
        """Return the windows of a stream, which arrives at its own speed or faster."""
        if self.by_count:
            return CountWindows(int(self.length), int(self.step))
        return TimeWindows(1e6 * self.length, 1e6 * self.step, skip_silence=not real_time)

    @property
    def text(self) -> str:
        """Describe the windows."""
        unit = "events" if self.by_count else "s"
        return f"windows of {self.length:g} {unit} every {self.step:g} {unit}"


@dataclass(frozen=True)
class StreamWindow:
    """Window of a live source.

    Attributes:
        start: Start in seconds after the source was opened.
        end: End in seconds.
        arrived: perf_counter() when its time had passed.
        number: Number of the window, from 0.
        sample: Views for the network; None if there are too few events.
        events: Its events.
    """

    start: float
    end: float
    arrived: float
    number: int
    events: EventColumns
    sample: Callable[[], EvalSample] | None


class LiveEvents(LiveStream[EventColumns, StreamWindow]):
    """State of a live event stream.

    The latency of a window counts from its end: the time at which an event of that time arrives at the earliest, as the
    latest events show.

    Args:
        feed: Thread that reads the source.
        views: Conversion of windows to views.
        options: Windows.

    Attributes:
        events: Number of events that were taken.
        silent: Number of windows with too few events.
    """

    def __init__(self, feed: EventFeed, views: WindowViews, options: EventWindowOptions) -> None:
        super().__init__(feed.source.record)
        self.feed, self.events, self.silent = feed, 0, 0
        self._views, self._options = views, options
        self._windows: LiveWindows | None = None
        self._counts: list[tuple[float, int]] = []  # perf_counter() and number of events so far

    @property
    def windows_held(self) -> LiveWindows:
        """The windows; created when the source is open, since they depend on its speed."""
        if self._windows is None:
            self._windows = self._options.windows(self.feed.real_time)
        return self._windows

    def read(self) -> Sequence[EventColumns]:
        """Take the events that have arrived; none of a recording without a clock whose windows are not done."""
        if self.feed.fatal is None and not self.feed.real_time and self.windows_held.complete(-1.0):
            return []
        blocks = self.feed.take()
        if not blocks:
            return blocks
        for block in blocks:
            self.windows_held.append(block)
            self.events += len(block)
        now = time.perf_counter()
        self._counts.append((now, self.events))
        while len(self._counts) > 2 and self._counts[1][0] < now - _RATE_SPAN:
            self._counts.pop(0)
        return blocks

    @property
    def rate(self) -> float:
        """Events/s of the latest seconds."""
        now = time.perf_counter()
        old = [one for one in self._counts if one[0] >= now - _RATE_SPAN]
        if not old:
            return 0.0
        return (self.events - old[0][1]) / max(now - old[0][0], _SOON) if len(old) > 1 else 0.0

    @property
    def is_due(self) -> bool:
        """True if a window is complete: by a later event, by the clock, or by the end of the source."""
        if self.feed.clock is None:
            return False
        ended = self.feed.ended  # before the watermark, so that no event comes between
        if self.windows_held.complete(self.feed.watermark(self._options.patience)):
            return True
        return ended and self.windows_held.rest()

    def window(self) -> StreamWindow:
        """Return the latest complete window, in real time; otherwise the next one."""
        held, clock = self.windows_held, self.feed.clock
        assert clock is not None
        complete = held.complete(self.feed.watermark(self._options.patience))
        window = held.take(max(complete - 1, 0) if self.feed.real_time else 0)
        self.skipped = held.skipped
        classified = len(window.events) >= max(self._options.min_events, 1)
        self.silent += not classified
        now = time.perf_counter()
        arrived = min(clock.wall(window.end), now) if self.feed.real_time else now
        views = (lambda: self._views(self.record, window)) if classified else None
        return StreamWindow(window.start / 1e6, window.end / 1e6, arrived, window.number, window.events, views)

    @property
    def seconds_left(self) -> float:
        """Seconds until the time of the next window has passed."""
        if self.feed.clock is None or self.feed.clock.speed is None:
            return POLL
        missing = self.windows_held.next_end - self.feed.watermark(self._options.patience)
        return min(max(missing / 1e6 / self.feed.clock.speed, _SOON), POLL)

    @property
    def ended(self) -> bool:
        """True if no event will arrive any more."""
        return self.feed.ended

    def close(self, wait: float) -> None:
        """Stop reading."""
        self.feed.close(wait)

    def failure(self) -> Failure | None:
        """Return the failure of a source that has ended, also without a window."""
        reason = self.feed.error
        if reason is None and self.feed.ran_out and not self.windows:
            reason = f"it ended after {self.events} events, without a complete window"
        return None if reason is None else Failure(self.record.index, self.record.name, reason, lost=not self.windows)

    @property
    def losses(self) -> dict[str, int]:
        """Number of dropped windows and events, by reason, without zeros."""
        held, feed = self.windows_held, self.feed
        found = {
            "dropped windows": held.skipped,
            "dropped events": feed.dropped + held.lost,
            "late events": held.late,
            "events out of order": feed.disordered,
            "events outside of the sensor": feed.stray,
        }
        return {reason: count for reason, count in found.items() if count}


class LiveEventPredictor:
    """Classifies the latest window of each of several event streams.

    Args:
        predictor: Predictor of the model.
        views: Conversion of windows to views.
        options: Windows.
        sensor: Sensor height and width in pixels.
    """

    def __init__(
        self, predictor: Predictor, views: WindowViews, options: EventWindowOptions, sensor: tuple[int, int]
    ) -> None:
        self.predictor, self.views, self.options, self.sensor = predictor, views, options, sensor
        predictor.forward.prepare_model(predictor.model)

    @classmethod
    def from_config(cls, cfg: ConfigNode, options: EventWindowOptions) -> LiveEventPredictor:
        """Build the model and load its weights. Raises UserError, for networks that do not take events, too."""
        views = window_views(cfg, by_count=options.by_count)
        return cls(Predictor.from_config(cfg), views, options, (cfg.DVS.SENSOR_SIZE[0], cfg.DVS.SENSOR_SIZE[1]))

    def run(
        self,
        sources: Sequence[EventSource],
        on_events: Callable[[LiveEvents, Sequence[EventColumns]], None],
        on_window: Callable[[Classified[StreamWindow]], None],
        stopped: Callable[[], bool],
    ) -> list[LiveEvents]:
        """Classify until all sources have ended, or `stopped` returns True.

        Args:
            sources: The sources.
            on_events: Called with the events of a source that have arrived.
            on_window: Called with each window.
            stopped: Returns True to end.

        Returns:
            The sources.
        """
        self._warm_up(sources[0])
        arrived, streams = threading.Event(), list[LiveEvents]()
        for source in sources:
            connection = Connection(source.record.name, self.options.reconnect if source.live else 0.0, unit="events")
            feed = EventFeed(source, self.sensor, connection, arrived)
            streams.append(LiveEvents(feed, self.views, self.options))
        run_live(streams, self._classify, arrived, on_events, on_window, stopped)
        return streams

    def _warm_up(self, source: EventSource) -> None:
        """Run the model once: the first call takes longer."""
        t = np.arange(2, dtype=np.int64)
        window = EventWindow(0, 0.0, 1.0, EventColumns(*(np.zeros(2, np.int64),) * 2, t, np.zeros(2, np.int64)))
        classify_samples(self.predictor, [self.views(source.record, window)])

    def _classify(self, windows: Sequence[StreamWindow]) -> list[tuple[torch.Tensor | None, float]]:
        """Compute the scores of windows; runs in the thread of the network."""
        found: list[tuple[torch.Tensor | None, float]] = [(None, time.perf_counter())] * len(windows)
        full = [place for place, window in enumerate(windows) if window.sample is not None]
        samples = [sample() for place in full if (sample := windows[place].sample) is not None]
        for place, result in zip(full, classify_samples(self.predictor, samples), strict=True):
            found[place] = result
        return found
