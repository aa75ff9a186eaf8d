"""Event2Vec v3 for event streams (arXiv 2504.15371 v3), after its authors' published code.

Logits agree with the published code in its PyTorch form to 1e-6 of the largest; its GPU kernel computes in bfloat16.
State dicts have the published keys and shapes, for classification and for pre-training. The published accuracies were
not measured here.

Notation: B recordings, L events, C channels, M masked events.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.event_coordinates import (
    CoordinateEmbedding,
    TimeConvolution,
    coordinate_head,
    normalized_coordinates,
    time_steps,
)
from slowfast.models.event_encoder import Encoder, masked_mean, mean_of_pairs
from slowfast.models.forgetting_attention import BiForgettingAttention
from slowfast.models.layers import RandomLayer
from slowfast.models.protocol import EVENTS, MASKED, MIXED, MODEL_REGISTRY, Events, Network, StateDict, check_events

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode

INTENSITY = "intensity"  # (B, L) float, optional: number of events that each cluster represents


class EventClassifier(nn.Module):
    """Embedding, encoder and head, named as published.

    Args:
        encoders: Encoder, or several of them with pairs of tokens averaged in between.
        dim: Channels of a token.
        num_classes: Number of classes; 0 for the head and the mask token of pre-training.
    """

    def __init__(self, encoders: nn.Module, dim: int, num_classes: int) -> None:
        super().__init__()
        self.embed_net = CoordinateEmbedding(dim)
        self.tpe = TimeConvolution(dim)
        if not num_classes:
            self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        self.backbone_net = encoders
        self.heads = nn.Linear(dim, num_classes) if num_classes else coordinate_head(dim)


class CoordinateNetwork(RandomLayer, Network):
    """Base class of the networks that embed the coordinates of events by an MLP.

    Maps a dict of tensors ``x``, ``y`` (pixels), ``t`` (in any unit), ``p`` (0 or 1) and ``valid`` (bool), each of
    shape (B, L), to logits of shape (B, num_classes). As published, the encoding of the last two times of a recording
    depends on whether padding follows.

    Args:
        classifier: The layers.
        sensor_size: Height and width of the sensor in pixels.
        act_checkpoint: True, or the number of encoder layers whose activations are recomputed in the backward pass.
    """

    input_kind = EVENTS
    mixes_tokens = True

    def __init__(self, classifier: EventClassifier, sensor_size: tuple[int, int], act_checkpoint: bool | int) -> None:
        super().__init__()
        self.classifier, self.sensor_size, self.act_checkpoint = classifier, sensor_size, act_checkpoint

    @classmethod
    def check_config(cls, cfg: ConfigNode) -> None:
        """Raise ConfigError for invalid settings; the network is built without memory for its weights."""
        with torch.device("meta"):
            cls.from_config(cfg)

    @staticmethod
    def shared_settings(cfg: ConfigNode) -> dict[str, Any]:
        """Return the arguments that all of these networks take from MODEL and EVENT2VEC, for the sensor of DVS."""
        return {
            "num_classes": cfg.MODEL.NUM_CLASSES,
            "sensor_size": tuple(cfg.DVS.SENSOR_SIZE),
            "embed_dim": cfg.EVENT2VEC.EMBED_DIM,
            "heads": cfg.EVENT2VEC.HEADS,
            "mlp_dim": cfg.EVENT2VEC.MLP_DIM,
            "layers": cfg.EVENT2VEC.LAYERS,
            "pool_every": cfg.EVENT2VEC.POOL_EVERY,
            "act_checkpoint": cfg.MODEL.ACT_CHECKPOINT,
        }

    def head_names(self) -> tuple[str, ...]:
        return ("classifier.heads",)

    def features(self, events: Events) -> torch.Tensor:
        """Return the mean of the encoded valid tokens, (B, C)."""
        check_events(events)
        tokens = (self._embedded(events) + self._times(events)) * self._weights(events)
        if MIXED in events:
            tokens = torch.where(events[MIXED][..., None], tokens.flip(0), tokens)
        return masked_mean(*self._encode(tokens, events["valid"]))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.classifier.heads(features)

    def _embedded(self, events: Events) -> torch.Tensor:
        return self.classifier.embed_net(normalized_coordinates(events, self.sensor_size))

    def _times(self, events: Events) -> torch.Tensor:
        return self.classifier.tpe(time_steps(events["t"], events["valid"]))

    def _weights(self, events: Events) -> torch.Tensor:
        """Return the factors of the tokens, (B, L, 1)."""
        return events["valid"].float()[..., None]

    def _encode(self, tokens: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the encoded tokens and their validity."""
        raise NotImplementedError

    def _recomputed(self, first: int, count: int) -> bool | int:
        """Return how many of `count` layers from number `first` are recomputed."""
        return self.act_checkpoint is True or min(max(self.act_checkpoint - first, 0), count)


@MODEL_REGISTRY.register()
class Event2VecV3(CoordinateNetwork):
    """Event2Vec v3 for event streams, see :class:`CoordinateNetwork`.

    Clusters of events also have ``intensity`` (B, L), the number of events of each cluster.

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
        mask_ratio: Fraction of the events masked in pre-training; 0 for classification.
        act_checkpoint: True, or the number of encoder layers whose activations are recomputed in the backward pass.

    Raises:
        ConfigError: For invalid settings.
    """

    predicts_coordinates = True

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
        mask_ratio: float = 0.0,
        act_checkpoint: bool | int = False,
    ) -> None:
        check_settings(sensor_size, embed_dim, heads, layers, pool_every)
        if heads > 1 and heads % 2:
            raise ConfigError(f"EVENT2VEC.HEADS ({heads}) must be 1 or even: two heads share keys and values")
        if mask_ratio > 0 and pool_every:
            raise ConfigError(
                f"EVENT2VEC.MASK_RATIO ({mask_ratio}) masks single events, but EVENT2VEC.POOL_EVERY ({pool_every}) "
                "averages pairs. Set POOL_EVERY 0 for pre-training"
            )

        def encoder(depth: int) -> Encoder:
            return Encoder(lambda: BiForgettingAttention(embed_dim, heads), embed_dim, mlp_dim, depth, drop_depth_rate)

        pooled = pool_every and nn.ModuleList(encoder(pool_every) for _ in range(layers // pool_every))
        classes = num_classes if mask_ratio == 0 else 0
        classifier = EventClassifier(pooled or encoder(layers), embed_dim, classes)
        super().__init__(classifier, sensor_size, act_checkpoint)
        self.pool_every, self.intensity_drop, self.mask_ratio = pool_every, intensity_drop, mask_ratio
        self.pretraining = mask_ratio > 0

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Event2VecV3:
        """Build the network described by MODEL and EVENT2VEC for the sensor of DVS."""
        return cls(
            **cls.shared_settings(cfg),
            drop_depth_rate=cfg.EVENT2VEC.DROP_DEPTH_RATE,
            intensity_drop=cfg.EVENT2VEC.INTENSITY_DROP,
            mask_ratio=cfg.EVENT2VEC.MASK_RATIO,
        )

    @classmethod
    def check_config(cls, cfg: ConfigNode) -> None:
        super().check_config(cfg)
        if cfg.EVENT2VEC.MASK_RATIO > 0 and cfg.TEST.ENABLE:
            raise ConfigError(
                f"EVENT2VEC.MASK_RATIO ({cfg.EVENT2VEC.MASK_RATIO}) selects pre-training, which has no classes. Set "
                "TEST.ENABLE False"
            )

    def forward(self, events: Events) -> torch.Tensor:
        """Return logits (B, num_classes), or for events with MASKED their coordinates p, y, x in [-1, 1], (M, 3)."""
        check_events(events)
        if MASKED not in events:
            return super().forward(events)
        masked, times = events[MASKED], self._times(events)
        embedded = torch.where(masked[..., None], self.classifier.mask_token, self._embedded(events))
        weights = self._weights(events)
        encoded, _ = self._encode((embedded + times) * weights, events["valid"])
        return self.classifier.heads(encoded[masked] / weights[masked] - times[masked]).tanh()

    def pretext(self, events: Events) -> tuple[Events, torch.Tensor]:
        """Mask a fraction of the events, at least one per recording that has any.

        Returns:
            The events with MASKED, and p, y and x of the masked ones in [-1, 1], float32 (M, 3).
        """
        valid = events["valid"]
        draws = self.sampler.uniform(*valid.shape).to(valid.device).masked_fill(~valid, 2.0)  # B L
        masked = ((draws < self.mask_ratio) | (draws == draws.amin(1, keepdim=True))) & valid
        return {**events, MASKED: masked}, normalized_coordinates(events, self.sensor_size)[masked].flip(-1)

    def adapt_start_weights(self, state: StateDict, path: str | Path) -> StateDict:
        """Replace head and mask token of pre-trained weights by this network's head."""
        token = "classifier.mask_token"
        if self.pretraining or token not in state:
            return state
        kept = {key: value for key, value in state.items() if not key.startswith(("classifier.heads.", token))}
        return kept | {key: value for key, value in self.state_dict().items() if key.startswith("classifier.heads.")}

    def _weights(self, events: Events) -> torch.Tensor:
        weights = super()._weights(events)
        if INTENSITY not in events:
            return weights
        intensity = events[INTENSITY]
        if self.training and self.intensity_drop and not self.pretraining:
            dropped = self.sampler.uniform(*intensity.shape) < self.intensity_drop
            intensity = torch.where(dropped.to(intensity.device), 1.0, intensity)
        return weights * intensity[..., None]

    def _encode(self, tokens: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoders = self.classifier.backbone_net
        if isinstance(encoders, Encoder):
            return encoders(tokens, valid, self.act_checkpoint), valid
        assert isinstance(encoders, nn.ModuleList)
        for number, encoder in enumerate(encoders):
            recomputed = self._recomputed(number * self.pool_every, self.pool_every)
            tokens, valid = mean_of_pairs(encoder(tokens, valid, recomputed), valid)
        return tokens, valid


def check_settings(sensor_size: tuple[int, int], embed_dim: int, heads: int, layers: int, pool_every: int) -> None:
    """Raise ConfigError for settings that contradict each other."""
    if min(sensor_size) < 2:
        raise ConfigError(f"DVS.SENSOR_SIZE ({list(sensor_size)}) must be at least 2 pixels high and wide")
    if embed_dim % 4:
        raise ConfigError(f"EVENT2VEC.EMBED_DIM ({embed_dim}) must be a multiple of 4")
    if embed_dim % heads:
        raise ConfigError(f"EVENT2VEC.HEADS ({heads}) must divide EVENT2VEC.EMBED_DIM ({embed_dim})")
    if pool_every and layers % pool_every:
        raise ConfigError(f"EVENT2VEC.POOL_EVERY ({pool_every}) must divide EVENT2VEC.LAYERS ({layers})")


def event2vec_v3_asldvs(num_classes: int = 24, **settings: Any) -> Event2VecV3:
    """Build Event2Vec v3 for ASL-DVS; `settings` are additional arguments of :class:`Event2VecV3`."""
    return Event2VecV3(num_classes, **settings)


def event2vec_v3_dvsgesture(num_classes: int = 11, **settings: Any) -> Event2VecV3:
    """Build Event2Vec v3 for DVS Gesture; `settings` are additional arguments of :class:`Event2VecV3`."""
    return Event2VecV3(num_classes, **{"sensor_size": (128, 128), "layers": 4, "pool_every": 1, **settings})


def event2vec_v3_dvslip(num_classes: int = 100, **settings: Any) -> Event2VecV3:
    """Build Event2Vec v3 for DVS-Lip; `settings` are additional arguments of :class:`Event2VecV3`."""
    sizes: dict[str, Any] = {"embed_dim": 192, "heads": 6, "mlp_dim": 384, "layers": 16, "drop_depth_rate": 0.4}
    return Event2VecV3(num_classes, **{"sensor_size": (128, 128), **sizes, "intensity_drop": 0.1, **settings})
