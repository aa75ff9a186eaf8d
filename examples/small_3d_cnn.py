"""A small 3D CNN: a network added by one file without changing the package; see annotations.py for the command."""

from collections.abc import Sequence

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.models import MODEL_REGISTRY, Network
from slowfast.models.layers import Dropout
from slowfast.models.protocol import FeatureMap


class ConvBlock(FeatureMap, nn.Sequential):
    """Convolution, batch norm and ReLU, then pooling: (B, C, T, H, W) -> (B, C', T', H / 2, W / 2)."""

    MAP_AXES = "BCTHW"  # lets Grad-CAM draw the maps of this layer

    def __init__(self, dim: int, out_dim: int, pool_time: bool) -> None:
        conv = nn.Conv3d(dim, out_dim, 3, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm3d(out_dim), nn.ReLU(), nn.MaxPool3d((2 if pool_time else 1, 2, 2)))


@MODEL_REGISTRY.register()
class Small3DCNN(Network):
    """Small 3D CNN for clips: float (B, 3, T, H, W), at least 16 x 16 pixels -> logits (B, num_classes).

    Args:
        num_classes: Number of classes.
        embed_dims: Channels of each block.
        dropout_rate: Dropout before the head.
    """

    def __init__(
        self, num_classes: int = 101, embed_dims: Sequence[int] = (16, 32, 64, 128), dropout_rate: float = 0.2
    ) -> None:
        super().__init__()
        dims = [3, *embed_dims]
        self.blocks = nn.Sequential(
            *(ConvBlock(dims[i], dims[i + 1], pool_time=i % 2 == 1) for i in range(len(embed_dims)))
        )
        self.dropout = Dropout(dropout_rate)  # random numbers do not depend on the number of processes
        self.head = nn.Linear(embed_dims[-1], num_classes)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> "Small3DCNN":
        """Build the network for MODEL.NUM_CLASSES classes."""
        return cls(num_classes=cfg.MODEL.NUM_CLASSES)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, (B, C): the mean over time and space."""
        return self.dense_features(x).mean((2, 3, 4))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.head(self.dropout(features))

    def dense_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, (B, C, T', H', W')."""
        return self.blocks(x)
