"""torch.compile for training (TRAIN.COMPILE) and testing (TEST.COMPILE).

The compiled module shares its parameters with the network, which stays as it is: checkpoints, the EMA and everything
else use the network itself, so that state-dict keys have no ``_orig_mod.`` and a run may be resumed with the other
setting.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.models.build import find_network
from slowfast.models.protocol import EVENTS
from slowfast.utils.logging import get_logger

BACKEND = "inductor"
TRAIN, TEST = "TRAIN.COMPILE", "TEST.COMPILE"


def compile_model(model: nn.Module) -> nn.Module:
    """Return the compiled form of a network, which compiles at the first call with inputs of a shape.

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
    """Return what PyTorch's compiler needs on a CPU and does not find; "" if nothing is missing."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler, and {compiler} is not found (apt-get install g++)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"the headers of Python, and {header} does not exist (apt-get install python3-dev)"
    return ""
