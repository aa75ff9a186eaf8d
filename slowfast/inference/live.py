"""Predictions for cameras and streams: the latest window is classified at a given rate.

Notation: L frames of a window, V views of T frames, K classes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.decode.reader import DecodeError, check_read_size
from slowfast.datasets.loader import stack_clips
from slowfast.datasets.types import EvalVideo, Failure
from slowfast.errors import UserError
from slowfast.event_driven.connection import LatencyHistogram
from slowfast.event_driven.sources import Source
from slowfast.inference.live_sources import LiveFrame, LiveFrames, LiveScale
from slowfast.inference.predictor import Predictor
from slowfast.inference.sliding import WindowScores
from slowfast.inference.window_reader import ClipSampling, clip_dataset
from slowfast.inference.windows import WindowLayout, WindowOptions
from slowfast.models.linear import pack_linears

_POLL = 0.1  # seconds between checks whether to stop
_FEWEST, _MEASURED = 8, 1.0  # frames, and seconds of frames, from which the frame rate is measured
_RATE_TOLERANCE = 0.1  # relative difference of the measured frame rate from the stated one that is ignored
_JOIN = 2.0  # seconds for all reading threads to end; a stream may be waiting for data


@dataclass(frozen=True)
class LiveWindow:
    """Latest window of a live source.

    Attributes:
        stream: The source.
        sample: Views of the window.
        start: Start in seconds after the first frame.
        end: End in seconds.
        arrived: perf_counter() when its last frame had arrived.
    """

    stream: LiveStream
    sample: EvalVideo
    start: float
    end: float
    arrived: float


@dataclass(frozen=True)
class ClassifiedWindow:
    """Scores of a live window, float64 (K,), and the seconds from the arrival of its last frame to them."""

    window: LiveWindow
    scores: torch.Tensor
    latency: float


class LiveStream:
    """State of a live source: its latest frames, and when its next window is due.

    Args:
        source: The source.
        frames: Thread that reads it.
        sampling: Sampling of the clips of a window.
        layout: Length and distance of the windows.

    Attributes:
        windows: Number of windows that were classified.
        skipped: Number of windows that were left out because the network was busy.
        latencies: Histogram of the seconds from the arrival of the last frame of each window to its prediction.
    """

    def __init__(self, source: Source, frames: LiveFrames, sampling: ClipSampling, layout: WindowLayout) -> None:
        self.source, self.frames, self._sampling, self._layout = source, frames, sampling, layout
        self.windows, self.skipped = 0, 0
        self.latencies = LatencyHistogram()
        self._latest: deque[LiveFrame] = deque()
        self._due: float | None = None  # time of the source
        self._classified = -1.0  # time of the last frame that was classified

    def read(self) -> list[LiveFrame]:
        """Take the frames that have arrived, keep those of the latest window, and return all of them.

        Raises:
            UserError: If the source raised one, or the frames of a window take too much memory.
        """
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
                raise UserError(f"{self.source.record.name}: {error}. Use a shorter --window") from None
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
        """True if a window should be classified now."""
        if not self._latest or len(self._latest) < self._layout.frames(self.fps):
            return False
        newest = self._latest[-1].seconds
        if self.frames.ended:
            return newest > self._classified
        return self._due is None or newest >= self._due - 0.5 / self.fps

    def window(self) -> LiveWindow:
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
        sample = self._sampling.sample(self.source.record, frames, rows.reshape(shown.shape))
        return LiveWindow(self, sample, latest[0].seconds, newest + 1 / fps, latest[-1].arrived)

    def failure(self) -> Failure | None:
        """Return the failure of a source that has ended, if there is one."""
        reason = self.frames.error
        if reason is None and not self.windows and self.frames.ended:
            seconds = self._latest[-1].seconds + 1 / self.fps if self._latest else 0.0
            reason = f"it ended after {seconds:g} s, before the first window of {self._layout.window:g} s was complete"
        record = self.source.record
        return None if reason is None else Failure(record.index, record.name, reason, lost=not self.windows)


class LivePredictor:
    """Classifies the latest window of each of several live sources.

    The frames are taken in the calling thread, so that their arrival is known to the millisecond, while another thread
    computes.

    Args:
        predictor: Predictor of the model.
        sampling: Sampling of the clips of a window.
        layout: Length of the windows, and the time between two of them.
        scale: Scaling of the frames.
    """

    def __init__(self, predictor: Predictor, sampling: ClipSampling, layout: WindowLayout, scale: LiveScale) -> None:
        self.predictor, self.sampling, self.layout, self.scale = predictor, sampling, layout, scale
        predictor.model.eval()
        if predictor.forward.amp_dtype is None:
            pack_linears(predictor.model)

    @classmethod
    def from_config(cls, cfg: ConfigNode, options: WindowOptions) -> LivePredictor:
        """Build the model and load its weights. Raises UserError, for networks that do not take clips, too."""
        sampling = ClipSampling.from_config(cfg)
        scale = LiveScale(clip_dataset(cfg).decoded_side(sampling.transform), sampling.transform)
        layout = WindowLayout.from_options(options, sampling.temporal)
        return cls(Predictor.from_config(cfg), sampling, layout, scale)

    def run(
        self,
        sources: Sequence[Source],
        on_frames: Callable[[LiveStream, list[LiveFrame]], None],
        on_window: Callable[[LiveStream, WindowScores, float], None],
        stopped: Callable[[], bool],
    ) -> list[LiveStream]:
        """Classify until all sources have ended, or `stopped` returns True.

        Args:
            sources: The sources.
            on_frames: Called with the frames of a source that have arrived.
            on_window: Called with each window and its latency in seconds.
            stopped: Returns True to end.

        Returns:
            The sources.
        """
        self._warm_up()
        arrived = threading.Event()
        streams = [LiveStream(s, LiveFrames(s, self.scale, arrived), self.sampling, self.layout) for s in sources]
        job: Future[list[ClassifiedWindow]] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="network") as pool:
            while True:
                arrived.wait(_POLL)
                arrived.clear()
                for stream in streams:
                    if frames := stream.read():
                        on_frames(stream, frames)
                if job is not None and not job.done():
                    continue
                for done in job.result() if job is not None else []:
                    self._finish(done, on_window)
                due = [] if stopped() else [stream.window() for stream in streams if stream.is_due]
                job = pool.submit(self._classify, due) if due else None
                if job is not None:
                    job.add_done_callback(lambda _: arrived.set())
                elif stopped() or all(stream.frames.ended for stream in streams):
                    break
        until = time.monotonic() + _JOIN
        for stream in streams:
            stream.frames.close(max(until - time.monotonic(), 0))
        return streams

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Run the model once: the first call takes longer."""
        one, side = self.predictor, self.sampling.transform.crop_size
        frames = self.sampling.rows(1, 1.0).shape[1]
        clip = torch.zeros(1, frames, side, side, 3, dtype=torch.uint8)
        with one.forward.autocast():
            one.model(one.forward.prepare(clip))

    def _finish(self, done: ClassifiedWindow, on_window: Callable[[LiveStream, WindowScores, float], None]) -> None:
        window, stream = done.window, done.window.stream
        stream.windows += 1
        stream.latencies.add(np.array([done.latency]))
        scores = WindowScores(window.sample.record, window.start, window.end, done.scores)
        on_window(stream, scores, done.latency)

    @torch.inference_mode()
    def _classify(self, windows: Sequence[LiveWindow]) -> list[ClassifiedWindow]:
        """Compute the scores of windows; runs in the thread of the network."""
        one, device = self.predictor, self.predictor.forward.device
        clips = [clip for window in windows for clip in window.sample.clips(device)]
        outputs: list[torch.Tensor] = []
        for first in range(0, len(clips), one.batch_clips):
            inputs = one.forward.prepare(stack_clips(clips[first : first + one.batch_clips]))
            with one.forward.autocast():
                outputs.extend(one.model(inputs).float().cpu())
        now, found = time.perf_counter(), list[ClassifiedWindow]()
        for window in windows:
            logits, outputs = outputs[: window.sample.count], outputs[window.sample.count :]
            found.append(ClassifiedWindow(window, one.ensemble(torch.stack(logits)), now - window.arrived))
        return found
