"""Event-driven inference on videos, frame after frame, beside the whole network on the same frames.

K frames of each of S videos in a batch, C classes.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, names_of_classes
from slowfast.datasets.types import FailureLedger
from slowfast.engine.forward import ClipForward
from slowfast.engine.test import network_to_test
from slowfast.errors import ConfigError, DataError
from slowfast.event_driven.activity import FrameFigures, VideoActivity
from slowfast.event_driven.annotate import AnnotatedVideos
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.feed import Batch, Closed, Feed, Message, Opened
from slowfast.event_driven.frame_resize import FrameToSquare
from slowfast.event_driven.report import FrameLog, RunReport, report_figures, report_files, report_table
from slowfast.event_driven.sources import Source, Sources, find_sources
from slowfast.models.linear import pack_linears
from slowfast.utils.heartbeat import phase
from slowfast.utils.logging import get_logger, log_table
from slowfast.utils.machine import synchronize
from slowfast.utils.progress import Progress
from slowfast.utils.signals import StopSignal
from slowfast.visualization.results import write_failed

Output = TypeVar("Output")
_LIVE_EVERY = 5.0  # seconds between two lines about a camera or stream
_FIGURES_EVERY = 60.0  # seconds between two writings of the figures, where there are cameras or streams


def run_on_videos(cfg: ConfigNode, device: torch.device, begin: Callable[[], None] = lambda: None) -> dict[str, Path]:
    """Run event-driven inference on the videos of DATA.PATH_PREFIX and write the results to OUTPUT_DIR.

    Ctrl-C, SIGTERM and SIGHUP end it; the report is then of what was done until then.

    Args:
        cfg: Config of the run.
        device: Device of the network.
        begin: Called once the network has its weights, before anything is written.

    Returns:
        What each written file is, and where.

    Raises:
        DataError: If nothing could be read.
    """
    with phase("looking for videos"):
        names = names_of_classes(cfg)
        sources = find_sources(cfg.DATA.PATH_PREFIX, cfg.DATA.DECODING_THREADS)
    _check_streams(cfg, sources)
    if not sources.count:
        raise DataError(f"DATA.PATH_PREFIX {cfg.DATA.PATH_PREFIX}: there is no video")
    if sources.others:
        get_logger().info(f"{sources.others} other files in the folder left out")
    with phase("building the network and loading its weights"):
        run = VideoRun(cfg, device, sources, names)
    begin()
    with StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
        report = run.run(lambda: stop.seen)
    output = Path(cfg.OUTPUT_DIR)
    write_failed(report.failures, output / "failed.csv")
    if not report.videos:
        return _report_nothing(report, sources, stop)
    log_table(report_table(report))
    with phase("drawing plots"):
        return report_files(report, output) | run.log.written | run.annotated.written


def _report_nothing(report: RunReport, sources: Sources, stop: StopSignal) -> dict[str, Path]:
    """End a run in which no frame was processed: quietly if it was stopped, else with a DataError."""
    if not stop.seen or any(failure.lost for failure in report.failures):  # such as a camera that is not there
        raise DataError(_nothing(report, sources))
    if stop.name == signal.SIGINT.name:
        raise KeyboardInterrupt
    get_logger().warning(f"Received {stop.name} before a frame was processed")
    return {}


class VideoRun:
    """One pass over all videos."""

    def __init__(self, cfg: ConfigNode, device: torch.device, sources: Sources, names: Sequence[str]) -> None:
        self.cfg, self.device, self.sources, self.names = cfg, device, sources, names
        self.model = network_to_test(cfg, device)
        if cfg.EVENT.COMPARE:
            pack_linears(self.model)
        self.engine = EventDrivenInference.from_config(cfg, self.model)
        self.activity: dict[int, VideoActivity] = {}
        self.pictures: dict[int, torch.Tensor] = {}  # the first frame of each video, uint8 (P, P, 3)
        self.ledger = FailureLedger(sources.count)
        self.annotated = AnnotatedVideos.from_config(cfg, self.engine.network, sources.videos, names)
        self.log = FrameLog(Path(cfg.OUTPUT_DIR), len(self.engine.network.stages))
        self.began = self._written = 0.0  # readings of the clock
        self.batches = 0
        self.watch: Callable[[Batch], None] | None = None  # gets each batch when its logits are there
        self.time_bases: dict[int, Fraction] = {}  # seconds of a tick, of each video
        self._said: dict[int, float] = {}  # reading of the clock, by video

    def run(self, stopped: Callable[[], bool]) -> RunReport:
        """Look at every video until its end, or until `stopped`."""
        event = self.cfg.EVENT
        forward = ClipForward.from_config(self.cfg, self.device, TEST)
        self._warm_up()
        self.ledger.add(self.sources.refused)
        if not event.FRAME_LOG:
            self.log.path.unlink(missing_ok=True)  # an older run's
        how = event.STREAMS, event.CHUNK, event.MAX_FRAMES, event.RECONNECT, self.cfg.DATA_LOADER.TIMEOUT
        feed = Feed(self.engine, FrameToSquare.from_config(self.cfg), forward, *how)
        count = len(self.sources.videos)
        progress = Progress("event-driven", count, "videos", shown=count > 1, every=self.cfg.LOG_PERIOD)
        self.began = self._written = time.perf_counter()
        with ExitStack() as at_end:
            at_end.callback(progress.close)
            at_end.callback(self.log.close)
            at_end.enter_context(self.annotated)
            for message in feed.messages(self.sources.videos, stopped):
                self._take(message, progress)
            self.ledger.add(feed.left)
        if stopped():
            get_logger().warning("stopped: the report covers what was done until now")
        return self._report(finished=True)

    def _report(self, finished: bool) -> RunReport:
        read = {index: video for index, video in self.activity.items() if video.frames}
        pictures = {index: self.pictures[index].numpy() for index in read}
        elapsed = time.perf_counter() - self.began
        return RunReport(self.cfg, self.engine.network, read, pictures, self.names, self.ledger.all, elapsed, finished)

    def _take(self, message: Message, progress: Progress) -> None:
        if isinstance(message, Opened):
            self.activity[message.source.record.index] = VideoActivity(message.source.record.name, message.began)
            self.time_bases[message.source.record.index] = message.time_base
            self.annotated.open(message)
        elif isinstance(message, Batch):
            self._compute(message)
            self._write_figures(message.sources)
        else:
            self._close(message)
            progress.advance(message.source.record.name)

    def _close(self, message: Closed) -> None:
        self.annotated.close(message.source)
        self.ledger.add([message.failure] if message.failure else [])

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """The first call of anything takes longer."""
        if self.cfg.EVENT.COMPILED:
            self.engine.capture(self.cfg.EVENT.CHUNK, min(self.cfg.EVENT.STREAMS, len(self.sources.videos) or 1))
        side = self.engine.network.side
        frames = torch.zeros(1, 1, 3, side, side, device=self.device)
        for value in (0.0, 9.0):
            self.engine.run(frames + value, ["warm-up"])
            if self.cfg.EVENT.COMPARE:
                self.model(frames[0])
        self.engine.reset("warm-up")

    @torch.inference_mode()
    def _compute(self, batch: Batch) -> None:
        self.batches += 1
        whole, whole_seconds = None, 0.0
        whole_first = self.batches % 2 == 0  # they take turns, so that neither always finds the other's caches
        if self.cfg.EVENT.COMPARE and whole_first:
            whole, whole_seconds = self._whole(batch.frames)
        results, seconds = self._timed(lambda: self.engine.compute(batch.changes))
        if self.cfg.EVENT.COMPARE and not whole_first:
            whole, whole_seconds = self._whole(batch.frames)
        self.annotated.write(batch, results.logits)
        if self.watch is not None:
            self.watch(batch)
        for s, source in enumerate(batch.sources):
            video = self.activity[source.record.index]
            if source.record.index not in self.pictures:
                self.pictures[source.record.index] = batch.images[0, s].clone()  # not the whole batch
            its = whole[:, s] if whole is not None else None
            rows = video.add(
                results.active[:, s], results.macs[:, s], batch.changes.mask[:, s], results.logits[:, s], its
            )
            self._log(source, video, batch.ticks[s], rows)
            video.event_seconds += (seconds + batch.detect_seconds) / len(batch.sources)
            video.whole_seconds += whole_seconds / len(batch.sources)
            video.elapsed = time.perf_counter() - video.began
            video.dropped = batch.dropped[s]
            self._say(source, video, rows)

    def _log(self, source: Source, video: VideoActivity, ticks: Sequence[int], rows: FrameFigures) -> None:
        if self.cfg.EVENT.FRAME_LOG:
            base = self.time_bases[source.record.index]
            seconds = [time.time() if source.live else float(tick * base) for tick in ticks]
            self.log.write(video.name, video.frames - len(rows), seconds, rows)

    def _write_figures(self, sources: Sequence[Source]) -> None:
        """Now and then, where a video need not end."""
        if any(source.live for source in sources) and time.perf_counter() - self._written >= _FIGURES_EVERY:
            report_figures(self._report(finished=False), Path(self.cfg.OUTPUT_DIR))
            self._written = time.perf_counter()

    def _whole(self, frames: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The whole network's logits (K, S, C) of frames (K, S, 3, P, P), and the seconds it took."""
        logits, seconds = self._timed(lambda: self.model(frames.flatten(0, 1)))
        return logits.float().unflatten(0, frames.shape[:2]), seconds

    def _timed(self, work: Callable[[], Output]) -> tuple[Output, float]:
        synchronize(self.device)
        start = time.perf_counter()
        output = work()
        synchronize(self.device)
        return output, time.perf_counter() - start

    def _say(self, source: Source, video: VideoActivity, rows: FrameFigures) -> None:
        """A line now and then about a video that need not end."""
        now = time.perf_counter()
        if source.live and now - self._said.get(source.record.index, 0.0) >= _LIVE_EVERY:
            self._said[source.record.index] = now
            active = 100 * rows.active[:, 0].mean() / self.engine.network.counts[0]
            best = self.names[int(rows.answers[-1])]
            get_logger().info(f"{video.name}: {video.frames} frames, {active:.0f} % of patches active, {best}")


def _check_streams(cfg: ConfigNode, sources: Sources) -> None:
    """ConfigError where some of several cameras and streams would wait for ever for their turn."""
    count = len(sources.videos)
    if any(source.live for source in sources.videos) and count > cfg.EVENT.STREAMS:
        raise ConfigError(
            f"EVENT.STREAMS {cfg.EVENT.STREAMS}: {cfg.DATA.PATH_PREFIX} lists {count} videos, cameras or streams among "
            f"them, which need not end; set EVENT.STREAMS {count}"
        )


def _nothing(report: RunReport, sources: Sources) -> str:
    lost = [failure for failure in report.failures if failure.lost]
    first = f"{lost[0].name}: {lost[0].reason}"
    return first if sources.count == 1 else f"none of {sources.count} videos can be read; the first: {first}"
