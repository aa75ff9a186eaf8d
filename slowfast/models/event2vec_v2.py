"""Event2Vec v2 for event streams (arXiv 2504.15371 v2), after its authors' published code.

State dicts have the published keys and shapes, and the parameter counts are those of the authors' logs (ASL-DVS 91.8 k,
DVS Gesture 844 k). One detail of the attention differs, see :mod:`~slowfast.models.gated_linear_attention`. No weights
were published, and the published accuracies were not measured here.

Notation: B recordings, L events, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.event2vec_v3 import CoordinateNetwork, EventClassifier, check_settings
from slowfast.models.event_encoder import Encoder, mean_of_pairs
from slowfast.models.gated_linear_attention import BiGatedLinearAttention
from slowfast.models.protocol import MODEL_REGISTRY

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


@MODEL_REGISTRY.register()
class Event2VecV2(CoordinateNetwork):
    """Event2Vec v2 for event streams, see :class:`~slowfast.models.event2vec_v3.CoordinateNetwork`.

    Args:
        num_classes: Number of classes.
        sensor_size: Height and width of the sensor in pixels.
        embed_dim: Channels of a token, a multiple of 4.
        heads: Attention heads.
        mlp_dim: Hidden channels of the MLPs.
        layers: Number of encoder layers.
        pool_every: Average neighboring pairs of tokens before every so many layers; 0 for never.
        expand: Channels of keys and values, relative to `embed_dim`.
        act_checkpoint: True, or the number of encoder layers whose activations are recomputed in the backward pass.

    Raises:
        ConfigError: For invalid settings.
    """

    def __init__(
        self,
        num_classes: int = 24,
        sensor_size: tuple[int, int] = (180, 240),
        embed_dim: int = 64,
        heads: int = 2,
        mlp_dim: int = 128,
        layers: int = 2,
        pool_every: int = 0,
        expand: float = 1.0,
        act_checkpoint: bool | int = False,
    ) -> None:
        check_settings(sensor_size, embed_dim, heads, layers, pool_every)
        if int(embed_dim * expand) % heads or int(embed_dim * expand) < heads:
            raise ConfigError(
                f"EVENT2VEC.HEADS ({heads}) must divide EVENT2VEC.EMBED_DIM x EVENT2VEC.EXPAND "
                f"({embed_dim} x {expand:g})"
            )
        depth = pool_every or layers
        encoders = nn.ModuleList(
            Encoder(lambda: BiGatedLinearAttention(embed_dim, heads, expand), embed_dim, mlp_dim, depth)
            for _ in range(layers // depth)
        )
        super().__init__(EventClassifier(encoders, embed_dim, num_classes), sensor_size, act_checkpoint)
        self.depth, self.pool_every = depth, pool_every

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Event2VecV2:
        """Build the network described by MODEL and EVENT2VEC for the sensor of DVS."""
        return cls(
            **cls.shared_settings(cfg),
            expand=cfg.EVENT2VEC.EXPAND,
        )

    def _encode(self, tokens: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoders = self.classifier.backbone_net
        assert isinstance(encoders, nn.ModuleList)
        for number, encoder in enumerate(encoders):
            if self.pool_every:
                tokens, valid = mean_of_pairs(tokens, valid)
            tokens = encoder(tokens, valid, self._recomputed(number * self.depth, self.depth))
        return tokens, valid


def event2vec_v2_asldvs(num_classes: int = 24, **settings: Any) -> Event2VecV2:
    """Build Event2Vec v2 for ASL-DVS; `settings` are additional arguments of :class:`Event2VecV2`."""
    return Event2VecV2(num_classes, **settings)


def event2vec_v2_dvsgesture(num_classes: int = 11, **settings: Any) -> Event2VecV2:
    """Build Event2Vec v2 for DVS Gesture; `settings` are additional arguments of :class:`Event2VecV2`."""
    sizes: dict[str, Any] = {"embed_dim": 128, "heads": 4, "mlp_dim": 256, "layers": 7, "pool_every": 1, "expand": 0.5}
    return Event2VecV2(num_classes, **{"sensor_size": (128, 128), **sizes, **settings})
