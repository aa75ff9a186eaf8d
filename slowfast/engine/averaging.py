"""Averages over a training: EMA of the weights and precise batch-norm statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from slowfast.utils.distributed import World


class WeightAverage:
    """`average = decay * average + (1 - decay) * weights` after each step, batch-norm statistics included."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def restart(self, model: nn.Module) -> None:
        """Take the model's weights as they are."""
        self.model.load_state_dict(model.state_dict())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights; whole numbers (counters) are copied."""
        mine, theirs = list(self.model.state_dict().values()), list(model.state_dict().values())
        floats = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - self.decay)
        for a, b in zip(mine, theirs, strict=True):
            if not a.is_floating_point():
                a.copy_(b)


@torch.no_grad()
def recompute_statistics(model: nn.Module, inputs: Iterable[torch.Tensor], world: World) -> int:
    """Replace the running statistics by the mean over the given normalized batches of all processes.

    Mean and variance are averages of the batches' own, as in the batch-norm paper. `fvcore.nn.precise_bn` is not used:
    it pools the samples of all batches for the variance, puts new tensors in place of the buffers, needs the number of
    batches in advance, and leaves half-computed statistics when a batch cannot be read.

    Everything else of the model stays as it is, its training mode included. An exception, such as one of `inputs`,
    leaves the statistics as they were.

    Returns:
        The number of batches of this process, which is the same in each.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    was_training = model.training
    before = [(layer.momentum, {name: buffer.clone() for name, buffer in layer.named_buffers()}) for layer in layers]
    model.eval()  # no stochastic depth: only the statistics are wanted
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the cumulative mean
        layer.train()
    batches = 0
    try:
        for batch in inputs:
            model(batch)
            batches += 1
    except BaseException:
        for layer, (_, buffers) in zip(layers, before, strict=True):
            layer.load_state_dict(buffers, strict=False)
        raise
    finally:
        for layer, (momentum, _) in zip(layers, before, strict=True):
            layer.momentum = momentum
        model.train(was_training)
    for layer in layers:
        for statistic in (layer.running_mean, layer.running_var):
            if statistic is not None:
                statistic.copy_(world.mean(statistic))
    return batches
