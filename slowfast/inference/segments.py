"""Segments of videos with their predicted classes: merging neighboring windows, and the segment at each time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from slowfast.datasets.types import Record
from slowfast.engine.evaluate import best_classes
from slowfast.visualization.results import BEST

_TOUCHING = 1e-6  # seconds
_NEIGHBORS = 1.5  # maximum number of frames between neighboring windows
MAX_KEPT = 100_000  # segments kept of a live source, which may run forever; segments.csv has all of them
_SPARE = 1.1  # times MAX_KEPT, so that the oldest are rarely removed


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


@dataclass(frozen=True)
class WindowScores:
    """Scores of one window of a video, float64 (K,)."""

    record: Record
    start: float
    end: float
    scores: torch.Tensor


OnSegment = Callable[[Record, Segment], None]


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
