"""Optimizers and their parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from slowfast.config.nearest import did_you_mean, nearest_name, unknown_value
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.utils.quote import plain


def is_named(parameter: str, name: str) -> bool:
    """Return whether a parameter's name is `name`, ends with it after a dot, or matches it as a pattern with * or ?."""
    return parameter == name or parameter.endswith(f".{name}") or fnmatchcase(parameter, name)


def check_no_decay(model: nn.Module, names: Sequence[str]) -> None:
    """Raise ConfigError for a name of SOLVER.NO_WD_PARAMS that matches no parameter."""
    parameters = [parameter for parameter, _ in model.named_parameters()]
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
        spare_1d: No weight decay for parameters of one dimension and for those that the model's `NO_DECAY` names.
        spare: Names of further parameters without weight decay.
    """
    if spare_1d:
        spare = (*spare, *getattr(model, "NO_DECAY", ()))
    batch_norm = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
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
