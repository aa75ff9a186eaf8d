"""Predictions for the windows of long videos; the clips of several windows and videos fill a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.samples import SampleKind, find_samples
from slowfast.datasets.types import EvalVideo, Failure, FailureLedger, Record, failure_of
from slowfast.engine.evaluate import evaluate
from slowfast.errors import DataError, UserError
from slowfast.inference.predictor import Predictor
from slowfast.inference.segments import Segment, SegmentBuilder, VideoSegments
from slowfast.inference.sequential import SequentialFile, SequentialFolder, SequentialVideo
from slowfast.inference.window_reader import ClipSampling, ReadAhead, Window, clip_dataset, read_windows
from slowfast.inference.windows import WindowLayout, WindowOptions, WindowPlan
from slowfast.utils.screen import Progress

_NEIGHBORS = 1.5  # maximum number of frames between neighboring windows
MAX_KEPT = 100_000  # segments kept of a live source, which may run forever; segments.csv has all of them
_SPARE = 1.1  # times MAX_KEPT, so that the oldest are rarely removed
OnSegment = Callable[[Record, Segment], None]


@dataclass(frozen=True)
class WindowScores:
    """Scores of one window of a video, float64 (K,)."""

    record: Record
    start: float
    end: float
    scores: torch.Tensor


class SlidingPredictor:
    """Classifier of the windows of videos with a trained model.

    Args:
        predictor: Predictor of the model.
        open_video: Opens a video to be read in order.
        sampling: Sampling of the clips of a window.
        layout: Length and distance of the windows.
        kind: Kind of files that the model accepts.
        merge: Merge neighboring windows of one class.
        timeout: Seconds that the next window of a video may take to read; 0 for no limit.
    """

    def __init__(
        self,
        predictor: Predictor,
        open_video: Callable[[Record], SequentialVideo],
        sampling: ClipSampling,
        layout: WindowLayout,
        kind: SampleKind,
        merge: bool = False,
        timeout: float = 0.0,
    ) -> None:
        self.predictor, self.open_video, self.sampling = predictor, open_video, sampling
        self.layout, self.kind, self.merge, self.timeout = layout, kind, merge, timeout

    @classmethod
    def from_config(cls, cfg: ConfigNode, options: WindowOptions) -> SlidingPredictor:
        """Build the model and load its weights. Raises UserError, also for networks that do not take clips."""
        sampling = ClipSampling.from_config(cfg)
        layout = WindowLayout.from_options(options, sampling.temporal)
        opens = partial(open_sequential, cfg, clip_dataset(cfg).decoded_side(sampling.transform))
        kind, timeout = SampleKind.from_config(cfg), cfg.DATA_LOADER.TIMEOUT
        return cls(Predictor.from_config(cfg), opens, sampling, layout, kind, options.merge, timeout)

    def __call__(self, path: str | Path) -> list[Segment]:
        """Return the segments of one video.

        Raises:
            DataError: If it cannot be read.
            UserError: If it is a folder of several videos.
        """
        found = find_samples([Path(path)], self.kind)
        if len(found.records) > 1:
            raise UserError(f"{path} contains {len(found.records)} videos. Name one of them")
        ledger = FailureLedger(found.count)
        ledger.add(found.refused, log=False)
        segments: list[Segment] = []
        collector = SegmentCollector(self.merge, lambda _, segment: segments.append(segment))
        progress = Progress("predict", 0, "windows", shown=False, every=1)
        try:
            self.scores(found.records, collector.add, collector.begin, ledger, progress)
        finally:
            progress.close()
        collector.finish()
        if not segments:
            raise DataError(f"{ledger.all[0].name}: {ledger.all[0].reason}")
        return segments

    def scores(
        self,
        records: Sequence[Record],
        process: Callable[[WindowScores], None],
        begin: Callable[[VideoSegments], None],
        ledger: FailureLedger,
        progress: Progress,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Classify all windows of some videos.

        Args:
            records: The videos.
            process: Called with each window, in order.
            begin: Called with each video that could be opened, before its first window is processed.
            ledger: Collects the failures.
            progress: Progress display, in windows; the windows of a video are added when it is opened.
            stopped: Returns True to end early.
        """
        reading: deque[Window] = deque()  # windows that have not been computed yet

        def samples() -> Iterator[EvalVideo]:
            for record in records:
                for item in self._read(record, ledger, stopped):
                    if isinstance(item, WindowPlan):
                        progress.extend(len(item))
                        begin(VideoSegments(record, item.fps, len(item.source) / item.fps))
                    else:
                        reading.append(item)
                        yield item.sample

        def finish(record: Record, outputs: torch.Tensor | None) -> None:
            window = reading.popleft()
            if outputs is not None:
                process(WindowScores(record, window.start, window.end, self.predictor.ensemble(outputs)))

        one = self.predictor
        one.time = evaluate(one.model, samples(), one.forward, finish, one.batch_clips, ledger, progress)

    def _read(
        self, record: Record, ledger: FailureLedger, stopped: Callable[[], bool]
    ) -> Iterator[WindowPlan | Window]:
        """Yield the plan and the windows of a video; failures are added to the ledger."""
        if stopped():
            return
        seen = False
        try:
            for item in ReadAhead(self._items(record), stopped, self.timeout):
                if isinstance(item, Failure):
                    ledger.add([replace(item, lost=not seen)])
                else:
                    seen = seen or (isinstance(item, Window) and item.sample.count > 0)
                    yield item
        except UserError:
            raise
        except Exception as error:
            ledger.add([replace(failure_of(record.index, record.name, error), lost=not seen)])

    def _items(self, record: Record) -> Iterator[WindowPlan | Window | Failure]:
        """Yield the plan, the windows, and what could not be read of a video."""
        with closing(self.open_video(record)) as video:
            plan = self.layout.plan(video.times(), video.fps)
            yield plan
            yield from read_windows(record, video, plan, self.sampling)
            if video.missing is not None:
                yield Failure(record.index, record.name, video.missing)


def open_sequential(cfg: ConfigNode, short_side: int, record: Record) -> SequentialVideo:
    """Open a video, or a folder of frames that plays at DATA.TARGET_FPS, to be read in order.

    Args:
        cfg: Config of the run.
        short_side: Short side (pixels) that larger frames of a video are scaled down to.
        record: The video.

    Raises:
        DecodeError: If it cannot be read.
    """
    if record.frames is not None:
        return SequentialFolder(record.path, cfg.DATA.IMAGE_TEMPLATE, record.frames, cfg.DATA.TARGET_FPS)
    return SequentialFile(record.path, cfg.DATA.DECODING_THREADS, short_side)


class SegmentCollector:
    """Collector of the segments of videos from the scores of their windows.

    Args:
        merge: Merge neighboring windows of one class.
        on_segment: Called with each segment as soon as it is complete.
        at_once: Whether the windows of several live sources alternate; otherwise a video ends where the next one
            begins. The latest MAX_KEPT segments of a live source are kept.

    Attributes:
        videos: The videos that were opened, by index.
    """

    def __init__(self, merge: bool, on_segment: OnSegment, *, at_once: bool = False) -> None:
        self._merge, self._on_segment, self._at_once = merge, on_segment, at_once
        self.videos: dict[int, VideoSegments] = {}
        self._builders: dict[int, SegmentBuilder] = {}

    def begin(self, video: VideoSegments) -> None:
        """Add a video."""
        self.videos[video.record.index] = video
        gap = _NEIGHBORS / video.fps if video.fps else 0.0
        self._builders[video.record.index] = SegmentBuilder(self._merge, gap)

    def add(self, window: WindowScores, latency: float | None = None) -> None:
        """Add the next window of a video."""
        index = window.record.index
        if not self._at_once:
            self.finish(before=index)
        self._emit(index, self._builders[index].add(window.start, window.end, window.scores, latency))

    def interrupt(self, record: Record) -> None:
        """Complete the last segment of a video: nothing is known about the time until its next window."""
        self._emit(record.index, self._builders[record.index].finish())

    def finish(self, before: int | None = None) -> None:
        """Complete the last segment of each video, or of those before an index."""
        for index, builder in self._builders.items():
            if before is None or index < before:
                self._emit(index, builder.finish())

    def _emit(self, index: int, segments: Iterator[Segment]) -> None:
        video = self.videos[index]
        for segment in segments:
            video.segments.append(segment)
            self._on_segment(video.record, segment)
        if self._at_once and len(video.segments) > _SPARE * MAX_KEPT:
            over = len(video.segments) - MAX_KEPT
            del video.segments[:over]
            video.left_out += over
