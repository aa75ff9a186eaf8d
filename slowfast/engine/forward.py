"""Forward pass of clips, the same in training and evaluation: transfer to the device, normalization, autocast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, find_dataset
from slowfast.models.linear import pack_linears
from slowfast.models.protocol import IMAGES
from slowfast.utils.logging import warn_once
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
