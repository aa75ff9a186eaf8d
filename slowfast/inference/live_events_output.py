"""`slowfast events live`: predictions of event streams on the screen and a page as they are made, and as files."""

from __future__ import annotations

import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.engine.evaluate import best_classes
from slowfast.inference.event_sources import EventSource
from slowfast.inference.live_events import EventWindowOptions, LiveEventPredictor, LiveEvents, StreamWindow
from slowfast.inference.live_loop import LATENCIES, PERCENTILES, SHOW_EVERY, Classified, latency_cells, report_live
from slowfast.inference.live_page import LivePage
from slowfast.inference.output import results_folder, run_facts
from slowfast.inference.segment_output import SegmentLog
from slowfast.inference.segments import SegmentCollector, VideoSegments
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import Heartbeat, phase, show
from slowfast.utils.signals import StopSignal
from slowfast.utils.text import sanitize
from slowfast.visualization.results import BEST, tail

_WARN_EVERY = 10.0  # seconds between warnings about losses
NO_EVENTS = "no events"


class EventOutput:
    """Output of a run on event streams: lines on the screen, the page, warnings, and the segments.

    Args:
        names: Class names.
        log: segments.csv.
        merge: Merge neighboring windows of one class.
        terminal: Whether the screen is a terminal, in which each source has one line that changes.
        page: Page that shows the predictions; None for none.
    """

    def __init__(
        self, names: Sequence[str], log: SegmentLog, merge: bool, terminal: bool, page: LivePage | None
    ) -> None:
        self.collector = SegmentCollector(merge, log.write, at_once=True)
        self._names, self._terminal, self._page = names, terminal, page
        self._bars: dict[int, tqdm[Any]] = {}
        self._shown: dict[int, tuple[str, float]] = {}  # class and time of the last line, by source
        self._losses: dict[int, tuple[dict[str, int], float]] = {}  # when they were reported last, by source

    def close(self, streams: Sequence[LiveEvents]) -> None:
        """Complete the segments and their facts."""
        self.collector.finish()
        for stream in streams:
            self._warn(stream, at_once=True)
            if stream.record.index in self.collector.videos:
                self.collector.videos[stream.record.index].facts = stream_facts(stream)
        for bar in self._bars.values():
            bar.close()

    def on_events(self, stream: LiveEvents, blocks: Sequence[EventColumns]) -> None:
        """Note losses."""
        self._warn(stream)

    def on_window(self, done: Classified[StreamWindow]) -> None:
        """Show a window, and add its prediction to the segments."""
        stream, window = done.stream, done.window
        assert isinstance(stream, LiveEvents)
        record = stream.record
        if record.index not in self.collector.videos:
            self.collector.begin(VideoSegments(record, 0.0, 0.0))
        self.collector.videos[record.index].seconds = window.end
        best: list[tuple[str, float]] = []
        if done.scores is None:
            self.collector.interrupt(record)
        else:
            self.collector.add(done.window_scores, done.latency)
            best = [(self._names[label], score) for label, score in best_classes(done.scores, BEST)]
        self._show(stream, window, best, done.latency)
        if self._page is not None:
            self._page.update(stream, window, best, done.latency)
        self._warn(stream)

    def _show(
        self, stream: LiveEvents, window: StreamWindow, best: Sequence[tuple[str, float]], latency: float
    ) -> None:
        index, what = stream.record.index, best[0][0] if best else _silence(stream)
        now = time.monotonic()
        last, when = self._shown.get(index, ("", -math.inf))
        if not self._terminal and what == last and now - when < SHOW_EVERY:
            return
        self._shown[index] = what, now
        line = window_line(stream, window, what, best, latency)
        if not self._terminal:
            show(line)
            return
        columns = shutil.get_terminal_size().columns  # also where the system does not know it
        if index not in self._bars:
            options: dict[str, Any] = {"total": 0, "bar_format": "{desc}", "file": sys.stdout, "ncols": columns}
            self._bars[index] = tqdm(position=index, leave=True, **options)
        self._bars[index].ncols = columns
        self._bars[index].set_description_str(sanitize(line))

    def _warn(self, stream: LiveEvents, *, at_once: bool = False) -> None:
        """Log losses since the last warning, at most every _WARN_EVERY seconds."""
        before, when = self._losses.get(stream.record.index, ({}, -math.inf))
        now, losses = time.monotonic(), stream.losses
        if losses == before or (now - when < _WARN_EVERY and not at_once):
            return
        new = {reason: count - before.get(reason, 0) for reason, count in losses.items()}
        self._losses[stream.record.index] = losses, now
        text = ", ".join(f"{count} {reason}" for reason, count in new.items() if count)
        advice = ". The network is slower than the windows: use a longer --step" if new.get("dropped windows") else ""
        get_logger().warning(f"{stream.record.name}: {text}{advice}")


def _silence(stream: LiveEvents) -> str:
    away = stream.feed.source.live and stream.feed.connection.absence is not None
    return f"{NO_EVENTS}: no connection" if away else NO_EVENTS


def window_line(
    stream: LiveEvents, window: StreamWindow, what: str, best: Sequence[tuple[str, float]], latency: float
) -> str:
    """Return the line about a window."""
    score = f"{100 * best[0][1]:5.1f} %" if best else " " * 7
    text = f"{tail(stream.record.name, 32)} {window.end:8.2f} s  {score}  {what}  (latency {1e3 * latency:.0f} ms"
    if len(stream.latencies) > 1:
        text += "; " + " ".join(f"p{rank} {1e3 * stream.latencies.percentile(rank):.0f}" for rank in PERCENTILES)
    dropped = f", {stream.skipped} windows dropped" if stream.skipped else ""
    return f"{text}; {stream.rate:,.0f} events/s{dropped})"


def stream_facts(stream: LiveEvents) -> dict[str, Any]:
    """Return what is known of a finished source, for segments.json."""
    known = len(stream.latencies) > 0
    latency = {f"p{rank}": round(1e3 * stream.latencies.percentile(rank), 1) for rank in PERCENTILES} if known else {}
    losses = {reason.replace(" ", "_"): count for reason, count in stream.losses.items()}
    counts = {"events": stream.events, "windows": stream.windows, "windows_without_events": stream.silent}
    return {**counts, **losses, "reconnects": stream.feed.connection.reconnects, "latency_ms": latency}


def events_table(streams: Sequence[LiveEvents]) -> str:
    """Return a table of the windows and latencies of each source."""
    rows = [
        (tail(s.record.name, 48), f"{s.events:,}", s.windows, s.silent, s.skipped, *latency_cells(s.latencies))
        for s in streams
    ]
    heading = ("source", "events", "windows", NO_EVENTS, "dropped", *LATENCIES)
    return tabulate(rows, heading, tablefmt="simple", disable_numparse=True)


def events_to_files(
    cfg: ConfigNode,
    sources: Sequence[EventSource],
    output: Path,
    options: EventWindowOptions,
    *,
    merge: bool = False,
    page: Callable[[str, EventWindowOptions], LivePage] | None = None,
) -> int:
    """Classify the latest windows of event streams, show the predictions and write the results.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP end the run normally. segments.csv is written as the windows are classified, the
    other files at the end.

    Args:
        cfg: Config for evaluating the model.
        sources: The sources.
        output: Output folder.
        options: Windows.
        merge: Merge neighboring windows of one class.
        page: Returns the page for the name of a model and the options; None for no page.

    Returns:
        The exit status.

    Raises:
        UserError: If weights are missing or the network does not take events.
        DataError: If nothing could be classified because of a failure.
    """
    with phase("building the model and loading its weights"):
        live = LiveEventPredictor.from_config(cfg, options)
    names, folder = live.predictor.names, results_folder(output)
    log = SegmentLog(folder, names, live=True)
    shown = None if page is None else page(cfg.MODEL.MODEL_NAME, options)
    out = EventOutput(names, log, merge, sys.stdout.isatty(), shown)
    streams: list[LiveEvents] = []
    with StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
        try:
            if shown is not None:
                shown.start()
            get_logger().info(f"Classifying {options.text}. Press Ctrl-C to stop")
            Heartbeat.end()  # waiting for events is no work
            streams = live.run(sources, out.on_events, out.on_window, lambda: stop.seen)
        finally:
            out.close(streams)
            if streams and out.collector.videos:
                log.open()  # also if no window had events
            log.close()
            if shown is not None:
                shown.close()
    about = {"by": "events" if options.by_count else "seconds", "window": options.length, "step": options.step}
    about |= {"merged": merge}
    return report_live(streams, out.collector, names, run_facts(cfg) | about, folder, stop, events_table, {})
