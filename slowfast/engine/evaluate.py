"""Evaluation of a network on whole videos: all views of each, joined; the loop knows no metric.

V temporal views, C crops, N clips of a forward pass, K classes, U distinct frames of a video.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from slowfast.datasets.failures import FailureLedger
from slowfast.datasets.types import Record, TestVideo
from slowfast.engine.ensemble import Ensemble
from slowfast.engine.forward import ClipForward
from slowfast.runtime.progress import Progress


@dataclass(frozen=True)
class VideoResult:
    """A video and its probabilities (K,), or None where it could not be read."""

    record: Record
    scores: torch.Tensor | None


@dataclass
class Pace:
    """Where an evaluation's time went (seconds) and how many clips it took."""

    clips: int = 0
    data: float = 0.0
    compute: float = 0.0


def views_of(video: TestVideo, device: torch.device) -> Iterator[torch.Tensor]:
    """The video's V x C clips, views outside, crops inside: uint8 (T, S, S, channels), cut out on the device."""
    if video.frames is None:
        return
    frames = video.frames.to(device, non_blocking=True)  # (U, H, W, channels)
    for rows in video.frame_index.to(device):
        for top, left in video.corners:
            yield frames[rows, top : top + video.size, left : left + video.size]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    videos: Iterable[TestVideo],
    forward: ClipForward,
    ensemble: Ensemble,
    batch_clips: int,
    ledger: FailureLedger,
    progress: Progress,
) -> tuple[list[VideoResult], Pace]:
    """Score every video; `batch_clips` clips share a forward pass, whichever videos they come from.

    A video that cannot be read is noted in the ledger and has no scores; nothing takes its place.
    """
    model.eval()
    pace = Pace()
    waiting: list[TestVideo] = []  # videos with clips not yet computed, oldest first
    logits: list[torch.Tensor] = []  # of the waiting videos' clips, in order, (K,) each
    clips: list[torch.Tensor] = []  # cut out, not yet computed
    results: list[VideoResult] = []

    def compute(count: int) -> None:
        with forward.autocast():
            output = model(forward.prepare(torch.stack(clips[:count])))
        logits.extend(output.float().cpu())
        del clips[:count]

    def finish() -> None:
        while waiting and len(logits) >= (views := len(waiting[0].frame_index) * len(waiting[0].corners)):
            done = waiting.pop(0)
            results.append(VideoResult(done.record, ensemble(torch.stack(logits[:views])) if views else None))
            del logits[:views]
            progress.advance(f"data {pace.data:.1f} s  compute {pace.compute:.1f} s")

    for video in _timed(videos, pace):
        start = time.perf_counter()
        ledger.add(video.failures)
        waiting.append(video)
        clips.extend(views_of(video, forward.device))
        while len(clips) >= batch_clips:
            compute(batch_clips)
            pace.clips += batch_clips
        finish()
        pace.compute += time.perf_counter() - start
    if clips:
        pace.clips += len(clips)
        compute(len(clips))
    finish()
    return results, pace


def _timed(videos: Iterable[TestVideo], pace: Pace) -> Iterator[TestVideo]:
    """The videos; the time spent waiting for them is added to `pace.data`."""
    source = iter(videos)
    while True:
        start = time.perf_counter()
        video = next(source, None)
        pace.data += time.perf_counter() - start
        if video is None:
            return
        yield video
