"""Data-parallel training: wrapping the model, gradient synchronization, and state that all processes must share.

Every process holds the whole model and optimizer, so state is packed from the unwrapped model and written by the main
process alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from slowfast.utils.distributed import World


def wrap_model(model: nn.Module, world: World) -> nn.Module:
    """Wrap a model so that the backward pass averages gradients over all processes; a single process needs no wrapper.

    Args:
        model: Model on the device of this process.
        world: Processes of the run.
    """
    if world.size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[world.device] if world.device.type == "cuda" else None)


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the unwrapped model, whose state dict has the same keys as in a single process."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def no_sync(model: nn.Module, skip: bool = True) -> AbstractContextManager[None]:
    """Keep gradients local while entered: for all parts of an accumulated batch except the last.

    Args:
        model: Model, wrapped or not.
        skip: Whether to skip the synchronization.
    """
    if skip and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def run_on_main(world: World, work: Callable[[], Any]) -> None:
    """Run work in the main process while the others wait; a UserError that it raises is raised in all of them."""
    world.run_or_raise_everywhere(lambda: work() if world.is_main else None)


def same_everywhere(world: World, value: Any) -> bool:
    """Return whether a hashable value, such as the position to resume from, is the same in all processes."""
    return len(set(world.gather([value]))) == 1
