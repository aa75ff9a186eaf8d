"""Evaluation of a network on whole videos: all views of each, joined; the loop knows no metric.

V temporal views, C crops, N clips of a forward pass, K classes, U distinct frames of a video.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from slowfast.datasets.failures import FailureLedger
from slowfast.datasets.types import Record, TestVideo
from slowfast.engine.ensemble import Ensemble
from slowfast.engine.forward import ClipForward
from slowfast.engine.waiting import timed
from slowfast.models.linear import pack_linears
from slowfast.runtime.memory import peak_memory_gib
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

    def wait(self, seconds: float) -> None:
        """Add time spent waiting for data."""
        self.data += seconds


def views_of(video: TestVideo, device: torch.device) -> Iterator[torch.Tensor]:
    """The video's V x C clips, views outside, crops inside: uint8 (T, S, S, channels), cut out on the device."""
    if video.frames is None:
        return
    frames = video.frames.to(device, non_blocking=True)  # (U, H, W, channels)
    for rows in video.frame_index.to(device):
        clip = frames.index_select(0, rows)  # whole frames first: indexing and slicing at once is many times slower
        for top, left in video.corners:
            yield clip[:, top : top + video.size, left : left + video.size]


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
    if forward.amp_dtype is None:
        pack_linears(model)
    pace, start = Pace(), time.perf_counter()
    waiting: deque[TestVideo] = deque()  # videos with clips not yet computed, oldest first
    logits: list[torch.Tensor] = []  # of the waiting videos' clips, in order, (K,) each
    results: list[VideoResult] = []

    def finish() -> None:
        while waiting and len(logits) >= (views := len(waiting[0].frame_index) * len(waiting[0].corners)):
            scores = ensemble(torch.stack(logits[:views])) if views else None
            results.append(VideoResult(waiting.popleft().record, scores))
            del logits[:views]
            pace.compute = time.perf_counter() - start - pace.data
            memory = peak_memory_gib(forward.device)
            progress.advance(f"data {pace.data:.1f} s  compute {pace.compute:.1f} s  {memory:.2f} GiB")

    clips = _clips(timed(videos, pace.wait), forward.device, waiting, ledger)
    while batch := list(itertools.islice(clips, batch_clips)):
        with forward.autocast():
            output = model(forward.prepare(torch.stack(batch)))
        logits.extend(output.float().cpu())
        pace.clips += len(batch)
        finish()
    finish()
    return results, pace


def _clips(
    videos: Iterable[TestVideo], device: torch.device, waiting: deque[TestVideo], ledger: FailureLedger
) -> Iterator[torch.Tensor]:
    """The clips of all videos, one after another; each video is noted as waiting when its turn comes."""
    for video in videos:
        ledger.add(video.failures)
        waiting.append(video)
        yield from views_of(video, device)
