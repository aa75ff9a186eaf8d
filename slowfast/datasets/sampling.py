"""Sampling: the order of training samples, their parts of a batch, and the frames of clips.

All draws are pure functions of RNG_SEED, the epoch and the position.

Notation: B samples of a batch over all processes, T frames of a clip, V views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slowfast.config.node import ConfigNode

# Random streams. Each kind of draw has its own, so that no two share random numbers.
ORDER, VIEW, MIX = range(3)

# DATA.SAMPLING: each sample once per epoch, or each class equally often.
BALANCED = "balanced"

Key = tuple[int, int]  # (epoch, position in the epoch's order)

# TEST.FRAME_ORDER -> order of the frames, or of the times of events, in a test.
NORMAL, REPEATED, SHUFFLED = FRAME_ORDERS = ("normal", "repeated", "shuffled")


# ------------------------------------------------------------------ order of samples
def generator(stream: int, *numbers: int) -> np.random.Generator:
    """Return a generator that depends only on the stream and the numbers."""
    return np.random.default_rng([stream, *numbers])


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of `count` samples in an epoch, int64 (count,)."""
    return generator(ORDER, seed, epoch).permutation(count)


def balanced_order(labels: Sequence[int] | np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch with equally many samples of each class, int64 (count,).

    Every class is drawn once before one is drawn again, and so is every sample of a class. Samples of small classes are
    drawn several times: a draw is the index of the sample plus `count` times the number of its earlier draws.

    Args:
        labels: Label of each of `count` samples.
        seed: Seed of the run.
        epoch: Number of the epoch.
    """
    rng = generator(ORDER, seed, epoch)
    _, numbers = np.unique(np.asarray(labels), return_inverse=True)
    classes, count = int(numbers.max()) + 1, len(numbers)
    # Yields the same numbers as one call of `permutation` per round.
    rounds = rng.permuted(np.tile(np.arange(classes), (-(-count // classes), 1)), axis=1)
    order = np.empty(count, np.int64)
    chosen = _by_class(rounds.ravel()[:count], classes)  # the draws of each class
    for samples, draws in zip(_by_class(numbers, classes), chosen, strict=True):
        passes = [rng.permutation(samples) + count * repeat for repeat in range(-(-len(draws) // len(samples)))]
        order[draws] = np.concatenate(passes)[: len(draws)] if passes else []
    return order


def _by_class(numbers: np.ndarray, classes: int) -> list[np.ndarray]:
    """Return the ascending positions of each of `classes` numbers, int64."""
    return np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers, minlength=classes))[:-1])


def repeated_order(order: np.ndarray, repeats: int) -> np.ndarray:
    """Return an epoch of the same length with each of its first draws `repeats` times in a row.

    Repeated augmentation as a sampler (Hoffer et al. 2020, arXiv 1901.09335; DeiT): an epoch sees 1 / `repeats` of the
    samples. All copies of a draw differ in their number, and so in their augmentation.

    Args:
        order: int64 (count,), each draw the index of a sample plus `count` times the number of the draw.
        repeats: AUG.REPEATED, at least 1.

    Returns:
        int64 (count,), in the same notation.
    """
    count = len(order)
    times, indices = np.divmod(order[: -(-count // repeats)], count)
    numbers = times[:, None] * repeats + np.arange(repeats)  # draws, repeats
    return np.asarray((indices[:, None] + count * numbers).ravel()[:count])


# ------------------------------------------------------------------ batches
def batch_parts(size: int, parts: int) -> list[list[int]]:
    """Split the positions 0 .. size - 1 of a batch into equal parts.

    A position and its mirror image (size - 1 - position) are in the same part; if parts have an odd size, one position
    of each has no partner. MixUp pairs mirror images, so each process mixes its part like a single process mixes the
    batch. Neighboring positions are in different parts, as required for the copies of a repeated sample.
    """
    if size % parts:
        raise ValueError(f"{size} positions cannot be split into {parts} equal parts")
    inward = [position for i in range((size + 1) // 2) for position in dict.fromkeys((i, size - 1 - i))]
    pairs = size // parts // 2 * parts
    # First position of each pair; at most one position of each part remains.
    firsts, alone = range(pairs), inward[2 * pairs :]
    shares = [[position for i in firsts[part::parts] for position in (i, size - 1 - i)] for part in range(parts)]
    return [sorted(share + alone[part : part + 1]) for part, share in enumerate(shares)]


def clip_rows(positions: list[int], copies: int) -> list[int]:
    """Return the rows of the clips of some samples in the global batch; each sample has `copies` adjacent ones."""
    return [position * copies + copy for position in positions for copy in range(copies)]


class EpochBatches:
    """Keys of this process's part of every batch of an epoch; an incomplete last batch is dropped.

    Args:
        count: Number of samples.
        batch_size: Samples of a batch over all processes.
        parts: Positions of this process in a batch, one list per accumulation step.
    """

    def __init__(self, count: int, batch_size: int, parts: list[list[int]]) -> None:
        self.positions = [position for part in parts for position in part]
        self.batch_size = batch_size
        self.steps = count // batch_size
        self.epoch, self.first = 0, 0

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Start the next iteration at a step of an epoch."""
        self.epoch, self.first = epoch, step

    def __len__(self) -> int:
        return max(self.steps - self.first, 0)

    def keys(self, epoch: int, step: int) -> list[Key]:
        """Return the keys of this process's samples of one batch."""
        return [(epoch, step * self.batch_size + position) for position in self.positions]


# ------------------------------------------------------------------ frames
class TemporalSampling(Protocol):
    """Sampling of the frames of clips from a video of `n` frames, at least one, and `fps` frames/s, above 0."""

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return the frame indices of a random clip, int64 (T,)."""

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return the frame indices of all evaluation clips, int64 (V, T)."""


@dataclass(frozen=True)
class SpanSampling:
    """Clips of a fixed duration, as Kinetics is sampled.

    Args:
        num_frames: Frames of a clip, T.
        sampling_rate: Interval of the frames of a clip, at `target_fps` frames/s.
        target_fps: Frame rate of a clip before it is sampled.
        offset_sampling: Spread the starts of the views from the first to the last possible one (a single view: the
            middle). Otherwise view v starts at (n - span) v / V.
    """

    num_frames: int
    sampling_rate: int
    target_fps: float
    offset_sampling: bool

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> SpanSampling:
        """Build the sampling from DATA."""
        data = cfg.DATA
        return cls(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.USE_OFFSET_SAMPLING)

    def span(self, fps: float) -> float:
        """Return the (possibly fractional) number of frames that a clip spans in a video of `fps` frames/s."""
        return self.sampling_rate * self.num_frames / self.target_fps * fps

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return a clip whose start is uniform in [0, n - span], int64 (T,)."""
        span = self.span(fps)
        return span_indices(n, rng.uniform(0.0, max(n - span, 0.0)), span, self.num_frames)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return clips spread over the video, int64 (V, T), in the order of their starts."""
        span = self.span(fps)
        delta = max(n - span, 0.0)
        if not self.offset_sampling:
            starts = [delta * view / views for view in range(views)]
        elif views == 1:
            starts = [float(math.floor(delta / 2))]
        else:
            starts = [float(view * math.floor(delta / (views - 1))) for view in range(views)]
        return np.stack([span_indices(n, start, span, self.num_frames) for start in starts])


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


@dataclass(frozen=True)
class SegmentSampling:
    """Clips of one frame from each of T equal segments of the video, as Something-Something is sampled."""

    num_frames: int

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return a random frame of each segment, int64 (T,); both ends of a segment are included."""
        bounds = self._bounds(n)
        return rng.integers(bounds[:-1], bounds[1:], endpoint=True)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return the views, int64 (V, T): view v takes the frame at (v + 1) / (V + 1) of each segment.

        Views differ where a segment has at least V + 1 frames.
        """
        segment = (n - 1) / self.num_frames
        offsets = np.floor(segment / (views + 1) * np.arange(1, views + 1)).astype(np.int64)
        return self._bounds(n)[None, :-1] + offsets[:, None]

    def _bounds(self, n: int) -> np.ndarray:
        """Return the rounded bounds of T equal segments of [0, n - 1], (T + 1,)."""
        return np.rint((n - 1) / self.num_frames * np.arange(self.num_frames + 1)).astype(np.int64)


@dataclass(frozen=True)
class SingleImage:
    """Sampling of the single frame of an image."""

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return the frame, int64 (1,)."""
        return np.zeros(1, np.int64)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return the frame for each view, int64 (V, 1)."""
        return np.zeros((views, 1), np.int64)


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
