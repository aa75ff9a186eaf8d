"""EfficientNetV2 (arXiv 2104.00298), the teacher of the distilled evMLP.

The defaults give EfficientNetV2-S. State-dict keys follow torchvision's ``efficientnet_v2_s``, so its published weights
load unchanged. Verified: logits and parameter count against torchvision's implementation. No training recipe is
provided and the published accuracy was not measured here.

Notation: B images, C channels, H x W feature map. Maps are channels-last in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.batch_norm import BatchNorm2dType, batch_norm_2d, check_no_recomputation, conv_then_norm
from slowfast.models.layers import Dropout, DropPath, SqueezeExcite, block_names, check_lengths, init_kaiming_normal
from slowfast.models.protocol import IMAGES, MODEL_REGISTRY, FeatureMap, Network, check_image

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


EPS = 1e-3  # epsilon of every batch norm
SE_RATIO = 4  # reduction of squeeze-and-excitation: hidden channels are the block's input channels divided by this
FUSED_STAGES = 3  # the first stages use one 3x3 convolution in place of a 1x1 and a depthwise one
EXPANSIONS = (1, 4, 4, 4, 6, 6)
STRIDES = (1, 2, 2, 2, 1, 2)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm and, unless ``activate`` is False, SiLU: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(
        self,
        dim: int,
        out_dim: int,
        kernel: int,
        norm: BatchNorm2dType,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        conv = nn.Conv2d(dim, out_dim, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(conv, norm(out_dim, eps=EPS), *([nn.SiLU(inplace=True)] if activate else []))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        conv, norm, *activation = self
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
        convolve = partial(F.conv2d, stride=conv.stride, padding=conv.padding, groups=conv.groups)
        x = conv_then_norm(convolve, input, conv, norm)
        return activation[0](x) if activation else x


class Block(FeatureMap, nn.Module):
    """Inverted residual block, fused or with a depthwise convolution: (B, C, H, W) -> (B, C', H', W').

    It has a residual connection if the shape does not change.
    """

    MAP_AXES = "BCHW"

    def __init__(
        self,
        dim: int,
        out_dim: int,
        expansion: int,
        stride: int,
        fused: bool,
        drop_rate: float,
        norm: BatchNorm2dType,
    ) -> None:
        super().__init__()
        hidden_dim = dim * expansion
        if fused and expansion == 1:
            layers: list[nn.Module] = [ConvNorm(dim, out_dim, 3, norm, stride)]
        elif fused:
            layers = [
                ConvNorm(dim, hidden_dim, 3, norm, stride),
                ConvNorm(hidden_dim, out_dim, 1, norm, activate=False),
            ]
        else:
            layers = [
                ConvNorm(dim, hidden_dim, 1, norm),
                ConvNorm(hidden_dim, hidden_dim, 3, norm, stride, groups=hidden_dim),
                SqueezeExcite(hidden_dim, max(1, dim // SE_RATIO), nn.SiLU(inplace=True)),
                ConvNorm(hidden_dim, out_dim, 1, norm, activate=False),
            ]
        self.block = nn.Sequential(*layers)
        self.drop_path = DropPath(drop_rate) if stride == 1 and dim == out_dim else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.block(x)
        return branch if self.drop_path is None else self.drop_path(x, branch)


class Backbone(nn.Sequential):
    """All layers before the classifier, averaged over the map: (B, 3, H, W) -> (B, C)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.dense(input).mean((2, 3))

    def dense(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map before averaging: (B, 3, height, width) -> (B, C, H, W)."""
        check_image(x)
        return super().forward(x.contiguous(memory_format=torch.channels_last))


@MODEL_REGISTRY.register()
class EfficientNetV2(Network):
    """EfficientNetV2 for images.

    Maps a float tensor of shape (B, 3, H, W), of any size, to logits of shape (B, num_classes).

    Args:
        num_classes: Number of classes.
        layers: Number of blocks of each of the six stages.
        embed_dims: Channels of each stage.
        head_dim: Channels of the last convolution.
        dropout_rate: Dropout before the classifier.
        drop_depth_rate: Stochastic depth that the last block approaches; rises linearly from 0 over all blocks.
        sync_batchnorm: Compute batch-norm statistics over all processes.

    Raises:
        ConfigError: If a list does not have one value per stage.
    """

    input_kind = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        layers: Sequence[int] = (2, 4, 4, 6, 9, 15),
        embed_dims: Sequence[int] = (24, 48, 64, 128, 160, 256),
        head_dim: int = 1280,
        dropout_rate: float = 0.2,
        drop_depth_rate: float = 0.2,
        sync_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        check_stages(layers, embed_dims)
        norm = batch_norm_2d(sync_batchnorm)
        stem_dim = embed_dims[0]
        stages: list[nn.Module] = [ConvNorm(3, stem_dim, 3, norm, stride=2)]
        dim, index, total = stem_dim, 0, sum(layers)
        for stage, (depth, out_dim) in enumerate(zip(layers, embed_dims, strict=True)):
            blocks = []
            for position in range(depth):
                stride = STRIDES[stage] if position == 0 else 1
                rate = drop_depth_rate * index / total
                blocks.append(Block(dim, out_dim, EXPANSIONS[stage], stride, stage < FUSED_STAGES, rate, norm))
                dim, index = out_dim, index + 1
            stages.append(nn.Sequential(*blocks))
        self._modules["features"] = Backbone(*stages, ConvNorm(dim, head_dim, 1, norm))
        self.classifier = nn.Sequential(Dropout(dropout_rate), nn.Linear(head_dim, num_classes))
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EfficientNetV2:
        """Build the network described by MODEL and EFFICIENTNET."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            layers=cfg.EFFICIENTNET.LAYERS,
            embed_dims=cfg.EFFICIENTNET.EMBED_DIMS,
            head_dim=cfg.EFFICIENTNET.HEAD_DIM,
            dropout_rate=cfg.EFFICIENTNET.DROPOUT_RATE,
            drop_depth_rate=cfg.EFFICIENTNET.DROP_DEPTH_RATE,
            sync_batchnorm=cfg.BN.NORM_TYPE == "sync_batchnorm",
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building the network, for invalid settings."""
        check_stages(cfg.EFFICIENTNET.LAYERS, cfg.EFFICIENTNET.EMBED_DIMS)
        check_no_recomputation(cfg)

    def blocks_by_stage(self) -> list[list[str]]:
        """Return the names of the blocks of each stage, without the convolutions before and after them."""
        stages = list(enumerate(self.features))[1:-1]
        return [block_names(f"features.{i}", stage) for i, stage in stages]

    def reset_parameters(self) -> None:
        """Initialize convolutions from Kaiming's normal distribution (fan out) and the classifier uniformly."""
        init_kaiming_normal(self)
        head = self.classifier[1]
        assert isinstance(head, nn.Linear)
        bound = head.out_features**-0.5
        nn.init.uniform_(head.weight, -bound, bound)
        nn.init.zeros_(head.bias)

    def head_names(self) -> tuple[str, ...]:
        return ("classifier.1",)

    @property
    def features(self) -> Backbone:  # named "features" in published state dicts
        """Layers that compute the input of the classifier: (B, 3, H, W) -> (B, C)."""
        backbone = self._modules["features"]
        assert isinstance(backbone, Backbone)
        return backbone

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.classifier(features)

    def dense_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map: (B, 3, height, width) -> (B, C, H, W)."""
        return self.features.dense(x)


def check_stages(layers: Sequence[int], embed_dims: Sequence[int]) -> None:
    """Raise ConfigError unless there is one value per stage."""
    check_lengths("EFFICIENTNET", {"LAYERS": layers, "EMBED_DIMS": embed_dims}, count=len(STRIDES))
