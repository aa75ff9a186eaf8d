"""ConvMLP for images (arXiv 2109.04454), after the published code of its authors (SHI-Labs/Convolutional-MLPs).

Logits agree with the published code's for S, to 1e-6 of the largest; the published accuracies were not measured here.
State dicts have the published keys and shapes, those of PaddleViT's .pdparams files included.

Shapes: B images, C channels, H x W map. Maps are channels-last in memory throughout, so that going from
convolutions (B, C, H, W) to Linears (B, H, W, C) copies nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.checkpointing import run_blocks
from slowfast.models.depth import block_names
from slowfast.models.inputs import IMAGES, check_image
from slowfast.models.layers import (
    BatchNorm2dType,
    DropPath,
    Mlp,
    batch_norm_2d,
    check_lengths,
    conv_then_norm,
    init_kaiming_normal,
    init_truncated_normal,
)

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class Convolutions(nn.Sequential):
    """Convolutions, each followed by its batch norm and a ReLU, then what else is given: (B, C, H, W) -> same."""

    MAP_AXES = "BCHW"

    def __init__(self, norm: BatchNorm2dType, convolutions: Sequence[nn.Conv2d], *then: nn.Module) -> None:
        layers = ((conv, norm(conv.out_channels), nn.ReLU(inplace=True)) for conv in convolutions)
        super().__init__(*itertools.chain.from_iterable(layers), *then)
        self.depth = 3 * len(convolutions)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x, layers = input, list(self)
        for conv, norm, relu in zip(*(layers[i : self.depth : 3] for i in range(3)), strict=True):
            x = relu(conv_then_norm(partial(F.conv2d, stride=conv.stride, padding=conv.padding), x, conv, norm))
        for layer in layers[self.depth :]:
            x = layer(x)
        return x


def _conv(width: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, out, kernel, stride=stride, padding=kernel // 2, bias=False)


class Tokenizer(nn.Module):
    """(B, 3, height, width) -> (B, C, H, W) at a quarter of the size."""

    def __init__(self, width: int, norm: BatchNorm2dType) -> None:
        super().__init__()
        half = width // 2
        convolutions = _conv(3, half, 3, stride=2), _conv(half, half, 3), _conv(half, width, 3)
        self.block = Convolutions(norm, convolutions, nn.MaxPool2d(3, stride=2, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class ConvBlock(Convolutions):
    """x plus three convolutions of it: (B, C, H, W) -> same."""

    def __init__(self, width: int, hidden: int, norm: BatchNorm2dType) -> None:
        super().__init__(norm, (_conv(width, hidden, 1), _conv(hidden, hidden, 3), _conv(hidden, width, 1)))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + super().forward(input)


class ConvStage(nn.Module):
    """ConvBlocks, then a convolution to half the size: (B, C, H, W) -> (B, C', H / 2, W / 2)."""

    MAP_AXES = "BCHW"

    def __init__(self, blocks: int, width: int, out: int, norm: BatchNorm2dType) -> None:
        super().__init__()
        self.conv_blocks = nn.Sequential(*(ConvBlock(width, out, norm) for _ in range(blocks)))
        self.downsample = nn.Conv2d(width, out, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(self.conv_blocks(x))


class Block(nn.Module):
    """Two channel MLPs about a depthwise convolution that has no residual: (B, H, W, C) -> same."""

    MAP_AXES = "BHWC"

    def __init__(self, width: int, mlp_ratio: float, drop_rate: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.channel_mlp1 = Mlp(width, hidden, width)
        self.connect_norm = nn.LayerNorm(width)
        self.connect = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.channel_mlp2 = Mlp(width, hidden, width)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop_path(x, self.channel_mlp1(self.norm1(x)))
        x = _on_maps(self.connect, self.connect_norm(x))
        return self.drop_path(x, self.channel_mlp2(self.norm2(x)))


class Downsample(nn.Module):
    """(B, H, W, C) -> (B, H / 2, W / 2, C')."""

    MAP_AXES = "BHWC"

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(width, out, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _on_maps(self.downsample, x)


def _on_maps(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A convolution of channels-last maps: (B, H, W, C) -> (B, H', W', C')."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Stage(nn.Module):
    """Blocks with stochastic depth from 0 to drop_rate, and a Downsample to width `out` if there is one."""

    def __init__(self, blocks: int, width: int, out: int | None, mlp_ratio: float, drop_rate: float) -> None:
        super().__init__()
        rates = [drop_rate * i / max(blocks - 1, 1) for i in range(blocks)]
        self.blocks = nn.ModuleList(Block(width, mlp_ratio, rate) for rate in rates)
        self.downsample_mlp = Downsample(width, out) if out else nn.Identity()

    def forward(self, x: torch.Tensor, recompute: bool | int) -> torch.Tensor:
        return self.downsample_mlp(run_blocks(self.blocks, x, recompute))


class ConvMLP(nn.Module):
    """ConvMLP for images: float (B, 3, H, W) of any size -> logits (B, num_classes).

    layers, widths and mlp_ratios have one value an MLP stage; conv_width and conv_layers are the tokenizer's and the
    convolution stage's. act_checkpoint: True, or the number of blocks of each MLP stage, from its first, whose
    activations are computed again in the backward pass; the convolution stage is left out, because its batch norm
    would count a batch twice. Raises ConfigError for impossible settings.
    """

    TAKES = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        layers: Sequence[int] = (2, 4, 2),
        widths: Sequence[int] = (128, 256, 512),
        mlp_ratios: Sequence[float] = (2, 2, 2),
        conv_width: int = 64,
        conv_layers: int = 2,
        drop_depth_rate: float = 0.1,
        sync_batchnorm: bool = False,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_settings(layers, widths, mlp_ratios, conv_width)
        self.act_checkpoint = act_checkpoint
        norm = batch_norm_2d(sync_batchnorm)
        self.tokenizer = Tokenizer(conv_width, norm)
        self.conv_stages = ConvStage(conv_layers, conv_width, widths[0], norm)
        outs = (*widths[1:], None)
        self.stages = nn.ModuleList(
            Stage(*sizes, drop_depth_rate) for sizes in zip(layers, widths, outs, mlp_ratios, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> ConvMLP:
        """The network of MODEL and CONVMLP."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            layers=cfg.CONVMLP.LAYERS,
            widths=cfg.CONVMLP.EMBED_DIMS,
            mlp_ratios=cfg.CONVMLP.MLP_RATIOS,
            conv_width=cfg.CONVMLP.CONV_DIM,
            conv_layers=cfg.CONVMLP.CONV_LAYERS,
            drop_depth_rate=cfg.CONVMLP.DROP_DEPTH_RATE,
            sync_batchnorm=cfg.BN.NORM_TYPE == "sync_batchnorm",
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building, when the settings are impossible."""
        convmlp = cfg.CONVMLP
        check_settings(convmlp.LAYERS, convmlp.EMBED_DIMS, convmlp.MLP_RATIOS, convmlp.CONV_DIM)

    def blocks_by_stage(self) -> list[list[str]]:
        """Return the names of the blocks of each stage, the convolutional one first."""
        names = ["conv_stages.conv_blocks", *(f"stages.{stage}.blocks" for stage in range(len(self.stages)))]
        return [block_names(name, self.get_submodule(name)) for name in names]

    def reset_parameters(self) -> None:
        """Random weights: Linear from a truncated normal, convolutions from Kaiming's normal by their fan out."""
        init_truncated_normal(self)
        init_kaiming_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: (B, 3, H, W) -> (B, C)."""
        check_image(x)
        x = self.tokenizer(x.contiguous(memory_format=torch.channels_last))
        x = self.conv_stages(x).permute(0, 2, 3, 1)  # B H W C
        for stage in self.stages:
            x = stage(x, self.act_checkpoint)
        return self.norm(x).mean((1, 2))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C) -> logits (B, num_classes)."""
        return self.head(features)


def check_settings(layers: Sequence[int], widths: Sequence[int], mlp_ratios: Sequence[float], conv_width: int) -> None:
    """Raise ConfigError unless there is one value a stage and the convolutions' width is even."""
    check_lengths("CONVMLP", LAYERS=layers, EMBED_DIMS=widths, MLP_RATIOS=mlp_ratios)
    if conv_width % 2:
        raise ConfigError(f"CONVMLP.CONV_DIM must be even, not {conv_width}")
