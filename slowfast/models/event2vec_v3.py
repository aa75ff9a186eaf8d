"""Event2Vec v3 for event streams (arXiv 2504.15371 v3), after its authors' published code.

Logits agree with a transcription of the published code, with its PyTorch form of the attention, to 1e-6 of the largest;
its GPU kernel computes in bfloat16. State dicts have the published keys and shapes, for classification and for
pre-training. The published accuracies were not measured here.

Its attention is bidirectional forgetting attention (FoX, arXiv 2503.02130). Each head attends with
softmax(q_i . k_j / sqrt(D) + sum of f over the events between j and i), where f <= 0 is the logarithm of a learned
forget gate; once over the events up to each one and once, with the same weights, in reverse.

Notation: B recordings, L events, C channels, M masked events, H heads, G heads of keys and values, D channels of a
head.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.event2vec_coordinates import (
    CoordinateNetwork,
    Encoder,
    EventClassifier,
    check_settings,
    mean_of_pairs,
    normalized_coordinates,
)
from slowfast.models.protocol import MASKED, MODEL_REGISTRY, Events, StateDict, check_events

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode

INTENSITY = "intensity"  # (B, L) float, optional: number of events that each cluster represents
EPS = 1e-5  # epsilon of the query and key norms, as published
# Score of invalid events. Sums of forget gates stay far above it, so exp of the difference is 0.
EXCLUDED = -1e9
ALIGNMENT = 8  # fused attention kernels on GPUs need a multiple of this many channels per head


class HeadRMSNorm(nn.Module):
    """RMS norm of each head with a weight per channel: (..., H D) -> same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(-1, (self.heads, -1))
        return F.rms_norm(heads, heads.shape[-1:], eps=EPS).flatten(-2) * self.weight


def causal_forgetting_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_forget: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return forgetting attention over each event and those before it.

    The difference of two cumulative sums of `log_forget` is a term of the query, which softmax removes, and a term of
    the key. The latter is one more channel of the keys, so that fused causal kernels compute the attention and its
    gradients in memory linear in L.

    Args:
        q: Queries (B, H, L, D), float32.
        k: Keys (B, H, L, D).
        v: Values (B, H, L, D).
        log_forget: Logarithms of the forget gates, (B, H, L).
        valid: Events to attend to, bool (B, L).

    Returns:
        Mixed values (B, H, L, D); of invalid events any finite number.
    """
    dim = q.shape[-1]
    valid = valid[:, None]
    # Sums of thousands of gates need more than float32; relative to the middle, rounding to float32 is smallest.
    sums = log_forget.masked_fill(~valid, 0.0).double().cumsum(-1)
    of_keys = (sums[..., -1:] / 2 - sums).float().masked_fill(~valid, EXCLUDED)
    extra = -(dim + 1) % ALIGNMENT if q.is_cuda else 0
    q = F.pad(F.pad(q, (0, 1), value=1.0), (0, extra))
    k = F.pad(torch.cat((k, of_keys[..., None] * dim**0.5), -1), (0, extra))
    mixed = F.scaled_dot_product_attention(q, k, F.pad(v, (0, 1 + extra)), is_causal=True, scale=dim**-0.5)
    return mixed[..., :dim]


class BiForgettingAttention(nn.Module):
    """Bidirectional forgetting attention with shared weights; both directions are concatenated and projected.

    Args:
        dim: Channels of a token.
        heads: Heads of the queries; keys and values have half as many, each used by two.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, max(heads // 2, 1)
        kv_dim = dim // heads * self.kv_heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, kv_dim, bias=False)
        self.v_proj = nn.Linear(dim, kv_dim, bias=False)
        self.f_proj = nn.Linear(dim, heads)
        self.o_proj = nn.Linear(2 * dim, dim, bias=False)
        self.q_norm = HeadRMSNorm(dim, heads)
        self.k_norm = HeadRMSNorm(kv_dim, self.kv_heads)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the attention of tokens (B, L, C) -> same; `valid` is bool (B, L)."""
        q = rearrange(self.q_norm(self.q_proj(x)), "b l (h d) -> b h l d", h=self.heads)
        k, v = self.k_norm(self.k_proj(x)), self.v_proj(x)
        shared = self.heads // self.kv_heads
        k, v = (repeat(y, "b l (g d) -> b (g s) l d", g=self.kv_heads, s=shared) for y in (k, v))
        gates = rearrange(F.logsigmoid(self.f_proj(x).float()), "b l h -> b h l")
        # Differences of large sums need float32. Autocast does not know the meta device.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            q, k, v = (_both_directions(y.float(), 2) for y in (q, k, v))
            mixed = causal_forgetting_attention(q, k, v, _both_directions(gates, 2), _both_directions(valid, 1))
        ahead, back = rearrange(mixed, "b h l d -> b l (h d)").chunk(2)
        return self.o_proj(torch.cat((ahead, back.flip(1)), -1))


def _both_directions(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return a batch of x and x reversed along an axis: (B, ...) -> (2 B, ...)."""
    return torch.cat((x, x.flip(axis)))


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
