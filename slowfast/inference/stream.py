"""A live stream of events to logits, window by window, with the time each took.

n events of a window, K classes.
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
    """What a network makes of one window."""

    logits: torch.Tensor  # (K,), float32 on the CPU
    start: float  # of the window's first event, microseconds
    end: float  # of its last
    events: int
    seconds: float  # from the whole window to its logits


class StreamClassifier:
    """Classifies windows of events: `for result in classifier(windows_by_time(stream, 50_000)): ...`."""

    def __init__(self, model: nn.Module, forward: ClipForward, sampling: EventSampling, seed: int = 0) -> None:
        """sampling: how a window becomes a sample, as of a recording in a test."""
        self.model, self.forward, self.sampling, self.seed = model.eval(), forward, sampling, seed
        self.sampler = get_sampler(sampling.sampler)
        if forward.amp_dtype is None:
            pack_linears(self.model)

    @classmethod
    def from_config(cls, cfg: ConfigNode, model: nn.Module, device: torch.device, longest: float) -> StreamClassifier:
        """The samples of DVS; longest: of the data set the model was trained on (DVS.LONGEST), microseconds."""
        forward = ClipForward.from_config(cfg, device)
        return cls(model.to(device), forward, EventSampling.from_config(cfg, longest), cfg.RNG_SEED)

    def __call__(self, windows: Iterable[EventColumns]) -> Iterator[WindowResult]:
        """A result a window, as soon as it is there."""
        for number, events in enumerate(windows):
            begun = time.perf_counter()
            logits = self._logits(events, number)
            yield WindowResult(
                logits, float(events.t[0]), float(events.t[-1]), len(events), time.perf_counter() - begun
            )

    @torch.inference_mode()
    def _logits(self, events: EventColumns, number: int) -> torch.Tensor:
        rows = choose(self.sampler, len(events), self.sampling.events, generator(VIEW, self.seed, number))
        sample = self.sampling.finish(events.take(rows) if isinstance(rows, np.ndarray) else events)
        with self.forward.autocast():
            logits: torch.Tensor = self.model(self.forward.prepare(stack_clips([to_tensors(sample)])))
        return logits[0].float().cpu()


def pace(results: Iterable[WindowResult]) -> dict[str, float]:
    """Latency of a window (median and 99 of 100, milliseconds) and events a second of work; 0 for no windows."""
    seen = list(results)
    seconds = np.array([result.seconds for result in seen] or [0.0])
    events = sum(result.events for result in seen)
    return {
        "latency_ms": 1e3 * float(np.median(seconds)),
        "latency_99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "events_per_second": events / float(seconds.sum()) if seen else 0.0,
    }
