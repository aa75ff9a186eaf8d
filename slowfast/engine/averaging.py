"""Exponential moving average (EMA) of the weights, and precise batch-norm statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from slowfast.utils.distributed import World
from slowfast.utils.private_ops import lerp_each


class ModelEMA:
    """EMA of a model's weights and batch-norm statistics: ``ema = decay * ema + (1 - decay) * weights`` per step.

    Args:
        model: Model to start from; it is copied.
        decay: Weight of the old average, such as 0.9999.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def reset(self, model: nn.Module) -> None:
        """Reset the average to the weights of a model."""
        self.model.load_state_dict(model.state_dict())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average after a step; integer buffers, such as counters, are copied."""
        mine, theirs = list(self.model.state_dict().values()), list(model.state_dict().values())
        floats = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.is_floating_point()]
        lerp_each([a for a, _ in floats], [b for _, b in floats], 1 - self.decay)
        for a, b in zip(mine, theirs, strict=True):
            if not a.is_floating_point():
                a.copy_(b)


@torch.no_grad()
def recompute_bn_stats(model: nn.Module, inputs: Iterable[torch.Tensor], world: World) -> int:
    """Recompute the running batch-norm statistics as averages over batches of all processes.

    Mean and variance are averages of the batches' own, as in the batch-norm paper. `fvcore.nn.precise_bn` is not used:
    it pools the samples of all batches for the variance, replaces the buffers by new tensors, needs the number of
    batches in advance, and leaves half-computed statistics when a batch cannot be read.

    The rest of the model, including its training mode, is unchanged. If an exception is raised, for example by
    `inputs`, the statistics are restored.

    Args:
        model: The model, with its current weights.
        inputs: Normalized batches of this process; every process has the same number.
        world: Processes of the run.

    Returns:
        Number of batches of this process.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    was_training = model.training
    before = [(layer.momentum, {name: buffer.clone() for name, buffer in layer.named_buffers()}) for layer in layers]
    model.eval()  # no stochastic depth or dropout
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
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
