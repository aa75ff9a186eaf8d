"""Lion: an optimizer with a custom config section, added by one file without changing the package.

slowfast train --cfg my_config.yaml --import examples/lion.py SOLVER.OPTIMIZING_METHOD lion SOLVER.BASE_LR 1e-4
"""

from typing import Any

import torch

from slowfast.config.key import Key, Section
from slowfast.config.keys import add_section
from slowfast.config.node import ConfigNode
from slowfast.config.rules import Range
from slowfast.engine.optim import OPTIMIZER_REGISTRY

LION = Section("LION", "Lion", "arXiv 2302.06675.")
LION.BETAS = Key([0.9, 0.99], "Coefficients of the update and of the momentum.", rule=Range(0, 1, below=True), length=2)
add_section(LION)


class Lion(torch.optim.Optimizer):
    """Lion (arXiv 2302.06675, algorithm 2).

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        betas: Coefficients of the update and of the momentum.
        weight_decay: Decoupled weight decay.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            update_beta, momentum_beta = group["betas"]
            for param in group["params"]:
                if param.grad is None:
                    continue
                momentum = self.state[param].setdefault("exp_avg", torch.zeros_like(param))
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.sub_(torch.lerp(param.grad, momentum, update_beta).sign_(), alpha=group["lr"])
                momentum.lerp_(param.grad, 1 - momentum_beta)


@OPTIMIZER_REGISTRY.register()
def lion(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build Lion; each group has its own weight decay and learning rate scale."""
    return Lion(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.LION.BETAS))
