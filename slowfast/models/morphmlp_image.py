"""Image form of MorphMLP (arXiv 2111.12527): the video network without temporal layers, on single images.

Its authors published no code for it. It shares the stages of the video network; state dicts have the video network's
keys without those of temporal layers, and 2D convolutions, as `MorphMLP.adapt_pretrained` takes them. Verified: the
video network made from image weights gives their logits for a clip of one repeated frame.

Notation: B images, H x W map, C channels. The time axis of the stages has length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.models.layers import conv_then_norm, init_truncated_normal
from slowfast.models.morphmlp_stages import MorphStages, Stages, shared_arguments
from slowfast.models.protocol import IMAGES, MODEL_REGISTRY, FeatureMap, check_image
from slowfast.models.sync_batchnorm import SyncBatchNorm2d

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class Stem(FeatureMap, nn.Module):
    """(B, 3, height, width) -> (B, 1, H, W, C) with a quarter of the size."""

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, sync_batchnorm: bool) -> None:
        super().__init__()
        norm = SyncBatchNorm2d if sync_batchnorm else nn.BatchNorm2d
        self.proj1 = nn.Conv2d(3, dim // 2, 3, stride=2, padding=1)
        self.norm1 = norm(dim // 2)
        self.proj2 = nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1)
        self.norm2 = norm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.gelu(conv_then_norm(_strided, x, self.proj1, self.norm1))
        x = conv_then_norm(_strided, x, self.proj2, self.norm2)
        return rearrange(x, "b c h w -> b 1 h w c")


def _strided(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.conv2d(x, weight, bias, stride=2, padding=1)


class Downsample(FeatureMap, nn.Module):
    """Convolution between stages: (B, 1, H, W, C) -> (B, 1, H / 2, W / 2, C')."""

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(rearrange(x, "b 1 h w c -> b c h w"))
        return self.norm(rearrange(x, "b c h w -> b 1 h w c"))


@MODEL_REGISTRY.register()
class MorphMLPImage(MorphStages):
    """MorphMLP for images.

    Maps a float tensor of shape (B, 3, height, width) to logits of shape (B, num_classes). The arguments are those of
    :class:`~slowfast.models.morphmlp.MorphMLP` without the number of frames.

    Raises:
        ConfigError: For invalid settings and, when called, for images that do not fit them.
    """

    input_kind = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        layers: Sequence[int] = (3, 4, 9, 3),
        embed_dims: Sequence[int] = (112, 224, 392, 784),
        segment_dims: Sequence[int] = (14, 28, 28, 49),
        mlp_ratios: Sequence[float] = (3, 3, 3, 3),
        qkv_bias: bool = True,
        drop_depth_rate: float = 0.1,
        sync_batchnorm: bool = False,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__(
            num_classes,
            Stages(layers, embed_dims, segment_dims, mlp_ratios, qkv_bias, drop_depth_rate),
            partial(Stem, sync_batchnorm=sync_batchnorm),
            Downsample,
            act_checkpoint,
        )
        init_truncated_normal(self)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> MorphMLPImage:
        """Build the network described by MODEL and MORPH."""
        return cls(**shared_arguments(cfg))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head: (B, 3, H, W) -> (B, C)."""
        check_image(x)
        return super().features(x)

    def dense_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map: (B, 3, height, width) -> (B, C, H, W)."""
        check_image(x)
        return rearrange(self._tokens(x), "b 1 h w c -> b c h w")


def morphmlp_image_s(num_classes: int = 1000, **settings: Any) -> MorphMLPImage:
    """Build the image form of MorphMLP-S; `settings` are additional arguments of :class:`MorphMLPImage`."""
    return MorphMLPImage(num_classes, **{"layers": (3, 4, 9, 3), **settings})


def morphmlp_image_b(num_classes: int = 1000, **settings: Any) -> MorphMLPImage:
    """Build the image form of MorphMLP-B; `settings` are additional arguments of :class:`MorphMLPImage`."""
    return MorphMLPImage(num_classes, **{"layers": (4, 6, 15, 4), "drop_depth_rate": 0.3, **settings})
