"""Event2Vec v3 for event streams (arXiv 2504.15371 v3), after its authors' published code.

State dicts have the published keys and shapes; the published parameter counts (ASL-DVS 71.6 k, DVS Gesture 138 k,
DVS-Lip 4.80 M) are reached. Attention is computed in float32 by PyTorch's operators and equals the published formula;
the published kernel is a bfloat16 one. The published accuracies were not measured here.

Notation: B recordings, L events, C channels, M masked events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.checkpointing import run_blocks
from slowfast.models.event_coordinates import (
    CoordinateEmbedding,
    TimeConvolution,
    normalized_coordinates,
    time_steps,
)
from slowfast.models.forgetting_attention import BiForgettingAttention
from slowfast.models.layers import DropPath, RandomLayer
from slowfast.models.protocol import EVENTS, MODEL_REGISTRY, Events, Network, check_events

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode

INTENSITY = "intensity"  # (B, L) float, optional: number of events that a cluster of events stands for
EPS = 1e-5  # added to counts of events, as published
Attention = Callable[[], nn.Module]  # builds a module of tokens (B, L, C) and valid (B, L)


class FeedForward(nn.Module):
    """Linear, ReLU and Linear without biases: (..., C) -> same."""

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, mlp_dim, bias=False)
        self.linear2 = nn.Linear(mlp_dim, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.linear1(x).relu_())


class EncoderLayer(nn.Module):
    """Post-norm layer of attention and MLP with stochastic depth."""

    def __init__(self, attention: nn.Module, dim: int, mlp_dim: int, drop_path: float) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"attention": attention})  # named as published
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, mlp_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return tokens (B, L, C) -> same; `valid` is bool (B, L)."""
        x = self.norm1(self.drop_path(x, self.attention["attention"](x, valid)))
        return self.norm2(self.drop_path(x, self.ffn(x)))


class Encoder(nn.Module):
    """Layers and a final norm.

    Args:
        attention: Function that builds the attention of a layer.
        dim: Channels of a token.
        mlp_dim: Hidden channels of the MLPs.
        layers: Number of layers.
        drop_path: Rate of stochastic depth of the last layer; it rises linearly from 0.
    """

    def __init__(self, attention: Attention, dim: int, mlp_dim: int, layers: int, drop_path: float = 0.0) -> None:
        super().__init__()
        rates = [drop_path * layer / max(layers - 1, 1) for layer in range(layers)]
        self.layers = nn.ModuleList(EncoderLayer(attention(), dim, mlp_dim, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor, valid: torch.Tensor, recompute: bool | int = False) -> torch.Tensor:
        """Return tokens (B, L, C) -> same.

        Args:
            x: Tokens.
            valid: True for tokens that take part, bool (B, L).
            recompute: Activation checkpointing, see :func:`~slowfast.models.checkpointing.run_blocks`.
        """
        return self.norm(run_blocks([_OnValid(layer, valid) for layer in self.layers], x, recompute))


class _OnValid(nn.Module):
    """Layer as a function of the tokens alone; a module, so that recomputation repeats its random numbers."""

    def __init__(self, layer: nn.Module, valid: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.valid = layer, valid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, self.valid)


def mean_of_pairs(x: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average neighboring pairs over their valid tokens: (B, L, C) -> (B, L / 2, C), and which have any, (B, L / 2)."""
    if x.shape[1] % 2:
        x, valid = F.pad(x, (0, 0, 0, 1)), F.pad(valid, (0, 1))
    pairs, kept = x.unflatten(1, (-1, 2)), valid.unflatten(1, (-1, 2))
    return _mean(pairs, kept), kept.any(2)


def _mean(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Average tokens (..., L, C) over the valid ones (..., L): (..., C), 0 if there are none."""
    return (x * valid[..., None]).sum(-2) / (valid.sum(-1, keepdim=True) + EPS)


class EventClassifier(nn.Module):
    """Embedding, encoder and head, named as published.

    Args:
        encoders: Encoders, with pairs of tokens averaged after each, or a single one without.
        dim: Channels of a token.
        num_classes: Number of classes.
    """

    def __init__(self, encoders: nn.Module, dim: int, num_classes: int) -> None:
        super().__init__()
        self.embed_net = CoordinateEmbedding(dim)
        self.tpe = TimeConvolution(dim)
        self.backbone_net = encoders
        self.heads = nn.Linear(dim, num_classes)


@MODEL_REGISTRY.register()
class Event2VecV3(RandomLayer, Network):
    """Event2Vec v3 for event streams.

    Maps a dict of tensors ``x``, ``y`` (pixels), ``t`` (in any unit), ``p`` (0 or 1) and ``valid`` (bool), each of
    shape (B, L), and optionally ``intensity`` (events per cluster), to logits of shape (B, num_classes). As published,
    the encoding of the last two times of a recording depends on whether padding follows.

    Args:
        num_classes: Number of classes.
        sensor_size: Height and width of the sensor in pixels.
        embed_dim: Channels of a token, a multiple of 4.
        heads: Attention heads.
        mlp_dim: Hidden channels of the MLPs.
        layers: Number of encoder layers.
        pool_every: Average neighboring pairs of tokens after every so many layers; 0 for never.
        drop_depth_rate: Limit of stochastic depth, which rises linearly from 0 over the layers.
        intensity_drop: Probability of replacing the intensity of an event by 1 in training.
        act_checkpoint: True, or the number of encoder layers whose activations are recomputed in the backward pass.

    Raises:
        ConfigError: For impossible settings.
    """

    input_kind = EVENTS

    def __init__(
        self,
        num_classes: int = 24,
        sensor_size: tuple[int, int] = (180, 240),
        embed_dim: int = 64,
        heads: int = 2,
        mlp_dim: int = 128,
        layers: int = 2,
        pool_every: int = 0,
        drop_depth_rate: float = 0.0,
        intensity_drop: float = 0.0,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_settings(sensor_size, embed_dim, heads, layers, pool_every)
        self.sensor_size, self.pool_every = sensor_size, pool_every
        self.intensity_drop, self.act_checkpoint = intensity_drop, act_checkpoint

        def encoder(depth: int) -> Encoder:
            attention = lambda: BiForgettingAttention(embed_dim, heads)  # noqa: E731
            return Encoder(attention, embed_dim, mlp_dim, depth, drop_depth_rate)

        pooled = pool_every and nn.ModuleList(encoder(pool_every) for _ in range(layers // pool_every))
        self.classifier = EventClassifier(pooled or encoder(layers), embed_dim, num_classes)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Event2VecV3:
        """Build the network described by MODEL and EVENT2VEC for the sensor of DVS."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            sensor_size=tuple(cfg.DVS.SENSOR_SIZE),
            embed_dim=cfg.EVENT2VEC.EMBED_DIM,
            heads=cfg.EVENT2VEC.HEADS,
            mlp_dim=cfg.EVENT2VEC.MLP_DIM,
            layers=cfg.EVENT2VEC.LAYERS,
            pool_every=cfg.EVENT2VEC.POOL_EVERY,
            drop_depth_rate=cfg.EVENT2VEC.DROP_DEPTH_RATE,
            intensity_drop=cfg.EVENT2VEC.INTENSITY_DROP,
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError for impossible settings; the network is built without memory for its weights."""
        with torch.device("meta"):
            Event2VecV3.from_config(cfg)

    def head_names(self) -> tuple[str, ...]:
        return ("classifier.heads",)

    def features(self, events: Events) -> torch.Tensor:
        """Return the mean of the encoded valid tokens, (B, C)."""
        check_events(events)
        tokens, _ = self._tokens(events)
        return _mean(*self._encode(tokens, events["valid"]))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.classifier.heads(features)

    def _tokens(self, events: Events) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens of events, and the part that encodes their times: (B, L, C) each."""
        valid = events["valid"]
        embedded = self.classifier.embed_net(normalized_coordinates(events, self.sensor_size))
        times = self.classifier.tpe(time_steps(events["t"], valid))
        weight = valid.to(embedded.dtype)
        if INTENSITY in events:
            weight = weight * self._intensity(events[INTENSITY])
        return (embedded + times) * weight[..., None], times

    def _intensity(self, intensity: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.intensity_drop:
            return intensity
        dropped = self.sampler.uniform(*intensity.shape) < self.intensity_drop
        return torch.where(dropped.to(intensity.device), 1.0, intensity)

    def _encode(self, tokens: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the encoded tokens, averaged in pairs after each encoder if these are several, and which are valid."""
        encoders = self.classifier.backbone_net
        if isinstance(encoders, Encoder):
            return encoders(tokens, valid, self.act_checkpoint), valid
        assert isinstance(encoders, nn.ModuleList)
        for number, encoder in enumerate(encoders):
            recompute = self.act_checkpoint
            if recompute is not True:
                recompute = min(max(recompute - number * self.pool_every, 0), self.pool_every)
            tokens, valid = mean_of_pairs(encoder(tokens, valid, recompute), valid)
        return tokens, valid


def check_settings(sensor_size: tuple[int, int], embed_dim: int, heads: int, layers: int, pool_every: int) -> None:
    """Raise ConfigError for settings that contradict each other."""
    if min(sensor_size) < 2:
        raise ConfigError(f"DVS.SENSOR_SIZE ({list(sensor_size)}) must be at least 2 pixels high and wide")
    if embed_dim % 4:
        raise ConfigError(f"EVENT2VEC.EMBED_DIM ({embed_dim}) must be a multiple of 4")
    if embed_dim % heads:
        raise ConfigError(f"EVENT2VEC.HEADS ({heads}) must divide EVENT2VEC.EMBED_DIM ({embed_dim})")
    if heads > 1 and heads % 2:
        raise ConfigError(f"EVENT2VEC.HEADS ({heads}) must be 1 or even: two heads share keys and values")
    if pool_every and layers % pool_every:
        raise ConfigError(f"EVENT2VEC.POOL_EVERY ({pool_every}) must divide EVENT2VEC.LAYERS ({layers})")


def event2vec_v3_asldvs(num_classes: int = 24, **settings: Any) -> Event2VecV3:
    """Build Event2Vec v3 for ASL-DVS; `settings` are further arguments of :class:`Event2VecV3`."""
    return Event2VecV3(num_classes, **settings)


def event2vec_v3_dvsgesture(num_classes: int = 11, **settings: Any) -> Event2VecV3:
    """Build Event2Vec v3 for DVS Gesture; `settings` are further arguments of :class:`Event2VecV3`."""
    return Event2VecV3(num_classes, **{"sensor_size": (128, 128), "layers": 4, "pool_every": 1, **settings})


def event2vec_v3_dvslip(num_classes: int = 100, **settings: Any) -> Event2VecV3:
    """Build Event2Vec v3 for DVS-Lip; `settings` are further arguments of :class:`Event2VecV3`."""
    sizes: dict[str, Any] = {"embed_dim": 192, "heads": 6, "mlp_dim": 384, "layers": 16, "drop_depth_rate": 0.4}
    return Event2VecV3(num_classes, **{"sensor_size": (128, 128), **sizes, "intensity_drop": 0.1, **settings})
