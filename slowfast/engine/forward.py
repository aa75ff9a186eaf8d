"""From clips as they were read to logits: to the device, normalize, autocast; the same in training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, find_dataset
from slowfast.models.inputs import IMAGES
from slowfast.utils.logging import warn_once
from slowfast.utils.machine import has_fast_matmul

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


def normalize(
    clips: torch.Tensor, mean: Sequence[float], std: Sequence[float], reverse_channels: bool = False
) -> torch.Tensor:
    """float32 (N, 3, T, H, W) of uint8 clips (N, T, H, W, 3), or (N, 3, H, W) of images (N, H, W, 3).

    (value / 255 - mean) / std; `mean` and `std` are in the order fed to the network, which is B G R with
    `reverse_channels`. The result keeps the channels last in memory: its channel dimension is only moved in the shape.
    """
    width, channels = clips.shape[-2:]
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=clips.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=clips.device)
    if reverse_channels:
        clips = clips.flip(-1)
    # Whole lines of pixels against repeated factors: an innermost dimension of 3 is several times slower on CPUs.
    lines = clips.flatten(-2).float()  # (N, T, H, W * 3)
    lines.mul_(scale.repeat(width)).sub_(shift.repeat(width))
    return lines.unflatten(-1, (width, channels)).movedim(-1, 1)


Show = Callable[[Any, torch.Tensor], None]  # of a network's inputs and their labels (N,) or soft labels (N, K)
AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ClipForward:
    """How clips reach a network."""

    device: torch.device
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse_channels: bool
    amp_dtype: torch.dtype | None  # None: no autocast
    images: bool = False  # clips are single images, and networks get them without a time axis

    @classmethod
    def from_config(cls, cfg: ConfigNode, device: torch.device, split: str = TRAIN) -> ClipForward:
        """Build from DATA, TRAIN.MIXED_PRECISION and the dataset of a split."""
        dtype = _amp_dtype(cfg, device) if cfg.TRAIN.MIXED_PRECISION else None
        mean, std = tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD)
        images = find_dataset(cfg, split).input_kind == IMAGES
        return cls(device, mean, std, cfg.DATA.REVERSE_INPUT_CHANNEL, dtype, images)

    def prepare(self, clips: Clips) -> Any:
        """uint8 (N, T, H, W, C) anywhere to float32 (N, C, T, H, W), images to (N, C, H, W), normalized.

        Events are a network's input as they are.
        """
        if isinstance(clips, dict):
            return {key: values.to(self.device, non_blocking=True) for key, values in clips.items()}
        clips = clips.to(self.device, non_blocking=True)
        if self.images:
            clips = clips.squeeze(1)  # T is 1
        return normalize(clips, self.mean, self.std, self.reverse_channels)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)


def _amp_dtype(cfg: ConfigNode, device: torch.device) -> torch.dtype | None:
    """Return TRAIN.AMP_DTYPE, or None, with a warning, on CPUs where it is several times slower than float32."""
    name = cfg.TRAIN.AMP_DTYPE
    if has_fast_matmul(AMP_DTYPES[name], device):
        return AMP_DTYPES[name]
    warn_once(
        f"TRAIN.AMP_DTYPE {name}: PyTorch has no fast {name} matrix multiplication on this CPU. Running in float32. "
        "Set TRAIN.MIXED_PRECISION False to avoid this warning."
    )
    return None
