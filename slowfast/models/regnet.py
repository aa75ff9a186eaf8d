"""RegNetY (arXiv 2003.13678), the teacher of the distilled EAT, as of DeiT (arXiv 2012.12877).

The defaults give RegNetY-16GF. State-dict keys follow timm's ``regnety_160``, so the weights that DeiT distills from
load unchanged. Verified: logits and parameter count against timm's implementation. No training recipe is provided and
the published accuracy was not measured here.

Notation: B images, C channels, H x W feature map. Maps are channels-last in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.batch_norm import BatchNorm2dType, batch_norm_2d, check_no_recomputation, conv_then_norm
from slowfast.models.layers import SqueezeExcite, check_lengths, init_kaiming_normal
from slowfast.models.protocol import IMAGES, MODEL_REGISTRY, FeatureMap, Network, check_image

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


STEM_DIM = 32
SE_RATIO = 0.25  # hidden channels of a squeeze-and-excitation, as a fraction of the block's input channels


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(
        self, dim: int, out_dim: int, kernel: int, norm: BatchNorm2dType, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bn = norm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        convolve = partial(F.conv2d, stride=conv.stride, padding=conv.padding, groups=conv.groups)
        return conv_then_norm(convolve, x, conv, self.bn)


class Block(FeatureMap, nn.Module):
    """Residual bottleneck with a grouped convolution and squeeze-and-excitation: (B, C, H, W) -> (B, C', H', W')."""

    MAP_AXES = "BCHW"

    def __init__(self, dim: int, out_dim: int, stride: int, group_width: int, norm: BatchNorm2dType) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out_dim, 1, norm)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, norm, stride, groups=out_dim // group_width)
        self.se = SqueezeExcite(out_dim, max(1, round(dim * SE_RATIO)), nn.ReLU(inplace=True))
        self.conv3 = ConvNorm(out_dim, out_dim, 1, norm)
        self.downsample = ConvNorm(dim, out_dim, 1, norm, stride) if stride != 1 or dim != out_dim else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.conv2(self.conv1(x).relu_()).relu_()
        branch = self.conv3(self.se(branch))
        shortcut = x if self.downsample is None else self.downsample(x)
        return (branch + shortcut).relu_()


@MODEL_REGISTRY.register()
class RegNetY(Network):
    """RegNetY for images.

    Maps a float tensor of shape (B, 3, H, W), of any size, to logits of shape (B, num_classes).

    Args:
        num_classes: Number of classes.
        layers: Number of blocks of each of the four stages.
        embed_dims: Channels of each stage; multiples of ``group_width``.
        group_width: Channels of a group of the grouped convolutions.
        sync_batchnorm: Compute batch-norm statistics over all processes.

    Raises:
        ConfigError: If a list does not have one value per stage or a width is not a multiple of ``group_width``.
    """

    input_kind = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        layers: Sequence[int] = (2, 4, 11, 1),
        embed_dims: Sequence[int] = (224, 448, 1232, 3024),
        group_width: int = 112,
        sync_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        check_stages(layers, embed_dims, group_width)
        norm = batch_norm_2d(sync_batchnorm)
        self.stem = ConvNorm(3, STEM_DIM, 3, norm, stride=2)
        dim = STEM_DIM
        for stage, (depth, out_dim) in enumerate(zip(layers, embed_dims, strict=True), start=1):
            blocks = OrderedDict[str, nn.Module]()
            for position in range(1, depth + 1):
                blocks[f"b{position}"] = Block(dim, out_dim, 2 if position == 1 else 1, group_width, norm)
                dim = out_dim
            self.add_module(f"s{stage}", nn.Sequential(blocks))
        self.stages = len(layers)
        head = nn.Linear(dim, num_classes)
        self.head = nn.Sequential(OrderedDict(fc=head))
        self._reset_parameters(head)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> RegNetY:
        """Build the network described by MODEL and REGNET."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            layers=cfg.REGNET.LAYERS,
            embed_dims=cfg.REGNET.EMBED_DIMS,
            group_width=cfg.REGNET.GROUP_WIDTH,
            sync_batchnorm=cfg.BN.NORM_TYPE == "sync_batchnorm",
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building the network, for invalid settings."""
        check_stages(cfg.REGNET.LAYERS, cfg.REGNET.EMBED_DIMS, cfg.REGNET.GROUP_WIDTH)
        check_no_recomputation(cfg)

    def _reset_parameters(self, head: nn.Linear) -> None:
        """Initialize convolutions from Kaiming's normal distribution (fan out) and the classifier from N(0, 0.01)."""
        init_kaiming_normal(self)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)

    def head_names(self) -> tuple[str, ...]:
        return ("head.fc",)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head: (B, 3, H, W) -> (B, C)."""
        return self.dense_features(x).mean((2, 3))

    def dense_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map: (B, 3, height, width) -> (B, C, H, W)."""
        check_image(x)
        x = self.stem(x.contiguous(memory_format=torch.channels_last)).relu_()
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"s{stage}")(x)
        return x

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.head(features)


def check_stages(layers: Sequence[int], embed_dims: Sequence[int], group_width: int) -> None:
    """Raise ConfigError unless there is one value per stage and the groups divide each stage's channels."""
    check_lengths("REGNET", {"LAYERS": layers, "EMBED_DIMS": embed_dims})
    for dim in embed_dims:
        if dim % group_width:
            raise ConfigError(f"REGNET.EMBED_DIMS: {dim} is not a multiple of REGNET.GROUP_WIDTH ({group_width})")
