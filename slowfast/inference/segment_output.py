"""`slowfast predict --window`: classify the windows of long videos; print and write the results."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.samples import FoundSamples, find_samples
from slowfast.datasets.types import FailureLedger
from slowfast.errors import DataError
from slowfast.inference.annotate import annotate_segments
from slowfast.inference.output import FAILED, results_folder, run_facts, throughput
from slowfast.inference.segment_files import SegmentLog, segments_table, write_segments
from slowfast.inference.sliding import SegmentCollector, SlidingPredictor, VideoSegments
from slowfast.inference.windows import WindowLayout, WindowOptions
from slowfast.utils.logging import get_logger
from slowfast.utils.progress import Progress
from slowfast.utils.screen import phase, show, show_table
from slowfast.utils.signals import Stopped, StopSignal
from slowfast.visualization.results import files_table, write_failed

_SIGNALLED = 128  # the signal number is added, as in shells
_RARELY = 10**9  # windows between log lines, so many that only time triggers them


def segments_to_files(
    cfg: ConfigNode, paths: Sequence[Path], output: Path, options: WindowOptions, *, annotate: bool = False
) -> int:
    """Classify the windows of videos, print the segments and write the results.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run; the results then cover the windows processed so far.

    Args:
        cfg: Config for evaluating the model.
        paths: Videos, folders of frames, and folders of them.
        output: Output folder.
        options: Windows.
        annotate: Also write each video as .mp4 with the classes of each moment drawn on it.

    Returns:
        The exit status: 0, or 128 + n after signal n.

    Raises:
        UserError: If weights are missing or the network does not take clips.
        DataError: If no window can be read.
    """
    with phase("building the model and loading its weights"):
        sliding = SlidingPredictor.from_config(cfg, options)
        found = find_samples(paths, sliding.kind)
    names, folder = sliding.predictor.names, results_folder(output)
    ledger, log = FailureLedger(found.count), SegmentLog(folder, names)
    ledger.add(found.refused, log=found.count > 1)  # a single failure is reported as the error
    collector = SegmentCollector(options.merge, log.write)
    progress = Progress("predict", 0, "windows", shown=True, every=_RARELY)
    with StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as stop:
        try:
            sliding.scores(found.records, collector.add, collector.begin, ledger, progress, lambda: stop.seen)
            collector.finish()
        finally:
            progress.close()
            log.close()
    videos = [video for video in collector.videos.values() if video.segments]
    if not videos:
        if stop.seen:
            raise KeyboardInterrupt if stop.name == signal.SIGINT.name else Stopped(stop.name)
        raise DataError(_nothing_read(found, ledger))
    files = write_segments(videos, names, run_facts(cfg) | _about(sliding.layout, options), ledger.all, folder)
    write_failed(ledger.all, folder / FAILED)
    files |= {"failed files": folder / FAILED} if ledger.all else {}
    show_table(segments_table(videos, names))
    if annotate and not stop.seen:
        with phase("annotating videos"):
            files["annotated videos"] = annotate_segments(cfg, videos, names, folder / "annotated")
    show(_summary(videos, ledger, found, sliding))
    show_table(files_table(files))
    if stop.seen:
        without = " and no videos are annotated" if annotate else ""
        get_logger().warning(f"Received {stop.name}. The results cover the windows processed so far{without}")
        return _SIGNALLED + signal.Signals[stop.name]
    return 0


def _about(layout: WindowLayout, options: WindowOptions) -> dict[str, object]:
    return {"window": round(layout.window, 4), "step": round(layout.step, 4), "merged": options.merge}


def _summary(
    videos: Sequence[VideoSegments], ledger: FailureLedger, found: FoundSamples, sliding: SlidingPredictor
) -> str:
    windows = sum(segment.windows for video in videos for segment in video.segments)
    parts = [f"{len(videos)} files read", f"{windows} windows"]
    if ledger.lost:
        parts.append(f"{len(ledger.lost)} failed (reasons in {FAILED})")
    if found.others:
        parts.append(f"{found.others} files of other types skipped")
    time, seconds = sliding.predictor.time, sum(video.seconds for video in videos)
    speed = f", {seconds / time.seconds:.1f} times real time" if time.seconds > 0 else ""
    return f"{', '.join(parts)}: {throughput(time)}{speed}"


def _nothing_read(found: FoundSamples, ledger: FailureLedger) -> str:
    first = ledger.all[0]
    line = f"{first.name}: {first.reason}"
    return line if found.count == 1 else f"none of {found.count} files and folders can be read. The first one: {line}"
