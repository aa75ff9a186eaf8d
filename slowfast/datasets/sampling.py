"""Temporal sampling: the frames of training clips and of evaluation views."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.types import Crop

_CROP_TRIES = 10
# TEST.FRAME_ORDER -> order of the frames, or of the times of events, in a test.
NORMAL, REPEATED, SHUFFLED = FRAME_ORDERS = ("normal", "repeated", "shuffled")


# ------------------------------------------------------------------ temporal views, Kinetics style
def clip_span(num_frames: int, sampling_rate: int, target_fps: float, fps: float) -> float:
    """Frames of a medium of `fps` that a clip stretches over (may be fractional); `fps` must be above 0."""
    return sampling_rate * num_frames / target_fps * fps


def span_indices(n: int, start: float, span: float, num_frames: int) -> np.ndarray:
    """Indices (T,) evenly spread over [start, start + span - 1], truncated, then clamped to the medium's n frames.

    A span below one frame (a slide show) takes the frame at `start` throughout.
    """
    positions = np.linspace(start, start + max(span - 1, 0.0), num_frames)
    return np.clip(positions.astype(np.int64), 0, n - 1)


def span_train(n: int, span: float, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Indices (T,) of a training clip: its start is uniform in [0, n - span]."""
    return span_indices(n, rng.uniform(0.0, max(n - span, 0.0)), span, num_frames)


def span_views(n: int, span: float, num_frames: int, views: int, offset_sampling: bool) -> np.ndarray:
    """Indices (V, T) of all temporal views of a test, in the order of their starts.

    `offset_sampling` spreads the starts from the first to the last possible one (one view: the middle);
    without it view v starts at delta x v / views.
    """
    delta = max(n - span, 0.0)
    if not offset_sampling:
        starts = [delta * view / views for view in range(views)]
    elif views == 1:
        starts = [float(math.floor(delta / 2))]
    else:
        starts = [float(view * math.floor(delta / (views - 1))) for view in range(views)]
    return np.stack([span_indices(n, start, span, num_frames) for start in starts])


# ------------------------------------------------------------------ temporal views, Something style
def segment_train(n: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Indices (T,): a random frame of each of T equal segments, both of a segment's ends included."""
    bounds = _segment_bounds(n, num_frames)
    return rng.integers(bounds[:-1], bounds[1:], endpoint=True)


def segment_views(n: int, num_frames: int, views: int) -> np.ndarray:
    """Indices (V, T): view v takes the frame (v + 1) / (views + 1) into each of T equal segments.

    Views differ from one another wherever a segment holds at least views + 1 frames.
    """
    segment = (n - 1) / num_frames
    offsets = np.floor(segment / (views + 1) * np.arange(1, views + 1)).astype(np.int64)
    return _segment_bounds(n, num_frames)[None, :-1] + offsets[:, None]


def _segment_bounds(n: int, num_frames: int) -> np.ndarray:
    """Rounded ends (T + 1,) of T equal segments of [0, n - 1]."""
    return np.rint((n - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)


def frame_order(rows: np.ndarray, order: str, rng: np.random.Generator) -> np.ndarray:
    """Reorder the frames (T,) of a clip, to show what a network owes to motion.

    Args:
        rows: Frame indices.
        order: ``normal`` for none, ``repeated`` for the middle frame throughout, ``shuffled`` for a random order.
        rng: Generator of the random order.
    """
    if order == NORMAL:
        return rows
    if order == REPEATED:
        return np.repeat(rows[len(rows) // 2], len(rows))
    if order == SHUFFLED:
        return rng.permutation(rows)
    raise ValueError(f"frame order {order!r}: use {', '.join(FRAME_ORDERS)}")


# ------------------------------------------------------------------ spatial views
def random_resized_crop(
    height: int, width: int, area: Sequence[float], aspect: Sequence[float], rng: np.random.Generator
) -> Crop:
    """A crop of a share of the frame's area in `area` and of a width / height in `aspect` (log-uniform).

    When ten draws do not fit the frame: the largest centred crop of an allowed aspect ratio.
    """
    for _ in range(_CROP_TRIES):
        target = rng.uniform(area[0], area[1]) * height * width
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(0, height - h, endpoint=True), rng.integers(0, width - w, endpoint=True)
            return Crop(int(top), int(left), h, w)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    h = min(height, max(1, round(width / ratio)))
    w = min(width, max(1, round(height * ratio)))
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def jittered_crop(height: int, width: int, short_side: Sequence[int], size: int, rng: np.random.Generator) -> Crop:
    """The square that a random crop of `size` takes after scaling the short side to a whole number in `short_side`.

    Given in the frame's own pixels and rounded to whole ones, so that cropping and scaling are one step.
    """
    side = rng.integers(short_side[0], short_side[1], endpoint=True)
    extent = max(1, round(size / int(side) * min(height, width)))
    top, left = (rng.integers(0, length - extent, endpoint=True) for length in (height, width))
    return Crop(int(top), int(left), extent, extent)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after scaling the short side to `short_side` pixels; the long side is rounded down."""
    if height <= width:
        return short_side, short_side * width // height
    return short_side * height // width, short_side


def view_corners(
    height: int,
    width: int,
    size: int,
    crops: int,
    center: Callable[[float], int] = math.ceil,
    single: str = "center",
) -> list[tuple[int, int]]:
    """Return (top, left) of 1 or 3 (start, center, end of the long side) square crops of a frame.

    `center` rounds half of what is left over: up in the published video code. A single crop is the center or, where
    `single` is "left", the start.
    """
    top, left = center((height - size) / 2), center((width - size) / 2)
    if crops == 1 and single == "center":
        return [(top, left)]
    if crops == 1:
        return [(0, left) if height > width else (top, 0)]
    if height > width:
        return [(0, left), (top, left), (height - size, left)]
    return [(top, 0), (top, left), (top, width - size)]


class TemporalSampling(Protocol):
    """Chooses a clip's frames out of `n` (at least 1) at `fps` (1/s, above 0)."""

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Frame indices of a random clip: int64 (T,)."""

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Frame indices of all test clips: int64 (V, T)."""


@dataclass(frozen=True)
class SpanSampling:
    """Clips of a fixed duration, as Kinetics is sampled."""

    num_frames: int
    sampling_rate: int
    target_fps: float
    offset_sampling: bool

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SpanSampling:
        """As DATA says."""
        data = cfg.DATA
        return cls(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.USE_OFFSET_SAMPLING)

    def _span(self, fps: float) -> float:
        return clip_span(self.num_frames, self.sampling_rate, self.target_fps, fps)

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """A clip with a random start: int64 (T,)."""
        return span_train(n, self._span(fps), self.num_frames, rng)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Clips spread over the medium: int64 (V, T)."""
        return span_views(n, self._span(fps), self.num_frames, views, self.offset_sampling)


@dataclass(frozen=True)
class SegmentSampling:
    """Clips of one frame from each of T equal segments of the whole medium, as Something-Something is sampled."""

    num_frames: int

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SegmentSampling:
        """DATA.NUM_FRAMES segments."""
        return cls(cfg.DATA.NUM_FRAMES)

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """A random frame of each segment: int64 (T,)."""
        return segment_train(n, self.num_frames, rng)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Views that take other frames of the segments: int64 (V, T)."""
        return segment_views(n, self.num_frames, views)


@dataclass(frozen=True)
class SingleImage:
    """The one frame that an image is."""

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SingleImage:
        """Nothing to choose."""
        return cls()

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """int64 (1,)."""
        return np.zeros(1, np.int64)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """int64 (V, 1), all the same."""
        return np.zeros((views, 1), np.int64)
