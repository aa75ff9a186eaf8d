"""Evaluation of a network on whole videos: all views of each, joined; the loop knows no metric.

V temporal views, C crops, N clips of a forward pass, K classes, U distinct frames of a video.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from slowfast.config.defaults import check_value
from slowfast.datasets.collate import stack_clips
from slowfast.datasets.types import FailureLedger, Record, TestMedium
from slowfast.engine.forward import ClipForward, Show
from slowfast.engine.meters import timed
from slowfast.models.linear import pack_linears
from slowfast.utils.machine import peak_memory_gib
from slowfast.utils.progress import Progress

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


JOIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda views: views.mean(0),  # the sum's order, on the scale of one view
    "max": lambda views: views.amax(0),
}


class Ensemble:
    """Joins the logits of a video's views, as DATA.ENSEMBLE_METHOD and TEST.ENSEMBLE_ON say."""

    def __init__(self, method: str = "sum", on: str = "logits") -> None:
        check_value("DATA.ENSEMBLE_METHOD", method)
        check_value("TEST.ENSEMBLE_ON", on)
        self.join, self.on_logits = JOIN[method], on == "logits"

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (views, K) to the video's probabilities (K,), in float64.

        On logits: the softmax of the joined logits. On probabilities: the joined softmax, which for "max"
        does not sum to 1.
        """
        logits = logits.double()
        if self.on_logits:
            return self.join(logits).softmax(0)
        return self.join(logits.softmax(1))


# What joins the outputs (views, K) of a video's views: an Ensemble makes them the video's probabilities (K,).
Join = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class VideoResult:
    """A video and what its views were joined to, such as probabilities (K,); None where it could not be read."""

    record: Record
    scores: torch.Tensor | None
    answers: tuple[int, ...] = ()  # the best class of each view by itself
    logits: torch.Tensor | None = None  # float32 (K,), joined over the views, where they are kept


@dataclass
class Pace:
    """Where an evaluation's time went (seconds) and how many clips it took."""

    clips: int = 0
    data: float = 0.0
    compute: float = 0.0

    def wait(self, seconds: float) -> None:
        """Add time spent waiting for data."""
        self.data += seconds


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    videos: Iterable[TestMedium],
    forward: ClipForward,
    ensemble: Join,
    batch_clips: int,
    ledger: FailureLedger,
    progress: Progress,
    show: Show | None = None,
    keep: Join | None = None,
) -> tuple[list[VideoResult], Pace]:
    """Score every video; `batch_clips` clips share a forward pass, whichever videos they come from.

    A video that cannot be read is noted in the ledger and has no scores; nothing takes its place. `show` is called with
    the inputs and labels (N,) of the first batch. `keep` joins the logits that results keep besides; None: none.
    """
    model.eval()
    if forward.amp_dtype is None:
        pack_linears(model)
    pace, start = Pace(), time.perf_counter()
    waiting: deque[TestMedium] = deque()  # videos with clips not yet computed, oldest first
    logits: list[torch.Tensor] = []  # of the waiting videos' clips, in order, (K,) each
    results: list[VideoResult] = []

    def finish() -> None:
        while waiting and len(logits) >= (views := waiting[0].count):
            results.append(_joined(waiting.popleft().record, logits[:views], ensemble, keep))
            del logits[:views]
            pace.compute = time.perf_counter() - start - pace.data
            memory = peak_memory_gib(forward.device)
            progress.advance(f"data {pace.data:.1f} s  compute {pace.compute:.1f} s  {memory:.2f} GiB")

    clips = _clips(timed(videos, pace.wait), forward.device, waiting, ledger)
    while batch := list(itertools.islice(clips, batch_clips)):
        inputs = forward.prepare(stack_clips(batch))
        if show is not None:
            labels = [video.record.label for video in waiting for _ in range(video.count)]
            show(inputs, torch.tensor(labels[: len(batch)]))
            show = None
        with forward.autocast():
            output = model(inputs)
        del inputs  # before the next are made
        logits.extend(output.float().cpu())
        pace.clips += len(batch)
        finish()
    finish()
    return results, pace


def _joined(record: Record, logits: list[torch.Tensor], ensemble: Join, keep: Join | None) -> VideoResult:
    if not logits:
        return VideoResult(record, None)
    views = torch.stack(logits)  # views K
    kept = None if keep is None else keep(views)
    return VideoResult(record, ensemble(views), tuple(views.argmax(1).tolist()), kept)


def _clips(
    videos: Iterable[TestMedium], device: torch.device, waiting: deque[TestMedium], ledger: FailureLedger
) -> Iterator[Clips]:
    """The clips of all videos, one after another; each video is noted as waiting when its turn comes."""
    for video in videos:
        ledger.add(video.failures)
        waiting.append(video)
        yield from video.clips(device)
