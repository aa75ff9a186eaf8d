"""ConvMLP for images (arXiv 2109.04454), after its authors' published code (SHI-Labs/Convolutional-MLPs).

Logits agree with the published code for S, to 1e-6 of the largest; the published accuracies were not measured here.
State dicts have the published keys and shapes, those of PaddleViT's .pdparams files included.

Notation: B images, C channels, H x W map. Maps are channels-last in memory, so that the step from convolutions
(B, C, H, W) to Linears (B, H, W, C) copies nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.batch_norm import BatchNorm2dType, batch_norm_2d, conv_then_norm
from slowfast.models.layers import (
    DropPath,
    Mlp,
    block_names,
    check_lengths,
    init_kaiming_normal,
    init_truncated_normal,
    run_blocks,
)
from slowfast.models.protocol import IMAGES, MODEL_REGISTRY, FeatureMap, Network, check_image

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class Convolutions(FeatureMap, nn.Sequential):
    """Convolutions, each followed by batch norm and ReLU, then other layers: (B, C, H, W) -> (B, C', H', W')."""

    MAP_AXES = "BCHW"

    def __init__(self, norm: BatchNorm2dType, convolutions: Sequence[nn.Conv2d], *further: nn.Module) -> None:
        layers = ((conv, norm(conv.out_channels), nn.ReLU(inplace=True)) for conv in convolutions)
        super().__init__(*itertools.chain.from_iterable(layers), *further)
        self.depth = 3 * len(convolutions)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x, layers = input, list(self)
        for conv, norm, relu in zip(*(layers[i : self.depth : 3] for i in range(3)), strict=True):
            x = relu(conv_then_norm(partial(F.conv2d, stride=conv.stride, padding=conv.padding), x, conv, norm))
        for layer in layers[self.depth :]:
            x = layer(x)
        return x


def _conv(dim: int, out_dim: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(dim, out_dim, kernel, stride=stride, padding=kernel // 2, bias=False)


class Tokenizer(nn.Module):
    """(B, 3, height, width) -> (B, C, H, W) with a quarter of the size."""

    def __init__(self, dim: int, norm: BatchNorm2dType) -> None:
        super().__init__()
        half = dim // 2
        convolutions = _conv(3, half, 3, stride=2), _conv(half, half, 3), _conv(half, dim, 3)
        self.block = Convolutions(norm, convolutions, nn.MaxPool2d(3, stride=2, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class ConvBlock(Convolutions):
    """Residual block of three convolutions: (B, C, H, W) -> same."""

    def __init__(self, dim: int, hidden_dim: int, norm: BatchNorm2dType) -> None:
        super().__init__(norm, (_conv(dim, hidden_dim, 1), _conv(hidden_dim, hidden_dim, 3), _conv(hidden_dim, dim, 1)))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + super().forward(input)


class ConvStage(FeatureMap, nn.Module):
    """ConvBlocks and a convolution to half the size: (B, C, H, W) -> (B, C', H / 2, W / 2)."""

    MAP_AXES = "BCHW"

    def __init__(self, blocks: int, dim: int, out_dim: int, norm: BatchNorm2dType) -> None:
        super().__init__()
        self.conv_blocks = nn.Sequential(*(ConvBlock(dim, out_dim, norm) for _ in range(blocks)))
        self.downsample = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(self.conv_blocks(x))


class Block(FeatureMap, nn.Module):
    """Channel MLP, depthwise convolution without a residual, channel MLP: (B, H, W, C) -> same."""

    MAP_AXES = "BHWC"

    def __init__(self, dim: int, mlp_ratio: float, drop_rate: float) -> None:
        super().__init__()
        hidden_dim = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim)
        self.channel_mlp1 = Mlp(dim, hidden_dim, dim)
        self.connect_norm = nn.LayerNorm(dim)
        self.connect = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.channel_mlp2 = Mlp(dim, hidden_dim, dim)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop_path.residual(x, lambda kept: self.channel_mlp1(self.norm1(kept)))
        x = _on_maps(self.connect, self.connect_norm(x))
        return self.drop_path.residual(x, lambda kept: self.channel_mlp2(self.norm2(kept)))


class Downsample(FeatureMap, nn.Module):
    """Convolution between stages: (B, H, W, C) -> (B, H / 2, W / 2, C')."""

    MAP_AXES = "BHWC"

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _on_maps(self.downsample, x)


def _on_maps(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Convolve channels-last maps: (B, H, W, C) -> (B, H', W', C')."""
    return rearrange(conv(rearrange(x, "b h w c -> b c h w")), "b c h w -> b h w c")


class Stage(nn.Module):
    """Blocks whose stochastic depth rises from 0 to `drop_rate`, and a Downsample to `out_dim` channels if given."""

    def __init__(self, blocks: int, dim: int, out_dim: int | None, mlp_ratio: float, drop_rate: float) -> None:
        super().__init__()
        rates = [drop_rate * i / max(blocks - 1, 1) for i in range(blocks)]
        self.blocks = nn.ModuleList(Block(dim, mlp_ratio, rate) for rate in rates)
        self.downsample_mlp = Downsample(dim, out_dim) if out_dim else nn.Identity()

    def forward(self, x: torch.Tensor, recompute: bool | int) -> torch.Tensor:
        return self.downsample_mlp(run_blocks(self.blocks, x, recompute))


@MODEL_REGISTRY.register()
class ConvMLP(Network):
    """ConvMLP for images.

    Maps a float tensor of shape (B, 3, H, W), of any size, to logits of shape (B, num_classes).

    Args:
        num_classes: Number of classes.
        layers: Number of blocks of each MLP stage.
        embed_dims: Channels of each MLP stage.
        mlp_ratios: Hidden channels of the MLPs of each stage as a multiple of its channels.
        conv_dim: Channels of the tokenizer and the convolution stage.
        conv_layers: Number of blocks of the convolution stage.
        drop_depth_rate: Stochastic depth of the last block of a stage; rises linearly from 0 in each stage.
        sync_batchnorm: Compute batch-norm statistics over all processes.
        act_checkpoint: True, or the number of blocks of each MLP stage, from its first, whose activations are
            recomputed in the backward pass. Never the convolution stage, whose batch norm would count a batch twice.

    Raises:
        ConfigError: For invalid settings.
    """

    input_kind = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        layers: Sequence[int] = (2, 4, 2),
        embed_dims: Sequence[int] = (128, 256, 512),
        mlp_ratios: Sequence[float] = (2, 2, 2),
        conv_dim: int = 64,
        conv_layers: int = 2,
        drop_depth_rate: float = 0.1,
        sync_batchnorm: bool = False,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_settings(layers, embed_dims, mlp_ratios, conv_dim)
        self.act_checkpoint = act_checkpoint
        norm = batch_norm_2d(sync_batchnorm)
        self.tokenizer = Tokenizer(conv_dim, norm)
        self.conv_stages = ConvStage(conv_layers, conv_dim, embed_dims[0], norm)
        out_dims = (*embed_dims[1:], None)
        self.stages = nn.ModuleList(
            Stage(*sizes, drop_depth_rate) for sizes in zip(layers, embed_dims, out_dims, mlp_ratios, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dims[-1])
        self.head = nn.Linear(embed_dims[-1], num_classes)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> ConvMLP:
        """Build the network described by MODEL and CONVMLP."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            layers=cfg.CONVMLP.LAYERS,
            embed_dims=cfg.CONVMLP.EMBED_DIMS,
            mlp_ratios=cfg.CONVMLP.MLP_RATIOS,
            conv_dim=cfg.CONVMLP.CONV_DIM,
            conv_layers=cfg.CONVMLP.CONV_LAYERS,
            drop_depth_rate=cfg.CONVMLP.DROP_DEPTH_RATE,
            sync_batchnorm=cfg.BN.NORM_TYPE == "sync_batchnorm",
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building the network, for invalid settings."""
        convmlp = cfg.CONVMLP
        check_settings(convmlp.LAYERS, convmlp.EMBED_DIMS, convmlp.MLP_RATIOS, convmlp.CONV_DIM)

    def blocks_by_stage(self) -> list[list[str]]:
        """Return the names of the blocks of each stage, the convolutional one first."""
        names = ["conv_stages.conv_blocks", *(f"stages.{stage}.blocks" for stage in range(len(self.stages)))]
        return [block_names(name, self.get_submodule(name)) for name in names]

    def reset_parameters(self) -> None:
        """Initialize Linears from a truncated normal distribution and convolutions from Kaiming's (fan out)."""
        init_truncated_normal(self)
        init_kaiming_normal(self)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head: (B, 3, H, W) -> (B, C)."""
        return self._map(x).mean((1, 2))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.head(features)

    def dense_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map: (B, 3, height, width) -> (B, C, H, W)."""
        return rearrange(self._map(x), "b h w c -> b c h w")

    def _map(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalized last feature map, (B, H, W, C)."""
        check_image(x)
        x = self.tokenizer(x.contiguous(memory_format=torch.channels_last))
        x = rearrange(self.conv_stages(x), "b c h w -> b h w c")
        for stage in self.stages:
            x = stage(x, self.act_checkpoint)
        return self.norm(x)


def check_settings(
    layers: Sequence[int], embed_dims: Sequence[int], mlp_ratios: Sequence[float], conv_dim: int
) -> None:
    """Raise ConfigError unless there is one value per stage and CONV_DIM is even."""
    check_lengths("CONVMLP", {"LAYERS": layers, "EMBED_DIMS": embed_dims, "MLP_RATIOS": mlp_ratios})
    if conv_dim % 2:
        raise ConfigError(f"CONVMLP.CONV_DIM must be even, not {conv_dim}")


def convmlp_s(num_classes: int = 1000, **settings: Any) -> ConvMLP:
    """Build ConvMLP-S; `settings` are additional arguments of :class:`ConvMLP`."""
    return ConvMLP(num_classes, **settings)


def convmlp_m(num_classes: int = 1000, **settings: Any) -> ConvMLP:
    """Build ConvMLP-M; `settings` are additional arguments of :class:`ConvMLP`."""
    sizes: dict[str, Any] = {"layers": (3, 6, 3), "mlp_ratios": (3, 3, 3), "conv_layers": 3}
    return ConvMLP(num_classes, **{**sizes, **settings})


def convmlp_l(num_classes: int = 1000, **settings: Any) -> ConvMLP:
    """Build ConvMLP-L; `settings` are additional arguments of :class:`ConvMLP`."""
    sizes: dict[str, Any] = {"layers": (4, 8, 3), "embed_dims": (192, 384, 768), "mlp_ratios": (3, 3, 3)}
    return ConvMLP(num_classes, **{**sizes, "conv_dim": 96, "conv_layers": 3, **settings})
