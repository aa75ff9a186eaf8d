"""What is measured between two logged training steps."""

from __future__ import annotations

import time

import torch

from slowfast.runtime.distributed import World


class TrainMeter:
    """Means of loss and top-1, and where the time went, since the last `read`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._figures: list[torch.Tensor] = []
        self._data = 0.0
        self._start = time.perf_counter()

    def wait(self, seconds: float) -> None:
        """Add time spent waiting for data."""
        self._data += seconds

    def add(self, figures: torch.Tensor) -> None:
        """A step's (loss, share of right clips); stays on its device."""
        self._figures.append(figures)

    def read(self) -> dict[str, float]:
        """loss, top1 (%) over all processes; data_s, compute_s (seconds a step in this process). Starts anew."""
        count = len(self._figures)
        loss, right = self.world.mean(torch.stack(self._figures).mean(0)).tolist()
        elapsed = time.perf_counter() - self._start
        row = {
            "loss": loss,
            "top1": 100 * right,
            "data_s": self._data / count,
            "compute_s": (elapsed - self._data) / count,
        }
        self._figures, self._data, self._start = [], 0.0, time.perf_counter()
        return row
