"""Batch-norm statistics as plain means over many training batches (arXiv 2105.07576, section 3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from slowfast.runtime.distributed import World


@torch.no_grad()
def recompute_statistics(model: nn.Module, inputs: Iterable[torch.Tensor], world: World) -> int:
    """Replace the running statistics by the mean over the given normalized batches of all processes.

    Gives the number of batches of this process, which is the same in each.
    Everything else of the model stays as it is, its training mode included.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    was_training = model.training
    momenta = [layer.momentum for layer in layers]
    model.eval()  # no stochastic depth: only the statistics are wanted
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the cumulative mean
        layer.train()
    batches = 0
    for batch in inputs:
        model(batch)
        batches += 1
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for statistic in (layer.running_mean, layer.running_var):
            if statistic is not None:
                statistic.copy_(world.mean(statistic))
    model.train(was_training)
    return batches
