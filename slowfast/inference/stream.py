"""Classification of a live event stream, window by window, with the latency of each window.

Notation: K classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.collate import stack_clips, to_tensors
from slowfast.datasets.dvs.dataset import EventSampling
from slowfast.datasets.dvs.sample import EventColumns, choose, get_sampler
from slowfast.datasets.order import VIEW, generator
from slowfast.engine.forward import ClipForward
from slowfast.models.linear import pack_linears


@dataclass(frozen=True)
class WindowResult:
    """Prediction for one window.

    Attributes:
        logits: Logits, float32 of shape (K,), on the CPU.
        start: Timestamp of the first event in microseconds.
        end: Timestamp of the last event in microseconds.
        events: Number of events.
        seconds: Latency from the complete window to its logits.
    """

    logits: torch.Tensor
    start: float
    end: float
    events: int
    seconds: float


class StreamClassifier:
    """Classifier of windows of events: `for result in classifier(windows_by_time(stream, 50_000)): ...`.

    Args:
        model: Model with its weights, on its device.
        forward: Forward pass from samples to logits.
        sampling: Sampling of events from a window, as from a recording in testing.
        seed: Seed of the sampling.
    """

    def __init__(self, model: nn.Module, forward: ClipForward, sampling: EventSampling, seed: int = 0) -> None:
        self.model, self.forward, self.sampling, self.seed = model.eval(), forward, sampling, seed
        self.sampler = get_sampler(sampling.sampler)
        if forward.amp_dtype is None:
            pack_linears(self.model)

    @classmethod
    def from_config(cls, cfg: ConfigNode, model: nn.Module, device: torch.device, longest: float) -> StreamClassifier:
        """Build the classifier of a config.

        Args:
            cfg: Config with the DVS keys of the samples.
            model: Model with its weights.
            device: Device to run on.
            longest: Duration of the longest recording that the model was trained on (DVS.LONGEST), microseconds.
        """
        forward = ClipForward.from_config(cfg, device)
        return cls(model.to(device), forward, EventSampling.from_config(cfg, longest), cfg.RNG_SEED)

    def __call__(self, windows: Iterable[EventColumns]) -> Iterator[WindowResult]:
        """Yield the result of each window as soon as it is computed."""
        for number, events in enumerate(windows):
            start = time.perf_counter()
            logits = self._logits(events, number)
            yield WindowResult(
                logits, float(events.t[0]), float(events.t[-1]), len(events), time.perf_counter() - start
            )

    @torch.inference_mode()
    def _logits(self, events: EventColumns, number: int) -> torch.Tensor:
        rows = choose(self.sampler, len(events), self.sampling.events, generator(VIEW, self.seed, number))
        sample = self.sampling.finish(events.take(rows) if isinstance(rows, np.ndarray) else events)
        with self.forward.autocast():
            logits: torch.Tensor = self.model(self.forward.prepare(stack_clips([to_tensors(sample)])))
        return logits[0].float().cpu()


def stream_metrics(results: Iterable[WindowResult]) -> dict[str, float]:
    """Return the latency per window (median and 99th percentile, ms) and the throughput; 0 for no windows."""
    seen = list(results)
    seconds = np.array([result.seconds for result in seen] or [0.0])
    events = sum(result.events for result in seen)
    return {
        "latency_ms": 1e3 * float(np.median(seconds)),
        "latency_99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "events_per_second": events / float(seconds.sum()) if seen else 0.0,
    }
