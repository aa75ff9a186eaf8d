"""Base of versions 2 and 3 of Event2Vec (arXiv 2504.15371): tokens from coordinates and times of events, and layers.

The encoder has post-norm layers that skip invalid events; the versions differ in its attention.

Notation: B recordings, L events or tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import DropPath, RandomLayer, run_blocks
from slowfast.models.protocol import EVENTS, MIXED, Events, Network, check_events

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode

EPS = 1e-5  # added to counts of tokens, as published
Attention = Callable[[], nn.Module]  # builds a module of tokens (B, L, C) and valid (B, L)


class CoordinateEmbedding(nn.Module):
    """MLP of the coordinates of events in [-1, 1], x, y and p in this order: (..., 3) -> (..., C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            *(nn.Linear(3, dim // 4, bias=False), nn.LayerNorm(dim // 4), nn.ReLU(inplace=True)),
            *(nn.Linear(dim // 4, dim // 2, bias=False), nn.LayerNorm(dim // 2), nn.ReLU(inplace=True)),
            *(nn.Linear(dim // 2, dim, bias=False), nn.LayerNorm(dim)),
        )

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        return self.embed(coordinates)


class TimeConvolution(nn.Module):
    """Convolutions along the events of the time since the previous one: (B, L) -> (B, L, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        to_channels, to_events = Rearrange("b l c -> b c l"), Rearrange("b c l -> b l c")

        def convolution(inputs: int, outputs: int) -> nn.Conv1d:
            return nn.Conv1d(inputs, outputs, 3, padding=1, groups=inputs, bias=False)

        self.conv = nn.Sequential(
            *(convolution(1, dim // 4), to_events, nn.LayerNorm(dim // 4), to_channels, nn.ReLU(inplace=True)),
            *(convolution(dim // 4, dim // 2), to_events, nn.LayerNorm(dim // 2), to_channels, nn.ReLU(inplace=True)),
            *(convolution(dim // 2, dim), to_events, nn.LayerNorm(dim)),
        )

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        return self.conv(steps[:, None])


def coordinate_head(dim: int) -> nn.Sequential:
    """Return the head that predicts three coordinates of an event in pre-training: (..., C) -> (..., 3)."""
    return nn.Sequential(
        *(nn.Linear(dim, dim // 2, bias=False), nn.LayerNorm(dim // 2), nn.ReLU(inplace=True)),
        *(nn.Linear(dim // 2, dim // 4, bias=False), nn.LayerNorm(dim // 4), nn.ReLU(inplace=True)),
        nn.Linear(dim // 4, 3, bias=False),
    )


def normalized_coordinates(events: Events, sensor_size: tuple[int, int]) -> torch.Tensor:
    """Return x, y and p of events in [-1, 1], 0 where they are invalid: float32 (B, L, 3)."""
    height, width = sensor_size
    columns = [events[key].float() * (2.0 / (size - 1)) - 1.0 for key, size in (("x", width), ("y", height), ("p", 2))]
    return torch.stack(columns, -1) * events["valid"][..., None]


def time_steps(t: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the time since the previous event as a fraction of the duration of the recording, (B, L).

    It is 0 for the first event and where either event is invalid. As published, the duration is the largest time of all
    events, valid or not; padding must not have a later one.
    """
    t = (t - t[:, :1]).float()
    longest = t.amax(1, keepdim=True)
    steps = (t / torch.where(longest > 0, longest, 1.0)).diff(dim=1, prepend=t[:, :1])
    both = valid.clone()
    both[:, 1:] &= valid[:, :-1]
    return torch.where(both, steps, 0.0)


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
            recompute: Activation checkpointing, see :func:`~slowfast.models.layers.run_blocks`.
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
    return masked_mean(pairs, kept), kept.any(2)


def masked_mean(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Average tokens (..., L, C) over the valid ones (..., L): (..., C), 0 if there are none."""
    return (x * valid[..., None]).sum(-2) / (valid.sum(-1, keepdim=True) + EPS)


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
