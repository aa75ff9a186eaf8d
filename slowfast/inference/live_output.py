"""`slowfast predict` on cameras and streams: predictions on the screen as they are made, and as files at the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import cv2
from tabulate import tabulate

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.samples import target_files
from slowfast.datasets.types import FailureLedger, failure_reason
from slowfast.engine.evaluate import best_classes
from slowfast.errors import DataError
from slowfast.event_driven.connection import LatencyHistogram
from slowfast.event_driven.sources import Source
from slowfast.inference.annotate import class_lines
from slowfast.inference.live import LivePredictor, LiveVideo, VideoWindow
from slowfast.inference.live_loop import Classified, LiveStream
from slowfast.inference.live_sources import LiveFrame
from slowfast.inference.output import FAILED, results_folder, run_facts
from slowfast.inference.segments import SegmentLog, VideoSegments, write_segments
from slowfast.inference.sliding import SegmentCollector
from slowfast.inference.windows import WindowOptions
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import phase, show, show_table
from slowfast.utils.signals import StopSignal
from slowfast.visualization.results import BEST, files_table, tail, write_failed
from slowfast.visualization.video_writer import VideoWriter, draw_lines, pad_to_even

_MIN_SIDE = 448  # pixels of the longer side of annotated videos, so that the text is legible
SHOW_EVERY = 1.0  # seconds between lines about a source whose class does not change
PERCENTILES = (50, 95, 99)
LATENCIES = [f"latency p{rank}" for rank in PERCENTILES]
Stream = TypeVar("Stream", bound=LiveStream[Any, Any])


class AnnotatedStream:
    """Context manager that writes the frames of a live source, with text, to an .mp4 file.

    Frames are enlarged by a whole number, so that the text is legible. All have the size of the first.

    Args:
        target: File to write.
        rate: Nominal frames/s.
        time_base: Seconds per tick.
    """

    def __init__(self, target: Path, rate: Fraction | None, time_base: Fraction) -> None:
        self._out = VideoWriter(target, rate or Fraction(1), time_base)
        self._size: tuple[int, int] | None = None  # width and height
        self._discarded = False

    def write(self, frame: LiveFrame, lines: Sequence[str]) -> None:
        """Write a frame with lines of text."""
        zoom = -(-_MIN_SIDE // max(frame.image.shape))
        image = pad_to_even(frame.image.repeat(zoom, axis=0).repeat(zoom, axis=1))
        self._size = self._size or (image.shape[1], image.shape[0])
        if self._size != (image.shape[1], image.shape[0]):
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        self._out.write(draw_lines(image, lines), frame.tick)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._discarded = True
        self._out.__exit__(RuntimeError)

    def __enter__(self) -> AnnotatedStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if not self._discarded:
            self._out.__exit__(kind, *error)


class LiveOutput:
    """Output of a run on live sources: lines on the screen, annotated videos, and the segments.

    Args:
        names: Class names.
        log: segments.csv.
        merge: Merge neighboring windows of one class.
        targets: Annotated video of the index of each source; empty for none.
    """

    def __init__(self, names: Sequence[str], log: SegmentLog, merge: bool, targets: dict[int, Path]) -> None:
        self.names = names
        self.collector = SegmentCollector(merge, log.write, at_once=True)
        self._targets = targets
        self._drawn: dict[int, AnnotatedStream] = {}
        self._lines: dict[int, list[str]] = {}  # drawn on the frames, by source
        self._shown: dict[int, tuple[int, float]] = {}  # class and time of the last line, by source
        self._at_end = ExitStack()

    def __enter__(self) -> LiveOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.collector.finish()
        self._at_end.__exit__(kind, error, None)

    def on_frames(self, stream: LiveVideo, frames: Sequence[LiveFrame]) -> None:
        """Write frames to the annotated video, with the latest prediction."""
        record, index = stream.record, stream.record.index
        if index not in self.collector.videos:
            self.collector.begin(VideoSegments(record, stream.fps, 0.0))
            if index in self._targets:
                with self._attempt(stream):
                    drawn = AnnotatedStream(self._targets[index], stream.frames.rate, stream.frames.time_base)
                    self._drawn[index] = self._at_end.enter_context(drawn)
        video = self.collector.videos[index]
        video.fps, video.seconds = stream.fps, frames[-1].seconds + 1 / stream.fps
        with self._attempt(stream):
            for frame in frames if index in self._drawn else []:
                self._drawn[index].write(frame, self._lines.get(index, []))

    @contextmanager
    def _attempt(self, stream: LiveVideo) -> Iterator[None]:
        """Give up the annotated video of a source, not the run, if it cannot be written."""
        name, index = stream.record.name, stream.record.index
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            get_logger().warning(f"Could not write the annotated video of {name}: {failure_reason(error)}")
            if index in self._drawn:
                self._drawn.pop(index).discard()

    def on_window(self, done: Classified[VideoWindow]) -> None:
        """Show the prediction of a window and add it to the segments."""
        record, window, latency = done.stream.record, done.window_scores, done.latency
        index = record.index
        self.collector.add(window, latency)
        best = best_classes(window.scores, BEST)
        self._lines[index] = class_lines([(self.names[label], score) for label, score in best])
        label, now = best[0][0], time.monotonic()
        last, when = self._shown.get(index, (-1, 0.0))
        if label != last or now - when >= SHOW_EVERY:
            self._shown[index] = label, now
            what = f"{window.end:8.1f} s  {100 * best[0][1]:5.1f} %  {self.names[label]}"
            show(f"{tail(record.name, 32)} {what}  (latency {1e3 * latency:.0f} ms)")


def live_to_files(
    cfg: ConfigNode, sources: Sequence[Source], output: Path, options: WindowOptions, *, annotate: bool = False
) -> int:
    """Classify the latest windows of cameras and streams, show the predictions and write the results.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP end the run normally. segments.csv is written as the windows are classified, the
    other files at the end.

    Args:
        cfg: Config for evaluating the model.
        sources: Live sources.
        output: Output folder.
        options: Windows; the step is the time between two predictions.
        annotate: Also write the frames, as scaled for the network, with the latest prediction as .mp4.

    Returns:
        The exit status.

    Raises:
        UserError: If weights are missing or the network does not take clips.
        DataError: If nothing could be classified because of a failure.
    """
    with phase("building the model and loading its weights"):
        live = LivePredictor.from_config(cfg, options)
    names, folder = live.predictor.names, results_folder(output)
    log, records = SegmentLog(folder, names, live=True), [source.record for source in sources]
    files = target_files(records if annotate else [], folder / "annotated", ".mp4")
    targets = {record.index: file for record, file in zip(records, files, strict=False)}
    every = f"the latest {live.layout.window:g} s every {live.layout.step:g} s"
    get_logger().info(f"Classifying {every}. Press Ctrl-C to stop")
    with StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
        try:
            with LiveOutput(names, log, options.merge, targets) as out:
                streams = live.run(sources, out.on_frames, out.on_window, lambda: stop.seen)
        finally:
            log.close()
    about = {"window": round(live.layout.window, 4), "step": round(live.layout.step, 4), "merged": options.merge}
    annotated = {"annotated videos": folder / "annotated"} if annotate else {}
    return report_live(streams, out.collector, names, run_facts(cfg) | about, folder, stop, live_table, annotated)


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
    files = write_segments(videos, names, about, ledger.all, folder)
    write_failed(ledger.all, folder / FAILED)
    files |= {"failed sources": folder / FAILED} if ledger.all else {}
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


def live_table(streams: Sequence[LiveVideo]) -> str:
    """Return a table of the windows and latencies of each source."""
    rows = [(tail(one.record.name, 48), one.windows, one.skipped, *latency_cells(one.latencies)) for one in streams]
    heading = ("source", "windows", "skipped", *LATENCIES)
    return tabulate(rows, heading, tablefmt="simple", disable_numparse=True)


def latency_cells(latencies: LatencyHistogram) -> list[str]:
    """Return the cells of a table below LATENCIES; "-" without a window."""
    known = len(latencies) > 0
    return [f"{1e3 * latencies.percentile(rank):.0f} ms" if known else "-" for rank in PERCENTILES]
