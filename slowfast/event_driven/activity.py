"""What event-driven inference did with videos, and how it compares with the whole network.

K frames, N patches of the first stage, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from slowfast.event_driven.network import PatchNetwork


def whole_macs(network: PatchNetwork) -> int:
    """Multiply-adds of a frame of which every patch is computed."""
    stages = zip(network.counts, network.stages, strict=True)
    return sum(count * stage.macs for count, stage in stages) + network.head_macs


@dataclass(frozen=True)
class Agreement:
    """Of each of K frames: whether the best class is the whole network's; |difference of logits| relative to the
    whole network's largest |logit|, mean over the classes and largest.
    """

    same: np.ndarray  # bool (K,)
    mean: np.ndarray  # float64 (K,)
    largest: np.ndarray  # float64 (K,)

    @classmethod
    def between(cls, logits: torch.Tensor, whole: torch.Tensor) -> Agreement:
        """Logits (K, C) against the whole network's."""
        error = (logits - whole).abs().double() / whole.abs().amax(1, keepdim=True).clamp_min(1e-12)
        same = (logits.argmax(1) == whole.argmax(1)) & error.isfinite().all(1)  # no number agrees with nothing
        return cls(same.cpu().numpy(), error.mean(1).cpu().numpy(), error.amax(1).cpu().numpy())


@dataclass(frozen=True)
class FrameFigures:
    """Of each of K frames: active, int (K, stages), patches computed; macs and answers (the best class), int (K,);
    agreement: None where nothing is compared.
    """

    active: np.ndarray
    macs: np.ndarray
    answers: np.ndarray
    agreement: Agreement | None

    def __len__(self) -> int:
        return len(self.macs)


class Course:
    """Means over spans of consecutive frames, all as long, in memory that does not grow: there are POINTS spans at
    most, and when there would be more, each two become one.
    """

    POINTS = 2000

    def __init__(self, columns: int) -> None:
        self.frames, self.span = 0, 1  # in all; of each span but the last, which may be shorter
        self._sums = np.zeros((self.POINTS, columns))

    def add(self, rows: np.ndarray) -> None:
        """The next K frames: (K, columns)."""
        while self.frames + len(rows) > self.POINTS * self.span:
            halves = self._sums.reshape(self.POINTS // 2, 2, -1).sum(1)
            self._sums = np.concatenate((halves, np.zeros_like(halves)))
            self.span *= 2
        places = (self.frames + np.arange(len(rows))) // self.span
        np.add.at(self._sums, places, rows)
        self.frames += len(rows)

    @property
    def total(self) -> np.ndarray:
        """The sum over all frames: (columns,)."""
        return np.asarray(self._sums.sum(0))

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """The first frame of each of B spans (B,), and their means (B, columns)."""
        starts = np.arange(0, self.frames, self.span)
        sizes = np.diff(np.append(starts, self.frames))
        return starts, self._sums[: len(starts)] / sizes[:, None]


@dataclass
class VideoActivity:
    """The frames of one video so far, in memory that does not grow: a camera's need not end.

    Seconds are of the network alone: frames are decoded, and normalized, before.
    """

    name: str
    began: float = 0.0  # reading of the clock
    active: Course | None = None  # patches computed of each stage
    macs: int = 0
    answers: Counter[int] = field(default_factory=Counter)  # frames of each best class
    times_active: torch.Tensor | None = None  # int (N,)
    compared: int = 0  # frames that were compared with the whole network's
    same: int = 0  # of these, those with the same best class
    error_sum: float = 0.0  # of their mean errors
    error_max: float = 0.0
    event_seconds: float = 0.0
    whole_seconds: float = 0.0
    elapsed: float = 0.0  # seconds since the beginning, decoding included
    dropped: int = 0  # frames of a camera or stream that came faster than they were looked at

    def add(
        self,
        active: torch.Tensor,
        macs: torch.Tensor,
        mask: torch.Tensor,
        logits: torch.Tensor,
        whole: torch.Tensor | None,
    ) -> FrameFigures:
        """The next K frames: (K, stages), (K,), (K, N), (K, C) and the whole network's logits."""
        agreement = Agreement.between(logits, whole) if whole is not None else None
        rows = FrameFigures(active.cpu().numpy(), macs.cpu().numpy(), logits.argmax(1).cpu().numpy(), agreement)
        if self.active is None:
            self.active = Course(rows.active.shape[1])
        self.active.add(rows.active)
        self.macs += int(rows.macs.sum())
        self.answers.update(rows.answers.tolist())
        times = mask.sum(0).cpu()
        self.times_active = times if self.times_active is None else self.times_active + times
        if agreement is not None:
            self._compare(agreement)
        return rows

    def _compare(self, agreement: Agreement) -> None:
        self.compared += len(agreement.same)
        self.same += int(agreement.same.sum())
        self.error_sum += float(agreement.mean.sum())
        self.error_max = float(np.maximum(self.error_max, agreement.largest.max()))  # a NaN stays

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.active.frames if self.active is not None else 0

    def common_answer(self) -> int:
        """The class that was the best most often."""
        return self.answers.most_common(1)[0][0]


@dataclass(frozen=True)
class Figures:
    """The figures of one or more videos; None where nothing was compared with the whole network."""

    frames: int
    active: list[float]  # %, patches computed of each stage
    macs_saved: float  # %, of the whole network's multiply-adds
    event_fps: float  # frames/s of gate and network, frames decoded before
    end_to_end_fps: float  # frames/s with decoding and everything, the comparison included
    dropped: int  # frames of cameras and streams that came faster than they were looked at
    whole_fps: float | None = None
    speed_up: float | None = None  # event_fps / whole_fps
    top1_agreement: float | None = None  # %, frames with the whole network's best class
    logit_error_mean: float | None = None  # relative to the whole network's largest |logit| of the frame
    logit_error_max: float | None = None


def figures(videos: Sequence[VideoActivity], network: PatchNetwork, elapsed: float | None = None) -> Figures:
    """The figures of some videos together, each with a frame at least; `elapsed` seconds instead of their own."""
    count = sum(video.frames for video in videos)
    active = np.sum([video.active.total for video in videos if video.active is not None], axis=0) / count
    event = sum(video.event_seconds for video in videos)
    total = sum(video.elapsed for video in videos) if elapsed is None else elapsed
    plain = Figures(
        frames=count,
        active=(100 * active / network.counts).tolist(),
        macs_saved=100 * (1 - sum(video.macs for video in videos) / count / whole_macs(network)),
        event_fps=_rate(count, event),
        end_to_end_fps=_rate(count, total),
        dropped=sum(video.dropped for video in videos),
    )
    return _compared(plain, videos, event) if any(video.compared for video in videos) else plain


def _compared(plain: Figures, videos: Sequence[VideoActivity], event: float) -> Figures:
    compared = sum(video.compared for video in videos)
    whole = sum(video.whole_seconds for video in videos)
    return replace(
        plain,
        whole_fps=_rate(compared, whole),
        speed_up=whole / event if event > 0 else 0.0,
        top1_agreement=100 * sum(video.same for video in videos) / compared,
        logit_error_mean=sum(video.error_sum for video in videos) / compared,
        logit_error_max=float(np.max([video.error_max for video in videos])),
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
