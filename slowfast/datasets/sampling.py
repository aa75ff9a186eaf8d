"""Sampling of frames and crops for training clips and evaluation views."""

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
    """Return the (possibly fractional) number of frames that a clip spans in a video of `fps` frames/s."""
    return sampling_rate * num_frames / target_fps * fps


def span_indices(n: int, start: float, span: float, num_frames: int) -> np.ndarray:
    """Return the frame indices of a clip, (T,): evenly spaced in [start, start + span - 1], truncated and clamped.

    Args:
        n: Frames of the video.
        start: First frame.
        span: Frames that the clip spans; below one frame, the clip repeats the frame at `start`.
        num_frames: Frames of the clip, T.
    """
    positions = np.linspace(start, start + max(span - 1, 0.0), num_frames)
    return np.clip(positions.astype(np.int64), 0, n - 1)


def span_train(n: int, span: float, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return the frame indices of a training clip, (T,); its start is uniform in [0, n - span]."""
    return span_indices(n, rng.uniform(0.0, max(n - span, 0.0)), span, num_frames)


def span_views(n: int, span: float, num_frames: int, views: int, offset_sampling: bool) -> np.ndarray:
    """Return the frame indices of all temporal views, (V, T), in the order of their starts.

    Args:
        n: Frames of the video.
        span: Frames that a clip spans.
        num_frames: Frames of a clip, T.
        views: Number of views, V.
        offset_sampling: Spread the starts from the first to the last possible one (a single view: the middle).
            Otherwise view v starts at (n - span) v / V.
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
    """Return a random frame of each of T equal segments, (T,); both ends of a segment are included."""
    bounds = _segment_bounds(n, num_frames)
    return rng.integers(bounds[:-1], bounds[1:], endpoint=True)


def segment_views(n: int, num_frames: int, views: int) -> np.ndarray:
    """Return the frame indices of all views, (V, T): view v takes the frame at (v + 1) / (V + 1) of each segment.

    Views differ where a segment has at least V + 1 frames.
    """
    segment = (n - 1) / num_frames
    offsets = np.floor(segment / (views + 1) * np.arange(1, views + 1)).astype(np.int64)
    return _segment_bounds(n, num_frames)[None, :-1] + offsets[:, None]


def _segment_bounds(n: int, num_frames: int) -> np.ndarray:
    """Return the rounded bounds of T equal segments of [0, n - 1], (T + 1,)."""
    return np.rint((n - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)


def frame_order(rows: np.ndarray, order: str, rng: np.random.Generator) -> np.ndarray:
    """Reorder the frames (T,) of a clip, to measure how much a network depends on motion.

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
    """Draw a crop with a random area and aspect ratio; the largest centered one if ten draws do not fit the frame.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        area: Smallest and largest area as a fraction of the frame (uniform).
        aspect: Smallest and largest width / height (log-uniform).
        rng: Generator of the draw.
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
    """Draw a square crop of `size` pixels of the frame scaled to a random short side.

    The crop is in pixels of the frame itself, rounded, so that cropping and scaling are one step.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        short_side: Smallest and largest short side after scaling.
        size: Side of the crop after scaling.
        rng: Generator of the draw.
    """
    side = rng.integers(short_side[0], short_side[1], endpoint=True)
    extent = max(1, round(size / int(side) * min(height, width)))
    top, left = (rng.integers(0, length - extent, endpoint=True) for length in (height, width))
    return Crop(int(top), int(left), extent, extent)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) after scaling the short side to `short_side` pixels; the long side is rounded down."""
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
    """Return (top, left) of each square crop of a frame.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        size: Side of the crops.
        crops: Number of crops: 1, or 3 at the start, center and end of the long side.
        center: Rounding of the margin of a center crop; up in the published video code.
        single: Position of a single crop, ``center`` or ``left`` (the start of the long side).
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
    """Sampling of the frames of clips from a video of `n` frames, at least one, and `fps` frames/s, above 0."""

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return the frame indices of a random clip, int64 (T,)."""

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return the frame indices of all evaluation clips, int64 (V, T)."""


@dataclass(frozen=True)
class SpanSampling:
    """Clips of a fixed duration, as Kinetics is sampled."""

    num_frames: int
    sampling_rate: int
    target_fps: float
    offset_sampling: bool

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SpanSampling:
        """Build the sampling from DATA."""
        data = cfg.DATA
        return cls(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.USE_OFFSET_SAMPLING)

    def _span(self, fps: float) -> float:
        return clip_span(self.num_frames, self.sampling_rate, self.target_fps, fps)

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return a clip with a random start, int64 (T,)."""
        return span_train(n, self._span(fps), self.num_frames, rng)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return clips spread over the video, int64 (V, T)."""
        return span_views(n, self._span(fps), self.num_frames, views, self.offset_sampling)


@dataclass(frozen=True)
class SegmentSampling:
    """Clips of one frame from each of T equal segments of the video, as Something-Something is sampled."""

    num_frames: int

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SegmentSampling:
        """Build the sampling of DATA.NUM_FRAMES segments."""
        return cls(cfg.DATA.NUM_FRAMES)

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return a random frame of each segment, int64 (T,)."""
        return segment_train(n, self.num_frames, rng)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return views with different frames of the segments, int64 (V, T)."""
        return segment_views(n, self.num_frames, views)


@dataclass(frozen=True)
class SingleImage:
    """Sampling of the single frame of an image."""

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SingleImage:
        """Build the sampling; it has no settings."""
        return cls()

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return the frame, int64 (1,)."""
        return np.zeros(1, np.int64)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return the frame for each view, int64 (V, 1)."""
        return np.zeros((views, 1), np.int64)
