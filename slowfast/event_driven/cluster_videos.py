"""Event-driven inference on videos on the nodes of a Ray cluster: each video is a part, which one process reads."""

from __future__ import annotations

import functools
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.types import Failure
from slowfast.engine.cluster_evaluation import PARTS, digests_of_parts, file_state, model_of_process
from slowfast.event_driven.activity import BinnedMeans, Savings, VideoActivity
from slowfast.event_driven.connection import LatencyHistogram
from slowfast.event_driven.sources import Source, Sources
from slowfast.utils.distributed import init_distributed
from slowfast.utils.files import atomic_path
from slowfast.utils.logging import get_logger
from slowfast.utils.ray_cluster import RayCluster
from slowfast.utils.screen import Progress

if TYPE_CHECKING:
    from slowfast.event_driven.report import RunReport
    from slowfast.event_driven.videos import VideoRun

_RESULT = "result.pt"


@dataclass(frozen=True)
class VideoResult:
    """Result of a video.

    Attributes:
        activity: Its activity; None if it could not be opened.
        thumbnail: First frame, uint8 (P, P, 3); None without frames.
        failures: Why it could not be read, or not completely.
        warnings: Messages of the process that read it.
    """

    activity: VideoActivity | None
    thumbnail: torch.Tensor | None
    failures: list[Failure]
    warnings: list[str]


# What a file of a result may contain: loading it must not run code that someone else has put there.
_TYPES: list[Any] = [
    *(VideoResult, VideoActivity, Savings, BinnedMeans, LatencyHistogram, Counter, Failure),
    *(np.ndarray, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.int64)), np.zeros(0).__reduce__()[0]),
]


class ClusterRun:
    """Run on the videos of a config by the processes of a cluster, with the outputs of a run on this machine.

    The frame log lists one video after another. Results of finished videos are stored in OUTPUT_DIR, so that an
    interrupted run resumes with the others.

    Args:
        run: The run, which has no live sources.
    """

    def __init__(self, run: VideoRun) -> None:
        self._run, self._sources = run, run.sources.videos
        parts = (f"{source.record}\n{file_state(source.record.path)}" for source in self._sources)
        place = Path(run.cfg.OUTPUT_DIR) / PARTS
        self._folders = [place / digest for digest in digests_of_parts(run.cfg, run.loaded, parts)]
        self._earlier = 0.0  # seconds of interrupted runs

    def run(self, stopped: Callable[[], bool]) -> RunReport:
        """Process all videos, or until `stopped` returns True; the report then covers those that are finished.

        Raises:
            UserError: If there is no cluster, see `RayCluster`.
        """
        run = self._run
        progress = Progress("event-driven", len(self._sources), "videos", len(self._sources) > 1, run.cfg.LOG_PERIOD)
        with RayCluster.connect() as cluster, run.writing(progress):
            finished = {place: found for place in range(len(self._folders)) if (found := self._read(place)) is not None}
            if finished:
                get_logger().info(f"Resuming: an interrupted run has finished {len(finished)} of {len(self._folders)}")
            run.began -= self._earlier
            missing = [place for place in range(len(self._folders)) if place not in finished]
            parts = [(self._sources[place], self._folders[place]) for place in missing]
            work = functools.partial(process_video, type(run), run.cfg)
            following = self._deliver(finished, 0, progress)
            for position, result in cluster.map(work, parts, gpus=int(run.cfg.NUM_GPUS > 0), stopped=stopped):
                finished[missing[position]] = result
                self._write(result, missing[position])
                following = self._deliver(finished, following, progress)
            incomplete = following < len(self._folders)
            for place in sorted(finished):  # after a stop, some before them are missing
                self._deliver(finished, place, progress)
        if not incomplete:
            shutil.rmtree(Path(run.cfg.OUTPUT_DIR) / PARTS, ignore_errors=True)
        return run.finish(stopped=incomplete)

    def _deliver(self, finished: dict[int, VideoResult], following: int, progress: Progress) -> int:
        """Add the results that are next in order to the run; return the position of the video after them."""
        run = self._run
        while following in finished:
            result, source = finished.pop(following), self._sources[following]
            index = source.record.index
            for text in result.warnings:
                get_logger().warning(text)
            run.ledger.add(result.failures)
            if result.activity is not None:
                run.activity[index] = result.activity
            if result.thumbnail is not None:
                run.thumbnails[index] = result.thumbnail
            run.log.extend(self._folders[following])
            run.annotated.take(source, self._folders[following])
            progress.advance(source.record.name)
            following += 1
        return following

    def _write(self, result: VideoResult, place: int) -> None:
        found = {"result": result, "seconds": time.perf_counter() - self._run.began}
        with atomic_path(self._folders[place] / _RESULT, setting="OUTPUT_DIR") as part:
            torch.save(found, part)

    def _read(self, place: int) -> VideoResult | None:
        """Return the result of a video; None if there is none or it cannot be read."""
        file = self._folders[place] / _RESULT
        try:
            with torch.serialization.safe_globals(_TYPES):
                found = torch.load(file, weights_only=True)
            result: VideoResult = found["result"]
            self._earlier = max(self._earlier, found["seconds"])
            return result
        except FileNotFoundError:
            return None
        except Exception as error:  # of a damaged file
            get_logger().warning(f"{file} cannot be read ({type(error).__name__}); processing the video again")
            return None


def process_video(make: type[VideoRun], cfg: ConfigNode, part: tuple[Source, Path]) -> VideoResult:
    """Process a video in this process, which keeps the network for the next ones.

    Args:
        make: VideoRun.
        cfg: Config of the run.
        part: The video, and the folder for its frame log and its annotated video.
    """
    source, folder = part
    device = init_distributed(cfg.NUM_GPUS).device
    folder.mkdir(parents=True, exist_ok=True)
    run = make(cfg, device, Sources([source], []), model_of_process(cfg, device), folder)
    with _collected_warnings() as warnings:
        run.run(lambda: False)
    index = source.record.index
    return VideoResult(run.activity.get(index), run.thumbnails.get(index), run.ledger.all, warnings)


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings of this process, which nobody reads on a node of a cluster."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    get_logger().addHandler(handler)
    try:
        yield texts
    finally:
        get_logger().removeHandler(handler)
