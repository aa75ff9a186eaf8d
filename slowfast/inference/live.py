"""`slowfast predict` on cameras and streams: the latest window is classified at a given rate.

Predictions are shown as they are made, and written to files.

Notation: L frames of a window, V views of T frames, K classes.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from slowfast.config.node import ConfigNode
from slowfast.datasets.decode.reader import DecodeError, check_read_size
from slowfast.datasets.index.samples import target_files
from slowfast.datasets.types import EvalVideo, Failure
from slowfast.engine.evaluate import best_classes
from slowfast.errors import UserError
from slowfast.event_driven.sources import Source
from slowfast.inference.live_loop import (
    LATENCIES,
    SHOW_EVERY,
    Classified,
    LiveStream,
    classify_samples,
    latency_cells,
    report_live,
    run_live,
)
from slowfast.inference.live_sources import LiveFrame, LiveFrames, LiveScale
from slowfast.inference.output import results_folder, run_facts
from slowfast.inference.predictor import Predictor
from slowfast.inference.segment_output import SegmentLog, window_facts
from slowfast.inference.segments import SegmentCollector, VideoSegments
from slowfast.inference.window_reader import ClipSampling, clip_dataset
from slowfast.inference.windows import WindowLayout, WindowOptions
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import phase, show
from slowfast.utils.signals import StopSignal
from slowfast.visualization.results import BEST, tail
from slowfast.visualization.video_writer import SourceVideos, class_lines, draw_lines, pad_to_even

_MIN_SIDE = 448  # pixels of the longer side of annotated videos: frames are enlarged so that the text is legible
_FEWEST, _MEASURED = 8, 1.0  # frames, and seconds of frames, from which the frame rate is measured
_RATE_TOLERANCE = 0.1  # relative difference of the measured frame rate from the stated one that is ignored


@dataclass(frozen=True)
class VideoWindow:
    """Latest window of a live source.

    Attributes:
        sample: Views of the window.
        start: Start in seconds after the first frame.
        end: End in seconds.
        arrived: perf_counter() when its last frame had arrived.
    """

    sample: EvalVideo
    start: float
    end: float
    arrived: float


class LiveVideo(LiveStream[LiveFrame, VideoWindow]):
    """State of a live video source: its latest frames, and when its next window is due.

    The latency of a window counts from the arrival of its last frame.

    Args:
        source: The source.
        frames: Thread that reads it.
        sampling: Sampling of the clips of a window.
        layout: Length and distance of the windows.
    """

    def __init__(self, source: Source, frames: LiveFrames, sampling: ClipSampling, layout: WindowLayout) -> None:
        super().__init__(source.record)
        self.frames, self._sampling, self._layout = frames, sampling, layout
        self._latest: deque[LiveFrame] = deque()
        self._due: float | None = None  # time of the source
        self._classified = -1.0  # time of the last frame that was classified

    def read(self) -> list[LiveFrame]:
        """Take the frames that have arrived, keep those of the latest window, and return all of them."""
        if self.frames.fatal is not None:
            raise self.frames.fatal
        arrived = self.frames.take()
        for frame in arrived:
            if self._latest and frame.image.shape != self._latest[-1].image.shape:
                self._latest.clear()  # a camera whose settings were changed
            self._latest.append(frame)
        if arrived:
            # One frame more than the window, for rounding, and enough to measure the frame rate.
            oldest = arrived[-1].seconds - max(self._layout.window, _MEASURED) - 1 / self.fps
            while len(self._latest) > _FEWEST and self._latest[0].seconds < oldest:
                self._latest.popleft()
            try:
                check_read_size(len(self._latest), *arrived[-1].image.shape[:2])
            except DecodeError as error:
                raise UserError(f"{self.record.name}: {error}. Use a shorter --window") from None
        return arrived

    @property
    def fps(self) -> float:
        """Frame rate in frames/s: that of the latest frames if it differs from the rate that the source states."""
        stated = float(self.frames.rate or 1)
        if len(self._latest) < _FEWEST:
            return stated
        seconds = self._latest[-1].seconds - self._latest[0].seconds
        measured = (len(self._latest) - 1) / seconds if seconds > 0 else stated
        return stated if abs(measured / stated - 1) <= _RATE_TOLERANCE else measured

    @property
    def is_due(self) -> bool:
        """True if the step has passed and there are enough frames."""
        if not self._latest or len(self._latest) < self._layout.frames(self.fps):
            return False
        newest = self._latest[-1].seconds
        if self.frames.ended:
            return newest > self._classified
        return self._due is None or newest >= self._due - 0.5 / self.fps

    def window(self) -> VideoWindow:
        """Return the latest window."""
        fps = self.fps
        latest = list(self._latest)[-self._layout.frames(fps) :]
        newest = latest[-1].seconds
        due = newest if self._due is None else self._due
        late = max(int((newest - due) / self._layout.step), 0)
        self.skipped += late
        self._due, self._classified = due + (late + 1) * self._layout.step, newest
        shown = self._sampling.rows(len(latest), fps)  # (V, T)
        distinct, rows = np.unique(shown, return_inverse=True)
        frames = np.stack([latest[number].image for number in distinct.tolist()])
        sample = self._sampling.sample(self.record, frames, rows.reshape(shown.shape))
        return VideoWindow(sample, latest[0].seconds, newest + 1 / fps, latest[-1].arrived)

    @property
    def ended(self) -> bool:
        """True if no frame will arrive any more."""
        return self.frames.ended

    def close(self, wait: float) -> None:
        """Stop reading."""
        self.frames.close(wait)

    def failure(self) -> Failure | None:
        """Return the failure of a source that has ended, also before its first window."""
        reason = self.frames.error
        if reason is None and not self.windows and self.frames.ended:
            seconds = self._latest[-1].seconds + 1 / self.fps if self._latest else 0.0
            reason = f"it ended after {seconds:g} s, before the first window of {self._layout.window:g} s was complete"
        record = self.record
        return None if reason is None else Failure(record.index, record.name, reason, lost=not self.windows)


class LivePredictor:
    """Classifies the latest window of each of several live sources.

    Args:
        predictor: Predictor of the model.
        sampling: Sampling of the clips of a window.
        layout: Length of the windows, and the time between two of them.
        scale: Scaling of the frames.
    """

    def __init__(self, predictor: Predictor, sampling: ClipSampling, layout: WindowLayout, scale: LiveScale) -> None:
        self.predictor, self.sampling, self.layout, self.scale = predictor, sampling, layout, scale
        predictor.forward.prepare_model(predictor.model)

    @classmethod
    def from_config(cls, cfg: ConfigNode, options: WindowOptions) -> LivePredictor:
        """Build the model and load its weights. Raises UserError, also for networks that do not take clips."""
        sampling = ClipSampling.from_config(cfg)
        scale = LiveScale(clip_dataset(cfg).decoded_side(sampling.transform), sampling.transform)
        layout = WindowLayout.from_options(options, sampling.temporal)
        return cls(Predictor.from_config(cfg), sampling, layout, scale)

    def run(
        self,
        sources: Sequence[Source],
        on_frames: Callable[[LiveVideo, Sequence[LiveFrame]], None],
        on_window: Callable[[Classified[VideoWindow]], None],
        stopped: Callable[[], bool],
    ) -> list[LiveVideo]:
        """Classify until all sources have ended, or `stopped` returns True.

        Args:
            sources: The sources.
            on_frames: Called with the frames of a source that have arrived.
            on_window: Called with each window.
            stopped: Returns True to end.

        Returns:
            The sources.
        """
        self._warm_up()
        arrived = threading.Event()
        streams = [LiveVideo(s, LiveFrames(s, self.scale, arrived), self.sampling, self.layout) for s in sources]
        run_live(streams, self._classify, arrived, on_frames, on_window, stopped)
        return streams

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Run the model once: the first call takes longer."""
        one, side = self.predictor, self.sampling.transform.crop_size
        frames = self.sampling.rows(1, 1.0).shape[1]
        clip = torch.zeros(1, frames, side, side, 3, dtype=torch.uint8)
        with one.forward.autocast():
            one.model(one.forward.prepare(clip))

    def _classify(self, windows: Sequence[VideoWindow]) -> list[tuple[torch.Tensor | None, float]]:
        """Compute the scores of windows; runs in the thread of the network."""
        return classify_samples(self.predictor, [window.sample for window in windows])


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
        self._videos = SourceVideos(targets)
        self._lines: dict[int, list[str]] = {}  # drawn on the frames, by source
        self._shown: dict[int, tuple[int, float]] = {}  # class and time of the last line, by source

    def __enter__(self) -> LiveOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.collector.finish()
        self._videos.__exit__(kind)

    def on_frames(self, stream: LiveVideo, frames: Sequence[LiveFrame]) -> None:
        """Write frames to the annotated video, with the latest prediction."""
        record, fps = stream.record, stream.fps
        if record.index not in self.collector.videos:
            self.collector.begin(VideoSegments(record, fps, 0.0))
            self._videos.begin(record, stream.frames.rate or Fraction(1), stream.frames.time_base)
        video = self.collector.videos[record.index]
        video.fps, video.seconds = fps, frames[-1].seconds + 1 / fps
        for frame in frames if self._videos.is_open(record) else []:
            zoom = -(-_MIN_SIDE // max(frame.image.shape))
            image = pad_to_even(frame.image.repeat(zoom, axis=0).repeat(zoom, axis=1))
            self._videos.add(record, draw_lines(image, self._lines.get(record.index, [])), frame.tick)

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
    about = run_facts(cfg) | window_facts(live.layout, options)
    annotated = {"annotated videos": folder / "annotated"} if annotate else {}
    return report_live(streams, out.collector, names, about, folder, stop, live_table, annotated)


def live_table(streams: Sequence[LiveVideo]) -> str:
    """Return a table of the windows and latencies of each source."""
    rows = [(tail(one.record.name, 48), one.windows, one.skipped, *latency_cells(one.latencies)) for one in streams]
    heading = ("source", "windows", "skipped", *LATENCIES)
    return tabulate(rows, heading, tablefmt="simple", disable_numparse=True)
