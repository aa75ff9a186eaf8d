"""Files of predicted segments: segments.csv, segments.json and subtitles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TextIO

from tabulate import tabulate

from slowfast.datasets.index.samples import target_files
from slowfast.datasets.types import Failure, Record
from slowfast.inference.segments import Segment, timeline
from slowfast.inference.sliding import VideoSegments
from slowfast.utils.files import atomic_write_text
from slowfast.utils.json_files import write_json
from slowfast.utils.text import escape
from slowfast.utils.text_files import row_writer
from slowfast.visualization.results import SCORE_DIGITS, PredictionRow, class_row, tail

LIST, TABLE, SUBTITLES = "segments.csv", "segments.json", "subtitles"
SHOWN = 20  # segments in the table on the screen
_UNLABELED = ("path", "label")  # columns of predictions.csv that segments replace or do not have
_HEADER = [column.name for column in fields(PredictionRow) if column.name not in _UNLABELED]


class SegmentLog:
    """segments.csv, one line per segment, written as soon as the segment is complete; replaces that of an earlier run.

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
        return self._file or self._create()

    def _create(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # not truncated: another process may still write to it
        # surrogateescape: file names need not be valid text
        self._file = self.path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        latency = ["latency_ms"] if self._live else []
        row_writer(self._file)(("path", "start", "end", *_HEADER, *latency))
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def write_segments(
    videos: Sequence[VideoSegments],
    names: Sequence[str],
    about: Mapping[str, Any],
    failures: Iterable[Failure],
    folder: Path,
) -> dict[str, Path]:
    """Write segments.json, and the subtitles of each video.

    Args:
        videos: Videos with their segments.
        names: Class names.
        about: How the predictions were made.
        failures: What could not be read.
        folder: Folder of the files.

    Returns:
        The files and folders by description.
    """
    failed = [{"path": one.name, "reason": one.reason, "lost": one.lost} for one in failures]
    content = [_video_as_json(video, names) for video in videos]
    write_json(folder / TABLE, {**about, "videos": content, "failed": failed})
    targets = target_files([video.record for video in videos], folder / SUBTITLES, ".srt")
    for video, target in zip(videos, targets, strict=True):
        atomic_write_text(target, subtitles(video.segments, names))
    return {"segments": folder / TABLE, "segments as CSV": folder / LIST, "subtitles": folder / SUBTITLES}


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
