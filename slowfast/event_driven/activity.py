"""Activity of event-driven inference: computed patches, saved multiply-adds and agreement with dense inference.

Dense inference is the same network with every patch of every frame computed.

Notation: K frames, N patches of the first stage, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from slowfast.event_driven.connection import LatencyHistogram
from slowfast.event_driven.network import PatchNetwork


@dataclass
class Savings:
    """Patches and multiply-adds that were computed, relative to dense inference.

    Args:
        counts: Number of patches per stage in a frame.
        dense_macs: Multiply-adds of dense inference on a frame.
        frames: Number of frames.
        macs: Multiply-adds computed, summed over the frames.
        active: Number of patches computed per stage, summed over the frames; empty before the first frame.
    """

    counts: Sequence[int]
    dense_macs: int
    frames: int = 0
    macs: int = 0
    active: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, network: PatchNetwork) -> Savings:
        """Return the savings of a network before its first frame."""
        return cls(network.counts, network.dense_macs)

    def add(self, active: torch.Tensor, macs: torch.Tensor) -> None:
        """Add more frames: patches computed (..., stages) and multiply-adds (...)."""
        self._add(macs.numel(), int(macs.sum()), active.flatten(0, -2).sum(0).tolist())

    @classmethod
    def total(cls, parts: Iterable[Savings]) -> Savings:
        """Return the combined savings of one or more videos or processes."""
        first, *others = parts
        total = replace(first, active=list(first.active))
        for part in others:
            total._add(part.frames, part.macs, part.active)
        return total

    def _add(self, frames: int, macs: int, active: list[int]) -> None:
        self.frames, self.macs = self.frames + frames, self.macs + macs
        if active:
            known = self.active or [0] * len(active)
            self.active = [a + b for a, b in zip(known, active, strict=True)]

    @property
    def macs_saved(self) -> float:
        """Percentage of the multiply-adds of dense inference that were saved; 0 without frames."""
        return 100 * (1 - self.macs / (self.frames * self.dense_macs)) if self.frames else 0.0

    @property
    def active_shares(self) -> list[float]:
        """Percentage of patches computed per stage; empty without frames."""
        pairs = zip(self.active, self.counts, strict=False)
        return [100 * active / (self.frames * count) for active, count in pairs]


@dataclass(frozen=True)
class Agreement:
    """Agreement of K frames with dense inference.

    The logit error is the absolute difference of the logits relative to the largest absolute logit of dense inference.
    """

    same: np.ndarray  # bool (K,): equal top-1 class
    mean: np.ndarray  # float64 (K,): logit error, mean over the classes
    largest: np.ndarray  # float64 (K,): logit error, maximum over the classes

    @classmethod
    def between(cls, logits: torch.Tensor, dense: torch.Tensor) -> Agreement:
        """Compare logits (K, C) with those of dense inference (K, C)."""
        error = (logits - dense).abs().double() / dense.abs().amax(1, keepdim=True).clamp_min(1e-12)
        same = (logits.argmax(1) == dense.argmax(1)) & error.isfinite().all(1)  # NaN never agrees
        return cls(same.cpu().numpy(), error.mean(1).cpu().numpy(), error.amax(1).cpu().numpy())


@dataclass(frozen=True)
class FrameActivity:
    """Activity of K frames."""

    active: np.ndarray  # int (K, stages): patches computed
    macs: np.ndarray  # int (K,)
    predictions: np.ndarray  # int (K,): top-1 class
    agreement: Agreement | None  # None without a comparison

    def __len__(self) -> int:
        return len(self.macs)


class BinnedMeans:
    """Means over bins of consecutive frames, in constant memory for videos of any length.

    There are at most MAX_BINS bins. When they are full, neighbors are merged and the bin size doubles.
    """

    MAX_BINS = 2000

    def __init__(self, columns: int) -> None:
        self.frames, self.bin_size = 0, 1  # the last bin may contain fewer frames
        self._sums = np.zeros((self.MAX_BINS, columns))
        self._seconds = np.zeros(self.MAX_BINS)  # time of the first frame of each bin

    def add(self, rows: np.ndarray, seconds: np.ndarray) -> None:
        """Add the next K frames: values (K, columns) and times in seconds (K,)."""
        while self.frames + len(rows) > self.MAX_BINS * self.bin_size:
            merged = self._sums.reshape(self.MAX_BINS // 2, 2, -1).sum(1)
            self._sums = np.concatenate((merged, np.zeros_like(merged)))
            self._seconds = np.concatenate((self._seconds[::2], np.zeros(self.MAX_BINS // 2)))
            self.bin_size *= 2
        numbers = self.frames + np.arange(len(rows))
        bins, first = numbers // self.bin_size, numbers % self.bin_size == 0
        np.add.at(self._sums, bins, rows)
        self._seconds[bins[first]] = seconds[first]
        self.frames += len(rows)

    def means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the number (B,) and the time (B,) of the first frame, and the mean (B, columns), of each of B bins."""
        starts = np.arange(0, self.frames, self.bin_size)
        sizes = np.diff(np.append(starts, self.frames))
        return starts, self._seconds[: len(starts)], self._sums[: len(starts)] / sizes[:, None]


@dataclass
class VideoActivity:
    """Activity of one video so far, in constant memory: a camera may run forever.

    ``event_seconds`` and ``dense_seconds`` are the time of gate and network alone, without decoding and normalization.
    Latency is the time from the arrival of a frame's data to its logits.
    """

    name: str
    savings: Savings
    began: float = 0.0  # perf_counter() before the first read
    live: bool = False  # a camera or stream
    over_time: BinnedMeans | None = None  # patches computed per stage
    predictions: Counter[int] = field(default_factory=Counter)  # number of frames per top-1 class
    times_active: torch.Tensor | None = None  # int (N,)
    compared: int = 0  # frames compared with dense inference
    same: int = 0  # compared frames with the same top-1 class
    error_sum: float = 0.0  # sum of the mean logit errors
    error_max: float = 0.0
    event_seconds: float = 0.0
    compared_event_seconds: float = 0.0  # part of event_seconds spent on compared frames
    dense_seconds: float = 0.0
    elapsed: float = 0.0  # seconds since the beginning, decoding included
    dropped: int = 0  # frames of a live source that arrived faster than they were processed
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)  # latency of a live source
    reconnects: int = 0  # interruptions of a live source that have ended
    seconds_away: float = 0.0  # seconds without connection to a live source

    def add(
        self,
        active: torch.Tensor,
        macs: torch.Tensor,
        mask: torch.Tensor,
        logits: torch.Tensor,
        dense: torch.Tensor | None,
        seconds: np.ndarray | None = None,
    ) -> FrameActivity:
        """Add the next K frames.

        Args:
            active: Patches computed per stage, (K, stages).
            macs: Multiply-adds, (K,).
            mask: Changed patches of the first stage, bool (K, N).
            logits: Logits, (K, C).
            dense: Logits of dense inference to compare with, (K, C).
            seconds: Time of each frame in the video, or since a live source was opened, (K,); None to keep no activity
                over time.

        Returns:
            The activity of these frames.
        """
        agreement = Agreement.between(logits, dense) if dense is not None else None
        frames = FrameActivity(active.cpu().numpy(), macs.cpu().numpy(), logits.argmax(1).cpu().numpy(), agreement)
        self.savings.add(active, macs)
        if seconds is not None:
            if self.over_time is None:
                self.over_time = BinnedMeans(frames.active.shape[1])
            self.over_time.add(frames.active, seconds)
        self.predictions.update(frames.predictions.tolist())
        times = mask.sum(0).cpu()
        self.times_active = times if self.times_active is None else self.times_active + times
        if agreement is not None:
            self._compare(agreement)
        return frames

    def add_time(self, event_seconds: float, dense_seconds: float | None) -> None:
        """Add the time of the last added frames; `dense_seconds` is None if they were not compared."""
        self.event_seconds += event_seconds
        if dense_seconds is not None:
            self.compared_event_seconds += event_seconds
            self.dense_seconds += dense_seconds

    def _compare(self, agreement: Agreement) -> None:
        self.compared += len(agreement.same)
        self.same += int(agreement.same.sum())
        self.error_sum += float(agreement.mean.sum())
        self.error_max = float(np.maximum(self.error_max, agreement.largest.max()))  # keeps a NaN

    @property
    def frames(self) -> int:
        """Number of frames so far."""
        return self.savings.frames

    def most_frequent_class(self) -> int:
        """Return the class that was predicted for the most frames."""
        return self.predictions.most_common(1)[0][0]


@dataclass(frozen=True)
class Summary:
    """Metrics of one or more videos; those of a comparison or of live sources are None if there was none."""

    frames: int
    active: list[float]  # %, patches computed per stage
    macs_saved: float  # %, relative to dense inference
    event_fps: float  # frames/s of gate and network, without decoding
    end_to_end_fps: float  # frames/s end to end, including the comparison
    dropped: int  # frames of live sources that arrived faster than they were processed
    latency_p50_ms: float | None = None  # milliseconds from the arrival of a frame to its logits
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    reconnects: int | None = None
    seconds_away: float | None = None  # seconds without connection, summed over the live sources
    compared: int | None = None  # frames compared with dense inference
    whole_fps: float | None = None  # frames/s of dense inference on these frames
    speed_up: float | None = None  # time of dense inference / time of event-driven inference, both on these frames
    top1_agreement: float | None = None  # %, frames with the same top-1 class as dense inference
    logit_error_mean: float | None = None
    logit_error_max: float | None = None


def summarize(videos: Sequence[VideoActivity], elapsed: float | None = None) -> Summary:
    """Summarize one or more videos.

    Args:
        videos: Videos with at least one frame each.
        elapsed: Total duration in seconds (default: the sum over the videos).
    """
    savings = Savings.total(video.savings for video in videos)
    event_seconds = sum(video.event_seconds for video in videos)
    seconds = sum(video.elapsed for video in videos) if elapsed is None else elapsed
    summary = Summary(
        frames=savings.frames,
        active=savings.active_shares,
        macs_saved=savings.macs_saved,
        event_fps=_rate(savings.frames, event_seconds),
        end_to_end_fps=_rate(savings.frames, seconds),
        dropped=sum(video.dropped for video in videos),
    )
    if any(video.live for video in videos):
        summary = _with_live_sources(summary, [video for video in videos if video.live])
    return _with_comparison(summary, videos) if any(video.compared for video in videos) else summary


def _with_live_sources(summary: Summary, live: Sequence[VideoActivity]) -> Summary:
    latency = LatencyHistogram.total(video.latency for video in live)
    p50, p95, p99 = (1e3 * latency.percentile(percent) for percent in (50, 95, 99))
    return replace(
        summary,
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
        reconnects=sum(video.reconnects for video in live),
        seconds_away=sum(video.seconds_away for video in live),
    )


def _with_comparison(summary: Summary, videos: Sequence[VideoActivity]) -> Summary:
    compared = sum(video.compared for video in videos)
    event_seconds = sum(video.compared_event_seconds for video in videos)
    dense_seconds = sum(video.dense_seconds for video in videos)
    return replace(
        summary,
        compared=compared,
        whole_fps=_rate(compared, dense_seconds),
        speed_up=dense_seconds / event_seconds if event_seconds > 0 else 0.0,
        top1_agreement=100 * sum(video.same for video in videos) / compared,
        logit_error_mean=sum(video.error_sum for video in videos) / compared,
        logit_error_max=float(np.max([video.error_max for video in videos])),
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
