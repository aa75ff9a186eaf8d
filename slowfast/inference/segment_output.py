"""Predictions for the windows of long videos (`slowfast predict --window`): tables on the screen and files.

The files are segments.json, segments.csv, subtitles, failed.csv, and annotated videos.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TextIO

from tabulate import tabulate

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.samples import FoundSamples, find_samples, target_files
from slowfast.datasets.types import Failure, FailureLedger, Record
from slowfast.errors import DataError
from slowfast.inference.output import (
    FAILED,
    annotate_video,
    results_folder,
    run_facts,
    throughput,
    warn_on_failure,
)
from slowfast.inference.segments import Segment, SegmentAt, SegmentCollector, VideoSegments, timeline
from slowfast.inference.sliding import SlidingPredictor
from slowfast.inference.windows import WindowLayout, WindowOptions
from slowfast.utils.files import atomic_write_text
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import Progress, phase, show, show_table
from slowfast.utils.signals import Stopped, StopSignal
from slowfast.utils.text import escape
from slowfast.utils.text_files import create_csv, row_writer, write_json
from slowfast.visualization.results import (
    SCORE_DIGITS,
    PredictionRow,
    class_row,
    files_table,
    tail,
    write_failed,
)
from slowfast.visualization.video_writer import class_lines

LIST, TABLE, SUBTITLES = "segments.csv", "segments.json", "subtitles"
SHOWN = 20  # segments in the table on the screen
_UNLABELED = ("path", "label")  # columns of predictions.csv that segments.csv replaces or omits
_HEADER = [column.name for column in fields(PredictionRow) if column.name not in _UNLABELED]
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
    about = run_facts(cfg) | window_facts(sliding.layout, options)
    files = write_segments(videos, names, about, ledger.all, folder)
    show_table(segments_table(videos, names))
    if annotate and not stop.seen:
        with phase("annotating videos"):
            files["annotated videos"] = annotate_segments(cfg, videos, names, folder / "annotated")
    show(_segments_summary(videos, ledger, found, sliding))
    show_table(files_table(files))
    if not stop.seen:
        return 0
    without = " and no videos are annotated" if annotate else ""
    get_logger().warning(f"Received {stop.name}. The results cover the windows processed so far{without}")
    return _SIGNALLED + signal.Signals[stop.name]


def window_facts(layout: WindowLayout, options: WindowOptions) -> dict[str, object]:
    """Return the windows of a run, for segments.json."""
    return {"window": round(layout.window, 4), "step": round(layout.step, 4), "merged": options.merge}


def _segments_summary(
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


def annotate_segments(cfg: ConfigNode, videos: Sequence[VideoSegments], names: Sequence[str], folder: Path) -> Path:
    """Write each video as .mp4, with the classes of the segment whose center is nearest drawn on each frame.

    Args:
        cfg: Config of the predictions.
        videos: Videos and their segments.
        names: Class names.
        folder: Output folder.

    Returns:
        The output folder.
    """
    targets = target_files([video.record for video in videos], folder, ".mp4")
    for video, target in zip(videos, targets, strict=True):
        with warn_on_failure(video.record.name):
            lines = _lines_at(video.segments, names)
            annotate_video(video.record, cfg.DATA.IMAGE_TEMPLATE, cfg.DATA.TARGET_FPS, lines, target)
    return folder


def _lines_at(segments: Sequence[Segment], names: Sequence[str]) -> Callable[[float], list[str]]:
    """Return a function from the time in seconds to lines of text: the best classes of the segment, if there is one."""
    at = SegmentAt(segments)

    def lines(seconds: float) -> list[str]:
        segment = at(seconds)
        return [] if segment is None else class_lines((names[label], score) for label, score in segment.best)

    return lines


class SegmentLog:
    """Writer of segments.csv, one line per complete segment; replaces the file of an earlier run.

    Columns: path, start and end in seconds, and the columns prediction, class_name, score and five_best of
    predictions.csv; for live sources also the latency in milliseconds.

    Args:
        folder: Folder of the file, created with it at the first segment.
        names: Class names.
        live: Write latencies.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, live: bool = False) -> None:
        self.path, self._names, self._live = folder / LIST, names, live
        self._file: TextIO | None = None

    def write(self, record: Record, segment: Segment) -> None:
        """Write a segment."""
        file = self.open()
        row = astuple(class_row(record.name, None, segment.best, self._names))[len(_UNLABELED) :]
        latency = [f"{1e3 * (segment.latency or 0):.1f}"] if self._live else []
        row_writer(file)((record.name, f"{segment.start:.3f}", f"{segment.end:.3f}", *row, *latency))
        file.flush()

    def open(self) -> TextIO:
        """Create the file unless it is open, also for a run without segments."""
        if self._file is None:
            self._file = create_csv(self.path, ("path", "start", "end", *_HEADER, *["latency_ms"] * self._live))
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def write_segments(
    videos: Sequence[VideoSegments],
    names: Sequence[str],
    about: Mapping[str, Any],
    failures: Sequence[Failure],
    folder: Path,
    kind: str = "files",
) -> dict[str, Path]:
    """Write segments.json, failed.csv, and the subtitles of each video.

    Args:
        videos: Videos with their segments.
        names: Class names.
        about: Description of the predictions.
        failures: Failures.
        folder: Folder of the files.
        kind: What failed, for the description of failed.csv.

    Returns:
        The files and folders by description.
    """
    failed = [{"path": one.name, "reason": one.reason, "lost": one.lost} for one in failures]
    content = [_video_as_json(video, names) for video in videos]
    write_json(folder / TABLE, {**about, "videos": content, "failed": failed})
    targets = target_files([video.record for video in videos], folder / SUBTITLES, ".srt")
    for video, target in zip(videos, targets, strict=True):
        atomic_write_text(target, subtitles(video.segments, names))
    write_failed(failures, folder / FAILED)
    files = {"segments": folder / TABLE, "segments as CSV": folder / LIST, "subtitles": folder / SUBTITLES}
    return files | ({f"failed {kind}": folder / FAILED} if failures else {})


def _video_as_json(video: VideoSegments, names: Sequence[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": video.record.name}
    if video.fps:
        entry["fps"] = round(video.fps, 4)
    entry |= {"seconds": round(video.seconds, 3), **video.facts}
    if video.left_out:
        entry["earlier_segments"] = video.left_out
    return entry | {"segments": [_as_json(segment, names) for segment in video.segments]}


def _as_json(segment: Segment, names: Sequence[str]) -> dict[str, Any]:
    best = [{"class": names[label], "score": round(score, SCORE_DIGITS)} for label, score in segment.best]
    entry: dict[str, Any] = {"start": round(segment.start, 3), "end": round(segment.end, 3), "best": best}
    if segment.windows > 1:
        entry["windows"] = segment.windows
    if segment.latency is not None:
        entry["latency_ms"] = round(1e3 * segment.latency, 1)
    return entry


def subtitles(segments: Sequence[Segment], names: Sequence[str]) -> str:
    """Return segments as SubRip text; each moment shows the segment whose center is nearest."""
    entries = []
    for number, segment in enumerate(timeline(segments), start=1):
        label, score = segment.best[0]
        name = escape(names[label]).replace("<", "(").replace(">", ")")  # neither markup nor "-->"
        times = f"{_srt_time(segment.start)} --> {_srt_time(segment.end)}"
        entries.append(f"{number}\n{times}\n{name} ({100 * score:.0f} %)\n")
    return "\n".join(entries)


def _srt_time(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02},{rest % 1000:03}"


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss.s."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest / 10:04.1f}"


def segments_table(videos: Sequence[VideoSegments], names: Sequence[str]) -> str:
    """Return a table of the first segments."""
    every = [(video, place, segment) for video in videos for place, segment in enumerate(video.segments)]
    rows = []
    for video, place, segment in every[:SHOWN]:
        label, score = segment.best[0]
        file = tail(video.record.name, 32) if place == 0 else ""
        rows.append(
            (file, clock(segment.start), clock(segment.end), tail(names[label], 34), f"{score:.{SCORE_DIGITS}f}")
        )
    text = tabulate(rows, ("file", "start", "end", "class", "score"), tablefmt="simple", disable_numparse=True)
    more = len(every) - SHOWN
    return text if more <= 0 else f"{text}\n... and {more} more in the files listed below"
