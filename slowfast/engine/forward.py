"""Execution of a network, the same in training and evaluation: inputs, autocast, compilation and data parallelism.

Inputs are moved to the device and normalized; the network runs under autocast, with channels-last weights
(MODEL.CHANNELS_LAST), compiled (TRAIN.COMPILE, TEST.COMPILE), and data-parallel over several processes.

Nothing of this changes a checkpoint, whose keys, shapes and values are those of the plain network, so that a run may be
resumed with other settings: channels-last only changes the order of weights in memory (inputs are channels-last
anyway), the compiled module shares its parameters with the network, and state is packed from the unwrapped model.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, find_dataset
from slowfast.errors import ConfigError
from slowfast.models.build import build_model, find_network
from slowfast.models.linear import pack_linears
from slowfast.models.protocol import EVENTS, IMAGES
from slowfast.utils.distributed import World
from slowfast.utils.logging import get_logger, warn_once
from slowfast.utils.machine import has_fast_matmul

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


def normalize(
    clips: torch.Tensor, mean: Sequence[float], std: Sequence[float], reverse_channels: bool = False
) -> torch.Tensor:
    """Normalize clips or images as (value / 255 - mean) / std.

    Args:
        clips: Clips uint8 (N, T, H, W, 3) or images (N, H, W, 3), RGB.
        mean: Mean of each channel, in the order of the model's input.
        std: Standard deviation of each channel, in the same order.
        reverse_channels: Convert to BGR.

    Returns:
        float32 (N, 3, T, H, W) or (N, 3, H, W), in channels-last memory format.
    """
    width, channels = clips.shape[-2:]
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=clips.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=clips.device)
    if reverse_channels:
        clips = clips.flip(-1)
    # Normalize whole rows of pixels with repeated factors: an innermost dimension of 3 is several times slower on CPUs.
    lines = clips.flatten(-2).float()  # (N, T, H, W * 3)
    lines.mul_(scale.repeat(width)).sub_(shift.repeat(width))
    return lines.unflatten(-1, (width, channels)).movedim(-1, 1)


BatchHook = Callable[[Any, torch.Tensor], None]  # called with the inputs and labels of a batch
AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ClipForward:
    """Preparation of the inputs of a model.

    Attributes:
        device: Device of the model.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        reverse_channels: True for models with BGR inputs.
        amp_dtype: Data type of autocast; None for none.
        images: True if clips are single images, which models take without a time axis.
    """

    device: torch.device
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse_channels: bool
    amp_dtype: torch.dtype | None
    images: bool = False

    @classmethod
    def from_config(cls, cfg: ConfigNode, device: torch.device, split: str = TRAIN) -> ClipForward:
        """Build from DATA, TRAIN.MIXED_PRECISION and the dataset of a split."""
        dtype = _amp_dtype(cfg, device) if cfg.TRAIN.MIXED_PRECISION else None
        mean, std = tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD)
        images = find_dataset(cfg, split).input_kind == IMAGES
        return cls(device, mean, std, cfg.DATA.REVERSE_INPUT_CHANNEL, dtype, images)

    def prepare_model(self, model: nn.Module) -> None:
        """Set a model to evaluation mode, with packed linear layers unless it runs under autocast."""
        model.eval()
        if self.amp_dtype is None:
            pack_linears(model)

    def prepare(self, clips: Clips) -> Any:
        """Move clips uint8 (N, T, H, W, C) to the device and normalize them to float32 (N, C, T, H, W).

        Images become (N, C, H, W); events are only moved.
        """
        if isinstance(clips, dict):
            return {key: values.to(self.device, non_blocking=True) for key, values in clips.items()}
        clips = clips.to(self.device, non_blocking=True)
        if self.images:
            clips = clips.squeeze(1)  # T is 1
        return normalize(clips, self.mean, self.std, self.reverse_channels)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)


def _amp_dtype(cfg: ConfigNode, device: torch.device) -> torch.dtype | None:
    """Return TRAIN.AMP_DTYPE; None, with a warning, on CPUs where it is several times slower than float32."""
    name = cfg.TRAIN.AMP_DTYPE
    if has_fast_matmul(AMP_DTYPES[name], device):
        return AMP_DTYPES[name]
    warn_once(
        f"TRAIN.AMP_DTYPE {name}: PyTorch has no fast {name} matrix multiplication on this CPU. Running in float32. "
        "Set TRAIN.MIXED_PRECISION False to avoid this warning."
    )
    return None


# By the number of dimensions of a weight: that of a 2D or 3D convolution.
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
BACKEND = "inductor"


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
    in_training, in_test = cfg.TRAIN.ENABLE and cfg.TRAIN.COMPILE, cfg.TEST.ENABLE and cfg.TEST.COMPILE
    if not (in_training or in_test):
        return
    key = "TRAIN.COMPILE" if in_training else "TEST.COMPILE"
    if find_network(cfg).input_kind == EVENTS:
        raise ConfigError(
            f"{key}: {cfg.MODEL.MODEL_NAME} takes events, whose number differs from batch to batch, and would be "
            f"recompiled for each batch. Set {key} False"
        )
    if cfg.EVENT.ENABLE and in_test:
        raise ConfigError(
            "TEST.COMPILE: event-driven inference has its own kernels. Set TEST.COMPILE or EVENT.ENABLE False"
        )
    if cfg.MODEL.ACT_CHECKPOINT and in_training:
        raise ConfigError(
            "TRAIN.COMPILE does not support MODEL.ACT_CHECKPOINT, whose recomputation it cannot trace. Set one of them "
            "False"
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
