"""Channels-last weights of convolutions (MODEL.CHANNELS_LAST).

Inputs are always in channels-last order. Only the order of the weights in memory changes: shapes, keys and values of
checkpoints stay the same, and a run may be resumed with the other setting.
"""

from __future__ import annotations

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.models.build import build_model

# By the number of dimensions of a weight: that of a 2D or 3D convolution.
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


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
