"""Optimizer, its state, and the learning-rate schedule."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.parameters import check_no_decay, parameter_groups
from slowfast.errors import ConfigError
from slowfast.utils.logging import log_table
from slowfast.utils.registry import Registry
from slowfast.utils.text import plain, unknown_value


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule: linear warm-up, then `after(epoch)`, by the formulas of SlowFast.

    Args:
        after: Learning rate by epoch after the warm-up.
        warmup_epochs: Length of the warm-up.
        warmup_start: Learning rate at the start of the warm-up.
    """

    after: Callable[[float], float]
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0

    def __call__(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch (1.5 is the middle of the second epoch)."""
        if epoch >= self.warmup_epochs:
            return self.after(epoch)
        target = self.after(self.warmup_epochs)
        return self.warmup_start + (target - self.warmup_start) * epoch / self.warmup_epochs


def cosine(base: float, end: float, first_epoch: float, last_epoch: float) -> Callable[[float], float]:
    """Return a half cosine from `base` to `end`, constant after the last epoch (arXiv 1608.03983, no restarts)."""

    def lr(epoch: float) -> float:
        progress = min((epoch - first_epoch) / (last_epoch - first_epoch), 1.0)
        return end + (base - end) * (math.cos(math.pi * progress) + 1) / 2

    return lr


def steps(base: float, starts: Sequence[float], factors: Sequence[float]) -> Callable[[float], float]:
    """Return a step schedule: `base` times the factor of the last start before or at the epoch."""
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
    """Build the learning-rate schedule of SOLVER. Raises ConfigError for an unknown policy."""
    solver = cfg.SOLVER
    if solver.LR_POLICY not in POLICIES:
        raise ConfigError(unknown_value("SOLVER.LR_POLICY", solver.LR_POLICY, POLICIES))
    scale = float(cfg.NUM_SHARDS) if solver.BASE_LR_SCALE_NUM_SHARDS else 1.0
    after = POLICIES[solver.LR_POLICY](cfg, scale)
    return Schedule(after, solver.WARMUP_EPOCHS, solver.WARMUP_START_LR * scale)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set each group's learning rate: the schedule's times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def lr_range(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the lowest and the highest learning rate of the groups as metrics; empty if all are the same."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return {"lr_min": min(rates), "lr_max": max(rates)} if min(rates) < max(rates) else {}


ALWAYS_FUSED, NEVER_FUSED = "always", "never"  # values of SOLVER.FUSED besides auto
OPTIMIZER_REGISTRY = Registry[Callable[[ConfigNode, list[dict[str, Any]]], torch.optim.Optimizer]]("OPTIMIZER")
OPTIMIZER_REGISTRY.__doc__ = """
Optimizers by the values of SOLVER.OPTIMIZING_METHOD: functions ``(cfg, groups) -> torch.optim.Optimizer``.

The groups are those of :func:`parameter_groups`. To add one from your own file::

    @OPTIMIZER_REGISTRY.register()
    def rmsprop(cfg, groups):
        return torch.optim.RMSprop(groups, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM)
"""


@OPTIMIZER_REGISTRY.register()
def sgd(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build SGD with SOLVER.MOMENTUM, DAMPENING and NESTEROV."""
    solver = cfg.SOLVER
    return torch.optim.SGD(
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        dampening=solver.DAMPENING,
        nesterov=solver.NESTEROV and solver.MOMENTUM > 0,  # equivalent to plain SGD without momentum
        fused=_fused(cfg),
    )


@OPTIMIZER_REGISTRY.register()
def adam(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build Adam with SOLVER.BETAS."""
    return torch.optim.Adam(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.SOLVER.BETAS), fused=_fused(cfg))


@OPTIMIZER_REGISTRY.register()
def adamw(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build AdamW with SOLVER.BETAS."""
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.SOLVER.BETAS), fused=_fused(cfg))


def _fused(cfg: ConfigNode) -> bool:
    return bool(cfg.SOLVER.FUSED != NEVER_FUSED)


def build_optimizer(cfg: ConfigNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of SOLVER.

    Raises:
        ConfigError: For an unknown method or parameter name, or an optimizer without the fused form that SOLVER.FUSED
            asks for.
    """
    solver = cfg.SOLVER
    build = OPTIMIZER_REGISTRY.find(solver.OPTIMIZING_METHOD, "SOLVER.OPTIMIZING_METHOD")
    check_no_decay(model, solver.NO_WD_PARAMS)
    groups = _groups_from_config(cfg, model, solver.LAYER_DECAY, solver.HEAD_LR_MULT)
    optimizer = build(cfg, groups)
    if solver.FUSED == ALWAYS_FUSED and not optimizer.defaults.get("fused"):
        raise ConfigError(
            f"SOLVER.FUSED {ALWAYS_FUSED}: SOLVER.OPTIMIZING_METHOD {solver.OPTIMIZING_METHOD} has no fused form. Set "
            "SOLVER.FUSED auto"
        )
    if len({group["lr_scale"] for group in groups}) > 1:
        _log_groups(groups)
    return optimizer


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], cfg: ConfigNode, model: nn.Module
) -> None:
    """Load the state of an optimizer by parameter name; groups and hyperparameters stay as configured.

    Args:
        optimizer: Optimizer of :func:`build_optimizer`.
        state: State dict of the saved optimizer.
        cfg: Config of the run.
        model: The model.

    Raises:
        ValueError: If the saved optimizer trained other parameters.
    """
    saved = state["param_groups"]
    names = [group.get("param_names") for group in saved]
    if None in names:  # written by a version without named groups: a single learning rate
        names = [group["param_names"] for group in _groups_from_config(cfg, model)]
    by_name = {
        name: state["state"].get(index)
        for group, own in zip(saved, names, strict=True)
        for index, name in zip(group["params"], own, strict=True)
    }
    now = optimizer.state_dict()["param_groups"]
    indices = {name: index for group in now for index, name in zip(group["params"], group["param_names"], strict=True)}
    if other := sorted(indices.keys() ^ by_name.keys()):
        raise ValueError(f"different parameters were trained: {len(other)} differ, such as {other[0]}")
    values = {index: by_name[name] for name, index in indices.items() if by_name[name] is not None}
    optimizer.load_state_dict({"state": values, "param_groups": now})
    _match_layouts(optimizer)


def _match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Convert the loaded state to the memory layouts of the parameters, because fused optimizers rely on them."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                if value.stride() != parameter.stride():
                    state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _groups_from_config(
    cfg: ConfigNode, model: nn.Module, layer_decay: float = 1.0, head_lr_mult: float = 1.0
) -> list[dict[str, Any]]:
    solver, norm_decay = cfg.SOLVER, cfg.BN.WEIGHT_DECAY
    return parameter_groups(
        model, solver.WEIGHT_DECAY, norm_decay, solver.ZERO_WD_1D_PARAM, solver.NO_WD_PARAMS, layer_decay, head_lr_mult
    )


def _log_groups(groups: list[dict[str, Any]]) -> None:
    """Log the parameters of each learning rate scale, lowest first."""
    names: dict[float, list[str]] = {}
    for group in groups:
        names.setdefault(group["lr_scale"], []).extend(group["param_names"])
    rows = [
        (f"{scale:.4g}", str(len(own)), plain(own[0]) + (", ..." if len(own) > 1 else ""))
        for scale, own in sorted(names.items())
    ]
    log_table(tabulate(rows, headers=("lr scale", "tensors", "parameters"), disable_numparse=True))
