"""Event2Vec v2 for event streams (arXiv 2504.15371 v2), after its authors' published code.

State dicts have the published keys and shapes, and the parameter counts are those of the authors' logs (ASL-DVS 91.8 k,
DVS Gesture 844 k). No weights were published, and the published accuracies were not measured here.

Its attention is bidirectional gated linear attention (GLA, arXiv 2312.06635). Each head has a matrix as its state:
S_i = diag(exp(g_i)) S_(i-1) + k_i v_i^T with learned g_i <= 0, and the output q_i^T S_i / sqrt(K); once over the events
in order and once, with the same weights, in reverse. Unlike the authors' code, the output gate of the reverse direction
is that of the event itself. Theirs is taken, in the order of a whole batch, from the mirrored position, so that results
depend on the other recordings of the batch.

Notation: B recordings, L events, C channels, H heads, K and V channels of the keys and values of a head, T events of a
chunk.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.event2vec_coordinates import (
    CoordinateNetwork,
    Encoder,
    EventClassifier,
    check_settings,
    mean_of_pairs,
)
from slowfast.models.protocol import MODEL_REGISTRY

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode

EPS = 1e-5  # epsilon of the norm, as published
LOW_RANK, NORMALIZER = 16, 16  # channels between the two gate projections; divisor of the logarithms of the gates
CHUNK = 16  # events whose pairs are computed at once; exponents stay in the range of float32


def gated_linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_gate: torch.Tensor) -> torch.Tensor:
    """Return q_i^T S_i of each event, chunk by chunk.

    Within a chunk, exp of the sum of gates between two events is a product of a factor of each, both relative to the
    middle of the chunk; between chunks, the state is carried.

    Args:
        q: Queries (B, H, L, K), float32, already scaled.
        k: Keys (B, H, L, K), 0 for events that do not take part.
        v: Values (B, H, L, V).
        log_gate: Logarithms of the gates, (B, H, L, K), 0 for events that do not take part.

    Returns:
        float32 (B, H, L, V).
    """
    length = q.shape[2]
    q, k, v, log_gate = (
        F.pad(x, (0, 0, 0, -length % CHUNK)).unflatten(2, (-1, CHUNK)) for x in (q, k, v, log_gate)
    )  # B H N T C
    sums = log_gate.cumsum(3)
    total = sums[:, :, :, -1:]
    from_middle = sums - total / 2
    pairs = (q * from_middle.exp()) @ (k * (-from_middle).exp()).transpose(-1, -2)
    within = pairs.tril() @ v
    added = (k * (total - sums).exp()).transpose(-1, -2) @ v  # B H N K V: what each chunk adds to the state
    kept = total.exp().transpose(-1, -2)  # B H N K 1
    state, before = torch.zeros_like(added[:, :, 0]), []
    for chunk in range(added.shape[2]):
        before.append(state)
        state = kept[:, :, chunk] * state + added[:, :, chunk]
    across = (q * sums.exp()) @ torch.stack(before, 2)
    return (within + across).flatten(2, 3)[:, :, :length]


class GatedRMSNorm(nn.Module):
    """RMS norm of each head times the swish of a gate: x, gate (..., V) -> same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, EPS) * F.silu(gate)


class BiGatedLinearAttention(nn.Module):
    """Bidirectional gated linear attention with shared weights; both directions are concatenated and projected.

    Args:
        dim: Channels of a token.
        heads: Number of heads.
        expand: Channels of all keys and of all values, relative to `dim`.
    """

    def __init__(self, dim: int, heads: int, expand: float) -> None:
        super().__init__()
        inner = int(dim * expand)
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.g_proj = (nn.Linear(dim, inner, bias=False) for _ in range(4))
        self.gk_proj = nn.Sequential(nn.Linear(dim, LOW_RANK, bias=False), nn.Linear(LOW_RANK, inner))
        self.o_proj = nn.Linear(2 * inner, dim, bias=False)
        self.g_norm_swish_gate = GatedRMSNorm(inner // heads)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the attention of tokens (B, L, C) -> same; `valid` is bool (B, L)."""
        kept = valid[:, None, :, None]
        q, k, v = (self._by_head(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        gates = F.logsigmoid(self._by_head(self.gk_proj(x)).float()) / NORMALIZER
        # Exponents need float32. Autocast does not know the meta device.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            values = (q.float() * q.shape[-1] ** -0.5, k.float() * kept, v.float(), gates * kept)
            mixed = gated_linear_attention(*(torch.cat((y, y.flip(2))) for y in values))
        ahead, back = mixed.chunk(2)
        gate = self._by_head(self.g_proj(x))
        sides = [rearrange(self.g_norm_swish_gate(y, gate), "b h l v -> b l (h v)") for y in (ahead, back.flip(2))]
        return self.o_proj(torch.cat(sides, -1))

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, "b l (h c) -> b h l c", h=self.heads)


@MODEL_REGISTRY.register()
class Event2VecV2(CoordinateNetwork):
    """Event2Vec v2 for event streams, see :class:`~slowfast.models.event2vec_coordinates.CoordinateNetwork`.

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
