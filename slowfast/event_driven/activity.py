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
        same = logits.argmax(1) == whole.argmax(1)
        return cls(same.cpu().numpy(), error.mean(1).cpu().numpy(), error.amax(1).cpu().numpy())


@dataclass
class VideoActivity:
    """The frames of one video so far. Seconds are of the network alone: frames are decoded, and normalized, before."""

    name: str
    began: float = 0.0  # reading of the clock
    active: list[np.ndarray] = field(default_factory=list)  # int (K, stages), patches computed, of each chunk
    macs: list[np.ndarray] = field(default_factory=list)  # int (K,)
    answers: list[np.ndarray] = field(default_factory=list)  # int (K,), the best class
    agreement: list[Agreement] = field(default_factory=list)  # empty where nothing is compared
    times_active: torch.Tensor | None = None  # int (N,)
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
    ) -> None:
        """The next K frames: (K, stages), (K,), (K, N), (K, C) and the whole network's logits."""
        self.active.append(active.cpu().numpy())
        self.macs.append(macs.cpu().numpy())
        self.answers.append(logits.argmax(1).cpu().numpy())
        if whole is not None:
            self.agreement.append(Agreement.between(logits, whole))
        times = mask.sum(0).cpu()
        self.times_active = times if self.times_active is None else self.times_active + times

    @property
    def frames(self) -> int:
        """How many there are."""
        return sum(map(len, self.macs))

    def common_answer(self) -> int:
        """The class that was the best most often."""
        return Counter(np.concatenate(self.answers).tolist()).most_common(1)[0][0]


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
    active = np.concatenate([chunk for video in videos for chunk in video.active])
    macs = np.concatenate([chunk for video in videos for chunk in video.macs])
    count = len(macs)
    event = sum(video.event_seconds for video in videos)
    total = sum(video.elapsed for video in videos) if elapsed is None else elapsed
    plain = Figures(
        frames=count,
        active=(100 * active.mean(0) / network.counts).tolist(),
        macs_saved=float(100 * (1 - macs.mean() / whole_macs(network))),
        event_fps=_rate(count, event),
        end_to_end_fps=_rate(count, total),
        dropped=sum(video.dropped for video in videos),
    )
    agreement = [chunk for video in videos for chunk in video.agreement]
    return _compared(plain, agreement, event, sum(video.whole_seconds for video in videos)) if agreement else plain


def _compared(plain: Figures, agreement: Sequence[Agreement], event: float, whole: float) -> Figures:
    return replace(
        plain,
        whole_fps=_rate(plain.frames, whole),
        speed_up=whole / event if event > 0 else 0.0,
        top1_agreement=float(100 * np.concatenate([chunk.same for chunk in agreement]).mean()),
        logit_error_mean=float(np.concatenate([chunk.mean for chunk in agreement]).mean()),
        logit_error_max=float(np.concatenate([chunk.largest for chunk in agreement]).max()),
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
