"""Event-driven inference on videos, compared with dense inference on the same frames.

Notation: K frames of each of S videos in a batch, P pixels per side of the network's input, C classes.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, names_of_classes
from slowfast.datasets.types import FailureLedger
from slowfast.engine.cluster_evaluation import on_cluster
from slowfast.engine.forward import ClipForward
from slowfast.engine.state import tested_weights
from slowfast.engine.test import class_names_of, network_to_test
from slowfast.errors import DataError
from slowfast.event_driven.activity import FrameActivity, Savings, VideoActivity
from slowfast.event_driven.cluster_videos import ClusterRun
from slowfast.event_driven.connection import Connection
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.feed import Batch, Closed, Feed, Message, Opened
from slowfast.event_driven.linear_kernels import FLOAT32
from slowfast.event_driven.report import UNTRAINED, RunReport, report_files, report_metrics, report_table
from slowfast.event_driven.run_outputs import FOLDER, AnnotatedVideos, FrameLog, LiveStatus
from slowfast.event_driven.sources import Sources, check_sources, find_sources, source_files
from slowfast.event_driven.video_frames import FrameResize
from slowfast.models.protocol import Network
from slowfast.utils.distributed import World
from slowfast.utils.logging import get_logger, log_table
from slowfast.utils.machine import synchronize
from slowfast.utils.screen import Progress, phase
from slowfast.utils.signals import StopSignal
from slowfast.visualization.results import write_failed

Output = TypeVar("Output")
_LIVE_COMPARE_EVERY = 32  # batches between comparisons with live sources, unless EVENT.COMPARE_EVERY is set
_REPORT_INTERVAL = 60.0  # seconds between interim reports with live sources


def run_on_videos(cfg: ConfigNode, device: torch.device, begin: Callable[[], None] = lambda: None) -> dict[str, Path]:
    """Run event-driven inference on the videos of DATA.PATH_PREFIX and write the results to OUTPUT_DIR.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run; the report then covers the frames processed so far.

    Args:
        cfg: Config of the run.
        device: Device of the network.
        begin: Called once the weights are loaded, before anything is written.

    Returns:
        The path of each output file or folder, by description.

    Raises:
        DataError: If no video can be read.
    """
    with phase("searching for videos"):
        names_of_classes(cfg)  # report an invalid list of names before anything is built
        sources = find_sources(cfg.DATA.PATH_PREFIX, cfg.DATA.DECODING_THREADS)
    check_sources(cfg, sources)
    if sources.others:
        get_logger().info(f"Skipping {sources.others} other files in the folder")
    with phase("building the network and loading its weights"):
        run = VideoRun(cfg, device, sources)
    begin()
    with StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
        report = (ClusterRun(run) if on_cluster(cfg, World()) else run).run(lambda: stop.seen)
    output = Path(cfg.OUTPUT_DIR)
    if not report.videos:
        write_failed(report.failures, output / "failed.csv")
        return _report_nothing(report, sources, stop)
    log_table(report_table(report))
    with phase("drawing plots"):
        return report_files(report, output) | run.log.written | run.annotated.written


def _report_nothing(report: RunReport, sources: Sources, stop: StopSignal) -> dict[str, Path]:
    """Finish a run without frames: return nothing if it was stopped, else raise DataError."""
    if not stop.seen or any(failure.lost for failure in report.failures):  # for example a missing camera
        raise DataError(_nothing_read(report, sources))
    if stop.name == signal.SIGINT.name:
        raise KeyboardInterrupt
    get_logger().warning(f"Received {stop.name} before any frame was processed")
    return {}


class VideoRun:
    """Event-driven inference on all videos of a config.

    Args:
        cfg: Config of the run.
        device: Device of the network.
        sources: The videos.
        model: Network with its weights; None to build it.
        output: Folder of the frame log and the annotated videos; None for OUTPUT_DIR.

    Attributes:
        engine: Event-driven inference.
        dense: Engine of the dense inference to compare with, in float32.
        activity: Activity per video, by index.
        on_batch: Called with each batch after its logits were computed.
    """

    def __init__(
        self,
        cfg: ConfigNode,
        device: torch.device,
        sources: Sources,
        model: nn.Module | None = None,
        output: Path | None = None,
    ) -> None:
        self.cfg, self.device, self.sources = cfg, device, sources
        output = Path(cfg.OUTPUT_DIR) if output is None else output
        model = network_to_test(cfg, device) if model is None else model
        self.loaded = model.loaded if isinstance(model, Network) else None
        self.names = names = class_names_of(cfg, model)
        self.weights = tested_weights(cfg)
        self.engine = EventDrivenInference.from_config(cfg, model)
        # Rounded weights are part of the error, so dense inference is always in float32.
        rounded = cfg.EVENT.COMPARE and cfg.EVENT.PRECISION != FLOAT32
        self.dense = EventDrivenInference.from_config(cfg, model, FLOAT32) if rounded else self.engine
        self.activity: dict[int, VideoActivity] = {}
        self.thumbnails: dict[int, torch.Tensor] = {}  # first frame of each video, uint8 (P, P, 3)
        self.ledger = FailureLedger(sources.count)
        untrained = self.weights is None
        network, note = self.engine.network, UNTRAINED if untrained else ""
        targets = source_files(sources.videos, output / FOLDER, ".mp4") if cfg.EVENT.ANNOTATE else {}
        self.annotated = AnnotatedVideos(targets, network, names, note)
        self.log = FrameLog(output, len(network.stages), untrained)
        self.status = LiveStatus(sources.videos, names, network.counts[0], note)
        self._live = any(source.live for source in sources.videos)
        self.compare_every = cfg.EVENT.COMPARE_EVERY or (_LIVE_COMPARE_EVERY if self._live else 1)
        self.began = self._reported = 0.0  # perf_counter() of the start and of the last interim report
        self.batches = self._compared = 0  # batches, and batches compared with dense inference
        self._batches_of = Counter[int]()  # number of batches, by the first video of each batch
        self.on_batch: Callable[[Batch], None] | None = None
        self.time_bases: dict[int, Fraction] = {}  # seconds per tick, by video
        self._connections: Mapping[int, Connection] = {}  # connections of live sources, by index

    def run(self, stopped: Callable[[], bool]) -> RunReport:
        """Process all videos until they end or `stopped` returns True."""
        event = self.cfg.EVENT
        forward = ClipForward.from_config(self.cfg, self.device, TEST)
        self._warm_up()
        settings = event.STREAMS, event.CHUNK, event.MAX_FRAMES, event.RECONNECT, self.cfg.DATA_LOADER.TIMEOUT
        feed = Feed(self.engine, FrameResize.from_config(self.cfg), forward, *settings)
        self._connections = feed.connections
        count = len(self.sources.videos)
        shown = count > 1 and not self._live  # live sources may never end
        progress = Progress("event-driven", count, "videos", shown, every=self.cfg.LOG_PERIOD)
        with self.writing(progress):
            for message in feed.messages(self.sources.videos, lambda: self._is_stopped(stopped)):
                self._handle(message, progress)
            self.ledger.add(feed.unfinished)
        return self.finish(stopped())

    @contextmanager
    def writing(self, progress: Progress) -> Iterator[None]:
        """Begin the measurement and the files of the run; close them and the progress at the end of the block."""
        self.ledger.add(self.sources.refused)
        if not self.cfg.EVENT.FRAME_LOG:
            self.log.path.unlink(missing_ok=True)  # left by an earlier run
        self.began = self._reported = time.perf_counter()
        with ExitStack() as at_end:
            at_end.callback(progress.close)
            at_end.callback(self.log.close)
            at_end.enter_context(self.annotated)
            yield

    def finish(self, stopped: bool) -> RunReport:
        """Return the report at the end of the run, or after it was stopped."""
        if stopped:
            get_logger().warning("Stopped. The report covers the frames processed so far")
        return self._report(finished=True)

    def _report(self, finished: bool) -> RunReport:
        self._update_connections()
        read = {index: video for index, video in sorted(self.activity.items()) if video.frames}
        thumbnails = {index: self.thumbnails[index].numpy() for index in read}
        return RunReport(
            cfg=self.cfg,
            network=self.engine.network,
            weights=self.weights,
            sources=self.sources.videos,
            videos=read,
            thumbnails=thumbnails,
            names=self.names,
            failures=self.ledger.all,
            compare_every=self.compare_every,
            elapsed=time.perf_counter() - self.began,
            finished=finished,
        )

    def _update_connections(self) -> None:
        for index, connection in self._connections.items():
            if index in self.activity:
                video = self.activity[index]
                video.reconnects, video.seconds_away = connection.reconnects, connection.seconds_away

    def _handle(self, message: Message, progress: Progress) -> None:
        if isinstance(message, Opened):
            record, savings = message.source.record, Savings.of(self.engine.network)
            self.activity[record.index] = VideoActivity(record.name, savings, message.began, message.source.live)
            self.time_bases[record.index] = message.time_base
            self.annotated.begin(record, message.rate, message.time_base)
        elif isinstance(message, Batch):
            self._compute(message)
        else:
            self._close(message)
            progress.advance(message.source.record.name)

    def _close(self, message: Closed) -> None:
        self.annotated.end(message.source.record)
        self.ledger.add([message.failure] if message.failure else [])

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Run everything once, because first calls take longer."""
        if self.cfg.EVENT.COMPILED:
            self.engine.capture(self.cfg.EVENT.CHUNK, min(self.cfg.EVENT.STREAMS, len(self.sources.videos) or 1))
        side = self.engine.network.side
        frames = torch.zeros(1, 1, 3, side, side, device=self.device)
        for value in (0.0, 9.0):
            self.engine.run(frames + value, ["warm-up"])
            if self.cfg.EVENT.COMPARE:
                self.dense.run_dense(frames[0])
        self.engine.reset("warm-up")

    @torch.inference_mode()
    def _compute(self, batch: Batch) -> None:
        self.batches += 1
        # Depends on one video alone, so that it is the same wherever the other ones are processed. Videos of fewer than
        # N batches are not all left out.
        first = batch.sources[0].record.index
        self._batches_of[first] += 1
        compare = self.cfg.EVENT.COMPARE and (first + self._batches_of[first]) % self.compare_every == 0
        self._compared += compare
        dense: tuple[torch.Tensor, float] | None = None
        dense_first = self._compared % 2 == 0  # alternate, so that neither always benefits from warm caches
        if compare and dense_first:
            dense = self._dense(batch.frames)
        results, seconds = self._timed(lambda: self.engine.compute(batch.changes))
        latencies = time.perf_counter() - batch.arrived  # K S
        if compare and not dense_first:
            dense = self._dense(batch.frames)
        self.annotated.write(batch, results.logits)
        if self.on_batch is not None:
            self.on_batch(batch)
        count = len(batch.sources)
        for s, source in enumerate(batch.sources):
            video = self.activity[source.record.index]
            if source.record.index not in self.thumbnails:
                self.thumbnails[source.record.index] = batch.images[0, s].clone()  # the copy frees the batch
            frames = video.add(
                results.active[:, s],
                results.macs[:, s],
                batch.changes.mask[:, s],
                results.logits[:, s],
                dense[0][:, s] if dense is not None else None,
                self._seconds(batch, s),
            )
            video.add_time((seconds + batch.detect_seconds) / count, dense[1] / count if dense is not None else None)
            self._write_log(batch, s, frames)
            video.elapsed = time.perf_counter() - video.began
            video.dropped = batch.dropped[s]
            if source.live:
                video.latency.add(latencies[:, s])
                self.status.add(source, frames, latencies[:, s])

    def _seconds(self, batch: Batch, s: int) -> np.ndarray:
        """Return the time (K,) of each frame of a video: in the file, or since the live source was opened."""
        source = batch.sources[s]
        if source.live:
            return batch.arrived[:, s] - self.activity[source.record.index].began
        return np.array([float(tick * self.time_bases[source.record.index]) for tick in batch.ticks[s]])

    def _write_log(self, batch: Batch, s: int, frames: FrameActivity) -> None:
        if self.cfg.EVENT.FRAME_LOG:
            source = batch.sources[s]
            video = self.activity[source.record.index]
            seconds = [time.time()] * len(frames) if source.live else self._seconds(batch, s).tolist()
            self.log.write(video.name, video.frames - len(frames), seconds, frames)

    def _is_stopped(self, stopped: Callable[[], bool]) -> bool:
        """Log the status of live sources and write an interim report, if it is time; return `stopped()`."""
        self.status.poll(self._connections, self.activity)
        if self._live and time.perf_counter() - self._reported >= _REPORT_INTERVAL:
            if any(video.frames for video in self.activity.values()):
                report_metrics(self._report(finished=False), Path(self.cfg.OUTPUT_DIR))
            self._reported = time.perf_counter()
        return stopped()

    def _dense(self, frames: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return the logits (K, S, C) of dense inference on frames (K, S, 3, P, P), and its seconds."""
        logits, seconds = self._timed(lambda: self.dense.run_dense(frames.flatten(0, 1)))
        return logits.unflatten(0, frames.shape[:2]), seconds

    def _timed(self, work: Callable[[], Output]) -> tuple[Output, float]:
        synchronize(self.device)
        start = time.perf_counter()
        output = work()
        synchronize(self.device)
        return output, time.perf_counter() - start


def _nothing_read(report: RunReport, sources: Sources) -> str:
    lost = [failure for failure in report.failures if failure.lost]
    first = f"{lost[0].name}: {lost[0].reason}"
    return first if sources.count == 1 else f"none of {sources.count} videos can be read. First failure: {first}"
