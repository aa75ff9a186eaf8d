"""Meters of the training loop and of validation: averages, waiting time, and a check for losses that are not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from slowfast.datasets.collate import stack_labels
from slowfast.datasets.types import Record
from slowfast.engine.profiler import DATA_LOADING, named_range
from slowfast.utils.distributed import World
from slowfast.visualization.results import Metric


class TrainMeter:
    """Running averages of the loss, the task's metrics and the time per step since the last `read`.

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
        """Return the averages and reset them.

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


# Loss of the outputs (V, K) of a sample's V views with their labels; None for a task that defines none.
ViewLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None]


class EvalLoss:
    """Average loss over the readable samples of an evaluation; the loss of a sample is the mean over its views.

    Args:
        loss: Loss of the views of one sample, such as `Task.eval_loss`.
        device: Device of the loss, which may hold class weights.
    """

    def __init__(self, loss: ViewLoss, device: torch.device) -> None:
        self.loss, self.device = loss, device
        self._values: list[float] = []

    def add(self, record: Record, outputs: torch.Tensor | None) -> None:
        """Add a sample with the outputs of its views (V, K); None for an unreadable sample, which is excluded."""
        if outputs is None:
            return
        labels = stack_labels([record.label] * len(outputs))
        loss = self.loss(outputs.to(self.device), labels.to(self.device))
        if loss is not None:
            self._values.append(float(loss))

    def mean(self, world: World) -> float | None:
        """Return the mean over all processes, which must all call it; None if there is no loss."""
        values = world.gather(self._values)
        # An exact sum does not depend on the order and therefore not on the number of processes.
        return math.fsum(values) / len(values) if values else None


class TrainingDiverged(RuntimeError):
    """Error for a NaN or infinite loss; the message names the step, learning rate and batch."""


@dataclass(frozen=True)
class _Step:
    loss: torch.Tensor
    epoch: int
    step: int
    lr: float
    names: list[str]


class LossMonitor:
    """Check that raises an error if the loss is not finite.

    The loss of a step is checked after the next step is queued, which avoids a synchronization with the GPU.
    """

    def __init__(self) -> None:
        self._last: _Step | None = None

    def add(self, loss: torch.Tensor, epoch: int, step: int, lr: float, names: list[str]) -> None:
        """Add the loss of a step, a tensor on any device; raise TrainingDiverged for the previous step."""
        previous, self._last = self._last, _Step(loss, epoch, step, lr, names)
        _require_finite(previous)

    def check(self) -> None:
        """Raise TrainingDiverged if the loss of the last step is not finite."""
        _require_finite(self._last)
        self._last = None


def _require_finite(last: _Step | None) -> None:
    if last is None:
        return
    value = float(last.loss)
    if value - value != 0.0:  # NaN and the infinities
        raise TrainingDiverged(
            f"Loss is {value} at epoch {last.epoch}, step {last.step}, learning rate {last.lr:.3g}, batch "
            f"{', '.join(last.names)}. The last checkpoint is older. Try a lower SOLVER.BASE_LR, a longer "
            f"SOLVER.WARMUP_EPOCHS, SOLVER.CLIP_GRAD_L2NORM 1.0 or TRAIN.AMP_DTYPE bfloat16"
        )


Item = TypeVar("Item")


def timed_iter(items: Iterable[Item], note: Callable[[float], None]) -> Iterator[Item]:
    """Yield items; `note` is called with the seconds spent waiting for each."""
    source = iter(items)
    while True:
        start = time.perf_counter()
        try:
            with named_range(DATA_LOADING):
                item = next(source)
        except StopIteration:
            return
        finally:
            note(time.perf_counter() - start)
        yield item
