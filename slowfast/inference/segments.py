"""Segments of videos with their predicted classes: merging neighbors, what is shown at each time, and their files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from tabulate import tabulate

from slowfast.datasets.index.samples import target_files
from slowfast.datasets.types import Failure, Record
from slowfast.engine.evaluate import best_classes
from slowfast.utils.files import atomic_write_text
from slowfast.utils.text import escape
from slowfast.utils.text_files import row_writer, write_json
from slowfast.visualization.results import BEST, SCORE_DIGITS, PredictionRow, class_row, tail

_TOUCHING = 1e-6  # seconds
LIST, TABLE, SUBTITLES = "segments.csv", "segments.json", "subtitles"
SHOWN = 20  # segments in the table on the screen
_UNLABELED = ("path", "label")  # columns of predictions.csv that segments.csv replaces or omits
_HEADER = [column.name for column in fields(PredictionRow) if column.name not in _UNLABELED]


@dataclass(frozen=True)
class Segment:
    """Part of a video and its prediction.

    Attributes:
        start: Start in seconds after the first frame.
        end: End in seconds.
        best: Up to five (class, score), best first.
        windows: Number of windows that were merged.
        latency: Seconds from the arrival of the last frame to the prediction; None for files.
    """

    start: float
    end: float
    best: Sequence[tuple[int, float]]
    windows: int = 1
    latency: float | None = None

    @property
    def prediction(self) -> int:
        """The best class."""
        return self.best[0][0]


@dataclass
class VideoSegments:
    """Segments of one video.

    Attributes:
        record: The video.
        fps: Frame rate in frames/s; 0 for events.
        seconds: Duration in seconds.
        segments: Segments in order of their starts.
        left_out: Number of earlier segments of a live source that are no longer kept.
        facts: Further entries of segments.json.
    """

    record: Record
    fps: float
    seconds: float
    segments: list[Segment] = field(default_factory=list)
    left_out: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


class SegmentBuilder:
    """Conversion of the predictions of consecutive windows of a video into segments.

    With merging, each moment belongs to the window whose center is nearest, so that the segments of overlapping windows
    do not overlap, and neighbors of one class are one segment, whose scores are the mean over its windows.

    Args:
        merge: Merge neighboring windows of one class.
        gap: Maximum seconds between neighbors, because a frame may lie between two windows.
    """

    def __init__(self, merge: bool, gap: float = _TOUCHING) -> None:
        self.merge, self._gap = merge, gap
        self._open: Segment | None = None
        self._sum = torch.zeros(0)  # sum of the scores of the windows in the open segment
        self._window_end = 0.0  # end of the last window in seconds

    def add(self, start: float, end: float, scores: torch.Tensor, latency: float | None = None) -> Iterator[Segment]:
        """Add a window and yield the segments that are complete.

        Args:
            start: Start of the window in seconds.
            end: End of the window in seconds.
            scores: Scores of all classes, (K,).
            latency: Seconds from the arrival of the last frame to the prediction.
        """
        segment = Segment(start, end, best_classes(scores, BEST), 1, latency)
        if not self.merge:
            yield segment
            return
        before, self._window_end = self._window_end, end
        if self._open is None:
            self._open, self._sum = segment, scores.clone()
            return
        boundary = (before + start) / 2 if start <= before + self._gap else None
        if boundary is not None and segment.prediction == self._open.prediction:
            self._sum += scores
            self._open = replace(self._open, end=end, windows=self._open.windows + 1, latency=latency)
            return
        yield from self.finish(boundary)
        self._open = segment if boundary is None else replace(segment, start=boundary)
        self._sum = scores.clone()

    def finish(self, end: float | None = None) -> Iterator[Segment]:
        """Yield the last segment, which ends at `end` or with its last window."""
        if self._open is None:
            return
        whole = self._open if end is None else replace(self._open, end=end)
        self._open = None
        # The segment's class is the best one of the mean scores.
        yield replace(whole, best=best_classes(self._sum / whole.windows, BEST))


def timeline(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments that do not overlap: each moment belongs to the segment whose center is nearest.

    Args:
        segments: Segments in order of their starts, of the same length where they overlap.
    """
    cut = list(segments)
    for place in range(1, len(cut)):
        before, after = segments[place - 1], segments[place]
        if after.start < before.end:
            boundary = (before.end + after.start) / 2
            cut[place - 1] = replace(cut[place - 1], end=boundary)
            cut[place] = replace(cut[place], start=boundary)
    return [segment for segment in cut if segment.end > segment.start]


class SegmentAt:
    """Lookup of the segment to show at a given time.

    Args:
        segments: Segments in order of their starts.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._shown = timeline(segments)
        self._starts = [segment.start for segment in self._shown]

    def __call__(self, seconds: float) -> Segment | None:
        """Return the segment at a time in seconds; None if there is none."""
        place = bisect_right(self._starts, seconds + _TOUCHING) - 1
        if place < 0 or self._shown[place].end <= seconds + _TOUCHING:
            return None
        return self._shown[place]


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
        return self._file or self._create()

    def _create(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # deleted instead of truncated, because another process may still write to it
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
        about: Description of the predictions.
        failures: Failures.
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
