"""A stop when the loss is no number any more, without making the GPU wait for each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
