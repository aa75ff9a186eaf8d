"""Evaluation loop: runs the model on all views of each sample and passes the outputs on.

V views of a sample, N clips of a forward pass, K outputs.
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
from slowfast.datasets.loader import stack_clips, stack_labels
from slowfast.datasets.types import EvalSample, FailureLedger, Record
from slowfast.engine.forward import BatchHook, ClipForward
from slowfast.engine.meters import FORWARD, StepProfiler, named_range, timed_iter
from slowfast.utils.machine import peak_memory_gib
from slowfast.utils.screen import Progress

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


JOIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda views: views.mean(0),  # same order as the sum, on the scale of one view
    "max": lambda views: views.amax(0),
}
Activation = Callable[[torch.Tensor], torch.Tensor]  # logits (..., K) -> scores (..., K)


def softmax(logits: torch.Tensor) -> torch.Tensor:
    """Return the probabilities of exclusive classes, the last dimension."""
    return logits.softmax(-1)


class Ensemble:
    """Combines the logits of a video's views into its scores.

    Args:
        method: DATA.ENSEMBLE_METHOD, one of `JOIN`.
        on: TEST.ENSEMBLE_ON: combine the logits, or the scores.
        activation: Function from logits to scores.
    """

    def __init__(self, method: str = "sum", on: str = "logits", activation: Activation = softmax) -> None:
        check_value("DATA.ENSEMBLE_METHOD", method)
        check_value("TEST.ENSEMBLE_ON", on)
        self.join, self.on_logits, self.activation = JOIN[method], on == "logits", activation

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the scores (K,) of logits (V, K), in float64.

        The maximum of softmax scores does not sum to 1.
        """
        logits = logits.double()
        if self.on_logits:
            return self.activation(self.join(logits))
        return self.join(self.activation(logits))


def best_classes(scores: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """Return (class, score) of the `count` best of scores (K,), best first."""
    top, classes = scores.topk(min(count, len(scores)))
    return list(zip(classes.tolist(), top.tolist(), strict=True))


# Receives a sample and the outputs of its views, float32 (V, K) on the CPU; None if the sample is unreadable.
Process = Callable[[Record, torch.Tensor | None], None]


@dataclass
class EvaluationTime:
    """Number of clips and time in seconds of an evaluation."""

    clips: int = 0
    data: float = 0.0
    compute: float = 0.0

    def wait(self, seconds: float) -> None:
        """Add time spent waiting for data."""
        self.data += seconds

    @property
    def seconds(self) -> float:
        """Duration of the evaluation."""
        return self.data + self.compute

    @property
    def clips_per_second(self) -> float:
        """Throughput including waiting time; 0 before the first batch."""
        return self.clips / self.seconds if self.seconds > 0 else 0.0


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    samples: Iterable[EvalSample],
    forward: ClipForward,
    process: Process,
    batch_clips: int,
    ledger: FailureLedger,
    progress: Progress,
    batch_hook: BatchHook | None = None,
    profiler: StepProfiler | None = None,
) -> EvaluationTime:
    """Run the model on all views of each sample.

    Args:
        model: Model, which is set to evaluation mode.
        samples: Samples, in order. An unreadable one is added to the ledger, has no outputs and is not replaced.
        forward: Preparation of the clips.
        process: Called with each sample and its outputs, in order.
        batch_clips: Clips per forward pass, possibly of several samples.
        ledger: Collects the failures.
        progress: Progress display.
        batch_hook: Called with the inputs and labels of the first batch.
        profiler: Profiles the batches.

    Returns:
        The duration and throughput of the evaluation.
    """
    forward.prepare_model(model)
    pace, start = EvaluationTime(), time.perf_counter()
    pending: deque[EvalSample] = deque()  # samples with clips that are not computed yet, oldest first
    outputs: list[torch.Tensor] = []  # logits (K,) of the clips of the pending samples, in order

    def finish() -> None:
        while pending and len(outputs) >= (views := pending[0].count):
            process(pending.popleft().record, torch.stack(outputs[:views]) if views else None)
            del outputs[:views]
            pace.compute = time.perf_counter() - start - pace.data
            memory = peak_memory_gib(forward.device)
            speed = f"{pace.clips_per_second:.1f} clips/s"
            progress.advance(f"{speed}  data {pace.data:.1f} s  compute {pace.compute:.1f} s  {memory:.2f} GiB")

    clips = _clips(timed_iter(samples, pace.wait), forward.device, pending, ledger)
    while batch := list(itertools.islice(clips, batch_clips)):
        inputs = forward.prepare(stack_clips(batch))
        if batch_hook is not None:
            labels = [sample.record.label for sample in pending for _ in range(sample.count)]
            batch_hook(inputs, stack_labels(labels[: len(batch)]))
            batch_hook = None
        with named_range(FORWARD), forward.autocast():
            output = model(inputs)
        del inputs  # free the clips before the next ones are allocated
        outputs.extend(output.float().cpu())
        pace.clips += len(batch)
        finish()
        if profiler is not None:
            profiler.step()
    finish()
    return pace


def _clips(
    samples: Iterable[EvalSample], device: torch.device, pending: deque[EvalSample], ledger: FailureLedger
) -> Iterator[Clips]:
    """Yield the clips of all samples, adding each sample to `pending` before its clips."""
    for sample in samples:
        ledger.add(sample.failures)
        pending.append(sample)
        yield from sample.clips(device)
