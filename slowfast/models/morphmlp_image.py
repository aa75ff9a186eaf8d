"""MorphMLP's image form (arXiv 2111.12527): the video network without its layers in time, on single images.

Its authors published no code for it. It shares the video network's spatial layers; state dicts have the video
network's keys, less those that mix time, with 2-d convolutions, which is what `MorphMLP.adapt_pretrained` takes.
Checked here: the video network made from image weights gives their logits for a clip of one repeated frame.

Shapes: B images, H x W map, C channels. The spatial layers' axis of time has length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.activation_checkpoint import run_blocks
from slowfast.models.inputs import IMAGES, check_image
from slowfast.models.layers import DropPath, Mlp, init_truncated_normal
from slowfast.models.morphmlp import MorphMLP, SpatialFC, SpatialFCLast, check_map, check_stages
from slowfast.models.sync_batchnorm import SyncBatchNorm2d

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class Block(nn.Module):
    """Space and channel mixing: (B, 1, H, W, C) -> same."""

    def __init__(self, width: int, spatial: nn.Module, mlp_ratio: float, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.fc = spatial
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop_path(x, self.fc(self.norm1(x)))
        return self.drop_path(x, self.mlp(self.norm2(x)))


class Stem(nn.Module):
    """(B, 3, height, width) -> (B, H, W, C) at a quarter of the size."""

    def __init__(self, width: int, sync_batchnorm: bool) -> None:
        super().__init__()
        norm = SyncBatchNorm2d if sync_batchnorm else nn.BatchNorm2d
        self.proj1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.norm1 = norm(width // 2)
        self.proj2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.norm2 = norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.gelu(self.norm1(self.proj1(x)))
        return self.norm2(self.proj2(x)).permute(0, 2, 3, 1)


class Downsample(nn.Module):
    """Between stages: (B, H, W, C) -> (B, H / 2, W / 2, C')."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width, out, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class MorphMLPImage(nn.Module):
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
        super().__init__()
        check_stages(layers, widths, chunks, mlp_ratios)
        self.chunks, self.widths, self.act_checkpoint = tuple(chunks), tuple(widths), act_checkpoint
        total = sum(layers)
        rates = (drop_depth_rate * i / max(total - 1, 1) for i in range(total))
        for i, (depth, width, chunk, ratio) in enumerate(zip(layers, widths, chunks, mlp_ratios, strict=True)):
            entry = Downsample(widths[i - 1], width) if i else Stem(width, sync_batchnorm)
            spatial = SpatialFC if i < len(layers) - 1 else SpatialFCLast
            blocks = (Block(width, spatial(width, chunk, bias), ratio, next(rates)) for _ in range(depth))
            self.add_module(f"patch_embed{i + 1}", entry)
            self.add_module(f"blocks{i + 1}", nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)
        init_truncated_normal(self)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> MorphMLPImage:
        """The network of MODEL and MORPH."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            layers=cfg.MORPH.LAYERS,
            widths=cfg.MORPH.EMBED_DIMS,
            chunks=cfg.MORPH.SEGMENT_DIM,
            mlp_ratios=cfg.MORPH.MLP_RATIOS,
            bias=cfg.MORPH.QKV_BIAS,
            drop_depth_rate=cfg.MORPH.DROP_DEPTH_RATE,
            sync_batchnorm=cfg.BN.NORM_TYPE == "sync_batchnorm",
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    check_config = staticmethod(MorphMLP.check_config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: (B, 3, H, W) -> (B, C)."""
        check_image(x)
        for stage, (chunk, width) in enumerate(zip(self.chunks, self.widths, strict=True)):
            x = self.get_submodule(f"patch_embed{stage + 1}")(x)  # B H W C
            check_map(stage, x.shape[1], x.shape[2], chunk, width)
            blocks = self.get_submodule(f"blocks{stage + 1}").children()
            x = run_blocks(blocks, x.unsqueeze(1), self.act_checkpoint).squeeze(1)
        return self.norm(x).mean((1, 2))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C) -> logits (B, num_classes)."""
        return self.head(features)
