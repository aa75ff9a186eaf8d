"""Meters of the training: averages, time spent waiting, losses that are not finite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from slowfast.utils.distributed import World
from slowfast.visualization.results import Metric


class TrainMeter:
    """Averages the loss, the task's metrics and the time per step since the last `read`.

    Args:
        world: Processes of the run.
        metrics: Metrics of a training step besides the loss.
    """

    def __init__(self, world: World, metrics: Sequence[Metric]) -> None:
        self.world, self._keys = world, ["loss", *(metric.key for metric in metrics)]
        self._values: list[torch.Tensor] = []
        self._data = 0.0
        self._start = time.perf_counter()

    def wait(self, seconds: float) -> None:
        """Add time spent waiting for data."""
        self._data += seconds

    def add(self, values: torch.Tensor) -> None:
        """Add the loss and the metrics of a step; the tensor stays on its device."""
        self._values.append(values)

    def read(self) -> dict[str, float]:
        """Return the averages and start over.

        Returns:
            loss and the metrics over all processes; data_s and compute_s, in seconds per step of this process.
        """
        count = len(self._values)
        means = self.world.mean(torch.stack(self._values).mean(0)).tolist()
        elapsed = time.perf_counter() - self._start
        row = dict(zip(self._keys, means, strict=True))
        row |= {"data_s": self._data / count, "compute_s": (elapsed - self._data) / count}
        self._values, self._data, self._start = [], 0.0, time.perf_counter()
        return row


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; says at which step, learning rate and batch."""


@dataclass(frozen=True)
class _Step:
    loss: torch.Tensor
    epoch: int
    step: int
    rate: float
    names: list[str]


class LossWatch:
    """Looks at each step's loss when the next one has been queued, and at the last one in `check`."""

    def __init__(self) -> None:
        self._last: _Step | None = None

    def add(self, loss: torch.Tensor, epoch: int, step: int, rate: float, names: list[str]) -> None:
        """Watch a step's loss (a tensor on any device); raises TrainingDiverged for the step before."""
        before, self._last = self._last, _Step(loss, epoch, step, rate, names)
        _require_finite(before)

    def check(self) -> None:
        """Raise TrainingDiverged when the last step's loss is not finite."""
        _require_finite(self._last)
        self._last = None


def _require_finite(seen: _Step | None) -> None:
    if seen is None:
        return
    value = float(seen.loss)
    if value - value != 0.0:  # NaN and the infinities
        raise TrainingDiverged(
            f"the loss is {value} at epoch {seen.epoch}, step {seen.step}, learning rate {seen.rate:.3g}, on the batch "
            f"{', '.join(seen.names)}. The last checkpoint is from before it; try a lower SOLVER.BASE_LR, a longer "
            f"SOLVER.WARMUP_EPOCHS, SOLVER.CLIP_GRAD_L2NORM 1.0 or TRAIN.AMP_DTYPE bfloat16"
        )


Item = TypeVar("Item")


def timed(items: Iterable[Item], note: Callable[[float], None]) -> Iterator[Item]:
    """The items; the seconds spent waiting for each are given to `note`."""
    source = iter(items)
    while True:
        start = time.perf_counter()
        try:
            item = next(source)
        except StopIteration:
            return
        finally:
            note(time.perf_counter() - start)
        yield item
