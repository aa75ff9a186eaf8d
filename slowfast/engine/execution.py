"""Execution of a model: channels-last weights, torch.compile, and data-parallel training over several processes.

None of it changes a checkpoint, whose keys, shapes and values are those of the plain network, so that a run may be
resumed with other settings: channels-last only changes the order of weights in memory (inputs are channels-last
anyway), the compiled module shares its parameters with the network, and state is packed from the unwrapped model.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.models.build import build_model, find_network
from slowfast.models.protocol import EVENTS
from slowfast.utils.distributed import World
from slowfast.utils.logging import get_logger

# By the number of dimensions of a weight: that of a 2D or 3D convolution.
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
BACKEND = "inductor"
TRAIN, TEST = "TRAIN.COMPILE", "TEST.COMPILE"


def use_channels_last(model: nn.Module) -> None:
    """Bring the weights of all convolutions of a network into channels-last order."""
    for parameter in model.parameters():
        if parameter.dim() in FORMATS:
            parameter.data = parameter.data.contiguous(memory_format=FORMATS[parameter.dim()])


def check_channels_last(cfg: ConfigNode) -> None:
    """Raise ConfigError if MODEL.CHANNELS_LAST has nothing to change in the network."""
    if not cfg.MODEL.CHANNELS_LAST:
        return
    with torch.device("meta"):  # shapes only
        model = build_model(cfg)
    if not any(isinstance(module, (nn.Conv2d, nn.Conv3d)) for module in model.modules()):
        raise ConfigError(
            f"MODEL.CHANNELS_LAST: {cfg.MODEL.MODEL_NAME} has no convolutions, so the key has no effect. Set it False"
        )


def compile_model(model: nn.Module) -> nn.Module:
    """Return a compiled version of a network; compilation happens at the first call with each input shape.

    Random numbers are those of the uncompiled network: dropout and stochastic depth draw from PyTorch's generators.
    """
    get_logger().info("torch.compile: the first step compiles the network, which takes up to several minutes")
    options: Any = {"fallback_random": True} if BACKEND == "inductor" else None
    return torch.compile(model, backend=BACKEND, options=options)  # type: ignore[return-value]


class CompiledForTest(nn.Module):
    """Network compiled for the inputs of its first call; others, such as a smaller last batch, run uncompiled.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self._compiled = model, compile_model(model)
        self._shape: torch.Size | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of the network."""
        self._shape = self._shape or x.shape
        outputs: torch.Tensor = (self._compiled if x.shape == self._shape else self.model)(x)
        return outputs


def check_compile(cfg: ConfigNode) -> None:
    """Raise ConfigError if TRAIN.COMPILE or TEST.COMPILE cannot work.

    Args:
        cfg: Config whose names are known to be registered.
    """
    wanted = ((TRAIN, cfg.TRAIN.ENABLE and cfg.TRAIN.COMPILE), (TEST, cfg.TEST.ENABLE and cfg.TEST.COMPILE))
    keys = [key for key, is_on in wanted if is_on]
    if not keys:
        return
    key = keys[0]
    if find_network(cfg).input_kind == EVENTS:
        raise ConfigError(
            f"{key}: {cfg.MODEL.MODEL_NAME} takes events, whose number differs from batch to batch, and would be "
            f"recompiled for each batch. Set {key} False"
        )
    if cfg.EVENT.ENABLE and TEST in keys:
        raise ConfigError(f"{TEST}: event-driven inference has its own kernels. Set {TEST} or EVENT.ENABLE False")
    if cfg.MODEL.ACT_CHECKPOINT and TRAIN in keys:
        raise ConfigError(
            f"{TRAIN} does not support MODEL.ACT_CHECKPOINT, whose recomputation it cannot trace. Set one of them False"
        )
    on_gpu = cfg.NUM_GPUS > 0 and torch.cuda.is_available()
    if missing := _missing_on_gpu() if on_gpu else _missing_on_cpu():
        raise ConfigError(f"{key}: torch.compile needs {missing}. Install it, or set {key} False")


def _missing_on_gpu() -> str:
    return "" if find_spec("triton") else "the package triton on a GPU, which is not installed"


def _missing_on_cpu() -> str:
    """Return what is missing for PyTorch's compiler on a CPU; "" if nothing is."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler, and {compiler} is not found (apt-get install g++)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"the headers of Python, and {header} does not exist (apt-get install python3-dev)"
    return ""


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
