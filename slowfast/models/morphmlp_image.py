"""MorphMLP's image form (arXiv 2111.12527): the video network without its layers in time, on single images.

Its authors published no code for it. It shares the video network's stages; state dicts have the video network's keys,
less those that mix time, with 2-d convolutions, which is what `MorphMLP.adapt_pretrained` takes.
Checked here: the video network made from image weights gives their logits for a clip of one repeated frame.

Shapes: B images, H x W map, C channels. The stages' axis of time has length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.inputs import IMAGES, check_image
from slowfast.models.layers import conv_then_norm, init_truncated_normal
from slowfast.models.morphmlp_stages import MorphStages, Stages, shared_arguments
from slowfast.models.sync_batchnorm import SyncBatchNorm2d

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class Stem(nn.Module):
    """(B, 3, height, width) -> (B, 1, H, W, C) at a quarter of the size."""

    MAP_AXES = "BTHWC"

    def __init__(self, width: int, sync_batchnorm: bool) -> None:
        super().__init__()
        norm = SyncBatchNorm2d if sync_batchnorm else nn.BatchNorm2d
        self.proj1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.norm1 = norm(width // 2)
        self.proj2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.norm2 = norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.gelu(conv_then_norm(_halve, x, self.proj1, self.norm1))
        return conv_then_norm(_halve, x, self.proj2, self.norm2).permute(0, 2, 3, 1).unsqueeze(1)


def _halve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """proj1 and proj2."""
    return F.conv2d(x, weight, bias, stride=2, padding=1)


class Downsample(nn.Module):
    """Between stages: (B, 1, H, W, C) -> (B, 1, H / 2, W / 2, C')."""

    MAP_AXES = "BTHWC"

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width, out, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x.squeeze(1).permute(0, 3, 1, 2))
        return self.norm(x.permute(0, 2, 3, 1)).unsqueeze(1)


class MorphMLPImage(MorphStages):
    """MorphMLP for images: float (B, 3, height, width) -> logits (B, num_classes).

    The arguments are MorphMLP's. Raises ConfigError for impossible settings and, when called, for an image that
    does not fit them.
    """

    TAKES = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        layers: Sequence[int] = (3, 4, 9, 3),
        widths: Sequence[int] = (112, 224, 392, 784),
        chunks: Sequence[int] = (14, 28, 28, 49),
        mlp_ratios: Sequence[float] = (3, 3, 3, 3),
        bias: bool = True,
        drop_depth_rate: float = 0.1,
        sync_batchnorm: bool = False,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__(
            num_classes,
            Stages(layers, widths, chunks, mlp_ratios, bias, drop_depth_rate),
            partial(Stem, sync_batchnorm=sync_batchnorm),
            Downsample,
            act_checkpoint,
        )
        init_truncated_normal(self)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> MorphMLPImage:
        """The network of MODEL and MORPH."""
        return cls(**shared_arguments(cfg))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: (B, 3, H, W) -> (B, C)."""
        check_image(x)
        return super().features(x)
