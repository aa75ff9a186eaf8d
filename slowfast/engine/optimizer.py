"""The optimizer, and which parameters are spared weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError


def parameter_groups(model: nn.Module, weight_decay: float, norm_decay: float, spare_1d: bool) -> list[dict[str, Any]]:
    """Trainable parameters by weight decay: batch norm's, those of one dimension (none if `spare_1d`), the rest."""
    batch_norm = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        one_dimension = parameter.ndim <= 1 or name.endswith(".bias")
        if spare_1d and one_dimension:
            decay = 0.0
        else:
            decay = norm_decay if id(parameter) in batch_norm else weight_decay
        groups.setdefault(decay, []).append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]


def _sgd(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    return torch.optim.SGD(
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        dampening=solver.DAMPENING,
        nesterov=solver.NESTEROV,
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
    """The optimizer that SOLVER describes; ConfigError for an unknown method."""
    solver = cfg.SOLVER
    if solver.OPTIMIZING_METHOD not in OPTIMIZERS:
        raise ConfigError(f"SOLVER.OPTIMIZING_METHOD {solver.OPTIMIZING_METHOD!r} is none of {', '.join(OPTIMIZERS)}")
    groups = parameter_groups(model, solver.WEIGHT_DECAY, cfg.BN.WEIGHT_DECAY, solver.ZERO_WD_1D_PARAM)
    return OPTIMIZERS[solver.OPTIMIZING_METHOD](cfg, groups)
