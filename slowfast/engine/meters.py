"""Measurements of a run: averages of losses and times, the profiler (PROFILE), and what ends a training early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from slowfast.config.node import ConfigNode
from slowfast.datasets.loader import stack_labels
from slowfast.datasets.types import Record
from slowfast.engine.state import Position
from slowfast.utils.distributed import World
from slowfast.utils.files import atomic_path, atomic_write_text
from slowfast.utils.logging import get_logger
from slowfast.visualization.results import Metric

# Loss of the outputs (V, K) of a sample's V views with their labels; None for a task that defines none.
ViewLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None]
Item = TypeVar("Item")


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


@dataclass(frozen=True)
class EarlyStop:
    """Early stopping rule. It only depends on the saved position, so a resumed run makes the same decision.

    Attributes:
        patience: TRAIN.EARLY_STOP, epochs without a better validation; 0 disables early stopping.
        eval_period: TRAIN.EVAL_PERIOD, epochs between validations.
        max_epoch: SOLVER.MAX_EPOCH, for the message.
    """

    patience: int
    eval_period: int
    max_epoch: int

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EarlyStop:
        """Build from TRAIN and SOLVER."""
        return cls(cfg.TRAIN.EARLY_STOP, cfg.TRAIN.EVAL_PERIOD, cfg.SOLVER.MAX_EPOCH)

    def is_due(self, at: Position) -> bool:
        """Return whether training ends here: just after a validation, with the best one at least `patience` epochs ago.

        Until a validation yields a number, epochs are counted from the start.
        """
        validated = at.epoch % self.eval_period == 0 and at.step == 0
        return self.patience > 0 and validated and at.epoch - at.best_epoch >= self.patience

    def message(self, at: Position, best: Metric) -> str:
        """Return why training ends, and the best validation so far of the metric that selects checkpoints."""
        reached = "none" if at.best_metric is None else f"{best.text(at.best_metric)} at epoch {at.best_epoch}"
        return (
            f"Training ends early, at epoch {at.epoch} of {self.max_epoch}: no better validation {best.title} for "
            f"{self.patience} epochs (TRAIN.EARLY_STOP). Best: {reached}"
        )


PROFILE = "profile"  # folder in OUTPUT_DIR
DATA_LOADING, FORWARD, BACKWARD, OPTIMIZER = RANGES = ("data loading", "forward", "backward", "optimizer")
PROFILE_ROWS = 40  # rows of the table of operators


def named_range(name: str) -> AbstractContextManager[Any]:
    """Return a context that appears by name in the trace; it costs microseconds while nothing is profiled."""
    return record_function(name)


class StepProfiler:
    """Profiler of a number of steps; it does nothing before and after them.

    A failure, such as a full disk, is only logged as a warning.

    Args:
        folder: Folder of the files.
        name: Prefix of their names, such as "train".
        wait: Steps before the profiler starts.
        warmup: Steps that are profiled and discarded.
        active: Steps to record.
        device: Device of the model.
    """

    def __init__(self, folder: Path, name: str, wait: int, warmup: int, active: int, device: torch.device) -> None:
        self.folder, self.name = folder, name
        self._skipped, self._needed, self._steps = wait + warmup, wait + warmup + active, 0
        on_gpu = device.type == "cuda"
        self._sort_by = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
        plan = schedule(wait=wait, warmup=warmup, active=active, repeat=1)
        self._profile: profile | None = profile(activities=activities, schedule=plan)
        self._profile.start()

    @classmethod
    def from_config(cls, cfg: ConfigNode, world: World, name: str) -> StepProfiler | None:
        """Build from PROFILE; None if it is off, and in all processes but the main one."""
        settings = cfg.PROFILE
        if not (settings.ENABLE and world.is_main):
            return None
        folder = Path(cfg.OUTPUT_DIR) / PROFILE
        return cls(folder, name, settings.WAIT, settings.WARMUP, settings.ACTIVE, world.device)

    def step(self) -> None:
        """Count a finished step; after the last one to record, write the files."""
        if self._profile is None:
            return
        self._steps += 1
        if self._steps < self._needed:
            self._profile.step()
        else:
            self.close()

    def close(self) -> None:
        """Write the recorded steps; no effect the second time."""
        recorder, self._profile = self._profile, None
        if recorder is None:
            return
        try:
            recorder.stop()
            self._write(recorder)
        except Exception as error:  # raised by the profiler or the disk
            get_logger().warning(f"Cannot write the profile of {self.name}: {error}")

    def _write(self, recorder: profile) -> None:
        recorded = self._steps - self._skipped
        if recorded <= 0:
            get_logger().warning(
                f"No profile of {self.name}: it ended after {self._steps} steps, of which PROFILE.WAIT and "
                f"PROFILE.WARMUP skip {self._skipped}. Set them lower"
            )
            return
        trace, table = self.folder / f"{self.name}_trace.json", self.folder / f"{self.name}_operators.txt"
        with atomic_path(trace, suffix=".json", setting="OUTPUT_DIR") as part:
            recorder.export_chrome_trace(str(part))
        rows = recorder.key_averages().table(sort_by=self._sort_by, row_limit=PROFILE_ROWS, max_name_column_width=60)
        atomic_write_text(table, rows + "\n", "OUTPUT_DIR")
        get_logger().info(f"Profiled {recorded} steps: {trace} (open it at ui.perfetto.dev), {table}")
