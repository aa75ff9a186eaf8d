"""Live predictions: the latest window of each source is classified while the next one arrives; report at the end.

Notation: K classes.
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from slowfast.datasets.loader import stack_clips
from slowfast.datasets.types import EvalSample, Failure, FailureLedger, Record
from slowfast.errors import DataError
from slowfast.event_driven.connection import LatencyHistogram
from slowfast.inference.predictor import Predictor
from slowfast.inference.segment_output import write_segments
from slowfast.inference.segments import SegmentCollector, WindowScores
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import show_table
from slowfast.utils.signals import StopSignal
from slowfast.visualization.results import files_table

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips

SHOW_EVERY = 1.0  # seconds between lines about a source whose class does not change
PERCENTILES = (50, 95, 99)
LATENCIES = [f"latency p{rank}" for rank in PERCENTILES]
POLL = 0.1  # seconds between checks whether to stop
_JOIN = 2.0  # seconds for all reading threads to end; a stream may be waiting for data


class LiveWindow(Protocol):
    """Window of a live source."""

    @property
    def start(self) -> float:
        """Start in seconds after the beginning of the source."""

    @property
    def end(self) -> float:
        """End in seconds."""

    @property
    def arrived(self) -> float:
        """perf_counter() from which on the latency counts."""


Window = TypeVar("Window", bound=LiveWindow)
Item = TypeVar("Item")
Stream = TypeVar("Stream", bound="LiveStream[Any, Any]")


class LiveStream(ABC, Generic[Item, Window]):
    """State of a live source: its latest data, and when its next window is due.

    Args:
        record: The source.

    Attributes:
        windows: Number of windows that were classified.
        skipped: Number of windows that were left out because the network was busy.
        latencies: Histogram of the latencies of the windows in seconds.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.windows, self.skipped = 0, 0
        self.latencies = LatencyHistogram()

    @abstractmethod
    def read(self) -> Sequence[Item]:
        """Take what has arrived, keep what the next windows need, and return all of it.

        Raises:
            UserError: If the source raised one, or the data of a window takes too much memory.
        """

    @property
    @abstractmethod
    def is_due(self) -> bool:
        """True if a window should be classified now."""

    @abstractmethod
    def window(self) -> Window:
        """Return the latest window."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True if nothing will arrive any more."""

    @abstractmethod
    def failure(self) -> Failure | None:
        """Return the failure of a source that has ended, if there is one."""

    @abstractmethod
    def close(self, wait: float) -> None:
        """Stop reading, and wait up to `wait` seconds for the thread, which may be waiting for data."""

    @property
    def seconds_left(self) -> float:
        """Seconds until a window becomes due without new data, or POLL if that is sooner."""
        return POLL


@dataclass(frozen=True)
class Classified(Generic[Window]):
    """Window of a stream with its scores.

    Attributes:
        stream: The stream.
        window: The window.
        scores: Scores, float64 (K,); None if it contains nothing to classify.
        latency: Seconds from the arrival or end of the window to its scores.
    """

    stream: LiveStream[Any, Window]
    window: Window
    scores: torch.Tensor | None
    latency: float

    @property
    def window_scores(self) -> WindowScores:
        """The scores as those of a window of a video; ValueError if there are none."""
        if self.scores is None:
            raise ValueError("the window was not classified")
        return WindowScores(self.stream.record, self.window.start, self.window.end, self.scores)


def run_live(
    streams: Sequence[Stream],
    classify: Callable[[Sequence[Any]], list[tuple[torch.Tensor | None, float]]],
    arrived: threading.Event,
    on_items: Callable[[Stream, Sequence[Any]], None],
    on_window: Callable[[Classified[Any]], None],
    stopped: Callable[[], bool],
) -> None:
    """Classify until all sources have ended, or `stopped` returns True; then close the streams.

    The data is taken in the calling thread, so that its arrival is known to the millisecond, while another thread
    computes.

    Args:
        streams: The sources.
        classify: Returns the scores of windows, and perf_counter() when they were computed.
        arrived: Event that the streams set when anything has happened.
        on_items: Called with what has arrived from a source.
        on_window: Called with each window.
        stopped: Returns True to end.
    """
    job: Future[list[Classified[Any]]] | None = None

    def work(due: Sequence[tuple[Stream, Any]]) -> list[Classified[Any]]:
        results = classify([window for _, window in due])
        return [
            Classified(stream, window, scores, now - window.arrived)
            for (stream, window), (scores, now) in zip(due, results, strict=True)
        ]

    with ThreadPoolExecutor(1, thread_name_prefix="network") as pool:
        while True:
            arrived.wait(POLL if job is not None else min((s.seconds_left for s in streams), default=POLL))
            arrived.clear()
            for stream in streams:
                if items := stream.read():
                    on_items(stream, items)
            if job is not None and not job.done():
                continue
            for done in job.result() if job is not None else []:
                if done.scores is not None:
                    done.stream.windows += 1
                    done.stream.latencies.add(np.array([done.latency]))
                on_window(done)
            due = [] if stopped() else [(stream, stream.window()) for stream in streams if stream.is_due]
            job = pool.submit(work, due) if due else None
            if job is not None:
                job.add_done_callback(lambda _: arrived.set())
            elif stopped() or all(stream.ended for stream in streams):
                break
    until = time.monotonic() + _JOIN
    for stream in streams:
        stream.close(max(until - time.monotonic(), 0))


@torch.inference_mode()
def classify_samples(one: Predictor, samples: Iterable[EvalSample]) -> list[tuple[torch.Tensor | None, float]]:
    """Compute the scores of samples, whose views share batches, with a model prepared by `ClipForward.prepare_model`.

    Returns:
        The scores of each sample, float64 (K,), None for a sample without views; and perf_counter() when all of them
        were computed.
    """
    device, counts = one.forward.device, list[int]()
    clips: list[Clips] = []
    for sample in samples:
        clips.extend(sample.clips(device))
        counts.append(sample.count)
    outputs: list[torch.Tensor] = []
    for first in range(0, len(clips), one.batch_clips):
        inputs = one.forward.prepare(stack_clips(clips[first : first + one.batch_clips]))
        with one.forward.autocast():
            outputs.extend(one.model(inputs).float().cpu())
    now, found = time.perf_counter(), list[tuple[torch.Tensor | None, float]]()
    for count in counts:
        logits, outputs = outputs[:count], outputs[count:]
        found.append((one.ensemble(torch.stack(logits)) if count else None, now))
    return found


def report_live(
    streams: Sequence[Stream],
    collector: SegmentCollector,
    names: Sequence[str],
    about: Mapping[str, Any],
    folder: Path,
    stop: StopSignal,
    table: Callable[[Sequence[Stream]], str],
    written: Mapping[str, Path],
) -> int:
    """Write the files of a finished run and show what was done.

    Args:
        streams: The sources.
        collector: Their segments.
        names: Class names.
        about: How the predictions were made, for segments.json.
        folder: Output folder.
        stop: Signals that ended the run.
        table: Returns the table to show.
        written: Files that are written already, by description.

    Returns:
        The exit status.

    Raises:
        DataError: If nothing could be classified because of a failure.
    """
    ledger = FailureLedger(len(streams))
    ledger.add([failure for stream in streams if (failure := stream.failure())], log=len(streams) > 1)
    videos = [video for video in collector.videos.values() if video.segments or video.facts]
    if not videos or (ledger.lost and not any(video.segments for video in videos)):
        return _report_nothing(ledger, stop)
    files = write_segments(videos, names, about, ledger.all, folder, "sources")
    show_table(table(streams))
    for failure in ledger.all if len(streams) == 1 else []:
        get_logger().warning(f"{failure.name}: {failure.reason}")
    show_table(files_table(files | dict(written)))
    return 0


def _report_nothing(ledger: FailureLedger, stop: StopSignal) -> int:
    """Finish a run without predictions: raise DataError for a failure, KeyboardInterrupt after Ctrl-C."""
    if ledger.lost:
        first = ledger.lost[0]
        line = f"{first.name}: {first.reason}"
        raise DataError(
            line if ledger.total == 1 else f"none of {ledger.total} sources can be read. The first one: {line}"
        )
    if stop.name == signal.SIGINT.name:
        raise KeyboardInterrupt
    get_logger().warning(f"Received {stop.name} before any window was complete")
    return 0


def latency_cells(latencies: LatencyHistogram) -> list[str]:
    """Return the cells of a table below LATENCIES; "-" without a window."""
    known = len(latencies) > 0
    return [f"{1e3 * latencies.percentile(rank):.0f} ms" if known else "-" for rank in PERCENTILES]
