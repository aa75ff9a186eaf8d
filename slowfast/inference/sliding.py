"""Predictions for the windows of long videos; the clips of several windows and videos fill a batch."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import timeout_reason
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.index.samples import SampleKind, find_samples
from slowfast.datasets.types import EvalVideo, Failure, FailureLedger, Record, failure_of
from slowfast.engine.evaluate import evaluate
from slowfast.errors import DataError, UserError
from slowfast.inference.predictor import Predictor
from slowfast.inference.segments import Segment, SegmentCollector, VideoSegments, WindowScores
from slowfast.inference.window_reader import (
    ClipSampling,
    SequentialVideo,
    Window,
    clip_dataset,
    open_sequential,
    read_windows,
)
from slowfast.inference.windows import WindowLayout, WindowOptions, WindowPlan
from slowfast.utils.screen import Progress

_POLL = 0.1  # seconds between checks for a stop
_AHEAD = 4  # maximum number of windows waiting for the network
Item = TypeVar("Item")


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


@dataclass(frozen=True)
class _Raised:
    """Error raised in the thread."""

    error: BaseException


class ReadAhead(Generic[Item]):
    """Iterator over items that a background thread reads in advance.

    Args:
        items: Items; the iterator runs in the thread.
        stopped: Returns True to end early.
        timeout: Seconds that an item may take; 0 for no limit.
    """

    def __init__(self, items: Iterator[Item], stopped: Callable[[], bool], timeout: float) -> None:
        self._items, self._stopped, self._timeout = items, stopped, timeout
        self._queue: queue.Queue[Item | _Raised | None] = queue.Queue(_AHEAD)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="reading windows")
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items; raise the errors of the thread, and DecodeError after the timeout."""
        try:
            while (item := self._get()) is not None:
                if isinstance(item, _Raised):
                    raise item.error
                yield item
        finally:
            self._abandoned.set()

    def _get(self) -> Item | _Raised | None:
        since = time.monotonic()
        while not self._stopped():
            try:
                return self._queue.get(timeout=_POLL)
            except queue.Empty:
                if self._timeout and time.monotonic() - since > self._timeout:
                    raise DecodeError(timeout_reason(self._timeout)) from None
        return None

    def _work(self) -> None:
        torch.set_num_threads(1)  # limits this thread; the network uses the other cores
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:
            self._put(_Raised(error))

    def _put(self, item: Item | _Raised | None) -> bool:
        """Pass on an item; return False if it is no longer needed."""
        while not self._abandoned.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False
