"""Optimizer, learning-rate schedule and frozen parameters."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.models.protocol import Network, named_network
from slowfast.models.weights import head_names, is_head
from slowfast.utils.logging import get_logger
from slowfast.utils.suggest import did_you_mean, nearest_name, unknown_value
from slowfast.utils.text import plain


def freeze_backbone(model: nn.Module) -> None:
    """Let nothing but the head want gradients, and say how much that leaves; ConfigError where there is no head."""
    heads = head_names(model)
    for name, parameter in named_network(model).named_parameters():
        parameter.requires_grad_(is_head(name, heads))
    trained = {name: p.numel() for name, p in named_network(model).named_parameters() if p.requires_grad}
    if not trained:
        raise ConfigError(f"MODEL.FREEZE_BACKBONE: {type(model).__name__} has no layer called {' or '.join(heads)}")
    total = sum(p.numel() for p in model.parameters())
    get_logger().info(
        f"MODEL.FREEZE_BACKBONE: {sum(trained.values()):,} of {total:,} parameters train: {', '.join(trained)}"
    )


def freeze_modes(model: nn.Module) -> None:
    """Evaluation mode for every layer with nothing to train: no statistics move, nothing is dropped."""
    for module in model.modules():
        if module.training and not any(p.requires_grad for p in module.parameters()):
            module.train(False)


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


def is_named(parameter: str, name: str) -> bool:
    """Return whether a parameter's name is `name`, ends with it after a dot, or matches it as a pattern with * or ?."""
    return parameter == name or parameter.endswith(f".{name}") or fnmatchcase(parameter, name)


def check_no_decay(model: nn.Module, names: Sequence[str]) -> None:
    """Raise ConfigError for a name of SOLVER.NO_WD_PARAMS that matches no parameter."""
    parameters = [parameter for parameter, _ in named_network(model).named_parameters()]
    for name in names:
        if not any(is_named(parameter, name) for parameter in parameters):
            near = did_you_mean(nearest_name(name, parameters))
            raise ConfigError(f"SOLVER.NO_WD_PARAMS: {type(model).__name__} has no parameter {plain(name)}.{near}")


def parameter_groups(
    model: nn.Module, weight_decay: float, norm_decay: float, spare_1d: bool, spare: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Group the trainable parameters by weight decay: none for those in `spare`, batch norm's, the rest.

    Groups do not depend on the values of weight decay, so that a run can resume with other ones.

    Args:
        model: The model.
        weight_decay: Weight decay of most parameters.
        norm_decay: Weight decay of batch-norm parameters.
        spare_1d: No weight decay for parameters of one dimension and those of the model's `no_weight_decay`.
        spare: Names of further parameters without weight decay.
    """
    if spare_1d:
        spare = (*spare, *(model.no_weight_decay() if isinstance(model, Network) else ()))
    batch_norm = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in named_network(model).named_parameters():
        if not parameter.requires_grad:
            continue
        one_dimension = parameter.ndim <= 1 or name.endswith(".bias")
        if (spare_1d and one_dimension) or any(is_named(name, pattern) for pattern in spare):
            rule, decay = "spared", 0.0
        elif id(parameter) in batch_norm:
            rule, decay = "batch norm", norm_decay
        else:
            rule, decay = "rest", weight_decay
        groups.setdefault(rule, {"params": [], "weight_decay": decay})["params"].append(parameter)
    return list(groups.values())


def _sgd(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    return torch.optim.SGD(
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        dampening=solver.DAMPENING,
        nesterov=solver.NESTEROV and solver.MOMENTUM > 0,  # without momentum both forms are the same
        fused=True,
    )


def _adam(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.SOLVER.BETAS), fused=True)


def _adamw(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.SOLVER.BETAS), fused=True)


OPTIMIZERS: dict[str, Callable[[ConfigNode, list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def build_optimizer(cfg: ConfigNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer that SOLVER describes; ConfigError for an unknown method or parameter."""
    solver = cfg.SOLVER
    if solver.OPTIMIZING_METHOD not in OPTIMIZERS:
        raise ConfigError(unknown_value("SOLVER.OPTIMIZING_METHOD", solver.OPTIMIZING_METHOD, OPTIMIZERS))
    check_no_decay(model, solver.NO_WD_PARAMS)
    groups = parameter_groups(
        model, solver.WEIGHT_DECAY, cfg.BN.WEIGHT_DECAY, solver.ZERO_WD_1D_PARAM, solver.NO_WD_PARAMS
    )
    return OPTIMIZERS[solver.OPTIMIZING_METHOD](cfg, groups)
