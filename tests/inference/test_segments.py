"""Segments: merging of neighbors, and lookup by time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowfast.inference.segment_output import clock, subtitles
from slowfast.inference.segments import Segment, SegmentAt, SegmentBuilder, timeline
from slowfast.inference.windows import WindowLayout


def scores_of(label: int, seed: int = 0) -> torch.Tensor:
    """Return scores of 7 classes of which `label` is the best."""
    scores = torch.from_numpy(np.random.default_rng(seed).uniform(0, 0.5, 7))
    scores[label] = 0.9
    return scores


def build(windows: list[tuple[float, float, int]], merge: bool) -> list[Segment]:
    builder = SegmentBuilder(merge)
    found = [
        segment
        for number, (start, end, label) in enumerate(windows)
        for segment in builder.add(start, end, scores_of(label, number))
    ]
    return [*found, *builder.finish()]


@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=30),
    step=st.integers(1, 12),
    length=st.integers(1, 9),
)
def test_merged_segments_follow_the_nearest_window(labels: list[int], step: int, length: int) -> None:
    windows = [(float(n * step), float(n * step + length), label) for n, label in enumerate(labels)]
    merged = build(windows, merge=True)
    for one, other in zip(merged, merged[1:], strict=False):
        assert one.end <= other.start
        assert one.end < other.start or one.prediction != other.prediction  # neighbors were merged
    shown = SegmentAt(merged)
    for moment in np.arange(0, windows[-1][1], 0.25):
        inside = [window for window in windows if window[0] <= moment < window[1]]
        distances = [abs((window[0] + window[1]) / 2 - moment) for window in inside]
        if distances.count(min(distances, default=0.0)) > 1:
            continue  # exactly between two centers
        wanted = inside[int(np.argmin(distances))][2] if inside else None
        found = shown(float(moment))
        assert (None if found is None else found.prediction) == wanted
    assert sum(segment.windows for segment in merged) == len(windows)


def test_scores_of_a_merged_segment_are_the_mean() -> None:
    first, second = build([(0, 2, 3), (2, 4, 3), (4, 6, 1)], merge=True)
    mean = (scores_of(3, 0) + scores_of(3, 1)) / 2
    assert (first.start, first.end, first.windows) == (0, 4, 2)
    assert dict(first.best) == pytest.approx({label: float(mean[label]) for label, _ in first.best})
    assert [score for _, score in first.best] == sorted((score for _, score in first.best), reverse=True)
    assert (second.start, second.end, second.prediction) == (4, 6, 1)


def test_windows_with_a_frame_between_them_are_neighbors() -> None:
    """A clip of 64 / 30 s has 53.33 frames at 25 frames/s: windows of 53 frames, some of them a frame apart."""
    plan = WindowLayout(64 / 30, 64 / 30).plan(np.arange(500) / 25, 25.0)
    assert plan.starts.tolist()[:4] == [0, 53, 107, 160]
    builder = SegmentBuilder(True, 1.5 / 25)
    found = [segment for n in range(len(plan)) for segment in builder.add(*plan.seconds(n), scores_of(2))]
    [segment] = [*found, *builder.finish()]
    assert (segment.start, segment.end, segment.windows) == (0, 20, len(plan))


def test_without_merging_every_window_is_a_segment() -> None:
    windows = [(0.0, 4.0, 1), (2.0, 6.0, 1), (4.0, 8.0, 2)]
    segments = build(windows, merge=False)
    assert [(segment.start, segment.end, segment.prediction) for segment in segments] == windows
    assert [(segment.start, segment.end) for segment in timeline(segments)] == [(0, 3), (3, 5), (5, 8)]


def test_subtitles() -> None:
    segments = [Segment(0.0, 1.5, [(0, 0.876)]), Segment(1.5, 3723.0406, [(1, 0.5)])]
    assert subtitles(segments, ["walk", "a-->b\n<i>"]) == (
        "1\n00:00:00,000 --> 00:00:01,500\nwalk (88 %)\n\n2\n00:00:01,500 --> 01:02:03,041\na--)b\\n(i) (50 %)\n"
    )
    assert clock(3723.04) == "1:02:03.0" and clock(59.96) == "0:01:00.0"
