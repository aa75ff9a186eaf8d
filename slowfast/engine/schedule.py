"""The learning rate as a function of the epoch, fractions included."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over `warmup_epochs` from `warmup_start`, then `after(epoch)`.

    The formulas are those of SlowFast's learning rate policies.
    """

    after: Callable[[float], float]
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0

    def __call__(self, epoch: float) -> float:
        """The rate at an epoch (1.5 is the middle of the second one)."""
        if epoch >= self.warmup_epochs:
            return self.after(epoch)
        target = self.after(self.warmup_epochs)
        return self.warmup_start + (target - self.warmup_start) * epoch / self.warmup_epochs


def cosine(base: float, end: float, first_epoch: float, last_epoch: float) -> Callable[[float], float]:
    """Half a cosine from `base` at the first to `end` at the last epoch and after (arXiv 1608.03983, no restarts)."""

    def rate(epoch: float) -> float:
        share = min((epoch - first_epoch) / (last_epoch - first_epoch), 1.0)
        return end + (base - end) * (math.cos(math.pi * share) + 1) / 2

    return rate


def steps(base: float, starts: Sequence[float], factors: Sequence[float]) -> Callable[[float], float]:
    """`base` times the factor of the last start that is not after the epoch."""
    return lambda epoch: base * factors[bisect.bisect_right(starts, epoch) - 1]


def _cosine_from_config(cfg: ConfigNode, scale: float) -> Callable[[float], float]:
    solver = cfg.SOLVER
    first = solver.WARMUP_EPOCHS if solver.COSINE_AFTER_WARMUP else 0.0
    last = solver.MAX_EPOCH - solver.COOLDOWN_EPOCHS
    return cosine(solver.BASE_LR * scale, solver.COSINE_END_LR * scale, first, last)


def _steps_from_config(cfg: ConfigNode, scale: float) -> Callable[[float], float]:
    return steps(cfg.SOLVER.BASE_LR * scale, cfg.SOLVER.STEPS, cfg.SOLVER.LRS)


POLICIES = {"cosine": _cosine_from_config, "steps_with_relative_lrs": _steps_from_config}


def build_schedule(cfg: ConfigNode) -> Schedule:
    """The schedule that SOLVER describes; ConfigError for an unknown policy."""
    solver = cfg.SOLVER
    if solver.LR_POLICY not in POLICIES:
        raise ConfigError(f"SOLVER.LR_POLICY {solver.LR_POLICY!r} is none of {', '.join(POLICIES)}")
    scale = float(cfg.NUM_SHARDS) if solver.BASE_LR_SCALE_NUM_SHARDS else 1.0
    after = POLICIES[solver.LR_POLICY](cfg, scale)
    return Schedule(after, solver.WARMUP_EPOCHS, solver.WARMUP_START_LR * scale)
